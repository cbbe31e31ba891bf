"""From a network's raw maps to probabilities."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["sigmoid", "softmax"]

Float = TypeVar("Float", bound=np.floating)


def sigmoid(logits: NDArray[Float]) -> NDArray[Float]:
    """Return ``1 / (1 + exp(-logits))``, by the hyperbolic tangent, which never overflows."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits)


def softmax(logits: NDArray[Float]) -> NDArray[Float]:
    """Return the shares ``exp(logits) / Σ exp(logits)`` along the first axis."""
    shares = np.exp(logits - logits.max(axis=0))
    shares /= shares.sum(axis=0)
    return shares
