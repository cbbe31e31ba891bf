"""Which series of a session show one spine, and the shift that brings each to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.alignment import Alignment, align_series, edge_plane

__all__ = ["Group", "Link", "extent_mm", "group_series", "single"]

MIN_SUPPORT = 0.5
"""Log-odds from which two overlapping series are taken for one spine. Of 48 pairs of one subject 46 exceed
it; of 904 pairs of two subjects, a level laid over the same level, 10."""

MIN_OVERLAP_MM = 25.0
"""Series that share less than this along the spine, mm, are not compared."""

MAX_GAP_MM, MAX_ASIDE_MM = 150.0, 40.0
"""Series that do not overlap are joined by their places in the scanner over a gap of at most this, mm, if the
canal of one, followed straight on, meets that of the other within the second."""

PLACES_SUPPORT = 3.0
"""Log-odds of two series that do not overlap and are joined by their places alone: nothing confirms that the
person lay still; chosen, not measured."""


@dataclass(frozen=True, eq=False)
class Link:
    """What joins two series, or tells them apart.

    Parameters
    ----------
    first, second
        Indices of the series.
    alignment
        How they lie to each other; None where they do not overlap.
    joined
        Whether they are taken for one spine.
    """

    first: int
    second: int
    alignment: Alignment | None
    joined: bool


@dataclass(frozen=True, eq=False)
class Group:
    """Series that show one spine.

    Parameters
    ----------
    members
        Indices of the series.
    shift_mm
        Member → ``(3,)`` world mm to be added to its points, so that they coincide with those of the others.
    support
        Member → log-odds of the weakest link between it and the first member; infinite for that one.
    """

    members: tuple[int, ...]
    shift_mm: dict[int, FloatArray] = field(default_factory=dict)
    support: dict[int, float] = field(default_factory=dict)


def single(n: int) -> Group:
    """Return the group of a series that is labelled apart."""
    return Group((n,), {n: np.zeros(3)}, {n: np.inf})


def extent_mm(volume: Volume) -> tuple[float, float]:
    """Return the lowest and the highest world z of a volume's voxels."""
    z = volume.grid.corners_world()[:, 2]
    return float(z.min()), float(z.max())


def group_series(
    volumes: Sequence[Volume], canals: Sequence[Centerline | None]
) -> tuple[list[Group], list[Link]]:
    """Find the series that show one spine.

    Parameters
    ----------
    volumes
        The series.
    canals
        The canal found in each; None where none was.

    Returns
    -------
    groups
        Every series is in one of them; the first member of each is the one that the others are brought to.
    links
        What was compared.
    """
    compared = (_link(volumes, canals, a, b) for a, b in combinations(range(len(volumes)), 2))
    links = [link for link in compared if link is not None]
    used: list[Link] = []
    parts = {number: {number} for number in range(len(volumes))}
    for link in sorted((link for link in links if link.joined), key=_strength, reverse=True):
        if parts[link.first] is not parts[link.second] and not _is_doubtful(link, parts, links):
            merged = parts[link.first] | parts[link.second]
            parts |= dict.fromkeys(merged, merged)
            used.append(link)
    unique = {id(part): part for part in parts.values()}.values()
    return [_group(sorted(part), used, canals) for part in unique], links


def _is_doubtful(link: Link, parts: dict[int, set[int]], links: Sequence[Link]) -> bool:
    """Return whether series would be joined by their places alone, while others of both sides do not fit."""
    if link.alignment is not None:
        return False
    sides = parts[link.first], parts[link.second]
    return any(
        not other.joined and any(other.first in a and other.second in b for a, b in (sides, sides[::-1]))
        for other in links
    )


def _strength(link: Link) -> float:
    """Series that overlap come before those that are joined by their places alone."""
    return link.alignment.support if link.alignment is not None else -1e3


def _link(volumes: Sequence[Volume], canals: Sequence[Centerline | None], a: int, b: int) -> Link | None:
    """Compare two series; None where nothing joins them or tells them apart."""
    (low_a, high_a), (low_b, high_b) = extent_mm(volumes[a]), extent_mm(volumes[b])
    overlap = min(high_a, high_b) - max(low_a, low_b)
    canal = canals[a] or canals[b]
    if canal is None:
        return None
    if overlap < MIN_OVERLAP_MM:
        near = overlap > -MAX_GAP_MM and _canals_meet(canals[a], canals[b])
        return Link(a, b, None, joined=True) if near else None
    planes = [edge_plane(volumes[n], canals[n] or canal) for n in (a, b)]
    if planes[0] is None or planes[1] is None:
        return None
    alignment = align_series(planes[0], planes[1])
    if alignment is None:
        return None
    return Link(a, b, alignment, joined=alignment.support > MIN_SUPPORT)


def _canals_meet(one: Centerline | None, other: Centerline | None) -> bool:
    """Return whether the canals of two series that do not overlap lie on one line."""
    if one is None or other is None:
        return False
    lower, upper = sorted((one, other), key=lambda line: line.samples_world[:, 2].mean())
    top, bottom = lower.samples_world[-1], upper.samples_world[0]
    return bool(np.linalg.norm((bottom - top)[:2]) < MAX_ASIDE_MM + 0.5 * abs(bottom[2] - top[2]))


def _group(members: Sequence[int], links: Sequence[Link], canals: Sequence[Centerline | None]) -> Group:
    """Carry shifts and support from the member with the longest canal to all the others."""
    lengths = {n: canal.length_mm if (canal := canals[n]) is not None else 0.0 for n in members}
    first = max(members, key=lambda n: lengths[n])
    shifts, support = {first: np.zeros(3)}, {first: np.inf}
    while len(shifts) < len(members):
        for link in links:
            known, new = (link.first, link.second) if link.first in shifts else (link.second, link.first)
            if known not in shifts or new in shifts:
                continue
            shifts[new] = shifts[known] + _shift(link, canals, forwards=known == link.first)
            strength = link.alignment.support if link.alignment is not None else PLACES_SUPPORT
            support[new] = min(support[known], strength)
    order = (first, *(n for n in members if n != first))
    return Group(order, shifts, support)


def _shift(link: Link, canals: Sequence[Centerline | None], *, forwards: bool) -> FloatArray:
    """Return the ``(3,)`` shift that brings the second series of a link to the first, or back."""
    if link.alignment is None:
        return np.zeros(3)
    anterior, superior = link.alignment.shift_mm
    shift = np.array([0.0, anterior, superior])
    one, other = canals[link.first], canals[link.second]
    if one is not None and other is not None:
        shift[0] = _lateral(one, other, superior)
    return shift if forwards else -shift


def _lateral(one: Centerline, other: Centerline, superior_mm: float) -> float:
    """Return how far to the right the canal of one series lies of that of another, moved up first."""
    first, second = (line.samples_world[np.argsort(line.samples_world[:, 2])] for line in (one, other))
    heights = second[:, 2] + superior_mm
    shared = second[(heights > first[0, 2]) & (heights < first[-1, 2])]
    if not len(shared):
        return 0.0
    x = np.interp(shared[:, 2] + superior_mm, first[:, 2], first[:, 0])
    return float(np.median(x - shared[:, 0]))
