"""One chain of disc candidates out of those of several series, superior to inferior.

Candidates of two series that lie at one place are one disc. What both networks' maps say of its level adds
up, though not fully, since networks of one kind err alike. A candidate that another series should show and
does not is worth less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import LAST_VALUE
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.labeling.levels import Candidates

__all__ = ["Chain", "Member", "link_candidates"]

SAME_MM = 6.0
"""Two candidates are one disc if they are nearest to each other and no farther apart than this in the
sagittal plane, mm: less than half of the shortest level. Series are aligned to 1.5 mm before."""

LEVEL_POWER = 0.8
"""Weight of what a further series says of the level of a disc; see the session benchmark."""

LEVEL_FLOOR = 1e-3
"""Added to level maps before they are multiplied, so that one series can't rule out what another sees."""

UNSEEN_SHARE = 0.6
"""A candidate is worth this share for each other series that shows the place and has no candidate there."""

CERTAIN_SCORE = 0.25
"""Candidates with a smaller score do not tell whether the places of two series agree."""


@dataclass(frozen=True, eq=False)
class Member:
    """One series of a chain.

    Parameters
    ----------
    candidates
        What may be discs, world points moved to where the other series are.
    extent_mm
        World z that the series shows, moved likewise.
    """

    candidates: Candidates
    extent_mm: tuple[float, float]

    def shows(self, z_mm: FloatArray, margin_mm: float = 0.0) -> NDArray[np.bool_]:
        """Return which world heights are in view."""
        low, high = self.extent_mm
        return np.asarray((z_mm > low + margin_mm) & (z_mm < high - margin_mm))


@dataclass(frozen=True, eq=False)
class Chain:
    """The candidates of all series.

    Parameters
    ----------
    candidates
        Superior to inferior.
    sources
        For each of them, series → index of its own candidate.
    dropped
        Series whose places contradict the others': half a level off, say. Their candidates took no part.
    """

    candidates: Candidates
    sources: tuple[dict[int, int], ...] = ()
    dropped: frozenset[int] = field(default_factory=frozenset)


def link_candidates(members: Sequence[Member | None], order: Sequence[int]) -> Chain:
    """Make one chain of the candidates of several series.

    Parameters
    ----------
    members
        The series; None for one without candidates.
    order
        Indices of the series from the most to the least trusted: where places contradict each other, the
        former's count.
    """
    points: list[FloatArray] = []
    scores: list[float] = []
    levels: list[FloatArray] = []
    sources: list[dict[int, int]] = []
    dropped: set[int] = set()
    used: list[int] = []
    first_value = next((m.candidates.first_value for m in members if m is not None), 1)
    for n in order:
        member = members[n]
        if member is None or not len(member.candidates.score):
            continue
        pairs = _same_places(points, member.candidates.points)
        if used and _contradicts(member, [m for k in used if (m := members[k])], points, scores, pairs):
            dropped.add(n)
            continue
        used.append(n)
        own = member.candidates
        for k in range(len(own.score)):
            row = np.log(own.level[k] + LEVEL_FLOOR)
            if k in pairs:
                node = pairs[k]
                sources[node][n] = k
                scores[node] = max(scores[node], float(own.score[k]))
                levels[node] = levels[node] + LEVEL_POWER * row
            else:
                points.append(own.points[k])
                scores.append(float(own.score[k]))
                levels.append(row)
                sources.append({n: k})
    return _chain(points, scores, levels, sources, members, used, first_value, frozenset(dropped))


def _same_places(points: Sequence[FloatArray], own: FloatArray) -> dict[int, int]:
    """Return which of a series' candidates are at which place of the chain."""
    if not len(points):
        return {}
    offset = own[:, None] - np.array(points)
    distance = np.linalg.norm(offset[..., 1:], axis=2)
    rows, columns = distance.argmin(axis=1), distance.argmin(axis=0)
    return {
        k: int(node) for k, node in enumerate(rows) if columns[node] == k and distance[k, node] <= SAME_MM
    }


def _contradicts(
    member: Member,
    others: Sequence[Member],
    points: Sequence[FloatArray],
    scores: Sequence[float],
    pairs: dict[int, int],
) -> bool:
    """Return whether most discs that a series and the chain both should show are at different places."""
    own = member.candidates
    certain = own.score > CERTAIN_SCORE
    shown = np.any([other.shows(own.points[:, 2]) for other in others], axis=0)
    mine = np.nonzero(certain & shown)[0]
    z = np.array([point[2] for point in points])
    theirs = np.nonzero(member.shows(z) & (np.array(scores) > CERTAIN_SCORE))[0]
    met = sum(k in pairs for k in mine)
    return bool(min(len(mine), len(theirs)) >= 2 and met < 0.5 * min(len(mine), len(theirs)))


def _chain(
    points: Sequence[FloatArray],
    scores: Sequence[float],
    levels: Sequence[FloatArray],
    sources: Sequence[dict[int, int]],
    members: Sequence[Member | None],
    used: Sequence[int],
    first_value: int,
    dropped: frozenset[int],
) -> Chain:
    if not points:
        empty = Candidates(np.empty((0, 3)), np.empty(0), np.empty((0, LAST_VALUE)), first_value)
        return Chain(empty, (), dropped)
    places = np.array(points)
    worth = np.array(scores)
    for n in used:
        member = members[n]
        assert member is not None
        blind = np.array([n not in own for own in sources]) & member.shows(places[:, 2], SAME_MM)
        worth = np.where(blind, UNSEEN_SHARE * worth, worth)
    rows = np.exp(np.array(levels) - np.max(levels, axis=1, keepdims=True))
    order = np.argsort(-places[:, 2], kind="stable")
    chain = Candidates(
        places[order],
        worth[order],
        (rows / rows.sum(axis=1, keepdims=True))[order],
        first_value,
        unseen_mm=_unseen_above(places[order, 2], [m for n in used if (m := members[n]) is not None]),
    )
    return Chain(chain, tuple(sources[k] for k in order), dropped)


def _unseen_above(z_mm: FloatArray, members: Sequence[Member]) -> FloatArray:
    """Return how much of the spine above each height, below the uppermost series, is in none, ``(K,)`` mm."""
    intervals = sorted((member.extent_mm for member in members), key=lambda extent: -extent[1])
    gaps: list[tuple[float, float]] = []
    bottom = intervals[0][0]
    for low, high in intervals[1:]:
        if high < bottom:
            gaps.append((high, bottom))
        bottom = min(bottom, low)
    return np.array([sum(max(top - max(z, low), 0.0) for low, top in gaps if z < top) for z in z_mm])
