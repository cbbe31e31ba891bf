"""Images and masks as files: PNG, TIFF, JPEG, BMP, GIF, NPY and NIfTI.

In memory an image is ``(slices, channels, rows, columns)`` and a mask ``(slices, rows, columns)``, in the
type of the file. A picture has one slice; a NIfTI volume is cut along its third axis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import ImageError
from sct_deepspine.io.files import written_whole

__all__ = ["SUFFIXES", "is_image", "output_suffix", "read_image", "read_mask_picture", "stem", "write_mask"]

Array = NDArray[Any]

NIFTI = ".nii", ".nii.gz"
LOSSY = ".jpg", ".jpeg"
SUFFIXES = (".png", ".tif", ".tiff", *LOSSY, ".bmp", ".gif", ".npy", *NIFTI)
MAX_CHANNELS = 4
"""An array of three axes whose last one is no longer is an image with channels."""

LOSSY_CUT = 128
"""JPEG blurs a mask; its two classes, black and white, are separated half-way."""


def is_image(path: Path) -> bool:
    """Return whether, by its name, a file can be read here."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def stem(path: Path) -> str:
    """Return a file's name without its suffix, ``.nii.gz`` included."""
    name = path.name
    ending = next((end for end in sorted(SUFFIXES, key=len)[::-1] if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def output_suffix(path: Path) -> str:
    """Return the suffix of the mask predicted on an image: of its own kind, pictures as PNG."""
    name = path.name.lower()
    return next((end for end in (".nii.gz", ".nii", ".npy") if name.endswith(end)), ".png")


def read_image(path: Path) -> Array:
    """Read an image, ``(slices, channels, rows, columns)``.

    Raises
    ------
    ImageError
        If it can't be read, is of another shape, or holds values that are not finite.
    """
    data = _read(path, mask=False)
    if not np.isfinite(data).all():
        raise ImageError(f"{path} holds values that are not finite numbers")
    return data


def read_mask_picture(path: Path) -> Array:
    """Read a mask of whole numbers, ``(slices, rows, columns)``.

    Raises
    ------
    ImageError
        If it can't be read, has several channels that differ, or holds other than whole numbers.
    """
    data = _read(path, mask=True)
    if (data != data[:, :1]).any():
        raise ImageError(f"{path} is a mask in colours; save one number per pixel, 0 for the background")
    data = data[:, 0]
    if path.name.lower().endswith(LOSSY):
        return np.where(data >= LOSSY_CUT, 255, 0).astype(np.uint8)
    whole = np.rint(data) if data.dtype.kind == "f" else data
    if not np.array_equal(whole, data) or np.abs(whole).max(initial=0) > np.iinfo(np.int32).max:
        raise ImageError(f"{path} is no mask: it holds other than whole numbers")
    return whole.astype(np.int32)


def _read(path: Path, *, mask: bool) -> Array:
    name = path.name.lower()
    if not is_image(path):
        raise ImageError(f"{path} can't be read; known are {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ImageError(f"no such image: {path}")
    if name.endswith(NIFTI):
        return _read_volume(path)
    data = _read_array(path) if name.endswith(".npy") else _read_picture(path, mask=mask)
    if data.ndim == 2:
        return data[None, None]
    if data.ndim == 3 and data.shape[2] <= MAX_CHANNELS:
        return np.moveaxis(data, 2, 0)[None]
    raise ImageError(
        f"{path} has shape {data.shape}; (rows, columns) or (rows, columns, channels) is expected"
    )


def _read_volume(path: Path) -> Array:
    import nibabel as nib

    try:
        volume: Any = nib.load(path)
        data = np.asanyarray(volume.dataobj)
    except Exception as error:  # nibabel raises errors of many kinds for files that are none
        raise ImageError(f"{path} is not a NIfTI image ({' '.join(str(error).split())[:120]})") from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim not in (2, 3) or data.dtype.kind not in "biuf" or not data.size:
        raise ImageError(f"{path} is {data.dtype} of shape {data.shape}; one plane or volume is expected")
    return np.moveaxis(data.reshape(*data.shape[:2], -1), 2, 0)[:, None]


def _read_array(path: Path) -> Array:
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path} is not an array of numpy ({error})") from error
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "biuf" or not data.size:
        raise ImageError(f"{path} holds no array of numbers")
    return data


def _read_picture(path: Path, *, mask: bool) -> Array:
    """Read what Pillow reads; alpha goes. A palette's colours are an image, its indices a mask."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            if path.suffix.lower() != ".gif" and pages > 1:
                raise ImageError(f"{path} holds {pages} pages; save each as a file")
            wanted = {"LA": "L", "La": "L", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "1": "L"}
            wanted |= {} if mask and path.suffix.lower() != ".gif" else {"P": "RGB", "PA": "RGB"}
            return np.asarray(picture.convert(wanted.get(picture.mode, picture.mode)))
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} can't be read as a picture ({error})") from error


def write_mask(mask: Array, path: Path, like: Path) -> None:
    """Write a mask ``(slices, rows, columns)`` of an image, whole or not at all.

    Parameters
    ----------
    mask
        Whole numbers that are not negative.
    path
        Ends as :func:`output_suffix` says.
    like
        The image; a NIfTI mask takes over its grid.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    data = mask.astype(np.uint8 if mask.max(initial=0) < 256 else np.uint16)
    with written_whole(path) as partial:
        if path.name.endswith(NIFTI):
            import nibabel as nib

            image: Any = nib.load(like)
            written = np.moveaxis(data, 0, 2).reshape(image.shape)
            header = image.header.copy()
            header.set_data_dtype(data.dtype)
            header.set_slope_inter(1, 0)
            nib.save(type(image)(written, image.affine, header), partial)
        elif path.name.endswith(".npy"):
            np.save(partial, data[0])
        else:
            from PIL import Image

            Image.fromarray(data[0]).save(partial)
