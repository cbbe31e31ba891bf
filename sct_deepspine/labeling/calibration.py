"""Confidences that can be believed: what the decoding says, corrected by how often it was right.

The decoding's probabilities are as honest as the networks' maps, which were drawn for subjects they had
never seen with the assurance of those they had. The correction is a logistic one (Platt 1999), fitted on
held-out subjects, apart for three kinds of view: with a landmark that tells the level (the dens or S1/S2),
without one, and of the thoracic spine alone, where one level looks like the next. What changed readings of
the view say, and what was left unused in it, lowers the log-odds further, each by its weight. A correction
lowers a confidence or leaves it: more trust than the decoding has is not earned on few subjects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sct_deepspine.anatomy import LANDMARK_VALUES, THORACIC_VALUES
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.models.maps import sigmoid

__all__ = [
    "KINDS",
    "LIMITS",
    "SIGNALS",
    "Calibration",
    "Outcome",
    "calibration_error",
    "fit_calibration",
    "reliability",
    "view_kind",
]

KINDS = ("landmark", "no_landmark", "thoracic")

LIMITS: Mapping[str, float] = MappingProxyType({"landmark": 1.0, "no_landmark": 0.7, "thoracic": 0.5})
"""Highest confidence of a view of each kind. Without a landmark 75 of 100 crops of unseen subjects were right
(52 of 69), and 12 of 22 thoracic ones of the composites; what tells their level is not in them."""

OLD_NAMES = {"open": "no_landmark"}
"""Kinds as model cards before version 0.9.0 call them."""

SIGNALS = ("places", "landmark", "between", "levels", "beyond", "runner_up")
"""Evidence that may lower a confidence. Of the first, second and fourth, what is missing to 1 counts."""

AGREEING = ("places", "landmark", "levels")

EXTREME = 1e-4
"""Probabilities nearer to 0 or 1 than this are taken for this."""

Curve = tuple[float, float]
"""Offset and slope of a corrected log-odds as a function of the decoding's."""

SignalWeights = Mapping[str, float]
"""Signal → weight."""

IDENTITY: Curve = (0.0, 1.0)
"""The curve that leaves a probability as it is."""

OFFSET_PRIOR, SLOPE_PRIOR, WEIGHT_PRIOR = 3.0, 0.5, 4.0
"""Standard deviations of offset and slope about the identity, and of the signals' weights about none, before
anything was seen, in log-odds. The last was chosen leaving one subject out."""

MIN_WEIGHT = 0.05
"""A signal that moves the log-odds by less is left out."""

PARTS = ("scan", "disc")


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
    ('landmark', 'no_landmark', 'thoracic')
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
    scan_weights, disc_weights
        Kind of view → signal → what it lowers the log-odds by where it speaks fully against the levels.
    """

    scan: Mapping[str, Curve] = field(default_factory=dict)
    disc: Mapping[str, Curve] = field(default_factory=dict)
    scan_weights: Mapping[str, SignalWeights] = field(default_factory=dict)
    disc_weights: Mapping[str, SignalWeights] = field(default_factory=dict)

    def of_scan(self, probability: float, kind: str, evidence: Mapping[str, float] | None = None) -> float:
        """Correct the probability that every level is right, by the evidence for and against it."""
        doubt = _doubt(evidence, self.scan_weights.get(kind, {}))
        return float(_corrected(probability, self.scan.get(kind, IDENTITY), kind, doubt))

    def of_discs(
        self, probabilities: ArrayLike, kind: str, evidence: Mapping[str, float] | None = None
    ) -> FloatArray:
        """Correct the probabilities of discs, ``(K,)``."""
        doubt = _doubt(evidence, self.disc_weights.get(kind, {}))
        return _corrected(probabilities, self.disc.get(kind, IDENTITY), kind, doubt)

    def as_card(self) -> dict[str, Any]:
        """Return the corrections in JSON's types."""
        curves = {
            part: {kind: [round(c, 4) for c in curve] for kind, curve in getattr(self, part).items()}
            for part in PARTS
        }
        weights = {
            f"{part}_weights": {
                kind: {signal: round(weight, 4) for signal, weight in own.items()}
                for kind, own in getattr(self, f"{part}_weights").items()
            }
            for part in PARTS
        }
        return curves | {name: own for name, own in weights.items() if own}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`as_card` returned, or versions before 0.9.0 did.

        Raises
        ------
        ValueError
            If it names a signal that is not known.
        """
        curves = {
            part: {
                OLD_NAMES.get(kind, kind): (float(a), float(b)) for kind, (a, b) in card.get(part, {}).items()
            }
            for part in PARTS
        }
        weights = {
            f"{part}_weights": {
                kind: {signal: float(weight) for signal, weight in own.items()}
                for kind, own in card.get(f"{part}_weights", {}).items()
            }
            for part in PARTS
        }
        strange = {s for kinds in weights.values() for own in kinds.values() for s in own} - set(SIGNALS)
        if strange:
            raise ValueError(f"unknown evidence {sorted(strange)}; known are {', '.join(SIGNALS)}")
        return cls(**curves, **weights)  # type: ignore[arg-type]


def _doubt(evidence: Mapping[str, float] | None, weights: SignalWeights) -> float:
    return sum(weight * _against(evidence, signal) for signal, weight in weights.items()) if evidence else 0.0


def _against(evidence: Mapping[str, float], signal: str) -> float:
    """Return how far a signal speaks against the levels, 0 to 1."""
    value = evidence.get(signal, float(signal in AGREEING))
    return 1 - value if signal in AGREEING else value


def _log_odds(probability: FloatArray) -> FloatArray:
    inside = np.clip(probability, EXTREME, 1 - EXTREME)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _corrected(probability: ArrayLike, curve: Curve, kind: str, doubt: float) -> FloatArray:
    predicted = corrected = np.asarray(probability, dtype=np.float64)
    if curve != IDENTITY or doubt:
        offset, slope = curve
        odds = offset + slope * _log_odds(predicted) - doubt
        corrected = np.minimum(predicted, sigmoid(odds))
    return np.minimum(corrected, LIMITS.get(kind, 1.0))


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
        What was predicted.
    right
        What was true.
    marginal
        What the decoding gave, before it was corrected; by default the same.
    evidence
        For and against the levels of the scan, by signal.
    """

    part: str
    kind: str
    confidence: float
    right: bool
    marginal: float | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)


