"""What a person should look at: doubts about the levels, odd spacings, anchors that the image contradicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sct_deepspine.anatomy import PRESACRAL, disc_name
from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.labeling.levels import LevelAssignment
from sct_deepspine.labels import UNCERTAIN, Disc, Note

if TYPE_CHECKING:
    from sct_deepspine.labeling.assessment import CheckedLevels

__all__ = ["CONTRADICTED", "LEVEL_REQUEST", "check_anchors", "find_warnings"]

LEVEL_REQUEST = "give the level of one disc"
"""What labels of one image alone ask for where nothing tells the level; other images may answer it."""

ODD_DISTANCE = 1.5
"""A distance this many times larger or smaller than expected is pointed out."""

MAX_OBLIQUE_DEGREES = 40.0
"""Rotation of the slices from the body's axes beyond which there is a warning."""

LANDMARK_NAMES = {1: "the tip of the dens", 2: "the base of the dens"}

UNSEEN_KINDS = "implant", "fused"
"""Notes about discs of which nothing is seen, though a point was found."""

CONTRADICTING = 0.8
"""From this confidence on, an anchor that says something else is contradicted."""

DOUBTFUL = 0.8
"""A confidence below this is never given without a reason, or a word about it."""

MIN_KEPT = 0.6
"""Share of the discs found without anchors that must be labelled with them."""

CONTRADICTED = 0.5
"""Confidence of levels that an anchor and the image tell differently."""


def find_warnings(
    discs: tuple[Disc, ...],
    notes: Sequence[Note],
    checked: CheckedLevels,
    view: DeobliquedVolume,
    *,
    anchored: bool,
) -> tuple[str, ...]:
    """Return sentences about what a person should look at, besides the notes."""
    out = _oblique_warning(view)
    confidence = checked.assignment.level_confidence
    if not anchored and (checked.view != "landmark" or confidence < UNCERTAIN):
        out.append(_level_doubt(discs, checked))
    elif confidence < DOUBTFUL and not checked.warnings:
        what = "with the anchor, " if anchored else ""
        out.append(
            f"{what}the probability that every level is right is {confidence:.2f}; check that every point "
            "lies on a disc and that none is missed, or give the levels of two discs"
        )
    out += _odd_spacings(discs, checked.variant.spacing().spacing_mm)
    noted = {value for note in notes for value in note.values if note.kind in UNSEEN_KINDS}
    filled = [disc.name for disc in discs if disc.interpolated and disc.value not in noted]
    if filled:
        out.append(f"not seen, placed between its neighbours: {', '.join(filled)}")
    return tuple(out)


def _oblique_warning(view: DeobliquedVolume) -> list[str]:
    """Warn if slices are so oblique that the body's directions may be confused."""
    turn = view.deobliqued_from_world[:3, :3]
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    if degrees <= MAX_OBLIQUE_DEGREES:
        return []
    return [
        f"the slices are turned by {degrees:.0f}° from the body's axes; directions may be confused, "
        "and levels wrong"
    ]


