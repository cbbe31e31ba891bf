"""Perturbed scans: other contrasts, resolutions, poses, artefacts and fields of view.

Every change is exact about where the discs are afterwards, so that the truth of the scan remains the
truth of the changed one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates, shift, zoom

from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import LabelledScan
from sct_deepspine.io.images import ImageLike

__all__ = [
    "Case",
    "bent_aside",
    "between",
    "in_view",
    "midway",
    "perturbed",
    "remapped",
    "resampled",
    "scoliotic",
    "slice_heights",
    "unit_range",
    "whole_spine_cases",
]

REMAPS = 5
"""Random remappings of the grey values of each scan."""

ROTATION_DEGREES = 20.0
"""Rotation about each axis, to either side."""

CROPS = (4, 6, 8)
"""Discs left in a cropped view."""

SCOLIOSIS_MM = {"C": 20.0, "S": 12.0}
"""How far the middle of a spine is bent to one side, or each half of it to another."""

THORACIC_RANGE = 10, 19
"""First and last disc of a crop that shows the thoracic spine only."""

TOP_ANCHOR, BOTTOM_ANCHOR = 3, 25
"""C2/C3 is known by the dens above it, L5/S1 by the sacrum below."""


@dataclass(frozen=True, eq=False)
class Case:
    """A changed scan.

    Parameters
    ----------
    perturbation
        Its name.
    image
        What is to be labelled.
    truth
        The scan's discs that are still in view, in the frame of the scan before the change; in the image's
        own where the change is no rigid one.
    span_z_mm
        Where discs count, in that frame.
    original_from_perturbed
        ``(4, 4)``: takes world points found in ``image`` to that frame.
    anchor
        A disc given to the labelling, in the frame of ``image``.
    seg
        A cord mask given to the labelling.
    """

    perturbation: str
    image: ImageLike
    truth: Mapping[int, FloatArray]
    span_z_mm: tuple[float, float]
    original_from_perturbed: FloatArray = field(default_factory=lambda: np.eye(4))
    anchor: dict[int, FloatArray] | None = None
    seg: ImageLike | None = None


def perturbed(scan: LabelledScan, rng: np.random.Generator) -> Iterator[Case]:
    """Make all the changed versions of a scan, the unchanged one first.

    Parameters
    ----------
    scan
        The scan.
    rng
        Of remaps, noise, bias and motion.
    """
    ras = scan.volume.as_ras()
    grey = unit_range(ras.data)

    def same_place(name: str, data: NDArray[np.floating], grid: Grid | None = None) -> Case:
        return Case(name, Volume(data.astype(np.float32), grid or ras.grid), scan.discs, scan.span_z_mm)

    yield same_place("plain", ras.data)
    yield same_place("inverted", 1 - grey)
    for index in range(REMAPS):
        yield same_place(f"remap {index + 1}", remapped(grey, rng))
    yield same_place("2 mm isotropic", *resampled(grey, ras.grid, (2.0, 2.0, 2.0)))
    if ras.data.shape[0] > 1:
        yield same_place("5 mm slices", *resampled(grey, ras.grid, (5.0, 0.0, 0.0)))
    yield same_place("5 mm coronal", *resampled(grey, ras.grid, (0.0, 5.0, 0.0)))
    yield same_place("5 mm axial", *resampled(grey, ras.grid, (0.0, 0.0, 5.0)))
    for axis, name in enumerate(("pitch", "roll", "yaw")):
        if axis and ras.data.shape[0] == 1:
            continue  # a single slice that is turned out of its plane shows no spine
        for degrees in (-ROTATION_DEGREES, ROTATION_DEGREES):
            turn = _turn_about_middle(ras.grid, axis, degrees)
            yield _oblique(f"{name} {degrees:+.0f}°", scan, ras, turn)
            turned = _turned(f"{name} {degrees:+.0f}° in the slices", scan, ras.grid, grey, turn)
            if len(turned.truth) >= CROPS[0]:
                yield turned
    yield same_place("noise", grey + 0.1 * rng.standard_normal(grey.shape))
    yield same_place("bias", grey * _bias(grey.shape, rng))
    yield same_place("motion", _moved(grey, rng))
    yield from _crops(scan, ras)


def scoliotic(scan: LabelledScan) -> Iterator[Case]:
    """Bend the spine of a scan sideways, once to one side and once to both, while the slices stay.

    Discs leave the view where the slices do not reach far enough; a view of fewer than four is left out.
    """
    yield from bent_aside(scan, SCOLIOSIS_MM, name="scoliosis")


def bent_aside(scan: LabelledScan, by_mm: Mapping[str, float], *, name: str) -> Iterator[Case]:
    """Bend the spine of a scan sideways: shape (C or S) → how far its parts are bent, mm."""
    ras = scan.volume.as_ras()
    if ras.data.shape[0] == 1 or len(scan.discs) < CROPS[0]:
        return
    grey, grid = unit_range(ras.data), ras.grid
    low, high = (extreme(point[2] for point in scan.discs.values()) for extreme in (min, max))

    def aside_mm(shape: str, z: FloatArray) -> FloatArray:
        part = np.clip((z - low) / (high - low), 0, 1)
        bend = np.sin(np.pi * part) ** 2 if shape == "C" else np.sin(2 * np.pi * part)
        return by_mm[shape] * bend

    for shape in by_mm:
        voxels = aside_mm(shape, slice_heights(grid)) / grid.spacing_mm[0]
        data = np.stack([shift(grey[:, :, k], (v, 0), order=1) for k, v in enumerate(voxels)], axis=2)
        truth = in_view(
            grid, {v: np.add(p, (aside_mm(shape, p[2:])[0], 0, 0)) for v, p in scan.discs.items()}
        )
        if len(truth) >= CROPS[0]:
            yield Case(f"{name}, {shape}-shaped", Volume(data, grid), truth, scan.span_z_mm)


def whole_spine_cases(scan: LabelledScan, rng: np.random.Generator) -> Iterator[Case]:
    """Make cases of a scan that shows the spine from C2/C3 to L5/S1: whole, changed, and its thorax alone.

    Parameters
    ----------
    scan
        The scan.
    rng
        Of the remap and of the crops' places.
    """
    ras = scan.volume.as_ras()
    grey = unit_range(ras.data)
    changes = {"": grey, ", inverted": 1 - grey, ", remapped": remapped(grey, rng)}
    for name, data in changes.items():
        yield Case(f"whole spine{name}", Volume(data, ras.grid), scan.discs, scan.span_z_mm)
    for count in CROPS[1:]:
        first = int(rng.integers(THORACIC_RANGE[0], THORACIC_RANGE[1] - count + 2))
        kept = list(range(first, first + count))
        yield _crop(f"thoracic crop {count}", scan, ras, kept, anchored=False)
        yield _crop(f"thoracic crop {count} with anchor", scan, ras, kept, anchored=True)


def unit_range(data: NDArray[np.generic]) -> NDArray[np.float32]:
    """Scale grey values to 0…1, outermost half percents clipped."""
    values = np.asarray(data, dtype=np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)


def remapped(grey: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.floating]:
    """Send grey values through a random piecewise-linear curve that keeps some contrast."""
    before = np.linspace(0, 1, 5)
    while True:
        after = rng.uniform(0, 1, 5)
        if np.abs(np.diff(after)).min() > 0.1:
            return np.interp(grey, before, after)


def resampled(
    grey: NDArray[np.float32], grid: Grid, spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.floating], Grid]:
    """Average to coarser voxels; an axis that is as coarse already, or has spacing 0, is kept."""
    wanted = np.maximum(spacing_mm, grid.spacing_mm)
    factor = wanted / grid.spacing_mm
    shape = tuple(int(n) for n in np.maximum(np.floor(np.array(grid.shape) / factor), 1))
    smooth = gaussian_filter(grey, np.where(factor > 1.01, 0.4 * factor, 0))
    # The new voxels' centres, in the old voxels' indices; both grids share their first face.
    axes = [(np.arange(n) + 0.5) * f - 0.5 for n, f in zip(shape, factor, strict=True)]
    data = map_coordinates(smooth, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")
    affine = grid.affine @ np.diag([*factor, 1.0])
    affine[:3, 3] = grid.world_from_voxel([axis[0] for axis in axes])[0]
    return data, Grid(shape, affine)  # type: ignore[arg-type]


def _turn_about_middle(grid: Grid, axis: int, degrees: float) -> FloatArray:
    angles = [0.0, 0.0, 0.0]
    angles[axis] = np.radians(degrees)
    rotation = euler2mat(x=angles[0], y=angles[1], z=angles[2])
    return from_matvec(rotation, grid.middle_world - rotation @ grid.middle_world)


def _oblique(name: str, scan: LabelledScan, ras: Volume, turn: FloatArray) -> Case:
    """Turn the subject in the scanner and the slices along: the voxels stay."""
    return Case(
        name, ras.transformed(turn), scan.discs, scan.span_z_mm, np.linalg.inv(turn).astype(np.float64)
    )


def _turned(name: str, scan: LabelledScan, grid: Grid, grey: NDArray[np.float32], turn: FloatArray) -> Case:
    """Turn the subject and leave the slices where they are: black comes into view, discs may leave it."""
    back = np.linalg.inv(grid.affine) @ np.linalg.inv(turn) @ grid.affine
    data = affine_transform(grey, back[:3, :3], back[:3, 3], order=1)
    truth = {
        value: point for value, point in scan.discs.items() if in_view(grid, {0: apply_affine(turn, point)})
    }
    return Case(name, Volume(data, grid), truth, scan.span_z_mm, np.linalg.inv(turn).astype(np.float64))


def in_view(grid: Grid, points: Mapping[int, FloatArray]) -> dict[int, FloatArray]:
    """Return the world points that lie in a grid's image, by value."""
    return {v: p for v, p in points.items() if grid.contains_voxel(grid.voxel_from_world(p))[0]}


