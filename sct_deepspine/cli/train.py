"""The command ``sct_deepspine_train``."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_deepspine.cli._common import Arguments, run
from sct_deepspine.cli._runs import RUN_OPTIONS, add_run, lstm_options, need_torch, run_config

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.data import Dataset

    from sct_deepspine.io.annotations import LabelledScan
    from sct_deepspine.models.config import NetworkConfig
    from sct_deepspine.models.networks import Network
    from sct_deepspine.training.loop import Batch, TrainingConfig
    from sct_deepspine.training.roles import Task

__all__ = ["get_parser", "main"]

logger = logging.getLogger(__name__)

Maker = Callable[["np.random.Generator"], "LabelledScan"]

SOURCES: dict[str, Any] = {
    "i": None,
    "val": None,
    "split": None,
    "role": "locate",
    "other": None,
    "weights": None,
    "phantoms": 32,
    "composites": 24,
}
"""What a run is made of beside its configuration, and the default of each."""

_OF_HOURGLASS = {"stacks", "blocks", "depth", "attention"}
IDLE = {
    "hourglass": {"dense", "directions"},
    "unet": _OF_HOURGLASS | {"dense", "directions"},
    "bcdunet": _OF_HOURGLASS,
    "mcgunet": _OF_HOURGLASS,
}
"""Options that a kind of network has no use for."""

IN_CONFIG = _OF_HOURGLASS | RUN_OPTIONS | {"network", "dense", "directions", "features"}
"""Options that a configuration file holds."""

DESCRIPTION = """\
Train a network on a folder of labelled scans (NAME.nii.gz with NAME.json) and on synthetic spines.
"canal" finds the canal in very coarse planes across the volume; "locate" finds the discs and their levels
in coarse planes along the canal; "refine" refines their positions in fine planes of the straightened spine;
"segment" segments cord, canal, vertebrae and discs.

Writes to the folder given by -ofolder: config.json, log.csv, last.safetensors (to resume from),
best.safetensors, validation_STEP.png, convergence.gif, and in the end weights.safetensors with its card,
to be used by sct_deepspine_label -weights-discs.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(
        "sct_deepspine_train", DESCRIPTION, "sct_deepspine_train -i labelled_scans -ofolder run -role refine"
    )
    parser.mandatory.add_argument("-ofolder", metavar="DIR", required=True, help="Folder to write to")
    add = parser.optional.add_argument
    add("-i", metavar="FOLDER", help="Folder of labelled scans to train on, or a labelled BIDS dataset")
    add(
        "-val",
        metavar="FOLDER",
        help="Folder of validation scans. Default: a fifth of the subjects of -i",
    )
    add(
        "-split",
        metavar="JSON",
        help='Training and validation subjects of -i: {"train": ["sub-01", …], "val": […]}',
    )
    add(
        "-role",
        choices=("canal", "locate", "refine", "segment"),
        help="Which network to train. Default: locate",
    )
    add(
        "-with",
        dest="other",
        metavar="FILE",
        help="Weights file from which weights.safetensors takes the networks of the other roles",
    )
    add("-resume", type=int, choices=(0, 1), default=0, help="Resume from last.safetensors. Default: 0")
    add(
        "-initial",
        "-weights",
        dest="weights",
        metavar="FILE",
        help="Fine-tune: start from this role's network of a weights file (-weights is the old spelling)",
    )
    add(
        "-phantoms",
        type=int,
        metavar="N",
        help="Procedural spines to train on as well. Default: 32",
    )
    add(
        "-composites",
        type=int,
        metavar="N",
        help="Whole spines composed of cervical and lumbar scans of -i to train on as well. Default: 24",
    )
    add(
        "-config",
        metavar="JSON",
        help="Run a config.json again: it holds all options below and, unless they are given, those above",
    )
    add(
        "-network",
        choices=("hourglass", "unet", "bcdunet", "mcgunet"),
        help="Kind of network. Default: hourglass; unet to segment",
    )
    add(
        "-dense",
        type=int,
        metavar="N",
        help="Densely connected blocks of a BCDU-Net or an MCGU-Net. Default: 3",
    )
    add(
        "-directions",
        type=int,
        choices=(1, 2),
        help="Directions of the convolutional LSTMs of a BCDU-Net or an MCGU-Net. Default: 2",
    )
    add(
        "-attention-module",
        "-attention",
        dest="attention",
        type=int,
        choices=(0, 1),
        default=1,
        help="Build the network with multi-level attention (-attention is the old spelling). Default: 1",
    )
    add("-stacks", type=int, metavar="N", help="Hourglasses. Default: 2 to locate, else 1")
    add("-blocks", type=int, default=1, metavar="N", help="Residual blocks at each position. Default: 1")
    add(
        "-width",
        "-features",
        dest="features",
        type=int,
        metavar="N",
        help="Features, 64 by default and 16 to segment (-features is the old spelling)",
    )
    add("-depth", type=int, default=4, metavar="N", help="Depth of an hourglass. Default: 4")
    add_run(parser, batch=12, steps=7000, evaluate_every=300, workers=1)
    return parser


