"""Random changes to a plane's grey values and to the grid it is read on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from sct_deepspine.frames import FloatArray

__all__ = [
    "crop_field_of_view",
    "random_grid",
    "random_texture",
    "randomise_grey_values",
    "recolour_tissues",
    "smooth_field",
]

Plane = NDArray[np.float32]


@lru_cache(maxsize=64)
def _spline_matrix(points: int, knots: int) -> FloatArray:
    """Return the ``(points, knots)`` weights of a cubic spline through evenly spaced knots."""
    return CubicSpline(np.linspace(0, 1, knots), np.eye(knots))(np.linspace(0, 1, points))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], knots: tuple[int, int]) -> FloatArray:
    """Draw a smooth random field of about unit spread."""
    coarse = rng.standard_normal(knots)
    return _spline_matrix(shape[0], knots[0]) @ coarse @ _spline_matrix(shape[1], knots[1]).T


def random_grid(
    rng: np.random.Generator, shape: tuple[int, int], pixel_mm: float, *, turn_degrees: float = 22.0
) -> tuple[FloatArray, float]:
    """Draw the millimetres at which a plane's pixels are read, around its middle.

    In-plane rotation, scale, aspect and a smooth elastic displacement of 0 to 4 mm.

    Returns
    -------
    grid
        ``(rows, columns, 2)``: mm towards anterior and towards superior of the middle.
    scale
        Millimetres of the body per millimetre of the plane.
    """
    rows, columns = np.indices(shape, dtype=np.float64)
    right = (columns - (shape[1] - 1) / 2) * pixel_mm
    up = ((shape[0] - 1) / 2 - rows) * pixel_mm
    scale, aspect = np.exp(rng.uniform(-0.25, 0.25)), np.exp(rng.uniform(-0.12, 0.12))
    strength = rng.uniform(0, 4)
    knots = (6, 4)
    right = right * scale * aspect + strength * smooth_field(rng, shape, knots)
    up = up * scale / aspect + strength * smooth_field(rng, shape, knots)
    angle = np.radians(rng.uniform(-turn_degrees, turn_degrees))
    turned = np.stack(
        [np.cos(angle) * right - np.sin(angle) * up, np.sin(angle) * right + np.cos(angle) * up], -1
    )
    return turned, float(scale)


def random_texture(rng: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Draw noise, grains or blobs of a random size along each axis: what a spine is not."""
    grains = gaussian_filter(rng.standard_normal(shape), np.exp(rng.uniform(-2, 2.5, 2)))
    return randomise_grey_values(
        rng, (grains / max(float(grains.std()), 1e-6) * 0.25 + 0.5).astype(np.float32)
    )


def recolour_tissues(rng: np.random.Generator, plane: Plane, tissue: NDArray[np.uint8]) -> Plane:
    """Give each labelled tissue a grey value and a contrast of its own.

    No change of grey values alone can part tissues that look the same in the scan at hand but not
    in another sequence: vertebra and disc in T1w, for instance.
    """
    out = plane.copy()
    for label in np.unique(tissue):
        if label == 0:
            continue
        inside = tissue == label
        mean = float(plane[inside].mean())
        weight = gaussian_filter(inside.astype(np.float32), 0.6)
        recoloured = rng.uniform(0.03, 1.0) + rng.uniform(-0.8, 1.2) * (plane - mean)
        out += weight * (recoloured - out)
    return np.clip(out, 0, 1.2)


def _remap(rng: np.random.Generator, plane: Plane) -> Plane:
    """Send grey values through a random piecewise-linear curve, monotone or not."""
    knots = rng.integers(3, 7)
    before = np.sort(np.concatenate([[0, 1], rng.uniform(0, 1, knots - 2)]))
    after = rng.uniform(0, 1, knots)
    if rng.random() < 0.4:
        after = np.sort(after)
        after = after if rng.random() < 0.6 else after[::-1]
    if np.ptp(after) < 0.3:
        return plane
    return np.interp(plane, before, after).astype(np.float32)


def randomise_grey_values(rng: np.random.Generator, plane: Plane) -> Plane:
    """Change contrast, shading, sharpness and noise of a plane with values about 0…1."""
    if rng.random() < 0.5:
        plane = _remap(rng, plane)
    if rng.random() < 0.5:
        plane = np.clip(plane, 0, None) ** np.exp(rng.uniform(-0.7, 0.7))
    if rng.random() < 0.12:
        plane = 1 - plane
    if rng.random() < 0.5:
        plane = plane * np.exp(rng.uniform(0, 0.5) * smooth_field(rng, plane.shape, (4, 3)))
    if rng.random() < 0.35:
        plane = _lose_resolution(rng, plane)
    if rng.random() < 0.15:
        plane = _ghost(rng, plane)
    if rng.random() < 0.6:
        plane = plane + rng.uniform(0, 0.5) * plane.std() * rng.standard_normal(plane.shape)
    return np.asarray(plane, dtype=np.float32)


def _lose_resolution(rng: np.random.Generator, plane: Plane) -> Plane:
    sigma = rng.uniform(0, 1.6, 2) * (rng.random(2) < 0.7)
    return gaussian_filter(plane, sigma)


def _ghost(rng: np.random.Generator, plane: Plane) -> Plane:
    """Add a faint copy moved along one axis, as breathing and flow do along the phase axis."""
    axis = int(rng.integers(2))
    return plane + rng.uniform(0.05, 0.25) * np.roll(plane, int(rng.integers(8, 60)), axis=axis)


def crop_field_of_view(
    rng: np.random.Generator, inside: NDArray[np.bool_], pixel_mm: float
) -> NDArray[np.bool_]:
    """Keep the part of a plane that a smaller field of view would have kept."""
    keep = np.zeros_like(inside)
    rows, columns = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
    if len(rows) == 0:
        return keep
    top, bottom = _crop(rng, rows, 100 / pixel_mm if rng.random() < 0.6 else np.inf)
    left, right = _crop(rng, columns, 70 / pixel_mm if rng.random() < 0.3 else np.inf)
    keep[top:bottom, left:right] = inside[top:bottom, left:right]
    return keep


def _crop(rng: np.random.Generator, used: NDArray[np.int64], least: float) -> tuple[int, int]:
    first, length = int(used[0]), int(used[-1] - used[0] + 1)
    kept = length if least >= length else int(rng.uniform(least, length))
    start = first + int(rng.integers(length - kept + 1))
    return start, start + kept
