"""Random changes to a plane's grey values and to the grid it is read on."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq
from scipy.interpolate import CubicSpline, interp1d
from scipy.ndimage import gaussian_filter, uniform_filter1d

from sct_deepspine.geometry.grid import FloatArray

__all__ = [
    "crop_field_of_view",
    "darken_bone",
    "random_grid",
    "random_texture",
    "randomise_grey_values",
    "randomise_parcels",
    "randomise_tissues",
    "smooth_field",
    "thick_axial_slices",
]

Plane = NDArray[np.float32]

PARCELS = (4, 12)
"""Fewest and most clusters of a plane."""

BONE_GREY, SOFT_GREY = (0.0, 0.15), (0.25, 0.95)
"""Range of the grey values of bone where it is the darkest tissue, and of discs, fluid and cord then; 0 to 1.
In gradient-echo and MT images bone has hardly any signal, whatever the others have."""

BONE_TEXTURE = 0.0, 0.4
"""Share of its contrast that dark bone keeps."""

AXIAL_MM = 4.0, 8.0
"""Thickness of thick axial slices, mm: what such series of the neck are scanned with."""

MIN_VIEW_MM = 60.0
"""Least height of a cropped field of view."""

SAMPLED_PIXELS = 1500
"""Of which the clusters are found."""


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


def randomise_tissues(rng: np.random.Generator, plane: Plane, tissue: NDArray[np.uint8]) -> Plane:
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
        remapped = rng.uniform(0.03, 1.0) + rng.uniform(-0.8, 1.2) * (plane - mean)
        out += weight * (remapped - out)
    return np.clip(out, 0, 1.2)


def darken_bone(rng: np.random.Generator, plane: Plane, tissue: NDArray[np.uint8], *, bone: int) -> Plane:
    """Make bone the darkest tissue, and each other labelled one bright or less bright.

    Vertebral bodies then look as discs do in most contrasts, and discs as bodies: what tells them apart is
    their height. Spinous processes are dark too where they are labelled as bone.

    Parameters
    ----------
    rng
        Of the grey values.
    plane
        ``(rows, columns)``, values about 0…1.
    tissue
        ``(rows, columns)`` labels; 0 is none.
    bone
        Label of the vertebrae.
    """
    out = plane.copy()
    for label in np.unique(tissue[tissue > 0]):
        inside = tissue == label
        grey, kept = (BONE_GREY, BONE_TEXTURE) if label == bone else (SOFT_GREY, (0.2, 1.0))
        weight = gaussian_filter(inside.astype(np.float32), 0.6)
        own = rng.uniform(*grey) + rng.uniform(*kept) * (plane - float(plane[inside].mean()))
        out += weight * (own - out)
    return np.clip(out, 0, 1.2).astype(np.float32)


def thick_axial_slices(rng: np.random.Generator, plane: Plane, *, pixel_mm: float) -> Plane:
    """Average the rows over the thickness of axial slices, and read them at the plane's rows again."""
    return _averaged(rng, plane, 0, rng.uniform(*AXIAL_MM) / pixel_mm)


def randomise_parcels(rng: np.random.Generator, plane: Plane) -> Plane:
    """Cut a plane into clusters of like appearance and give each a grey value of its own.

    Clusters are of grey value at three scales, so that tissues which share a grey value but not a
    texture or a size come apart, as they do from one MR sequence to another (after SynthSeg, Billot et
    al. 2023, which does so with labels). They are split further by the cells of a few random points, and
    each part gets an affine map of its own, whose slope may be negative.

    Parameters
    ----------
    rng
        Of clusters and grey values.
    plane
        ``(rows, columns)``, values about 0…1.
    """
    scales = np.stack([plane, *(gaussian_filter(plane, rng.uniform(low, 2 * low)) for low in (1.0, 3.0))])
    features = (scales * rng.uniform(0.2, 1.0, (3, 1, 1))).reshape(3, -1).T.astype(np.float64)
    some = features[rng.integers(0, len(features), SAMPLED_PIXELS)]
    if np.ptp(some) < 1e-3:
        return plane
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster is one cluster less
        centres, _ = kmeans2(some, int(rng.integers(*PARCELS)), iter=5, minit="points", seed=rng)
    cells = int(rng.choice((1, 1, 2, 3, 4)))
    seeds = rng.uniform(0, plane.shape, (cells, 2))
    places = np.indices(plane.shape).reshape(2, -1).T
    cluster, cell = vq(features, centres)[0], vq(places.astype(np.float64), seeds)[0]
    parcel = (cluster * cells + cell).reshape(plane.shape)
    count = len(centres) * cells
    before = np.bincount(parcel.ravel(), plane.ravel(), count) / np.maximum(
        np.bincount(parcel.ravel(), minlength=count), 1
    )
    # Cells of one cluster keep a likeness: a tissue changes along the body, but not into any other.
    after = np.repeat(rng.uniform(0, 1, len(centres)), cells) + rng.normal(0, 0.12, count)
    texture = rng.uniform(-0.7, 1.3) + rng.normal(0, 0.2, count)
    new = gaussian_filter(after[parcel] + texture[parcel] * (plane - before[parcel]), 0.6)
    return np.clip(plane + rng.uniform(0.5, 1.0) * (new - plane), 0, 1.2).astype(np.float32)


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


