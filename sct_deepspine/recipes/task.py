"""What a network of masks learns: its classes, how images are standardised, and whether it sees patches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import DatasetError
from sct_deepspine.recipes.folders import Sample

__all__ = ["MaskCodec", "MaskTask", "Standardisation", "find_values"]

Array = NDArray[Any]

MAX_CLASSES = 32
"""A mask with more values than this was blurred, or is a picture."""

THRESHOLD = 0.5
"""Probability from which a pixel belongs to the one class that is not background."""


@dataclass(frozen=True)
class MaskCodec:
    """What the maps of a network of masks mean: one map for two classes, else one for each.

    Parameters
    ----------
    values
        Values of the classes in mask files, the background first.
    """

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or sorted(set(self.values)) != list(self.values):
            raise ValueError(f"the values of classes must be two or more, ascending, got {self.values}")

    @property
    def stride(self) -> int:
        """Pixels per cell of a map."""
        return 1

    @property
    def channels(self) -> int:
        """Number of raw maps."""
        return 1 if len(self.values) == 2 else len(self.values)

    def encode(self, mask: Array, name: str) -> NDArray[np.uint8]:
        """Turn the values of a mask into indices of classes; ``name`` is for the message.

        Raises
        ------
        DatasetError
            If the mask holds another value.
        """
        other = np.setdiff1d(mask, self.values)
        if len(other):
            raise DatasetError(f"the mask of {name} holds the value {other[0]}; known are {self.values}")
        return np.searchsorted(np.array(self.values), mask).astype(np.uint8)

    def split(self, raw: NDArray[np.floating]) -> NDArray[np.float32]:
        """Turn raw maps into probabilities of all classes, ``(classes, rows, columns)``."""
        logits = np.asarray(raw, dtype=np.float64)
        if len(logits) == 1:  # a sigmoid is the softmax of the map and 0
            logits = np.concatenate([np.zeros_like(logits), logits])
        shifted = np.exp(logits - logits.max(axis=0))
        return (shifted / shifted.sum(axis=0)).astype(np.float32)

    def decide(self, probabilities: Array) -> Array:
        """Return the index of the class of each pixel; axis 0 of the probabilities is that of the classes."""
        if len(self.values) == 2:
            return (probabilities[1] >= THRESHOLD).astype(np.uint8)
        return probabilities.argmax(axis=0).astype(np.uint8)


@dataclass(frozen=True)
class Standardisation:
    """What is made of grey values before a network sees them, in training and in prediction.

    Parameters
    ----------
    kind
        ``training``: mean 0 and deviation 1 over all training images; ``image``: over each image.
    mean, deviation
        Of each channel over the training images; the kind ``image`` does not use them.
    """

    kind: str
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("training", "image"):
            raise ValueError(f"the standardisation must be training or image, got {self.kind}")

    @classmethod
    def fit(cls, kind: str, samples: Iterable[Sample]) -> Standardisation:
        """Compute the constants on training images."""
        if kind == "image":
            return cls(kind)
        sums = [
            (s.image.sum((0, 2, 3), dtype=np.float64), (s.image.astype(np.float64) ** 2).sum((0, 2, 3)))
            for s in samples
        ]
        pixels = sum(s.image[:, 0].size for s in samples)
        mean = np.sum([first for first, _ in sums], axis=0) / pixels
        variance = np.sum([second for _, second in sums], axis=0) / pixels - mean**2
        deviation = np.sqrt(np.maximum(variance, 0))
        return cls(kind, tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist()))

    def constants(self, image: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and deviation of one slice, ``(channels, 1, 1)`` each."""
        if self.kind == "image":
            values = image.astype(np.float64)
            mean, deviation = values.mean(axis=(1, 2)), values.std(axis=(1, 2))
            deviation = np.where(deviation > 0, deviation, 1.0)
        else:
            mean, deviation = np.array(self.mean), np.array(self.deviation)
        return mean[:, None, None].astype(np.float32), deviation[:, None, None].astype(np.float32)

    def __call__(self, image: Array) -> NDArray[np.float32]:
        """Standardise one slice, ``(channels, rows, columns)``."""
        mean, deviation = self.constants(image)
        return (image.astype(np.float32) - mean) / deviation


@dataclass(frozen=True)
class MaskTask:
    """What a network of masks learns.

    Parameters
    ----------
    codec
        Its classes.
    standardisation
        Of its images.
    in_channels
        Channels of its images.
    patch
        Side of the square patches it is trained on and predicts, pixels; None for whole images.
    augment
        Whether training images are flipped and turned.
    subject
        Rule by which subjects are read from names, see :func:`~sct_deepspine.recipes.folders.find_cases`.
    """

    codec: MaskCodec
    standardisation: Standardisation
    in_channels: int = 1
    patch: int | None = None
    augment: bool = False
    subject: str | None = None

    def __post_init__(self) -> None:
        if self.patch is not None and (self.patch < 8 or self.patch % 8):
            raise ValueError(f"the side of a patch must be a multiple of 8, got {self.patch}")

    def as_dict(self) -> dict[str, Any]:
        """Return the task in JSON's types."""
        task = asdict(self)
        task["codec"]["values"] = list(self.codec.values)
        for name in ("mean", "deviation"):
            task["standardisation"][name] = list(task["standardisation"][name])
        return task

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MaskTask:
        """Read what :meth:`as_dict` returned."""
        given = dict(values["standardisation"])
        given |= {name: tuple(map(float, given[name])) for name in ("mean", "deviation")}
        codec = MaskCodec(tuple(map(int, values["codec"]["values"])))
        return cls(**dict(values) | {"codec": codec, "standardisation": Standardisation(**given)})


def find_values(samples: Iterable[Sample]) -> tuple[int, ...]:
    """Return the values that masks hold, ascending.

    Raises
    ------
    DatasetError
        If there is one only, so that nothing can be learned, or a negative one, or too many.
    """
    found: set[int] = set()
    for sample in samples:
        values = np.unique(sample.mask)
        if len(values) > MAX_CLASSES:
            raise DatasetError(
                f"the mask of {sample.name} holds {len(values)} values, a class each; was it resized or "
                "compressed? Save few whole numbers, 0 for the background"
            )
        found.update(values.tolist())
    if len(found) < 2 or min(found) < 0:
        raise DatasetError(
            f"the masks to train on hold the values {sorted(found)}; 0 for the background and at least one "
            "above it are needed"
        )
    if len(found) > MAX_CLASSES:
        raise DatasetError(
            f"the masks to train on hold {len(found)} values; at most {MAX_CLASSES} are possible"
        )
    return tuple(sorted(found))
