"""Which subjects a network is trained on, chosen by, and tested on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sct_deepspine.errors import DatasetError
from sct_deepspine.recipes.folders import ImagePair

__all__ = ["PARTS", "SPLIT", "Split", "draw_split", "read_split"]

SPLIT = "split.json"
"""Name of the file in the folder of a run, and in a folder whose split is given with the data."""

PARTS = "train", "val", "test"
TEST_SHARE, VAL_SHARE = 0.2, 0.1
"""As published for the skin lesions: 1815, 259 and 520 of 2594."""


@dataclass(frozen=True)
class Split:
    """Subjects for training, validation and test, each in one part.

    Parameters
    ----------
    train, val, test
        Subjects.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        everyone = [*self.train, *self.val, *self.test]
        twice = sorted({subject for subject in everyone if everyone.count(subject) > 1})
        if twice:
            raise DatasetError(f"the split names the subject {twice[0]} more than once")

    def to_json(self) -> str:
        """Write the split as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def cases(self, cases: Iterable[ImagePair], part: str) -> list[ImagePair]:
        """Return the images of the subjects of a part."""
        subjects = set(getattr(self, part))
        return [case for case in cases if case.subject in subjects]


def draw_split(subjects: Iterable[str], *, seed: int, test: Sequence[str] | None = None) -> Split:
    """Draw a split of subjects: a fifth for test, a tenth for validation, at least one each.

    Parameters
    ----------
    subjects
        All of them; their order does not matter.
    seed
        Of the draw.
    test
        Subjects to test on, if that is settled; a tenth of the others is drawn.

    Raises
    ------
    DatasetError
        If there are too few subjects.
    """
    order = np.random.default_rng(seed).permutation(sorted(set(subjects) - set(test or ()))).tolist()
    if len(order) < (3 if test is None else 2):
        raise DatasetError(
            f"{len(order) + len(test or ())} subjects are too few for a split; three or more are needed"
        )
    count = 0 if test is not None else max(1, round(TEST_SHARE * len(order)))
    val = max(1, round(VAL_SHARE * len(order)))
    drawn = tuple(sorted(order[:count])) if test is None else tuple(test)
    return Split(tuple(sorted(order[count + val :])), tuple(sorted(order[count : count + val])), drawn)


def read_split(path: Path, subjects: Iterable[str], *, seed: int) -> Split:
    """Read a split: subjects of ``train`` and ``test``, and of ``val`` or else a tenth of ``train``, drawn.

    Raises
    ------
    DatasetError
        If it can't be read, names a subject twice, or one that is not there.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: [str(subject) for subject in values.get(part, ())] for part in PARTS}
        missing = [part for part in ("train", "test") if not parts[part]]
        if missing:
            raise ValueError(f"no subject to {missing[0]} on")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        form = '{"train": [subjects], "val": [subjects], "test": [subjects]}'
        raise DatasetError(f"{path} is no split: {form} is needed ({error})") from error
    lost = sorted({subject for part in parts.values() for subject in part} - set(subjects))
    if lost:
        raise DatasetError(f"{path} names the subject {lost[0]}, of whom there is no image")
    if parts["val"]:
        return Split(*(tuple(parts[part]) for part in PARTS))
    Split(tuple(parts["train"]), (), tuple(parts["test"]))
    drawn = draw_split(parts["train"], seed=seed, test=())
    return Split(drawn.train, drawn.val, tuple(parts["test"]))
