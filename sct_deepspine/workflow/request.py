"""What can be asked of one scan: the same from the shell, from a batch and from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sct_deepspine.errors import RequestError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.straightening import StraighteningTransform
from sct_deepspine.io.disc_labels import GivenLabels
from sct_deepspine.io.images import ImageLike
from sct_deepspine.labeling.anchors import Anchors
from sct_deepspine.labels import DiscLabels

__all__ = ["LabelSource", "ScanRequest"]

LabelSource = ImageLike | GivenLabels | DiscLabels | Mapping[int, Any]
"""Labels that a person made; see :func:`sct_deepspine.workflow.given.read_given`."""

LEVEL_SOURCES = "anchors", "anchor_slice", "edits", "labels"
"""Of what a person knows of the levels, one can be given at a time."""


@dataclass(frozen=True, kw_only=True)
class ScanRequest:
    """What is asked for.

    Parameters
    ----------
    anchors
        Discs whose level is known, ``{value: (x, y, z)}`` world mm; the others follow.
    anchor_slice
        The same as ``(value, slice)``, the slice counted from the inferior end.
    edits
        The automatic labels, edited: rename one and the others follow, move one and it stays, remove one and
        it stays away. Labels that are no edited copy, such as those of another scan of the session, are taken
        as anchors; labels that the review page saved are taken as they are.
    labels
        All discs of this scan as a person checked them: taken as they are.
    cord
        Cord mask on any grid. The centreline is taken from it, unless one is given, and discs beside it only
        are given to the registration.
    centerline
        The centreline itself.
    straight
        How to straighten; see :func:`sct_deepspine.label_discs`.
    upper
        Whether to add C1/C2 and the top of C1: where they were seen, else extrapolated.
    masks
        Whether to segment cord, canal, vertebrae and discs, too.
    maps
        Whether to keep what the network saw and predicted, which pictures are made of.
    min_confidence
        Refuse levels less certain than this, 0 to 1.

    Raises
    ------
    RequestError
        If two things exclude each other, or a number is out of its range.

    Examples
    --------
    >>> ScanRequest(anchor_slice=(3, 142), edits={8: (0, 0, 0)})
    Traceback (most recent call last):
        ...
    sct_deepspine.errors.RequestError: give anchor_slice or edits, not both: each says what the levels are
    """

    anchors: Anchors | None = None
    anchor_slice: tuple[int, int] | None = None
    edits: LabelSource | None = None
    labels: LabelSource | None = None
    cord: ImageLike | None = None
    centerline: Centerline | None = None
    straight: str | Centerline | StraighteningTransform = field(default="auto")
    upper: bool = False
    masks: bool = False
    maps: bool = False
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        given = [name for name in LEVEL_SOURCES if getattr(self, name) is not None]
        if len(given) > 1:
            raise RequestError(f"give {given[0]} or {given[1]}, not both: each says what the levels are")
        if not isinstance(self.min_confidence, (int, float)) or not 0 <= self.min_confidence <= 1:
            raise RequestError(f"expected min_confidence from 0 to 1, got {self.min_confidence!r}")
        if self.anchor_slice is not None and not _is_pair_of_integers(self.anchor_slice):
            raise RequestError(f"expected anchor_slice as (value, slice), got {self.anchor_slice!r}")


def _is_pair_of_integers(given: Any) -> bool:
    return np.shape(given) == (2,) and np.issubdtype(np.asarray(given).dtype, np.integer)
