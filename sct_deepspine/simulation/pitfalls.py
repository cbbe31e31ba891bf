"""Changed scans on which a labelling goes wrong with confidence, or should say what it met.

Each is a :class:`~sct_deepspine.simulation.perturbations.Case` with exact truth, as the perturbations are.
The levels can still be recognised in some of them, in others no one can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, shift

from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import (
    CANAL_TISSUE,
    CORD_TISSUE,
    DISC_TISSUE,
    VERTEBRA_TISSUE,
    LabelledScan,
    canal_points,
)
from sct_deepspine.simulation.composite import fit_tissues
from sct_deepspine.simulation.perturbations import (
    Case,
    bent_aside,
    between,
    in_view,
    midway,
    remapped,
    resampled,
    slice_heights,
    unit_range,
)

__all__ = [
    "cut_to",
    "dark_bone",
    "displaced_mask",
    "fused",
    "metal",
    "pitfalls",
    "resized",
    "stepped",
]

DARK_BONE_SLICES_MM = 4.0, 8.0
"""Thickness of the axial slices that contrasts with dark bone come in, mm."""

CORD_RADIUS_MM = 5.0
"""Of a made-up cord mask, mm."""

FUSED_SHARE = 0.2
"""Half the height of what is filled with bone where two vertebrae are fused, of the distance between the
neighbouring discs on either side: a disc is a quarter to a third of a level high."""

METAL_RADIUS_MM = 14.0
"""Of the signal void about one piece of metal, mm: two screws and a plate of a cervical vertebra."""

FILL = -1024.0
"""What scanners and resampling fill an image's outside with: air in Hounsfield units."""

MIN_DISCS = 3
"""A view of this many discs or fewer ends half a disc distance beyond the outermost ones, at most."""


