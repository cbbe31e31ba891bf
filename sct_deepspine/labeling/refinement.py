"""The fine stage: candidates in the straightened spine, with the levels of both stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SLAB_MM, SamplingPlane, normalise, sample, straightened_plane
from sct_deepspine.geometry.straightening import StraighteningTransform
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.heatmaps import DiscCodec, DiscMaps, DiscPredictor, PlanePrediction
from sct_deepspine.labeling.levels import Candidates

__all__ = ["StraightView", "refine_candidates"]

BEYOND_MM = 30.0
"""Rows of the straightened plane beyond both ends of the centreline."""

SEPARATION_CELLS = 3
REACH_MM = 9.0
"""A coarse candidate that is farther than this from every fine one is kept as it is."""

FINE_LEVEL_POWER = 0.5
"""Weight of the fine stage's levels: it sees less context than the coarse one. Chosen on ``val``."""

LEVEL_FLOOR = 1e-4


@dataclass(frozen=True)
class StraightView:
    """What the fine network sees of a spine: the mid-sagittal plane of the straight space, or three planes.

    Parameters
    ----------
    planes
        From left to right.
    image
        Normalised grey values, ``(rows, columns)`` of one plane or ``(planes, rows, columns)``.
    inside
        ``(planes, rows, columns)``, true where the image was read.
    codec
        Of the network.
    """

    planes: tuple[SamplingPlane, ...]
    image: NDArray[np.float32]
    inside: NDArray[np.bool_]
    codec: DiscCodec

    @classmethod
    def read(
        cls,
        volume: Volume,
        space: StraighteningTransform,
        z_mm: tuple[float, float],
        codec: DiscCodec,
        pixel_mm: float,
        *,
        axes: FloatArray | None = None,
    ) -> StraightView:
        """Read a volume between two straight heights."""
        planes = tuple(straightened_plane(space, z_mm, pixel_mm, x_mm=x, axes=axes) for x in codec.planes_mm)
        read = [sample(volume, plane, slab_mm=SLAB_MM) for plane in planes]
        images = [normalise(*pixels) for pixels in read]
        image = np.stack(images) if len(images) > 1 else images[0]
        return cls(planes, image, np.stack([inside for _, inside in read]), codec)

    @property
    def plane(self) -> SamplingPlane:
        """The mid-sagittal plane."""
        return self.planes[len(self.planes) // 2]

    @property
    def midsagittal(self) -> NDArray[np.float32]:
        """The grey values on it."""
        return self.image if self.image.ndim == 2 else self.image[len(self.planes) // 2]

    def tips(self, maps: DiscMaps, cells: FloatArray) -> FloatArray:
        """Return the world points of tips at ``(K, 2)`` cells, ``(K, 3)``.

        They leave the mid-sagittal plane where the network saw both planes beside it.
        """
        pixels = self.codec.pixel_from_cell(cells)
        points = self.plane.world_from_pixel(pixels)
        if len(self.planes) == 1 or not len(points):
            return points
        right = (self.planes[-1].world_from_pixel(pixels) - points) / self.codec.beside_mm
        row, column = np.clip(np.round(pixels).astype(int), 0, np.array(self.plane.shape) - 1).T
        seen = self.inside[[0, -1], row[:, None], column[:, None]].all(axis=1)
        across = np.where(seen, self.codec.read_across_mm(maps, cells), 0)
        return points + across[:, None] * right


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
    reach = bottom - BEYOND_MM, top + BEYOND_MM
    seen = StraightView.read(view.volume, space, reach, predictor.codec, predictor.pixel_mm, axes=view.axes)
    maps: DiscMaps = predictor.predict([seen.image])[0]
    cells, score, level = predictor.codec.decode(maps, separation=SEPARATION_CELLS)
    points = seen.tips(maps, cells)
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
