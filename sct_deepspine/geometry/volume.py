"""One in-memory volume: voxels and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.geometry.grid import Grid

__all__ = ["Volume"]


@dataclass(frozen=True)
class Volume:
    """Voxels and where they are.

    Parameters
    ----------
    data
        ``(I, J, K)`` array of real numbers.
    grid
        The grid of the voxels; its shape is the array's.
    source
        What the volume was read from; results go back to this kind.
    """

    data: NDArray[Any]
    grid: Grid
    source: Any = None

    def as_ras(self) -> Volume:
        """Return a view of the same voxels with axes flipped and swapped to be closest to RAS+.

        Every point keeps its world position; nothing is copied or interpolated.
        """
        to_ras = io_orientation(self.grid.affine)
        data = apply_orientation(self.data, to_ras)
        affine = self.grid.affine @ inv_ornt_aff(to_ras, self.grid.shape)
        return Volume(data, Grid(data.shape, affine), self.source)

    def moved(self, affine: ArrayLike) -> Volume:
        """Return the volume carried along by a ``(4, 4)`` map of the world."""
        return Volume(self.data, self.grid.moved(affine), self.source)

    def block_mean(self, block_mm: tuple[float, float, float]) -> Volume:
        """Average whole blocks of voxels of about a size; an axis that is as coarse already is kept.

        Parameters
        ----------
        block_mm
            Wanted size of a block along each axis.

        Returns
        -------
        Volume
            float32 means, placed at the blocks' centres. Voxels that fill no block are left out.
        """
        factor = np.maximum(np.round(np.array(block_mm) / self.grid.spacing_mm), 1).astype(int)
        factor = np.minimum(factor, self.grid.shape)
        shape = np.array(self.grid.shape) // factor
        total = np.zeros(shape, dtype=np.float32)
        for i, j, k in np.ndindex(*factor):
            (a, b, c), (f, g, h) = shape, factor
            total += self.data[i : i + a * f : f, j : j + b * g : g, k : k + c * h : h]
        affine = self.grid.affine @ np.diag([*factor, 1.0])
        affine[:3, 3] = self.grid.world_from_voxel((factor - 1) / 2)[0]
        return Volume(total / factor.prod(), Grid(total.shape, affine), self.source)
