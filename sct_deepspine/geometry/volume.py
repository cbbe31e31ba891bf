"""One in-memory volume: voxels and where they are; and the frame in which its slices lie straight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.geometry.grid import FloatArray, Grid, as_points, deobliqued_from_world, transform_points

__all__ = ["DeobliquedVolume", "Volume"]


@dataclass(frozen=True, repr=False)
class Volume:
    """Voxels and where they are.

    Parameters
    ----------
    data
        ``(I, J, K)`` array of real numbers.
    grid
        The grid of the voxels; its shape is the array's.
    is_scan
        Whether they were read from an image and checked to be a scan; they are then not checked again.
    """

    data: NDArray[Any]
    grid: Grid
    is_scan: bool = False

    def __repr__(self) -> str:
        sizes = " × ".join(f"{size:.3g}" for size in self.grid.spacing_mm)
        return f"Volume({' × '.join(map(str, self.grid.shape))} voxels of {sizes} mm, {self.data.dtype})"

    def as_ras(self) -> Volume:
        """Return a view of the same voxels with axes flipped and swapped to be closest to RAS+.

        Every point keeps its world position; nothing is copied or interpolated.
        """
        to_ras = io_orientation(self.grid.affine)
        data = apply_orientation(self.data, to_ras)
        affine = self.grid.affine @ inv_ornt_aff(to_ras, self.grid.shape)
        return Volume(data, Grid(data.shape, affine))

    def transformed(self, affine: ArrayLike) -> Volume:
        """Return the volume carried along by a ``(4, 4)`` map of the world."""
        return Volume(self.data, self.grid.transformed(affine))

    def labels_on(self, grid: Grid, world_from_grid_world: ArrayLike | None = None) -> NDArray[Any]:
        """Read the nearest voxel at every voxel of another grid; 0 outside.

        Parameters
        ----------
        grid
            The other grid.
        world_from_grid_world
            ``(4, 4)``: takes the world that the other grid lies in to that of the volume; they are one by
            default.
        """
        affine = np.eye(4) if world_from_grid_world is None else np.asarray(world_from_grid_world)
        to_voxel = np.linalg.inv(self.grid.affine) @ affine @ grid.affine
        if self.grid.shape == grid.shape and np.allclose(to_voxel, np.eye(4), atol=1e-3):
            return self.data
        from scipy.ndimage import affine_transform

        return affine_transform(
            self.data, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=grid.shape, order=0, cval=0
        )

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
        factor = np.clip(np.round(np.array(block_mm) / self.grid.spacing_mm), 1, self.grid.shape).astype(int)
        total = self.data[tuple(slice(n // f * f) for n, f in zip(self.grid.shape, factor, strict=True))]
        means = np.empty(np.array(total.shape) // factor, dtype=np.float32)
        # Slab by slab across the axis whose neighbours lie farthest apart in memory: what is summed is near.
        order = np.argsort(np.abs(total.strides))[::-1]
        parts, out, sizes = total.transpose(order), means.transpose(order), factor[order].tolist()
        for number in range(len(out)):
            slab = parts[number * sizes[0] : (number + 1) * sizes[0]]
            for axis, size in enumerate(sizes):
                slab = _sums_along(slab, axis, size)
            out[number] = slab[0]
        means /= factor.prod()
        affine = self.grid.affine @ np.diag([*factor, 1.0])
        affine[:3, 3] = self.grid.world_from_voxel((factor - 1) / 2)[0]
        return Volume(means, Grid(means.shape, affine))


def _sums_along(values: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """Add up blocks of so many values along an axis, in single precision."""
    if size == 1:
        return values
    along = np.moveaxis(values, axis, 0)
    sums = along[::size].astype(np.float32)
    for number in range(1, size):
        sums += along[number::size]
    return np.moveaxis(sums, 0, axis)


@dataclass(frozen=True)
class DeobliquedVolume:
    """A volume, and the *deobliqued* frame in which its sagittal slices lie along the axes.

    The volume stays in the world. What is laid out along its slices (sagittal planes, heights) is laid out
    in the deobliqued frame and handed out in the world: both maps are here.

    Parameters
    ----------
    volume
        Voxel axes closest to RAS+.
    deobliqued_from_world
        ``(4, 4)`` rotation; see :func:`sct_deepspine.geometry.grid.deobliqued_from_world`.
    """

    volume: Volume
    deobliqued_from_world: FloatArray

    @classmethod
    def of(cls, volume: Volume) -> DeobliquedVolume:
        """Take a volume of any orientation."""
        ras = volume.as_ras()
        return cls(ras, deobliqued_from_world(ras.grid))

    @property
    def world_from_deobliqued(self) -> FloatArray:
        """``(4, 4)`` the inverse rotation."""
        return np.linalg.inv(self.deobliqued_from_world).astype(np.float64)

    @property
    def axes(self) -> FloatArray:
        """``(3, 3)``; columns are the world directions right, anterior and superior along the slices."""
        return self.world_from_deobliqued[:3, :3].astype(np.float64)

    def heights_mm(self, points_world: ArrayLike) -> FloatArray:
        """Return how far superior ``(K, 3)`` world points lie along the slices, ``(K,)`` deobliqued mm."""
        return transform_points(self.deobliqued_from_world, as_points(points_world))[:, 2]

    def extent_mm(self) -> tuple[FloatArray, FloatArray]:
        """Return the lowest and highest deobliqued coordinates of the voxels, faces included."""
        faces = np.indices((2, 2, 2)).reshape(3, 8).T * self.volume.grid.shape - 0.5
        corners = transform_points(self.deobliqued_from_world, self.volume.grid.world_from_voxel(faces))
        return corners.min(axis=0), corners.max(axis=0)

    def block_mean(self, block_mm: tuple[float, float, float]) -> DeobliquedVolume:
        """Average whole blocks of voxels; see :meth:`Volume.block_mean`."""
        return DeobliquedVolume(self.volume.block_mean(block_mm), self.deobliqued_from_world)
