"""Discs whose level the user knows, and the candidates they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sct_deepspine.anatomy import disc_name
from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.centerline import Centerline, distance_from_line_mm
from sct_deepspine.geometry.grid import FloatArray, Grid, point_text
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.levels import Candidates

__all__ = [
    "MAX_TIP_MM",
    "Anchors",
    "anchor_at_slice",
    "as_anchors",
    "check_anchor_places",
    "match_anchors",
]

Anchors = Mapping[int, ArrayLike] | tuple[int, ArrayLike]
"""``{value: point}`` or one ``(value, point)``; points in world mm, NaN where not known."""

NEAR_MM = 12.0
"""An anchor means the nearest candidate within this distance; else it is a disc that was not seen."""

ANCHOR_SCORE = 0.9
"""Score, from 0 to 1, of a disc that an anchor names and the network did not find."""


MAX_TIP_MM = 40.0
"""What a person gives as a posterior tip is no farther than this from the canal; tips lie 6 to 15 mm before
it."""


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


def _distance_along_known(points: FloatArray, anchor: FloatArray, grid: Grid) -> FloatArray:
    known = np.isfinite(anchor)
    offset = (points - np.where(known, anchor, grid.middle_world)) @ grid.axes
    return np.linalg.norm(offset[:, known], axis=1)


def match_anchors(
    candidates: Candidates, anchors: dict[int, FloatArray], grid: Grid
) -> tuple[Candidates, dict[int, int]]:
    """Find each anchor's candidate, or add one where nothing was seen.

    Distance counts along the known coordinates only. In an oblique image these are measured at its middle and
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
                f"the value {value} can't be labelled; give a disc from {candidates.first_value} "
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


def check_anchor_places(anchors: Mapping[int, FloatArray], volume: Volume, canal: Centerline) -> None:
    """Refuse an anchor whose whole point lies outside the image or far from the spine.

    Raises
    ------
    AnchorError
        If one lies outside the image, or farther than :data:`MAX_TIP_MM` from the canal.
    """
    for value, point in anchors.items():
        if not np.isfinite(point).all():
            continue
        place = point_text(point)
        if not volume.grid.contains_voxel(volume.grid.voxel_from_world(point))[0]:
            raise AnchorError(
                f"anchor {value}: {place} mm lies outside the image; give world RAS+ coordinates"
            )
        distance = float(distance_from_line_mm(point[None], canal)[0])
        if distance > MAX_TIP_MM:
            raise AnchorError(
                f"anchor {value}: {place} mm lies {distance:.0f} mm from the spine that was found; "
                "give the posterior tip of the disc"
            )
