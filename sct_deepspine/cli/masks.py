"""The command ``sct_deepspine_masks``: segment any images by the encoder-decoder networks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sct_deepspine.cli._common import Arguments, run
from sct_deepspine.cli._mask_arguments import (
    DESCRIPTION,
    PROGRAM,
    evaluate_parser,
    predict_parser,
    prepare_parser,
    train_parser,
)
from sct_deepspine.cli._runs import lstm_options, need_torch, run_config

if TYPE_CHECKING:
    from sct_deepspine.models.config import NetworkConfig
    from sct_deepspine.models.networks import Network
    from sct_deepspine.recipes.folders import ImagePair
    from sct_deepspine.recipes.prediction import MaskModel
    from sct_deepspine.training.loop import TrainingConfig

__all__ = ["SUBCOMMANDS", "get_parser", "main"]

NO_LSTM = {"unet": {"dense", "directions"}}
"""Options that a kind of network has no use for."""


@dataclass(frozen=True)
class Subcommand:
    """One of the commands: its parser and what it does."""

    parser: Callable[[], Arguments]
    run: Callable[[argparse.Namespace, Arguments], Callable[[argparse.Namespace], int]]


def get_parser() -> Arguments:
    """Return the parser of the first word."""
    parser = Arguments(PROGRAM, DESCRIPTION, f"{PROGRAM} train -h")
    parser.mandatory.add_argument("command", choices=tuple(SUBCOMMANDS), help="Followed by its arguments")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after one line on stderr."""
    import sys

    words = sys.argv[1:] if argv is None else list(argv)
    first = next((n for n, word in enumerate(words) if word in SUBCOMMANDS), len(words) - 1)
    command = SUBCOMMANDS[get_parser().parse(words[: first + 1]).command]
    parser = command.parser()
    arguments = parser.parse(words[first + 1 :])
    return run(command.run(arguments, parser), arguments)


def _train(arguments: argparse.Namespace, parser: Arguments) -> Callable[[argparse.Namespace], int]:
    """Check what the parser can't, and return what runs."""
    for option in sorted(NO_LSTM.get(arguments.network, ())):
        if getattr(arguments, option) is not None:
            parser.error(f"-{option} does nothing with -network {arguments.network}")
    if arguments.encoder and (arguments.network, arguments.width) != ("mcgunet", 64):
        parser.error("-encoder needs -network mcgunet -width 64")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return _run_training


def _run_training(arguments: argparse.Namespace) -> int:
    need_torch("masks")
    from sct_deepspine.recipes.run import prepare_run, train_masks

    folder = Path(arguments.ofolder)
    prepared = prepare_run(
        Path(arguments.i),
        split=Path(arguments.split) if arguments.split else None,
        subject=arguments.subject,
        standardise=arguments.standardise,
        patch=arguments.patch,
        augment=bool(arguments.augment),
        seed=arguments.seed,
    )
    config = _config(arguments, prepared.task.codec.channels, prepared.task.in_channels)
    weights = train_masks(
        prepared, config, folder, resume=bool(arguments.resume), initial=_initial(arguments, config)
    )
    if arguments.v:
        split = prepared.split
        print(
            f"Subjects: {len(split.train)} trained on, {len(split.val)} chosen by, {len(split.test)} to test"
        )
        print(f"Written: {weights}\nTo score it:\n  {PROGRAM} evaluate -i {arguments.i} -weights {weights}")
    return 0


def _config(arguments: argparse.Namespace, channels: int, in_channels: int) -> TrainingConfig:
    from sct_deepspine.errors import DeepSpineError
    from sct_deepspine.models.config import KINDS

    try:
        network: NetworkConfig = KINDS[arguments.network](
            channels=channels, in_channels=in_channels, width=arguments.width, **lstm_options(arguments)
        )
        sources = {name: getattr(arguments, name) for name in ("i", "split", "encoder")}
        return run_config(arguments, network, sources=sources)
    except ValueError as error:
        raise DeepSpineError(f"the options make no run: {error}") from error


def _initial(arguments: argparse.Namespace, config: TrainingConfig) -> Network | None:
    """Return the network to start from, if its encoder is given."""
    if not arguments.encoder:
        return None
    import torch

    from sct_deepspine.models.networks import build_network
    from sct_deepspine.models.pretrained import start_from_vgg16

    torch.manual_seed(config.seed)
    network = build_network(config.network)
    start_from_vgg16(network, Path(arguments.encoder))
    return network


def _evaluate(arguments: argparse.Namespace, parser: Arguments) -> Callable[[argparse.Namespace], int]:
    return _run_evaluation


