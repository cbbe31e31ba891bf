"""The merged spine of a session: its levels, and what each image shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sct_deepspine.anatomy import LAST_COMMON_VALUE, PRESACRAL, disc_name
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.assessment import DISAGREEING_LIMIT, ODD_COUNT_LIMIT
from sct_deepspine.labeling.calibration import view_kind
from sct_deepspine.labeling.chain import Chain
from sct_deepspine.labeling.counting import USUAL, Counted, Variant, count_vertebrae
from sct_deepspine.labeling.evidence import MIN_AGAIN, SEEN
from sct_deepspine.labeling.grouping import Group
from sct_deepspine.labeling.levels import LevelAssignment, assign_levels
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import PERHAPS_S1_S2, PERHAPS_S1_S2_CONFIDENCE
from sct_deepspine.labeling.review import CONTRADICTED, LEVEL_REQUEST
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.spacing import fill_skipped

if TYPE_CHECKING:
    from sct_deepspine.labeling.session import SeriesReading

__all__ = ["SessionDisc", "Spine", "assign_spine", "compare_discs", "discs_in_view"]

MIN_END, MAX_TRIMMED = 0.6, 2
"""Up to two discs at either end of a merged spine are left out if they are less probable than this: on the
session benchmark such were none."""

MIN_SEEN, MIN_AGAIN_OF_SEEN = 0.7, 0.8
"""An image with a disc of its own that is less certain than the first, and of which less than the second
share of the discs is found again, may have points beside discs, however well its levels are known. Of 332
right series of sessions with a confidence of 0.9 or more none is so, of two wrong ones of 600 both."""

SAME_POINT_MM = 1.0
"""A disc of an image and one of the merged spine are the same if their points in that image are nearer."""


@dataclass(frozen=True, eq=False)
class SessionDisc:
    """One disc of the merged spine.

    Parameters
    ----------
    value
        SCT's disc value.
    points_world
        Index of each image that shows it → ``(3,)`` world posterior tip there.
    confidence
        Probability that it bears its level.
    variant
        How the spine is built.
    """

    value: int
    points_world: Mapping[int, FloatArray]
    confidence: float
    variant: Variant = USUAL

    @property
    def name(self) -> str:
        """Anatomical name."""
        return disc_name(self.value, self.variant.presacral)

    def agrees_with(self, value: int, *, counted: bool) -> bool:
        """Return whether an image that gives this disc a value agrees.

        An image that does not show both ends of a spine with an odd number of vertebrae can't count them, and
        counts from the end that it shows.
        """
        odd = 0 if counted else self.variant.presacral - PRESACRAL
        return value in (self.value, self.value - odd)

    def as_dict(self) -> dict[str, Any]:
        """Return the disc in JSON's types."""
        return {
            "value": self.value,
            "name": self.name,
            "confidence": round(self.confidence, 4),
            "world_mm": {str(n): np.round(point, 4).tolist() for n, point in self.points_world.items()},
        }


@dataclass(frozen=True, eq=False)
class Spine:
    """The merged spine of images that belong together.

    Parameters
    ----------
    discs
        Discs and landmarks that some image shows, superior to inferior.
    filled
        Value → ``(3,)`` point in the frame of the group, of every disc between the ends, seen or not.
    level_confidence
        Probability that no disc bears a wrong level.
    view
        Kind of the view that all images make together.
    shift_mm, support
        As in :class:`sct_deepspine.labeling.grouping.Group`.
    levelled_by
        Images whose levels a person gave, else those that show a landmark.
    dropped
        Images whose places contradict the others'.
    counted
        How many vertebrae lie above the sacrum; None where both ends of the spine are not seen.
    """

    discs: tuple[SessionDisc, ...]
    filled: Mapping[int, FloatArray]
    level_confidence: float
    view: str
    shift_mm: Mapping[int, FloatArray]
    support: Mapping[int, float]
    levelled_by: frozenset[int] = field(default_factory=frozenset)
    dropped: frozenset[int] = field(default_factory=frozenset)
    counted: Counted | None = None

    @property
    def variant(self) -> Variant:
        """How the spine is built."""
        return self.counted.variant if self.counted is not None else USUAL


