"""process_session(): all images of one person, one request, one result for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sct_deepspine.errors import NoDiscsError, RequestError, UncertainError
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.disc_labels import GivenLabels
from sct_deepspine.io.identity import same_box
from sct_deepspine.io.images import ImageLike, read_one_volume
from sct_deepspine.labeling.checks import read_scan
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.labeling.session import SessionLabels, label_session
from sct_deepspine.labels import DiscLabels
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.segmentation.pipeline import segment_spine
from sct_deepspine.workflow.given import as_looked, read_given_of_any
from sct_deepspine.workflow.request import LabelSource, ScanRequest
from sct_deepspine.workflow.result import ScanResult
from sct_deepspine.workflow.scan import NO_MASKS, process_scan

__all__ = ["SessionResult", "process_jobs", "process_session", "refuse_uncertain"]

Models = tuple[LabelingModel, SegmentationModel | None]

OF_ONE_IMAGE = "cord", "centerline"
"""What can be asked for one image only."""


@dataclass(frozen=True, eq=False)
class SessionResult:
    """What came of a session.

    Parameters
    ----------
    scans
        The result of each image, in the order given; localizers have none.
    session
        How the images were levelled.
    """

    scans: tuple[ScanResult, ...]
    session: SessionLabels

    def record(self, n: int, names: Sequence[str]) -> dict[str, Any]:
        """Return what the sidecar of an image says of the session."""
        return {"images": list(names), "index": n, **self.session.as_dict()}


def process_session(
    images: Sequence[ImageLike],
    request: ScanRequest | None = None,
    *,
    localizers: Sequence[ImageLike] = (),
    names: Sequence[str] | None = None,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
) -> SessionResult:
    """Label the images of one person together, and segment them, as it is asked for.

    Parameters
    ----------
    images
        Images in scanner coordinates; see :func:`sct_deepspine.label_session`.
    request
        What is asked for. Anchors and a slice are those of the first image, labels and edits those of the
        image that shows most of them; they hold for all.
    localizers
        Further images of the person, which help to tell the levels and get no result.
    names
        What notes call the images and localizers.
    model, mask_model
        Loaded models instead of the shipped ones.

    Raises
    ------
    RequestError
        If something is asked for that is of one image only.
    DeepSpineError
        As :func:`sct_deepspine.label_session` and :func:`sct_deepspine.process_scan` raise them.
    """
    request = request or ScanRequest()
    for name in OF_ONE_IMAGE:
        if getattr(request, name) is not None:
            raise RequestError(f"{name} is of one image: label that image by itself")
    model = model or LabelingModel.load()
    volumes = [read_scan(read_one_volume(image)) for image in (*images, *localizers)]
    requests = [replace(request, anchors=None, anchor_slice=None, edits=None, labels=None)] * len(images)
    given: dict[int, DiscLabels] = {}
    known = _image_with_levels(request, volumes[: len(images)], images)
    if known is not None:
        n, requests[n] = known
        plain = replace(requests[n], masks=False, upper=False, min_confidence=0.0)
        given[n] = process_scan(volumes[n], plain, model=model).labels
    found = _together(volumes, images, requests, given, names, (model, mask_model))
    for n, scan in enumerate(found.scans):
        refuse_uncertain(scan, names[n] if names else f"image {n + 1}")
    return found


def process_jobs(
    volumes: Sequence[Volume],
    requests: Sequence[ScanRequest],
    *,
    names: Sequence[str],
    models: Models,
) -> SessionResult:
    """Label the images of one person together, with a request for each.

    Labels that a person checked of one of them hold for all; that image then keeps them as they are. How sure
    the levels must be is for the caller to check, image by image (:func:`refuse_uncertain`).
    """
    model, _ = models
    given = {
        n: process_scan(volume, replace(request, masks=False, upper=False), model=model).labels
        for n, (volume, request) in enumerate(zip(volumes, requests, strict=True))
        if request.labels is not None
    }
    return _together(volumes, volumes, requests, given, names, models)


def _together(
    volumes: Sequence[Volume],
    images: Sequence[ImageLike],
    requests: Sequence[ScanRequest],
    given: Mapping[int, DiscLabels],
    names: Sequence[str] | None,
    models: Models,
) -> SessionResult:
    """Label volumes as one spine, and return a result for each of the first, which ``images`` are."""
    session = label_session(
        volumes,
        anchors={n: _anchors(labels) for n, labels in given.items()},
        names=names,
        weights=models[0],
        label=partial(label_discs, return_maps=any(request.maps for request in requests)),
    )
    scans = [
        _result(volumes[n], image, given.get(n, session.images[n]), request, models)
        for n, (image, request) in enumerate(zip(images, requests, strict=True))
    ]
    return SessionResult(tuple(scans), session)


def _image_with_levels(
    request: ScanRequest, volumes: Sequence[Volume], images: Sequence[ImageLike]
) -> tuple[int, ScanRequest] | None:
    """Return about which image a person knows something, and the request for it; None if about none."""
    if request.anchors is not None or request.anchor_slice is not None:
        return 0, request
    if request.labels is not None:
        n, labels = _image_of_labels(request.labels, volumes, images)
        return n, replace(request, labels=labels)
    if request.edits is not None:
        n, labels = _image_of_labels(request.edits, volumes, images)
        return n, replace(request, edits=labels)
    return None


def _image_of_labels(
    source: LabelSource, volumes: Sequence[Volume], images: Sequence[ImageLike]
) -> tuple[int, GivenLabels]:
    """Return which image labels are about, and the labels.

    It is the one that they were made on, as far as they record it, else the one in which most of them lie.
    """
    n, labels = read_given_of_any(source, images)
    made_on = labels.made_on.grid if labels.made_on is not None else labels.grid
    fitting = [k for k in range(len(images)) if made_on and same_box(volumes[k].grid, made_on)]
    if fitting:
        return fitting[0], labels
    points = np.array([point for _, point in labels.points]).reshape(-1, 3)
    shown = [int(v.grid.contains_voxel(v.grid.voxel_from_world(points)).sum()) for v in volumes]
    if not any(shown) and not labels.complete:
        raise RequestError("the labels lie in none of the images; do they belong together?")
    return max(range(len(images)), key=lambda k: (shown[k], k == n)), labels


def _anchors(labels: DiscLabels) -> dict[int, FloatArray]:
    seen = {disc.value: disc.point_world for disc in labels.discs if not disc.interpolated}
    return as_looked(seen, labels.presacral)


def _result(
    volume: Volume,
    image: ImageLike,
    labels: DiscLabels,
    request: ScanRequest,
    models: Models,
) -> ScanResult:
    """Return the result of one image, with masks if they are asked for and a spine is in it."""
    if request.upper:
        labels = labels.with_upper_discs()
    masks = None
    model, mask_model = models
    if request.masks and labels.discs:
        try:
            masks = segment_spine(volume, labels=labels, weights=mask_model, labeling=model)
            labels = replace(labels, warnings=masks.warnings)
        except NoDiscsError as error:
            labels = replace(labels, warnings=(*labels.warnings, f"{NO_MASKS}: {error}"))
    return ScanResult(volume, labels, masks, request).with_source(image)


def refuse_uncertain(scan: ScanResult, name: str) -> None:
    """Refuse levels that are less certain than was asked for.

    Raises
    ------
    UncertainError
        If they are.
    """
    confidence, least = scan.labels.level_confidence, scan.request.min_confidence
    if scan.labels.discs and confidence < least:
        raise UncertainError(
            f"the levels of {name} are less certain than asked for ({confidence:.4g} < {least:g}); "
            "give the level of one disc"
        )
