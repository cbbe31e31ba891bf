"""Values of an array read between its cells, linearly.

The same as ``scipy.ndimage.map_coordinates(..., order=1, mode="nearest")``, which the tests compare it with;
loading scipy takes longer than labelling an image does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_linear", "read_linear_axis", "read_linear_columns", "read_linear_rows"]

AT_ONCE = 2**14
"""So many places are read together: what is computed for them stays in a core's cache."""


def read_linear(
    data: NDArray[Any], places: Sequence[NDArray[np.floating]] | NDArray[np.floating]
) -> NDArray[np.float32]:
    """Read an array between its cells.

    Parameters
    ----------
    data
        Of as many axes as there are places, and further ones: what each cell holds.
    places
        For each axis, continuous indices, all of one shape. Beyond an end the last cell counts.

    Returns
    -------
    NDArray
        Of the places' shape, followed by that of what a cell holds.
    """
    shape, held = np.shape(places[0]), data.shape[len(places) :]
    cells, steps, turned = _in_memory_order(data, len(places))
    flat = [np.ravel(place) for place in places]
    out = np.empty((flat[0].size, *held), dtype=np.float32)
    for first in range(0, len(out), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        at = [
            np.clip(size - 1 - place[part] if turn else place[part], 0, size - 1)
            for place, size, turn in zip(flat, data.shape, turned, strict=False)
        ]
        out[part] = _read_flat(cells, at, steps, data.shape)
    return out.reshape(*shape, *held)


def _in_memory_order(data: NDArray[Any], axes: int) -> tuple[NDArray[Any], list[int], list[bool]]:
    """Return the cells one after the other, how far apart those along each axis are, and which are turned."""
    turned = [stride < 0 for stride in data.strides[:axes]]
    upright = data[tuple(slice(None, None, -1 if turn else 1) for turn in turned)]
    order = [*np.argsort(upright.strides[:axes], kind="stable")[::-1].tolist(), *range(axes, data.ndim)]
    laid = np.ascontiguousarray(upright.transpose(order))  # no copy, as images come
    steps = [1] * axes
    for inner, outer in pairwise(order[axes - 1 :: -1]):
        steps[outer] = steps[inner] * data.shape[inner]
    return laid.reshape(-1, *data.shape[axes:]), steps, turned


def _read_flat(
    cells: NDArray[Any], at: list[NDArray[np.floating]], steps: list[int], sizes: tuple[int, ...]
) -> NDArray[np.float32]:
    """Read cells that lie one after the other: along one axis after another, halving what was read."""
    below = [place.astype(np.intp) for place in at]
    shares = [(place - low).astype(np.float32) for place, low in zip(at, below, strict=True)]
    shares = [share.reshape(-1, *[1] * (cells.ndim - 1)) for share in shares]
    corners = [sum(low * step for low, step in zip(below, steps, strict=True))]
    for low, step, size in zip(below, steps, sizes, strict=False):
        onwards = np.where(low < size - 1, step, 0)
        corners = [index for corner in corners for index in (corner, corner + onwards)]
    values = [cells.take(corner, axis=0).astype(np.float32, copy=False) for corner in corners]
    for share in reversed(shares):
        values = [near + share * (far - near) for near, far in zip(values[::2], values[1::2], strict=True)]
    return values[0]


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


def read_linear_axis(
    values: NDArray[np.float32], place: NDArray[np.floating], axis: int
) -> NDArray[np.float32]:
    """Read an array at ``(K,)`` places along one axis; NaN spreads only as far as it counts."""
    (below, above), (near, far) = _neighbours(place, values.shape[axis])
    shape = [-1 if n == axis else 1 for n in range(values.ndim)]
    out = values.take(below, axis) * near.reshape(shape)
    out += values.take(np.where(far > 0, above, below), axis) * far.reshape(shape)
    return out


def _neighbours(
    place: NDArray[np.floating], size: int
) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the cells on either side of places along an axis, and how much each counts."""
    place = np.clip(place, 0, size - 1)
    below = place.astype(np.intp)
    share = (place - below).astype(np.float32)
    return (below, np.minimum(below + 1, size - 1)), (1 - share, share)
