"""The loss of the maps of every stack."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["disc_map_loss"]


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
