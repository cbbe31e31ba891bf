"""Predicting maps on planes, whatever runs the network and whatever the maps mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.models.config import NetworkConfig

__all__ = ["MapCodec", "Predictor", "Runtime"]

Array = NDArray[np.float32]

MAX_BATCH_CELLS = 2**18
"""Planes are predicted together up to this many cells of their maps, which bounds the memory."""


class Runtime(Protocol):
    """A trained network that can be run: by torch or by onnxruntime."""

    @property
    def config(self) -> NetworkConfig:
        """What defines the network."""
        ...

    def run(self, planes: Array) -> Array:
        """Map images to the last stage's raw maps.

        They are ``(N, rows, columns)``, sides multiples of the configuration's ``multiple``, or, for a
        network of several input channels, ``(N, channels, rows, columns)``; a single channel is repeated.
        """
        ...

    def attention(self, planes: Array) -> Array | None:
        """Return the attention maps ``(N, H, W)``, or None for a network without attention."""
        ...


class MapCodec(Protocol):
    """What the raw maps of a network mean."""

    @property
    def stride(self) -> int:
        """Pixels per cell of a map."""
        ...

    @property
    def channels(self) -> int:
        """Number of raw maps."""
        ...

    def split(self, raw: NDArray[np.floating]) -> Any:
        """Turn raw maps, ``(channels, rows, columns)``, into what they mean."""
        ...


CodecT = TypeVar("CodecT", bound=MapCodec)


@dataclass(frozen=True, eq=False)
class Predictor(Generic[CodecT]):
    """A trained network that predicts maps on planes of one pixel size.

    Parameters
    ----------
    runtime
        Runs the network.
    codec
        What its maps mean.
    pixel_mm
        Pixel size it was trained at.

    Raises
    ------
    ValueError
        If the network does not predict the maps that the codec reads.
    """

    runtime: Runtime
    codec: CodecT
    pixel_mm: float

    def __post_init__(self) -> None:
        config, codec = self.runtime.config, self.codec
        if (config.channels, config.stride) != (codec.channels, codec.stride):
            raise ValueError(
                f"the network predicts {config.channels} maps at stride {config.stride}, "
                f"its codec reads {codec.channels} at stride {codec.stride}"
            )

    @property
    def in_channels(self) -> int:
        """Channels of an image that the network sees."""
        return self.runtime.config.in_channels

    def predict(self, planes: Sequence[Array]) -> list[Any]:
        """Predict the maps of planes of one shape, as the codec splits them.

        They are ``(rows, columns)`` each, or ``(channels, rows, columns)``.
        """
        rows, columns = self._cells(planes[0])
        at_once = max(1, MAX_BATCH_CELLS // (rows * columns))
        batches = (planes[n : n + at_once] for n in range(0, len(planes), at_once))
        raw = (maps for batch in batches for maps in self.runtime.run(self._padded(batch)))
        return [self.codec.split(maps[:, :rows, :columns]) for maps in raw]

    def attention(self, plane: Array) -> Array | None:
        """Return the attention map of a plane, cells, or None for a network without attention."""
        maps = self.runtime.attention(self._padded([plane]))
        rows, columns = self._cells(plane)
        return None if maps is None else maps[0, :rows, :columns]

    def _padded(self, planes: Sequence[Array]) -> Array:
        """Pad at the end with the constant that means "outside the image"."""
        batch = np.stack(planes)
        missing = [(0, -size % self.runtime.config.multiple) for size in batch.shape[-2:]]
        return np.pad(batch, [(0, 0)] * (batch.ndim - 2) + missing)

    def _cells(self, plane: Array) -> tuple[int, ...]:
        return tuple(-(-n // self.codec.stride) for n in plane.shape[-2:])
