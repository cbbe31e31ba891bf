"""Planes laid through a volume, and the grey values read on them.

A sampling plane is a grid of world points: a flat sagittal plane, or one bent along a curved spine (a
curved planar reformat).
Rows run from superior to inferior, columns from posterior to anterior (in a coronal plane from right to
left), both in equal steps of mm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, transform_points
from sct_deepspine.geometry.reading import read_linear, read_linear_columns, read_linear_rows
from sct_deepspine.geometry.straightening import StraighteningTransform
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume

__all__ = [
    "SLAB_MM",
    "SamplingPlane",
    "coronal_plane",
    "midsagittal_plane",
    "normalise",
    "read_labels",
    "sagittal_plane",
    "sagittal_planes",
    "sample",
    "straightened_plane",
]

SLAB_MM = 4.0
"""Thickness averaged across the midsagittal plane, wherever a network looks at one."""

ROUNDING = 1e-3
"""Share of a plane or a row that comes of a header's rounding and makes no further one."""

SAME_VOXEL = 1e-6
"""Indices of voxels that differ by less are the same: what comes of rounding."""

WIDEST_MM = 200.0
"""Parallel planes are laid over this width at most, about the middle of the image."""

PLANE_POSTERIOR_MM, PLANE_ANTERIOR_MM = -24.0, 40.0
"""Columns of the straightened plane, from the centreline."""

ANTERIOR = np.array([0.0, 1.0, 0.0])
"""Direction of the columns of a plane, in a frame whose axes are right, anterior and superior."""

SUPERIOR = np.array([0.0, 0.0, 1.0])
"""Direction of its rows, upwards."""


