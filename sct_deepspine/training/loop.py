"""The training loop: seeded, resumable, with checkpoints that hold tensors and JSON only."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sct_deepspine.errors import WeightsError
from sct_deepspine.models.config import NetworkConfig, config_as_dict, config_from_dict
from sct_deepspine.models.networks import Network, build_network, usable_device
from sct_deepspine.training.precision import PRECISIONS, TIMED_IMAGES, choose_precision, computing_in

__all__ = ["Batch", "Checkpoint", "Evaluation", "Loss", "TrainingConfig", "TrainingSet", "train"]

logger = logging.getLogger(__name__)

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}
AVERAGE_DECAY = 0.998
"""Of the running average of the weights, once it has run a while."""

WARM_UP_STEPS = 200
"""Steps over which the learning rate rises to its full value."""

MAX_GRADIENT = 5.0
"""Norm to which the gradient of a step is clipped."""

Batch = dict[str, Tensor]
"""``image``, ``(N, channels, rows, columns)``, and whatever the loss needs."""

Loss = Callable[[list[Tensor], Batch], Tensor]
"""Maps the raw maps of every stage and the batch to a scalar."""

Evaluation = Callable[[Network, int, Path], Mapping[str, float]]
"""Maps the network, the step and the folder of the run to figures; ``score`` is what the run is judged by."""

TrainingSet = Callable[[int, int], "Dataset[Batch]"]
"""Maps the index of the first item and a number to a dataset of that many, the same on every run."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training run depends on, beside its data.

    Parameters
    ----------
    network
        The network.
    task
        What is learned, in JSON's types; the loop only keeps it.
    optimiser
        ``adamw``, ``adam`` or ``rmsprop``.
    schedule
        ``cosine`` to zero, ``step`` (÷10 at 1/2 and 3/4 of the run, as published) or ``constant``.
    learning_rate
        At the start (after a short warm-up).
    batch
        Batch size.
    steps
        Steps in all.
    evaluate_every
        Steps between evaluations.
    checkpoint_minutes
        Minutes between checkpoints.
    workers
        Processes that make the data.
    seed
        Of weights and data.
    device
        ``cpu``, ``cuda``, …
    precision
        ``bfloat16``, ``single``, or ``auto``: the faster one on this machine.
    sources
        Where data and first weights came from, as the options of the command name them.
    """

    network: NetworkConfig
    task: Mapping[str, Any] = field(default_factory=dict)
    optimiser: str = "adamw"
    schedule: str = "cosine"
    learning_rate: float = 1e-3
    batch: int = 12
    steps: int = 8000
    evaluate_every: int = 500
    checkpoint_minutes: float = 4.0
    workers: int = 1
    seed: int = 0
    device: str = "cpu"
    precision: str = "auto"
    sources: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}, got {self.optimiser}")
        for name in ("batch", "steps", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.schedule not in ("cosine", "step", "constant"):
            raise ValueError(f"schedule must be cosine, step or constant, got {self.schedule}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {', '.join(PRECISIONS)}, got {self.precision}")

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Read what :meth:`to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values | {"network": config_from_dict(values["network"])})

    def to_json(self) -> str:
        """Write the configuration as JSON."""
        return json.dumps(asdict(self) | {"network": config_as_dict(self.network)}, indent=1)


def _running_average(average: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
    """Follow the weights, fast at first; counters are copied."""
    if not value.is_floating_point():
        return value
    decay = min(AVERAGE_DECAY, (1 + int(count)) / (10 + int(count)))
    return average.lerp(value, 1 - decay)


@dataclass
class Checkpoint:
    """The state of a run: network, running average of its weights, optimiser, step and best score."""

    network: Network
    average: AveragedModel
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: float = -np.inf

    @classmethod
    def start(cls, config: TrainingConfig) -> Checkpoint:
        """Make the state of a run that has not begun."""
        torch.manual_seed(config.seed)
        network = build_network(config.network).to(usable_device(config.device))
        average = AveragedModel(network, avg_fn=_running_average, use_buffers=True)
        optimiser = OPTIMISERS[config.optimiser](network.parameters(), lr=config.learning_rate)
        return cls(network, average, optimiser)

    @property
    def averaged(self) -> Network:
        """The network with the running average of the weights, in evaluation mode."""
        network = self.average.module.eval()
        assert isinstance(network, Network)
        return network

    def save(self, path: Path) -> None:
        """Write the state as safetensors, whole or not at all."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.module.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        partial = path.with_name(path.name + ".partial")
        metadata = {"step": str(self.step), "best": str(self.best)}
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial, metadata)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Read what :meth:`save` wrote.

        Raises
        ------
        WeightsError
            If the file can't be read or is the state of another network or optimiser.
        """
        try:
            with safe_open(path, framework="pt") as file:
                # Copied, since a file that is still mapped can't be replaced on Windows.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                self._restore(tensors, file.metadata())
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{path} is no checkpoint of this network and optimiser ({reason})") from error

    def _restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        for prefix, module in (("network.", self.network), ("average.", self.average.module)):
            own = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
            module.load_state_dict(own)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        self.step, self.best = int(metadata["step"]), float(metadata["best"])
        self.average.n_averaged.fill_(self.step)

    def start_from(self, initial: Network) -> None:
        """Take over the weights of a trained network.

        Raises
        ------
        WeightsError
            If it is built otherwise.
        """
        if initial.config != self.network.config:
            raise WeightsError(
                f"the network to start from is {initial.config}, the one to train {self.network.config}"
            )
        for module in (self.network, self.average.module):
            module.load_state_dict(initial.state_dict())


def rate_factor(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step as a share of the first one."""
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    done = step / config.steps
    if config.schedule == "cosine":
        return warm_up * float(0.5 * (1 + np.cos(np.pi * min(done, 1.0))) + 0.005)
    if config.schedule == "step":
        return warm_up * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    return warm_up


