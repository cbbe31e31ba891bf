"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sct_deepspine.errors import OutputError

__all__ = [
    "UNFINISHED",
    "make_folder",
    "naming",
    "plain_cell",
    "plain_line",
    "write_text",
    "written_together",
    "written_whole",
]

UNFINISHED = ".deepspine-"
"""How the folders of files begin that are being written."""

EARLIER = "earlier"
"""Name that a file has, in a folder of its own, while another one takes its place."""


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` and rename it when the block ends well.

    The temporary name ends as ``path`` does, since writers choose the format by it.

    Raises
    ------
    OutputError
        If the folder does not exist or can't be written to.
    """
    target = Path(path)
    with written_together([target]) as (partial,), naming(target):
        yield partial


@contextmanager
def written_together(paths: Sequence[Path], *, removed: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Give temporary names for some files; all of them are put in place when the block ends well, or none.

    Parameters
    ----------
    paths
        The files, in the order in which they are put in place.
    removed
        Files that are removed before.

    Raises
    ------
    OutputError
        If a folder does not exist, or a file can't be put in place or removed.
    """
    with ExitStack() as folders:
        partials = [folders.enter_context(_place_beside(path)) for path in (*removed, *paths)]
        yield partials[len(removed) :]
        changed: list[tuple[Path, Path]] = []
        try:
            for path, partial in zip((*removed, *paths), partials, strict=True):
                with naming(path):
                    earlier = partial.with_name(EARLIER)
                    if path.is_file():
                        _keep(path, earlier)
                    changed.append((path, earlier))
                    if path in removed:
                        path.unlink()
                    else:
                        partial.replace(path)
        except BaseException:
            for path, earlier in reversed(changed):
                with suppress(OSError):  # then the earlier file stays in its folder
                    if os.path.lexists(earlier):
                        earlier.replace(path)
                        earlier.unlink(missing_ok=True)  # two names of one file are both kept
                    else:
                        path.unlink()
            raise
        for partial in partials:
            shutil.rmtree(partial.parent, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system say which file can't be written."""
    try:
        yield
    except OSError as error:
        # A writer that writes its own file whole has named a temporary one.
        reason = error.__cause__ if isinstance(error, OutputError) else error
        raise OutputError(f"can't write {path}: {getattr(reason, 'strerror', None) or error}") from error


@contextmanager
def _place_beside(target: Path) -> Iterator[Path]:
    """Give a temporary name in a folder of its own beside a file."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=target.parent))
    except OSError as error:
        raise OutputError(f"can't write to {target.parent}: {error.strerror or error}") from error
    try:
        yield folder / target.name
    finally:
        if not os.path.lexists(folder / EARLIER):  # a file that could not be put back is not thrown away
            shutil.rmtree(folder, ignore_errors=True)


def _keep(path: Path, other: Path) -> None:
    """Give a file a second name; where the file system has no links, copy it."""
    try:
        if path.is_symlink():
            os.symlink(os.readlink(path), other)
        else:
            os.link(path, other)
    except OSError:
        try:
            shutil.copy2(path, other)
        except BaseException:
            other.unlink(missing_ok=True)  # half a copy is none
            raise


def plain_line(text: object) -> str:
    """Return a text as one line, with what can't be printed, such as a line end in a name, escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in str(text)
    )


def plain_cell(value: object) -> object:
    """Return a value for a table such that no spreadsheet takes it for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "@", "+", "-") else value


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, unless it exists.

    Raises
    ------
    OutputError
        If it can't be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't make the folder {path}: {error.strerror or error}") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; its folder is made if need be.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    make_folder(Path(path).parent)
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
