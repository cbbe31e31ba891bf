"""Whether two series show one spine, and how the subject moved between them.

Both series lie in scanner coordinates, but people move. The plane along the canal is read from both, and the
directions of edges on it are compared at all shifts at once, by correlation in Fourier space. Directions are
the same whatever the contrast (normalised gradient fields, Haber and Modersitzki 2006), so that a T1w
image, a T2w image and an inverted one agree where they show the same anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2, next_fast_len
from scipy.ndimage import gaussian_filter, map_coordinates

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume

__all__ = ["Alignment", "EdgePlane", "align_series", "edge_plane"]

MAX_SHIFT_MM = 18.0, 15.0
"""Shifts that are tried along the spine and across it, mm. People who move farther are taken for others."""

PIXEL_MM, SMOOTHING_PIXELS = 1.5, 1.0
"""Pixels of the plane, and the smoothing before gradients. With 1 mm, or smoothed more, pairs of one subject
and of two were distinguished no better."""

HALF_WIDTH_MM = 80.0
"""The plane reaches this far before and behind the canal."""

BEYOND_CANAL_MM = 40.0
"""The canal is followed straight on beyond its ends by this much."""

NOISE_SHARE = 0.6
"""Gradients below this share of the median one count less, since their direction is noise."""

BORDER_PIXELS = 1.5
"""Smoothing that keeps edges of the image's border out."""

MIN_OVERLAP_MM2 = 900.0
"""Planes that share less than this, mm², are not compared."""

RIVAL_MM = 5.0
"""A shift along the spine farther from the best one than this is another reading."""

SUPPORT = 2.1, 12.3, 28.4, -1.0
"""Log-odds that two series show one spine: constant, and weights of the correlation, of its lead over the
best rival, and of the logarithm of the shared area, mm². A logistic regression on 96 pairs of series cut from
validation scans and composites against 878 pairs of two subjects, a level laid over the same level."""


@dataclass(frozen=True, eq=False)
class EdgePlane:
    """Directions of the edges on a plane along the canal.

    Parameters
    ----------
    edges
        ``(rows, columns)`` complex: the squared direction of the gradient, 0 to 1 long; rows from inferior to
        superior, columns from posterior to anterior.
    inside
        ``(rows, columns)``: 1 where the image is, else 0.
    corner_mm
        World y and z of the first pixel.
    """

    edges: NDArray[np.complex128]
    inside: FloatArray
    corner_mm: tuple[float, float]


MIN_NOISE = 1e-6
"""Where most of the plane is flat, edges count from here on (grey values a pixel)."""


@dataclass(frozen=True)
class Alignment:
    """How one series lies to another.

    Parameters
    ----------
    shift_mm
        Anterior and superior shift, mm, to be added to points of the second series so that they coincide with
        those of the first.
    support
        Log-odds that both show one spine.
    """

    shift_mm: tuple[float, float]
    support: float


def edge_plane(volume: Volume, canal: Centerline) -> EdgePlane | None:
    """Read the plane along a canal, which may be that of another series; None if the image is not on it."""
    arc = np.arange(-BEYOND_CANAL_MM, canal.length_mm + BEYOND_CANAL_MM, 2.0)
    line = canal.points_world(arc)
    line = line[np.argsort(line[:, 2])]
    heights = volume.grid.corners_world()[:, 2]
    z = np.arange(heights.min(), heights.max(), PIXEL_MM)
    middle = PIXEL_MM * round(float(line[:, 1].mean()) / PIXEL_MM)
    y = middle + np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM, PIXEL_MM)
    x = np.interp(z, line[:, 2], line[:, 0])
    points = np.stack(np.broadcast_arrays(x[:, None], y[None], z[:, None]), axis=-1)
    voxels = volume.grid.voxel_from_world(points.reshape(-1, 3))
    inside = volume.grid.contains_voxel(voxels).reshape(points.shape[:2])
    if len(z) < 2 or not inside.any():
        return None
    grey = map_coordinates(volume.data, voxels.T, np.float32, order=1, mode="nearest").reshape(inside.shape)
    grey = gaussian_filter(np.where(inside, grey, grey[inside].mean()), SMOOTHING_PIXELS)
    up, forward = np.gradient(grey.astype(np.float64))
    whole = gaussian_filter(inside.astype(np.float64), BORDER_PIXELS) > 0.99
    if not whole.any():
        return None
    length = np.hypot(up, forward)
    noise = max(NOISE_SHARE * float(np.median(length[whole])), MIN_NOISE)
    edges = (up + 1j * forward) ** 2 / (length**2 + noise**2) * whole
    return EdgePlane(edges, whole.astype(np.float64), (float(y[0]), float(z[0])))


