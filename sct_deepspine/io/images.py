"""One in-memory volume, whatever kind of image came in."""

from __future__ import annotations

import gzip
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.errors import GeometryError, ImageError, OutputError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.files import written_whole
from sct_deepspine.io.identity import check_content, grid_difference

__all__ = [
    "ImageLike",
    "image_file",
    "image_like",
    "is_sct_image",
    "lacks_orientation",
    "other_geometry",
    "read_mask",
    "read_one_volume",
    "read_volume",
    "save_like",
]


class SctImage(Protocol):
    """What is used of SCT's ``Image``."""

    data: Any
    hdr: Any
    absolutepath: str | None

    def copy(self) -> Any:
        """Return a copy."""
        ...

    def save(self, path: str, verbose: int = 1) -> Any:
        """Write the image."""
        ...


ImageLike = (
    str
    | os.PathLike[str]
    | nib.spatialimages.SpatialImage
    | SctImage
    | Volume
    | tuple[NDArray[Any], ArrayLike]
)
"""A path, a nibabel image, an SCT ``Image``, a ``Volume``, or a pair ``(array, affine)``."""


MAX_EXTENT_MM = 2000.0
"""An image that is longer than this along an axis has wrong voxel sizes: no body is."""

MASK_SHARE = 0.35
"""A cord mask fills less of an image than this."""

MAX_VOXELS = 10**9
"""Images of more voxels are refused before they are read: 4 GB in single precision."""

MAX_GREY = 1e30
"""Sums of larger values leave single precision."""

UNITS = "mm", "unknown"
"""Units of length in a header that are read; what is unknown is taken for mm, as SCT takes it."""


def is_sct_image(image: object) -> TypeGuard[SctImage]:
    """Return whether an object is (or behaves as) SCT's ``Image``, without importing SCT."""
    return all(hasattr(image, name) for name in ("data", "hdr", "absolutepath", "getNonZeroCoordinates"))


def read_volume(image: ImageLike) -> Volume:
    """Read one 3-D volume and check that it can be worked on.

    Parameters
    ----------
    image
        Path of a NIfTI file, nibabel image, SCT ``Image``, ``Volume``, or ``(array, affine)``.
        A trailing axis of length one is dropped.

    Raises
    ------
    ImageError
        If there is no such file, it is not an image, or it is not one volume of finite real
        numbers that differ from each other.
    GeometryError
        If the affine is singular or not finite.
    """
    data, affine = _array_and_affine(image)
    data = _one_volume(data)
    grid = _body_sized(Grid(data.shape, affine))
    low, high = float(data.min()), float(data.max())  # NaN if one voxel is
    if not np.isfinite([low, high]).all():
        raise ImageError("the image holds NaN or infinite voxels; replace them (for instance by 0) first")
    peak = max(abs(low), abs(high))
    if peak > MAX_GREY:
        raise ImageError(f"the image holds values of {peak:.2g}; rescale it, or repair its scl_slope")
    if low == high:
        raise ImageError(f"every voxel of the image has the same value ({data.flat[0]:g}); it shows nothing")
    return Volume(data, grid)


def _body_sized(grid: Grid) -> Grid:
    """Refuse an image that no body fills: wrong voxel sizes, which would also take all the memory."""
    lengths = grid.spacing_mm * grid.shape
    if lengths.max() > MAX_EXTENT_MM:
        met = " × ".join(f"{length:.4g}" for length in lengths)
        raise ImageError(f"the image measures {met} mm; are the voxel sizes in the header right (mm)?")
    return grid


def _nifti_header(image: ImageLike) -> nib.Nifti1Header | None:
    if isinstance(image, (str, os.PathLike)):
        with _quiet_nibabel(), suppress(Exception):  # what is wrong with it, reading it says
            return _nifti_header(cast("nib.spatialimages.SpatialImage", nib.load(image)))
        return None
    header = getattr(image, "header", None)
    return header if isinstance(header, nib.Nifti1Header) else None


