"""Confidences that can be believed: what the decoding says, corrected by how often it was right.

The decoding's probabilities are as honest as the networks' maps, which were drawn for subjects they had
never seen with the assurance of those they had. The correction is a logistic one (Platt 1999), fitted on
held-out subjects, apart for three kinds of view: with a landmark that tells the level (the dens or S1/S2),
without one, and of the thoracic spine alone, where one level looks like the next. It lowers a confidence
or leaves it: more trust than the decoding has is not earned on few subjects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, logit

from sct_deepspine.anatomy import LANDMARK_VALUES, THORACIC_VALUES
from sct_deepspine.geometry.grid import FloatArray

__all__ = [
    "KINDS",
    "Calibration",
    "Outcome",
    "calibration_error",
    "fit_calibration",
    "reliability",
    "view_kind",
]

KINDS = ("landmark", "open", "thoracic")

OPEN_LIMIT = 0.8
"""Most that is said of a view without a landmark: what tells its level is not in it."""

EXTREME = 1e-4
"""Probabilities nearer to 0 or 1 than this are taken for this."""

Curve = tuple[float, float]
"""Offset and slope of a corrected log-odds as a function of the decoding's."""

IDENTITY: Curve = (0.0, 1.0)
OFFSET_PRIOR, SLOPE_PRIOR = 3.0, 0.5
"""Standard deviations of offset and slope about the identity before anything was seen."""


def view_kind(values: Iterable[int], landmarks: Iterable[int] = LANDMARK_VALUES) -> str:
    """Return the kind of view that shows these values.

    Parameters
    ----------
    values
        Discs and landmarks that were seen.
    landmarks
        Values that tell the level.

    Examples
    --------
    >>> view_kind([2, 3, 4, 5]), view_kind([3, 4, 5, 6]), view_kind([10, 11, 12])
    ('landmark', 'open', 'thoracic')
    """
    seen = set(values)
    if seen & set(landmarks):
        return KINDS[0]
    return KINDS[2] if seen <= set(THORACIC_VALUES) else KINDS[1]


@dataclass(frozen=True)
class Calibration:
    """The corrections of a pair of networks.

    Parameters
    ----------
    scan, disc
        Kind of view → curve, for "every level is right" and for "this disc is right". A kind that is
        missing is left as it is.
    """

    scan: Mapping[str, Curve] = field(default_factory=dict)
    disc: Mapping[str, Curve] = field(default_factory=dict)

    def of_scan(self, probability: float, kind: str) -> float:
        """Correct the probability that every level is right."""
        return float(_corrected(probability, self.scan.get(kind, IDENTITY), kind))

    def of_discs(self, probabilities: ArrayLike, kind: str) -> FloatArray:
        """Correct the probabilities of discs, ``(K,)``."""
        return _corrected(probabilities, self.disc.get(kind, IDENTITY), kind)

    def as_card(self) -> dict[str, Any]:
        """Return the corrections in JSON's types."""
        return {
            part: {kind: [round(c, 4) for c in curve] for kind, curve in getattr(self, part).items()}
            for part in ("scan", "disc")
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`as_card` returned."""
        parts = {
            part: {kind: (float(a), float(b)) for kind, (a, b) in card.get(part, {}).items()}
            for part in ("scan", "disc")
        }
        return cls(**parts)


def _corrected(probability: ArrayLike, curve: Curve, kind: str) -> FloatArray:
    said = corrected = np.asarray(probability, dtype=np.float64)
    if curve != IDENTITY:
        offset, slope = curve
        corrected = np.minimum(said, expit(offset + slope * logit(np.clip(said, EXTREME, 1 - EXTREME))))
    return corrected if kind == KINDS[0] else np.minimum(corrected, OPEN_LIMIT)


@dataclass(frozen=True)
class Outcome:
    """A confidence, and whether it was justified.

    Parameters
    ----------
    part
        ``scan`` or ``disc``.
    kind
        Of the view.
    confidence
        What was said.
    right
        What was true.
    """

    part: str
    kind: str
    confidence: float
    right: bool


def fit_calibration(outcomes: Sequence[Outcome]) -> Calibration:
    """Fit the corrections to outcomes on subjects that the networks were not trained on.

    Maximum likelihood with a weak prior about the identity, so that a handful of outcomes, or some that
    are all right, do not run away. A view of the thoracic spine alone gets no more than the share that was
    right, however sure the decoding is: nothing in it tells the level.
    """
    curves: dict[str, dict[str, Curve]] = {"scan": {}, "disc": {}}
    for part, by_kind in curves.items():
        for kind in KINDS:
            own = [j for j in outcomes if (j.part, j.kind) == (part, kind)]
            if own:
                right = np.array([j.right for j in own], dtype=float)
                slope = 0.0 if kind == KINDS[2] else None
                by_kind[kind] = _fit(np.array([j.confidence for j in own]), right, slope)
    return Calibration(curves["scan"], curves["disc"])


def _fit(confidence: FloatArray, right: FloatArray, fixed_slope: float | None) -> Curve:
    odds = logit(np.clip(confidence, EXTREME, 1 - EXTREME))

    def loss(curve: FloatArray) -> float:
        offset, slope = curve
        score = offset + slope * odds
        likelihood = (right * score - np.logaddexp(0, score)).sum()
        prior = (offset / OFFSET_PRIOR) ** 2
        prior += ((slope - 1) / SLOPE_PRIOR) ** 2 if fixed_slope is None else 0
        return float(prior / 2 - likelihood)

    slopes = (0.0, None) if fixed_slope is None else (fixed_slope, fixed_slope)
    start = IDENTITY if fixed_slope is None else (0.0, fixed_slope)
    found = minimize(loss, start, bounds=[(None, None), slopes]).x
    return float(found[0]), float(found[1])


def reliability(confidence: ArrayLike, right: ArrayLike, *, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return mean confidence, share of right ones and number in each bin that is not empty."""
    said, true = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    index = np.minimum((said * bins).astype(int), bins - 1)
    return [
        (float(said[index == b].mean()), float(true[index == b].mean()), int((index == b).sum()))
        for b in np.unique(index)
    ]


def calibration_error(confidence: ArrayLike, right: ArrayLike, *, bins: int = 10) -> float:
    """Return the expected calibration error: the mean gap between confidence and share of right ones.

    Guo et al. 2017 (arXiv 1706.04599), equation 3; NaN for no outcome.
    """
    rows = reliability(confidence, right, bins=bins) if np.size(confidence) else []
    total = sum(count for _, _, count in rows)
    return sum(abs(said - true) * count for said, true, count in rows) / total if total else float("nan")
