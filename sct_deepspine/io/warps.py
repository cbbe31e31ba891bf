"""Displacement fields of the Spinal Cord Toolbox, read from NIfTI files."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from sct_deepspine.errors import GeometryError, ImageError
from sct_deepspine.geometry.displacement import DisplacementField, WarpedStraightSpace
from sct_deepspine.geometry.grid import Grid

__all__ = ["read_displacement_field", "read_straightening"]

# What nibabel raises at damaged files, cut short or with a wrong header.
UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError, TypeError)


def read_displacement_field(path: str | os.PathLike[str]) -> DisplacementField:
    """Read a field from a NIfTI file of shape ``(X, Y, Z, 1, 3)``.

    Raises
    ------
    ImageError
        If the file is missing or can't be read as NIfTI.
    GeometryError
        If it does not have that shape, or its affine defines no grid.
    """
    try:
        image = nibabel.load(path)
    except FileNotFoundError as error:
        raise ImageError(f"there is no displacement field {path}") from error
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise ImageError(f"{path} is not a NIfTI file; a displacement field must be one")
    shape = image.shape
    if len(shape) != 5 or shape[3:] != (1, 3) or 0 in shape:
        raise GeometryError(f"{path} has shape {shape}; a displacement field has (X, Y, Z, 1, 3)")
    grid = Grid(shape[:3], image.affine)
    try:
        # float32 is what SCT stores; a whole spine in float64 would take gigabytes.
        with np.errstate(over="ignore"):
            vectors = np.asarray(image.dataobj, dtype=np.float32)[:, :, :, 0, :]
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return DisplacementField(grid, vectors)


def read_straightening(folder: str | os.PathLike[str]) -> WarpedStraightSpace:
    """Read what ``sct_straighten_spinalcord`` left in a folder.

    Parameters
    ----------
    folder
        Folder with ``warp_curve2straight.nii.gz`` and ``warp_straight2curve.nii.gz``.

    Raises
    ------
    ImageError
        If one of the files is missing or can't be read.
    GeometryError
        If one is not a displacement field, or they map nothing along the straightened cord.
    """
    curve2straight, straight2curve = (
        read_displacement_field(Path(folder) / f"warp_{name}.nii.gz")
        for name in ("curve2straight", "straight2curve")
    )
    return WarpedStraightSpace.of_sct(curve2straight, straight2curve)


def _unreadable(path: str | os.PathLike[str], error: Exception) -> ImageError:
    reason = " ".join(str(error).split())
    return ImageError(f"can't read the displacement field {path}: {reason}")