def lacks_orientation(image: ImageLike) -> bool:
    """Return whether the header of a NIfTI image says nothing of its orientation."""
    header = _nifti_header(image)
    return header is not None and not (int(header["sform_code"]) or int(header["qform_code"]))


def other_geometry(image: ImageLike) -> Grid | None:
    """Return the grid that the header's other transform gives, where qform and sform contradict each other.

    nibabel and SCT use the sform where it is set, and so does this package.
    """
    header = _nifti_header(image)
    if header is None:
        return None
    (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    if not (s_code and q_code) or sform is None or qform is None:
        return None
    with suppress(GeometryError):
        used, other = Grid(header.get_data_shape()[:3], sform), Grid(header.get_data_shape()[:3], qform)
        return other if grid_difference(used, other) else None
    return None


def read_one_volume(image: ImageLike) -> Volume:
    """Read one 3-D volume; of a 4-D image (diffusion, functional, multi-echo) the mean of its volumes.

    Raises
    ------
    ImageError, GeometryError
        As :func:`read_volume`.
    """
    if isinstance(image, Volume):
        return image
    data, affine = _array_and_affine(image)
    if data.ndim == 4 and data.shape[3] > 1 and data.dtype.kind in "biuf":
        return read_volume((np.asarray(np.nanmean(data, axis=3, dtype=np.float32)), affine))
    return read_volume(image)


def read_mask(image: ImageLike) -> Volume:
    """Read a mask: as :func:`read_volume`, voxels above zero count as inside, NaN as outside.

    Raises
    ------
    ImageError
        As :func:`read_volume`, and if no voxel is inside.
    """
    name = f"the mask {image}" if isinstance(image, (str, os.PathLike)) else "the mask"
    try:
        data, affine = _array_and_affine(image)
        data = _one_volume(data) > 0
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    if not data.any():
        raise ImageError(f"{name} is empty; give one with voxels above zero")
    if data.mean() > MASK_SHARE:
        raise ImageError(f"{name} fills {data.mean():.0%} of its image; is it a mask of the cord?")
    return Volume(data, Grid(data.shape, affine))


def image_like(source: ImageLike | None, data: NDArray[Any], grid: Grid) -> Any:
    """Wrap an array on the grid of an image in the same kind of image.

    Parameters
    ----------
    source
        What :func:`read_volume` was given; None if that is not known.
    data
        ``(I, J, K)`` array on its grid.
    grid
        That grid.

    Returns
    -------
    object
        An SCT ``Image`` for an SCT ``Image``, ``(array, affine)`` for ``(array, affine)``, a ``Volume``
        for a ``Volume``, else a nibabel image, with the units, codes and NIfTI version of the source if
        it has them.
    """
    if isinstance(source, Volume):
        return Volume(data, grid)
    if isinstance(source, tuple):
        return data, np.array(grid.affine)
    if is_sct_image(source):
        return _sct_image_like(source, data)
    if isinstance(source, (str, os.PathLike)):
        with _quiet_nibabel():
            header: Any = nib.load(source).header
    else:
        header = getattr(source, "header", None)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, grid.affine, dtype=data.dtype)
    if isinstance(header, nib.Nifti1Header):
        for name in ("sform", "qform"):
            with suppress(HeaderDataError, ValueError):  # an impossible quaternion is not carried over
                affine, code = getattr(header, f"get_{name}")(coded=True)
                getattr(image.header, f"set_{name}")(affine, int(code))
        image.header["pixdim"][1:4] = header["pixdim"][1:4]
        image.header.set_xyzt_units(*header.get_xyzt_units())
    return image


