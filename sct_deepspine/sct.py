"""The Spinal Cord Toolbox: its straightening, its registration, its report. The only module that imports it.

SCT's commands change directory, write into the current one, and pick up what an earlier run left there. They
are therefore run as processes of their own, each in an empty folder, with absolute paths.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_deepspine.errors import GeometryError, OutputError, SctError
from sct_deepspine.files import make_folder

# What is heavy is imported where it is used: the commands ask this module for SCT's argument parser.
if TYPE_CHECKING:
    from sct_deepspine.centerline import Centerline
    from sct_deepspine.discs import DiscLabels
    from sct_deepspine.template import LeftOut
    from sct_deepspine.warps import WarpedStraightSpace

__all__ = [
    "Registration",
    "add_qc_entry",
    "argument_parser",
    "centerline_from_sct",
    "read_sct_image",
    "register_to_template",
    "require_sct",
    "sct_is_installed",
    "show_viewer_syntax",
    "straighten",
    "temporary_folder",
]

logger = logging.getLogger(__name__)

OLDEST_MAJOR = 6
BINARIES = (
    "isct_antsRegistration",
    "isct_antsApplyTransforms",
    "isct_antsSliceRegularizedRegistration",
    "isct_ComposeMultiTransform",
)
CONTRASTS = ("t1", "t2", "t2s")
TAIL_LINES = 3


@dataclass(frozen=True)
class Registration:
    """What ``sct_register_to_template`` made.

    Parameters
    ----------
    labels
        The discs it was given.
    left_out
        Those it was not.
    warp_template2anat, warp_anat2template
        The warps.
    template2anat, anat2template
        The template in the image's space, and the image in the template's.
    """

    labels: DiscLabels
    left_out: tuple[LeftOut, ...]
    warp_template2anat: Path
    warp_anat2template: Path
    template2anat: Path
    anat2template: Path


@lru_cache(maxsize=1)
def require_sct() -> str:
    """Return SCT's version.

    Raises
    ------
    SctError
        If it is not installed in this Python, or too old.
    """
    try:
        system = import_module("spinalcordtoolbox.utils.sys")
        version = str(system.__version__)
    except ImportError as error:
        raise SctError(
            "the Spinal Cord Toolbox is not installed in this Python "
            f"({error}); install sct_deepspine in SCT's own environment (docs/sct.md)"
        ) from error
    major = next((int(word) for word in version.replace("git-", "").split(".")[:1] if word.isdigit()), None)
    if major is not None and major < OLDEST_MAJOR:
        raise SctError(f"Spinal Cord Toolbox {version} is too old; {OLDEST_MAJOR}.0 or newer is needed")
    return version


def sct_is_installed() -> bool:
    """Tell whether SCT can be imported, without importing it."""
    return find_spec("spinalcordtoolbox") is not None


def argument_parser(description: str) -> ArgumentParser | None:
    """Return SCT's own argument parser, or None where SCT is not installed."""
    if not sct_is_installed():
        return None
    return import_module("spinalcordtoolbox.utils.shell").SCTArgumentParser(description=description)


def show_viewer_syntax(image: str, labels: str) -> None:
    """Print how to look at labels in the viewers that SCT finds on this machine."""
    shell = import_module("spinalcordtoolbox.utils.shell")
    shell.display_viewer_syntax(
        [image, labels], verbose=1, im_types=["anat", "softseg"], opacities=["", "0.7"]
    )


def read_sct_image(path: str | os.PathLike[str]) -> Any:
    """Read a file as SCT's ``Image``."""
    require_sct()
    return import_module("spinalcordtoolbox.image").Image(os.fspath(path))


def centerline_from_sct(seg: str | os.PathLike[str]) -> Centerline:
    """Return SCT's own centreline of a cord mask.

    Raises
    ------
    GeometryError
        If SCT can't fit one.
    """
    import numpy as np

    from sct_deepspine.centerline import Centerline

    mask = read_sct_image(seg)
    core = import_module("spinalcordtoolbox.centerline.core")
    try:
        _, points, *_ = core.get_centerline(mask, core.ParamCenterline(), verbose=0, space="phys")
    except Exception as error:  # SCT raises what its fitting meets
        raise GeometryError(f"SCT finds no centreline in {seg} ({_one_line(str(error))})") from error
    return Centerline.from_points(np.asarray(points).T)


