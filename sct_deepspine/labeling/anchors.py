"""Discs whose level the user knows, and the candidates they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import label

from sct_deepspine.anatomy import disc_name
from sct_deepspine.errors import AnchorError, ImageError
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import label_centres
from sct_deepspine.io.images import ImageLike, read_volume
from sct_deepspine.labeling.levels import Candidates
from sct_deepspine.labels import Disc, DiscLabels

__all__ = [
    "Anchors",
    "Corrections",
    "anchor_at_slice",
    "anchors_from_labels",
    "as_anchors",
    "match_anchors",
    "read_corrections",
]

Anchors = Mapping[int, ArrayLike] | tuple[int, ArrayLike]
"""``{value: point}`` or one ``(value, point)``; points in world mm, NaN where not known."""

NEAR_MM = 12.0
"""An anchor means the nearest candidate within this distance; else it is a disc that was not seen."""

ANCHOR_SCORE = 0.9

EDIT_SHARE = 0.7
"""A label file with at least this share of the automatic discs, and three, is an edited copy of them."""

MOVED_MM = 2.0
"""A disc this far from where it was put automatically has been moved by hand; or a voxel's diagonal."""


def as_anchors(anchor: Anchors | None) -> dict[int, FloatArray]:
    """Return anchors as value → ``(3,)`` point.

    Raises
    ------
    AnchorError
        If it is neither form, or a point is not three numbers with at least one known.
    """
    if anchor is None:
        return {}
    pairs = anchor.items() if isinstance(anchor, Mapping) else [anchor]
    out: dict[int, FloatArray] = {}
    try:
        for value, place in pairs:
            point = np.asarray(place, dtype=np.float64)
            if point.shape != (3,) or np.isnan(point).all() or np.isinf(point).any():
                raise AnchorError(f"anchor {value}: expected a world point (x, y, z), got {place!r}")
            out[int(value)] = point
    except (TypeError, ValueError) as error:
        if isinstance(error, AnchorError):
            raise
        raise AnchorError(
            f"expected an anchor (value, (x, y, z)) or {{value: (x, y, z)}}, got {anchor!r}"
        ) from error
    return out


def anchor_at_slice(value: int, slice_index: int, volume: Volume) -> dict[int, FloatArray]:
    """Make an anchor of a slice number, counted from the inferior end as SCT counts.

    Raises
    ------
    AnchorError
        If the image has no such slice.
    """
    grid = volume.as_ras().grid
    if not 0 <= slice_index < grid.shape[2]:
        raise AnchorError(
            f"slice {slice_index} does not exist; slices run from 0 (inferior) to {grid.shape[2] - 1}"
        )
    middle = (np.array(grid.shape) - 1) / 2
    z = grid.world_from_voxel([middle[0], middle[1], slice_index])[0, 2]
    return {int(value): np.array([np.nan, np.nan, z])}


def anchors_from_labels(image: ImageLike) -> dict[int, FloatArray]:
    """Read anchors from a label image: each value at the centre of its voxels.

    Raises
    ------
    AnchorError
        If the image holds no label.
    """
    try:
        return label_centres(image)
    except ImageError as error:
        raise AnchorError(str(error)) from error


@dataclass(frozen=True)
class Corrections:
    """What a person's label file says beyond the automatic labels.

    Parameters
    ----------
    anchors
        Value → world point of discs whose level is told; the others follow.
    places
        Value → world point of discs that were put somewhere by hand.
    removed
        Automatic values that are in the file no more.
    """

    anchors: dict[int, FloatArray]
    places: dict[int, FloatArray]
    removed: frozenset[int] = frozenset()


def read_corrections(image: ImageLike, automatic: DiscLabels) -> Corrections:
    """Compare a person's label file with the automatic labels.

    A file with a few labels is taken at its word: each is an anchor. An edited copy of the automatic labels
    is compared with them: a disc that bears another value is an anchor, one that was moved stays where it
    was put, and what was left as it was says nothing.

    Raises
    ------
    AnchorError
        If the file holds no label, or one value at two places and both are new.
    """
    volume = read_volume(image)
    entries = _labelled_points(volume)
    tolerance = max(MOVED_MM, float(np.linalg.norm(volume.grid.spacing_mm)))
    nearest = [_nearest(automatic, point) for _, point in entries]
    seen = {disc.value for disc in nearest if disc is not None}
    if len(entries) < 3 or len(seen) < EDIT_SHARE * len(automatic.discs):
        anchors = _unique(entries)
        return Corrections(anchors, anchors)
    pairs = list(zip(entries, nearest, strict=True))
    told = _unique([entry for entry, disc in pairs if disc is None or disc.value != entry[0]])
    moved = _unique(
        [
            (value, point)
            for (value, point), disc in pairs
            if disc is not None
            and disc.value == value
            and np.linalg.norm(disc.point_world - point) > tolerance
        ]
    )
    # A told level moves the values of all; places given under the old values then mean nothing.
    places = told if told else moved
    return Corrections(told, places, frozenset(automatic.values.tolist()) - seen)


