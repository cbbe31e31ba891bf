"""The files of one scan: written together, replaced together, and never over somebody else's.

The JSON sidecar records the SHA-256 of every file of a scan. A later run so knows which files are its own to
replace, and which were made or edited by a person. What an earlier run wrote and a later one does not is
kept while it is true: cord and canal while the image is the same, the masks that bear levels while the discs
are the same from C2/C3 on, all else while the discs, and what is known of them, are the same. What is no
longer true is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_deepspine._version import __version__
from sct_deepspine.anatomy import DISC_VALUES
from sct_deepspine.errors import OutputError
from sct_deepspine.io.files import make_folder, naming, written_together
from sct_deepspine.labels import DiscLabels
from sct_deepspine.workflow.names import ResultNames

__all__ = [
    "GENERATED_BY",
    "Saved",
    "Writer",
    "edited_files",
    "read_sidecar",
    "remove_results",
    "write_results",
]

PROGRAM = "sct_deepspine"
GENERATED_BY = [{"Name": PROGRAM, "Version": __version__}]

Writer = Callable[[Path], None]
"""Writes one file at a path."""

OF_MASKS = "masks"
"""Entry of a sidecar that describes the masks, and is kept with them."""

OF_IMAGE, OF_LEVELS = ("seg", "canal"), ("spine", "seg_labeled")
"""Masks that depend on the image alone, and those that depend on the discs, too."""


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


def _recorded(sidecar: Path) -> dict[Path, str]:
    """Return the files that a sidecar records, with their SHA-256."""
    files = (read_sidecar(sidecar) or {}).get("files", {})
    if not isinstance(files, dict):
        return {}
    return {sidecar.parent / name: str(digest) for name, digest in files.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edited_files(names: ResultNames, paths: Iterable[Path]) -> list[Path]:
    """Return those of some files of a scan that exist and are not as any recorded run left them."""
    recorded = [_recorded(sidecar) for sidecar in names.records]

    def is_recorded(path: Path) -> bool:
        digest = _sha256(path)
        return any(record.get(path) == digest for record in recorded)

    return [path for path in paths if path.exists() and not (path.is_file() and is_recorded(path))]


def remove_results(names: ResultNames) -> list[Path]:
    """Remove the files of an earlier run, except those that were edited since; return what was removed."""
    recorded = [path for path in _recorded(names.sidecar) if path.exists()]
    edited = edited_files(names, recorded)
    removed = [path for path in recorded if path not in edited]
    if read_sidecar(names.sidecar) is not None and not edited:
        removed.append(names.sidecar)
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def write_results(
    labels: DiscLabels,
    names: ResultNames,
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
    names
        Where the files of the scan go.
    writers
        Path of each file but the sidecar, and what writes it.
    overwrite
        Whether to replace files that no earlier run wrote, or that were edited since.
    inputs
        Files that this run was given: never removed.
    entries
        Further entries of the sidecar.

    Raises
    ------
    OutputError
        If a file can't be written, or would replace one that is not this package's.
    """
    sidecar = names.sidecar
    foreign = edited_files(names, writers)
    if sidecar.exists() and read_sidecar(sidecar) is None:
        foreign.append(sidecar)
    if foreign and not overwrite:
        remedy = "write elsewhere with -o or -ofolder"
        # The cord of sct_deepseg has the same name: nobody should be led to replace it.
        remedy += "" if foreign[0] == names.masks["seg"] else ", or replace it with -overwrite 1"
        raise OutputError(f"{foreign[0]} was not written by this command, or was edited since; {remedy}")
    content = labels.as_dict() | {"GeneratedBy": GENERATED_BY} | entries
    kept, removed, masks = _sorted_out(names, writers, content, {path.resolve() for path in inputs})
    if masks is not None:
        content.setdefault(OF_MASKS, masks)
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


def _sorted_out(
    names: ResultNames, writers: Mapping[Path, Writer], content: Mapping[str, Any], inputs: Container[Path]
) -> tuple[dict[Path, str], list[Path], dict[str, Any] | None]:
    """Sort out what earlier runs wrote, that this one does not write, and nobody edited.

    Returns
    -------
    kept
        Files that are still true, with their SHA-256.
    removed
        Those that are not. The sidecar of another command that says so much of other discs goes, too.
    masks
        What is known of masks that are kept.
    """
    kept: dict[Path, str] = {}
    removed: list[Path] = []
    masks: dict[str, Any] | None = None
    for sidecar in names.records:
        earlier, recorded = read_sidecar(sidecar), _recorded(sidecar)
        if earlier is None:
            continue
        known = {*writers, *kept, *removed}
        others = [path for path in recorded if path not in known and path.is_file()]
        edited = edited_files(names, others)
        own = [path for path in others if path not in edited]
        true = [
            path for path in own if path.resolve() in inputs or _still_true(path, names, earlier, content)
        ]
        removed += [path for path in own if path not in true]
        if sidecar != names.sidecar:
            if _same_image(earlier, content) and earlier.get("discs") == content["discs"]:
                continue  # what another command wrote stays in its record
            removed.append(sidecar)
        kept |= {path: recorded[path] for path in true}
        if OF_MASKS in earlier and true:
            bear_levels = any(names.masks[name] in true for name in OF_LEVELS)
            masks = earlier[OF_MASKS] if bear_levels else {**earlier[OF_MASKS], "structures": []}
    return kept, removed, masks


def _still_true(
    path: Path, names: ResultNames, earlier: Mapping[str, Any], content: Mapping[str, Any]
) -> bool:
    """Tell whether a file of an earlier run says what a run of now would say."""
    if not _same_image(earlier, content):
        return False
    if path in [names.masks[name] for name in OF_IMAGE]:
        return True
    if path in [names.masks[name] for name in OF_LEVELS]:
        return _levels(earlier) == _levels(content)
    return bool(earlier.get("discs") == content["discs"])


def _same_image(earlier: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    images = [record.get("source") for record in (earlier, content)]
    return None in images or images[0] == images[1]


def _levels(content: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return value and place of the discs that the masks take their levels from."""
    discs = content.get("discs") or []
    return [(disc["value"], disc["world_mm"]) for disc in discs if disc["value"] >= DISC_VALUES[0]]