@dataclass(frozen=True)
class SamplingPlane:
    """A grid of pixels whose centres are world points.

    Parameters
    ----------
    points_world
        ``(rows, columns, 3)`` world position of each pixel's centre; NaN where there is none.
    pixel_mm
        Edge of a pixel.
    axes
        ``(3, 3)``; its columns are the world directions across a native plane, along its rows, and up: right,
        anterior and superior in a sagittal plane, anterior, left and superior in a coronal one.
    """

    points_world: FloatArray
    pixel_mm: float
    axes: FloatArray = field(default_factory=lambda: np.eye(3))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return self.points_world.shape[0], self.points_world.shape[1]

    def world_from_pixel(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 2)`` pixel points (row, column) to ``(K, 3)`` world points.

        Bilinear between pixel centres, continued linearly beyond the border.
        """
        rows_columns = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        corner = np.clip(np.floor(rows_columns), 0, np.maximum(np.array(self.shape) - 2, 0)).astype(int)
        (row, column), (down, along) = corner.T, (rows_columns - corner).T[:, :, None]
        last_row, last_column = self.shape[0] - 1, self.shape[1] - 1
        below, beside = np.minimum(row + 1, last_row), np.minimum(column + 1, last_column)
        grid = self.points_world
        upper = grid[row, column] * (1 - along) + grid[row, beside] * along
        lower = grid[below, column] * (1 - along) + grid[below, beside] * along
        return upper * (1 - down) + lower * down

    def pixel_from_world(self, points: ArrayLike) -> FloatArray:
        """Project ``(K, 3)`` world points along its first axis on a native plane, ``(K, 2)`` pixels.

        Native planes step along the two other axes only, however they bend sideways.
        """
        offset = np.asarray(points, dtype=np.float64).reshape(-1, 3) - self.points_world[0, 0]
        _, anterior, superior = (offset @ self.axes).T
        return np.stack([-superior, anterior], axis=1) / self.pixel_mm

    def columns_about(self, points: FloatArray, margin_mm: float) -> slice:
        """Return the columns of a native plane that lie about ``(K, 3)`` world points, at least one."""
        columns, margin = self.pixel_from_world(points)[:, 1], margin_mm / self.pixel_mm
        first = int(np.clip(columns.min() - margin, 0, self.shape[1] - 1))
        last = int(np.clip(columns.max() + margin + 1, first + 1, self.shape[1]))
        return slice(first, last)

    def transformed(self, affine: ArrayLike) -> SamplingPlane:
        """Return the plane carried along by a ``(4, 4)`` rigid map of the world."""
        rigid = np.asarray(affine, dtype=np.float64)
        return replace(
            self, points_world=transform_points(rigid, self.points_world), axes=rigid[:3, :3] @ self.axes
        )

    def subdivided(self, factor: int) -> SamplingPlane:
        """Return the plane of ``factor`` × ``factor`` sub-pixels of each pixel."""
        if factor == 1:
            return self
        inside = (np.arange(factor) + 0.5) / factor - 0.5
        row = (np.arange(self.shape[0])[:, None] + inside).ravel()
        column = (np.arange(self.shape[1])[:, None] + inside).ravel()
        pixels = np.stack(np.meshgrid(row, column, indexing="ij"), axis=-1)
        points = self.world_from_pixel(pixels).reshape(len(row), len(column), 3)
        return replace(self, points_world=points, pixel_mm=self.pixel_mm / factor)


def sagittal_plane(
    corner_world: ArrayLike, shape: tuple[int, int], pixel_mm: float, *, lateral_mm: ArrayLike | None = None
) -> SamplingPlane:
    """Lay a sagittal plane whose first pixel (superior, posterior) is at a world point.

    Parameters
    ----------
    corner_world
        ``(3,)`` world position of pixel (0, 0).
    shape
        Rows and columns.
    pixel_mm
        Edge of a pixel.
    lateral_mm
        ``(rows,)`` world x of each row, for a plane bent to follow a scoliotic spine.
    """
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    points = (
        np.asarray(corner_world, dtype=np.float64)
        + pixel_mm * columns[..., None] * ANTERIOR
        - pixel_mm * rows[..., None] * SUPERIOR
    )
    if lateral_mm is not None:
        points[..., 0] = np.asarray(lateral_mm, dtype=np.float64)[:, None]
    return SamplingPlane(points, pixel_mm)


def sample(
    volume: Volume,
    plane: SamplingPlane,
    *,
    slab_mm: float = 0.0,
    oversample: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a volume on a plane: the mean over each pixel's area and over a slab.

    Parameters
    ----------
    volume
        The volume to read.
    plane
        Where.
    slab_mm
        Thickness over which the volume is averaged, along the plane's first axis.
    oversample
        Sub-pixels per pixel edge; by default as many as the volume resolves.

    Returns
    -------
    image
        ``(rows, columns)`` means, 0 where nothing was read.
    inside
        ``(rows, columns)``, true where the pixel's centre lies in the volume.
    """
    if oversample is None:
        oversample = max(1, round(plane.pixel_mm / max(float(np.sort(volume.grid.spacing_mm)[1]), 0.25)))
    fine = plane.subdivided(oversample).points_world
    offsets = _slab_offsets(volume, slab_mm)
    places = volume.grid.voxel_from_world(fine.reshape(-1, 3)).T.reshape(3, *fine.shape[:2])
    across = np.linalg.solve(volume.grid.affine[:3, :3], plane.axes[:, 0])
    step: FloatArray = across.astype(np.float64)[:, None, None]
    read_at = _read_rows if _is_along_axes(places, step) else _read
    total = np.zeros(fine.shape[:2], dtype=np.float32)
    count = np.zeros(fine.shape[:2], dtype=np.float32)
    for offset in offsets:
        values, inside = read_at(volume.data, places + offset * step)
        total += np.where(inside, values, 0)
        count += inside
    total, count = _block_sum(total, oversample), _block_sum(count, oversample)
    read = count > 0.5 * len(offsets) * oversample**2
    return np.where(read, total / np.maximum(count, 1), 0).astype(np.float32), read


