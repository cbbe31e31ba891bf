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
from sct_deepspine.io.sidecar import recorded_files

__all__ = [
    "DERIVATIVE",
    "ScanFile",
    "find_labels",
    "find_scans",
    "given_labels",
    "image_stem",
    "is_bids",
    "unused_labels",
]

IMAGE_SUFFIXES = (".nii.gz", ".nii")
DERIVATIVE = "label-discs_dlabel"
"""What a disc label file's name ends with, as in spine-generic."""

HAND_LABELS = (
    "label-discs_desc-manual_dlabel",
    "space-orig_label-discs_desc-manual_dlabel",
    "labels-disc-manual",
    "label-disc-manual",
    DERIVATIVE,
    "space-orig_label-discs_dlabel",
    "labels-disc",
    "label-disc",
    "labels-manual",
    "labels",
)
"""Ends of names under which datasets and SCT's tools keep disc labels that a person made, best ones first."""

NO_SCANS = (
    *("dlabel", "manual", "labels", "label", "labeled", "levels", "lesion", "rootlets", "pmj", "roi"),
    *("discs", "template", "heatmaps", "attention", "canal", "centerline", "xfm", "warp"),
)
"""Last words of names of NIfTI files that are no scans: masks, labels, and what this package writes."""

NO_SCAN_ENDS = "seg", "mask"
"""The same, as the end of the last word: ``seg``, ``dseg``, ``gmseg``, ``defacemask``."""

WARPS = "warp_", "warp-", "template2anat", "anat2template"
"""First letters of names of displacement fields, and of what a registration to the template leaves."""


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
    def session(self) -> tuple[str, str] | None:
        """BIDS subject and session, all of one person; None for a name without a subject."""
        if not self.path.name.startswith("sub-"):
            return None
        found = re.search(r"_(ses-[A-Za-z0-9]+)", self.path.name)
        return self.subject, found.group(1) if found else ""

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
    """Return whether a folder is laid out as a BIDS dataset."""
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
        Patterns of file names as a shell has them (``*``, ``?``, ``[…]``), not regular expressions; a scan
        is taken if it matches one of the first (if there are any) and none of the second.
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
            raise ImageError(
                f"{taken[target]} and {scan.path} would be labelled under one name ({target}); leave one out "
                "(-exclude), or give the folder above them (-i FOLDER -include PATTERN): its folders keep "
                "the results apart"
            )
    return scans


def _candidates(source: str | Path) -> list[ScanFile]:
    place = Path(source)
    if place.is_dir():
        pattern = "sub-*/**/anat/*" if is_bids(place) else "**/*"
        _check_readable(place)
        found = _scans_of(sorted(place.glob(pattern)), place)
        return [ScanFile(path, path.parent.relative_to(place)) for path in found]
    if place.is_file() and not place.name.endswith(IMAGE_SUFFIXES):
        return [_listed(place.parent / line) for line in _lines(place)]
    named = [Path(name) for name in sorted(glob.glob(str(source), recursive=True))]
    if not named and place.is_symlink():
        named = [place]  # its content is not here, which reading it will say
    if not named:
        raise ImageError(f"no such folder, list or glob: {source}")
    return [_listed(path) for path in _scans_of(named, None)]


def _scans_of(paths: Sequence[Path], root: Path | None) -> list[Path]:
    """Leave out what is no scan: by its name, or since this package wrote it."""
    scans = [path for path in paths if _is_scan(path, root or path.parent)]
    written = {folder: _written_here(folder) for folder in {path.parent for path in scans}}
    return [path for path in scans if path.name not in written[path.parent]]


def _listed(path: Path) -> ScanFile:
    parts = Path(os.path.abspath(path)).parts  # results never leave their folder by way of ".."
    first = next((n for n, part in enumerate(parts[:-1]) if part.startswith("sub-")), len(parts) - 1)
    return ScanFile(path, Path(*parts[first:-1]))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path} is neither an image nor a list of images ({error})") from error
    bare = (line.strip().strip("\"'").strip() for line in lines)
    return [line for line in bare if line and not line.startswith("#")]


def _check_readable(place: Path) -> None:
    """Refuse a dataset with a folder that can't be listed: its scans would be missing without a word."""

    def fail(error: OSError) -> None:
        raise ImageError(
            f"{error.filename} can't be read ({error.strerror}); allow it, or give a list of scans"
        )

    for _ in os.walk(place, onerror=fail):
        pass


