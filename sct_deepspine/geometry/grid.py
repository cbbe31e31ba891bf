"""Frames and the maps between them.

==========  =====================================================================
world       RAS+ millimetres; the only frame that crosses a module boundary
slices      the world turned to lie along an image's sagittal slices (see :func:`deobliqued_from_world`)
voxel       continuous index ``(i, j, k)``; a voxel's centre is at the integer
straight    millimetres of the straightened space (see :mod:`sct_deepspine.geometry.straightening`)
pixel       continuous ``(row, column)`` of a sagittal plane
cell        continuous ``(row, column)`` of a heat map
==========  =====================================================================

Maps are named ``target_from_source``. Points are ``(K, 3)`` float64 rows; an absent point is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import aff2axcodes
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.errors import GeometryError

__all__ = ["FloatArray", "Grid", "as_points", "deobliqued_from_world", "point_text", "transform_points"]

FloatArray = NDArray[np.float64]


def as_points(points: ArrayLike) -> FloatArray:
    """Return points as a ``(K, 3)`` float64 array.

    Raises
    ------
    GeometryError
        If the input is not a list of triples.

    Examples
    --------
    >>> as_points([1, 2, 3]).shape
    (1, 3)
    """
    rows = np.atleast_2d(np.asarray(points, dtype=np.float64))
    if rows.size == 0:
        return np.empty((0, 3))
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise GeometryError(f"expected points of shape (K, 3), got {np.shape(points)}")
    return rows


def point_text(point: ArrayLike) -> str:
    """Write a ``(3,)`` point to whole millimetres, for messages.

    Examples
    --------
    >>> point_text([1.2, -3.9, 40])
    '(1, -4, 40)'
    """
    return f"({', '.join(f'{c:.0f}' for c in np.asarray(point))})"


def transform_points(affine: ArrayLike, points: ArrayLike) -> FloatArray:
    """Take ``(…, 3)`` points through a ``(4, 4)`` affine.

    The same as nibabel's ``apply_affine``, without BLAS: after a product of many points its threads spin for
    50 ms, on cores that the networks need.
    """
    matrix, rows = (np.asarray(given, dtype=np.float64) for given in (affine, points))
    return np.einsum("...k,ik->...i", rows, matrix[:3, :3]) + matrix[:3, 3]


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels placed in the world.

    Parameters
    ----------
    shape
        Number of voxels along the three axes.
    affine
        ``(4, 4)`` matrix that takes voxel to world (RAS+ mm).

    Raises
    ------
    GeometryError
        If the affine is not finite, or is singular.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise GeometryError(f"expected an affine of shape (4, 4), got {affine.shape}")
        if not np.isfinite(affine).all():
            raise GeometryError("the affine holds NaN or infinite numbers; repair the image's header")
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.isfinite(lengths).all():
            raise GeometryError("the affine holds enormous numbers; repair the image's header")
        if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / np.where(lengths, lengths, 1))) < 1e-6:
            raise GeometryError("the affine is singular; repair the image's header (sform, qform)")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> FloatArray:
        """Distance between neighbouring voxels along each axis, ``(3,)``, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def axes(self) -> FloatArray:
        """World directions of the voxel axes, ``(3, 3)`` columns, made orthogonal to each other."""
        left, _, right = np.linalg.svd(self.affine[:3, :3] / self.spacing_mm)
        return left @ right

    @property
    def middle_world(self) -> FloatArray:
        """The middle of the grid, ``(3,)`` world."""
        return self.world_from_voxel((np.array(self.shape) - 1) / 2)[0]

    @property
    def orientation(self) -> str:
        """Axis codes as nibabel writes them, such as ``"RAS"``. SCT writes the opposite letters."""
        return "".join(aff2axcodes(self.affine))

    def transformed(self, affine: ArrayLike) -> Grid:
        """Return the grid carried along by a ``(4, 4)`` map of the world."""
        return Grid(self.shape, np.asarray(affine, dtype=np.float64) @ self.affine)

    def world_from_voxel(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` voxel points to the world."""
        return transform_points(self.affine, as_points(points))

    def voxel_from_world(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` world points to continuous voxel indices."""
        return transform_points(np.linalg.inv(self.affine), as_points(points))

    def contains_voxel(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Return which ``(K, 3)`` voxel points round to a voxel of the grid (NaN does not)."""
        rows = as_points(points)
        with np.errstate(invalid="ignore"):
            return np.all((rows >= -0.5) & (rows < np.array(self.shape) - 0.5), axis=1)

    def corners_world(self) -> FloatArray:
        """Return the centres of the eight corner voxels, ``(8, 3)`` world."""
        upper = np.array(self.shape) - 1
        return self.world_from_voxel(np.indices((2, 2, 2)).reshape(3, 8).T * upper)


def deobliqued_from_world(grid: Grid) -> FloatArray:
    """Return the turn after which sagittal slices lie along the world's axes, ``(4, 4)``.

    Whoever took oblique sagittal slices laid them along the spine. Axial or coronal slices, more than twice
    as thick as voxels are wide, are taken as they lie in the scanner: the turn is none.

    Parameters
    ----------
    grid
        Of an image whose voxel axes run right, anterior and superior.
    """
    turn, axes = np.eye(4), grid.axes
    is_sagittal = grid.shape[0] == 1 or grid.spacing_mm[0] >= 0.5 * grid.spacing_mm.max()
    if is_sagittal and np.linalg.det(axes) > 0 and not np.allclose(axes, np.eye(3), atol=1e-4):
        turn[:3, :3] = axes.T
    return turn
