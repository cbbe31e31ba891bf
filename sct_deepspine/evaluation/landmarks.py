"""Scores of predicted discs against truth, for one scan and pooled over many.

Two families stand side by side. The *honest* ones ask whether every disc carries the right value and how
far, in 3-D world mm, it is from the true disc of the same value. The *any-level* ones are those of Azad et
al. 2021 (arXiv 2108.06554, with the code published beside it), which compare each true disc with the nearest
prediction whatever its value: a labelling one level off is perfect to them. They are here so that figures
compare.

Only the labelled interval of world z counts: what is predicted outside it is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sct_deepspine.errors import GeometryError
from sct_deepspine.evaluation.resampling import RESAMPLES, subject_intervals
from sct_deepspine.geometry.grid import FloatArray, as_points

__all__ = ["ScanScore", "Summary", "as_rows", "format_table", "pool", "pool_by", "score_scan"]

LEVEL_RADIUS_MM = 15.0
"""A prediction farther than this from every true disc is given to none; half a thoracic vertebra."""
MATCH_RADIUS_MM = 5.0
"""A prediction and a true disc are matched one to one if they are no farther apart than this."""

WIDE_MATCH_RADIUS_MM = 10.0
"""The same, of the second, more tolerant columns of missed and invented discs."""

ANY_LEVEL_MISSED_MM = 5.0
"""A true disc whose nearest prediction is farther than this along z is a false negative (Azad et al.
2021)."""

ANY_LEVEL_FALSE_MM = 10.0
"""A prediction whose nearest true disc is farther than this along z is a false positive (Azad et al.
2021)."""


@dataclass(frozen=True)
class ScanScore:
    """How well the discs of one scan were found and labelled.

    Parameters
    ----------
    name, subject, region, contrast
        Where the scan is from; ``subject`` is the unit of resampling, ``region`` that of tables.
    true_count, predicted_count
        Discs in the truth, and predicted inside the labelled interval.
    errors_mm
        3-D distance from each true disc to the prediction of the same value, where there is one.
    level_offsets
        Predicted minus true value for each prediction within 15 mm of a true disc (the nearest counts).
    missed, invented
        True discs without a prediction and predictions without a true disc after one-to-one matching within
        5 mm, whatever the values.
    missed_wide, invented_wide
        The same within 10 mm.
    any_level_mm, any_level_z_mm
        Distance from each true disc to the nearest prediction of any level, in 3-D and along z. Empty where
        nothing was predicted.
    any_level_missed
        True discs whose nearest prediction is more than 5 mm away along z, or that have none.
    any_level_false
        Predictions whose nearest true disc is more than 10 mm away along z. Two on one disc are both true.
    """

    name: str
    subject: str
    region: str
    contrast: str
    true_count: int
    predicted_count: int
    errors_mm: tuple[float, ...]
    level_offsets: tuple[int, ...]
    missed: int
    invented: int
    missed_wide: int
    invented_wide: int
    any_level_mm: tuple[float, ...]
    any_level_z_mm: tuple[float, ...]
    any_level_missed: int
    any_level_false: int

    @property
    def levels_right(self) -> bool:
        """Whether at least one prediction lies at a true disc, and every one that does has its value."""
        return bool(self.level_offsets) and not any(self.level_offsets)

    @property
    def complete(self) -> bool:
        """Whether the levels are right, none is missed and none invented, within 5 mm."""
        return self.levels_right and not self.missed and not self.invented

    @property
    def off_by_one(self) -> int:
        """Number of predictions at a true disc that carry the value above or below."""
        return sum(abs(offset) == 1 for offset in self.level_offsets)


@dataclass(frozen=True)
class Summary:
    """Scores pooled over scans. Shares are 0 to 1; a mean of nothing is NaN.

    Parameters
    ----------
    scans, subjects, discs
        How many scans, subjects and true discs.
    mean_mm, std_mm, median_mm, max_mm
        Error of the discs with the same value, over discs.
    mean_interval_mm
        95 % bootstrap interval of ``mean_mm`` over subjects; NaN if there is one subject only.
    levels_right, complete
        Share of scans; see :class:`ScanScore`.
    levels_right_interval
        95 % bootstrap interval of ``levels_right`` over subjects.
    wrong_level, off_by_one
        Share of the predictions at true discs whose value is wrong, and wrong by exactly one.
    missed, missed_wide
        Share of true discs missed within 5 and 10 mm.
    invented, invented_wide
        Discs invented within 5 and 10 mm, per true disc.
    any_level_mean_mm, any_level_std_mm, any_level_z_mean_mm
        The published distance: each true disc to the nearest prediction of any level, in 3-D and along z.
    any_level_fnr, any_level_fpr
        The published false negative and false positive rates, both per true disc.
    """

    scans: int
    subjects: int
    discs: int
    mean_mm: float
    std_mm: float
    median_mm: float
    max_mm: float
    mean_interval_mm: tuple[float, float]
    levels_right: float
    levels_right_interval: tuple[float, float]
    complete: float
    wrong_level: float
    off_by_one: float
    missed: float
    invented: float
    missed_wide: float
    invented_wide: float
    any_level_mean_mm: float
    any_level_std_mm: float
    any_level_z_mean_mm: float
    any_level_fnr: float
    any_level_fpr: float


def score_scan(
    truth: Mapping[int, ArrayLike],
    predicted: Mapping[int, ArrayLike],
    *,
    span_z_mm: tuple[float, float] = (-np.inf, np.inf),
    name: str = "",
    subject: str = "",
    region: str = "",
    contrast: str = "",
) -> ScanScore:
    """Compare the discs of one scan with the truth.

    Parameters
    ----------
    truth, predicted
        Disc value to ``(3,)`` world mm.
    span_z_mm
        World z between which every visible disc is labelled. Predictions outside it count nothing.
    name, subject, region, contrast
        Carried into the score; without a subject the name stands for it.

    Raises
    ------
    GeometryError
        If there is no true disc, or a point is not three finite numbers.

    Examples
    --------
    >>> truth = {8: (0, 0, 0), 9: (0, 0, -20)}
    >>> score = score_scan(truth, {9: (0, 0, 1), 10: (0, 0, -20)})
    >>> score.any_level_mm, score.errors_mm, score.levels_right
    ((1.0, 0.0), (21.0,), False)
    """
    true_values, true_points = _discs(truth, "truth")
    if not len(true_values):
        raise GeometryError("a scan without a true disc can't be scored")
    values, points = _discs(predicted, "predicted")
    inside = (points[:, 2] >= min(span_z_mm)) & (points[:, 2] <= max(span_z_mm))
    values, points = values[inside], points[inside]
    distance = cdist(true_points, points)
    drop = np.abs(true_points[:, None, 2] - points[:, 2])
    true_rows = {int(value): row for row, value in enumerate(true_values)}
    same = [(true_rows[int(value)], column) for column, value in enumerate(values) if int(value) in true_rows]
    matched, matched_wide = (_matched(distance, radius) for radius in (MATCH_RADIUS_MM, WIDE_MATCH_RADIUS_MM))
    nearest_true = distance.argmin(axis=0)
    offsets = (values - true_values[nearest_true])[distance.min(axis=0, initial=np.inf) <= LEVEL_RADIUS_MM]
    missed, false, any_mm, any_z_mm = _any_level(distance, drop)
    return ScanScore(
        name=name,
        subject=subject or name,
        region=region,
        contrast=contrast,
        true_count=len(true_values),
        predicted_count=len(values),
        errors_mm=tuple(float(distance[pair]) for pair in sorted(same)),
        level_offsets=tuple(int(offset) for offset in offsets),
        missed=len(true_values) - matched,
        invented=len(values) - matched,
        missed_wide=len(true_values) - matched_wide,
        invented_wide=len(values) - matched_wide,
        any_level_mm=any_mm,
        any_level_z_mm=any_z_mm,
        any_level_missed=missed,
        any_level_false=false,
    )


def _discs(discs: Mapping[int, ArrayLike], role: str) -> tuple[NDArray[np.int_], FloatArray]:
    """Return values and ``(K, 3)`` points, by value."""
    values = np.array(sorted(discs), dtype=int)
    points = as_points([np.asarray(discs[value], dtype=np.float64) for value in sorted(discs)])
    if not np.isfinite(points).all():
        raise GeometryError(f"{role} discs hold NaN or infinite numbers; leave out those that are absent")
    return values, points


def _matched(distance: FloatArray, radius: float) -> int:
    """Return the most pairs that can be made one to one within a radius."""
    # The price of a pair out of reach is above any sum of pairs within, so that number goes before distance.
    price = np.where(distance <= radius, distance, 1e6)
    rows, columns = linear_sum_assignment(price)
    return int((distance[rows, columns] <= radius).sum())


def _any_level(
    distance: FloatArray, drop: FloatArray
) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
    """Return the published scores: missed, false, and distances in 3-D and along z.

    The nearest is chosen in 3-D and then judged along the superior-inferior axis, as the published code
    does. The thresholds are those its comments state, in mm: 5 for a missed disc (the code itself allows 7
    pixels, which is laxer) and 10 for a false one. As there, duplicates are not counted and both rates are
    per true disc. Beyond it: a scan with no prediction misses everything, instead of failing.
    """
    if not distance.shape[1]:
        return distance.shape[0], 0, (), ()
    true_row, column = np.arange(distance.shape[0]), distance.argmin(axis=1)
    along_z = drop[true_row, column]
    false = drop[distance.argmin(axis=0), np.arange(distance.shape[1])] > ANY_LEVEL_FALSE_MM
    return (
        int((along_z > ANY_LEVEL_MISSED_MM).sum()),
        int(false.sum()),
        tuple(distance[true_row, column].tolist()),
        tuple(along_z.tolist()),
    )


def pool(
    scores: Iterable[ScanScore], *, generator: np.random.Generator | None = None, resamples: int = RESAMPLES
) -> Summary:
    """Pool the scores of scans; intervals come from resampling subjects with replacement.

    Parameters
    ----------
    scores
        Scores of at least one scan.
    generator
        Randomness of the resampling; seeded with 0 unless given, so that a report repeats.
    resamples
        Number of bootstrap samples.

    Raises
    ------
    ValueError
        If there is no score.
    """
    scores = list(scores)
    if not scores:
        raise ValueError("there is no score to pool")
    errors, any_mm, any_z = (
        np.array([e for score in scores for e in getattr(score, name)])
        for name in ("errors_mm", "any_level_mm", "any_level_z_mm")
    )
    discs = sum(score.true_count for score in scores)
    offsets = np.abs([o for score in scores for o in score.level_offsets])
    error_interval, right_interval = _intervals(scores, generator or np.random.default_rng(0), resamples)

    return Summary(
        scans=len(scores),
        subjects=len({score.subject for score in scores}),
        discs=discs,
        mean_mm=_or_nan(np.mean, errors),
        std_mm=_or_nan(np.std, errors),
        median_mm=_or_nan(np.median, errors),
        max_mm=_or_nan(np.max, errors),
        mean_interval_mm=error_interval,
        levels_right=float(np.mean([score.levels_right for score in scores])),
        levels_right_interval=right_interval,
        complete=float(np.mean([score.complete for score in scores])),
        wrong_level=_or_nan(np.mean, offsets > 0),
        off_by_one=_or_nan(np.mean, offsets == 1),
        missed=_total(scores, "missed") / discs,
        invented=_total(scores, "invented") / discs,
        missed_wide=_total(scores, "missed_wide") / discs,
        invented_wide=_total(scores, "invented_wide") / discs,
        any_level_mean_mm=_or_nan(np.mean, any_mm),
        any_level_std_mm=_or_nan(np.std, any_mm),
        any_level_z_mean_mm=_or_nan(np.mean, any_z),
        any_level_fnr=_total(scores, "any_level_missed") / discs,
        any_level_fpr=_total(scores, "any_level_false") / discs,
    )


def pool_by(
    scores: Iterable[ScanScore], attribute: str = "region", *, generator: np.random.Generator | None = None
) -> dict[str, Summary]:
    """Pool scores per ``"region"``, ``"contrast"`` or ``"subject"``, and all of them under ``"all"``.

    Raises
    ------
    ValueError
        If there is no score, or scans have no such attribute.
    """
    scores = list(scores)
    if attribute not in ("region", "contrast", "subject"):
        raise ValueError(f"scores can be pooled by region, contrast or subject, not by {attribute!r}")
    groups: dict[str, list[ScanScore]] = {}
    for score in scores:
        groups.setdefault(getattr(score, attribute) or "unknown", []).append(score)
    generator = generator or np.random.default_rng(0)
    summaries = {group: pool(groups[group], generator=generator) for group in sorted(groups)}
    return {**summaries, "all": pool(scores, generator=generator)}


_COLUMNS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("scans", lambda s: f"{s.scans}"),
    ("subjects", lambda s: f"{s.subjects}"),
    ("discs", lambda s: f"{s.discs}"),
    (
        "mean mm [95 %]",
        lambda s: f"{s.mean_mm:.2f}{_interval_text(s.mean_interval_mm, 2)}",
    ),
    ("median", lambda s: f"{s.median_mm:.2f}"),
    ("max", lambda s: f"{s.max_mm:.1f}"),
    (
        "levels right % [95 %]",
        lambda s: (
            _percent(s.levels_right) + _interval_text([100 * end for end in s.levels_right_interval], 1)
        ),
    ),
    ("complete %", lambda s: _percent(s.complete)),
    ("wrong %", lambda s: _percent(s.wrong_level)),
    ("off by 1 %", lambda s: _percent(s.off_by_one)),
    ("missed 5/10 mm %", lambda s: f"{_percent(s.missed)}/{_percent(s.missed_wide)}"),
    ("invented 5/10 mm %", lambda s: f"{_percent(s.invented)}/{_percent(s.invented_wide)}"),
    ("any-level mm", lambda s: f"{s.any_level_mean_mm:.2f} ± {s.any_level_std_mm:.2f}"),
    ("any-level FNR/FPR %", lambda s: f"{_percent(s.any_level_fnr)}/{_percent(s.any_level_fpr)}"),
)


def format_table(summaries: Mapping[str, Summary]) -> str:
    """Return summaries as an aligned text table, one line each, such as those of :func:`pool_by`.

    The columns headed "any-level" are the published metrics, blind to values; all others are the honest ones.
    """
    header = ["", *(title for title, _ in _COLUMNS)]
    lines = [header, *([group, *(show(s) for _, show in _COLUMNS)] for group, s in summaries.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def as_rows(scores: Iterable[ScanScore]) -> list[dict[str, str | int | float]]:
    """Return one flat row per scan, ready for :class:`csv.DictWriter`; what doesn't exist is NaN."""
    return [
        {
            "name": score.name,
            "subject": score.subject,
            "region": score.region,
            "contrast": score.contrast,
            "true_count": score.true_count,
            "predicted_count": score.predicted_count,
            "mean_mm": _or_nan(np.mean, score.errors_mm),
            "median_mm": _or_nan(np.median, score.errors_mm),
            "max_mm": _or_nan(np.max, score.errors_mm),
            "levels_right": int(score.levels_right),
            "complete": int(score.complete),
            "wrong_level": sum(offset != 0 for offset in score.level_offsets),
            "off_by_one": score.off_by_one,
            "missed": score.missed,
            "invented": score.invented,
            "missed_wide": score.missed_wide,
            "invented_wide": score.invented_wide,
            "any_level_mean_mm": _or_nan(np.mean, score.any_level_mm),
            "any_level_z_mean_mm": _or_nan(np.mean, score.any_level_z_mm),
            "any_level_missed": score.any_level_missed,
            "any_level_false": score.any_level_false,
        }
        for score in scores
    ]


def _intervals(
    scores: Sequence[ScanScore], generator: np.random.Generator, resamples: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the 95 % intervals of the mean error and of the share of scans with the levels right."""
    # Columns: sum of errors, number of errors, scans right, scans. Their sums make both ratios.
    parts = [[sum(s.errors_mm), len(s.errors_mm), s.levels_right, 1] for s in scores]
    low, high = subject_intervals(
        parts,
        [score.subject for score in scores],
        lambda sums: sums[:, [0, 2]] / sums[:, [1, 3]],
        generator=generator,
        resamples=resamples,
    )
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _total(scores: Sequence[ScanScore], name: str) -> int:
    return sum(getattr(score, name) for score in scores)


def _or_nan(statistic: Callable[[FloatArray], Any], samples: ArrayLike) -> float:
    """Return a statistic of the samples, NaN where there is none."""
    array = np.asarray(samples, dtype=np.float64)
    return float(statistic(array)) if array.size else float("nan")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval_text(ends: Sequence[float], digits: int) -> str:
    """Return an interval in brackets; nothing if there is none."""
    return "" if np.isnan(ends[0]) else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