def _is_scan(path: Path, root: Path) -> bool:
    """Return whether, by its name, a file is a scan; a link whose content is elsewhere is one, too."""
    *before, last = image_stem(path).lower().split("_")
    last_word = last.split("-")[-1]
    is_variant = bool(before) and last.split("-")[0] in NO_SCANS  # t2_discs-edited
    return (
        path.name.endswith(IMAGE_SUFFIXES)
        and not path.name.startswith((".", *WARPS))
        and "derivatives" not in path.relative_to(root).parts
        and last_word not in NO_SCANS
        and not is_variant
        and not last_word.endswith(NO_SCAN_ENDS)
        and not image_stem(path).endswith(tuple(f"_{end}" for end in HAND_LABELS))
        and not _is_whole_mask(path)
        and (path.is_file() or path.is_symlink())
    )


def _is_whole_mask(path: Path) -> bool:
    """Return whether a file is named as the whole mask of a scan beside it; a scan may be called spine."""
    stem = image_stem(path)
    scan = stem.removesuffix("_spine")
    beside = (path.with_name(f"{scan}{suffix}") for suffix in IMAGE_SUFFIXES)
    return scan != stem and any(other.is_file() or other.is_symlink() for other in beside)


def _written_here(folder: Path) -> frozenset[str]:
    """Return the names of the files in a folder that this package wrote, by its JSON files there."""
    return frozenset(Path(name).name for path in folder.glob("*.json") for name in recorded_files(path))


def find_labels(dataset: str | Path) -> list[tuple[ScanFile, Path]]:
    """Find the scans of a BIDS dataset that have disc labels, and the label files.

    Labels are ``derivatives/labels*/**/STEM_label-discs_dlabel.nii.gz`` as in spine-generic, or one of the
    other names that datasets use (:data:`HAND_LABELS`).
    """
    labels = {path.name: path for path in sorted(Path(dataset).glob("derivatives/labels*/**/*.nii*"))}
    pairs = []
    for scan in _candidates(dataset):
        label = next((labels[name] for name in _label_names(scan) if name in labels), None)
        if label is not None:
            pairs.append((scan, label))
    return pairs


def given_labels(scan: ScanFile) -> Path | None:
    """Return the disc labels that a scan's dataset has for it, named as in :func:`find_labels`, or None."""
    for folder in _label_folders(scan):
        for name in _label_names(scan):
            path = folder / name
            if path.is_file() or path.is_symlink():  # a link to nothing is refused when it is read
                return path
    return None


def unused_labels(scan: ScanFile) -> list[Path]:
    """Return what looks like disc labels of a scan, in its dataset or beside it, and is not used."""
    used = given_labels(scan)
    found = []
    for folder in [*_label_folders(scan), scan.path.parent]:
        beside = sorted(folder.glob(f"{glob.escape(scan.stem)}_*.nii*"))
        labels = [path for path in beside if path != used and _is_called_labels(path, scan)]
        written = _written_here(folder) if labels else frozenset()
        found += [path for path in labels if path.name not in written]
    return found


def _is_called_labels(path: Path, scan: ScanFile) -> bool:
    """Return whether the name of a file of a scan says that it holds disc labels."""
    end = path.name.removeprefix(scan.stem).lower()
    ends = image_stem(path).endswith(tuple(f"_{name}" for name in HAND_LABELS))
    return ends or ("label" in end and "disc" in end)


def _label_folders(scan: ScanFile) -> list[Path]:
    """Return where the dataset of a scan may keep labels of it."""
    depth = len(scan.folder.parts)
    if depth and scan.path.parent.parts[-depth:] != scan.folder.parts:
        return []
    root = scan.path.parents[depth]
    return [
        place
        for folder in sorted(root.glob("derivatives/labels*"))
        for place in (folder / scan.folder, folder)
    ]


def _label_names(scan: ScanFile) -> list[str]:
    stem, contrast = scan.stem, scan.contrast
    base = stem.removesuffix(f"_{contrast}")
    stems = [f"{stem}_{end}" for end in HAND_LABELS]
    # An entity of the labels may stand before the contrast, where BIDS has it.
    stems += [f"{base}_{end}_{contrast}" for end in ("space-orig_label-discs", "label-discs")]
    return [f"{name}{suffix}" for name in stems for suffix in IMAGE_SUFFIXES]