@contextmanager
def temporary_folder(*, keep: bool = False) -> Iterator[Path]:
    """Give an empty private folder, removed at the end unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="sct-deepspine-"))
    try:
        yield folder
    finally:
        if keep:
            logger.warning("temporary files are kept in %s", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def straighten(
    image: str | os.PathLike[str], seg: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> WarpedStraightSpace:
    """Run ``sct_straighten_spinalcord`` and return the space that its warps define.

    Parameters
    ----------
    image, seg
        Files of the image and of its cord mask.
    folder
        Receives the warps; made if need be.

    Raises
    ------
    SctError
        If SCT is missing or its command fails.
    """
    from sct_deepspine.warps import WarpedStraightSpace

    target = Path(folder).resolve()
    make_folder(target)
    _run("sct_straighten_spinalcord", ["-i", _absolute(image), "-s", _absolute(seg), "-ofolder", str(target)])
    return WarpedStraightSpace.from_sct_folder(target)


def register_to_template(
    image: str | os.PathLike[str],
    seg: str | os.PathLike[str],
    discs: DiscLabels,
    *,
    contrast: str,
    folder: str | os.PathLike[str],
    template: str | os.PathLike[str] | None = None,
    param: str | None = None,
    count: int | None = None,
    keep_temporary: bool = False,
) -> Registration:
    """Run ``sct_register_to_template -ldisc`` with the discs that it can take.

    Parameters
    ----------
    image, seg
        Files of the image and of its cord mask.
    discs
        The discs found in the image.
    contrast
        Of the template to register to: ``t1``, ``t2`` or ``t2s``.
    folder
        Receives the warps; made if need be.
    template
        Folder of the template; SCT's PAM50 by default.
    param
        Registration steps, as ``sct_register_to_template -param`` takes them.
    count
        As in :func:`sct_deepspine.template.template_labels`.
    keep_temporary
        Whether SCT leaves its temporary folder where it is.

    Raises
    ------
    SctError
        If SCT, its programs or its template are missing, no disc can be given, or the command fails.
    """
    from sct_deepspine.template import template_labels

    if contrast not in CONTRASTS:
        raise SctError(f"the template has the contrasts {', '.join(CONTRASTS)}, not {contrast}")
    place = _checked_template(template)
    _check_binaries()
    target = Path(folder).resolve()
    labels, left_out = template_labels(discs, seg, count=count)
    make_folder(target)
    given = target / "discs.nii.gz"
    labels.save(given)
    words = ["-i", _absolute(image), "-s", _absolute(seg), "-ldisc", str(given), "-c", contrast]
    words += ["-t", str(place), "-ofolder", str(target), "-r", str(int(not keep_temporary))]
    words += ["-param", param] if param else []
    _run("sct_register_to_template", words)
    names = ("warp_template2anat", "warp_anat2template", "template2anat", "anat2template")
    paths = [target / f"{name}.nii.gz" for name in names]
    for path in paths:
        if not path.is_file():
            raise SctError(f"sct_register_to_template ended well but did not write {path}")
    return Registration(labels, left_out, *paths)


def _checked_template(template: str | os.PathLike[str] | None) -> Path:
    require_sct()
    data = Path(import_module("spinalcordtoolbox.utils.sys").__data_dir__)
    place = Path(template).resolve() if template is not None else data / "PAM50"
    if not (place / "template" / "info_label.txt").is_file():
        raise SctError(f"no template in {place}; install it with: sct_download_data -d PAM50")
    return place


def _check_binaries() -> None:
    folder = Path(import_module("spinalcordtoolbox.utils.sys").__bin_dir__)
    missing = [name for name in BINARIES if not any(folder.glob(f"{name}*"))]
    if missing:
        raise SctError(f"SCT's programs {', '.join(missing)} are not in {folder}; install SCT again")


def _run(command: str, words: Sequence[str]) -> None:
    """Run one of SCT's commands in an empty folder."""
    require_sct()
    line = [sys.executable, "-m", f"spinalcordtoolbox.scripts.{command}", *words, "-v", "1"]
    logger.info("running %s", " ".join([command, *words]))
    with temporary_folder() as empty:
        done = subprocess.run(line, cwd=empty, capture_output=True, text=True, check=False, errors="replace")
    logger.debug("%s", done.stdout)
    if done.returncode:
        said = [text for text in (done.stdout + done.stderr).splitlines() if text.strip()]
        raise SctError(f"{command} failed: {_one_line(' '.join(said[-TAIL_LINES:]))}")


def add_qc_entry(
    image: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    command: Sequence[str],
    dataset: str | None = None,
    subject: str | None = None,
) -> None:
    """Add an entry to SCT's own quality control report.

    Parameters
    ----------
    image, labels
        Files of the image and of its disc labels.
    folder
        Folder of the report.
    command
        The command line that made the labels, its first word the program.
    dataset, subject
        What the report calls them.

    Raises
    ------
    SctError
        If SCT is missing or its report can't be made.
    """
    require_sct()
    report = import_module("spinalcordtoolbox.reports.qc2")
    try:
        report.sct_label_utils(
            fname_input=_absolute(image),
            fname_seg=_absolute(labels),
            command=command[0],
            argv=list(command[1:]),
            path_qc=os.fspath(folder),
            dataset=dataset,
            subject=subject,
        )
    except OSError as error:
        raise OutputError(f"can't write the report in {folder}: {error.strerror or error}") from error
    except Exception as error:  # whatever SCT's drawing meets
        raise SctError(f"SCT's report could not be made ({_one_line(str(error))})") from error


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(Path(path).resolve())


def _one_line(text: str) -> str:
    return " ".join(text.split())[-300:]
