"""What the network's maps mean: points to maps and maps to points, in one place.

The network predicts, on a grid of cells coarser than the pixels by its stride,

- ``levels`` maps of level logits; their softmax is the probability of each level *if* a disc is there,
- one logit of "any disc" (level-free), whose sigmoid peaks at each disc's posterior tip,
- one logit of the cord/canal centreline, whose sigmoid is a ridge along it.

The heat map of disc ``value`` is the product of the any-disc map and that level's probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SamplingPlane
from sct_deepspine.models.maps import sigmoid, softmax
from sct_deepspine.models.predictor import Predictor

__all__ = ["NO_LEVEL", "DiscCodec", "DiscMaps", "DiscPredictor", "PlanePrediction", "gaussian", "peaks"]

MapArray = NDArray[np.float32]

NO_LEVEL = -100
"""Level index where none is known; what torch's cross-entropy leaves out."""


def gaussian(squared_distance: ArrayLike, sigma: float) -> NDArray[np.floating]:
    """Return ``exp(-d² / 2σ²)`` of squared distances in the unit of ``sigma``."""
    return np.exp(np.asarray(squared_distance) * (-0.5 / sigma**2))


@dataclass(frozen=True)
class DiscMaps:
    """The maps of one plane.

    Parameters
    ----------
    any_disc
        ``(rows, columns)`` in 0…1, cells.
    level
        ``(levels, rows, columns)``, sums to one over levels.
    canal
        ``(rows, columns)`` in 0…1.
    """

    any_disc: MapArray
    level: MapArray
    canal: MapArray

    @property
    def heat(self) -> MapArray:
        """One heat map per disc value, ``(levels, rows, columns)``."""
        return self.any_disc * self.level