def _level_doubt(discs: tuple[Disc, ...], checked: CheckedLevels) -> str:
    assignment, kind = checked.assignment, checked.view
    why = "the levels are uncertain"
    if kind != "landmark" and checked.claimed:
        presacral = checked.variant.presacral
        names = " and ".join(
            LANDMARK_NAMES.get(value, disc_name(value, presacral)) for value in sorted(checked.claimed)
        )
        verb = "is" if len(checked.claimed) == 1 else "are"
        why = f"{names} {verb} not clearly visible, so the levels are uncertain"
    elif kind != "landmark":
        why = "neither the dens nor S1/S2 is in view"
    text = f"{why}: the probability that every level is right is {assignment.level_confidence:.2f}"
    if assignment.runner_up_shift:
        text += f", and the next likely levels are shifted by {assignment.runner_up_shift:+d}"
    elif kind != "landmark":
        text += ", and all may be shifted by -1 or +1"
    middle = discs[len(discs) // 2].name
    return text + f"; {LEVEL_REQUEST}, such as the one labelled {middle}, or labels of another scan"


def _odd_spacings(discs: tuple[Disc, ...], spacing_mm: Mapping[int, float]) -> list[str]:
    """Warn which neighbours are oddly far apart or near, for this person's size."""
    pairs = list(pairwise(discs))
    distances = [float(np.linalg.norm(upper.point_world - lower.point_world)) for upper, lower in pairs]
    expected = [spacing_mm[upper.value] for upper, _ in pairs]
    ratios = [distance / usual for distance, usual in zip(distances, expected, strict=True)]
    return [
        f"{upper.name} and {lower.name} are {distance:.0f} mm apart, {ratio / np.median(ratios):.1f} times "
        "the expected spacing; look for a missed disc or an extra, missing or fused vertebra"
        for (upper, lower), distance, ratio in zip(pairs, distances, ratios, strict=True)
        if not 1 / ODD_DISTANCE < ratio / np.median(ratios) < ODD_DISTANCE
    ]


def check_anchors(
    assignment: LevelAssignment,
    free: LevelAssignment,
    clamped: Mapping[int, int],
    *,
    presacral: int = PRESACRAL,
    free_presacral: int = PRESACRAL,
) -> tuple[str, ...]:
    """Compare an assignment that holds anchors with the one that the image gives without them.

    Parameters
    ----------
    assignment, free
        With the anchors and without.
    clamped
        Candidate index → value of each anchor.
    presacral, free_presacral
        Vertebrae that the spine has above the sacrum with the anchors and without, for the discs' names.

    Returns
    -------
    tuple[str, ...]
        Sentences about anchors that the image contradicts: the confidence is then :data:`CONTRADICTED` at
        most.

    Raises
    ------
    AnchorError
        If most of the discs can't be labelled with the anchors.
    """
    if len(assignment.values) < MIN_KEPT * len(free.values):
        named = ", ".join(f"{value} ({disc_name(value, presacral)})" for value in clamped.values())
        raise AnchorError(
            f"the anchor {named} does not fit the image: with it {len(assignment.values)} of "
            f"{len(free.values)} discs can be labelled, without it {_span(free, free_presacral)}; "
            "is it at the right place?"
        )
    seen = dict(zip(free.indices.tolist(), free.values.tolist(), strict=True))
    shifts = {value: value - seen[k] for k, value in sorted(clamped.items()) if k in seen}
    for (upper, one), (lower, other) in pairwise(shifts.items()):
        if one != other:
            found, meant = (lower - other) - (upper - one) - 1, lower - upper - 1
            names = [f"{value} ({disc_name(value, presacral)})" for value in (upper, lower)]
            return (
                f"between the anchors {' and '.join(names)} "
                f"{found} discs are seen, {meant} are expected; a vertebra may be extra or missing, and the "
                "values between the two are uncertain",
            )
    wrong = {value: shift for value, shift in shifts.items() if shift}
    if wrong and free.level_confidence >= CONTRADICTING:
        value, shift = next(iter(wrong.items()))
        named = f"{value} ({disc_name(value, presacral)})"
        seen_as = f"{value - shift} ({disc_name(value - shift, free_presacral)})"
        return (
            f"the anchor {named} contradicts the image: without it this disc is {seen_as}, with probability "
            f"{free.level_confidence:.2f}, and the discs are {_span(free, free_presacral)}",
        )
    held = dict(zip(assignment.indices.tolist(), assignment.values.tolist(), strict=True))
    other = sum(held[k] != seen[k] for k in held.keys() & seen.keys())
    if other and presacral == free_presacral and free.level_confidence >= CONTRADICTING:
        named = ", ".join(f"{value} ({disc_name(value, presacral)})" for value in clamped.values())
        return (
            f"the anchor {named} contradicts the image: with it {other} of {len(free.values)} discs get "
            f"other values than without, which are right with probability {free.level_confidence:.2f}; is "
            "the point on a disc?",
        )
    return ()


def _span(assignment: LevelAssignment, presacral: int) -> str:
    first, last = int(assignment.values[0]), int(assignment.values[-1])
    return f"{disc_name(first, presacral)} to {disc_name(last, presacral)}"
