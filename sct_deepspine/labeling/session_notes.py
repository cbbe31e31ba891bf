"""What the images of a session did for each other, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sct_deepspine.labeling.grouping import Group, Link
from sct_deepspine.labeling.spine import Spine
from sct_deepspine.labels import DiscLabels

__all__ = ["SessionNote", "apart_note", "group_notes", "link_notes", "overruled_note"]

NOTED_SHIFT_MM = 4.0
"""A shift larger than this, mm, is reported: alignments of series that did not move come to 3 mm at most."""


@dataclass(frozen=True)
class SessionNote:
    """One finding about the images of a session.

    Parameters
    ----------
    sentence
        What was found.
    images
        Indices of the images that it is about.
    """

    sentence: str
    images: frozenset[int]


def link_notes(links: Sequence[Link], names: Sequence[str]) -> list[SessionNote]:
    """Say which images overlap without showing the same anatomy."""
    return [
        SessionNote(
            f"{names[link.first]} and {names[link.second]} overlap but do not show the same anatomy there: "
            "another person, another position, or moved too far; levels were not transferred between them",
            frozenset((link.first, link.second)),
        )
        for link in links
        if not link.joined
    ]


def apart_note(n: int, names: Sequence[str]) -> SessionNote:
    """Say that an image was labelled apart since it contradicts the others."""
    return SessionNote(
        f"{names[n]} has confident levels that contradict the other images; it is labelled separately, so "
        "check which is right",
        frozenset((n,)),
    )


def overruled_note(n: int, names: Sequence[str], alone: DiscLabels | None) -> SessionNote:
    """Say that levels which a person gave are not those of which an image alone is sure."""
    confidence = alone.level_confidence if alone is not None else 0.0
    return SessionNote(
        f"the given levels contradict {names[n]}, which by itself has other ones with a confidence of "
        f"{confidence:.2f}; check which are right",
        frozenset((n,)),
    )


def group_notes(group: Group, spine: Spine | None, names: Sequence[str]) -> list[SessionNote]:
    """Say how far people moved, whose places were not taken, and which images level which."""
    if spine is None or len(group.members) < 2:
        return []
    first = group.members[0]
    out = []
    if spine.counted is not None and not spine.counted.count.is_usual:
        out.append(SessionNote(spine.counted.count.finding, frozenset(group.members)))
    for n in group.members[1:]:
        shift = group.shift_mm[n]
        if np.linalg.norm(shift) > NOTED_SHIFT_MM:
            text = (
                f"{names[n]} lies {np.linalg.norm(shift):.0f} mm from {names[first]} "
                f"({-shift[2]:+.0f} mm along the spine): the person moved; the labels follow each image"
            )
            out.append(SessionNote(text, frozenset((n,))))
    for n in sorted(spine.dropped):
        text = f"disc candidates in {names[n]} lie between those of the other images; theirs were used"
        out.append(SessionNote(text, frozenset((n,))))
    levelled = frozenset(group.members) - spine.levelled_by
    if spine.levelled_by and levelled:
        by = " and ".join(names[n] for n in sorted(spine.levelled_by))
        text = f"the levels of {', '.join(names[n] for n in sorted(levelled))} rest on {by}"
        out.append(SessionNote(text, levelled))
    return out
