"""The files of one scan: written together, replaced together, and never over somebody else's.

The JSON sidecar records the SHA-256 of every file of a scan. A later run so knows which files are its own to
replace, and which were made or edited by a person. What an earlier run wrote and a later one does not is
kept while it is true, that is while the discs are the same; what new discs make false is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_deepspine._version import __version__
from sct_deepspine.errors import OutputError
from sct_deepspine.io.files import make_folder, naming, written_together
from sct_deepspine.labels import DiscLabels

__all__ = [
    "GENERATED_BY",
    "Saved",
    "Writer",
    "edited_files",
    "read_sidecar",
    "recorded_files",
    "remove_results",
    "write_results",
]

PROGRAM = "sct_deepspine"
GENERATED_BY = [{"Name": PROGRAM, "Version": __version__}]

Writer = Callable[[Path], None]
"""Writes one file at a path."""

OF_FILES = "masks"
"""Entry of a sidecar that describes files, and is kept with them."""


@dataclass(frozen=True)
class Saved:
    """What became of the files of a scan.

    Parameters
    ----------
    written
        The files of this run, the label image first and the sidecar second where there is one.
    kept
        Files of an earlier run that are still true.
    removed
        Files of an earlier run that no longer were.
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()


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


def recorded_files(sidecar: Path) -> dict[Path, str]:
    """Return the files that a sidecar records, with their SHA-256."""
    files = (read_sidecar(sidecar) or {}).get("files", {})
    if not isinstance(files, dict):
        return {}
    return {sidecar.parent / name: str(digest) for name, digest in files.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edited_files(sidecar: Path, paths: Iterable[Path]) -> list[Path]:
    """Return those of some files that exist and are not as the run of a sidecar left them."""
    recorded = recorded_files(sidecar)
    return [
        path
        for path in paths
        if path.exists() and (not path.is_file() or recorded.get(path) != _sha256(path))
    ]


def remove_results(sidecar: Path) -> None:
    """Remove the files of an earlier run, except those that were edited since."""
    recorded = list(recorded_files(sidecar))
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
    inputs: Iterable[Path] = (),
    **entries: Any,
) -> Saved:
    """Write all files of a run, the sidecar last, and remove those of earlier runs that they make false.

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
    inputs
        Files that this run was given: never removed.
    entries
        Further entries of the sidecar.

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
    earlier = read_sidecar(sidecar) or {}
    content = labels.as_dict() | {"GeneratedBy": GENERATED_BY} | entries
    others = _unedited_others(sidecar, writers)
    given = {path.resolve() for path in inputs}
    true = _same_discs(earlier, content)
    kept = {path: digest for path, digest in others.items() if true or path.resolve() in given}
    removed = [path for path in others if path not in kept]
    if true and kept and OF_FILES in earlier and OF_FILES not in content:
        content[OF_FILES] = earlier[OF_FILES]
    for folder in {path.parent for path in (sidecar, *writers)}:
        make_folder(folder)
    # The labels come last but for the sidecar: without its record they would pass for a person's.
    order = [*writers][::-1]
    with written_together([*order, sidecar], removed=removed) as (*partials, partial_sidecar):
        digests = {os.path.relpath(path, sidecar.parent): digest for path, digest in kept.items()}
        for path, partial in zip(order, partials, strict=True):
            write = writers[path]
            with naming(path):
                write(partial)
                digests[os.path.relpath(path, sidecar.parent)] = _sha256(partial)
        with naming(sidecar):
            text = json.dumps(content | {"files": digests}, indent=2, ensure_ascii=False) + "\n"
            partial_sidecar.write_text(text, encoding="utf-8", errors="backslashreplace")
    first, *rest = writers
    return Saved((first, sidecar, *rest), tuple(kept), tuple(removed))


def _unedited_others(sidecar: Path, writers: Mapping[Path, Writer]) -> dict[Path, str]:
    """Return the files that an earlier run recorded, that this one does not write, and nobody edited."""
    recorded = recorded_files(sidecar)
    others = [path for path in recorded if path not in writers and path.is_file()]
    edited = edited_files(sidecar, others)
    return {path: recorded[path] for path in others if path not in edited}


def _same_discs(earlier: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Tell whether an earlier run found the same discs in the same image."""
    images = [record.get("source") for record in (earlier, content)]
    return earlier.get("discs") == content["discs"] and (None in images or images[0] == images[1])
