"""What the confidence of the levels rests on, gathered before it is weighed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import PRESACRAL
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.labeling.agreement import SEEN, Reading, agreement, landmark_support
from sct_deepspine.labeling.calibration import view_kind
from sct_deepspine.labeling.counting import USUAL, Variant
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labeling.levels import Candidates, LevelAssignment

__all__ = ["SEEN", "Evidence", "gather_evidence", "kind_of_view", "landmark_is_seen"]

LANDMARK_SUPPORT = 0.5
"""A landmark is seen if the readings give its level this probability on average. On ``val`` 98 of 100 right
views have 0.6 or more, and three of four wrong ones less than 0.55."""

BEYOND_CANAL_MM = 30.0
"""A landmark is reached if the canal ends no farther from its height, mm: a lumbar level."""

UNUSED = 0.3
"""A peak of the any-disc map that no disc was made of counts from here on."""

MIN_AGAIN = 0.6
"""Where fewer of the discs are found again, half a level may be off: of views that show a landmark, 2 in 100
right ones and 8 in 10 wrong ones."""

WIDE_GAP = 1.35
"""Neighbouring discs this many times farther apart than this person's others miss one, if a peak lies between
them. Of 798 right views 1 has such a gap."""

ODD_SPACING = 0.32
"""A distance that deviates by more from the others, in natural-log units, comes of a disc that is missed or
invented, or of odd anatomy. Of right views that show a landmark, 2 in 100 have one."""

MIN_TO_COMPARE = 4
"""With fewer discs no distance is odd."""

MAX_BEYOND = 2
"""So many unused discs beyond an end say that the levels should go on there."""


@dataclass(frozen=True)
class Evidence:
    """What is known of an assignment besides its own probability.

    Parameters
    ----------
    marginal
        Probability that no level is off, as the decoding says it.
    runner_up
        Probability of the next likely shift.
    levels, places
        How often changed readings agree; see :class:`sct_deepspine.labeling.agreement.Agreement`.
    landmark
        Mean probability of a landmark's level at its place, over all readings; 0 where there is none.
    between, beyond
        Strongest peak of the any-disc map that no disc was made of, between the ends and beyond them.
    unused
        Number of such peaks above 0.3 beyond one end.
    missed
        Number of places where neighbouring discs are oddly far apart and such a peak lies between them.
    odd_spacing
        Largest deviation of a distance between neighbouring discs from the others', in natural-log units.
    again
        Value → share of the readings that find the disc again, of whatever level.
    """

    marginal: float
    runner_up: float = 0.0
    levels: float = 1.0
    places: float = 1.0
    landmark: float = 1.0
    between: float = 0.0
    beyond: float = 0.0
    unused: int = 0
    missed: int = 0
    odd_spacing: float = 0.0
    again: Mapping[int, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, float]:
        """Return the numbers, in JSON's types."""
        return {
            name: round(float(value), 4)
            for name, value in vars(self).items()
            if not isinstance(value, Mapping)
        }


