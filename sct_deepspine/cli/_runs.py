"""The arguments of every training run, and the configuration that they make."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sct_deepspine.cli._common import Arguments

if TYPE_CHECKING:
    from sct_deepspine.models.config import NetworkConfig
    from sct_deepspine.training.loop import TrainingConfig

__all__ = ["RUN_OPTIONS", "add_run", "lstm_options", "need_torch", "run_config"]

RUN_OPTIONS = {
    *("optimiser", "schedule", "lr", "batch", "steps", "evaluate_every", "checkpoint_minutes"),
    *("workers", "seed", "device", "precision"),
}
"""What :func:`add_run` adds."""


def add_run(parser: Arguments, *, batch: int, steps: int, evaluate_every: int, workers: int) -> None:
    """Add the arguments of a run, with these defaults."""
    add = parser.optional.add_argument
    add("-optimiser", choices=("adamw", "adam", "rmsprop"), default="adamw", help="Default: adamw")
    add(
        "-schedule",
        choices=("cosine", "step", "constant"),
        default="cosine",
        help="Learning rate. Default: cosine",
    )
    add("-lr", type=float, default=1e-3, metavar="RATE", help="Learning rate at the start. Default: 0.001")
    counts = {
        "-batch": (batch, "Batch size"),
        "-steps": (steps, "Steps in all"),
        "-evaluate-every": (evaluate_every, "Steps between evaluations"),
        "-workers": (workers, "Processes that make training data"),
        "-seed": (0, "Seed of everything random"),
    }
    for name, (default, text) in counts.items():
        add(name, type=int, default=default, metavar="N", help=f"{text}. Default: {default}")
    add(
        "-checkpoint-minutes",
        type=float,
        default=4.0,
        metavar="M",
        help="Minutes between checkpoints. Default: 4",
    )
    add("-device", metavar="D", default="cpu", help="cpu, cuda, cuda:1, … Default: cpu")
    add(
        "-precision",
        choices=("auto", "bfloat16", "single"),
        default="auto",
        help="Number format of the networks in training. auto: the faster one on this machine; "
        "config.json says which. Default: auto",
    )


def need_torch(extra: str) -> None:
    """Refuse to train without torch; the message names the extra that brings it.

    Raises
    ------
    DeepSpineError
        If it is not installed.
    """
    from importlib.util import find_spec

    from sct_deepspine.errors import DeepSpineError

    if find_spec("torch") is None or find_spec("safetensors") is None:
        raise DeepSpineError(
            f"training needs torch, which is not installed: pip install 'sct_deepspine[{extra}]'"
        )


def lstm_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options given for the blocks of a BCDU-Net or MCGU-Net; the rest has defaults."""
    asked = {"dense": arguments.dense, "directions": arguments.directions}
    return {name: value for name, value in asked.items() if value is not None}


def run_config(
    arguments: argparse.Namespace,
    network: NetworkConfig,
    *,
    sources: dict[str, Any],
    task: Mapping[str, Any] | None = None,
) -> TrainingConfig:
    """Return the configuration of a run.

    Raises
    ------
    ValueError
        If the numbers make no run.
    """
    from sct_deepspine.training.loop import TrainingConfig

    return TrainingConfig(
        network=network,
        task=task or {},
        learning_rate=arguments.lr,
        sources=sources,
        **{name: getattr(arguments, name) for name in RUN_OPTIONS - {"lr"}},
    )
