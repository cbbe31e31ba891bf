"""How the automatic labels were edited by hand.

What was edited is found by comparison with the automatic labels: a label that lies where a disc was put
automatically, or next to it, is that disc, whatever its value; a label that lies elsewhere is a disc that
was moved there, or added. What a person set stays, what they removed stays away, what they renamed renumbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sct_deepspine.anatomy import DISC_VALUES, FIRST_VALUE, LAST_VALUE, disc_name
from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.io.disc_labels import LabelledPoint
from sct_deepspine.labels import DiscLabels

__all__ = ["Corrections", "compare_labels"]

MIN_COPIED, COPIED_SHARE = 3, 0.5
"""A file is an edited copy if at least the first number of its labels, and the second share of them and of
the automatic ones, are automatic ones."""

MOVED_MM = 2.0
"""A label no farther than this, or than a voxel's diagonal, from where a disc was put is that disc."""

NUDGED_MM = 0.05
"""That disc was moved if its label lies farther than this from where it was written; files round less."""


@dataclass(frozen=True)
class Corrections:
    """What was edited.

    Parameters
    ----------
    shift
        Levels by which all values were renumbered.
    tips
        New value → world point of discs that were moved or added.
    removed
        New values of discs that were removed.
    """

    shift: int = 0
    tips: dict[int, FloatArray] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()

    def apply(self, labels: DiscLabels) -> DiscLabels:
        """Return the automatic labels as they were edited."""
        edited = labels.shifted(self.shift).without(self.removed).with_tips(self.tips)
        if not edited.discs:
            raise AnchorError("every label was removed or renamed out of the spine; nothing is left to write")
        values = edited.values
        gaps = sorted(set(range(int(values[0]), int(values[-1]))) - set(values.tolist()))
        notes = [
            f"{disc_name(v, edited.presacral)} was removed; the registration needs labels without a gap"
            for v in gaps
        ]
        ends = sorted((self.removed - set(gaps)) & set(range(DISC_VALUES[0], edited.presacral + 2)))
        if ends:
            names = ", ".join(disc_name(value, edited.presacral) for value in ends)
            notes.append(f"not among the edited labels, so left out: {names}")
        confidence = 1.0 if self.shift else labels.level_confidence
        return replace(edited, level_confidence=confidence, warnings=(*labels.warnings, *notes))


def compare_labels(
    points: Sequence[LabelledPoint], automatic: DiscLabels, voxel_mm: float
) -> Corrections | None:
    """Return how labels were edited, or None if they are no edited copy of the automatic ones.

    Parameters
    ----------
    points
        What the file holds; see :func:`sct_deepspine.io.disc_labels.read_disc_labels`.
    automatic
        The labels that are written if nobody corrects them.
    voxel_mm
        Diagonal of a voxel of the file.

    Raises
    ------
    AnchorError
        If what was edited can be understood in more than one way.
    """
    given = np.array([point for _, point in points])
    distance = np.linalg.norm(given[:, None] - automatic.points_world, axis=2)
    nearest = distance.argmin(axis=1)
    is_copied = (distance.min(axis=1) <= max(MOVED_MM, voxel_mm)) & (
        distance.argmin(axis=0)[nearest] == np.arange(len(points))
    )
    # C1/C2 and the top of C1 are written on demand only: a label merely near to them is another disc, moved.
    for k, n in enumerate(nearest):
        if automatic.discs[n].value < DISC_VALUES[0]:
            is_copied[k] &= _is_where_written(points[k][1], automatic.points_world[n], automatic.grid)
    source = np.where(is_copied, nearest, -1)
    copied = {int(n): value for n, (value, _) in zip(source, points, strict=True) if n >= 0}
    before = automatic.values.tolist()
    discs = sum(value >= DISC_VALUES[0] for value in before)
    if len(copied) < max(MIN_COPIED, COPIED_SHARE * len(points), COPIED_SHARE * discs):
        return None
    shifts = {value - before[n] for n, value in copied.items()} - {0}
    if len(shifts) > 1:
        raise AnchorError(
            f"labels were renamed by {' and '.join(f'{s:+d}' for s in sorted(shifts))} levels; "
            "rename one, and the others follow"
        )
    shift = shifts.pop() if shifts else 0
    all_renamed = all(value != before[n] for n, value in copied.items())
    gone = {before[n] for n in range(len(before)) if n not in copied}
    tips: dict[int, FloatArray] = {}
    for n, (value, point) in zip(source, points, strict=True):
        is_copy = n >= 0
        if is_copy and _is_where_written(point, automatic.points_world[n], automatic.grid):
            continue
        new = before[n] + shift if is_copy else _new_value(value, gone, shift, all_renamed)
        last = max(DISC_VALUES[-1], automatic.presacral + 1)
        if not FIRST_VALUE <= new <= (last if is_copy else LAST_VALUE):
            raise AnchorError(
                f"renumbered by {shift:+d}, the label {value} would be {new}; "
                f"discs are {FIRST_VALUE} to {last}"
            )
        if is_copy:
            tips[new] = point
            continue
        if new in tips or (new - shift in before and new - shift not in gone):
            raise AnchorError(f"the labels have {value} at two places; which one is it?")
        tips[new] = point
    return Corrections(shift, tips, frozenset(old + shift for old in gone) - tips.keys())


def _is_where_written(point: FloatArray, tip: FloatArray, grid: Grid) -> bool:
    """Return whether a label lies where a disc was written: at its tip, or at the voxel that holds it."""
    voxel = np.clip(np.round(grid.voxel_from_world(tip)), 0, np.array(grid.shape) - 1)
    written = np.vstack([tip, grid.world_from_voxel(voxel)])
    return bool((np.linalg.norm(written - point, axis=1) <= NUDGED_MM).any())


def _new_value(value: int, gone: set[int], shift: int, all_renamed: bool) -> int:
    """Return the value after renumbering of a label that lies where no disc was put automatically."""
    if all_renamed or not shift:
        return value
    was_moved, was_moved_and_renamed = value in gone, value - shift in gone
    if was_moved and was_moved_and_renamed:
        raise AnchorError(
            f"the label {value} was moved while others were renamed, and may be either of two discs; "
            "do one after the other"
        )
    discs_gone = gone - set(range(FIRST_VALUE, DISC_VALUES[0]))  # C1/C2 and the top of C1 are rarely written
    if discs_gone and not was_moved and not was_moved_and_renamed:
        raise AnchorError(
            f"the label {value} is at a new place while others were renamed, moved or removed; "
            "do one after the other"
        )
    return value if was_moved_and_renamed else value + shift