def read_labels(labels: Volume, plane: SamplingPlane) -> NDArray[np.uint8]:
    """Read a mask at the nearest voxel of each pixel, ``(rows, columns)``; 0 outside the volume."""
    voxels = labels.grid.voxel_from_world(plane.points_world.reshape(-1, 3))
    inside = labels.grid.contains_voxel(voxels)
    i, j, k = np.round(np.where(inside[:, None], voxels, 0)).astype(int).T
    return np.where(inside, labels.data[i, j, k], 0).astype(np.uint8).reshape(plane.shape)


def _slab_offsets(volume: Volume, slab_mm: float) -> FloatArray:
    """Spread samples over the slab, no denser than the volume's own lateral spacing or 2 mm."""
    thickness = float(volume.grid.spacing_mm[0])
    slab_mm = min(slab_mm, thickness * volume.data.shape[0])  # a single slice is read where it is
    count = max(1, round(slab_mm / max(thickness, 2.0)))
    return ((np.arange(count) + 0.5) / count - 0.5) * slab_mm


def _read(data: NDArray[Any], places: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read voxels at continuous indices ``(3, rows, columns)``, and tell which lie in the volume."""
    inside = np.logical_and.reduce(
        [_is_within(at, size) for at, size in zip(places, data.shape, strict=True)]
    )
    values = read_linear(data, np.where(np.isfinite(places), places, 0))
    return values, inside & np.isfinite(values)  # NaN is what was filled with a constant


def _is_along_axes(places: FloatArray, step: FloatArray) -> bool:
    """Return whether a plane's columns lie along the second voxel axis, and nothing else of it does."""
    across, along, up = places
    apart = [np.ptp(across, axis=1).max(), np.ptp(up, axis=1).max(), np.ptp(along, axis=0).max()]
    return bool(np.isfinite(apart).all() and max(apart) < SAME_VOXEL and abs(step[1:]).max() < SAME_VOXEL)


def _read_rows(data: NDArray[Any], places: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read as :func:`_read` does, whole rows at a time, where the columns lie along the second axis."""
    across, along, up = places[0, :, 0], places[1, 0], places[2, :, 0]
    needed = np.clip([along.min(), along.max()], 0, data.shape[1] - 1)
    first = int(needed[0])
    part = data[:, first : int(needed[1]) + 2]
    rows = read_linear_rows(part, across, up)
    values = read_linear_columns(rows, along - first)
    within = [_is_within(at, size) for at, size in zip((across, along, up), data.shape, strict=True)]
    return values, (within[0] & within[2])[:, None] & within[1] & np.isfinite(values)


def _is_within(place: FloatArray, size: int) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return (place >= -0.5) & (place < size - 0.5)


def _block_sum(fine: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    if factor == 1:
        return fine
    rows, columns = fine.shape[0] // factor, fine.shape[1] // factor
    return fine.reshape(rows, factor, columns, factor).sum(axis=(1, 3))


def normalise(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale grey values for the network: robust range, zero mean, unit spread; 0 outside.

    What lies outside the image is one constant: an edge repeated would draw a canal that goes on.
    """
    if not inside.any():
        return np.zeros_like(image)
    values = image[inside]
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        return np.zeros_like(image)
    scaled = np.clip((image - low) / (high - low), -0.1, 1.3)
    mean, spread = scaled[inside].mean(), scaled[inside].std()
    return np.where(inside, (scaled - mean) / max(float(spread), 1e-3), 0).astype(np.float32)


def midsagittal_plane(view: DeobliquedVolume, centerline: Centerline, pixel_mm: float) -> SamplingPlane:
    """Lay one plane over the whole view, bent sideways to stay on a centreline."""
    low, high = view.extent_mm()
    shape = _shape(low, high, pixel_mm)
    line = transform_points(view.deobliqued_from_world, centerline.samples_world)
    order = np.argsort(line[:, 2])
    z = high[2] - pixel_mm * (np.arange(shape[0]) + 0.5)
    lateral = np.interp(z, line[order, 2], line[order, 0])
    plane = sagittal_plane(_corner(low, high, pixel_mm), shape, pixel_mm, lateral_mm=lateral)
    return plane.transformed(view.world_from_deobliqued)


def coronal_plane(sagittal: SamplingPlane, line_world: ArrayLike, width_mm: float) -> SamplingPlane:
    """Lay a coronal plane that has the rows of a sagittal one and is bent to contain a line.

    Parameters
    ----------
    sagittal
        The native plane whose rows, and so whose heights, it shares.
    line_world
        ``(N, 3)`` world points along the spine, in any order. Sideways the plane is flat; its middle column
        is at the line's mean.
    width_mm
        From its right edge to its left one.
    """
    points = np.asarray(line_world, dtype=np.float64).reshape(-1, 3) @ sagittal.axes
    points = points[np.argsort(points[:, 2])]
    right, anterior, superior = sagittal.axes.T
    height = sagittal.points_world[:, 0] @ superior
    forwards = np.interp(height, points[:, 2], points[:, 1])
    count = max(1, round(width_mm / sagittal.pixel_mm))
    x = points[:, 0].mean() - sagittal.pixel_mm * (np.arange(count) - (count - 1) / 2)
    along_rows = forwards[:, None] * anterior + height[:, None] * superior
    world = along_rows[:, None] + x[None, :, None] * right
    return SamplingPlane(world, sagittal.pixel_mm, np.stack([anterior, -right, superior], axis=1))


def sagittal_planes(view: DeobliquedVolume, pixel_mm: float, *, step_mm: float) -> list[SamplingPlane]:
    """Lay parallel sagittal planes across a view, about as far apart as asked for."""
    low, high = view.extent_mm()
    middle, width = (low[0] + high[0]) / 2, min(high[0] - low[0], WIDEST_MM)
    count = max(1, round(width / step_mm - ROUNDING))
    shape = _shape(low, high, pixel_mm)
    corner = _corner(low, high, pixel_mm)
    places = middle + width * ((np.arange(count) + 0.5) / count - 0.5)
    planes = [sagittal_plane([x, corner[1], corner[2]], shape, pixel_mm) for x in places]
    return [plane.transformed(view.world_from_deobliqued) for plane in planes]


def straightened_plane(
    space: StraighteningTransform,
    z_mm: tuple[float, float],
    pixel_mm: float,
    *,
    axes: FloatArray | None = None,
) -> SamplingPlane:
    """Lay the mid-sagittal plane of the straight space between two straight heights.

    Parameters
    ----------
    space
        The straight space.
    z_mm
        Lowest and highest straight z.
    pixel_mm
        Edge of a pixel.
    axes
        As of :class:`SamplingPlane`; the world's by default.
    """
    y = np.arange(PLANE_POSTERIOR_MM + pixel_mm / 2, PLANE_ANTERIOR_MM, pixel_mm)
    z = np.arange(z_mm[1], z_mm[0] - pixel_mm, -pixel_mm)
    points = np.zeros((len(z), len(y), 3))
    points[..., 1], points[..., 2] = y, z[:, None]
    world = space.native_from_straight(points.reshape(-1, 3)).reshape(points.shape)
    return SamplingPlane(world, pixel_mm, np.eye(3) if axes is None else axes)


def _shape(low: FloatArray, high: FloatArray, pixel_mm: float) -> tuple[int, int]:
    rows, columns = np.ceil((high - low)[[2, 1]] / pixel_mm - ROUNDING).astype(int)
    return max(int(rows), 1), max(int(columns), 1)


def _corner(low: FloatArray, high: FloatArray, pixel_mm: float) -> FloatArray:
    return np.array([(low[0] + high[0]) / 2, low[1] + pixel_mm / 2, high[2] - pixel_mm / 2])
