"""The second, fine look: candidates in the straightened spine, with the levels of both looks."""

from __future__ import annotations

import numpy as np

from sct_deepspine.geometry.planes import (
    SLAB_MM,
    normalise,
    sample,
    straight_sheet,
)
from sct_deepspine.geometry.straightening import PointMap
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.heatmaps import DrawnSheet
from sct_deepspine.labeling.levels import Candidates
from sct_deepspine.models.predictor import Artist

__all__ = ["look_again"]


BEYOND_MM = 30.0
"""Rows of the straight sheet beyond both ends of the centreline."""

SEPARATION_CELLS = 3
REACH_MM = 9.0
"""A coarse candidate that is farther than this from every fine one is kept as it is."""

FINE_LEVEL_POWER = 0.5
"""Weight of the fine look's levels: it is drawn on less context than the coarse one's."""

LEVEL_FLOOR = 1e-4


def look_again(
    volume: Volume,
    space: PointMap,
    *,
    coarse: DrawnSheet,
    found: Candidates,
    artist: Artist,
) -> Candidates:
    """Find the candidates anew in the straightened spine.

    Parameters
    ----------
    volume
        In RAS order.
    space
        The straight space.
    coarse
        What the coarse network drew.
    found
        The candidates found on it; those that the fine look does not see are kept.
    artist
        The fine network.

    Returns
    -------
    Candidates
        World points, superior to inferior. A strength is the geometric mean of both looks' peaks, a
        level the product of both looks' levels.
    """
    bottom, top = space.z_mm
    sheet = straight_sheet(space, (bottom - BEYOND_MM, top + BEYOND_MM), artist.pixel_mm)
    plane = normalise(*sample(volume, sheet, slab_mm=SLAB_MM))
    cells, strength, level = artist.codec.decode(artist.draw([plane])[0], separation=SEPARATION_CELLS)
    points = sheet.world_from_pixel(artist.codec.pixel_from_cell(cells))
    inside = volume.grid.contains_voxel(volume.grid.voxel_from_world(points))
    points, strength, level = points[inside], strength[inside], level[inside]
    if not len(points):
        return found
    coarse_strength, coarse_level = coarse.at(points)
    joint = (coarse_level + LEVEL_FLOOR) * (level + LEVEL_FLOOR) ** FINE_LEVEL_POWER
    distance = np.linalg.norm(found.points[:, None] - points, axis=2)
    unseen = distance.min(axis=1) > REACH_MM
    points = np.vstack([points, found.points[unseen]])
    strength = np.append(np.sqrt(strength * coarse_strength), found.strength[unseen])
    level = np.vstack([joint / joint.sum(axis=1, keepdims=True), found.level[unseen]])
    order = np.argsort(-points[:, 2], kind="stable")
    return Candidates(points[order], strength[order], level[order], found.first_value)