def main(
    argv: Sequence[str] | None = None, *, make_phantom: Callable[..., LabelledScan] | None = None
) -> int:
    """Run the command, with another maker of phantoms if one is given.

    Returns 0, or 1 after one line on stderr.
    """
    parser = get_parser()
    arguments = parser.parse(argv)
    arguments.make_phantom = make_phantom
    if not arguments.config and not arguments.i and arguments.phantoms == 0:
        parser.error("nothing to train on: give -i FOLDER, -phantoms N, or both")
    if arguments.val and arguments.split:
        parser.error("-val and -split exclude each other")
    # The small matrices of a plane are no work for several threads, which would take the cores from torch.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    given = {name for name, value in vars(arguments).items() if value != parser.parser.get_default(name)}
    for option in sorted(given & IN_CONFIG) if arguments.config else ():
        parser.error(f"-{option.replace('_', '-')} and -config exclude each other: the file says it")
    segments = arguments.role == "segment"
    if segments and arguments.network == "hourglass":
        parser.error("-role segment needs a network of full resolution: unet, bcdunet or mcgunet")
    arguments.network = arguments.network or ("unet" if segments else "hourglass")
    arguments.features = arguments.features or (16 if segments else 64)
    for option in sorted(given & IDLE[arguments.network]):
        parser.error(f"-{option} does nothing with -network {arguments.network}")
    if segments and arguments.composites:
        parser.error("-composites does nothing with -role segment: it trains on true masks and phantoms")
    return run(_train, arguments)


def _train(arguments: argparse.Namespace) -> int:
    need_torch("train")
    from sct_deepspine.io.files import make_folder
    from sct_deepspine.training.loop import train
    from sct_deepspine.training.release import export_run
    from sct_deepspine.training.roles import task_from_dict
    from sct_deepspine.training.validation import write_convergence

    config = _config(arguments)
    task = task_from_dict(config.task)
    folder = Path(arguments.ofolder)
    make_folder(folder)
    initial = _initial(arguments)
    training, validation = _scans(arguments)

    def images(start: int, length: int) -> Dataset[Batch]:
        seeded = {"seed": config.seed, "batch": config.batch}
        return task.training_set(training, start=start, length=length, **seeded)

    train(
        images,
        config,
        folder,
        loss=task.loss,
        evaluate=task.evaluation(validation),
        resume=bool(arguments.resume),
        initial=initial,
    )
    write_convergence(folder)
    weights = export_run(
        folder,
        config,
        role=arguments.role,
        others=arguments.other,
        counts={"training": len(training), "validation": len(validation)},
    )
    if arguments.v:
        print(f"Written: {weights}")
        if arguments.role in ("canal", "refine") and not arguments.other:
            print("It holds no network to locate discs: add one with -with FILE -resume 1")
        else:
            command = "sct_deepspine_segment" if arguments.role == "segment" else "sct_deepspine_label"
            print(f"To use it:\n  {command} -i IMAGE -weights {weights}")
    return 0


def _config(arguments: argparse.Namespace) -> TrainingConfig:
    from sct_deepspine.errors import DeepSpineError
    from sct_deepspine.training.loop import TrainingConfig
    from sct_deepspine.training.roles import ROLES, DiscTask

    try:
        if arguments.config:
            config = TrainingConfig.from_json(Path(arguments.config).read_text(encoding="utf-8"))
            _fill_sources(arguments, config.sources)
            return replace(config, sources=_sources(arguments))
        _fill_sources(arguments, SOURCES)
        role = ROLES[arguments.role]
        network = _network(arguments, role)
        if isinstance(role, DiscTask) and network.stride != role.codec.stride:
            # The same peaks in mm, on maps as fine as the planes.
            sigma = role.codec.sigma_cells * role.codec.stride / network.stride
            role = replace(role, codec=replace(role.codec, stride=network.stride, sigma_cells=sigma))
        return run_config(arguments, network, task=role.as_dict(), sources=_sources(arguments))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeepSpineError(f"the configuration can't be used: {error}") from error


def _network(arguments: argparse.Namespace, role: Task) -> NetworkConfig:
    """Return the configuration of the network that is asked for."""
    from sct_deepspine.models.config import KINDS, HourglassConfig

    shared = {"channels": role.codec.channels, "in_channels": role.in_channels, "width": arguments.features}
    if arguments.network == "hourglass":
        return HourglassConfig(
            **shared,
            stacks=arguments.stacks or getattr(role, "stacks", 1),
            blocks=arguments.blocks,
            depth=arguments.depth,
            attention=bool(arguments.attention),
        )
    return KINDS[arguments.network](**shared, **lstm_options(arguments))


def _fill_sources(arguments: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Take what the command line does not say from another place."""
    for name, default in SOURCES.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, given.get(name, default))


def _sources(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in SOURCES}


def _initial(arguments: argparse.Namespace) -> Network | None:
    """Return the network to start from, if one is given."""
    from sct_deepspine.errors import WeightsError
    from sct_deepspine.models.backends.torch import TorchRuntime
    from sct_deepspine.models.weights import load_weights

    if not arguments.weights:
        return None
    given = load_weights(arguments.weights, device="cpu").networks.get(arguments.role)
    if given is None or not isinstance(given.runtime, TorchRuntime):
        raise WeightsError(f"{arguments.weights} holds no network to {arguments.role}")
    return given.runtime.network


def _scans(arguments: argparse.Namespace) -> tuple[list[LabelledScan], list[LabelledScan]]:
    """Return the training and the validation scans."""
    from sct_deepspine.training.scans import ScanSources, assemble_scans

    if arguments.v:
        print("Reading the scans and making synthetic ones (minutes)", flush=True)
    sources = ScanSources(
        folder=arguments.i,
        validation=arguments.val,
        split=arguments.split,
        phantoms=arguments.phantoms,
        composites=arguments.composites,
        seed=arguments.seed,
    )
    return assemble_scans(
        sources,
        masks=arguments.role == "segment",
        make_phantom=arguments.make_phantom,
        progress=bool(arguments.v),
    )
