"""The corridor about the canal in which tissues are looked for: sagittal planes of the straight space.

Outside it nothing is segmented. Each plane has a constant straight x; its rows run from superior to
inferior, its columns from posterior to anterior, as in every :class:`SamplingPlane`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.planes import SamplingPlane
from sct_deepspine.geometry.reading import read_linear_axis
from sct_deepspine.geometry.straightening import StraighteningTransform

__all__ = [
    "ANTERIOR_MM",
    "LATERAL_MM",
    "PLANE_STEP_MM",
    "POSTERIOR_MM",
    "Corridor",
    "corridor_along",
    "with_neighbours",
]

POSTERIOR_MM, ANTERIOR_MM = -60.0, 52.0
"""Straight y between which a vertebra lies, from the tip of its spinous process to the front of its body."""

LATERAL_MM = 26.0
"""Straight x up to which a vertebral body reaches."""

PLANE_STEP_MM = 2.0
"""Distance of the planes."""

MAX_EXTENSION_MM = 60.0
"""The canal is followed straight on to the image's border, but no farther than this."""

SLOPE_MM = 15.0
"""What lies at the level of the canal's ends reaches up and down from them by about this."""

LATTICE_MM = 4.0
"""Cells and voxels take their places in the other space from a lattice this coarse. Between its nodes the
error is some hundredths of a millimetre, as curved as a spine is."""

SLAB_NODES = 8
"""Steps of the lattice (4 mm each) in a slab: few enough that its voxels take little memory."""


