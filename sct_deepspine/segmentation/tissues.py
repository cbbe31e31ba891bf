"""The tissues that the mask network tells apart, and what its maps mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.models.maps import softmax
from sct_deepspine.models.predictor import Predictor

__all__ = ["ANY_TISSUE", "Tissue", "TissueCodec", "TissuePredictor"]


class Tissue(IntEnum):
    """What a voxel is, and the index of its map."""

    OTHER = 0
    CORD = 1
    FLUID = 2
    """What the dural sac holds beside the cord: cerebrospinal fluid and roots."""
    VERTEBRA = 3
    DISC = 4

    @property
    def bit(self) -> int:
        """The tissue in a set of tissues written as the bits of a number."""
        return 1 << self


ANY_TISSUE = (1 << len(Tissue)) - 1
"""The set of all tissues."""


@dataclass(frozen=True)
class TissueCodec:
    """Layout of the maps: one logit per tissue, on the pixels themselves."""

    stride: int = 1
    channels: int = len(Tissue)

    def split(self, raw: NDArray[np.floating]) -> NDArray[np.float32]:
        """Turn raw maps, ``(channels, rows, columns)``, into the probability of each tissue."""
        if raw.shape[0] != self.channels:
            raise ValueError(f"expected {self.channels} maps, got {raw.shape[0]}")
        return softmax(np.asarray(raw, dtype=np.float32))


TissuePredictor = Predictor[TissueCodec]
"""A network that predicts tissues."""
