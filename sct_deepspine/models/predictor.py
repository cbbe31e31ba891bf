"""Drawing disc maps on planes, whatever runs the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.labeling.heatmaps import Codec, DiscMaps
from sct_deepspine.models.config import NetworkConfig

__all__ = ["Artist", "Runtime"]

Maps = NDArray[np.float32]


LARGEST_BATCH_PIXELS = 2**19
"""Planes are drawn together up to this many pixels, which bounds the memory."""


class Runtime(Protocol):
    """A trained network that can be run: by torch or by onnxruntime."""

    @property
    def config(self) -> NetworkConfig:
        """What defines the network."""
        ...

    def run(self, planes: Maps) -> Maps:
        """Map ``(N, rows, columns)``, multiples of the configuration's, to the last stack's raw maps."""
        ...

    def attention(self, planes: Maps) -> Maps | None:
        """Return the attention maps ``(N, H, W)``, or None for a network without attention."""
        ...


@dataclass(frozen=True, eq=False)
class Artist:
    """A trained network that draws disc maps on planes of one pixel size.

    Parameters
    ----------
    runtime
        Runs the network.
    codec
        Layout of its maps.
    pixel_mm
        Pixel size it was trained at.
    """

    runtime: Runtime
    codec: Codec
    pixel_mm: float

    def draw(self, planes: Sequence[Maps]) -> list[DiscMaps]:
        """Draw the maps of planes of one shape, ``(rows, columns)`` each; the last stack's count."""
        rows, columns = self._cells(planes[0])
        at_once = max(1, LARGEST_BATCH_PIXELS // planes[0].size)
        batches = (planes[n : n + at_once] for n in range(0, len(planes), at_once))
        raw = (maps for batch in batches for maps in self.runtime.run(self._padded(batch)))
        return [self.codec.split(maps[:, :rows, :columns]) for maps in raw]

    def attention(self, plane: Maps) -> Maps | None:
        """Return the attention map of a plane, cells, or None for a network without attention."""
        maps = self.runtime.attention(self._padded([plane]))
        rows, columns = self._cells(plane)
        return None if maps is None else maps[0, :rows, :columns]

    def _padded(self, planes: Sequence[Maps]) -> Maps:
        """Pad at the end with the constant that means "outside the image"."""
        batch = np.stack(planes)
        missing = [(0, -size % self.runtime.config.multiple) for size in batch.shape[1:]]
        return np.pad(batch, [(0, 0), *missing])

    def _cells(self, plane: Maps) -> tuple[int, ...]:
        return tuple(-(-n // self.codec.stride) for n in plane.shape)