@dataclass(frozen=True)
class Corridor:
    """A box of the straight space, cut into cells: planes, rows and columns.

    Parameters
    ----------
    space
        The straight space.
    z_mm
        Lowest and highest straight z.
    pixel_mm
        Edge of a pixel of a plane.
    plane_step_mm
        Distance of the planes.
    """

    space: StraighteningTransform
    z_mm: tuple[float, float]
    pixel_mm: float = 1.0
    plane_step_mm: float = PLANE_STEP_MM

    @property
    def lateral_mm(self) -> FloatArray:
        """Straight x of the planes, from left to right."""
        count = int(LATERAL_MM // self.plane_step_mm)
        return self.plane_step_mm * np.arange(-count, count + 1, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        rows = int(np.ceil((self.z_mm[1] - self.z_mm[0]) / self.pixel_mm))
        return len(self.lateral_mm), max(rows, 1), round((ANTERIOR_MM - POSTERIOR_MM) / self.pixel_mm)

    @property
    def cell_mm(self) -> tuple[float, float, float]:
        """Size of a cell along planes, rows and columns."""
        return self.plane_step_mm, self.pixel_mm, self.pixel_mm

    def straight_from_cell(self, cells: NDArray[np.generic]) -> FloatArray:
        """Take ``(K, 3)`` continuous cell indices (plane, row, column) to straight points."""
        plane, row, column = np.asarray(cells, dtype=np.float64).reshape(-1, 3).T
        return np.stack(
            [
                self.lateral_mm[0] + plane * self.plane_step_mm,
                POSTERIOR_MM + (column + 0.5) * self.pixel_mm,
                self.z_mm[1] - (row + 0.5) * self.pixel_mm,
            ],
            axis=1,
        )

    def cell_from_straight(self, points: FloatArray) -> FloatArray:
        """Take ``(K, 3)`` straight points to continuous cell indices; NaN stays NaN."""
        x, y, z = np.asarray(points, dtype=np.float64).reshape(-1, 3).T
        return np.stack(
            [
                (x - self.lateral_mm[0]) / self.plane_step_mm,
                (self.z_mm[1] - z) / self.pixel_mm - 0.5,
                (y - POSTERIOR_MM) / self.pixel_mm - 0.5,
            ],
            axis=1,
        )

    def planes(self, axes: FloatArray) -> list[SamplingPlane]:
        """Lay the planes, from left to right; ``axes`` as of :class:`SamplingPlane`."""
        nodes = [_nodes(n, step) for n, step in zip(self.shape, self.cell_mm, strict=True)]
        lattice = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
        coarse = self.space.native_from_straight(self.straight_from_cell(lattice)).reshape(lattice.shape)
        world = np.stack([_densified(coarse[..., axis], nodes) for axis in range(3)], axis=-1)
        return [SamplingPlane(points.astype(np.float64), self.pixel_mm, axes) for points in world]

    def cells_of_voxels(
        self, grid: Grid
    ) -> Iterator[tuple[tuple[slice, slice, slice], tuple[NDArray[np.float32], ...]]]:
        """Return where the native voxels about the corridor lie in it, slab by slab along the longest axis.

        Yields
        ------
        box
            Some of those voxels, as slices of the grid's three axes. Boxes share their outermost voxels.
        cells
            Continuous plane, row and column of each, ``(I, J, K)`` of the box; NaN where there are none.
        """
        nodes = [_nodes(n, step) for n, step in zip(grid.shape, grid.spacing_mm, strict=True)]
        lattice = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
        points = grid.world_from_voxel(lattice.reshape(-1, 3))
        cells = self.cell_from_straight(self.space.straight_from_native(points)).reshape(lattice.shape)
        margin = 2 * LATTICE_MM / np.array(self.cell_mm)
        with np.errstate(invalid="ignore"):
            near = np.all((cells > -margin) & (cells < np.array(self.shape) + margin), axis=-1)
        along = int(np.argmax(near.shape))
        for first in range(0, max(near.shape[along] - 1, 1), SLAB_NODES):
            slab = [slice(None)] * 3
            slab[along] = slice(first, first + SLAB_NODES + 1)
            seen = near[tuple(slab)]
            if not seen.any():
                continue
            spans = [np.nonzero(seen.any(axis=tuple({0, 1, 2} - {axis})))[0][[0, -1]] for axis in range(3)]
            spans[along] += first
            within = tuple(slice(low, high + 1) for low, high in spans)
            parts = [n[span] for n, span in zip(nodes, within, strict=True)]
            one, two, three = (slice(int(part[0]), int(part[-1]) + 1) for part in parts)
            yield (one, two, three), tuple(_densified(cells[within][..., axis], parts) for axis in range(3))


def corridor_along(space: StraighteningTransform, grid: Grid, *, pixel_mm: float) -> Corridor:
    """Lay a corridor along the whole canal that a grid can show."""
    low, high = space.z_mm
    z = np.arange(low - MAX_EXTENSION_MM, high + MAX_EXTENSION_MM, pixel_mm)
    line = space.native_from_straight(np.stack([0 * z, 0 * z, z], axis=1))
    seen = z[grid.contains_voxel(grid.voxel_from_world(line))]
    if len(seen):
        low, high = float(seen[0]), float(seen[-1])
    return Corridor(space, (low - SLOPE_MM, high + SLOPE_MM), pixel_mm)


def with_neighbours(images: Sequence[NDArray[np.float32]], number: int, count: int) -> NDArray[np.float32]:
    """Return a plane between its neighbours, ``(count, rows, columns)``: what a network of channels sees.

    There is nothing, 0, beside the outermost planes.
    """
    first = number - count // 2
    empty = np.zeros_like(images[number])
    return np.stack([images[n] if 0 <= n < len(images) else empty for n in range(first, first + count)])


def _nodes(count: int, spacing_mm: float) -> NDArray[np.int64]:
    """Return the voxels of an axis that are nodes of the lattice; the last one is."""
    step = max(1, round(LATTICE_MM / spacing_mm))
    return np.unique(np.append(np.arange(0, count, step), count - 1))


def _densified(values: FloatArray, nodes: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Interpolate a lattice's values linearly at all voxels between its nodes; NaN spreads to its cells."""
    dense = values.astype(np.float32)
    for axis, places in enumerate(nodes):
        at = np.arange(places[0], places[-1] + 1)
        dense = read_linear_axis(dense, np.interp(at, places, np.arange(len(places))), axis)
    return dense