def slice_heights(grid: Grid) -> FloatArray:
    """Return the world z of the axial slices of a grid that lies along the world's axes."""
    return grid.world_from_voxel(np.outer(np.arange(grid.shape[2]), (0, 0, 1)))[:, 2]


def midway(discs: Mapping[int, FloatArray], kept: Sequence[int]) -> tuple[float, float]:
    """Return the heights midway from the last and the first disc kept to the next ones; infinite without."""
    z = {value: point[2] for value, point in discs.items()}
    first, last = kept[0], kept[-1]
    below = (z[last] + z[last + 1]) / 2 if last + 1 in z else -np.inf
    above = (z[first] + z[first - 1]) / 2 if first - 1 in z else np.inf
    return below, above


def between(ras: Volume, below: float, above: float) -> Volume:
    """Return the axial slices of a volume, which lies along the world's axes, between two heights."""
    heights = slice_heights(ras.grid)
    inside = np.flatnonzero((heights > below) & (heights < above))
    affine = np.array(ras.grid.affine)
    affine[:3, 3] = ras.grid.world_from_voxel([0, 0, inside[0]])[0]
    data = ras.data[:, :, inside[0] : inside[-1] + 1]
    return Volume(data, Grid(data.shape, affine))


def _bias(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.floating]:
    """Return a smooth field between about 1/2 and 2, as a surface coil's."""
    knots = rng.standard_normal((2, 4, 4))
    return np.exp(0.4 * zoom(knots, [n / k for n, k in zip(shape, knots.shape, strict=True)], order=1))


