"""Predicting masks: whole images, or overlapping patches whose probabilities are averaged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import ImageError, WeightsError
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.models.weights import load_weights
from sct_deepspine.recipes.task import MaskCodec, MaskTask

__all__ = ["NETWORK", "PIXEL_MM", "MaskModel"]

Array = NDArray[Any]

NETWORK = "masks"
"""Name of the network in a weights file, and of its part of the model card."""

PIXEL_MM = 1.0
"""The weights format asks for a pixel size; images of a folder have none, and are not resampled."""


@dataclass(frozen=True, eq=False)
class MaskModel:
    """A trained network of masks.

    Parameters
    ----------
    predictor
        Predicts the probabilities of the classes on what the network was trained on.
    task
        What it was trained on.
    card
        Its part of the model card.
    """

    predictor: Predictor[MaskCodec]
    task: MaskTask
    card: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | None = None) -> MaskModel:
        """Load and verify a weights file.

        Raises
        ------
        WeightsError
            If it can't be used, or holds no network of masks.
        DeviceError
            If the device does not exist.
        """
        weights = load_weights(path, device=device)
        if NETWORK not in weights.networks:
            raise WeightsError(f"{path} holds no network of masks; train one with sct_deepspine_masks train")
        try:
            card = weights.card[NETWORK]
            network = weights.networks[NETWORK]
            task = MaskTask.from_dict(card["task"])
            return cls(Predictor(network.runtime, task.codec, network.pixel_mm), task, card)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"the model card of {path} can't be used ({error})") from error

    def predict(self, image: Array, *, stride: int | None = None) -> Array:
        """Return the mask of an image, ``(slices, rows, columns)``, in the values of the training masks."""
        indices = self.task.codec.decide(self.probabilities(image, stride=stride))
        return np.array(self.task.codec.values)[indices]

    def probabilities(self, image: Array, *, stride: int | None = None) -> NDArray[np.float32]:
        """Return the probabilities of the classes, ``(classes, slices, rows, columns)``.

        Parameters
        ----------
        image
            ``(slices, channels, rows, columns)``.
        stride
            Pixels from patch to patch; half a patch by default.

        Raises
        ------
        ImageError
            If the image has another number of channels than the network.
        ValueError
            If the stride is not from 1 to the side of a patch, or there are no patches.
        """
        if image.shape[1] != self.task.in_channels:
            raise ImageError(
                f"the image has {image.shape[1]} channels, the network was trained on {self.task.in_channels}"
            )
        self.check_stride(stride)
        patch = self.task.patch
        planes = (self.task.standardisation(plane) for plane in image)
        if patch is None:
            maps = [self.predictor.predict([plane])[0] for plane in planes]
        else:
            maps = [self._from_patches(plane, patch, stride or patch // 2) for plane in planes]
        return np.stack(maps, axis=1)

    def check_stride(self, stride: int | None) -> None:
        """Raise ValueError for a stride that :meth:`probabilities` can't take."""
        if stride is None:
            return
        if self.task.patch is None:
            raise ValueError("the network was trained on whole images, there is no stride")
        if not 1 <= stride <= self.task.patch:
            raise ValueError(f"it must be from 1 to the side of a patch, {self.task.patch}, got {stride}")

    def _from_patches(self, plane: NDArray[np.float32], patch: int, stride: int) -> NDArray[np.float32]:
        """Average the probabilities of overlapping patches, ``(classes, rows, columns)``."""
        rows, columns = plane.shape[1:]
        plane = np.pad(plane, [(0, 0), (0, max(0, patch - rows)), (0, max(0, patch - columns))])
        total = np.zeros((len(self.task.codec.values), *plane.shape[1:]), dtype=np.float32)
        count = np.zeros(plane.shape[1:], dtype=np.float32)
        lefts = _starts(plane.shape[2], patch, stride)
        for top in _starts(plane.shape[1], patch, stride):
            below = slice(top, top + patch)
            patches = [plane[:, below, left : left + patch] for left in lefts]
            for left, maps in zip(lefts, self.predictor.predict(patches), strict=True):
                total[:, below, left : left + patch] += maps
                count[below, left : left + patch] += 1
        return np.asarray(total / count, dtype=np.float32)[:, :rows, :columns]


def _starts(size: int, patch: int, stride: int) -> list[int]:
    """Return where patches start so that all is covered; the last one ends with the image."""
    return [*range(0, size - patch, stride), size - patch]
