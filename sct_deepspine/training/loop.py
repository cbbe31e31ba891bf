"""The training loop: seeded, resumable, with checkpoints that hold tensors and JSON only."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from sct_deepspine.errors import WeightsError
from sct_deepspine.labeling.heatmaps import Codec
from sct_deepspine.models.config import NetworkConfig
from sct_deepspine.models.hourglass import StackedHourglass, build_network, usable_device
from sct_deepspine.training.dataset import PlaneSettings, RandomPlanes, Scan
from sct_deepspine.training.loss import map_loss

__all__ = ["ROLES", "Checkpoint", "Role", "TrainingConfig", "train"]

logger = logging.getLogger(__name__)

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}
AVERAGE_DECAY = 0.998


@dataclass(frozen=True)
class Role:
    """What one of the two networks looks at.

    Parameters
    ----------
    planes
        Its training planes.
    codec
        Its maps.
    stacks
        Hourglasses, unless another number is asked for.
    """

    planes: PlaneSettings
    codec: Codec
    stacks: int


ROLES = {
    "locate": Role(PlaneSettings(tall_share=0.35), Codec(stride=2, first_value=1, levels=26), stacks=2),
    "refine": Role(
        PlaneSettings(shape=(192, 64), pixel_mm=1.0, straight=True, turn_degrees=10.0),
        Codec(stride=2, first_value=1, levels=26, sigma_cells=1.5),
        stacks=1,
    ),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training run depends on, beside the scans.

    Parameters
    ----------
    network
        The network.
    planes
        How training planes are drawn.
    codec
        Layout of the maps.
    optimiser
        ``adamw``, ``adam`` or ``rmsprop``.
    schedule
        ``cosine`` to zero, ``step`` (÷10 at 1/2 and 3/4 of the run, as published) or ``constant``.
    learning_rate
        At the start (after a short warm-up).
    batch
        Planes a step.
    steps
        Steps in all.
    evaluate_every
        Steps between evaluations.
    checkpoint_minutes
        Minutes between checkpoints.
    workers
        Processes that draw planes.
    seed
        Of weights and planes.
    device
        ``cpu``, ``cuda``, …
    sources
        Where scans and first weights came from, as the options of ``sct_deepspine_train`` name them.
    """

    network: NetworkConfig
    planes: PlaneSettings = field(default_factory=PlaneSettings)
    codec: Codec = field(default_factory=lambda: Codec(stride=2))
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
    sources: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}, got {self.optimiser}")
        for name in ("batch", "steps", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.schedule not in ("cosine", "step", "constant"):
            raise ValueError(f"schedule must be cosine, step or constant, got {self.schedule}")

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Read what :meth:`to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["network"] = NetworkConfig(**values["network"])
        values["planes"] = PlaneSettings(**values["planes"] | {"shape": tuple(values["planes"]["shape"])})
        values["codec"] = Codec(**values["codec"])
        return cls(**values)

    def to_json(self) -> str:
        """Write the configuration as JSON."""
        return json.dumps(asdict(self), indent=1)


@dataclass
class Checkpoint:
    """The state of a run: network, running average of its weights, optimiser, step and best score."""

    network: StackedHourglass
    average: StackedHourglass
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: float = -np.inf

    @classmethod
    def start(cls, config: TrainingConfig) -> Checkpoint:
        """Make the state of a run that has not begun."""
        torch.manual_seed(config.seed)
        device = usable_device(config.device)
        network = build_network(config.network).to(device)
        average = build_network(config.network).to(device)
        average.load_state_dict(network.state_dict())
        optimiser = OPTIMISERS[config.optimiser](network.parameters(), lr=config.learning_rate)
        return cls(network, average.requires_grad_(False), optimiser)

    def save(self, path: Path) -> None:
        """Write the state as safetensors, whole or not at all."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
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
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
                self._restore(tensors, file.metadata())
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{path} is no checkpoint of this network and optimiser ({reason})") from error

    def _restore(self, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        for prefix, module in (("network.", self.network), ("average.", self.average)):
            module.load_state_dict(
                {
                    name.removeprefix(prefix): value
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                }
            )
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        self.step, self.best = int(metadata["step"]), float(metadata["best"])

    def start_from(self, initial: StackedHourglass) -> None:
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
        for module in (self.network, self.average):
            module.load_state_dict(initial.state_dict())

    def update_average(self) -> None:
        """Let the average follow the network."""
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            ours, theirs = self.average.state_dict(), self.network.state_dict()
            for name, value in ours.items():
                if value.dtype.is_floating_point:
                    value.lerp_(theirs[name], 1 - decay)
                else:
                    value.copy_(theirs[name])


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step."""
    warm_up = min(1.0, (step + 1) / 200)
    done = step / config.steps
    if config.schedule == "cosine":
        return config.learning_rate * warm_up * (0.5 * (1 + np.cos(np.pi * min(done, 1.0))) + 0.005)
    if config.schedule == "step":
        return config.learning_rate * warm_up * (0.1 ** ((done >= 0.5) + (done >= 0.75)))
    return config.learning_rate * warm_up


def train(
    scans: Sequence[Scan],
    config: TrainingConfig,
    folder: Path,
    *,
    evaluate: Callable[[StackedHourglass, int, Path], dict[str, float]],
    resume: bool = False,
    initial: StackedHourglass | None = None,
) -> Checkpoint:
    """Train a network and keep its last and its best state.

    Parameters
    ----------
    scans
        Scans to train on.
    config
        The run.
    folder
        Receives ``config.json``, ``log.csv``, ``last.safetensors`` (to resume), ``best.safetensors``.
    evaluate
        Takes the averaged network, the step and the folder; returns figures, among them ``score``
        (higher is better).
    resume
        Go on from ``last.safetensors``.
    initial
        Network to start from.

    Raises
    ------
    WeightsError
        If the checkpoint or the initial network is not of this configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.to_json())
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
    saved = time.monotonic()
    losses: list[float] = []
    figures: dict[str, float] = {}
    with tqdm(total=config.steps, initial=state.step, unit="step", mininterval=5) as bar:
        for batch in _batches(scans, config, state.step):
            losses.append(_step(state, batch, config))
            bar.update()
            shown = {"loss": float(np.mean(losses[-50:])), **figures}
            bar.set_postfix_str(", ".join(f"{name} {value:.3g}" for name, value in shown.items()))
            if state.step % config.evaluate_every == 0 or state.step == config.steps:
                figures = evaluate(state.average.eval(), state.step, folder)
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


def _batches(scans: Sequence[Scan], config: TrainingConfig, step: int) -> DataLoader[dict[str, torch.Tensor]]:
    planes = RandomPlanes(
        scans,
        config.codec,
        config.planes,
        length=(config.steps - step) * config.batch,
        seed=config.seed,
        start=step * config.batch,
        batch=config.batch,
    )
    workers = config.workers
    return DataLoader(
        planes,
        batch_size=config.batch,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        drop_last=True,
    )


def _step(state: Checkpoint, batch: dict[str, torch.Tensor], config: TrainingConfig) -> float:
    batch = {name: value.to(config.device) for name, value in batch.items()}
    image = batch["image"].to(memory_format=torch.channels_last)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config, state.step)
    state.network.train()
    with torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16):
        maps = state.network(image)
    loss = map_loss(maps, batch)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    state.step += 1
    state.update_average()
    return loss.item()


def _log(path: Path, row: dict[str, Any]) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
