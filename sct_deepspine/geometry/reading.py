"""Values of an array read between its cells, linearly.

The same as ``scipy.ndimage.map_coordinates(..., order=1, mode="nearest")``, which the tests compare it with;
loading scipy takes longer than labelling an image does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["linear_weights", "read_linear", "read_linear_columns", "read_linear_rows"]


def read_linear(
    data: NDArray[Any], places: Sequence[NDArray[np.floating]] | NDArray[np.floating]
) -> NDArray[np.float32]:
    """Read an array between its cells.

    Parameters
    ----------
    data
        Of any number of axes.
    places
        For each axis of the array, continuous indices, all of one shape. Beyond an end the last cell counts.

    Returns
    -------
    NDArray
        Of the places' shape.
    """
    axes = [_neighbours(place, size) for place, size in zip(places, data.shape, strict=True)]
    total: NDArray[np.float32] | None = None
    for corner in product((0, 1), repeat=len(axes)):
        weight = np.float32(1)
        for side, (_, shares) in zip(corner, axes, strict=True):
            weight = weight * shares[side]
        part = weight * data[tuple(cells[side] for side, (cells, _) in zip(corner, axes, strict=True))]
        total = part if total is None else total + part
    return np.asarray(total, dtype=np.float32)


def read_linear_rows(
    data: NDArray[Any], first: NDArray[np.floating], last: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Read whole rows along the middle one of three axes, at ``(R,)`` places of the others.

    Returns
    -------
    NDArray
        ``(R, n)``, as many columns as the middle axis has cells.
    """
    (one, one_share), (other, other_share) = (
        _neighbours(first, data.shape[0]),
        _neighbours(last, data.shape[2]),
    )
    total = np.zeros((len(first), data.shape[1]), dtype=np.float32)
    for side, beside in product((0, 1), repeat=2):
        total += (one_share[side] * other_share[beside])[:, None] * data[one[side], :, other[beside]]
    return total


def read_linear_columns(rows: NDArray[np.float32], place: NDArray[np.floating]) -> NDArray[np.float32]:
    """Read ``(R, n)`` rows at ``(C,)`` places along them, ``(R, C)``."""
    (below, above), (near, far) = _neighbours(place, rows.shape[1])
    return near * rows[:, below] + far * rows[:, above]


def _neighbours(
    place: NDArray[np.floating], size: int
) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the cells on either side of places along an axis, and how much each counts."""
    place = np.clip(place, 0, size - 1)
    below = place.astype(np.intp)
    share = (place - below).astype(np.float32)
    return (below, np.minimum(below + 1, size - 1)), (1 - share, share)


def linear_weights(place: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Return the ``(K, size)`` matrix that reads the cells of an axis at places along it.

    Examples
    --------
    >>> linear_weights(np.array([0.25, 2.0]), 3).tolist()
    [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    """
    (below, above), (near, far) = _neighbours(place, size)
    weights = np.zeros((len(place), size), dtype=np.float32)
    rows = np.arange(len(place))
    weights[rows, below] = near
    weights[rows, above] += far
    return weights