def save_like(source: ImageLike | None, data: NDArray[Any], grid: Grid, path: str | os.PathLike[str]) -> None:
    """Write an array on the grid of an image as NIfTI, whole or not at all; with its codes, if it has any.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    if not str(path).endswith((".nii", ".nii.gz")):
        raise OutputError(f"labels are written as .nii or .nii.gz, not to {path}")
    if source is None or isinstance(source, (tuple, Volume)):
        image: Any = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    else:
        image = image_like(source, data, grid)
    with written_whole(path) as partial:
        if is_sct_image(image):
            image.save(os.fspath(partial), verbose=0)
        else:
            nib.save(image, partial)


def _sct_image_like(source: Any, data: NDArray[Any]) -> Any:
    """Copy an SCT image with other voxels; the source is left as it is.

    The copy's path is another one, so that saving it under its own name can't overwrite the source.
    """
    image = source.copy()
    if source.absolutepath:
        folder, name = os.path.split(source.absolutepath)
        stem, *suffix = name.split(".nii", 1)
        image.absolutepath = os.path.join(folder, f"{stem}_discs.nii{suffix[0] if suffix else '.gz'}")
    image.data = data  # 3-D, whatever trailing axes the source has: SCT reads labels in 3-D only
    image.hdr.set_data_dtype(data.dtype)
    image.hdr["scl_slope"], image.hdr["scl_inter"] = 1, 0
    return image


def image_file(image: ImageLike | None) -> Path | None:
    """Return the file that an image is, or was read from; None if that is not known."""
    if isinstance(image, nib.spatialimages.SpatialImage):
        image = image.get_filename()
    elif image is not None and not isinstance(image, (str, os.PathLike, tuple)) and is_sct_image(image):
        image = image.absolutepath
    return Path(image) if isinstance(image, (str, os.PathLike)) else None


def _array_and_affine(image: ImageLike) -> tuple[NDArray[Any], NDArray[Any]]:
    if isinstance(image, Volume):
        return image.data, image.grid.affine
    if isinstance(image, (str, os.PathLike)):
        return _array_and_affine(_open(Path(image)))
    if isinstance(image, nib.spatialimages.SpatialImage):
        _check_spacing(image.header)
        _check_size(image)
        return _voxels(image), image.affine
    if isinstance(image, tuple) and len(image) == 2:
        return np.asarray(image[0]), np.asarray(image[1], dtype=float)
    if not isinstance(image, tuple) and is_sct_image(image):
        return np.asarray(image.data), image.hdr.get_best_affine()
    raise ImageError(
        f"can't read an image from {type(image).__name__}; "
        "give a path, a nibabel image, an SCT Image, or (array, affine)"
    )


def _open(path: Path) -> nib.spatialimages.SpatialImage:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give an image (dcm2niix makes one of a folder of DICOM files)")
    check_content(path)
    if not path.is_file():
        raise ImageError(f"no such file: {path}")
    with _quiet_nibabel():
        _check_raw_header(path)
    try:
        with _quiet_nibabel():
            image = _unpacked(path) if path.name.endswith(".nii.gz") else nib.load(path)
    except MemoryError as error:
        raise ImageError(f"{path} is too large for the memory") from error
    except Exception as error:  # nibabel raises whatever its readers meet in a broken header
        raise ImageError(f"{path} can't be read as a NIfTI image ({_one_line(error)})") from error
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise ImageError(f"{path} is not a volume; give a NIfTI image")
    return image


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Let nibabel log and warn of nothing in a header: the error names what is wrong, once."""
    log = nib.imageglobals.logger
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        log.setLevel(level)


def _unpacked(path: Path) -> nib.spatialimages.SpatialImage:
    """Read a compressed file to its end, so that its checksum is verified."""
    content = gzip.decompress(path.read_bytes())
    size = content[:4]
    is_second = size in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    image = (nib.Nifti2Image if is_second else nib.Nifti1Image).from_bytes(content)
    image.set_filename(str(path))
    return image