def fit_calibration(outcomes: Sequence[Outcome], *, signals: Sequence[str] = SIGNALS) -> Calibration:
    """Fit the corrections to outcomes on subjects that the networks were not trained on.

    Maximum likelihood with a weak prior about the identity, so that a handful of outcomes, or some that
    are all right, do not run away; a signal's weight is never negative. A view of the thoracic spine alone
    gets no more than the share that was right, however sure the decoding is: nothing in it tells the level.

    Parameters
    ----------
    outcomes
        Of scans and of discs.
    signals
        Evidence to weigh, of :data:`SIGNALS`; what no outcome tells of has no weight.
    """
    curves: dict[str, dict[str, Curve]] = {part: {} for part in PARTS}
    weights: dict[str, dict[str, SignalWeights]] = {part: {} for part in PARTS}
    for part in PARTS:
        for kind in KINDS:
            own = [j for j in outcomes if (j.part, j.kind) == (part, kind)]
            if own:
                known = [s for s in signals if any(s in j.evidence for j in own)] if kind != KINDS[2] else []
                curves[part][kind], found = _fit(own, known, 0.0 if kind == KINDS[2] else None)
                kept = {signal: weight for signal, weight in found.items() if weight > MIN_WEIGHT}
                if kept:
                    weights[part][kind] = kept
    return Calibration(curves["scan"], curves["disc"], weights["scan"], weights["disc"])


def _fit(
    outcomes: Sequence[Outcome], signals: Sequence[str], fixed_slope: float | None
) -> tuple[Curve, SignalWeights]:
    from scipy.optimize import minimize

    predicted = np.array([j.confidence if j.marginal is None else j.marginal for j in outcomes])
    right = np.array([j.right for j in outcomes], dtype=float)
    odds = _log_odds(predicted)
    against = np.array([[_against(j.evidence, s) for s in signals] for j in outcomes])
    against = against.reshape(len(outcomes), len(signals))

    def loss(parameters: FloatArray) -> float:
        offset, slope, *own = parameters
        score = offset + slope * odds - against @ np.array(own)
        likelihood = (right * score - np.logaddexp(0, score)).sum()
        prior = (offset / OFFSET_PRIOR) ** 2 + sum((weight / WEIGHT_PRIOR) ** 2 for weight in own)
        prior += ((slope - 1) / SLOPE_PRIOR) ** 2 if fixed_slope is None else 0
        return float(prior / 2 - likelihood)

    slopes = (0.0, None) if fixed_slope is None else (fixed_slope, fixed_slope)
    start = [*(IDENTITY if fixed_slope is None else (0.0, fixed_slope)), *[0.5] * len(signals)]
    found = minimize(loss, start, bounds=[(None, None), slopes, *[(0.0, None)] * len(signals)]).x
    return (float(found[0]), float(found[1])), dict(zip(signals, map(float, found[2:]), strict=True))


def reliability(confidence: ArrayLike, right: ArrayLike, *, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return mean confidence, share of right ones and number in each bin that is not empty."""
    predicted, true = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    index = np.minimum((predicted * bins).astype(int), bins - 1)
    return [
        (float(predicted[index == b].mean()), float(true[index == b].mean()), int((index == b).sum()))
        for b in np.unique(index)
    ]


def calibration_error(confidence: ArrayLike, right: ArrayLike, *, bins: int = 10) -> float:
    """Return the expected calibration error: the mean gap between confidence and share of right ones.

    Guo et al. 2017 (arXiv 1706.04599), equation 3; NaN for no outcome.
    """
    rows = reliability(confidence, right, bins=bins) if np.size(confidence) else []
    total = sum(count for _, _, count in rows)
    return (
        sum(abs(predicted - true) * count for predicted, true, count in rows) / total
        if total
        else float("nan")
    )
