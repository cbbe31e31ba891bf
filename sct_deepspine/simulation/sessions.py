"""Sessions of one subject: a scan cut into overlapping series of other contrasts and resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import LabelledScan
from sct_deepspine.simulation.perturbations import between, midway, remapped, resampled, unit_range

__all__ = ["Series", "cut_session", "shifted_series"]

OVERLAP_DISCS = 2, 4
"""Discs that two neighbouring series both show: at least and at most."""

MIN_DISCS = 4
"""A series shows at least so many discs."""

VOXELS_MM = (0.0, 0.0, 0.0), (2.0, 2.0, 2.0), (4.0, 0.0, 0.0), (0.0, 0.0, 3.0)
"""Voxel sizes of series, mm along right, anterior and superior; 0 leaves an axis as it is."""


@dataclass(frozen=True, eq=False)
class Series:
    """One series of a session.

    Parameters
    ----------
    image
        What is to be labelled.
    truth
        The discs that it shows, value → ``(3,)`` world, where the series says they are.
    shift_mm
        ``(3,)`` world mm by which the subject lies elsewhere than in the other series.
    """

    image: Volume
    truth: dict[int, FloatArray]
    shift_mm: FloatArray


def cut_session(
    scan: LabelledScan, rng: np.random.Generator, *, count: int = 2, shift_mm: Sequence[float] = (0, 0, 0)
) -> list[Series]:
    """Cut a scan into overlapping series from superior to inferior, each of another contrast and resolution.

    Parameters
    ----------
    scan
        The scan, with enough discs to part.
    rng
        Of the cuts, the contrasts and the resolutions.
    count
        Series.
    shift_mm
        ``(3,)`` world mm by which one of them, drawn at random, is moved.

    Raises
    ------
    ValueError
        If the scan shows too few discs.
    """
    values = sorted(scan.discs)
    overlap = int(rng.integers(OVERLAP_DISCS[0], OVERLAP_DISCS[1] + 1))
    length = (len(values) + (count - 1) * overlap) / count
    if length < MIN_DISCS:
        raise ValueError(f"{len(values)} discs can't be parted into {count} series of {MIN_DISCS} discs")
    ras = scan.volume.as_ras()
    moved = int(rng.integers(count))
    out = []
    for number in range(count):
        first = round(number * (length - overlap))
        kept = values[first : round(first + length)] if number < count - 1 else values[first:]
        series = _series(scan, ras, kept, rng)
        out.append(shifted_series(series, shift_mm if number == moved else (0, 0, 0)))
    return out


def _series(scan: LabelledScan, ras: Volume, kept: list[int], rng: np.random.Generator) -> Series:
    """Cut midway to the next discs; the ends of the scan stay as they are."""
    part = between(ras, *midway(scan.discs, kept))
    grey = _recoloured(unit_range(part.data), rng)
    voxels = VOXELS_MM[int(rng.integers(len(VOXELS_MM)))]
    if part.grid.shape[0] == 1:
        voxels = (0.0, *voxels[1:])
    data, grid = resampled(grey, part.grid, voxels)
    return Series(Volume(data.astype(np.float32), grid), {v: scan.discs[v] for v in kept}, np.zeros(3))


def _recoloured(grey: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.floating]:
    """Leave, invert, remap or bend the grey values, and add noise."""
    kind = int(rng.integers(4))
    changed = (grey, 1 - grey, remapped(grey, rng), grey ** float(rng.uniform(0.5, 2)))[kind]
    return changed + 0.02 * rng.standard_normal(grey.shape)


def shifted_series(series: Series, shift_mm: Sequence[float]) -> Series:
    """Return the series of a subject who has moved: the same image elsewhere in the world."""
    shift = np.asarray(shift_mm, dtype=np.float64)
    affine = np.eye(4)
    affine[:3, 3] = shift
    return Series(
        series.image.transformed(affine),
        {value: point + shift for value, point in series.truth.items()},
        series.shift_mm + shift,
    )
