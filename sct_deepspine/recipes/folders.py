"""Folders of images and masks: which files belong together, and whom they show."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import DatasetError
from sct_deepspine.recipes.pictures import is_image, read_image, read_mask_picture, stem

__all__ = ["ImagePair", "Sample", "find_cases", "list_images", "read_sample"]

SUBJECTS = "subjects.csv"
BIDS_SUBJECT = re.compile(r"(sub-[0-9A-Za-z]+)(?:_|$)")


@dataclass(frozen=True)
class ImagePair:
    """The files of one image.

    Parameters
    ----------
    name
        Of the files, without suffix.
    subject
        Whom it shows; images of one subject are never split.
    image, mask, fov
        Files; ``fov`` is the mask of the field of view, None if the whole image counts.
    """

    name: str
    subject: str
    image: Path
    mask: Path
    fov: Path | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its truth.

    Parameters
    ----------
    name, subject
        As in :class:`ImagePair`.
    image
        ``(slices, channels, rows, columns)``, in the type of the file.
    mask
        ``(slices, rows, columns)``, whole numbers.
    known
        Where the truth counts, of the same shape; None if it does everywhere.
    """

    name: str
    subject: str
    image: NDArray[Any]
    mask: NDArray[Any]
    known: NDArray[np.bool_] | None = None


def list_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by name, in order of their names.

    Raises
    ------
    DatasetError
        If there is no such folder, or two files share a name.
    """
    if not folder.is_dir():
        raise DatasetError(f"no such folder: {folder}")
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and is_image(path)):
        other = found.setdefault(stem(path), path)
        if other != path:
            raise DatasetError(f"{other} and {path.name} share a name; remove one of them")
    return dict(sorted(found.items()))


def find_cases(folder: Path, *, subject: str | None = None) -> list[ImagePair]:
    """Find the images and masks of a folder, in order of their names.

    Parameters
    ----------
    folder
        Holds ``images/`` and ``masks/`` with files of the same names, perhaps ``fov/`` with masks of the
        field of view, perhaps ``subjects.csv`` with the columns ``name`` and ``subject``.
    subject
        Regular expression whose first group, looked for in the name, is the subject. Without it and
        without ``subjects.csv`` the subject is ``sub-…`` at the start of a name, or else the whole name.

    Raises
    ------
    DatasetError
        If the folder is of another layout, a file has no partner, or a subject is not known.
    """
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise DatasetError(
                f"{folder} has no folder {part}/; images/ and masks/ of the same names are needed"
            )
    images, masks = list_images(folder / "images"), list_images(folder / "masks")
    if not images:
        raise DatasetError(f"{folder / 'images'} holds no image")
    fov = list_images(folder / "fov") if (folder / "fov").is_dir() else None
    _check_partners(folder, "masks", images, masks)
    _check_partners(folder, "images", masks, images)
    if fov is not None:
        _check_partners(folder, "fov", images, fov)
    subjects = _subjects(folder, list(images), subject)
    return [
        ImagePair(name, subjects[name], path, masks[name], fov[name] if fov else None)
        for name, path in images.items()
    ]


def read_sample(case: ImagePair) -> Sample:
    """Read the files of one image.

    Raises
    ------
    ImageError
        If one can't be read.
    DatasetError
        If they are not of one shape.
    """
    image, mask = read_image(case.image), read_mask_picture(case.mask)
    known = None if case.fov is None else read_mask_picture(case.fov) > 0
    for path, array in ((case.mask, mask), (case.fov, known)):
        if array is not None and array.shape != (len(image), *image.shape[2:]):
            raise DatasetError(
                f"{path} is {_size(array.shape)}, its image {_size((len(image), *image.shape[2:]))}"
            )
    if known is not None and not known.any():
        raise DatasetError(f"{case.fov} is empty: no pixel is inside the field of view")
    return Sample(case.name, case.subject, image, mask, known)


def _size(shape: Sequence[int]) -> str:
    return " × ".join(str(n) for n in (shape[1:] if shape[0] == 1 else shape))


def _check_partners(folder: Path, part: str, needed: dict[str, Path], there: dict[str, Path]) -> None:
    alone = [path for name, path in needed.items() if name not in there]
    if alone:
        others = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        raise DatasetError(f"{alone[0]}{others} without a file of the same name in {folder / part}")


def _subjects(folder: Path, names: Sequence[str], rule: str | None) -> dict[str, str]:
    """Return the subject of each image."""
    table = folder / SUBJECTS
    if rule is None:
        if table.is_file():
            return _listed_subjects(table, names)
        found = {name: BIDS_SUBJECT.match(name) for name in names}
        return {name: match.group(1) if match else name for name, match in found.items()}
    if table.is_file():
        raise DatasetError(f"{table} says the subjects already; leave out -subject, or remove the file")
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise DatasetError(f"-subject {rule} is no regular expression ({error})") from error
    if pattern.groups != 1:
        raise DatasetError(f"-subject {rule} needs one group in brackets, the subject")
    subjects = {}
    for name in names:
        match = pattern.search(name)
        if not match or not match.group(1):
            raise DatasetError(f"-subject {rule} finds no subject in the name {name}")
        subjects[name] = match.group(1)
    return subjects


def _listed_subjects(table: Path, names: Sequence[str]) -> dict[str, str]:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            subjects = {row["name"]: row["subject"] for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(
            f"{table} can't be read: the columns name and subject are needed ({error})"
        ) from error
    lost = [name for name in names if not subjects.get(name)]
    if lost:
        raise DatasetError(f"{table} has no subject for {lost[0]}")
    return {name: subjects[name] for name in names}
