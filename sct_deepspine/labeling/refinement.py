"""The fine stage: candidates in the straightened spine, with the levels of both stages."""

from __future__ import annotations

import numpy as np

from sct_deepspine.geometry.planes import SLAB_MM, normalise, sample, straightened_plane
from sct_deepspine.geometry.straightening import StraighteningTransform
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.labeling.heatmaps import DiscMaps, DiscPredictor, PlanePrediction
from sct_deepspine.labeling.levels import Candidates

__all__ = ["refine_candidates"]

PLANE_MARGIN_MM = 30.0
"""Rows of the straightened plane beyond both ends of the centreline."""

SEPARATION_CELLS = 3
"""Peaks of the fine map nearer to each other than this are one disc."""

REACH_MM = 9.0
"""A coarse candidate that is farther than this from every fine one is kept as it is."""

FINE_LEVEL_POWER = 0.5
"""Weight of the fine stage's levels: it sees less context than the coarse one. Chosen on ``val``."""

LEVEL_FLOOR = 1e-4
"""Least probability of a level in either stage, so that neither alone can exclude it."""


def refine_candidates(
    view: DeobliquedVolume,
    space: StraighteningTransform,
    *,
    coarse: PlanePrediction,
    candidates: Candidates,
    predictor: DiscPredictor,
) -> Candidates:
    """Find the candidates anew in the straightened spine.

    Parameters
    ----------
    view
        The volume, at full resolution.
    space
        The straight space.
    coarse
        What the coarse network predicted.
    candidates
        The candidates found on it; those that the fine stage does not see are kept.
    predictor
        The fine network.

    Returns
    -------
    Candidates
        World points, superior to inferior. A score is the geometric mean of both stages' peaks, a
        level the product of both stages' levels.
    """
    bottom, top = space.z_mm
    plane = straightened_plane(
        space, (bottom - PLANE_MARGIN_MM, top + PLANE_MARGIN_MM), predictor.pixel_mm, axes=view.axes
    )
    image = normalise(*sample(view.volume, plane, slab_mm=SLAB_MM))
    maps: DiscMaps = predictor.predict([image])[0]
    cells, score, level = predictor.codec.decode(maps, separation=SEPARATION_CELLS)
    points = plane.world_from_pixel(predictor.codec.pixel_from_cell(cells))
    inside = view.volume.grid.contains_voxel(view.volume.grid.voxel_from_world(points))
    points, score, level = points[inside], score[inside], level[inside]
    if not len(points):
        return candidates
    coarse_score, coarse_level = coarse.at(points)
    joint = (coarse_level + LEVEL_FLOOR) * (level + LEVEL_FLOOR) ** FINE_LEVEL_POWER
    distance = np.linalg.norm(candidates.points[:, None] - points, axis=2)
    unseen = distance.min(axis=1) > REACH_MM
    points = np.vstack([points, candidates.points[unseen]])
    score = np.append(np.sqrt(score * coarse_score), candidates.score[unseen])
    level = np.vstack([joint / joint.sum(axis=1, keepdims=True), candidates.level[unseen]])
    order = np.argsort(-view.heights_mm(points), kind="stable")
    return Candidates(points[order], score[order], level[order], candidates.first_value)
