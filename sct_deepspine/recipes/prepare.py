"""The three published tasks: from the downloads to a folder of images and masks.

Preparation as published (Azad et al. 2019), without its mistakes: the lung itself is learned, masks keep
their values when resized, the field of view comes from its own files.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import DatasetError, OutputError
from sct_deepspine.io.files import make_folder
from sct_deepspine.recipes.extras import needed
from sct_deepspine.recipes.folders import SUBJECTS, list_images
from sct_deepspine.recipes.pictures import read_image, read_mask_picture
from sct_deepspine.recipes.split import SPLIT

__all__ = ["TASKS", "Prepared", "PublishedTask", "contrast_enhanced", "prepare", "resized", "resized_mask"]

Array = NDArray[Any]

GREY = 0.299, 0.587, 0.114
"""Weights of red, green and blue (ITU-R BT.601)."""

CLAHE_TILES = 8
"""Tiles along each side of the image for the adaptive histogram equalisation, as in the published code."""

CLAHE_CLIP = 2.0
"""OpenCV's clip limit: in mean heights of a histogram of 256 bins."""

GAMMA = 1.2
"""The exponent is its inverse: dark parts become brighter."""

WINDOW_HU = -512.0, 512.0
"""Grey values of CT that are kept."""

SKIN_SIDE = 256
"""Side of the prepared skin images, pixels, as published."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One image ready to be written.

    Parameters
    ----------
    name
        Of its files.
    image
        ``(rows, columns)`` or ``(rows, columns, channels)``: 8-bit, or 16-bit without channels.
    mask
        ``(rows, columns)``.
    fov
        Field of view, of the same shape, or None.
    subject
        Whom it shows, or None if the name says it.
    """

    name: str
    image: Array
    mask: Array
    fov: Array | None = None
    subject: str | None = None


@dataclass(frozen=True)
class PublishedTask:
    """One of the published tasks.

    Parameters
    ----------
    images
        Finds and prepares the images of a download; takes the folder and a side in pixels or None.
    split
        Official split, by names, or None.
    side
        Side of the prepared images; None leaves them as they are.
    resizes
        Whether another side can be asked for.
    """

    images: Callable[[Path, int | None], Iterator[Prepared]]
    split: Callable[[Path], Mapping[str, list[str]]] | None = None
    side: int | None = None
    resizes: bool = True


def prepare(task: PublishedTask, download: Path, folder: Path, *, side: int | None = None) -> int:
    """Write a download as a folder of images and masks, whole or not at all; return the number of images.

    Raises
    ------
    DatasetError
        If the download is of another layout, or incomplete.
    OutputError
        If the folder can't be written, or holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} holds something already; give a new folder")
    images = task.images(download, side or task.side)
    split = task.split(download) if task.split else None
    subjects: dict[str, str] = {}
    count = 0
    with _made_whole(folder) as partial:
        for image in images:
            _write(image, partial)
            if image.subject is not None:
                subjects[image.name] = image.subject
            count += 1
        if not count:
            raise DatasetError(f"{download} holds no image whose mask is not empty")
        if subjects:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([("name", "subject"), *subjects.items()])
            (partial / SUBJECTS).write_text(text.getvalue(), encoding="utf-8")
        if split is not None:
            (partial / SPLIT).write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    return count


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the name of ``folder`` when the block ends well."""
    make_folder(folder.parent)
    try:
        partial = Path(tempfile.mkdtemp(prefix=".deepspine-", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"can't write to {folder.parent}: {error.strerror or error}") from error
    try:
        yield partial
        partial.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(image: Prepared, folder: Path) -> None:
    from PIL import Image

    parts = {"images": image.image, "masks": image.mask, "fov": image.fov}
    for part, array in parts.items():
        if array is not None:
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / part / f"{image.name}.png")


# Preparation


def resized(image: Array, side: int) -> Array:
    """Resize an image to a square, linearly, smoothed before it shrinks; its type stays.

    ``image`` is ``(rows, columns)`` or ``(rows, columns, channels)``, of whole numbers.
    """
    transform = needed("skimage.transform")
    shape = (side, side, *image.shape[2:])
    shrinks = image.shape[0] > side or image.shape[1] > side
    scaled = transform.resize(
        image.astype(np.float64), shape, order=1, anti_aliasing=shrinks, preserve_range=True
    )
    limits = np.iinfo(image.dtype)
    return np.rint(scaled).clip(limits.min, limits.max).astype(image.dtype)


def resized_mask(mask: Array, side: int) -> Array:
    """Resize a mask to a square by the nearest pixel: no value comes about that was not there."""
    rows, columns = (((np.arange(side) + 0.5) * size / side).astype(int) for size in mask.shape)
    return mask[np.ix_(rows, columns)]