def _run_evaluation(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sct_deepspine.io.files import make_folder, write_text
    from sct_deepspine.recipes.evaluation import report, score_pairs, scores_csv
    from sct_deepspine.recipes.extras import needed
    from sct_deepspine.recipes.figures import write_best_and_worst
    from sct_deepspine.recipes.scores import summarise

    needed("sklearn.metrics")
    model = _model(arguments)
    cases = _cases(arguments, model)
    each = score_pairs(model, cases, stride=arguments.stride)
    bar = tqdm(each, total=len(cases), unit="image", disable=None if arguments.v else True)
    results = list(bar)
    scores = [score for found, _ in results for score in found]
    if arguments.ofolder:
        folder = Path(arguments.ofolder)
        make_folder(folder)
        write_text(folder / "scores.csv", scores_csv(scores))
        write_best_and_worst([case for _, case in results], folder / "best_and_worst.png")
    print(report(summarise(scores, seed=arguments.seed)))
    return 0


def _model(arguments: argparse.Namespace) -> MaskModel:
    """Load the network, and refuse a stride that it can't take."""
    from sct_deepspine.errors import DeepSpineError
    from sct_deepspine.recipes.prediction import MaskModel

    model = MaskModel.load(arguments.weights, device=arguments.device)
    try:
        model.check_stride(arguments.stride)
    except ValueError as error:
        raise DeepSpineError(f"-stride can't be used: {error}") from error
    return model


def _cases(arguments: argparse.Namespace, model: MaskModel) -> list[ImagePair]:
    """Return the images of the part that is asked for."""
    from sct_deepspine.errors import DatasetError
    from sct_deepspine.recipes.folders import find_cases
    from sct_deepspine.recipes.split import SPLIT, read_split

    cases = find_cases(Path(arguments.i), subject=arguments.subject or model.task.subject)
    if arguments.part == "all":
        return cases
    path = Path(arguments.weights).with_name(SPLIT)
    if not path.is_file():
        raise DatasetError(
            f"there is no {path}, which says who was trained on; -part all scores every image of the folder"
        )
    split = read_split(path, [case.subject for case in cases], seed=0)
    return split.cases(cases, arguments.part)


def _predict(arguments: argparse.Namespace, parser: Arguments) -> Callable[[argparse.Namespace], int]:
    return _run_prediction


def _run_prediction(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sct_deepspine.errors import DatasetError, ImageError, OutputError
    from sct_deepspine.io.files import make_folder
    from sct_deepspine.recipes.folders import list_images
    from sct_deepspine.recipes.pictures import output_suffix, read_image, stem, write_mask

    source, folder = Path(arguments.i), Path(arguments.ofolder)
    if source.is_dir():
        inner = source / "images"
        images = list(list_images(inner if inner.is_dir() else source).values())
    else:
        images = [source]
    if not images:
        raise DatasetError(f"{source} holds no image")
    model = _model(arguments)
    targets = {path: folder / f"{stem(path)}{output_suffix(path)}" for path in images}
    for path, target in targets.items():
        if target.exists() and path.exists() and target.samefile(path):
            raise OutputError(f"the mask of {path} would take its place; give another -ofolder")
    read_image(images[0])
    make_folder(folder)
    for path, target in tqdm(targets.items(), unit="image", disable=None if arguments.v else True):
        try:
            mask = model.predict(read_image(path), stride=arguments.stride)
        except ImageError as error:
            raise ImageError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
        write_mask(mask, target, path)
    if arguments.v:
        print(f"Written: {len(targets)} masks in {folder}")
    return 0


def _prepare(arguments: argparse.Namespace, parser: Arguments) -> Callable[[argparse.Namespace], int]:
    if arguments.size is not None and arguments.task == "retina":
        parser.error("-size does nothing for retina: its images are used as they are")
    if arguments.size is not None and arguments.size < 8:
        parser.error(f"-size must be at least 8, got {arguments.size}")
    return _run_preparation


def _run_preparation(arguments: argparse.Namespace) -> int:
    from sct_deepspine.recipes.extras import needed
    from sct_deepspine.recipes.prepare import TASKS, prepare

    needed("skimage")
    folder = Path(arguments.ofolder)
    count = prepare(TASKS[arguments.task], Path(arguments.folder), folder, side=arguments.size)
    if arguments.v:
        print(f"Written: {count} images and masks in {folder}\nTo train on them:")
        patch = " -patch 64" if arguments.task == "retina" else ""
        print(f"  {PROGRAM} train -i {folder}{patch} -ofolder run_{arguments.task}")
    return 0


SUBCOMMANDS = {
    "prepare": Subcommand(prepare_parser, _prepare),
    "train": Subcommand(train_parser, _train),
    "evaluate": Subcommand(evaluate_parser, _evaluate),
    "predict": Subcommand(predict_parser, _predict),
}
