"""Smooth curves through points: piecewise cubics and uniform cubic B-splines.

A handful of lines each, so that labelling an image does not wait for the modules of scipy that hold the like:
loading those takes longer than labelling does. The tests compare them with scipy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CubicCurve", "UniformSpline", "cubic_weights", "solve_band", "through_points"]

Array = NDArray[np.float64]

BASIS = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6
"""The four pieces of a cubic B-spline on unit intervals, by rising powers of the place in the interval."""


@dataclass(frozen=True, eq=False)
class CubicCurve:
    """Cubic pieces that meet with the same slope; the outermost go on beyond the ends.

    Parameters
    ----------
    places
        ``(N,)``, increasing.
    values, slopes
        ``(N,)`` or ``(N, D)`` at the places.
    """

    places: Array
    values: Array
    slopes: Array

    def __call__(self, at: ArrayLike, derivative: int = 0) -> Array:
        """Return the values at ``(K,)`` places, or a derivative of them; NaN at NaN."""
        beyond, first, slope, bend, twist = self._pieces(at)
        if derivative == 0:
            return first + beyond * (slope + beyond * (bend + beyond * twist))
        if derivative == 1:
            return slope + beyond * (2 * bend + 3 * beyond * twist)
        return 2 * bend + 6 * beyond * twist

    def with_derivatives(self, at: ArrayLike) -> tuple[Array, Array, Array]:
        """Return the values at ``(K,)`` places, and their first and second derivatives."""
        beyond, first, slope, bend, twist = self._pieces(at)
        twisted = beyond * twist
        return (
            first + beyond * (slope + beyond * (bend + twisted)),
            slope + beyond * (2 * bend + 3 * twisted),
            2 * bend + 6 * twisted,
        )

    def _pieces(self, at: ArrayLike) -> tuple[Array, Array, Array, Array, Array]:
        """Return how far places lie in their pieces, and the coefficients of these by rising powers."""
        at = np.asarray(at, dtype=np.float64)
        n = np.clip(np.searchsorted(self.places, at, side="right") - 1, 0, len(self.places) - 2)
        beyond = at - self.places[n]
        values, slopes, bends, twists = self._coefficients
        beyond = beyond[:, None] if self.values.ndim > 1 else beyond
        return beyond, values[n], slopes[n], bends[n], twists[n]

    @cached_property
    def _coefficients(self) -> tuple[Array, Array, Array, Array]:
        steps = np.diff(self.places)
        if self.values.ndim > 1:
            steps = steps[:, None]
        chords, slopes = np.diff(self.values, axis=0) / steps, self.slopes
        bends = (3 * chords - 2 * slopes[:-1] - slopes[1:]) / steps
        twists = (slopes[:-1] + slopes[1:] - 2 * chords) / steps**2
        return self.values[:-1], slopes[:-1], bends, twists


def through_points(places: Array, values: Array, *, natural: bool = False) -> CubicCurve:
    """Return the cubic spline through values: with two continuous derivatives.

    Parameters
    ----------
    places
        ``(N,)``, increasing; four or more, or two or more for natural ends.
    values
        ``(N,)`` or ``(N, D)``.
    natural
        Whether the ends are not bent. By default the outermost two pieces are one cubic ("not a knot").
    """
    steps = np.diff(places)
    columns = values.reshape(len(places), -1)
    chords = np.diff(columns, axis=0) / steps[:, None]
    lower, middle, upper = steps[1:], 2 * (steps[:-1] + steps[1:]), steps[:-1]
    right = 3 * (lower[:, None] * chords[:-1] + upper[:, None] * chords[1:])
    if natural:
        first, last, first_right, last_right = (2.0, 1.0), (1.0, 2.0), 3 * chords[0], 3 * chords[-1]
    else:
        first, first_right = _not_a_knot(steps, chords)
        turned, last_right = _not_a_knot(steps[::-1], chords[::-1])
        last = turned[::-1]
    slopes = _solved(
        [0.0, *lower.tolist(), last[0]],
        [first[0], *middle.tolist(), last[1]],
        [first[1], *upper.tolist(), 0.0],
        np.vstack([first_right, right, last_right]),
    )
    return CubicCurve(places, values, slopes.reshape(values.shape))


def _not_a_knot(steps: Array, chords: Array) -> tuple[tuple[float, float], Array]:
    """Return the first equation of the slopes: weights of the first and the second, and the right side."""
    one, two = float(steps[0]), float(steps[1])
    both = one + two
    return (two, both), ((one + 2 * both) * two * chords[0] + one**2 * chords[1]) / both


def _solved(lower: list[float], middle: list[float], upper: list[float], right: Array) -> Array:
    """Solve tridiagonal equations, ``(N, D)``, by elimination; plain numbers are faster than arrays here."""
    shares = [0.0]
    for n in range(1, len(middle)):
        shares.append(lower[n] / middle[n - 1])
        middle[n] -= shares[n] * upper[n - 1]
    out = []
    for column in right.T.tolist():
        for n in range(1, len(column)):
            column[n] -= shares[n] * column[n - 1]
        column[-1] /= middle[-1]
        for n in range(len(column) - 2, -1, -1):
            column[n] = (column[n] - upper[n] * column[n + 1]) / middle[n]
        out.append(column)
    return np.array(out).T


def solve_band(matrix: Array, right: Array, reach: int) -> Array:
    """Solve symmetric, positive definite equations whose numbers lie about the diagonal, by elimination.

    The same as ``scipy.linalg.solveh_banded``, which takes 100 ms to load. ``numpy.linalg.solve`` starts
    BLAS's threads, which then spin for 50 ms on cores that the networks need.

    Parameters
    ----------
    matrix
        ``(N, N)``.
    right
        ``(N, D)``.
    reach
        Farther from the diagonal than this, all numbers are 0.
    """
    rows = [matrix[n, n : n + reach + 1].tolist() for n in range(len(matrix))]
    out = right.tolist()
    for n, row in enumerate(rows):
        for m in range(1, len(row)):
            share = row[m] / row[0]
            for k in range(m, len(row)):
                rows[n + m][k - m] -= share * row[k]
            out[n + m] = [below - share * above for below, above in zip(out[n + m], out[n], strict=True)]
    for n in range(len(rows) - 1, -1, -1):
        for m in range(1, len(rows[n])):
            out[n] = [own - rows[n][m] * below for own, below in zip(out[n], out[n + m], strict=True)]
        out[n] = [own / rows[n][0] for own in out[n]]
    return np.array(out)


@dataclass(frozen=True, eq=False)
class UniformSpline:
    """A cubic B-spline on equal intervals; the outermost pieces go on beyond the ends.

    Parameters
    ----------
    start, step
        Where the first interval begins, and the length of each.
    coefficients
        ``(intervals + 3, D)``.
    """

    start: float
    step: float
    coefficients: Array

    def __call__(self, at: ArrayLike, derivative: int = 0) -> Array:
        """Return the values at ``(K,)`` places, or a derivative of them, ``(K, D)``."""
        place = (np.asarray(at, dtype=np.float64) - self.start) / self.step
        n, weights = cubic_weights(place, len(self.coefficients) - 3, derivative=derivative)
        pieces = self.coefficients[n[:, None] + np.arange(4)]
        return np.einsum("kn,knd->kd", weights, pieces) / self.step**derivative


def cubic_weights(place: Array, intervals: int, *, derivative: int = 0) -> tuple[NDArray[np.int64], Array]:
    """Return the first of the four coefficients that count at ``(K,)`` places, and their ``(K, 4)`` weights.

    Places are counted in intervals.
    """
    n = np.clip(np.floor(place), 0, intervals - 1).astype(np.int64)
    beyond = place - n
    powers = np.zeros((len(place), 4))
    for power in range(derivative, 4):
        factor = np.prod(np.arange(power - derivative + 1, power + 1))
        powers[:, power] = factor * beyond ** (power - derivative)
    return n, np.einsum("kp,wp->kw", powers, BASIS)
