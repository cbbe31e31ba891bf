"""What of a volume is no image: values that something was filled with."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.volume import Volume

__all__ = ["sampled_voxels", "without_fill"]

SAMPLED_VOXELS = 40_000
"""Of which frequent values are found."""

FILL_SHARE = 0.02
"""A value that something was filled with is at least this share of the voxels."""

GAP_BELOW, GAP_ABOVE = 0.25, 1.0
"""It lies these shares of the range of all other values (1st to 99th percentile) below or above them. Air
that is 0, or fluid that is bright or saturated, lies nearer and stays."""

END_SHARE = 0.05
"""Slices of one value at an end count if they are at least this share of the axis: a single one is no
border."""


def sampled_voxels(data: NDArray[Any], count: int) -> NDArray[Any]:
    """Return at least so many voxels, or all, spread evenly over the slices of every axis.

    A step that shares a factor with the length of an axis would pass over whole slices of it.
    """
    step = max(1, data.size // count)
    while step > 1 and any(gcd(step, length) > 1 for length in data.shape):
        step -= 1
    return data.ravel(order="K")[::step]


def without_fill(volume: Volume) -> Volume:
    """Return a volume in which what was filled with a constant is NaN; the same one if nothing was.

    That is a frequent value far below or above all others, such as −1024 about a resampled scan, and whole
    slices of one value at the ends of the axes, unless it is the lowest one: that is air.
    """
    data = volume.data
    sampled = sampled_voxels(data, SAMPLED_VOXELS)
    values, counts = np.unique(sampled, return_counts=True)
    frequent = values[counts >= FILL_SHARE * len(sampled)]
    others = sampled[~np.isin(sampled, frequent)]
    filled = [value for value in frequent.tolist() if _is_apart(value, others)]
    bounds = [_bounds(data, axis, lowest=values[0]) for axis in range(3)]
    if not filled and all(bound == (0, n) for bound, n in zip(bounds, data.shape, strict=True)):
        return volume
    out = np.full(data.shape, np.nan, dtype=np.float32)
    inside = tuple(slice(first, last) for first, last in bounds)
    out[inside] = data[inside]
    for value in filled:
        out[data == value] = np.nan
    return Volume(out, volume.grid)


def _is_apart(value: float, others: NDArray[np.generic]) -> bool:
    if not len(others):
        return False
    low, high = np.percentile(others.astype(np.float64), (1, 99))
    span = high - low
    return bool(span > 0 and (value < low - GAP_BELOW * span or value > high + GAP_ABOVE * span))


def _bounds(data: NDArray[Any], axis: int, *, lowest: float) -> tuple[int, int]:
    """Return the first slice across an axis that was not filled, and the one after the last."""
    slices = np.moveaxis(data, axis, 0)

    def is_filled(index: int) -> bool:
        corner = slices[index].flat[0]
        return bool(corner > lowest and (slices[index] == corner).all())

    first, last = 0, len(slices)
    while first < last and is_filled(first):
        first += 1
    while last > first and is_filled(last - 1):
        last -= 1
    thin = END_SHARE * len(slices)
    first = first if first >= thin else 0
    last = last if len(slices) - last >= thin else len(slices)
    return (first, last) if first < last else (0, len(slices))
