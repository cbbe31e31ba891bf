"""Which vertebra or disc a cell of bone or disc belongs to: the nearest one by the way through the tissue.

Straight lines will not do. A spinous process lies at the height of the vertebra below, and a disc at the
sacrum slopes by forty degrees. Within the tissue itself the way is short to one's own body or tip.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from sct_deepspine.anatomy import DISC_VALUES, EXPECTED_SPACING_MM
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.segmentation.corridor import Corridor

__all__ = ["assign_discs", "assign_vertebrae", "nearest_by_way", "read_coarse", "spread"]

SPREAD_MM = 3.5
"""Voxels at the border of a structure lie no farther than this from its cells."""

COARSE = 2
"""Of the corridor's cells every second row and column is a coarse cell: ways need no finer ones."""

TIP_REACH_MM = 9.0
"""A disc's cells this near to its tip, and nearer to no other, are surely its own."""

BODY_MM = 16.0
"""The middle of a vertebral body lies this far before the line of the tips."""

BODY_REACH_MM = 6.0, 12.0
"""Cells of bone this near to the middle of a body are its own; farther ones, if there is none."""

ROOT_MM = -25.0
"""The root of a spinous process lies between the canal and this straight y."""

ROOT_SHARE = 0.3
"""A root this near to the level of the disc below, in vertebral heights, is surely its vertebra's."""

END_VERTEBRA = 1.3, 1.7
"""The first vertebra reaches no farther up, the last one no farther down, in vertebral heights."""


def assign_discs(
    mask: NDArray[np.bool_], tips: Mapping[int, FloatArray], corridor: Corridor
) -> NDArray[np.uint8]:
    """Return each coarse cell's disc value, 0 where the way leads to no labelled disc.

    Parameters
    ----------
    mask
        ``(planes, rows, columns)``, true at disc.
    tips
        Disc value → straight ``(3,)`` posterior tip.
    corridor
        Where the cells are.
    """
    thin = mask[:, ::COARSE, ::COARSE]
    places = _places(thin, corridor)
    values = np.array(list(tips), dtype=np.int64)
    distance = np.linalg.norm(places[:, None] - np.array(list(tips.values())), axis=2)
    nearest = distance.argmin(axis=1) if len(places) else np.empty(0, dtype=np.int64)
    seeds = np.where(distance.min(axis=1, initial=np.inf) < TIP_REACH_MM, values[nearest], 0)
    return nearest_by_way(thin, seeds, _coarse_mm(corridor))[0]


def assign_vertebrae(
    mask: NDArray[np.bool_],
    tips: Mapping[int, FloatArray],
    discs: NDArray[np.uint8],
    corridor: Corridor,
) -> NDArray[np.uint8]:
    """Return each coarse cell's vertebra number (C1 is 1, L5 is 24, the sacrum 25), 0 where none is near.

    Parameters
    ----------
    mask
        ``(planes, rows, columns)``, true at bone.
    tips
        Disc value → straight ``(3,)`` posterior tip.
    discs
        What :func:`assign_discs` returned.
    corridor
        Where the cells are.
    """
    thin = mask[:, ::COARSE, ::COARSE]
    places = _places(thin, corridor)
    seeds = np.zeros(len(places), dtype=np.int64)
    centres = _disc_centres(tips, discs, corridor)
    middles = _body_middles(centres)
    for number, middle in middles.items():
        distance = np.linalg.norm(places - middle, axis=1)
        for reach in BODY_REACH_MM:
            if (distance < reach).any():
                seeds[distance < reach] = number
                break
    numbers, _ = nearest_by_way(thin, seeds, _coarse_mm(corridor))
    _name_processes(numbers, thin, middles, corridor)
    z = corridor.z_mm[1] - (COARSE * np.arange(thin.shape[1]) + 0.5) * corridor.pixel_mm
    first, last = min(centres), max(centres)
    height = _heights(centres)
    top = centres[first][2] + END_VERTEBRA[0] * height[first]
    bottom = centres[last][2] - END_VERTEBRA[1] * height[last]
    numbers[:, (z > top) | (z < bottom)] = 0
    return numbers


def _name_processes(
    numbers: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    middles: Mapping[int, FloatArray],
    corridor: Corridor,
) -> None:
    """Name the processes whose pedicles are out of view, as in a slab of a few sagittal slices.

    The root of a spinous process, next to the canal, lies between the middle of its own body and that of the
    next one below.
    """
    rest = mask & (numbers == 0)
    places = _places(rest, corridor)
    order = sorted(middles)
    heights = np.array([middles[number][2] for number in order])
    slot = np.searchsorted(-heights, -places[:, 2]) - 1
    is_root = (places[:, 1] < 0) & (places[:, 1] > ROOT_MM) & (slot >= 0) & (slot < len(order) - 1)
    above, below = heights[slot], heights[np.minimum(slot + 1, len(order) - 1)]
    depth = (above - places[:, 2]) / np.maximum(above - below, 1e-6)
    own = np.array(order)[slot]
    surely = is_root & (np.abs(depth - 0.5) < ROOT_SHARE)
    named, _ = nearest_by_way(rest, np.where(surely, own, 0), _coarse_mm(corridor))
    numbers[rest] = named[rest]
    # What is left is a piece between two vertebrae: it goes to one of them as a whole.
    pieces, count = label(mask & (numbers == 0))
    piece = pieces[rest]
    for index in range(1, count + 1):
        votes = own[(piece == index) & is_root]
        if len(votes):
            numbers[pieces == index] = np.bincount(votes).argmax()


