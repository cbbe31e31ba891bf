"""From candidates to levels that are as sure as the evidence lets them be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sct_deepspine.anatomy import PRESACRAL
from sct_deepspine.errors import NoDiscsError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.labeling.agreement import CHANGES, read_again
from sct_deepspine.labeling.calibration import view_kind
from sct_deepspine.labeling.candidates import assignment_score
from sct_deepspine.labeling.checks import WHAT_TO_CHECK
from sct_deepspine.labeling.counting import USUAL, Counted, Variant, as_counted, count_vertebrae
from sct_deepspine.labeling.evidence import (
    MAX_BEYOND,
    MIN_AGAIN,
    ODD_SPACING,
    SEEN,
    Evidence,
    gather_evidence,
    kind_of_view,
)
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labeling.levels import Candidates, LevelAssignment, LevelPath, assign_levels, best_path
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.review import CONTRADICTED, check_anchors
from sct_deepspine.labeling.size import wrong_size

__all__ = ["CheckedLevels", "Scene", "assign_checked_levels"]

DISAGREEING_LIMIT = 0.7
"""Highest confidence where changed readings disagree about places, or discs beyond an end are left over."""

ODD_SPACING_LIMIT = 0.8
"""Highest confidence where one distance between discs is odd beside the others, or what looks like a disc is
left over between two."""

MAX_BETWEEN = 0.55
"""A peak of the any-disc map between two discs that is higher than this may be one that was missed. Of 318
right views of ``val`` with a landmark 12 have one, all with remapped or inverted grey values; of series of
composites whose levels were wrong with 0.9 and more, all four necks."""

WRONG_SIZE_LIMIT = 0.5
"""Highest confidence where the spine looks more like one with voxels of another size: all levels may be
off."""

ODD_COUNT_LIMIT = 0.8
"""Highest confidence in a spine with a vertebra more or less: one end of a usual spine that is taken for
another level looks the same."""

EASED, EASED_FROM, SMALL_VIEW_LIMIT = 1.2, 0.6, 0.5
"""A spine must score less where changed readings find more than the second share of its discs again: by the
first times what they find beyond it. A view with two or three discs scores little however plain they are.
The confidence of its levels is then no higher than the last. Of 174 images without a spine none is taken for
one."""

DISAGREEMENT = (
    "disc positions are unstable: only {share:.0%} are found again when contrast, field of view or blur "
    "change; points may be half a level off, so check that they lie on discs"
)
LEFT_OVER = (
    "what looks like {count} more discs lies beyond the labels at one end; discs there may have been left "
    "unlabelled"
)
MISSED = (
    "two neighbouring discs are far apart, and what looks like another disc lies between them; count again"
)
UNUSED_BETWEEN = (
    "what looks like another disc lies between two that are labelled; check that the points lie on discs"
)
ODD = "the distances between the discs are irregular; look for a disc that was missed or invented"
SMALL_VIEW = "few discs are in view, with little evidence that they belong to a spine; check that they do"


@dataclass(frozen=True, eq=False)
class Scene:
    """What the coarse stage saw, for reading it again.

    Parameters
    ----------
    prediction
        Of the midsagittal plane.
    canal
        Along the spine.
    view
        The volume.
    """

    prediction: PlanePrediction
    canal: Centerline
    view: DeobliquedVolume


@dataclass(frozen=True, eq=False)
class CheckedLevels:
    """Levels, and how certain they are.

    Parameters
    ----------
    assignment
        With the anchors, if there are any; its probabilities are corrected.
    view
        Kind of the view; see :func:`sct_deepspine.labeling.calibration.view_kind`.
    evidence
        What the confidence rests on.
    warnings
        About the evidence, and about anchors that the image contradicts.
    size_factor
        How many times too large the voxels seem to be; 1 if they don't.
    claimed
        Landmarks among the values, seen or not.
    counted
        How many vertebrae lie above the sacrum; None where both ends of the spine are not seen.
    """

    assignment: LevelAssignment
    view: str
    evidence: Evidence
    warnings: tuple[str, ...] = ()
    size_factor: float = 1.0
    claimed: frozenset[int] = field(default_factory=frozenset)
    counted: Counted | None = None

    @property
    def variant(self) -> Variant:
        """How the spine is built."""
        return self.counted.variant if self.counted is not None else USUAL


def assign_checked_levels(
    candidates: Candidates,
    clamped: dict[int, int],
    model: LabelingModel,
    *,
    assign: Callable[..., LevelAssignment] = assign_levels,
    scene: Scene | None = None,
) -> CheckedLevels:
    """Assign levels, refuse what is no spine, and correct the probabilities by how often such were right.

    Parameters
    ----------
    candidates
        The candidates.
    clamped
        Candidate index → value of each anchor.
    model
        The networks and what is known of their answers.
    assign
        Assigns the levels.
    scene
        What the candidates were found on, which is then read again under the changes that the model names.

    Raises
    ------
    NoDiscsError
        If no assignment scores enough.
    AnchorError
        If the anchors don't fit the image.
    """
    if not len(candidates.score):
        raise NoDiscsError(f"no disc was found in the image; {WHAT_TO_CHECK}")
    free = assign(candidates, anchors={}, parameters=model.parameters)
    counted = count_vertebrae(candidates, parameters=model.parameters, usual=free, assign=assign)
    variant, landmarks = USUAL, model.landmarks
    if counted is not None:
        free, variant, landmarks = counted.assignment, counted.variant, counted.variant.landmarks
    evidence, kind = _weigh(free, candidates, model, scene, variant, landmarks)
    is_small = _is_accepted_by_readings_only(free, evidence, model, is_anchored=bool(clamped))
    factor = 1.0
    if scene is not None and model.readings:
        factor = wrong_size(scene.prediction, scene.canal, scene.view.volume, model)
    limit, warnings = _limit(evidence, factor, is_small=is_small)
    signals = evidence.as_dict() if evidence.again else {}
    of_discs = model.calibration.of_discs(free.probabilities, kind, signals)
    of_scan = model.calibration.of_scan(free.level_confidence, kind, signals)
    if counted is not None:
        of_scan *= counted.count.probability
        limit = min(limit, 1.0 if counted.count.is_usual else ODD_COUNT_LIMIT)
    free = replace(free, probabilities=of_discs.clip(max=limit), level_confidence=min(of_scan, limit))
    claimed = frozenset(free.values.tolist()) & frozenset(landmarks)
    if not clamped:
        return CheckedLevels(free, kind, evidence, warnings, factor, claimed, counted)
    assignment = assign(candidates, anchors=clamped, parameters=model.parameters)
    counted = count_vertebrae(
        candidates, anchors=clamped, parameters=model.parameters, usual=assignment, assign=assign
    )
    if counted is not None and not counted.count.is_usual:
        assignment = counted.assignment
        clamped = {k: counted.variant.counted(value) for k, value in clamped.items()}
        if variant.presacral != counted.count.presacral:  # the anchors say what the image alone does not
            free, variant = assignment, counted.variant
    presacral = counted.count.presacral if counted is not None else PRESACRAL
    doubts = check_anchors(assignment, free, clamped, presacral=presacral, free_presacral=variant.presacral)
    limit = CONTRADICTED if doubts else 1.0
    if evidence.places < MIN_AGAIN:  # an anchor tells the level, not whether the points lie on discs
        limit = min(limit, DISAGREEING_LIMIT)
    return CheckedLevels(
        assignment.limited(limit),
        kind,
        evidence,
        (*warnings, *doubts),
        factor,
        claimed,
        counted,
    )


def _weigh(
    free: LevelAssignment,
    candidates: Candidates,
    model: LabelingModel,
    scene: Scene | None,
    variant: Variant,
    landmarks: Sequence[int],
) -> tuple[Evidence, str]:
    """Return the evidence and the kind of the view; without readings, a landmark counts as it is."""
    if scene is None or not model.readings:
        evidence = gather_evidence(free, candidates, landmarks=landmarks, variant=variant)
        sure = free.values[free.probabilities > SEEN]
        return evidence, view_kind(sure.tolist() or free.values.tolist(), landmarks)

    def decode(again: Candidates) -> LevelPath:
        return best_path(as_counted(again, variant), prior=variant.spacing(), parameters=model.parameters)

    readings = read_again(
        scene.prediction,
        scene.canal,
        scene.view.volume,
        model.locate,
        candidates=candidates,
        decode=decode,
        changes={name: CHANGES[name] for name in model.readings},
    )
    evidence = gather_evidence(
        free,
        candidates,
        prediction=scene.prediction,
        readings=readings,
        landmarks=landmarks,
        variant=variant,
    )
    kind = kind_of_view(
        free,
        candidates,
        evidence,
        canal_world=scene.canal.samples_world,
        view=scene.view,
        landmarks=landmarks,
    )
    return evidence, kind


def _is_accepted_by_readings_only(
    free: LevelAssignment, evidence: Evidence, model: LabelingModel, *, is_anchored: bool
) -> bool:
    """Refuse what is no spine; tell whether it is taken for one only because it is found again."""
    score = assignment_score(free)
    if is_anchored or score >= model.minimum_score:
        return False
    found_again = evidence.places - EASED_FROM if evidence.again else 0.0
    needed = model.minimum_score - EASED * max(found_again, 0.0)
    if score >= needed:
        return True
    raise NoDiscsError(
        f"no sequence of discs was found in the image (score {score:.2f}, {needed:.2f} needed); "
        f"{WHAT_TO_CHECK} If so, give the level of one disc"
    )


def _limit(evidence: Evidence, factor: float, *, is_small: bool) -> tuple[float, tuple[str, ...]]:
    """Return the highest confidence allowed, and why."""
    limits, reasons = [1.0], []
    if evidence.places < MIN_AGAIN:
        limits.append(DISAGREEING_LIMIT)
        reasons.append(DISAGREEMENT.format(share=evidence.places))
    if evidence.unused >= MAX_BEYOND:
        limits.append(DISAGREEING_LIMIT)
        reasons.append(LEFT_OVER.format(count=evidence.unused))
    if evidence.missed:
        limits.append(DISAGREEING_LIMIT)
        reasons.append(MISSED)
    elif evidence.between > MAX_BETWEEN:
        limits.append(ODD_SPACING_LIMIT)
        reasons.append(UNUSED_BETWEEN)
    elif evidence.odd_spacing > ODD_SPACING:
        limits.append(ODD_SPACING_LIMIT)
        reasons.append(ODD)
    if factor != 1:
        limits.append(WRONG_SIZE_LIMIT)
    if is_small:
        limits.append(SMALL_VIEW_LIMIT)
        reasons.append(SMALL_VIEW)
    return min(limits), tuple(reasons)
