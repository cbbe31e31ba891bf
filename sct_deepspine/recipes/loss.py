"""The loss of masks: cross-entropy where the truth is known."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["mask_loss"]


def mask_loss(stacks: list[Tensor], batch: dict[str, Tensor]) -> Tensor:
    """Return the mean cross-entropy per known pixel, binary for one raw map, summed over the stacks.

    Parameters
    ----------
    stacks
        Raw maps of each stage, ``(N, maps, rows, columns)``.
    batch
        ``target`` and ``known`` as :class:`sct_deepspine.recipes.dataset.MaskSlices` gives them.
    """
    known, target = batch["known"], batch["target"]
    total = stacks[0].new_zeros((), dtype=torch.float32)
    for maps in stacks:
        raw = maps.float()
        if raw.shape[1] == 1:
            wrong = F.binary_cross_entropy_with_logits(raw[:, 0], target.float(), reduction="none")
        else:
            wrong = F.cross_entropy(raw, target, reduction="none")
        total = total + (wrong * known).sum() / known.sum().clamp(min=1.0)
    return total