def contrast_enhanced(image: Array) -> NDArray[np.uint8]:
    """Prepare a fundus image ``(rows, columns, 3)``: grey, full range, CLAHE, gamma.

    The published code standardises all images before each is stretched to its full range, which undoes it.
    """
    exposure = needed("skimage.exposure")
    grey = image[..., :3].astype(np.float64) @ np.array(GREY)
    low, high = grey.min(), grey.max()
    stretched = (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    tile = [max(1, size // CLAHE_TILES) for size in grey.shape]
    equalised = exposure.equalize_adapthist(stretched, tile, clip_limit=CLAHE_CLIP / 256, nbins=256)
    brightened = exposure.adjust_gamma(np.clip(equalised, 0, 1), 1 / GAMMA)
    return np.rint(255 * brightened).astype(np.uint8)


def windowed(hounsfield: Array) -> NDArray[np.uint16]:
    """Clip CT to its window and spread it over 16 bits."""
    low, high = WINDOW_HU
    share = (np.clip(hounsfield.astype(np.float64), low, high) - low) / (high - low)
    return np.rint(share * np.iinfo(np.uint16).max).astype(np.uint16)


# Layouts


def _skin(download: Path, side: int | None) -> Iterator[Prepared]:
    """Read ISIC 2018, task 1."""
    assert side is not None
    images = _listed(download / "ISIC2018_Task1-2_Training_Input", r"(ISIC_\d+)$")
    masks = _listed(download / "ISIC2018_Task1_Training_GroundTruth", r"(ISIC_\d+)_segmentation$")
    for name, (image, mask) in _paired(images, masks):
        picture = np.moveaxis(read_image(image)[0], 0, 2)
        truth = _binary(read_mask_picture(mask)[0])
        yield Prepared(name, resized(picture, side), resized_mask(truth, side))


def _retina(download: Path, side: int | None) -> Iterator[Prepared]:
    """Read DRIVE, both halves."""
    for part in ("training", "test"):
        images = _listed(download / part / "images", rf"(\d+_{part})$")
        masks = _listed(download / part / "1st_manual", r"(\d+)_manual1$", ending=f"_{part}")
        views = _listed(download / part / "mask", rf"(\d+_{part})_mask$")
        for name, (image, mask, view) in _paired(images, masks, views):
            picture = np.moveaxis(read_image(image)[0], 0, 2)
            if picture.shape[2] != 3:
                raise DatasetError(f"{image} is not in colours; the images of DRIVE are")
            truth, inside = (_binary(read_mask_picture(path)[0]) for path in (mask, view))
            yield Prepared(name, contrast_enhanced(picture), truth, inside)


def _retina_split(download: Path) -> Mapping[str, list[str]]:
    """Return the official split: images are trained on or tested on by their folder."""
    parts = {"train": "training", "test": "test"}
    return {
        name: list(_listed(download / part / "images", rf"(\d+_{part})$")) for name, part in parts.items()
    }


def _lung(download: Path, side: int | None) -> Iterator[Prepared]:
    """Read "finding lungs in CT data"; slices whose mask is empty are left out."""
    images = _listed(download / "2d_images", r"(ID_\d+_Z_\d+)$")
    masks = _listed(download / "2d_masks", r"(ID_\d+_Z_\d+)$")
    for name, (image, mask) in _paired(images, masks):
        truth, picture = _binary(read_mask_picture(mask)[0]), read_image(image)[0, 0]
        if not truth.any():
            continue
        grey = windowed(picture)
        if side is not None:
            grey, truth = resized(grey, side), resized_mask(truth, side)
        yield Prepared(name, grey, truth, subject="_".join(name.split("_")[:2]))


def _binary(mask: Array) -> NDArray[np.uint8]:
    return np.where(mask > 0, 255, 0).astype(np.uint8)


def _listed(folder: Path, pattern: str, ending: str = "") -> dict[str, Path]:
    """Return the images of a folder of the download by what their names share.

    Raises
    ------
    DatasetError
        If the folder is not there, or none of its images has such a name.
    """
    if not folder.is_dir():
        raise DatasetError(f"the download is not there or not unpacked: the folder {folder} is expected")
    found = {
        match.group(1) + ending: path
        for stem, path in list_images(folder).items()
        if (match := re.match(pattern, stem))
    }
    if not found:
        raise DatasetError(f"the download is not unpacked: {folder} holds no image named as expected")
    return dict(sorted(found.items()))


def _paired(*parts: Mapping[str, Path]) -> Iterable[tuple[str, tuple[Path, ...]]]:
    """Return the files of each image; all parts must have the same names."""
    names = sorted(set().union(*parts))
    for part in parts:
        lost = [name for name in names if name not in part]
        if lost:
            folder = next(iter(part.values())).parent
            raise DatasetError(
                f"the download is incomplete: {folder} lacks the file of {lost[0]} ({len(lost)} in all)"
            )
    return [(name, tuple(part[name] for part in parts)) for name in names]


TASKS = {
    "skin": PublishedTask(_skin, side=SKIN_SIDE),
    "retina": PublishedTask(_retina, _retina_split, resizes=False),
    "lung": PublishedTask(_lung),
}
"""``skin``: ISIC 2018 task 1; ``retina``: DRIVE; ``lung``: "finding lungs in CT data" of Kaggle."""