def assign_spine(
    chain: Chain,
    readings: Sequence[SeriesReading],
    group: Group,
    anchored: set[int],
    model: LabelingModel,
) -> Spine:
    """Assign levels to a chain, and say how sure they are.

    Parameters
    ----------
    chain
        The candidates of all images.
    readings
        The images alone.
    group
        Which images belong together, and their shifts.
    anchored
        Images whose levels a person gave.
    model
        The networks' constants and calibration.
    """
    clamped = _clamped(chain, readings, group, anchored)
    assignment = assign_levels(chain.candidates, anchors=clamped, parameters=model.parameters)
    counted = count_vertebrae(
        chain.candidates, anchors=clamped, parameters=model.parameters, usual=assignment
    )
    variant, landmarks = USUAL, model.landmarks
    if counted is not None:
        assignment, variant, landmarks = counted.assignment, counted.variant, counted.variant.landmarks
    assignment = _trimmed(assignment, clamped)
    points = chain.candidates.points[assignment.indices]
    values, places, _ = fill_skipped(points, assignment.values, prior=variant.spacing())
    seen = assignment.values[assignment.probabilities > SEEN].tolist()
    kind = view_kind(seen or assignment.values.tolist(), landmarks)
    discs = tuple(
        SessionDisc(
            int(value),
            {n: _own(readings[n], k) for n, k in chain.sources[index].items()},
            float(probability),
            variant,
        )
        for value, index, probability in zip(
            assignment.values, assignment.indices, assignment.probabilities, strict=True
        )
    )
    marks = [disc for disc in discs if disc.value in variant.landmarks and disc.value in seen]
    by = {n for disc in marks for n in disc.points_world}
    confidence = _confidence(assignment, kind, discs, readings, group, anchored, model)
    if counted is not None:
        confidence = min(confidence, counted.count.probability)
        confidence = min(confidence, 1.0 if counted.count.is_usual or anchored else ODD_COUNT_LIMIT)
    if by and not anchored and all(_rests_on_doubt(readings[n]) for n in by):
        confidence = min(confidence, PERHAPS_S1_S2_CONFIDENCE)
    levelled = anchored & set(group.members)
    if levelled:
        most = np.full(len(discs), CONTRADICTED if confidence <= CONTRADICTED else 1.0)
    else:
        # A disc is at least as certain as all levels are, and no more than discs of such views are.
        most = np.maximum(model.calibration.of_discs(assignment.probabilities, kind), confidence)
    discs = tuple(
        replace(disc, confidence=min(disc.confidence, float(limit)))
        for disc, limit in zip(discs, most, strict=True)
    )
    return Spine(
        discs=discs,
        filled=dict(zip(values.tolist(), places, strict=True)),
        level_confidence=confidence,
        view=kind,
        shift_mm=group.shift_mm,
        support=group.support,
        levelled_by=frozenset(levelled or by),
        dropped=chain.dropped,
        counted=counted,
    )


def _rests_on_doubt(reading: SeriesReading) -> bool:
    """Return whether a series shows no landmark but an S1/S2 that may be another disc."""
    return reading.labels is not None and PERHAPS_S1_S2 in reading.labels.warnings


def _trimmed(assignment: LevelAssignment, clamped: Mapping[int, int]) -> LevelAssignment:
    """Leave out one or two at either end that are hardly discs: a view's border looks like one."""
    sure = (assignment.probabilities >= MIN_END) | np.isin(assignment.indices, list(clamped))
    if not sure.any():
        return assignment
    above, below = (int(side.argmax()) for side in (sure, sure[::-1]))
    kept = slice(above if above <= MAX_TRIMMED else 0, len(sure) - (below if below <= MAX_TRIMMED else 0))
    return replace(
        assignment,
        indices=assignment.indices[kept],
        values=assignment.values[kept],
        probabilities=assignment.probabilities[kept],
    )


def _own(reading: SeriesReading, index: int) -> FloatArray:
    assert reading.candidates is not None
    point: FloatArray = reading.candidates.points[index]
    return point


