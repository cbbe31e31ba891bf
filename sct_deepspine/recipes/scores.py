"""Scores of masks: pooled over all pixels and averaged over images, with bootstrap intervals.

Pixels outside the field of view don't count. The area under the curve (AUC) is taken from probabilities.
The Jaccard index is intersection over union, F1 / (2 - F1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.evaluation.resampling import subject_intervals
from sct_deepspine.recipes.extras import needed
from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.task import MaskCodec

__all__ = ["MEASURES", "CaseScore", "ScoreSummary", "counts_of", "measures", "score_case", "summarise"]

Counts = NDArray[np.float64]
"""True positives, false positives, false negatives, true negatives, along the last axis."""

COUNTED = "f1", "sensitivity", "specificity", "accuracy", "precision", "jaccard"
MEASURES = (*COUNTED, "auc")


@dataclass(frozen=True, eq=False)
class CaseScore:
    """How well one class of one image was found.

    Parameters
    ----------
    name, subject
        Which image.
    value
        The class, as mask files call it.
    counts
        Of its pixels.
    truth, probability
        Whether each known pixel is of the class, and the predicted probability that it is.
    """

    name: str
    subject: str
    value: int
    counts: Counts
    truth: NDArray[np.bool_]
    probability: NDArray[np.float32]

    @property
    def measures(self) -> dict[str, float]:
        """Every measure of this image; NaN where it is not defined."""
        return measures(self.counts) | {"auc": _auc(self.truth, self.probability)}


@dataclass(frozen=True)
class ScoreSummary:
    """How well one class was found on many images.

    Parameters
    ----------
    value
        The class.
    images, subjects
        Their numbers.
    pooled
        Measures over all pixels.
    per_image
        Means over the images for which a measure is defined.
    pooled_interval, per_image_interval
        Their 95 % bootstrap intervals over subjects; there is none of the pooled AUC.
    """

    value: int
    images: int
    subjects: int
    pooled: dict[str, float]
    per_image: dict[str, float]
    pooled_interval: dict[str, tuple[float, float]]
    per_image_interval: dict[str, tuple[float, float]]


def counts_of(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Counts:
    """Count true positives, false positives, false negatives and true negatives."""
    parts = truth & predicted, ~truth & predicted, truth & ~predicted, ~truth & ~predicted
    return np.array([np.count_nonzero(part) for part in parts], dtype=np.float64)


def measures(counts: Counts) -> dict[str, Any]:
    """Return the measures that follow from counts; NaN where the denominator is 0."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    ratios = {
        "f1": (2 * tp, 2 * tp + fp + fn),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "accuracy": (tp + tn, tp + fp + fn + tn),
        "precision": (tp, tp + fp),
        "jaccard": (tp, tp + fp + fn),
    }
    with np.errstate(invalid="ignore"):
        return {name: np.divide(part, whole)[()] for name, (part, whole) in ratios.items()}


def score_case(sample: Sample, probabilities: NDArray[np.float32], codec: MaskCodec) -> list[CaseScore]:
    """Score the prediction of one image, one entry for each class but the background.

    Parameters
    ----------
    sample
        The image.
    probabilities
        ``(classes, slices, rows, columns)``.
    codec
        The classes.
    """
    truth, predicted = codec.encode(sample.mask, sample.name), codec.decide(probabilities)
    known = np.ones(truth.shape, dtype=bool) if sample.known is None else sample.known
    scores = []
    for index, value in enumerate(codec.values[1:], start=1):
        right = truth[known] == index
        counts = counts_of(right, predicted[known] == index)
        scores.append(
            CaseScore(sample.name, sample.subject, value, counts, right, probabilities[index][known])
        )
    return scores


def summarise(scores: Iterable[CaseScore], *, seed: int = 0) -> list[ScoreSummary]:
    """Summarise the scores of many images, class by class; ``seed`` is that of the resampling."""
    scores = list(scores)
    values = sorted({score.value for score in scores})
    return [_summary([s for s in scores if s.value == value], seed) for value in values]


def _summary(scores: Sequence[CaseScore], seed: int) -> ScoreSummary:
    counts = np.array([score.counts for score in scores])
    pooled = measures(counts.sum(axis=0))
    pooled["auc"] = _auc(
        np.concatenate([s.truth for s in scores]), np.concatenate([s.probability for s in scores])
    )
    subjects = [score.subject for score in scores]
    each = [score.measures for score in scores]
    table = {name: np.array([row[name] for row in each]) for name in MEASURES}
    means = {name: _mean(column) for name, column in table.items()}
    return ScoreSummary(
        value=scores[0].value,
        images=len(scores),
        subjects=len(set(subjects)),
        pooled={name: float(value) for name, value in pooled.items()},
        per_image=means,
        pooled_interval={name: _interval(counts, _measure(name), subjects, seed) for name in COUNTED},
        per_image_interval={
            name: _interval(_sum_and_number(column), _ratio, subjects, seed) for name, column in table.items()
        },
    )


def _mean(column: NDArray[np.float64]) -> float:
    defined = column[np.isfinite(column)]
    return float(defined.mean()) if len(defined) else float("nan")


def _sum_and_number(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a mean is made of, image by image."""
    defined = np.isfinite(column)
    return np.stack([np.where(defined, column, 0.0), defined.astype(np.float64)], axis=1)


def _measure(name: str) -> Callable[[Counts], NDArray[np.float64]]:
    return lambda sums: measures(sums)[name]


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.divide(sums[..., 0], sums[..., 1])


def _interval(
    parts: NDArray[np.float64],
    statistic: Callable[[Counts], NDArray[np.float64]],
    subjects: Sequence[str],
    seed: int,
) -> tuple[float, float]:
    """Return the interval of a statistic of sums over subjects."""
    generator = np.random.default_rng(seed)
    low, high = subject_intervals(
        parts, subjects, lambda sums: statistic(sums)[:, None], generator=generator
    )[:, 0]
    return float(low), float(high)


def _auc(truth: NDArray[np.bool_], probability: NDArray[np.float32]) -> float:
    """Return the area under the curve of sensitivity against 1 - specificity; NaN for one class only."""
    if truth.all() or not truth.any():
        return float("nan")
    return float(needed("sklearn.metrics").roc_auc_score(truth, probability))