def gather_evidence(
    assignment: LevelAssignment,
    candidates: Candidates,
    *,
    landmarks: Collection[int],
    prediction: PlanePrediction | None = None,
    readings: Sequence[Reading] = (),
    variant: Variant = USUAL,
) -> Evidence:
    """Gather the evidence for and against an assignment that no anchor shaped.

    Parameters
    ----------
    assignment, candidates
        The levels as the decoding has them, and of what.
    landmarks
        Values that tell the level.
    prediction
        Of the midsagittal plane.
    readings
        Of the same plane, changed; without them agreement is not known.
    variant
        How the spine is built: the assignment's values are counted in such a one.
    """
    first, last = int(assignment.indices[0]), int(assignment.indices[-1])
    taken = np.isin(np.arange(len(candidates.score)), assignment.indices)
    place = np.arange(len(candidates.score))
    values = assignment.values
    top = candidates.first_value
    bottom = top + candidates.level.shape[1] - 1 + variant.presacral - PRESACRAL
    above = candidates.score[place < first] if values[0] > top else np.empty(0)
    below = candidates.score[place > last] if values[-1] < bottom else np.empty(0)
    between = candidates.score[~taken & (place > first) & (place < last)]
    odd, left_out = _gaps(assignment, candidates, landmarks, variant)
    wide = odd > np.log(WIDE_GAP)
    evidence = Evidence(
        marginal=assignment.level_confidence,
        runner_up=assignment.runner_up_probability,
        between=float(between.max(initial=0.0)),
        beyond=float(max(above.max(initial=0.0), below.max(initial=0.0))),
        unused=int(max((above > UNUSED).sum(), (below > UNUSED).sum())),
        missed=int((wide & left_out).sum()),
        odd_spacing=float(np.abs(odd).max(initial=0.0)),
    )
    if prediction is None or not readings:
        return evidence
    points = candidates.points[assignment.indices]
    agreed = agreement(readings, prediction, points, values, landmarks=sorted(landmarks))
    sure = [
        int(k)
        for k, value, p in zip(assignment.indices, values, assignment.probabilities, strict=True)
        if value in landmarks and p > SEEN
    ]
    apparent = variant.apparent(np.array(_values_at(assignment, sure), dtype=int)).tolist()
    support = landmark_support(readings, prediction, candidates, sure, values=apparent)
    discs = [int(value) for value in values if value not in landmarks]
    again = dict(zip(discs, agreed.discs.tolist(), strict=True))
    return replace(evidence, levels=agreed.levels, places=agreed.places, landmark=support, again=again)


def _gaps(
    assignment: LevelAssignment, candidates: Candidates, landmarks: Collection[int], variant: Variant
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return how odd each distance between discs is, and where a peak between two was left out."""
    kept = ~np.isin(assignment.values, list(landmarks))
    values, indices = assignment.values[kept], assignment.indices[kept]
    if len(values) < MIN_TO_COMPARE:
        return np.empty(0), np.empty(0, dtype=bool)
    steps = variant.spacing().spacing_mm
    expected = [sum(steps[v] for v in range(a, b)) for a, b in pairwise(values.tolist())]
    distance = np.linalg.norm(np.diff(candidates.points[indices], axis=0), axis=1)
    odd = np.log(np.maximum(distance, 1e-3) / np.array(expected))
    left_out = [
        candidates.score[upper + 1 : lower].max(initial=0.0) > UNUSED
        for upper, lower in pairwise(indices.tolist())
    ]
    return odd - np.median(odd), np.array(left_out)


def _values_at(assignment: LevelAssignment, indices: Sequence[int]) -> list[int]:
    of = dict(zip(assignment.indices.tolist(), assignment.values.tolist(), strict=True))
    return [of[k] for k in indices]


def landmark_is_seen(
    evidence: Evidence, point_world: FloatArray, canal_world: FloatArray, view: DeobliquedVolume
) -> bool:
    """Return whether a landmark is seen in the readings and reached by the canal, not inferred beyond it.

    In a single slice the canal can't be followed sideways, and is not asked for.
    """
    if view.volume.grid.shape[0] == 1:
        return evidence.landmark >= LANDMARK_SUPPORT
    height = float(view.heights_mm(point_world)[0])
    line = view.heights_mm(canal_world)
    reached = line.min() - BEYOND_CANAL_MM <= height <= line.max() + BEYOND_CANAL_MM
    return bool(reached and evidence.landmark >= LANDMARK_SUPPORT)


def kind_of_view(
    assignment: LevelAssignment,
    candidates: Candidates,
    evidence: Evidence,
    *,
    canal_world: FloatArray,
    view: DeobliquedVolume,
    landmarks: Collection[int],
) -> str:
    """Return the kind of a view, in which a landmark counts only if it is seen."""
    sure = assignment.probabilities > SEEN
    values = assignment.values[sure].tolist() or assignment.values.tolist()
    kept = [
        value
        for value, k in zip(assignment.values.tolist(), assignment.indices, strict=True)
        if value in values
        and (
            value not in landmarks
            or landmark_is_seen(evidence, candidates.points[k][None], canal_world, view)
        )
    ]
    return view_kind(kept or [v for v in values if v not in landmarks] or values, landmarks)
