"""The Spinal Cord Toolbox: its straightening, its registration, its report. The only module that imports it.

SCT's commands change directory, write into the current one, and pick up what an earlier run left there. They
are therefore run as processes of their own, each in an empty folder, with absolute paths.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_deepspine.errors import GeometryError, OutputError, SctError

# What is heavy is imported where it is used: the commands ask this module for SCT's argument parser.
if TYPE_CHECKING:
    from sct_deepspine.geometry.centerline import Centerline

__all__ = [
    "absolute",
    "add_drawn_qc_entry",
    "add_qc_entry",
    "argument_parser",
    "centerline_from_sct",
    "read_sct_image",
    "require_sct",
    "run_command",
    "sct_is_installed",
    "show_viewer",
    "temporary_folder",
]

logger = logging.getLogger(__name__)

MIN_MAJOR = 6
"""Oldest major version of the Spinal Cord Toolbox that is supported."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TAIL_LINES = 3
"""Last lines of a failed command's output that an error message repeats."""


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
    if major is not None and major < MIN_MAJOR:
        raise SctError(f"Spinal Cord Toolbox {version} is too old; {MIN_MAJOR}.0 or newer is needed")
    return version


def sct_is_installed() -> bool:
    """Return whether SCT can be imported, without importing it."""
    return find_spec("spinalcordtoolbox") is not None


def argument_parser(description: str) -> ArgumentParser | None:
    """Return SCT's own argument parser, or None where SCT is not installed."""
    if not sct_is_installed():
        return None
    return import_module("spinalcordtoolbox.utils.shell").SCTArgumentParser(description=description)


def show_viewer(image: str, overlays: Sequence[str]) -> None:
    """Print how to view label images: in the viewers that SCT finds on this machine, else in FSLeyes.

    Parameters
    ----------
    image
        The scan.
    overlays
        Label images over it, the lowest first.
    """
    if sct_is_installed():
        shell = import_module("spinalcordtoolbox.utils.shell")
        kinds, opacities = ["anat", *["softseg"] * len(overlays)], ["", *["0.7"] * len(overlays)]
        shell.display_viewer_syntax([image, *overlays], verbose=1, im_types=kinds, opacities=opacities)
        return
    words = ["fsleyes", image, "-cm", "greyscale"]
    for overlay in overlays:
        words += [overlay, "-cm", "subcortical"]
    print(f"\nTo view it:\n  {shlex.join(words)}")


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

    from sct_deepspine.geometry.centerline import Centerline

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


def run_command(
    command: str,
    words: Sequence[str],
    *,
    echo: Callable[[str], object] | None = None,
    run: Callable[..., subprocess.CompletedProcess[str]] | None = None,
) -> None:
    """Run one of SCT's commands in an empty folder.

    Parameters
    ----------
    command, words
        The command and its arguments.
    echo
        Gets each line that the command prints, as it comes.
    run
        Runs a process, as :func:`subprocess.run` does.

    Raises
    ------
    SctError
        If SCT is missing or the command fails.
    """
    require_sct()
    line = [sys.executable, "-m", f"spinalcordtoolbox.scripts.{command}", *words, "-v", "1"]
    logger.info("running %s", " ".join([command, *words]))
    with temporary_folder() as empty:
        done = (run or partial(_run_echoed, echo=echo or logger.debug))(line, cwd=empty)
    if done.returncode:
        lines = [text for text in (done.stdout + (done.stderr or "")).splitlines() if text.strip()]
        raise SctError(f"{command} failed: {_one_line(' '.join(lines[-TAIL_LINES:]))}")


def _run_echoed(
    line: Sequence[str], *, cwd: Path, echo: Callable[[str], object]
) -> subprocess.CompletedProcess[str]:
    """Run a process and hand on what it prints, line by line; without colours and progress bars."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    quiet = os.environ | {"SCT_PROGRESS_BAR": "off"}
    with subprocess.Popen(line, cwd=cwd, env=quiet, text=True, errors="replace", **pipes) as process:  # type: ignore[call-overload]
        lines = []
        for text in process.stdout:
            plain = COLOUR.sub("", text)
            lines.append(plain)
            echo(plain.rstrip())
    return subprocess.CompletedProcess(line, process.returncode, "".join(lines))


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
    with _drawing_a_report(folder) as report:
        report.sct_label_utils(
            fname_input=absolute(image),
            fname_seg=absolute(labels),
            command=command[0],
            argv=list(command[1:]),
            path_qc=os.fspath(folder),
            dataset=dataset,
            subject=subject,
        )


def add_drawn_qc_entry(
    image: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    draw: Callable[[Path, Path], None],
    *,
    command: Sequence[str],
    dataset: str | None = None,
    subject: str | None = None,
) -> None:
    """Add an entry with pictures of our own to SCT's report.

    Parameters
    ----------
    image
        File of the image.
    folder, command, dataset, subject
        As in :func:`add_qc_entry`.
    draw
        Writes the two pictures: the background, and what is laid over it.

    Raises
    ------
    SctError
        If SCT is missing, or its report can't be made.
    """
    with (
        _drawing_a_report(folder) as report,
        report.create_qc_entry(
            path_input=Path(image).resolve(),
            path_qc=Path(folder),
            command=command[0],
            cmdline=shlex.join(command),
            plane="Sagittal",
            dataset=dataset,
            subject=subject,
        ) as pictures,
    ):
        draw(pictures["path_background_img"], pictures["path_overlay_img"])


@contextmanager
def _drawing_a_report(folder: str | os.PathLike[str]) -> Iterator[Any]:
    """Give SCT's module of reports; what it raises becomes one of our errors."""
    require_sct()
    try:
        yield import_module("spinalcordtoolbox.reports.qc2")
    except OSError as error:
        raise OutputError(f"can't write the report in {folder}: {error.strerror or error}") from error
    except Exception as error:  # whatever SCT's drawing meets
        raise SctError(f"SCT's report could not be made ({_one_line(str(error))})") from error


def absolute(path: str | os.PathLike[str]) -> str:
    """Return an absolute path: SCT's commands change directory."""
    return str(Path(path).resolve())


def _one_line(text: str) -> str:
    return " ".join(text.split())[-300:]
