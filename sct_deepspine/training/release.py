"""From a finished run, or from confidences on held-out subjects, to a weights file that can be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sct_deepspine.labeling.calibration import Outcome, fit_calibration
from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.weights import TrainedNetwork, Weights, load_weights
from sct_deepspine.training.export import save_weights
from sct_deepspine.training.loop import Checkpoint, TrainingConfig
from sct_deepspine.training.roles import task_from_dict

__all__ = ["calibrate_weights", "export_run"]

FILE = "weights.safetensors"
"""Name of the weights in the folder of a run."""


def export_run(
    folder: Path, config: TrainingConfig, *, role: str, others: str | None, counts: Mapping[str, int]
) -> Path:
    """Write the best network of a run, with the other roles' if there are any, and their model card.

    Parameters
    ----------
    folder
        Of the run.
    config
        Of the run.
    role
        What the network does.
    others
        Weights file that holds the other networks.
    counts
        Scans that were trained on and chosen by, for the card.

    Raises
    ------
    WeightsError
        If a file can't be used.
    """
    state = Checkpoint.start(config)
    state.load(folder / "best.safetensors")
    task = task_from_dict(config.task)
    networks = {role: TrainedNetwork(TorchRuntime(state.averaged), task.codec_card(), task.pixel_mm)}
    card: dict[str, Any] = {"name": folder.name}
    if others:
        other = load_weights(others, device="cpu")
        networks = {**other.networks, **networks}
        card = _own_card(other) | card
    card[role] = {**counts, "step": state.step, "score": state.best}
    path = folder / FILE
    save_weights(path, networks, card, onnx=find_spec("onnx") is not None)
    return path


def calibrate_weights(weights: str, outcomes: Iterable[Outcome], folder: Path) -> Path:
    """Fit the correction of the confidences, and write the weights with it on their model card.

    Parameters
    ----------
    weights
        Weights file of the labelling.
    outcomes
        Confidences on subjects that its networks were not trained on, and whether they were right.
    folder
        Receives ``weights.safetensors``.

    Raises
    ------
    WeightsError
        If the file can't be used.
    """
    given = load_weights(weights, device="cpu")
    card = _own_card(given)
    card["labeling"] = card["labeling"] | {"calibration": fit_calibration(list(outcomes)).as_card()}
    path = folder / FILE
    save_weights(path, given.networks, card, onnx=find_spec("onnx") is not None)
    return path


def _own_card(weights: Weights) -> dict[str, Any]:
    """Return a model card without what is written anew with each file."""
    card = {k: v for k, v in weights.card.items() if k not in ("format", "sha256", "networks")}
    if "labeling" not in card:  # format 1
        moved = {"decoding": "decoding", "calibration": "calibration", "least_score": "minimum_score"}
        card["labeling"] = {new: card.pop(old) for old, new in moved.items() if old in card}
    return card