def _moved(grey: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.floating]:
    """Move the subject by up to 3 mm for a fifth of the phase-encoding lines, one stretch at a time."""
    lines = np.fft.fftfreq(grey.shape[2])
    moved = np.zeros(grey.shape[2])
    for start in rng.integers(0, grey.shape[2], 4):
        moved[start : start + grey.shape[2] // 20] = rng.uniform(-3, 3)
    moved[np.abs(lines) < 0.02] = 0  # the middle of k-space defines where the subject is
    phase = np.exp(-2j * np.pi * lines * moved)
    return np.abs(np.fft.ifft(np.fft.fft(grey, axis=2) * phase, axis=2))


def _crops(scan: LabelledScan, ras: Volume) -> Iterator[Case]:
    """Keep a few discs: with the landmark that tells their level, without it, and then with an anchor."""
    values = sorted(scan.discs)
    top = values[0] <= TOP_ANCHOR
    bottom = values[-1] == BOTTOM_ANCHOR
    if not (top or bottom):
        return
    for count in CROPS:
        if len(values) > count:
            kept = values[:count] if top else values[-count:]
            yield _crop(f"crop {count} with landmark", scan, ras, kept, anchored=False)
            kept = values[1 : count + 1] if top else values[-count - 1 : -1]
            yield _crop(f"crop {count} without landmark", scan, ras, kept, anchored=False)
            yield _crop(f"crop {count} with anchor", scan, ras, kept, anchored=True)


def _crop(name: str, scan: LabelledScan, ras: Volume, kept: list[int], *, anchored: bool) -> Case:
    """Cut the volume midway to the next disc, or beyond the landmark's end not at all."""
    z = {value: point[2] for value, point in scan.discs.items()}
    step = (z[kept[0]] - z[kept[-1]]) / (len(kept) - 1)
    below, above = midway(scan.discs, kept)
    above = above if np.isfinite(above) else z[kept[0]] + step / 2
    below = below if np.isfinite(below) else z[kept[-1]] - step / 2
    if name.endswith("with landmark"):
        above = np.inf if kept[0] <= TOP_ANCHOR else above
        below = -np.inf if kept[-1] == BOTTOM_ANCHOR else below
    truth = {value: scan.discs[value] for value in kept}
    span = max(scan.span_z_mm[0], below), min(scan.span_z_mm[1], above)
    middle = kept[len(kept) // 2]
    anchor = {middle: scan.discs[middle]} if anchored else None
    return Case(name, between(ras, below, above), truth, span, anchor=anchor)