def nearest_by_way(
    mask: NDArray[np.bool_], seeds: NDArray[np.int64], cell_mm: tuple[float, float, float]
) -> tuple[NDArray[np.uint8], FloatArray]:
    """Label the cells of a mask by the seed with the shortest way through it.

    Parameters
    ----------
    mask
        Three-dimensional.
    seeds
        Label of each true cell, in C order; 0 where it is to be found.
    cell_mm
        Size of a cell.

    Returns
    -------
    labels
        Like the mask, 0 where no seed can be reached.
    way_mm
        Like the mask, length of the way; infinite there.
    """
    labels, way = np.zeros(mask.shape, dtype=np.uint8), np.full(mask.shape, np.inf)
    sources = np.nonzero(seeds)[0]
    if not len(sources):
        return labels, way
    index = np.full(mask.shape, -1, dtype=np.int32)  # what the graphs of older releases of scipy take
    index[mask] = np.arange(len(seeds))
    starts, ends, lengths = [], [], []
    for axis, size in enumerate(cell_mm):
        one = index.take(range(mask.shape[axis] - 1), axis)
        other = index.take(range(1, mask.shape[axis]), axis)
        joined = (one >= 0) & (other >= 0)
        starts.append(one[joined])
        ends.append(other[joined])
        lengths.append(np.full(joined.sum(), size))
    edges = (np.concatenate(lengths), (np.concatenate(starts), np.concatenate(ends)))
    graph = coo_array(edges, shape=(len(seeds), len(seeds))).tocsr()
    distance, _, source = dijkstra(
        graph, directed=False, indices=sources, min_only=True, return_predecessors=True
    )
    reached = source >= 0
    found = np.zeros(len(seeds), dtype=np.uint8)
    found[reached] = seeds[source[reached]]
    labels[mask], way[mask] = found, distance
    return labels, way


def spread(labels: NDArray[np.uint8], corridor: Corridor) -> NDArray[np.uint8]:
    """Give unlabelled coarse cells the label of the nearest labelled one, if it is near."""
    if not labels.any():
        return labels
    distance, nearest = distance_transform_edt(
        labels == 0, sampling=_coarse_mm(corridor), return_indices=True
    )
    return np.where(distance <= SPREAD_MM, labels[tuple(nearest)], 0).astype(np.uint8)


def read_coarse(labels: NDArray[np.uint8], cells: tuple[NDArray[np.int32], ...]) -> NDArray[np.uint8]:
    """Read coarse cells' labels at cells of the corridor, given as planes, rows and columns."""
    plane, row, column = cells
    last_row, last_column = labels.shape[1] - 1, labels.shape[2] - 1
    return labels[plane, np.minimum(row // COARSE, last_row), np.minimum(column // COARSE, last_column)]


def _places(thin: NDArray[np.bool_], corridor: Corridor) -> FloatArray:
    return corridor.straight_from_cell(np.argwhere(thin) * (1, COARSE, COARSE))


def _coarse_mm(corridor: Corridor) -> tuple[float, float, float]:
    plane, row, column = corridor.cell_mm
    return plane, COARSE * row, COARSE * column


def _disc_centres(
    tips: Mapping[int, FloatArray], discs: NDArray[np.uint8], corridor: Corridor
) -> dict[int, FloatArray]:
    """Return the middle of each disc in the mid-sagittal plane: that of its cells, else before its tip."""
    centres = {}
    for value, tip in tips.items():
        places = _places(discs == value, corridor)
        centre = places.mean(axis=0) if len(places) else tip + np.array([0.0, BODY_MM, 0.0])
        centres[value] = np.array([tip[0], *centre[1:]])
    return centres


def _heights(centres: Mapping[int, FloatArray]) -> dict[int, float]:
    """Return the distance from each disc to its neighbour; by the template's proportions if it has none."""
    heights = {}
    for value in centres:
        other = next((v for v in (value + 1, value - 1) if v in centres), None)
        if other is None:
            heights[value] = EXPECTED_SPACING_MM[min(value, DISC_VALUES[-2])]
        else:
            heights[value] = float(np.linalg.norm(centres[value] - centres[other]))
    return heights


def _body_middles(centres: Mapping[int, FloatArray]) -> dict[int, FloatArray]:
    """Return the middle of each vertebral body beside a labelled disc, by vertebra number."""
    middles = {}
    height = _heights(centres)
    for value, centre in centres.items():
        below, above = centres.get(value + 1), centres.get(value - 1)
        if below is not None:
            middles[value] = (centre + below) / 2
        step = _downwards(centre, below, above) * height[value] / 2
        middles.setdefault(value, centre + step)
        if above is None:
            middles[value - 1] = centre - step
    return middles


def _downwards(centre: FloatArray, below: FloatArray | None, above: FloatArray | None) -> FloatArray:
    """Return the unit direction in which the next disc below lies."""
    step = np.array([0.0, 0.0, -1.0])
    if below is not None:
        step = below - centre
    elif above is not None:
        step = centre - above
    return step / np.linalg.norm(step)
