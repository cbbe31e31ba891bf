"""Confidence intervals by resampling subjects: scans of one subject go wrong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.geometry.grid import FloatArray

__all__ = ["mean_interval", "subject_intervals"]

RESAMPLES = 2000
"""Bootstrap samples of an interval."""

PERCENTILES = 2.5, 97.5
"""Ends of a 95 % interval."""


def subject_intervals(
    parts: ArrayLike,
    subjects: Sequence[str],
    statistic: Callable[[FloatArray], NDArray[np.float64]],
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> FloatArray:
    """Return 95 % intervals of statistics of sums, by the percentile bootstrap over subjects (Efron 1979).

    Parameters
    ----------
    parts
        What is summed, ``(scans, K)``: a mean is made of sums and numbers.
    subjects
        Whose each scan is.
    statistic
        Maps sums ``(resamples, K)`` to ``(resamples, M)``; NaN where it is not defined.
    generator
        Draws the subjects.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    FloatArray
        Lower and upper ends, ``(2, M)``; NaN if there is one subject only, or nothing is defined.

    Examples
    --------
    >>> share = lambda sums: sums[:, :1] / sums[:, 1:]
    >>> parts = [[right, 1] for right in (1, 1, 0, 1, 1, 1)]
    >>> rng = np.random.default_rng(0)
    >>> subject_intervals(parts, list("abcdef"), share, generator=rng).round(2).tolist()
    [[0.5], [1.0]]
    """
    columns = np.asarray(parts, dtype=np.float64)
    names, rows = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    per_subject = np.zeros((len(names), columns.shape[1]))
    np.add.at(per_subject, rows, columns)
    drawn = generator.integers(len(names), size=(resamples, len(names)))
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = np.asarray(statistic(per_subject[drawn].sum(axis=1)), dtype=np.float64)
    ends = np.full((2, samples.shape[1]), np.nan)
    if len(names) < 2:
        return ends
    for column, values in enumerate(samples.T):
        defined = values[np.isfinite(values)]
        if len(defined):
            ends[:, column] = np.percentile(defined, PERCENTILES)
    return ends


def mean_interval(
    values: ArrayLike, subjects: Sequence[str], *, generator: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of one value a scan, those that are NaN left out."""
    each = np.asarray(values, dtype=np.float64)
    known = np.isfinite(each)
    parts = np.stack([np.where(known, each, 0.0), known], axis=1)
    low, high = subject_intervals(parts, subjects, lambda s: s[:, :1] / s[:, 1:], generator=generator)[:, 0]
    return float(low), float(high)
