"""Which image something was made on: its content, and where its voxels lie in the world."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sct_deepspine.errors import GeometryError, ImageError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.io.sidecar import read_sidecar, recorded_files

__all__ = [
    "SAME_PLACE_MM",
    "ImageIdentity",
    "check_content",
    "file_sha256",
    "grid_difference",
    "recorded_identity",
    "same_box",
]

NOT_HERE = "content is not here; get it first (datalad get, git annex get, or git lfs pull)"

POINTERS, MAX_POINTER_BYTES = (b"annex/objects/", b"https://git-lfs.github.com/spec"), 2000
"""A file of fewer bytes that holds one of these is a pointer of git-annex or Git LFS."""

SAME_PLACE_MM = 0.5
"""Corners of two grids no farther apart than this, in mm, are at one place: headers round."""


def check_content(path: Path) -> None:
    """Refuse a file whose content is elsewhere, as in a dataset of DataLad or git-annex.

    Raises
    ------
    ImageError
        If it is a link to nothing, or a pointer.
    """
    if path.is_symlink() and not path.exists():
        raise ImageError(f"{path} is a link whose {NOT_HERE}")
    with suppress(OSError):
        small = path.stat().st_size < MAX_POINTER_BYTES
        if small and any(words in path.read_bytes() for words in POINTERS):
            raise ImageError(f"{path} stands for an image whose {NOT_HERE}")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises
    ------
    ImageError
        If it can't be read.
    """
    check_content(Path(path))
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise ImageError(f"{path} can't be read ({error.strerror or error})") from error


def grid_difference(one: Grid, other: Grid) -> str:
    """Say how two grids differ, in a few words; empty if they are the same.

    Examples
    --------
    >>> grid_difference(Grid((9, 9, 9), np.eye(4)), Grid((9, 9, 9), np.diag([1, 1, 2, 1.0])))
    'voxels of 1 × 1 × 1 mm and of 1 × 1 × 2 mm'
    """
    if one.shape != other.shape:
        return f"{_times(one.shape)} and {_times(other.shape)} voxels"
    if not np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-3):
        return f"voxels of {_times(one.spacing_mm)} mm and of {_times(other.spacing_mm)} mm"
    offset = other.corners_world() - one.corners_world()
    apart = float(np.linalg.norm(offset, axis=1).max())
    if apart <= SAME_PLACE_MM:
        return ""
    shift = float(np.linalg.norm(offset.mean(axis=0)))
    moved = np.ptp(offset, axis=0).max() <= SAME_PLACE_MM
    return (
        f"origins {shift:.0f} mm apart" if moved else f"orientations that part them by up to {apart:.0f} mm"
    )


def same_box(one: Grid, other: Grid) -> bool:
    """Return whether two grids fill the same place with as many voxels, in whatever orientation."""
    apart = np.linalg.norm(one.corners_world()[:, None] - other.corners_world(), axis=2)
    return sorted(one.shape) == sorted(other.shape) and bool(apart.min(axis=1).max() <= SAME_PLACE_MM)


def _times(numbers: Any) -> str:
    return " × ".join(f"{number:.4g}" for number in numbers)


@dataclass(frozen=True)
class ImageIdentity:
    """Which image something was made on.

    Parameters
    ----------
    sha256
        Of the image file's bytes; empty for an image that is no file.
    grid
        Of its voxels.
    """

    sha256: str
    grid: Grid

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], grid: Grid) -> ImageIdentity:
        """Take the identity of a file whose grid is known."""
        return cls(file_sha256(path), grid)

    def as_dict(self) -> dict[str, Any]:
        """Return the identity in JSON's types."""
        affine = [[round(float(c), 6) for c in row] for row in self.grid.affine]
        return {"sha256": self.sha256, "shape": list(self.grid.shape), "affine": affine}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageIdentity:
        """Read what :meth:`as_dict` returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        shape = tuple(int(n) for n in values["shape"])
        if len(shape) != 3:
            raise ValueError(f"expected three axes, got {len(shape)}")
        return cls(str(values["sha256"]), Grid(shape, np.array(values["affine"], dtype=np.float64)))


def recorded_identity(path: Path) -> ImageIdentity | None:
    """Return which image labels were made on, if the JSON file that was written with them lies beside them.

    Parameters
    ----------
    path
        A label image, table or point list.
    """
    stem = path.name
    for suffix in (".gz", ".nii", ".csv", ".mrk.json"):
        stem = stem.removesuffix(suffix)
    sidecar = path.with_name(f"{stem}.json")
    if path.name in recorded_files(sidecar):
        with suppress(ValueError, KeyError, TypeError, GeometryError):
            return ImageIdentity.from_dict((read_sidecar(sidecar) or {})["source"])
    return None
