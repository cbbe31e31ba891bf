"""The files of one labelled scan: written together, replaced together, and never over somebody else's.

The JSON sidecar of the labels records the SHA-256 of every file of the run. A later run so knows which files
are its own to replace or remove, and which were made or edited by a person.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sct_deepspine._version import __version__
from sct_deepspine.errors import OutputError
from sct_deepspine.io.files import make_folder, naming, written_together
from sct_deepspine.labels import DiscLabels

__all__ = ["Writer", "edited_files", "read_sidecar", "remove_results", "write_results"]

PROGRAM = "sct_deepspine"

Writer = Callable[[Path], None]
"""Writes one file at a path."""


def read_sidecar(sidecar: Path) -> dict[str, Any] | None:
    """Return the content of a sidecar that this package wrote, else None."""
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    makers = content.get("GeneratedBy")
    names = [m.get("Name", "") for m in makers if isinstance(m, dict)] if isinstance(makers, list) else []
    return content if any(str(name).startswith(PROGRAM) for name in names) else None


def _recorded(sidecar: Path) -> dict[Path, str]:
    """Return the files that a sidecar records, with their SHA-256."""
    files = (read_sidecar(sidecar) or {}).get("files", {})
    return {sidecar.parent / name: str(digest) for name, digest in files.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edited_files(sidecar: Path, paths: Mapping[Path, Any] | list[Path]) -> list[Path]:
    """Return those of some files that exist and are not as the run of a sidecar left them."""
    recorded = _recorded(sidecar)
    return [
        path
        for path in paths
        if path.exists() and (not path.is_file() or recorded.get(path) != _sha256(path))
    ]


def remove_results(sidecar: Path) -> None:
    """Remove the files of an earlier run, except those that were edited since."""
    recorded = list(_recorded(sidecar))
    kept = edited_files(sidecar, recorded)
    for path in recorded:
        if path not in kept:
            path.unlink(missing_ok=True)
    if read_sidecar(sidecar) is not None and not kept:
        sidecar.unlink()


def write_results(
    labels: DiscLabels,
    sidecar: Path,
    writers: Mapping[Path, Writer],
    *,
    overwrite: bool = False,
    **entries: Any,
) -> list[Path]:
    """Write all files of a run, the sidecar last, and remove those of the earlier run that it replaces.

    Parameters
    ----------
    labels
        What was found.
    sidecar
        The JSON file.
    writers
        Path of each other file, and what writes it.
    overwrite
        Whether to replace files that the earlier run did not write, or that were edited since.
    entries
        Further entries of the sidecar.

    Returns
    -------
    list
        Paths of the files, the sidecar second.

    Raises
    ------
    OutputError
        If a file can't be written, or would replace one that is not this package's.
    """
    foreign = edited_files(sidecar, writers)
    if sidecar.exists() and read_sidecar(sidecar) is None:
        foreign.append(sidecar)
    if foreign and not overwrite:
        raise OutputError(
            f"{foreign[0]} was not written by this command, or was edited since; "
            "write elsewhere with -o or -ofolder, or replace it with -overwrite 1"
        )
    stale = [path for path in _recorded(sidecar) if path not in writers and path.is_file()]
    stale = [path for path in stale if path not in edited_files(sidecar, [path])]
    for folder in {path.parent for path in (sidecar, *writers)}:
        make_folder(folder)
    # The labels come last but for the sidecar: without its record they would pass for a person's.
    order = [*writers][::-1]
    with written_together([*order, sidecar], removed=stale) as (*partials, partial_sidecar):
        digests = {}
        for path, partial in zip(order, partials, strict=True):
            write = writers[path]
            with naming(path):
                write(partial)
                digests[os.path.relpath(path, sidecar.parent)] = _sha256(partial)
        maker = [{"Name": PROGRAM, "Version": __version__}]
        text = labels.to_json(**{"GeneratedBy": maker, **entries, "files": digests})
        with naming(sidecar):
            partial_sidecar.write_text(text, encoding="utf-8", errors="backslashreplace")
    first, *others = writers
    return [first, sidecar, *others]
