"""Where scans and their labels lie in a BIDS dataset, a folder, a glob or a list."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from sct_deepspine.errors import ImageError

__all__ = ["DERIVATIVE", "ScanFile", "find_labels", "find_scans", "given_labels", "image_stem", "is_bids"]

IMAGE_SUFFIXES = (".nii.gz", ".nii")
DERIVATIVE = "label-discs_dlabel"
"""What a disc label file's name ends with, as in spine-generic."""

OLD_DERIVATIVE = "labels-disc-manual"
LABEL_ENDINGS = ("dlabel", "dseg", "seg", "mask", "discs", "template", "heatmaps", "attention", "manual")
"""Suffixes of NIfTI files that are no scans."""


@dataclass(frozen=True)
class ScanFile:
    """One scan of a cohort.

    Parameters
    ----------
    path
        The image.
    folder
        Where its results go, relative to the folder of results.
    """

    path: Path
    folder: Path

    @property
    def stem(self) -> str:
        """Name of the file without its suffix."""
        return image_stem(self.path)

    @property
    def name(self) -> str:
        """What it is called in tables and on the page: folder and stem, with slashes on every system."""
        return (self.folder / self.stem).as_posix()

    @property
    def subject(self) -> str:
        """BIDS subject, or the stem where there is none."""
        found = re.match(r"sub-[A-Za-z0-9]+", self.path.name)
        return found.group() if found else self.stem

    @property
    def contrast(self) -> str:
        """Last word of the stem: BIDS' suffix, such as ``T2w``."""
        return self.stem.rsplit("_", 1)[-1]


def image_stem(path: str | Path) -> str:
    """Return the name of an image without its suffix.

    Examples
    --------
    >>> image_stem("data/sub-01_T2w.nii.gz")
    'sub-01_T2w'
    """
    name = Path(path).name
    for suffix in (".gz", ".nii", ".img", ".hdr", ".mgz"):
        name = name.removesuffix(suffix)
    return name


def is_bids(folder: str | Path) -> bool:
    """Tell whether a folder is laid out as a BIDS dataset."""
    return any(Path(folder).glob("sub-*/**/anat/"))


def find_scans(
    source: str | Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    contrasts: Sequence[str] = (),
) -> list[ScanFile]:
    """Find the scans of a cohort.

    Parameters
    ----------
    source
        A BIDS dataset, whose ``sub-*/**/anat`` folders are searched; any other folder, searched with
        those below it; a glob; or a text file with one path a line (relative to that file).
    include, exclude
        Patterns of names, as in a shell; a scan is taken if it matches one of the first (if there are
        any) and none of the second.
    contrasts
        Last words of the names to take, such as ``T2w``; all by default.

    Raises
    ------
    ImageError
        If there is no such place, no scan in it, or two results would bear one name.
    """
    scans = [
        scan
        for scan in _candidates(source)
        if (not include or any(fnmatch(scan.path.name, pattern) for pattern in include))
        and not any(fnmatch(scan.path.name, pattern) for pattern in exclude)
        and (not contrasts or scan.contrast in contrasts)
    ]
    if not scans:
        raise ImageError(f"no scan (.nii, .nii.gz) to label in {source}; are the filters right?")
    taken: dict[Path, Path] = {}
    for scan in scans:
        target = scan.folder / scan.stem
        if taken.setdefault(target, scan.path) != scan.path:
            raise ImageError(f"{taken[target]} and {scan.path} would be labelled under one name ({target})")
    return scans


def _candidates(source: str | Path) -> list[ScanFile]:
    place = Path(source)
    if place.is_dir():
        pattern = "sub-*/**/anat/*" if is_bids(place) else "**/*"
        _check_readable(place)
        found = [path for path in sorted(place.glob(pattern)) if _is_scan(path, place)]
        return [ScanFile(path, path.parent.relative_to(place)) for path in found]
    if place.is_file() and not place.name.endswith(IMAGE_SUFFIXES):
        return [_listed(place.parent / line) for line in _lines(place)]
    found = [Path(name) for name in sorted(glob.glob(str(source), recursive=True))]
    if not found:
        raise ImageError(f"no such folder, list or glob: {source}")
    return [_listed(path) for path in found if _is_scan(path, path.parent)]


def _listed(path: Path) -> ScanFile:
    parts = Path(os.path.abspath(path)).parts  # results never leave their folder by way of ".."
    first = next((n for n, part in enumerate(parts[:-1]) if part.startswith("sub-")), len(parts) - 1)
    return ScanFile(path, Path(*parts[first:-1]))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path} is neither an image nor a list of images ({error})") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _check_readable(place: Path) -> None:
    """Refuse a dataset with a folder that can't be listed: its scans would be missing without a word."""

    def fail(error: OSError) -> None:
        raise ImageError(
            f"{error.filename} can't be read ({error.strerror}); allow it, or give a list of scans"
        )

    for _ in os.walk(place, onerror=fail):
        pass


def _is_scan(path: Path, root: Path) -> bool:
    return (
        path.name.endswith(IMAGE_SUFFIXES)
        and not path.name.startswith(".")
        and "derivatives" not in path.relative_to(root).parts
        and re.split(r"[_-]", image_stem(path))[-1] not in LABEL_ENDINGS
        and path.is_file()
    )


def find_labels(dataset: str | Path) -> list[tuple[ScanFile, Path]]:
    """Find the scans of a BIDS dataset that have disc labels, and the label files.

    Labels are ``derivatives/labels*/**/STEM_label-discs_dlabel.nii.gz`` as in spine-generic, or the older
    ``STEM_labels-disc-manual.nii.gz``.
    """
    labels = {path.name: path for path in sorted(Path(dataset).glob("derivatives/labels*/**/*.nii.gz"))}
    pairs = []
    for scan in _candidates(dataset):
        label = next((labels[name] for name in _label_names(scan) if name in labels), None)
        if label is not None:
            pairs.append((scan, label))
    return pairs


def given_labels(scan: ScanFile) -> Path | None:
    """Return the disc labels that a scan's dataset has for it, named as in :func:`find_labels`, or None."""
    depth = len(scan.folder.parts)
    if depth and scan.path.parent.parts[-depth:] != scan.folder.parts:
        return None
    root = scan.path.parents[depth]
    for folder in sorted(root.glob("derivatives/labels*")):
        for name in _label_names(scan):
            label = folder / scan.folder / name
            if label.is_file():
                return label
    return None


def _label_names(scan: ScanFile) -> tuple[str, str]:
    return f"{scan.stem}_{DERIVATIVE}.nii.gz", f"{scan.stem}_{OLD_DERIVATIVE}.nii.gz"
