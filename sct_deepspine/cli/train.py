"""The command ``sct_deepspine_train``."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
    from sct_deepspine.models.weights import Weights
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
"canal" looks at very coarse planes all across the volume and finds the canal; "locate" looks at coarse
planes of the whole view along it and tells levels; "refine" looks at fine planes of the straightened spine
and tells where exactly a disc is; "segment" tells cord, canal, vertebrae and discs apart.

Writes to the folder given by -ofolder: config.json, log.csv, last.safetensors (to resume from),
best.safetensors, validation_STEP.png, convergence.gif, and in the end weights.safetensors with its card,
to be used by sct_deepspine_label -weights.
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
        help="Folder of labelled scans to choose by. Default: a fifth of the subjects of -i",
    )
    add(
        "-split",
        metavar="JSON",
        help='Subjects of -i to train on and to choose by: {"train": ["sub-01", …], "val": […]}',
    )
    add(
        "-role",
        choices=("canal", "locate", "refine", "segment", "calibrate"),
        help="Which network to train, or calibrate: correct the confidences of -weights. Default: locate",
    )
    add(
        "-confidences",
        nargs="+",
        metavar="CSV",
        help="Confidences on held-out subjects, from sct_deepspine_evaluate; for -role calibrate",
    )
    add(
        "-with",
        dest="other",
        metavar="FILE",
        help="Weights whose other network goes into weights.safetensors",
    )
    add("-resume", type=int, choices=(0, 1), default=0, help="Resume from last.safetensors")
    add("-weights", metavar="FILE", help="Fine-tune: start from the network of this role in a weights file")
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
    add("-attention", type=int, choices=(0, 1), default=1, help="Multi-level attention. Default: 1")
    add("-stacks", type=int, metavar="N", help="Hourglasses. Default: 2 to locate, else 1")
    add("-blocks", type=int, default=1, metavar="N", help="Residual blocks at each position. Default: 1")
    add("-features", type=int, metavar="N", help="Features. Default: 64; 16 to segment")
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
    if arguments.confidences and arguments.role != "calibrate":
        parser.error("-confidences does nothing without -role calibrate")
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
    if arguments.role == "calibrate":
        if not arguments.confidences or not arguments.weights:
            parser.error("-role calibrate needs -weights and -confidences")
        return run(_calibrate, arguments)
    return run(_train, arguments)


def _calibrate(arguments: argparse.Namespace) -> int:
    """Fit the correction of the confidences and write the weights with it on their model card."""
    from importlib.util import find_spec

    from sct_deepspine.evaluation.run import read_outcomes
    from sct_deepspine.labeling.calibration import fit_calibration
    from sct_deepspine.models.weights import load_weights
    from sct_deepspine.training.export import save_weights

    outcomes = [outcome for path in arguments.confidences for _, outcome in read_outcomes(path)]
    given = load_weights(arguments.weights, device="cpu")
    card = _own_card(given)
    card["labeling"] = card["labeling"] | {"calibration": fit_calibration(outcomes).as_card()}
    path = Path(arguments.ofolder) / "weights.safetensors"
    save_weights(path, given.networks, card, onnx=find_spec("onnx") is not None)
    if arguments.v:
        print(f"{len(outcomes)} outcomes\nWritten: {path}")
    return 0


def _own_card(weights: Weights) -> dict[str, Any]:
    """Return a model card without what is written anew with each file."""
    card = {k: v for k, v in weights.card.items() if k not in ("format", "sha256", "networks")}
    if "labeling" not in card:  # format 1
        moved = {"decoding": "decoding", "calibration": "calibration", "least_score": "minimum_score"}
        card["labeling"] = {new: card.pop(old) for old, new in moved.items() if old in card}
    return card


def _train(arguments: argparse.Namespace) -> int:
    need_torch("train")
    from sct_deepspine.io.files import make_folder
    from sct_deepspine.training.loop import train
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
    weights = _export(arguments, config, folder, training, validation)
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
    """Return the scans to train on and those to choose by; no subject is in both."""
    import numpy as np
    from tqdm import tqdm

    from sct_deepspine.errors import ImageError
    from sct_deepspine.io.annotations import read_scans
    from sct_deepspine.simulation.composite import can_compose, fit_tissues, make_composite
    from sct_deepspine.simulation.phantom import make_varied_phantom

    def made(
        make: Callable[[np.random.Generator], LabelledScan], count: int, title: str
    ) -> list[LabelledScan]:
        numbers = tqdm(range(count), desc=title, disable=None if arguments.v else True)
        return [make(np.random.default_rng((arguments.seed, n))) for n in numbers]

    if arguments.v:
        print("Reading the scans and making synthetic ones (minutes)", flush=True)
    make_phantom = arguments.make_phantom or make_varied_phantom
    training = [scan.deobliqued() for scan in read_scans(arguments.i)] if arguments.i else []
    if arguments.val:
        validation = read_scans(arguments.val)
    else:
        chosen, held = _split(arguments, sorted({scan.subject for scan in training}))
        validation = [scan for scan in training if scan.subject in held]
        training = [scan for scan in training if scan.subject in chosen]
    if not validation:
        seeds = [(arguments.seed, n) for n in range(10**6, 10**6 + 4)]
        validation = [make_phantom(np.random.default_rng(s), spineless_share=0) for s in seeds]
    if arguments.role == "segment":
        # What a procedural body lays over a scan is no true mask; and a sheet needs a canal to follow.
        masked = [scan for scan in training if scan.has_masks]
        phantoms = made(partial(make_phantom, spineless_share=0), arguments.phantoms, "phantoms")
        if not masked + phantoms:
            raise ImageError(f"no scan of {arguments.i} has a mask to learn from (cord_seg, tissue_seg, …)")
        return masked + phantoms, validation
    training = [fit_tissues(scan) if scan.tissue is None else scan for scan in training]
    composites: list[LabelledScan] = []
    if arguments.composites and can_compose(training):
        composites = made(lambda rng: make_composite(rng, training), arguments.composites, "composite spines")
    elif arguments.composites:
        logger.warning("no composite spines: they need scans from C2/C3 to T1/T2 and from T12/L1 to L5/S1")
    phantoms = made(make_phantom, arguments.phantoms, "phantoms")
    return training + phantoms + composites, validation


def _split(arguments: argparse.Namespace, subjects: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the subjects to train on and those to choose by: as the split file says, or by the seed."""
    import numpy as np

    from sct_deepspine.errors import DeepSpineError

    if not arguments.split:
        order = np.random.default_rng(arguments.seed).permutation(subjects)
        held = set(order[: (len(subjects) + 4) // 5].tolist())
        return set(subjects) - held, held
    try:
        split = json.loads(Path(arguments.split).read_text(encoding="utf-8"))
        chosen, held = set(split["train"]), set(split["val"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeepSpineError(
            f'{arguments.split} is no split: {{"train": [subjects], "val": [subjects]}} is needed ({error})'
        ) from error
    if chosen & held or not (chosen | held) <= set(subjects) or not held:
        raise DeepSpineError(
            f"{arguments.split} must name subjects of {arguments.i}, each in one set, and some to choose by"
        )
    return chosen, held


def _export(
    arguments: argparse.Namespace,
    config: TrainingConfig,
    folder: Path,
    training: list[LabelledScan],
    validation: list[LabelledScan],
) -> Path:
    """Write the best network, with the other role's if there is one, and their model card."""
    from importlib.util import find_spec

    from sct_deepspine.models.backends.torch import TorchRuntime
    from sct_deepspine.models.weights import TrainedNetwork, load_weights
    from sct_deepspine.training.export import save_weights
    from sct_deepspine.training.loop import Checkpoint
    from sct_deepspine.training.roles import task_from_dict

    state = Checkpoint.start(config)
    state.load(folder / "best.safetensors")
    task = task_from_dict(config.task)
    runtime = TorchRuntime(state.averaged)
    networks = {arguments.role: TrainedNetwork(runtime, task.codec_card(), task.pixel_mm)}
    card: dict[str, Any] = {"name": folder.name}
    if arguments.other:
        other = load_weights(arguments.other, device="cpu")
        networks = {**other.networks, **networks}
        card = _own_card(other) | card
    counts = {
        "training": len(training),
        "validation": len(validation),
        "step": state.step,
        "score": state.best,
    }
    path = folder / "weights.safetensors"
    save_weights(path, networks, card | {arguments.role: counts}, onnx=find_spec("onnx") is not None)
    return path
