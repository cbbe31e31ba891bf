"""Training data of masks: whole images or patches, the same on every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.task import MaskTask
from sct_deepspine.training.loop import Batch

__all__ = ["MaskSlice", "MaskSlices", "slices_of"]

MULTIPLE = 8
"""Sides of what a network is given are multiples of this."""


@dataclass(frozen=True, eq=False)
class MaskSlice:
    """One plane to train on.

    Parameters
    ----------
    image
        ``(channels, rows, columns)``, in the type of the file.
    target
        Index of the class of each pixel, ``(rows, columns)``.
    known
        Where the truth counts, of the same shape.
    mean, deviation
        What standardises the image, ``(channels, 1, 1)``.
    """

    image: NDArray[Any]
    target: NDArray[np.uint8]
    known: NDArray[np.bool_]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


def slices_of(samples: Sequence[Sample], task: MaskTask) -> list[MaskSlice]:
    """Cut samples into the planes to train on; those outside the field of view are left out.

    Raises
    ------
    DatasetError
        If a mask holds a value that is no class.
    """
    slices = []
    for sample in samples:
        targets = task.codec.encode(sample.mask, sample.name)
        seen = np.ones(targets.shape, dtype=bool) if sample.known is None else sample.known
        for image, target, known in zip(sample.image, targets, seen, strict=True):
            if known.any():
                slices.append(MaskSlice(image, target, known, *task.standardisation.constants(image)))
    return slices


class MaskSlices(Dataset[Batch]):
    """Whole planes, or a patch of each, in an order that is drawn anew each time all have been seen.

    An item is ``image``, ``(channels, rows, columns)``, standardised; ``target``, the index of the class of
    each pixel; and ``known``, 1 where the loss counts: inside the field of view and the image. The centre of
    a patch lies in the field of view. Item ``n`` of a seed is always the same.

    Parameters
    ----------
    slices
        What is trained on.
    task
        Patch size and augmentation.
    seed
        Of everything random.
    start
        Index of the first item.
    length
        Number of items.
    """

    def __init__(
        self, slices: Sequence[MaskSlice], task: MaskTask, *, seed: int, start: int = 0, length: int = 1
    ) -> None:
        self.slices, self.task, self.seed = slices, task, seed
        self.start, self.length = start, length
        if task.patch:
            self.shape = task.patch, task.patch
        else:
            sides = np.max([s.target.shape for s in slices], axis=0)
            self.shape = int(-(-sides[0] // MULTIPLE) * MULTIPLE), int(-(-sides[1] // MULTIPLE) * MULTIPLE)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        """Return an item."""
        if not 0 <= index < self.length:
            raise IndexError(f"there are {self.length} items, none is number {index}")
        number = self.start + index
        source = self.slices[self._place(number)]
        rng = np.random.default_rng((self.seed, 0, number))
        window = self._window(source, rng)
        arrays = {
            "image": (source.image[..., window[0], window[1]].astype(np.float32) - source.mean)
            / source.deviation,
            "target": source.target[window].astype(np.int64),
            "known": source.known[window].astype(np.float32),
        }
        missing = [(0, whole - there) for whole, there in zip(self.shape, arrays["known"].shape, strict=True)]
        arrays = {n: np.pad(a, [(0, 0)] * (a.ndim - 2) + missing) for n, a in arrays.items()}
        if self.task.augment:
            arrays = _turned(arrays, rng)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def _place(self, number: int) -> int:
        """Return which plane an item shows."""
        epoch, place = divmod(number, len(self.slices))
        if self._order[0] != epoch:
            order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.slices))
            self._order = epoch, order
        return int(self._order[1][place])

    def _window(self, source: MaskSlice, rng: np.random.Generator) -> tuple[slice, slice]:
        """Return where a patch lies: around a pixel of the field of view, but inside the image."""
        if not self.task.patch:
            return slice(None), slice(None)
        inside = np.flatnonzero(source.known)
        centre = np.unravel_index(inside[rng.integers(len(inside))], source.known.shape)
        corner = [
            int(np.clip(at - side // 2, 0, max(0, size - side)))
            for at, side, size in zip(centre, self.shape, source.known.shape, strict=True)
        ]
        return slice(corner[0], corner[0] + self.shape[0]), slice(corner[1], corner[1] + self.shape[1])


def _turned(arrays: dict[str, NDArray[Any]], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Flip all arrays alike, and turn them by quarters if they are square."""
    flips = tuple(axis for axis in (-2, -1) if rng.random() < 0.5)
    square = arrays["known"].shape[-1] == arrays["known"].shape[-2]
    quarters = int(rng.integers(4)) if square else 0
    return {name: np.rot90(np.flip(array, flips), quarters, (-2, -1)) for name, array in arrays.items()}