@dataclass(frozen=True)
class DiscCodec:
    """Layout and geometry of the maps.

    Parameters
    ----------
    stride
        Pixels per cell.
    first_value
        Disc value of the first level map.
    levels
        Number of level maps.
    sigma_cells
        Width of a disc's peak; below one cell the sub-cell position is lost.
    """

    stride: int
    first_value: int = 3
    levels: int = 23
    sigma_cells: float = 1.0

    @property
    def channels(self) -> int:
        """Number of maps the network predicts."""
        return self.levels + 2

    @property
    def values(self) -> NDArray[np.int64]:
        """Disc value of each level map, ``(levels,)``."""
        return np.arange(self.first_value, self.first_value + self.levels)

    def pixel_from_cell(self, points: ArrayLike) -> FloatArray:
        """Take cell points to pixel points; a cell's centre is the middle of its pixels."""
        return (np.asarray(points, dtype=np.float64) + 0.5) * self.stride - 0.5

    def cell_from_pixel(self, points: ArrayLike) -> FloatArray:
        """Take pixel points to cell points."""
        return (np.asarray(points, dtype=np.float64) + 0.5) / self.stride - 0.5

    def split(self, raw: NDArray[np.floating]) -> DiscMaps:
        """Turn the network's raw maps, ``(channels, rows, columns)``, into probabilities."""
        if raw.shape[0] != self.channels:
            raise ValueError(f"expected {self.channels} maps, got {raw.shape[0]}")
        logits = np.asarray(raw, dtype=np.float32)
        levels = self.levels
        return DiscMaps(sigmoid(logits[levels]), softmax(logits[:levels]), sigmoid(logits[levels + 1]))

    def encode(
        self,
        points: Mapping[int, ArrayLike],
        cells: ArrayLike,
        *,
        sigma: float | None = None,
        unnamed: Sequence[ArrayLike] | FloatArray = (),
    ) -> tuple[MapArray, NDArray[np.int64]]:
        """Return the maps that a perfect network would predict: the target of the training.

        Parameters
        ----------
        points
            Disc value → position; values without a level map are left out.
        cells
            ``(rows, columns, D)`` position of each cell in the same frame.
        sigma
            Width of a peak in that frame; by default :attr:`sigma_cells`.
        unnamed
            ``(N, D)`` discs whose value no one can tell.

        Returns
        -------
        any_disc
            ``(rows, columns)`` in 0…1.
        level
            ``(rows, columns)`` index of the level map of the nearest disc, :data:`NO_LEVEL` where its value
            is not known or there is no disc.
        """
        place = np.asarray(cells, dtype=np.float64)
        kept = {v: p for v, p in points.items() if v in self.values}
        tips = np.array([*kept.values(), *unnamed], dtype=np.float64).reshape(-1, place.shape[-1])
        if not len(tips):
            return np.zeros(place.shape[:2], np.float32), np.full(place.shape[:2], NO_LEVEL)
        index = np.array([*(v - self.first_value for v in kept), *[NO_LEVEL] * len(unnamed)])
        squared = ((place[None] - tips[:, None, None]) ** 2).sum(axis=-1)
        heat = gaussian(squared, sigma or self.sigma_cells).astype(np.float32)
        return heat.max(axis=0), index[squared.argmin(axis=0)]

    def maps(self, any_disc: MapArray, level: NDArray[np.int64], canal: MapArray | None = None) -> DiscMaps:
        """Return what :meth:`encode` gave as the maps of a network that is sure of every level."""
        certain = np.arange(self.levels)[:, None, None] == level
        unknown = np.broadcast_to(level == NO_LEVEL, certain.shape)
        probability = np.where(unknown, 1 / self.levels, certain).astype(np.float32)
        return DiscMaps(any_disc, probability, np.zeros_like(any_disc) if canal is None else canal)

    def decode(
        self, maps: DiscMaps, *, threshold: float = 0.1, separation: int = 2
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Find the discs of a plane, whatever their level.

        Returns
        -------
        points
            ``(K, 2)`` sub-cell positions, cells, from superior to inferior.
        score
            ``(K,)`` height of each peak in the any-disc map.
        level
            ``(K, levels)`` probability of each level there, averaged over the peak.
        """
        points, score = peaks(maps.any_disc, threshold=threshold, separation=separation)
        _, level = self.read_levels(maps, points)
        return points, score, level

    def read_levels(self, maps: DiscMaps, points: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Read scores ``(K,)`` and levels ``(K, levels)`` from the nine cells about ``(K, 2)`` points."""
        nearest = np.round(np.asarray(points, dtype=np.float64).reshape(-1, 2)).astype(int)
        cells = np.clip(nearest, 0, np.array(maps.any_disc.shape) - 1)
        padded_any = np.pad(maps.any_disc, 1)
        padded_level = np.pad(maps.level, ((0, 0), (1, 1), (1, 1)))
        score, level = np.empty(len(cells)), np.empty((len(cells), self.levels))
        for index, (row, column) in enumerate(cells):
            rows, columns = slice(row, row + 3), slice(column, column + 3)
            weight = padded_any[rows, columns].astype(np.float64) + 1e-9
            score[index] = padded_any[rows, columns].max()
            level[index] = (padded_level[:, rows, columns] * weight).sum(axis=(1, 2)) / weight.sum()
        return score, level


DiscPredictor = Predictor[DiscCodec]
"""A network that predicts disc maps."""


@dataclass(frozen=True, repr=False)
class PlanePrediction:
    """A plane, the grey values read on it and the maps predicted from them.

    Parameters
    ----------
    plane
        The pixels' places.
    image
        ``(rows, columns)`` normalised grey values.
    maps
        What was predicted, on the codec's cells.
    codec
        Relates cells to pixels and maps to disc values.
    attention
        ``(rows, columns)`` cells, 0…1, or None for a network without attention.
    """

    plane: SamplingPlane
    image: MapArray
    maps: DiscMaps
    codec: DiscCodec
    attention: MapArray | None = None

    def __repr__(self) -> str:
        rows, columns = self.image.shape
        return f"PlanePrediction({rows} × {columns} pixels of {self.plane.pixel_mm:.3g} mm)"

    def at(self, points_world: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Read a native plane's maps at world points projected on it along its first axis.

        Returns
        -------
        score
            ``(K,)`` highest any-disc value among the nearest nine cells.
        level
            ``(K, levels)`` levels of those cells, weighted by their any-disc values.
        """
        cells = self.codec.cell_from_pixel(self.plane.pixel_from_world(points_world))
        return self.codec.read_levels(self.maps, cells)


def peaks(heat: MapArray, *, threshold: float, separation: int = 2) -> tuple[FloatArray, FloatArray]:
    """Find the maxima of a map, to a fraction of a cell.

    The logarithm of a Gaussian is a parabola: one Newton step on it from the highest cell gives the
    summit (Zhang et al. 2020, arXiv 1910.06278, equation 8).

    Returns
    -------
    points
        ``(K, 2)`` row and column, cells, sorted by row.
    score
        ``(K,)`` value of the highest cell.
    """
    highest = _highest_near(heat, separation)
    rows, columns = _one_of_each_tie(np.argwhere((heat >= highest) & (heat > threshold)), separation).T
    log = np.log(np.pad(heat, 1, mode="edge").astype(np.float64) + 1e-9)
    row, column = rows + 1, columns + 1
    here = log[row, column]
    up, down = log[row - 1, column], log[row + 1, column]
    left, right = log[row, column - 1], log[row, column + 1]
    gradient = np.stack([(down - up) / 2, (right - left) / 2], axis=1)
    across = (
        log[row + 1, column + 1]
        + log[row - 1, column - 1]
        - log[row + 1, column - 1]
        - log[row - 1, column + 1]
    ) / 4
    hessian = np.array([[down + up - 2 * here, across], [across, right + left - 2 * here]]).transpose(2, 0, 1)
    steps = np.array([_newton(g, h) for g, h in zip(gradient, hessian, strict=True)]).reshape(-1, 2)
    # At the border one neighbour is missing, and with it the way to tell where the summit is.
    steps[(rows == 0) | (rows == heat.shape[0] - 1), 0] = 0
    steps[(columns == 0) | (columns == heat.shape[1] - 1), 1] = 0
    return np.stack([rows, columns], axis=1) + steps, heat[rows, columns].astype(np.float64)


def _highest_near(heat: MapArray, reach: int) -> MapArray:
    """Return the highest value within some cells of each cell, sideways and up and down; 0 outside."""
    for axis in (0, 1):
        beside = [(reach, reach) if n == axis else (0, 0) for n in (0, 1)]
        padded = np.moveaxis(np.pad(heat, beside), axis, 0)
        count = len(padded) - 2 * reach
        heat = np.moveaxis(np.max([padded[n : n + count] for n in range(2 * reach + 1)], axis=0), 0, axis)
    return heat


def _one_of_each_tie(cells: NDArray[np.int64], separation: int) -> NDArray[np.int64]:
    """Keep the first of the maxima that are nearer than the separation: they are equal."""
    kept: list[NDArray[np.int64]] = []
    for cell in cells:
        if all(np.abs(cell - other).max() > separation for other in kept):
            kept.append(cell)
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def _newton(gradient: FloatArray, hessian: FloatArray) -> FloatArray:
    """Step to the parabola's summit, at most one cell; none where the map is flat."""
    if hessian[0, 0] > -1e-6 or np.linalg.det(hessian) < 1e-9:
        return np.zeros(2)
    return np.clip(-np.linalg.solve(hessian, gradient), -1, 1)
