"""What a network of masks in training is worth on held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.networks import Network
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.recipes.figures import MaskCase, write_cases
from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.prediction import PIXEL_MM, MaskModel
from sct_deepspine.recipes.scores import counts_of, measures
from sct_deepspine.recipes.task import MaskTask

__all__ = ["SliceValidation"]

SHOWN = 6
"""Most slices in a picture of the validation."""

MIN_PROBABILITY = 1e-7
"""Of the true class, in the loss: one pixel must not decide."""


class SliceValidation:
    """Score a network on held-out images, whole: patches next to each other, without overlap.

    Calling it returns ``validation_loss``, the mean cross-entropy per pixel; ``f1``, pooled over all pixels
    and averaged over the classes; and ``score``, what a run is judged by: the loss, negative.

    Parameters
    ----------
    samples
        Held-out images.
    task
        What is learned.
    """

    def __init__(self, samples: Sequence[Sample], task: MaskTask) -> None:
        self.samples, self.task = samples, task
        self.targets = [task.codec.encode(sample.mask, sample.name) for sample in samples]

    def __call__(self, network: Network, step: int, folder: Path) -> dict[str, float]:
        """Score a network and write ``validation_STEP.png`` into the folder."""
        codec = self.task.codec
        model = MaskModel(Predictor(TorchRuntime(network), codec, PIXEL_MM), self.task)
        chosen = set(
            np.linspace(0, len(self.samples) - 1, min(SHOWN, len(self.samples))).astype(int).tolist()
        )
        loss, pixels, shown = 0.0, 0, []
        counts = np.zeros((len(codec.values) - 1, 4))
        for index, (sample, target) in enumerate(zip(self.samples, self.targets, strict=True)):
            maps = model.probabilities(sample.image, stride=self.task.patch)
            known = np.ones(target.shape, dtype=bool) if sample.known is None else sample.known
            of_truth = np.take_along_axis(maps, target[None].astype(np.int64), axis=0)[0][known]
            loss -= float(np.log(np.maximum(of_truth, MIN_PROBABILITY)).sum(dtype=np.float64))
            pixels += of_truth.size
            predicted = codec.decide(maps)
            own = np.array(
                [counts_of(target[known] == n, predicted[known] == n) for n in range(1, len(codec.values))]
            )
            counts += own
            if index in chosen:
                shown.append(MaskCase.of(sample, maps, codec, _mean_f1(own)))
        write_cases(shown, folder / f"validation_{step:06d}.png", title=f"step {step}")
        return {
            "score": -loss / max(pixels, 1),
            "validation_loss": loss / max(pixels, 1),
            "f1": _mean_f1(counts),
        }


def _mean_f1(counts: np.ndarray) -> float:
    """Average F1 over the classes that were there or were predicted; 0 if there is none."""
    values = measures(counts)["f1"]
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else 0.0