def randomise_grey_values(rng: np.random.Generator, plane: Plane, *, pixel_mm: float = 2.0) -> Plane:
    """Change contrast, shading, sharpness and noise of a plane with values about 0…1, and corrupt it."""
    if rng.random() < 0.4:
        plane = _remap(rng, plane)
    if rng.random() < 0.5:
        plane = np.clip(plane, 0, None) ** np.exp(rng.uniform(-0.7, 0.7))
    if rng.random() < 0.15:
        plane = 1 - plane
    if rng.random() < 0.06:
        plane = _implant(rng, plane, pixel_mm)
    if rng.random() < 0.5:
        plane = plane * np.exp(rng.uniform(0, 0.5) * smooth_field(rng, plane.shape, (4, 3)))
    if rng.random() < 0.35:
        plane = _lose_resolution(rng, plane, pixel_mm)
    for share, corrupt in ((0.1, _ghost), (0.06, _wrap), (0.06, _ring), (0.03, _spike)):
        if rng.random() < share:
            plane = corrupt(rng, plane)
    if rng.random() < 0.6:
        plane = plane + rng.uniform(0, 0.5) * plane.std() * rng.standard_normal(plane.shape)
    return np.asarray(plane, dtype=np.float32)


def _lose_resolution(rng: np.random.Generator, plane: Plane, pixel_mm: float) -> Plane:
    """Blur by up to 3 mm, or average along one axis over up to 6 mm, as a thick slice does."""
    if rng.random() < 0.6:
        return gaussian_filter(plane, rng.uniform(0, 3.2 / pixel_mm, 2) * (rng.random(2) < 0.7))
    return _averaged(rng, plane, int(rng.integers(2)), rng.uniform(1.5 * pixel_mm, 6.0) / pixel_mm)


def _averaged(rng: np.random.Generator, plane: Plane, axis: int, thickness: float) -> Plane:
    """Average along an axis over slices of so many pixels; they show as steps or smooth."""
    place = np.arange(plane.shape[axis])
    middles = np.arange(0.5 * thickness - 0.5, len(place), thickness)
    averaged = uniform_filter1d(plane, max(2, round(thickness)), axis=axis, mode="nearest")
    read = interp1d(place, averaged, axis=axis)(np.clip(middles, 0, len(place) - 1))
    kind = "nearest" if rng.random() < 0.5 or len(middles) < 2 else "linear"
    return interp1d(middles, read, axis=axis, kind=kind, fill_value="extrapolate")(place).astype(np.float32)


def _ghost(rng: np.random.Generator, plane: Plane) -> Plane:
    """Add a faint copy moved along one axis, as breathing and flow do along the phase axis."""
    axis = int(rng.integers(2))
    return plane + rng.uniform(0.05, 0.25) * np.roll(plane, int(rng.integers(8, 60)), axis=axis)


def _wrap(rng: np.random.Generator, plane: Plane) -> Plane:
    """Fold what lies beyond one edge back over the other, as too small a field of view does."""
    axis = int(rng.integers(2))
    reach = int(rng.uniform(0.05, 0.25) * plane.shape[axis])
    folded = np.zeros_like(plane)
    edge = (slice(None), slice(reach)) if axis else (slice(reach),)
    folded[edge] = np.roll(plane, reach, axis=axis)[edge]
    return plane + rng.uniform(0.3, 0.8) * (folded if rng.random() < 0.5 else np.flip(folded, axis))


def _ring(rng: np.random.Generator, plane: Plane) -> Plane:
    """Cut off the outer part of k-space: ringing along edges (Gibbs)."""
    along = (np.fft.fftfreq(n, 1 / n) for n in plane.shape)
    radius = np.hypot(*np.meshgrid(*along, indexing="ij"))
    kept = radius <= rng.uniform(0.25, 0.7) * max(plane.shape) / np.sqrt(2)
    return np.fft.ifft2(np.fft.fft2(plane) * kept).real.astype(np.float32)


def _spike(rng: np.random.Generator, plane: Plane) -> Plane:
    """Set one point of k-space too high: stripes over the whole plane ("herringbone")."""
    transform = np.fft.fft2(plane)
    place = tuple(int(rng.integers(-(n // 2) // 2, n // 4 + 1)) for n in plane.shape)
    height = np.abs(transform).max() * np.exp(rng.uniform(-2.5, -1.0))
    transform[place] = height * np.exp(1j * np.angle(transform[place]))
    return np.fft.ifft2(transform).real.astype(np.float32)


def _implant(rng: np.random.Generator, plane: Plane, pixel_mm: float) -> Plane:
    """Lose the signal round one to four pieces of metal, and pile it up beside them."""
    rows, columns = np.indices(plane.shape)
    plane = plane.copy()
    for _ in range(int(rng.integers(1, 5))):
        row, column = rng.uniform((0, 0.25 * plane.shape[1]), (plane.shape[0], 0.75 * plane.shape[1]))
        height, width = rng.uniform(3, 14, 2) / pixel_mm
        radius = np.hypot((rows - row) / height, (columns - column) / width)
        plane *= 1 - np.exp(-(radius**4))
        plane += rng.uniform(0, 1) * np.exp(-(((radius - 1.3) / 0.25) ** 2))
    return plane


def crop_field_of_view(
    rng: np.random.Generator, inside: NDArray[np.bool_], pixel_mm: float
) -> NDArray[np.bool_]:
    """Keep the part of a plane that a smaller field of view would have kept."""
    keep = np.zeros_like(inside)
    rows, columns = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
    if len(rows) == 0:
        return keep
    top, bottom = _crop(rng, rows, MIN_VIEW_MM / pixel_mm if rng.random() < 0.65 else np.inf)
    left, right = _crop(rng, columns, 70 / pixel_mm if rng.random() < 0.3 else np.inf)
    keep[top:bottom, left:right] = inside[top:bottom, left:right]
    return keep


def _crop(rng: np.random.Generator, used: NDArray[np.int64], least: float) -> tuple[int, int]:
    first, length = int(used[0]), int(used[-1] - used[0] + 1)
    kept = length if least >= length else int(rng.uniform(least, length))
    start = first + int(rng.integers(length - kept + 1))
    return start, start + kept
