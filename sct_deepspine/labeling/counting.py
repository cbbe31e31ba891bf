"""How many vertebrae lie above the sacrum: 24, or one more or less.

Where both ends of the spine are certain, the vertebrae between them are counted. A spine with an extra or a
missing vertebra is decoded as any other, only that below some place what looks like one value is counted as
the next, or as the one before. All places are tried, and the sums over all paths are compared.

Values are *counted* from C2, as radiology does and SCT's values mean, or *apparent*: what a disc looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import (
    DISC_VALUES,
    EXPECTED_SPACING_MM,
    FIRST_VALUE,
    LANDMARK_VALUES,
    LAST_VALUE,
    PRESACRAL,
    SACRUM_STEPS_MM,
)
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.labeling.agreement import SEEN
from sct_deepspine.labeling.levels import (
    Candidates,
    DecodingParameters,
    LevelAssignment,
    assign_levels,
    path_evidence,
)
from sct_deepspine.labels import VertebraCount
from sct_deepspine.spacing import SpacingPrior

__all__ = ["USUAL", "Counted", "Variant", "as_counted", "assign_variant", "count_vertebrae"]

PLACES = 9, 12, 15, 17, 18, 19, 20, 21, 22, 23, 24
"""Values below which a vertebra may be extra or missing. In the thorax one level looks like the next, so that
not each of them has to be tried."""

FEW_PLACES, CLEAR = (12, 18, 21, 24), 0.999
"""Where 24 vertebrae are so probable against these places alone, no more are tried."""

ODD_SHARE = 0.05
"""Share of spines with a vertebra more, and with one less, before anything is seen."""

SPREAD, LANDMARK_SPREAD = 0.08, 0.12
"""Spreads of distances, as in :class:`.SpacingPrior`, where vertebrae are counted. They are narrower than
where levels are assigned, since the candidates are refined. These and the share were chosen on composites of
``val`` and ``train``, 124 with an odd number and 283 without."""

POSSIBLE = 0.1
"""Where its level map leaves a landmark less than this at every candidate, it is not looked for."""

UPPER_ANCHORS, LOWER_ANCHORS = range(1, PLACES[0]), range(22, LAST_VALUE + 1)
"""Anchors that tell an end of the spine as a landmark does."""


@dataclass(frozen=True)
class Variant:
    """One way in which a spine may be built.

    Parameters
    ----------
    presacral
        Vertebrae above the sacrum: 23, 24 or 25.
    place
        Apparent value of the last disc that is counted as it looks; below it a vertebra is extra, or missing.
    """

    presacral: int = PRESACRAL
    place: int = LAST_VALUE

    @property
    def discs(self) -> range:
        """Counted values of discs, C2/C3 to the one above the sacrum."""
        return range(DISC_VALUES[0], self.presacral + 2)

    @property
    def landmarks(self) -> tuple[int, ...]:
        """Counted values of the dens and of S1/S2, which are no discs."""
        return *LANDMARK_VALUES[:2], self.presacral + 2

    def apparent(self, counted: NDArray[np.int_]) -> NDArray[np.int_]:
        """Return what counted values look like."""
        return np.where(counted > self.place, counted + PRESACRAL - self.presacral, counted)

    def counted(self, apparent: int) -> int:
        """Return how a disc is counted that looks like a value; of two that do, the upper one."""
        return apparent + (self.presacral - PRESACRAL if apparent > self.place else 0)

    def spacing(self) -> SpacingPrior:
        """Return the distances that are expected between the counted values."""
        values = np.arange(1, self.presacral + 2)
        steps = {
            int(v): EXPECTED_SPACING_MM[int(a)] for v, a in zip(values, self.apparent(values), strict=True)
        }
        return SpacingPrior(spacing_mm=steps, last_disc=self.discs[-1])


USUAL = Variant()
"""A spine with 24 vertebrae above the sacrum."""


@dataclass(frozen=True, eq=False)
class Counted:
    """The count, and the levels that go with it.

    Parameters
    ----------
    count
        How many vertebrae there are.
    variant
        The most probable way in which that many may be arranged.
    assignment
        Levels as they are counted in such a spine.
    """

    count: VertebraCount
    variant: Variant
    assignment: LevelAssignment


def count_vertebrae(
    candidates: Candidates,
    *,
    anchors: Mapping[int, int] | None = None,
    parameters: DecodingParameters,
    usual: LevelAssignment | None = None,
    assign: Callable[..., LevelAssignment] = assign_levels,
) -> Counted | None:
    """Count the vertebrae above the sacrum, if both ends of the spine are seen.

    Parameters
    ----------
    candidates
        The candidates; their levels are apparent.
    anchors
        Candidate index → known value, apparent as well: a person names a disc by its neighbours.
    parameters
        Constants of the decoding.
    usual
        Levels of a usual spine with these anchors, where they are known.
    assign
        Assigns the levels.

    Returns
    -------
    Counted | None
        None where the dens or S1/S2, or a disc near it that is known, is not seen.
    """
    anchors = anchors or {}
    if not _holds_every_value(candidates) or not _ends_apparent(candidates, anchors):
        return None
    if usual is None:
        usual = assign(candidates, anchors=anchors, parameters=parameters)
    sizes = _sizes_about(usual.body_factor)
    variants, share = _shares(candidates, anchors, FEW_PLACES, sizes, parameters)
    if share[0] < CLEAR:
        variants, share = _shares(candidates, anchors, PLACES, sizes, parameters)
    numbers = np.array([variant.presacral for variant in variants])
    by_number = {int(n): float(share[numbers == n].sum()) for n in np.unique(numbers)}
    number = max(by_number, key=lambda n: by_number[n])
    best = variants[max(np.flatnonzero(numbers == number), key=lambda k: share[k])]
    assignment = usual
    if best != USUAL:
        assignment = assign_variant(candidates, best, anchors=anchors, parameters=parameters, assign=assign)
    if not _ends_seen(assignment, best, anchors):
        return None
    return Counted(VertebraCount(number, by_number[number]), best, assignment)


def _holds_every_value(candidates: Candidates) -> bool:
    last = candidates.first_value + candidates.level.shape[1] - 1
    return (candidates.first_value, last) == (FIRST_VALUE, LAST_VALUE)


def _ends_apparent(candidates: Candidates, anchors: Mapping[int, int]) -> bool:
    """Return whether some candidates may be the dens, and some S1/S2, or are known to be near them."""
    share = candidates.level / np.maximum(candidates.level.sum(axis=1, keepdims=True), 1e-9)
    possible = np.flatnonzero(share.max(axis=0) > POSSIBLE) + candidates.first_value
    return _at_both_ends(set(possible.tolist()), LANDMARK_VALUES, anchors)


def _ends_seen(assignment: LevelAssignment, variant: Variant, anchors: Mapping[int, int]) -> bool:
    sure = set(assignment.values[assignment.probabilities > SEEN].tolist())
    return _at_both_ends(sure, variant.landmarks, anchors)


def _at_both_ends(values: set[int], landmarks: Sequence[int], anchors: Mapping[int, int]) -> bool:
    known = set(anchors.values())
    upper = values & set(landmarks[:2]) or known & set(UPPER_ANCHORS)
    return bool(upper and (landmarks[-1] in values or known & set(LOWER_ANCHORS)))


def _sizes_about(size: float) -> tuple[float, ...]:
    """Return the sizes of a body next to one: however a spine is built, its discs tell about the same."""
    sizes = SpacingPrior().body_factors
    at = int(np.abs(np.array(sizes) - size).argmin())
    return sizes[max(at - 1, 0) : at + 2]


def _shares(
    candidates: Candidates,
    anchors: Mapping[int, int],
    places: Sequence[int],
    sizes: tuple[float, ...],
    parameters: DecodingParameters,
) -> tuple[list[Variant], FloatArray]:
    """Return the variants with one of some places, the usual one first, and the probability of each."""
    odd = [Variant(PRESACRAL + more, place) for more in (-1, 1) for place in places]
    variants, prior = [USUAL, *odd], np.full(1 + len(odd), ODD_SHARE / len(places))
    prior[0] = 1 - 2 * ODD_SHARE
    evidence = np.log(prior) + [
        _evidence(candidates, variant, anchors, sizes, parameters) for variant in variants
    ]
    share = np.exp(evidence - evidence.max())
    return variants, share / share.sum()


def _evidence(
    candidates: Candidates,
    variant: Variant,
    anchors: Mapping[int, int],
    sizes: tuple[float, ...],
    parameters: DecodingParameters,
) -> float:
    """Return the evidence of a spine that is built in a certain way.

    S2/S3, which looks like S1/S2, may be among the candidates. Without a level for it, the spine with a
    vertebra more is preferred, since it explains one candidate more.
    """
    counted = as_counted(candidates, variant)
    spacing = variant.spacing()
    return path_evidence(
        replace(counted, level=np.hstack([counted.level, counted.level[:, -1:]])),
        anchors={k: variant.counted(value) for k, value in anchors.items()},
        prior=replace(
            spacing,
            spacing_mm={**spacing.spacing_mm, variant.landmarks[-1]: SACRUM_STEPS_MM[1]},
            spread=SPREAD,
            landmark_spread=LANDMARK_SPREAD,
            body_factors=sizes,
        ),
        parameters=parameters,
    )


def assign_variant(
    candidates: Candidates,
    variant: Variant,
    *,
    anchors: Mapping[int, int] | None = None,
    parameters: DecodingParameters,
    assign: Callable[..., LevelAssignment] = assign_levels,
) -> LevelAssignment:
    """Assign levels as they are counted in a spine that is built in a certain way.

    Parameters
    ----------
    candidates, anchors, parameters, assign
        As in :func:`count_vertebrae`.
    variant
        How the spine is built.
    """
    return assign(
        as_counted(candidates, variant),
        anchors={k: variant.counted(value) for k, value in (anchors or {}).items()},
        prior=variant.spacing(),
        parameters=parameters,
    )


def as_counted(candidates: Candidates, variant: Variant) -> Candidates:
    """Give the columns of the level maps, which are apparent, to the counted values."""
    if variant.presacral == PRESACRAL:
        return candidates
    counted = np.arange(candidates.first_value, variant.presacral + 3)
    columns = variant.apparent(counted) - candidates.first_value
    return replace(candidates, level=candidates.level[:, columns])
