"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sct_deepspine.errors import OutputError

__all__ = ["make_folder", "plain_cell", "write_text", "written_whole"]


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
    try:
        folder = Path(tempfile.mkdtemp(prefix=".deepspine-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"can't write to {target.parent}: {error.strerror or error}") from error
    partial = folder / target.name
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"can't write {target}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # a name that can't be written can't be removed either
            partial.unlink(missing_ok=True)
        folder.rmdir()


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
    """Write a text file in UTF-8, whole or not at all.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
