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
from sct_deepspine.labeling.corrections import Corrections
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.labeling.session import SessionLabels, label_session
from sct_deepspine.labels import DiscLabels
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.segmentation.pipeline import segment_spine
from sct_deepspine.workflow.given import as_looked, compared_edits, edited_labels, read_given_by_image
from sct_deepspine.workflow.request import LabelSource, ScanRequest
from sct_deepspine.workflow.result import ScanResult
from sct_deepspine.workflow.scan import NO_MASKS, Models, process_scan

__all__ = ["SessionResult", "labels_alone", "process_jobs", "process_session", "refuse_uncertain"]

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
    volumes: Sequence[Volume] | None = None,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
) -> SessionResult:
    """Label the images of one person together, and segment them, as it is asked for.

    Parameters
    ----------
    images
        Images in scanner coordinates; see :func:`sct_deepspine.label_session`.
    request
        What is asked for. Anchors and a slice are those of the first image. Labels and edits are those of the
        image that they were made on, as far as they say so, else of the one that shows most of them; the file
        of the review page may hold some of several images. Their levels hold for all.
    localizers
        Further images of the person, which help to tell the levels and get no result.
    names
        What notes call the images and localizers.
    volumes
        What was read of the images and localizers, if that was done before.
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
    count = len(images) + len(localizers)
    if names is not None and len(names) != count:
        raise RequestError(f"expected {count} names, of the images and localizers, got {len(names)}")
    model = model or LabelingModel.load()
    if volumes is None:
        volumes = [read_scan(read_one_volume(image)) for image in (*images, *localizers)]
    known = _images_with_levels(request, volumes[: len(images)], images)
    others = replace(request, anchors=None, anchor_slice=None, edits=None, labels=None)
    requests = [known.get(n, others) for n in range(len(images))]
    session: SessionLabels | None = None
    given: dict[int, DiscLabels] = {}
    levelled: set[int] = set()
    for n, about in known.items():
        if isinstance(about.edits, GivenLabels) and not about.edits.complete:
            # Edits are changes of what the session shows, which has discs that the image alone has not.
            session = session or _label(volumes, {}, request, names, model)
            corrections = _edits(about.edits, session.images[n])
            if corrections is not None:
                edited = edited_labels(corrections, about.edits, session.images[n])
                given[n] = _without_notes(edited, session)  # the notes of the final session follow
                levelled |= {n} if corrections.shift else set()
                continue
        given[n] = labels_alone(volumes[n], about, model)
        levelled.add(n)
    if session is None or levelled:
        session = _label(volumes, {n: given[n] for n in levelled}, request, names, model)
    found = _results(session, volumes, images, requests, given, (model, mask_model))
    for n, scan in enumerate(found.scans):
        refuse_uncertain(scan, names[n] if names else f"image {n + 1}")
    return found


def process_jobs(
    volumes: Sequence[Volume],
    requests: Sequence[ScanRequest],
    checked: Mapping[int, DiscLabels],
    *,
    names: Sequence[str],
    models: Models,
) -> SessionResult:
    """Label the images of one person together, with a request for each.

    Labels that a person checked of some of them, by :func:`labels_alone`, hold for all; those images keep
    them as they are. How sure the levels must be is for the caller to check, image by image
    (:func:`refuse_uncertain`).
    """
    session = _label(volumes, checked, requests[0], names, models[0])
    return _results(session, volumes, volumes, requests, checked, models)


def labels_alone(volume: Volume, request: ScanRequest, model: LabelingModel) -> DiscLabels:
    """Return the labels of one image about which a person knows something, whatever the others show."""
    plain = replace(request, masks=False, upper=False, min_confidence=0.0)
    return process_scan(volume, plain, model=model).labels


def _label(
    volumes: Sequence[Volume],
    levelled: Mapping[int, DiscLabels],
    request: ScanRequest,
    names: Sequence[str] | None,
    model: LabelingModel,
) -> SessionLabels:
    """Label volumes as one spine, with levels that a person knows of images in which a spine is seen."""
    return label_session(
        volumes,
        anchors={n: _anchors(labels) for n, labels in levelled.items() if labels.canal is not None},
        names=names,
        weights=model,
        label=partial(label_discs, return_maps=request.maps, straight=request.straight),
    )


def _results(
    session: SessionLabels,
    volumes: Sequence[Volume],
    images: Sequence[ImageLike],
    requests: Sequence[ScanRequest],
    given: Mapping[int, DiscLabels],
    models: Models,
) -> SessionResult:
    """Return a result for each of the images, which the first volumes were read of."""
    scans = []
    for n, (image, request) in enumerate(zip(images, requests, strict=True)):
        labels = session.images[n]
        if n in given:
            own = [note.sentence for note in session.notes if n in note.images]
            new = [sentence for sentence in own if sentence not in given[n].warnings]
            labels = replace(given[n], warnings=(*given[n].warnings, *new))
        scans.append(_result(volumes[n], image, labels, request, models))
    return SessionResult(tuple(scans), session)


def _without_notes(labels: DiscLabels, session: SessionLabels) -> DiscLabels:
    """Return the labels of an image without what its session says of it."""
    of_session = {note.sentence for note in session.notes}
    return replace(labels, warnings=tuple(text for text in labels.warnings if text not in of_session))


def _edits(given: GivenLabels, automatic: DiscLabels) -> Corrections | None:
    """Return how the labels of an image in its session were edited, if labels are an edited copy of these."""
    return compared_edits(given, automatic.with_upper_discs()) if automatic.discs else None


def _images_with_levels(
    request: ScanRequest, volumes: Sequence[Volume], images: Sequence[ImageLike]
) -> dict[int, ScanRequest]:
    """Return about which images a person knows something, and the request for each of them."""
    if request.anchors is not None or request.anchor_slice is not None:
        return {0: request}
    if request.labels is not None:
        given = _labels_by_image(request.labels, volumes, images)
        return {n: replace(request, labels=labels) for n, labels in given.items()}
    if request.edits is not None:
        given = _labels_by_image(request.edits, volumes, images)
        return {n: replace(request, edits=labels) for n, labels in given.items()}
    return {}


def _labels_by_image(
    source: LabelSource, volumes: Sequence[Volume], images: Sequence[ImageLike]
) -> dict[int, GivenLabels]:
    """Return which images labels are about, and the labels of each.

    Of those that they may be about (:func:`.read_given_by_image`) it is the one with the same grid, else the
    one in which most of them lie; only the file of the review page is about several.
    """
    found = read_given_by_image(source, images)
    if all(labels.complete for labels in found.values()):
        return found
    labels = next(iter(found.values()))  # the same for all that they may be about
    made_on = labels.made_on.grid if labels.made_on is not None else labels.grid
    points = np.array([point for _, point in labels.points])
    shown = {
        n: int(volumes[n].grid.contains_voxel(volumes[n].grid.voxel_from_world(points)).sum()) for n in found
    }
    if not any(shown.values()):
        raise RequestError("the labels lie in none of the images; do they belong together?")
    fits = {n: made_on is not None and same_box(volumes[n].grid, made_on) for n in found}
    chosen = max(found, key=lambda n: (fits[n], shown[n], -n))
    return {chosen: found[chosen]}


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
