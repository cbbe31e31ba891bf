"""process_scan(): one scan, one request, one result."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sct_deepspine.errors import NoDiscsError
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.disc_labels import GivenLabels
from sct_deepspine.io.images import ImageLike
from sct_deepspine.labeling.anchors import anchor_at_slice
from sct_deepspine.labeling.canal import given_centerline
from sct_deepspine.labeling.checks import read_scan
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.labels import DiscLabels
from sct_deepspine.segmentation.masks import SpineMasks
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.workflow.geometry import check_mask_space, geometry_notes
from sct_deepspine.workflow.given import (
    WRITTEN_VALUES,
    anchors_in_view,
    as_looked,
    checked_labels,
    compared_edits,
    edited_labels,
    read_given,
    with_landmarks,
)
from sct_deepspine.workflow.request import ScanRequest
from sct_deepspine.workflow.result import ScanResult

__all__ = ["NO_MASKS", "Models", "process_scan"]

logger = logging.getLogger(__name__)

Models = tuple[LabelingModel, SegmentationModel | None]
"""The networks of a run; those for masks only where masks are asked for."""

NO_MASKS = "no masks"
"""What the note begins with that says why no spine could be segmented about checked labels."""


def process_scan(
    image: ImageLike,
    request: ScanRequest | None = None,
    *,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
) -> ScanResult:
    """Label one scan, and segment it, as it is asked for.

    Parameters
    ----------
    image
        Path, nibabel image, SCT ``Image``, ``Volume`` or ``(array, affine)``; see
        :func:`sct_deepspine.label_discs`.
    request
        What is asked for; by default its labels.
    model, mask_model
        Loaded models instead of the shipped ones, which are read anew at each call.

    Returns
    -------
    ScanResult
        Labels, masks if they were asked for, and notes.

    Raises
    ------
    DeepSpineError
        One of its kinds, as :func:`sct_deepspine.label_discs` and :func:`sct_deepspine.segment_spine` raise
        them, and ``LabelsError`` for labels of a person that can't be used.

    Examples
    --------
    The whole correction loop, with ``result.labels`` as the automatic ones::

        result = process_scan("t2.nii.gz")
        result.save(".")                           # t2_discs.nii.gz, edited in any viewer
        result = process_scan("t2.nii.gz", ScanRequest(edits="t2_discs-edited.nii.gz"))
    """
    request = request or ScanRequest()
    model = model or LabelingModel.load()
    started = time.perf_counter()
    volume = read_scan(image)
    logger.debug("read %r in %.2f s", volume, time.perf_counter() - started)
    if request.cord is not None:
        check_mask_space(request.cord, image)
    request = _with_labels_read(request, image)
    started = time.perf_counter()
    try:
        labels = _labels(volume, request, model)
    except NoDiscsError as error:
        sentences = [str(error), *geometry_notes(image, volume.grid)]
        raise NoDiscsError("; ".join(sentences)) from error
    logger.debug("labelled in %.2f s: %s", time.perf_counter() - started, dict(labels.evidence))
    if request.upper:
        labels = labels.with_upper_discs()
    started = time.perf_counter()
    masks, notes = _masks(volume, labels, request, model, mask_model)
    if masks is not None:
        logger.debug("segmented in %.2f s: %r", time.perf_counter() - started, masks)
    labels = replace(labels, warnings=(*labels.warnings, *notes))
    return ScanResult(volume, labels, masks, request).with_source(image)


def _with_labels_read(request: ScanRequest, image: ImageLike) -> ScanRequest:
    """Return the request with the labels that a person made in place of their file."""
    if request.labels is not None:
        return replace(request, labels=read_given(request.labels, image))
    if request.edits is not None:
        return replace(request, edits=read_given(request.edits, image))
    return request


def _labels(volume: Volume, request: ScanRequest, model: LabelingModel) -> DiscLabels:
    """Return the labels that the request's way of telling the levels leads to."""
    options: dict[str, Any] = {
        "centerline": request.centerline or given_centerline(request.cord, None),
        "weights": model,
        "straight": request.straight,
        "return_maps": request.maps,
        "min_confidence": request.min_confidence,
    }
    if isinstance(request.labels, GivenLabels):
        return _checked(request.labels, volume, request, model)
    if isinstance(request.edits, GivenLabels):
        return _edited(request.edits, volume, options, request, model)
    if request.anchor_slice is not None:
        value, slice_index = request.anchor_slice
        return label_discs(volume, anchor=anchor_at_slice(value, slice_index, volume), **options)
    return label_discs(volume, anchor=request.anchors, **options)


def _checked(given: GivenLabels, volume: Volume, request: ScanRequest, model: LabelingModel) -> DiscLabels:
    """Take labels as they are, with what the networks see of the image, if they see a spine."""
    base: DiscLabels | None = None
    with suppress(NoDiscsError):  # a person may see what the networks don't
        base = label_discs(volume, weights=model, return_maps=request.maps)
    return checked_labels(given, volume, base=base)


def _edited(
    given: GivenLabels,
    volume: Volume,
    options: dict[str, Any],
    request: ScanRequest,
    model: LabelingModel,
) -> DiscLabels:
    """Label with what a person says: an edited copy of the automatic labels, or labels of another scan."""
    if given.complete:
        return _checked(given, volume, request, model)
    automatic = label_discs(volume, **options | {"min_confidence": 0.0})
    corrections = compared_edits(given, automatic.with_upper_discs())
    if corrections is not None:
        return edited_labels(corrections, given, automatic)
    anchors, notes = anchors_in_view(given.points, volume.grid, given.presacral)
    anchors = as_looked(anchors, given.presacral)
    labels = label_discs(volume, anchor=anchors, **options)
    tips = {value: point for value, point in anchors.items() if value in WRITTEN_VALUES}
    labels = with_landmarks(labels.with_tips(tips), {})
    return replace(labels, warnings=(*labels.warnings, *notes))


def _masks(
    volume: Volume,
    labels: DiscLabels,
    request: ScanRequest,
    model: LabelingModel,
    mask_model: SegmentationModel | None,
) -> tuple[SpineMasks | None, tuple[str, ...]]:
    """Segment the scan if that is asked for, and say why it could not be where a person set the labels."""
    if not request.masks:
        return None, ()
    from sct_deepspine.segmentation.pipeline import segment_spine  # loads much that labels alone don't need

    try:
        masks = segment_spine(volume, labels=labels, weights=mask_model, labeling=model)
        return masks, tuple(note for note in masks.warnings if note not in labels.warnings)
    except NoDiscsError as error:
        if labels.view != "corrected":
            raise
        return None, (f"{NO_MASKS}: {error}",)