def align_series(first: EdgePlane, second: EdgePlane) -> Alignment | None:
    """Find the shift that brings a series to another one; None if they do not overlap."""
    rows, up_mm = _shifts(first.corner_mm[1], second.corner_mm[1], MAX_SHIFT_MM[0])
    columns, forward_mm = _shifts(first.corner_mm[0], second.corner_mm[0], MAX_SHIFT_MM[1])
    correlation, count = _correlate(first, second, rows, columns)
    count = np.where(_overlaps(first, second, rows, columns), count, 0.0)  # else the transform wraps around
    correlation = np.where(count * PIXEL_MM**2 >= MIN_OVERLAP_MM2, correlation, -1.0)
    k, j = np.unravel_index(int(correlation.argmax()), correlation.shape)
    best = float(correlation[k, j])
    if best <= -1:
        return None
    rival = float(correlation[np.abs(up_mm - up_mm[k]) > RIVAL_MM].max(initial=-1.0))
    lead, area = best - rival, float(count[k, j]) * PIXEL_MM**2
    constant, of_correlation, of_lead, of_area = SUPPORT
    support = constant + of_correlation * best + of_lead * lead + of_area * np.log(area)
    return Alignment((float(forward_mm[j]), float(up_mm[k])), float(support))


def _shifts(first_mm: float, second_mm: float, limit_mm: float) -> tuple[NDArray[np.int_], FloatArray]:
    """Return by how many pixels the second plane is moved, and the shifts in mm that these are."""
    apart = (second_mm - first_mm) / PIXEL_MM
    steps = np.arange(np.ceil(apart - limit_mm / PIXEL_MM), np.floor(apart + limit_mm / PIXEL_MM) + 1)
    return steps.astype(int), (steps - apart) * PIXEL_MM


def _overlaps(
    first: EdgePlane, second: EdgePlane, rows: NDArray[np.int_], columns: NDArray[np.int_]
) -> NDArray[np.bool_]:
    """Return at which shifts two planes share any pixel."""
    shared = [
        (steps > -b) & (steps < a)
        for steps, a, b in zip((rows, columns), first.edges.shape, second.edges.shape, strict=True)
    ]
    return np.logical_and.outer(*shared)


def _correlate(
    first: EdgePlane, second: EdgePlane, rows: NDArray[np.int_], columns: NDArray[np.int_]
) -> tuple[FloatArray, FloatArray]:
    """Return Pearson's correlation of what two planes share at each shift, and how many pixels that is."""
    shape = [next_fast_len(a + b) for a, b in zip(first.edges.shape, second.edges.shape, strict=True)]
    a, b, inside_a, inside_b, power_a, power_b = (
        fft2(part, shape)
        for part in (
            first.edges,
            second.edges,
            first.inside,
            second.inside,
            np.abs(first.edges) ** 2,
            np.abs(second.edges) ** 2,
        )
    )
    at = np.ix_(rows % shape[0], columns % shape[1])

    def shared(of_first: NDArray[np.complex128], of_second: NDArray[np.complex128]) -> NDArray[np.complex128]:
        return ifft2(of_first * np.conj(of_second))[at]

    count = np.round(shared(inside_a, inside_b).real)
    pixels = np.maximum(count, 1.0)
    sum_a, sum_b = shared(a, inside_b), np.conj(shared(inside_a, b))
    covariance = (shared(a, b) - sum_a * np.conj(sum_b) / pixels).real
    spread_a = shared(power_a, inside_b).real - np.abs(sum_a) ** 2 / pixels
    spread_b = shared(inside_a, power_b).real - np.abs(sum_b) ** 2 / pixels
    return covariance / np.sqrt(np.maximum(spread_a, 1e-6) * np.maximum(spread_b, 1e-6)), count