def _labelled_points(volume: Volume) -> list[tuple[int, FloatArray]]:
    """Return value and world centre of each connected group of equal voxels."""
    labels = np.round(volume.data).astype(np.int64)
    out = []
    for value in np.unique(labels[labels > 0]):
        groups, count = label(labels == value, structure=np.ones((3, 3, 3)))
        centres = [np.argwhere(groups == group).mean(axis=0) for group in range(1, count + 1)]
        out += [(int(value), point) for point in volume.grid.world_from_voxel(np.array(centres))]
    if not out:
        raise AnchorError("the label image holds no label")
    return out


def _nearest(labels: DiscLabels, point: FloatArray) -> Disc | None:
    distance = np.linalg.norm(labels.points_world - point, axis=1)
    return labels.discs[int(distance.argmin())] if len(distance) and distance.min() <= NEAR_MM else None


def _unique(entries: list[tuple[int, FloatArray]]) -> dict[int, FloatArray]:
    values = [value for value, _ in entries]
    for value in values:
        if values.count(value) > 1:
            raise AnchorError(f"the label file has the value {value} at two places; which one is it?")
    return dict(entries)


def _distance_along_known(points: FloatArray, anchor: FloatArray, grid: Grid) -> FloatArray:
    known = np.isfinite(anchor)
    offset = (points - np.where(known, anchor, grid.middle_world)) @ grid.axes
    return np.linalg.norm(offset[:, known], axis=1)


def match_anchors(
    candidates: Candidates, anchors: dict[int, FloatArray], grid: Grid
) -> tuple[Candidates, dict[int, int]]:
    """Find each anchor's candidate, or add one where nothing was seen.

    Distance counts along the known coordinates only. In an oblique image these are told at its middle and
    count along its axes, so that a slice's height means the slice.

    Parameters
    ----------
    candidates
        Superior to inferior.
    anchors
        Value → ``(3,)`` world, NaN where not known.
    grid
        Of the image, its voxel axes running right, anterior and superior.

    Returns
    -------
    candidates
        In the order given, or superior to inferior where some were added.
    clamped
        Candidate index → value.

    Raises
    ------
    AnchorError
        If two anchors mean one candidate, an anchor's value can't be labelled, or an anchor that is
        not a whole point is near no candidate.
    """
    levels = candidates.level.shape[1]
    last = candidates.first_value + levels - 1
    given, meant = len(candidates.score), dict[int, int]()
    for value, point in anchors.items():
        if not candidates.first_value <= value <= last:
            raise AnchorError(
                f"anchor {value}: give a disc from {candidates.first_value} "
                f"({disc_name(candidates.first_value)}) to {last} ({disc_name(last)})"
            )
        distance = _distance_along_known(candidates.points, point, grid)
        if len(distance) and distance.min() <= NEAR_MM:
            index = int(distance.argmin())
        elif np.isfinite(point).all():
            index = len(candidates.score)
            candidates = replace(
                candidates,
                points=np.vstack([candidates.points.reshape(-1, 3), point]),
                score=np.append(candidates.score, ANCHOR_SCORE),
                level=np.vstack([candidates.level, np.full(levels, 1 / levels)]),
            )
        else:
            place = f"near {point[2]:.0f} mm" if np.isfinite(point[2]) else "near it"
            raise AnchorError(f"anchor {value}: no disc was seen {place}; give its three coordinates")
        if index in meant:
            raise AnchorError(f"anchors {meant[index]} and {value} mean the same disc")
        meant[index] = value
    if len(candidates.score) == given:
        return candidates, meant
    order = np.argsort(-candidates.points[:, 2], kind="stable")
    ordered = replace(
        candidates,
        points=candidates.points[order],
        score=candidates.score[order],
        level=candidates.level[order],
    )
    return ordered, {int(np.nonzero(order == index)[0][0]): value for index, value in meant.items()}
