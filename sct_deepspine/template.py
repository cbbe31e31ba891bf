"""Which discs the registration to the template can be given safely."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sct_deepspine.discs import TEMPLATE_LAST_VALUE, Disc, DiscLabels
from sct_deepspine.errors import SctError
from sct_deepspine.volume import ImageLike, read_mask

__all__ = ["LeftOut", "template_labels"]


@dataclass(frozen=True)
class LeftOut:
    """A disc that is not given to the registration, and why."""

    value: int
    name: str
    reason: str


def template_labels(
    labels: DiscLabels, seg: ImageLike, *, count: int | None = None
) -> tuple[DiscLabels, tuple[LeftOut, ...]]:
    """Choose the discs that the registration can be given safely.

    It takes values that the template has, each once, without a gap, and discs beside the cord mask only:
    others would collapse on the mask's end slice and overwrite each other there.

    Parameters
    ----------
    labels
        The discs found.
    seg
        The cord mask.
    count
        Number of discs to give: 1 (the most central of the surest), 2 (the surest pair far apart), or
        all by default.

    Returns
    -------
    labels
        The discs to give.
    left_out
        The others, each with its reason.

    Raises
    ------
    SctError
        If no disc can be given.
    """
    bottom, top = _cord_extent(seg)
    kept: list[Disc] = []
    left_out: list[LeftOut] = []
    for disc in labels.discs:
        z = disc.point_world[2]
        if disc.value > TEMPLATE_LAST_VALUE:
            left_out.append(LeftOut(disc.value, disc.name, "the template has no such disc"))
        elif not bottom <= z <= top:
            place = "below" if z < bottom else "above"
            left_out.append(LeftOut(disc.value, disc.name, f"it lies {place} the cord mask"))
        else:
            kept.append(disc)
    if not kept:
        raise SctError(
            "no disc can be given to the registration: none lies beside the cord mask and in the template"
        )
    if count is not None and count < len(kept):
        chosen = _best_few(kept, count)
        reason = f"only {count} {'disc was' if count == 1 else 'discs were'} asked for"
        left_out += [LeftOut(d.value, d.name, reason) for d in kept if d not in chosen]
        kept = chosen
    return replace(labels, discs=tuple(kept)), tuple(sorted(left_out, key=lambda out: out.value))


def _cord_extent(seg: ImageLike) -> tuple[float, float]:
    """Return the lowest and highest world z of a mask's voxel centres."""
    mask = read_mask(seg)
    z = mask.grid.world_from_voxel(np.argwhere(mask.data))[:, 2]
    return float(z.min()), float(z.max())


def _best_few(discs: list[Disc], count: int) -> list[Disc]:
    """Return one sure disc near the middle, or the sure pair far apart."""
    if count == 1:
        middle = (len(discs) - 1) / 2
        best = max(range(len(discs)), key=lambda n: discs[n].confidence - abs(n - middle) / (4 * len(discs)))
        return [discs[best]]

    def worth(pair: Iterable[Disc]) -> float:
        upper, lower = pair
        distance = float(np.linalg.norm(upper.point_world - lower.point_world))
        return upper.confidence * lower.confidence * distance

    return list(max(combinations(discs, 2), key=worth))
