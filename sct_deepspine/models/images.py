"""Images as networks take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["with_channels"]


def with_channels(images: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return images as ``(N, channels, rows, columns)``; those of ``(N, rows, columns)`` are repeated.

    Raises
    ------
    ValueError
        If they have another number of channels.
    """
    if images.ndim == 3:
        return np.broadcast_to(images[:, None], (len(images), count, *images.shape[1:]))
    if images.shape[1] != count:
        raise ValueError(f"the network takes {count} channels, the images have {images.shape[1]}")
    return images