def pitfalls(scan: LabelledScan, rng: np.random.Generator) -> Iterator[Case]:
    """Make all of them that a scan allows.

    Parameters
    ----------
    scan
        With at least five discs.
    rng
        Of contrasts, noise and sizes.
    """
    ras = scan.volume.as_ras()
    grey, values = unit_range(ras.data), sorted(scan.discs)
    middle = values[len(values) // 2]

    def same_place(name: str, data: NDArray[np.floating]) -> Case:
        return Case(name, Volume(data.astype(np.float32), ras.grid), scan.discs, scan.span_z_mm)

    if ras.data.shape[0] > 1:
        for index in range(3):
            yield dark_bone(scan, rng, name=f"dark bone {index + 1}")
        yield from bent_aside(scan, {"C": 35.0, "S": 25.0}, name="severe scoliosis")
        yield displaced_mask(scan, 12.0)
    yield stepped(scan, 8.0, values[len(values) // 3])
    yield same_place("filled with -1024 above", _filled_above(scan, ras, values[0]))
    noisy_air = np.where(grey > 0.03, 1 - grey, 0.97 + 0.1 * rng.standard_normal(grey.shape))
    yield same_place("inverted, noisy air", noisy_air)
    for factor in (0.5, 0.7, 1.4, 2.0):
        yield resized(scan, factor)
    yield metal(scan, values[1:4])
    yield fused(scan, middle)
    yield cut_to(scan, values[len(values) // 2 :], name="upper half cut off")
    yield cut_to(scan, values[: (len(values) + 1) // 2], name="lower half cut off")
    for first in values[1:-3]:
        yield cut_to(scan, [first, first + 1, first + 2], name="three discs")
    two = [middle, middle + 1]
    yield replace(cut_to(scan, two, name="two discs with anchor"), anchor={middle: scan.discs[middle]})
    yield same_place("remap and noise", remapped(grey, rng) + 0.15 * rng.standard_normal(grey.shape))


def dark_bone(scan: LabelledScan, rng: np.random.Generator, *, name: str = "dark bone") -> Case:
    """Make bone the darkest tissue and discs and fluid bright or dark, in thick axial slices."""
    ras = scan.volume.as_ras()
    tissue = (scan if scan.tissue is not None else fit_tissues(scan)).tissue
    if tissue is None:
        raise ValueError(f"{scan.name} has too few discs to tell where its bones are")
    label = tissue.labels_on(ras.grid)
    grey = unit_range(ras.data)
    greys = {
        VERTEBRA_TISSUE: rng.uniform(0.02, 0.18),
        DISC_TISSUE: rng.uniform(0.25, 0.9),
        CANAL_TISSUE: rng.uniform(0.25, 0.9),
        CORD_TISSUE: rng.uniform(0.3, 0.8),
    }
    for value, level in greys.items():
        inside = label == value
        if inside.any():
            soft = gaussian_filter(inside.astype(np.float32), 0.7)
            grey = grey + soft * (level + 0.3 * (grey - grey[inside].mean()) - grey)
    thick = rng.uniform(*DARK_BONE_SLICES_MM)
    data, grid = resampled(np.clip(grey, 0, 1), ras.grid, (0.0, 0.0, thick))
    data = data + rng.uniform(0, 0.05) * rng.standard_normal(data.shape)
    return Case(name, Volume(data.astype(np.float32), grid), scan.discs, scan.span_z_mm)


def displaced_mask(scan: LabelledScan, displaced_mm: float) -> Case:
    """Give the scan with a mask of its canal's middle, of which a third lies to the left and in front."""
    ras = scan.volume.as_ras()
    line = np.array(canal_points(scan))
    low, high = np.quantile(line[:, 2], (0.4, 0.7))
    part = (line[:, 2] > low) & (line[:, 2] < high)
    line[part, :2] += displaced_mm * np.array([-0.6, 0.8])
    return Case(
        "mask displaced in part",
        Volume(ras.data, ras.grid),
        scan.discs,
        scan.span_z_mm,
        seg=tube(ras.grid, line, CORD_RADIUS_MM),
    )


def tube(grid: Grid, line_world: FloatArray, radius_mm: float) -> Volume:
    """Return the mask of all voxels within a radius of a line, slice by slice."""
    z = slice_heights(grid)
    order = np.argsort(line_world[:, 2])
    across = [np.interp(z, line_world[order, 2], line_world[order, axis]) for axis in (0, 1)]
    world = grid.world_from_voxel(np.indices(grid.shape).reshape(3, -1).T).reshape(*grid.shape, 3)
    radius = np.hypot(world[..., 0] - across[0], world[..., 1] - across[1])
    shown = (z >= line_world[:, 2].min()) & (z <= line_world[:, 2].max())
    return Volume(((radius < radius_mm) & shown).astype(np.uint8), grid)


def stepped(scan: LabelledScan, step_mm: float, below: int) -> Case:
    """Move all that lies below a disc forwards, as a badly stitched image has it."""
    ras = scan.volume.as_ras()
    border = scan.discs[below][2] - step_mm
    lower = slice_heights(ras.grid) < border
    moved = shift(ras.data[:, :, lower].astype(np.float32), (0, step_mm / ras.grid.spacing_mm[1], 0), order=1)
    data = np.array(ras.data, dtype=np.float32)
    data[:, :, lower] = moved
    truth = {v: np.add(p, (0, step_mm * (p[2] < border), 0)) for v, p in scan.discs.items()}
    return Case("lower part moved 8 mm", Volume(data, ras.grid), truth, scan.span_z_mm)


def resized(scan: LabelledScan, factor: float) -> Case:
    """Give the voxels a wrong size."""
    ras = scan.volume.as_ras()
    scaled = np.diag([factor, factor, factor, 1.0])
    low, high = scan.span_z_mm
    return Case(
        f"voxel size × {factor:g}",
        ras.transformed(scaled),
        {value: factor * point for value, point in scan.discs.items()},
        (factor * low, factor * high),
    )


def metal(scan: LabelledScan, values: list[int]) -> Case:
    """Lose the signal about the bodies below some discs."""
    ras = scan.volume.as_ras()
    grey = unit_range(ras.data)
    world = ras.grid.world_from_voxel(np.indices(ras.grid.shape).reshape(3, -1).T).reshape(*ras.grid.shape, 3)
    keep = np.ones(ras.grid.shape)
    for value in values:
        centre = np.add(scan.discs[value], (0, METAL_RADIUS_MM, 0))
        far = np.linalg.norm((world - centre) * (0.6, 1, 1), axis=-1) / METAL_RADIUS_MM
        keep *= 1 - np.exp(-(far**6))
    name = "metal"
    return Case(name, Volume((grey * keep).astype(np.float32), ras.grid), scan.discs, scan.span_z_mm)


def fused(scan: LabelledScan, value: int) -> Case:
    """Fill a disc with the bone above and below it."""
    ras = scan.volume.as_ras()
    grey, tip = unit_range(ras.data), scan.discs[value]
    z, spacing = slice_heights(ras.grid), ras.grid.spacing_mm[2]
    tips = np.array([scan.discs[value - 1], tip, scan.discs[value + 1]])
    half_mm = FUSED_SHARE * (tips[0, 2] - tips[2, 2]) / 2
    # Discs lean as the spine does: along the normal of the line through the neighbouring tips.
    lean = -(tips[0, 1] - tips[2, 1]) / (tips[0, 2] - tips[2, 2])
    y = ras.grid.world_from_voxel(np.outer(np.arange(ras.grid.shape[1]), (0, 1, 0)))[:, 1]
    height = tip[2] + lean * (y - tip[1])
    away = (z[None, :] - height[:, None]) / half_mm
    column = (y > tip[1] - 1.0) & (y < tip[1] + 30.0)
    inside = (np.abs(away) < 1) & column[:, None]
    part = (away + 1) / 2
    k = np.arange(len(z))[None, :]
    below, above = (k + (sign - away) * half_mm / spacing for sign in (-1.4, 1.4))
    rows = np.broadcast_to(np.arange(len(y))[:, None], below.shape)
    out = grey.copy()
    for i, plane in enumerate(grey):
        ends = [map_coordinates(plane, [rows, end], order=1, mode="nearest") for end in (below, above)]
        out[i] = np.where(inside, (1 - part) * ends[0] + part * ends[1], plane)
    return Case("fused", Volume(out, ras.grid), scan.discs, scan.span_z_mm)


def cut_to(scan: LabelledScan, kept: list[int], *, name: str) -> Case:
    """Cut the image midway between the discs that are kept and their neighbours."""
    ras = scan.volume.as_ras()
    z = {value: point[2] for value, point in scan.discs.items()}
    step = (z[kept[0]] - z[kept[-1]]) / (len(kept) - 1)
    below, above = midway(scan.discs, kept)
    if len(kept) <= MIN_DISCS:
        above, below = min(above, z[kept[0]] + step / 2), max(below, z[kept[-1]] - step / 2)
    image = between(ras, below, above)
    span = max(scan.span_z_mm[0], below), min(scan.span_z_mm[1], above)
    return Case(name, image, in_view(image.grid, scan.discs), span)


def _filled_above(scan: LabelledScan, ras: Volume, value: int) -> NDArray[np.float32]:
    """Fill what lies a little above a disc with a constant far below all grey values."""
    data = np.array(ras.data, dtype=np.float32)
    data[:, :, slice_heights(ras.grid) > scan.discs[value][2] + 8.0] = FILL
    return data