def _voxels(image: nib.spatialimages.SpatialImage) -> NDArray[Any]:
    try:
        return np.asanyarray(image.dataobj)
    except (OSError, EOFError, ArithmeticError, ValueError, TypeError, MemoryError, zlib.error) as error:
        raise ImageError(
            f"the voxels can't be read; the file may be truncated, or its header wrong ({_one_line(error)})"
        ) from error


def _check_raw_header(path: Path) -> None:
    """Check voxel sizes as they are in the file: nibabel mends impossible ones when it loads an image."""
    kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    try:
        with ImageOpener(os.fspath(path)) as file:
            size = file.read(4)
            kind = next(
                (kinds[n] for n in kinds if size in (n.to_bytes(4, "little"), n.to_bytes(4, "big"))), None
            )
            if kind is None:
                return
            file.seek(0)
            header = kind.from_fileobj(file, check=False)
    except (OSError, EOFError, ValueError, zlib.error, HeaderDataError, WrapStructError):
        return  # loading will say what is wrong
    _check_spacing(header)
    _check_layout(path, header)


def _check_layout(path: Path, header: Any) -> None:
    """Check where a header says that the voxels are, and how many there are along each axis."""
    sides = [int(n) for n in header["dim"][1 : 1 + int(np.clip(header["dim"][0], 0, 7))]]
    if any(n < 1 for n in sides):
        raise ImageError(f"the header gives the shape {' × '.join(map(str, sides))}; repair the header")
    if np.prod([float(n) for n in sides]) > MAX_VOXELS:
        raise ImageError(f"the image has {np.prod([float(n) for n in sides]):.2g} voxels; crop it")
    is_single = bytes(header["magic"].tobytes()).startswith(b"n+")
    offset = float(header["vox_offset"])
    if is_single and not header.sizeof_hdr <= offset < 2**40:
        raise ImageError(f"{path}: voxels can't begin at byte {offset:g}; repair the header (vox_offset)")


def _check_size(image: nib.spatialimages.SpatialImage) -> None:
    """Check what the header claims before voxels are read: their number, and the unit of their size."""
    count = float(np.prod([float(n) for n in image.shape]))
    if count > MAX_VOXELS:
        raise ImageError(f"the image has {count:.2g} voxels; crop it, or resample it coarser")
    try:
        units = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else UNITS[0]
    except KeyError as error:
        raise ImageError(f"the header's unit of length has no meaning (code {error}); store mm") from error
    if units not in UNITS:
        raise ImageError(f"the header gives voxel sizes in {units}; store them in mm")


def _check_spacing(header: Any) -> None:
    if "pixdim" not in header:
        return
    axes = int(np.clip(header["dim"][0], 1, 3))
    with np.errstate(invalid="ignore"):  # the bytes of a signalling NaN
        pixdim = np.asarray(header["pixdim"][1 : axes + 1], dtype=float)
    if not np.isfinite(pixdim).all() or (pixdim <= 0).any():
        met = " × ".join(f"{length:g}" for length in pixdim)
        raise ImageError(f"voxel sizes of {met} mm in the header (pixdim); repair the header")


def _one_volume(data: NDArray[Any]) -> NDArray[Any]:
    met = " × ".join(map(str, data.shape)) or "no axes"
    if data.dtype.fields is not None or data.dtype.kind not in "biuf":
        raise ImageError(f"voxels of type {data.dtype}; give an image of real grey values")
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim > 3:
        raise ImageError(f"the image has several volumes ({met}); extract one (fslroi, sct_image -split t)")
    if data.ndim < 3:
        raise ImageError(f"the image has {data.ndim} dimensions ({met}); three are needed")
    if data.size == 0:
        raise ImageError(f"the image has no voxels ({met})")
    # Half and extended precision are not read everywhere; neither holds more of an MRI.
    if data.dtype.kind != "f":
        return data
    with np.errstate(over="ignore"):
        return data.astype({2: np.float32, 16: np.float64}.get(data.itemsize, data.dtype))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
