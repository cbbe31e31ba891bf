"""A whole run: train a network of masks on a folder, and score it on the subjects that it never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sct_deepspine.errors import DatasetError, DeepSpineError
from sct_deepspine.io.files import make_folder, write_text
from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.networks import Network, usable_device
from sct_deepspine.models.weights import TrainedNetwork
from sct_deepspine.recipes.dataset import MaskSlices, slices_of
from sct_deepspine.recipes.figures import write_curves
from sct_deepspine.recipes.folders import ImagePair, Sample, find_cases, read_sample
from sct_deepspine.recipes.loss import mask_loss
from sct_deepspine.recipes.prediction import NETWORK, PIXEL_MM
from sct_deepspine.recipes.split import SPLIT, Split, draw_split, read_split
from sct_deepspine.recipes.task import MaskCodec, MaskTask, Standardisation, find_values
from sct_deepspine.recipes.validation import SliceValidation
from sct_deepspine.training.export import save_weights
from sct_deepspine.training.loop import Checkpoint, Loss, TrainingConfig, train
from sct_deepspine.training.validation import write_convergence

__all__ = ["MaskRun", "choose_split", "prepare_run", "train_masks"]


@dataclass(frozen=True, eq=False)
class MaskRun:
    """All that a run needs; nothing has been written yet.

    Parameters
    ----------
    training, validation
        Training and validation images.
    split
        All subjects.
    task
        What is learned.
    """

    training: Sequence[Sample]
    validation: Sequence[Sample]
    split: Split
    task: MaskTask


def choose_split(cases: Sequence[ImagePair], folder: Path, *, given: Path | None, seed: int) -> Split:
    """Return the split that a file gives, or ``split.json`` of the folder, or else one that is drawn.

    Raises
    ------
    DatasetError
        If there is none.
    """
    subjects = [case.subject for case in cases]
    path = given or folder / SPLIT
    return (
        read_split(path, subjects, seed=seed) if given or path.is_file() else draw_split(subjects, seed=seed)
    )


def prepare_run(
    folder: Path,
    *,
    split: Path | None = None,
    subject: str | None = None,
    standardise: str = "training",
    patch: int | None = None,
    augment: bool = False,
    seed: int = 0,
) -> MaskRun:
    """Read a folder of images and masks and settle what is learned of it.

    Parameters
    ----------
    folder, subject
        As :func:`~sct_deepspine.recipes.folders.find_cases` takes them.
    split
        A file with the split.
    standardise, patch, augment
        Of the task.
    seed
        Of the split.

    Raises
    ------
    DeepSpineError
        If the folder can't be used.
    """
    cases = find_cases(folder, subject=subject)
    parts = choose_split(cases, folder, given=split, seed=seed)
    training = [
        read_sample(case) for case in tqdm(parts.cases(cases, "train"), "reading", unit="image", disable=None)
    ]
    validation = [read_sample(case) for case in parts.cases(cases, "val")]
    channels = training[0].image.shape[1]
    for sample in (*training, *validation):
        if sample.image.shape[1] != channels:
            raise DatasetError(
                f"{sample.name} has {sample.image.shape[1]} channels, {training[0].name} {channels}; "
                "save all images in colours, or all in grey"
            )
    try:
        task = MaskTask(
            MaskCodec(find_values(training)),
            Standardisation.fit(standardise, training),
            channels,
            patch,
            augment,
            subject,
        )
    except ValueError as error:
        raise error if isinstance(error, DeepSpineError) else DatasetError(str(error)) from error
    return MaskRun(training, validation, parts, task)


def train_masks(
    run: MaskRun,
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = False,
    initial: Network | None = None,
    loss: Loss = mask_loss,
) -> Path:
    """Train a network and write all that is left of the run.

    Parameters
    ----------
    run
        What it is trained on.
    config
        How, and which network.
    folder
        Receives ``config.json``, ``split.json``, ``log.csv``, ``last.safetensors``, ``best.safetensors``,
        ``validation_STEP.png``, ``convergence.gif`` and ``.png``, and the weights with their model card.
    resume
        Go on from ``last.safetensors`` if it is there.
    initial
        Start from these weights.
    loss
        What is made small.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    DeepSpineError
        If something can't be written, or what is to be resumed was trained on other data.
    """
    config = replace(config, task=run.task.as_dict())
    slices = slices_of(run.training, run.task)
    evaluate = SliceValidation(run.validation, run.task)
    if resume:
        _check_resumed(folder, config, run.split)
    usable_device(config.device)
    make_folder(folder)
    write_text(folder / SPLIT, run.split.to_json())

    def items(start: int, length: int) -> MaskSlices:
        return MaskSlices(slices, run.task, seed=config.seed, start=start, length=length)

    train(items, config, folder, loss=loss, evaluate=evaluate, resume=resume, initial=initial)
    write_convergence(folder)
    write_curves(folder / "log.csv", folder / "convergence.png")
    return _export(run, config, folder)


def _check_resumed(folder: Path, config: TrainingConfig, split: Split) -> None:
    """Refuse to go on with other data: subjects to test on would have been trained on."""
    if not (folder / "last.safetensors").is_file():
        return
    try:
        before = TrainingConfig.from_json((folder / "config.json").read_text(encoding="utf-8"))
        same = (before.task, before.seed, before.batch) == (
            json.loads(json.dumps(config.task)),
            config.seed,
            config.batch,
        )
        same = same and (folder / SPLIT).read_text(encoding="utf-8") == split.to_json()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"the run in {folder} can't be resumed ({error})") from error
    if not same:
        raise DatasetError(
            f"the run in {folder} was begun with other images, split, seed, batch, patches, standardisation "
            "or augmentation; resume it with the same, or begin anew in another folder"
        )


def _export(run: MaskRun, config: TrainingConfig, folder: Path) -> Path:
    """Write the best network and its model card."""
    state = Checkpoint.start(config)
    state.load(folder / "best.safetensors")
    codec: dict[str, Any] = {"kind": "masks", "values": list(run.task.codec.values)}
    network = TrainedNetwork(TorchRuntime(state.averaged), codec, PIXEL_MM)
    counts = {
        "task": dict(config.task),
        "training_images": len(run.training),
        "validation_images": len(run.validation),
        "step": state.step,
        "validation_loss": -state.best,
    }
    path = folder / "weights.safetensors"
    save_weights(
        path, {NETWORK: network}, {"name": folder.name, NETWORK: counts}, onnx=find_spec("onnx") is not None
    )
    return path
