"""How far apart discs lie: what is expected of any spine, and what it says of discs that were not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import DISC_VALUES, EXPECTED_SPACING_MM
from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.curves import through_points
from sct_deepspine.geometry.grid import FloatArray, as_points

__all__ = ["SpacingPrior", "extrapolate_superior", "fill_skipped"]


@dataclass(frozen=True)
class SpacingPrior:
    """How far apart neighbouring discs are expected.

    Parameters
    ----------
    spacing_mm
        Distance from disc ``v`` to disc ``v + 1``, by ``v``.
    spread
        Standard deviation of the logarithm of one distance. Twice what subjects differ by, since
        candidates of a coarse first look are a few millimetres off.
    landmark_spread
        The same for a distance from a landmark (dens, S1/S2), which is known to 2 or 3 mm only.
    body_spread
        Standard deviation of the logarithm of the factor common to all distances of a subject.
    body_factors
        The factors tried. Children lie beyond them and are reached through ``spread``.
    last_disc
        Value of the lowest disc; below it lies a landmark.
    """

    spacing_mm: Mapping[int, float] = field(default_factory=lambda: EXPECTED_SPACING_MM)
    spread: float = 0.12
    landmark_spread: float = 0.25
    body_spread: float = 0.12
    body_factors: tuple[float, ...] = tuple(float(f) for f in np.exp(np.linspace(-0.36, 0.36, 9)))
    last_disc: int = DISC_VALUES[-1]

    def depth_mm(self, values: NDArray[np.int_]) -> FloatArray:
        """Return the expected distance along the spine from the top of C1 down to each disc value.

        Examples
        --------
        >>> SpacingPrior().depth_mm(np.array([1, 2, 3])).tolist()
        [0.0, 23.0, 38.5]
        """
        levels = range(1, int(np.max(values, initial=1)))
        missing = [v for v in levels if v not in self.spacing_mm]
        if missing or np.min(values, initial=1) < 1:
            raise GeometryError(f"no expected spacing below disc values {missing}; values run from 1 to 26")
        return np.concatenate([[0.0], np.cumsum([self.spacing_mm[v] for v in levels])])[
            np.asarray(values) - 1
        ]

    def spreads(self, upper: NDArray[np.int_], steps: NDArray[np.int_]) -> FloatArray:
        """Return the spread of the distance from each value some levels down, ``(steps, values)``."""
        lower = upper + steps[:, None]
        is_landmark = (upper < DISC_VALUES[0]) | (lower > self.last_disc)
        return np.where(is_landmark, self.landmark_spread, self.spread)

    def log_body(self) -> FloatArray:
        """Return the logarithm of each body factor's prior probability, ``(F,)``."""
        exponent = -0.5 * (np.log(self.body_factors) / self.body_spread) ** 2
        return exponent - np.log(np.exp(exponent).sum())


def fill_skipped(
    points: FloatArray, values: NDArray[np.int_], *, prior: SpacingPrior | None = None
) -> tuple[NDArray[np.int_], FloatArray, NDArray[np.bool_]]:
    """Place the levels stepped over between discs, so that the values run without a gap.

    They lie on a cubic spline through the discs by chord length, where the expected spacings put them
    between their neighbours.

    Parameters
    ----------
    points
        ``(N, 3)`` discs in mm, in any frame where distances are true.
    values
        ``(N,)`` their values, increasing.
    prior
        Expected spacing.

    Returns
    -------
    values : NDArray[np.int_]
        ``(M,)`` consecutive values.
    points : FloatArray
        ``(M, 3)``, in mm.
    interpolated : NDArray[np.bool_]
        ``(M,)``: which of them were placed here.

    Raises
    ------
    GeometryError
        If there is no disc, values do not increase, or two discs are at the same place.

    Examples
    --------
    >>> values, points, interpolated = fill_skipped(np.array([[0, 0, 0], [0, 0, -36.0]]), np.array([17, 19]))
    >>> values.tolist(), interpolated.tolist(), points[1].round(1).tolist()
    ([17, 18, 19], [False, True, False], [0.0, 0.0, -17.6])
    """
    points, values, along = _checked(points, values)
    depth = (prior or SpacingPrior()).depth_mm(np.arange(1, values[-1] + 1))
    every = np.arange(values[0], values[-1] + 1)
    interpolated = ~np.isin(every, values)
    filled = np.empty((len(every), 3))
    filled[~interpolated] = points
    if interpolated.any():
        place = np.interp(depth[every[interpolated] - 1], depth[values - 1], along)
        filled[interpolated] = through_points(along, points, natural=True)(place)
    return every, filled, interpolated


def extrapolate_superior(
    points: FloatArray, values: NDArray[np.int_], *, first: int = 1, prior: SpacingPrior | None = None
) -> tuple[NDArray[np.int_], FloatArray, NDArray[np.bool_]]:
    """Place C1/C2 (2) and the top of C1 (1) above the discs found, by the template's proportions.

    They lie on the line through the uppermost discs (three if there are), at the expected distances times
    this body's size, measured on the same discs.

    Parameters
    ----------
    points
        ``(N, 3)`` discs in mm, in any frame where distances are true.
    values
        ``(N,)`` their values, increasing, from C2/C3 (3) or above.
    first
        Uppermost value to place.
    prior
        Expected spacing.

    Returns
    -------
    values, points, extrapolated
        As :func:`fill_skipped`; ``extrapolated`` tells which discs were placed here.

    Raises
    ------
    GeometryError
        If C2/C3 or the disc below the uppermost is not known: the upper end of the spine is then a guess.
    """
    points, values, along = _checked(points, values)
    if values[0] > 3 or len(values) < 2:
        raise GeometryError(
            f"discs above C2/C3 can only be placed from C2/C3 and a lower disc, got {values.tolist()}"
        )
    depth = (prior or SpacingPrior()).depth_mm(np.arange(1, values[-1] + 1))
    lowest = min(2, len(values) - 1)
    size = along[lowest] / (depth[values[lowest] - 1] - depth[values[0] - 1])
    upwards = (points[0] - points[lowest]) / np.linalg.norm(points[0] - points[lowest])
    above = np.arange(first, values[0])
    rise = size * (depth[values[0] - 1] - depth[above - 1])
    extrapolated = np.arange(len(above) + len(values)) < len(above)
    return (
        np.concatenate([above, values]),
        np.vstack([points[0] + rise[:, None] * upwards, points]),
        extrapolated,
    )


def _checked(points: FloatArray, values: NDArray[np.int_]) -> tuple[FloatArray, NDArray[np.int_], FloatArray]:
    """Return discs fit for interpolation, and the chord length down to each, mm."""
    points, values = as_points(points), np.asarray(values, dtype=int)
    if not len(points) or values.shape != (len(points),) or (np.diff(values) <= 0).any() or values[0] < 1:
        raise GeometryError(
            f"expected discs with increasing values, got values {values.tolist()} for {len(points)}"
        )
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if not np.isfinite(points).all() or (steps <= 0).any():
        raise GeometryError("two neighbouring discs are at the same place, or a disc is absent")
    return points, values, np.concatenate([[0.0], np.cumsum(steps)])
