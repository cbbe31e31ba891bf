"""The corridor about the canal in which tissues are looked for: sagittal sheets of the straight space.

Outside it nothing is segmented. A sheet is a plane of constant straight x; its rows run from superior to
inferior, its columns from posterior to anterior, as in every :class:`SamplingPlane`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.planes import SamplingPlane
from sct_deepspine.geometry.straightening import StraighteningTransform

__all__ = ["ANTERIOR_MM", "LATERAL_MM", "POSTERIOR_MM", "Corridor"]

POSTERIOR_MM, ANTERIOR_MM = -60.0, 52.0
"""Straight y between which a vertebra lies, from the tip of its spinous process to the front of its body."""

LATERAL_MM = 26.0
"""Straight x up to which a vertebral body reaches."""

LATTICE_VOXELS = 4
"""Native voxels take their straight points from a lattice this coarse; between its nodes the error is some
hundredths of a millimetre, for a spine's curvature."""


@dataclass(frozen=True)
class Corridor:
    """A box of the straight space, cut into cells: sheets, rows and columns.

    Parameters
    ----------
    space
        The straight space.
    z_mm
        Lowest and highest straight z.
    pixel_mm
        Edge of a pixel of a sheet.
    sheet_mm
        Distance of the sheets.
    """

    space: StraighteningTransform
    z_mm: tuple[float, float]
    pixel_mm: float = 1.0
    sheet_mm: float = 2.0

    @property
    def lateral_mm(self) -> FloatArray:
        """Straight x of the sheets, from left to right."""
        count = int(LATERAL_MM // self.sheet_mm)
        return np.arange(-count, count + 1) * self.sheet_mm

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of sheets, rows and columns."""
        rows = int(np.ceil((self.z_mm[1] - self.z_mm[0]) / self.pixel_mm))
        return len(self.lateral_mm), max(rows, 1), round((ANTERIOR_MM - POSTERIOR_MM) / self.pixel_mm)

    def straight_from_cell(self, cells: FloatArray) -> FloatArray:
        """Take ``(K, 3)`` continuous cell indices (sheet, row, column) to straight points."""
        sheet, row, column = np.asarray(cells, dtype=np.float64).reshape(-1, 3).T
        return np.stack(
            [
                self.lateral_mm[0] + sheet * self.sheet_mm,
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
                (x - self.lateral_mm[0]) / self.sheet_mm,
                (self.z_mm[1] - z) / self.pixel_mm - 0.5,
                (y - POSTERIOR_MM) / self.pixel_mm - 0.5,
            ],
            axis=1,
        )

    def sheets(self, axes: FloatArray) -> list[SamplingPlane]:
        """Lay the sheets, from left to right; ``axes`` as of :class:`SamplingPlane`."""
        cells = np.indices(self.shape).reshape(3, -1).T
        world = self.space.native_from_straight(self.straight_from_cell(cells)).reshape(*self.shape, 3)
        return [SamplingPlane(points, self.pixel_mm, axes) for points in world]

    def cells_of_voxels(self, grid: Grid) -> tuple[tuple[slice, slice, slice], NDArray[np.float32]]:
        """Return the cells of the native voxels about the corridor.

        Returns
        -------
        box
            The voxels, as slices of the grid's three axes.
        cells
            ``(3, I, J, K)`` continuous cell indices of the box's voxels; NaN where there are none.
        """
        nodes = [np.append(np.arange(0, n - 1, LATTICE_VOXELS), n - 1) for n in grid.shape]
        lattice = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
        points = grid.world_from_voxel(lattice.reshape(-1, 3))
        cells = self.cell_from_straight(self.space.straight_from_native(points)).reshape(lattice.shape)
        with np.errstate(invalid="ignore"):
            near = np.all((cells > -0.5 * _MARGIN) & (cells < np.array(self.shape) - 1 + _MARGIN), axis=-1)
        if not near.any():
            return (slice(0), slice(0), slice(0)), np.empty((3, 0, 0, 0), np.float32)
        first = [int(np.nonzero(near.any(axis=_others(a)))[0][0]) for a in range(3)]
        last = [int(np.nonzero(near.any(axis=_others(a)))[0][-1]) for a in range(3)]
        bounds = [
            (max(lo - 1, 0), min(hi + 1, len(n) - 1)) for lo, hi, n in zip(first, last, nodes, strict=True)
        ]
        box = tuple(slice(int(n[lo]), int(n[hi]) + 1) for (lo, hi), n in zip(bounds, nodes, strict=True))
        part = cells[tuple(slice(lo, hi + 1) for lo, hi in bounds)]
        return box, _refined(part, [n[lo : hi + 1] for (lo, hi), n in zip(bounds, nodes, strict=True)])
