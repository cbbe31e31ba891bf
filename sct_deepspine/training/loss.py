"""What training makes small: the losses of disc maps and of tissues."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["disc_map_loss", "tissue_loss"]


def disc_map_loss(stacks: list[Tensor], batch: dict[str, Tensor], *, peak_weight: float = 8.0) -> Tensor:
    """Sum the loss over the stacks (intermediate supervision).

    Cross-entropy of the any-disc and canal maps against their soft targets, where known, with cells
    of a peak weighted up; cross-entropy of the level at each disc, in proportion to its peak.

    Parameters
    ----------
    stacks
        Raw maps of each stack, ``(N, levels + 2, H, W)``.
    batch
        Targets as :class:`sct_deepspine.training.dataset.RandomPlanes` draws them, ``(N, H, W)`` each.
    peak_weight
        Weight of a cell at the top of a peak, relative to an empty one.
    """
    total = stacks[0].new_zeros((), dtype=torch.float32)
    disc, canal = batch["any_disc"], batch["canal"]
    at_disc = disc * batch["any_known"] * (disc > 0.1)
    for maps in stacks:
        raw = maps.float()
        levels = raw.shape[1] - 2
        total = total + _known_mean(raw[:, levels], disc, batch["any_known"], peak_weight)
        total = total + 0.5 * _known_mean(raw[:, levels + 1], canal, batch["canal_known"], peak_weight / 4)
        wrong = F.cross_entropy(raw[:, :levels], batch["level"], reduction="none", label_smoothing=0.02)
        total = total + 0.3 * (wrong * at_disc).sum() / at_disc.sum().clamp(min=1.0)
    return total


def _known_mean(raw: Tensor, target: Tensor, known: Tensor, peak_weight: float) -> Tensor:
    weight = known * (1 + peak_weight * target)
    wrong = F.binary_cross_entropy_with_logits(raw, target, reduction="none")
    return (wrong * weight).sum() / weight.sum().clamp(min=1.0)


def tissue_loss(stages: list[Tensor], batch: dict[str, Tensor]) -> Tensor:
    """Return the mean negative log probability that a pixel is one of the tissues it may be.

    Pixels that may be anything have no loss and are not counted.

    Parameters
    ----------
    stages
        Raw maps of each stage, ``(N, tissues, H, W)``.
    batch
        ``possible``, ``(N, H, W)``: a set of tissues as bits; see
        :mod:`sct_deepspine.training.tissue_planes`.
    """
    possible = batch["possible"]
    count = stages[0].shape[1]
    bits = torch.arange(count, device=possible.device)[None, :, None, None]
    excluded = (possible[:, None] >> bits) & 1 == 0
    known = excluded.any(dim=1)
    total = stages[0].new_zeros((), dtype=torch.float32)
    for maps in stages:
        raw = maps.float()
        may_be = raw.masked_fill(excluded, -torch.inf).logsumexp(dim=1)
        total = total + ((raw.logsumexp(dim=1) - may_be) * known).sum() / known.sum().clamp(min=1)
    return total
