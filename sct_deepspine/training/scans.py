"""The scans of a training run: labelled ones, synthetic ones, and which subjects are held out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sct_deepspine.errors import DatasetError, ImageError
from sct_deepspine.io.annotations import LabelledScan, read_scans
from sct_deepspine.simulation.composite import can_compose, fit_tissues, make_composite
from sct_deepspine.simulation.phantom import make_varied_phantom

__all__ = ["ScanSources", "assemble_scans", "split_subjects"]

logger = logging.getLogger(__name__)

VALIDATION_PHANTOMS = 4
"""Validation phantoms where no subject can be held out."""

HELD_OUT = 5
"""One subject in so many is held out where no split is given."""

Maker = Callable[..., LabelledScan]


@dataclass(frozen=True, kw_only=True)
class ScanSources:
    """Where the scans of a run come from.

    Parameters
    ----------
    folder
        Labelled scans, or a labelled BIDS dataset.
    validation
        Validation scans; by default a fifth of the subjects of ``folder``.
    split
        JSON file with the training and validation subjects.
    phantoms, composites
        Number of procedural spines, and of whole spines composed of the scans.
    seed
        Of all that is drawn.
    """

    folder: str | None = None
    validation: str | None = None
    split: str | None = None
    phantoms: int = 0
    composites: int = 0
    seed: int = 0


def assemble_scans(
    sources: ScanSources, *, masks: bool, make_phantom: Maker | None = None, progress: bool = False
) -> tuple[list[LabelledScan], list[LabelledScan]]:
    """Return the training and the validation scans; no subject is in both.

    Parameters
    ----------
    sources
        Where they come from.
    masks
        Whether masks are learned: then only scans with masks are of use, and no composites.
    make_phantom
        Makes a phantom with a generator.
    progress
        Whether to show bars.

    Raises
    ------
    ImageError
        If a scan can't be read, or none has a mask to learn from.
    DatasetError
        If the split can't be used.
    """
    make_phantom = make_phantom or make_varied_phantom
    training = [scan.deobliqued() for scan in read_scans(sources.folder)] if sources.folder else []
    if sources.validation:
        validation = read_scans(sources.validation)
    else:
        chosen, held = split_subjects(sources, sorted({scan.subject for scan in training}))
        validation = [scan for scan in training if scan.subject in held]
        training = [scan for scan in training if scan.subject in chosen]
    if not validation:
        seeds = [(sources.seed, n) for n in range(10**6, 10**6 + VALIDATION_PHANTOMS)]
        validation = [make_phantom(np.random.default_rng(s), spineless_share=0) for s in seeds]
    if masks:
        return _with_masks(training, sources, make_phantom, progress), validation
    return _with_synthetic(training, sources, make_phantom, progress), validation


def _with_masks(
    training: list[LabelledScan], sources: ScanSources, make_phantom: Maker, progress: bool
) -> list[LabelledScan]:
    """Keep scans with masks, and add phantoms.

    What a procedural body lays over a scan is no true mask; and a plane needs a canal to follow.
    """
    masked = [scan for scan in training if scan.has_masks]
    whole = partial(make_phantom, spineless_share=0)
    phantoms = _made(whole, sources.phantoms, "phantoms", sources.seed, progress)
    if not masked + phantoms:
        raise ImageError(f"no scan of {sources.folder} has a mask to learn from (cord_seg, tissue_seg, …)")
    return masked + phantoms


def _with_synthetic(
    training: list[LabelledScan], sources: ScanSources, make_phantom: Maker, progress: bool
) -> list[LabelledScan]:
    """Add phantoms, and whole spines composed of the scans."""
    training = [fit_tissues(scan) if scan.tissue is None else scan for scan in training]
    composites: list[LabelledScan] = []
    if sources.composites and can_compose(training):

        def compose(rng: np.random.Generator) -> LabelledScan:
            return make_composite(rng, training)

        composites = _made(compose, sources.composites, "composite spines", sources.seed, progress)
    elif sources.composites:
        logger.warning("no composite spines: they need scans from C2/C3 to T1/T2 and from T12/L1 to L5/S1")
    phantoms = _made(make_phantom, sources.phantoms, "phantoms", sources.seed, progress)
    return training + phantoms + composites


def _made(make: Maker, count: int, title: str, seed: int, progress: bool) -> list[LabelledScan]:
    numbers = tqdm(range(count), desc=title, disable=None if progress else True)
    return [make(np.random.default_rng((seed, n))) for n in numbers]


def split_subjects(sources: ScanSources, subjects: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the training and the validation subjects: as the split file says, or by the seed.

    Raises
    ------
    DatasetError
        If the file is no split of these subjects.
    """
    if not sources.split:
        order = np.random.default_rng(sources.seed).permutation(subjects)
        held = set(order[: (len(subjects) + HELD_OUT - 1) // HELD_OUT].tolist())
        return set(subjects) - held, held
    try:
        split = json.loads(Path(sources.split).read_text(encoding="utf-8"))
        chosen, held = set(split["train"]), set(split["val"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f'{sources.split} is no split: {{"train": [subjects], "val": [subjects]}} is needed ({error})'
        ) from error
    if chosen & held or not (chosen | held) <= set(subjects) or not held:
        raise DatasetError(
            f"{sources.split} must name subjects of {sources.folder}, each in one set, some for validation"
        )
    return chosen, held