def _clamped(
    chain: Chain, readings: Sequence[SeriesReading], group: Group, anchored: set[int]
) -> dict[int, int]:
    """Clamp the discs of each image whose levels a person gave."""
    out: dict[int, int] = {}
    for n in anchored & set(group.members):
        labels = readings[n].labels
        if labels is None:
            continue
        for disc in labels.discs:
            if disc.value > LAST_COMMON_VALUE and labels.presacral != PRESACRAL:
                continue  # counted already: not what it looks like
            for node, own in enumerate(chain.sources):
                if n in own and np.linalg.norm(_own(readings[n], own[n]) - disc.point_world) < SAME_POINT_MM:
                    out[node] = disc.value
    return out


def _confidence(
    assignment: LevelAssignment,
    kind: str,
    discs: Sequence[SessionDisc],
    readings: Sequence[SeriesReading],
    group: Group,
    anchored: set[int],
    model: LabelingModel,
) -> float:
    """Return how sure the levels are: what all images say together, at least as sure as one of them alone."""
    together = model.calibration.of_scan(assignment.level_confidence, kind)
    alone = [
        labels.level_confidence
        for n in group.members
        if (labels := readings[n].labels) is not None and _agrees(labels, n, discs)
    ]
    best = max(alone, default=0.0)
    levelled = [readings[n].labels for n in anchored & set(group.members)]
    if levelled:
        contradicted = any(own is not None and own.level_confidence <= CONTRADICTED for own in levelled)
        return min(CONTRADICTED if contradicted else 1.0, max(best, together))
    return max(best, min(together, 1 - 0.5 * (1 - best)))


def compare_discs(labels: DiscLabels, n: int, discs: Sequence[SessionDisc]) -> list[bool]:
    """Return for each disc that an image and the merged spine both have whether they agree on its value."""
    return [
        disc.agrees_with(own.value, counted=labels.count is not None)
        for disc in discs
        for own in labels.discs
        if n in disc.points_world and np.linalg.norm(disc.points_world[n] - own.point_world) < SAME_POINT_MM
    ]


def _agrees(labels: DiscLabels, n: int, discs: Sequence[SessionDisc]) -> bool:
    same = compare_discs(labels, n, discs)
    return bool(same) and all(same)


def discs_in_view(
    spine: Spine, n: int, volume: Volume, alone: DiscLabels | None, model: LabelingModel
) -> DiscLabels:
    """Return what an image shows of the merged spine: its own tips, and the others' where it sees none."""
    grid = volume.grid
    own = {disc.value: disc for disc in spine.discs if n in disc.points_world}
    confidence = {disc.value: disc.confidence for disc in spine.discs}
    least = min(confidence.values())
    found: list[Disc] = []
    for value, place in sorted(spine.filled.items()):
        point = own[value].points_world[n] if value in own else place - spine.shift_mm[n]
        if not grid.contains_voxel(grid.voxel_from_world(point))[0]:
            continue
        found.append(
            Disc(
                value,
                point,
                confidence.get(value, least / 2),
                interpolated=value not in confidence,
                from_session=value not in own,
                presacral=spine.variant.presacral,
            )
        )
    sure = spine.level_confidence / (1 + float(np.exp(-spine.support.get(n, np.inf))))
    if alone is not None and _agrees(alone, n, spine.discs):
        sure = max(sure, alone.level_confidence)
    if spine.variant != USUAL and any(disc.value > spine.variant.place for disc in found):
        sure = min(sure, spine.level_confidence)  # alone, it says nothing of a vertebra above it
    seen = [disc.confidence for disc in found if disc.value in own and disc.value in spine.variant.discs]
    places = alone.evidence.get("places", 1.0) if alone is not None and n not in spine.dropped else 1.0
    if places < MIN_AGAIN or (places < MIN_AGAIN_OF_SEEN and min(seen, default=1.0) < MIN_SEEN):
        sure = min(sure, DISAGREEING_LIMIT)  # its levels are known, but its points may lie beside the discs
    base = alone if alone is not None else DiscLabels((), grid, 0.0, weights=model.identity)
    return replace(
        base,
        warnings=tuple(text for text in base.warnings if not (spine.levelled_by and LEVEL_REQUEST in text)),
        discs=tuple(disc for disc in found if disc.value in spine.variant.discs),
        landmarks=tuple(d for d in found if d.value in spine.variant.landmarks and not d.from_session),
        level_confidence=sure,
        view=spine.view,
        count=spine.counted.count if spine.counted is not None else None,
    )