def train(
    training_set: TrainingSet,
    config: TrainingConfig,
    folder: Path,
    *,
    loss: Loss,
    evaluate: Evaluation,
    resume: bool = False,
    initial: Network | None = None,
) -> Checkpoint:
    """Run a training, or finish one that was interrupted.

    Parameters
    ----------
    training_set
        Makes the data.
    config
        The run.
    folder
        Receives ``config.json``, ``log.csv``, ``last.safetensors`` and ``best.safetensors``.
    loss
        What is made small.
    evaluate
        What is made of the running average of the weights every so many steps.
    resume
        Go on from ``last.safetensors`` if it is there.
    initial
        Start from these weights.

    Returns
    -------
    Checkpoint
        The last state.
    """
    state = Checkpoint.start(config)
    if initial is not None:
        state.start_from(initial)
    last, best = folder / "last.safetensors", folder / "best.safetensors"
    if resume and last.is_file():
        state.load(last)
        logger.info("resumed at step %d", state.step)
    else:
        for stale in (folder / "log.csv", *folder.glob("validation_*.png")):
            stale.unlink(missing_ok=True)
    items = training_set(state.step * config.batch, (config.steps - state.step) * config.batch)
    config = _settled(config, state, items, _precision_before(folder) if resume else None)
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    schedule = _schedule(state, config)
    saved = time.monotonic()
    losses: list[float] = []
    figures: dict[str, float] = {}
    bar = tqdm(total=config.steps, initial=state.step, unit="step", mininterval=5, desc=config.precision)
    with bar:
        for batch in _batches(items, config):
            losses.append(_step(state, batch, config, loss))
            schedule.step()
            bar.update()
            shown = {"loss": float(np.mean(losses[-50:])), **figures}
            bar.set_postfix_str(", ".join(f"{name} {value:.3g}" for name, value in shown.items()))
            if state.step % config.evaluate_every == 0 or state.step == config.steps:
                figures = dict(evaluate(state.averaged, state.step, folder))
                _log(folder / "log.csv", {"step": state.step, "loss": float(np.mean(losses)), **figures})
                losses.clear()
                if figures["score"] >= state.best or not best.is_file():
                    state.best = figures["score"]
                    state.save(best)
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                state.save(last)
                saved = time.monotonic()
    state.save(last)
    return state


def _precision_before(folder: Path) -> str | None:
    """Return the precision of the run that is to be resumed, if there is one and it says so."""
    try:
        precision = json.loads((folder / "config.json").read_text(encoding="utf-8"))["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return precision if precision in PRECISIONS and precision != "auto" else None


def _settled(
    config: TrainingConfig, state: Checkpoint, items: Dataset[Batch], before: str | None
) -> TrainingConfig:
    """Choose the precision if that is left open: that of the first part of a run, else the faster one."""
    if config.precision != "auto":
        return config
    if before or state.step >= config.steps:
        return replace(config, precision=before or "single")
    image = torch.stack([items[index]["image"] for index in range(min(config.batch, TIMED_IMAGES))])
    image = image.to(config.device, memory_format=torch.channels_last)
    return replace(config, precision=choose_precision(state.network, image, config.device))


def _schedule(state: Checkpoint, config: TrainingConfig) -> LambdaLR:
    for group in state.optimiser.param_groups:
        group["initial_lr"] = config.learning_rate
    return LambdaLR(state.optimiser, lambda step: rate_factor(config, step), last_epoch=state.step - 1)


def _batches(items: Dataset[Batch], config: TrainingConfig) -> DataLoader[Batch]:
    workers = config.workers
    return DataLoader(
        items,
        batch_size=config.batch,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        drop_last=True,
    )


def _step(state: Checkpoint, batch: Batch, config: TrainingConfig, loss: Loss) -> float:
    batch = {name: value.to(config.device) for name, value in batch.items()}
    image = batch["image"].to(memory_format=torch.channels_last)
    state.network.train()
    with computing_in(config.precision, config.device):
        maps = state.network(image)
    value = loss(maps, batch)
    state.optimiser.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), MAX_GRADIENT)
    state.optimiser.step()
    state.step += 1
    state.average.update_parameters(state.network)
    return value.item()


def _log(path: Path, row: dict[str, Any]) -> None:
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
