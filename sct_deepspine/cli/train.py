"""The command ``sct_deepspine_train``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sct_deepspine.cli._common import Arguments, run

if TYPE_CHECKING:
    from sct_deepspine.network import StackedHourglass
    from sct_deepspine.training.dataset import Scan
    from sct_deepspine.training.loop import TrainingConfig

__all__ = ["get_parser", "main"]

DESCRIPTION = """\
Train one of the two networks on a folder of labelled scans (NAME.nii.gz with NAME.json) and on
synthetic spines. "locate" looks at coarse planes of the whole view and tells levels; "refine" looks at
fine planes of the straightened spine and tells where exactly a disc is.

Writes to the folder given by -ofolder: config.json, log.csv, last.safetensors (to go on from),
best.safetensors, validation_STEP.png, convergence.gif, and in the end weights.safetensors with its card,
to be used by sct_deepspine_label -weights.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments("sct_deepspine_train", DESCRIPTION)
    parser.mandatory.add_argument("-i", metavar="FOLDER", help="Folder of labelled scans to train on")
    parser.mandatory.add_argument("-ofolder", metavar="DIR", required=True, help="Folder to write to")
    add = parser.optional.add_argument
    add(
        "-val",
        metavar="FOLDER",
        help="Folder of labelled scans to choose by. Default: a fifth of the subjects of -i",
    )
    add(
        "-role",
        choices=("locate", "refine"),
        default="locate",
        help="Which network to train. Default: locate",
    )
    add(
        "-with",
        dest="other",
        metavar="FILE",
        help="Weights whose other network goes into weights.safetensors",
    )
    add(
        "-config",
        metavar="JSON",
        help="Take the configuration from a config.json instead of the options below",
    )
    add("-resume", type=int, choices=(0, 1), default=0, help="Go on from last.safetensors")
    add("-weights", metavar="FILE", help="Fine-tune: start from the network of this role in a weights file")
    add(
        "-phantoms",
        type=int,
        default=32,
        metavar="N",
        help="Procedural spines to train on as well. Default: 32",
    )
    add(
        "-joined",
        type=int,
        default=24,
        metavar="N",
        help="Whole spines joined of necks and lumbar spines of -i to train on as well. Default: 24",
    )
    add("-attention", type=int, choices=(0, 1), default=1, help="Multi-level attention. Default: 1")
    add("-stacks", type=int, metavar="N", help="Hourglasses. Default: 2 to locate, 1 to refine")
    add("-blocks", type=int, default=1, metavar="N", help="Residual blocks at each position. Default: 1")
    add("-features", type=int, default=64, metavar="N", help="Features. Default: 64")
    add("-depth", type=int, default=4, metavar="N", help="Depth of an hourglass. Default: 4")
    add("-optimiser", choices=("adamw", "adam", "rmsprop"), default="adamw", help="Default: adamw")
    add(
        "-schedule",
        choices=("cosine", "step", "constant"),
        default="cosine",
        help="Learning rate. Default: cosine",
    )
    add("-lr", type=float, default=1e-3, metavar="RATE", help="Learning rate at the start. Default: 0.001")
    add("-batch", type=int, default=12, metavar="N", help="Planes a step. Default: 12")
    add("-steps", type=int, default=7000, metavar="N", help="Steps in all. Default: 7000")
    add("-evaluate-every", type=int, default=300, metavar="N", help="Steps between evaluations. Default: 300")
    add(
        "-checkpoint-minutes",
        type=float,
        default=4.0,
        metavar="M",
        help="Minutes between checkpoints. Default: 4",
    )
    add("-workers", type=int, default=1, metavar="N", help="Processes that make planes. Default: 1")
    add("-seed", type=int, default=0, metavar="N", help="Seed of everything random. Default: 0")
    add("-device", metavar="D", default="cpu", help="cpu, cuda, cuda:1, … Default: cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after one line on stderr."""
    parser = get_parser()
    arguments = parser.parse(argv)
    if not arguments.i and not arguments.phantoms:
        parser.error("nothing to train on: give -i FOLDER, -phantoms N, or both")
    # The small matrices of a plane are no work for several threads, which would take the cores from torch.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return run(_train, arguments)


def _train(arguments: argparse.Namespace) -> int:
    from sct_deepspine.files import make_folder
    from sct_deepspine.training.loop import train
    from sct_deepspine.training.validation import Validation, write_convergence

    config = _config(arguments)
    folder = Path(arguments.ofolder)
    make_folder(folder)
    training, validation = _scans(arguments)
    judge = Validation(validation, config.codec, config.planes)
    train(
        training, config, folder, evaluate=judge, resume=bool(arguments.resume), initial=_initial(arguments)
    )
    write_convergence(folder)
    weights = _export(arguments, config, folder, training, validation)
    if arguments.v:
        print(f"Written: {weights}\nTo use it:\n  sct_deepspine_label -i IMAGE -weights {weights}")
    return 0


def _config(arguments: argparse.Namespace) -> TrainingConfig:
    from sct_deepspine.architecture import NetworkConfig
    from sct_deepspine.errors import DeepSpineError
    from sct_deepspine.training.loop import ROLES, TrainingConfig

    try:
        if arguments.config:
            return TrainingConfig.from_json(Path(arguments.config).read_text(encoding="utf-8"))
        role = ROLES[arguments.role]
        network = NetworkConfig(
            channels=role.codec.channels,
            stacks=arguments.stacks or role.stacks,
            blocks=arguments.blocks,
            width=arguments.features,
            depth=arguments.depth,
            attention=bool(arguments.attention),
        )
        return TrainingConfig(
            network=network,
            planes=role.planes,
            codec=role.codec,
            optimiser=arguments.optimiser,
            schedule=arguments.schedule,
            learning_rate=arguments.lr,
            batch=arguments.batch,
            steps=arguments.steps,
            evaluate_every=arguments.evaluate_every,
            checkpoint_minutes=arguments.checkpoint_minutes,
            workers=arguments.workers,
            seed=arguments.seed,
            device=arguments.device,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeepSpineError(f"the configuration can't be used: {error}") from error


def _initial(arguments: argparse.Namespace) -> StackedHourglass | None:
    """Return the network to start from, if one is given."""
    from sct_deepspine.errors import WeightsError
    from sct_deepspine.runtime_torch import TorchRuntime
    from sct_deepspine.weights import load_weights

    if not arguments.weights:
        return None
    given = load_weights(arguments.weights, device="cpu")
    artist = given.locate if arguments.role == "locate" else given.refine
    if artist is None or not isinstance(artist.runtime, TorchRuntime):
        raise WeightsError(f"{arguments.weights} holds no network to {arguments.role}")
    return artist.runtime.network


def _scans(arguments: argparse.Namespace) -> tuple[list[Scan], list[Scan]]:
    """Return the scans to train on and those to choose by; no subject is in both."""
    import numpy as np
    from tqdm import tqdm

    from sct_deepspine.training.dataset import read_folder
    from sct_deepspine.training.phantom import make_varied_phantom
    from sct_deepspine.training.synthesis import make_joined_scan

    training = read_folder(arguments.i) if arguments.i else []
    if arguments.val:
        validation = read_folder(arguments.val)
    else:
        subjects = sorted({scan.subject for scan in training})
        held = set(np.random.default_rng(arguments.seed).permutation(subjects)[: (len(subjects) + 4) // 5])
        validation = [scan for scan in training if scan.subject in held]
        training = [scan for scan in training if scan.subject not in held]
    seeds = tqdm(range(arguments.phantoms), desc="phantoms", disable=None if arguments.v else True)
    phantoms = [make_varied_phantom(np.random.default_rng((arguments.seed, n))) for n in seeds]
    if not validation:
        held_seeds = range(10**6, 10**6 + 4)
        validation = [
            make_varied_phantom(np.random.default_rng((arguments.seed, n)), spineless_share=0)
            for n in held_seeds
        ]
    seeds = tqdm(range(arguments.joined), desc="joined spines", disable=None if arguments.v else True)
    joined = [make_joined_scan(np.random.default_rng((arguments.seed, n)), training) for n in seeds]
    return training + phantoms + joined, validation


def _export(
    arguments: argparse.Namespace,
    config: TrainingConfig,
    folder: Path,
    training: list[Scan],
    validation: list[Scan],
) -> Path:
    """Write the best network, with the other role's if there is one, and their card."""
    from importlib.util import find_spec

    from sct_deepspine.artist import Artist
    from sct_deepspine.runtime_torch import TorchRuntime
    from sct_deepspine.training.export import save_weights
    from sct_deepspine.training.loop import Checkpoint
    from sct_deepspine.weights import load_weights

    state = Checkpoint.start(config)
    state.load(folder / "best.safetensors")
    artists = {
        arguments.role: Artist(TorchRuntime(state.average.eval()), config.codec, config.planes.pixel_mm)
    }
    card = {"name": folder.name}
    if arguments.other:
        other = load_weights(arguments.other, device="cpu")
        artists = {"locate": other.locate} | ({"refine": other.refine} if other.refine else {}) | artists
        card = {k: v for k, v in other.card.items() if k not in ("format", "sha256", "networks")} | card
    counts = {
        "training": len(training),
        "validation": len(validation),
        "step": state.step,
        "score": state.best,
    }
    path = folder / "weights.safetensors"
    save_weights(path, artists, card | {arguments.role: counts}, onnx=find_spec("onnx") is not None)
    return path
