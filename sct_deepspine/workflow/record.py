"""The files of one scan: written together, replaced together, and never over somebody else's.

The JSON sidecar records the SHA-256 of every file of a scan. A later run so knows which files are its own to
replace, and which were made or edited by a person. What an earlier run wrote and a later one does not is
kept while it is true: cord and canal while the image is the same, the masks that bear levels while no disc
from C2/C3 on has another level, all else while the discs, and what is known of them, are the same. What is no
longer true is removed; of what another command recorded, only masks are, whose levels follow the labels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sct_deepspine._version import __version__
from sct_deepspine.anatomy import DISC_VALUES
from sct_deepspine.errors import OutputError
from sct_deepspine.io.files import make_folder, naming, write_text, written_together
from sct_deepspine.io.sidecar import PROGRAM, read_sidecar, recorded_files
from sct_deepspine.labels import DiscLabels
from sct_deepspine.workflow.names import ResultNames

__all__ = [
    "GENERATED_BY",
    "Saved",
    "Writer",
    "edited_files",
    "refuse_foreign",
    "remove_results",
    "write_results",
]

GENERATED_BY = [{"Name": PROGRAM, "Version": __version__}]

Writer = Callable[[Path], None]
"""Writes one file at a path."""

OF_MASKS = "masks"
"""Entry of a sidecar that describes the masks, and is kept with them."""

OF_IMAGE, OF_LEVELS = ("seg", "canal"), ("spine", "seg_labeled")
"""Masks that depend on the image alone, and those that depend on the discs, too."""

SAME_DISC_MM = 6.0
"""Discs of one value no farther apart than this, in mm, give the masks the same levels."""


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


def _recorded(sidecar: Path) -> dict[Path, str]:
    """Return the files that a sidecar records, with their SHA-256."""
    files = recorded_files(sidecar)
    return {Path(os.path.normpath(sidecar.parent / name)): digest for name, digest in files.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edited_files(names: ResultNames, paths: Iterable[Path]) -> list[Path]:
    """Return those of some files of a scan that exist and are not as any recorded run left them."""
    recorded = {
        (os.path.abspath(path), digest)
        for sidecar in names.records
        for path, digest in _recorded(sidecar).items()
    }

    def is_recorded(path: Path) -> bool:
        return path.is_file() and (os.path.abspath(path), _sha256(path)) in recorded

    return [path for path in paths if path.exists() and not is_recorded(path)]


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


def refuse_foreign(names: ResultNames, paths: Iterable[Path], *, overwrite: bool = False) -> None:
    """Refuse to replace files of a scan that no earlier run wrote, or that were edited since.

    Raises
    ------
    OutputError
        If there is one, or the sidecar is another program's, and they are not to be replaced.
    """
    foreign = edited_files(names, paths)
    if names.sidecar.exists() and read_sidecar(names.sidecar) is None:
        foreign.append(names.sidecar)
    if foreign and not overwrite:
        remedy = "write elsewhere with -o or -ofolder"
        # The cord of sct_deepseg has the same name: nobody should be led to replace it.
        remedy += "" if foreign[0] == names.masks["seg"] else ", or replace it with -overwrite 1"
        raise OutputError(f"{foreign[0]} was not written by this command, or was edited since; {remedy}")


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
    refuse_foreign(names, writers, overwrite=overwrite)
    content = labels.as_dict() | {"GeneratedBy": GENERATED_BY} | entries
    kept, removed, masks = _sorted_out(names, writers, content, {path.resolve() for path in inputs})
    if masks is not None:
        content.setdefault(OF_MASKS, masks)
    others = [record for record in names.other_records if record not in removed]
    for folder in {path.parent for path in (sidecar, *writers)}:
        make_folder(folder)
    # The labels come last but for the sidecar: without its record they would pass for a person's.
    order = [*writers][::-1]
    with written_together([*order, sidecar], removed=removed) as (*partials, partial_sidecar):
        digests = {os.path.relpath(path, sidecar.parent): _sha256(path) for path in kept}
        for path, partial in zip(order, partials, strict=True):
            write = writers[path]
            with naming(path):
                write(partial)
                digests[os.path.relpath(path, sidecar.parent)] = _sha256(partial)
        with naming(sidecar):
            text = json.dumps(content | {"files": digests}, indent=2, ensure_ascii=False) + "\n"
            partial_sidecar.write_text(text, encoding="utf-8", errors="backslashreplace")
    for record in others:
        _hand_over(record, writers, names)
    first, *rest = writers
    return Saved((first, sidecar, *rest), tuple(kept), tuple(removed))


def _sorted_out(
    names: ResultNames, writers: Mapping[Path, Writer], content: Mapping[str, Any], inputs: Container[Path]
) -> tuple[list[Path], list[Path], dict[str, Any] | None]:
    """Sort out what earlier runs wrote, that this one does not write, and nobody edited.

    Returns
    -------
    kept
        Files that are still true and stay in this command's record, or come into it.
    removed
        Those that are not. The record of the masks goes with masks that are no longer true.
    masks
        What is known of masks that are kept.
    """
    kept: list[Path] = []
    removed: list[Path] = []
    masks: dict[str, Any] | None = None
    for sidecar in names.records:
        earlier = read_sidecar(sidecar)
        if earlier is None:
            continue
        known = {os.path.abspath(path) for path in (*writers, *kept, *removed)}
        others = [p for p in _recorded(sidecar) if os.path.abspath(p) not in known and p.is_file()]
        edited = edited_files(names, others)
        own = [path for path in others if path not in edited]
        true = [p for p in own if p.resolve() in inputs or _still_true(p, names, earlier, content)]
        if sidecar != names.sidecar:
            if names.labels in _recorded(sidecar) or not _is_outdated(own, true, names):
                continue  # what another command wrote stays in its record
            removed.append(sidecar)
        kept += true
        removed += [path for path in own if path not in true]
        known_masks = earlier.get(OF_MASKS)
        if isinstance(known_masks, dict) and any(path in true for path in names.masks.values()):
            bear_levels = any(names.masks[name] in true for name in OF_LEVELS)
            masks = known_masks if bear_levels else {**known_masks, "structures": []}
    return kept, removed, masks


def _is_outdated(own: Sequence[Path], true: Sequence[Path], names: ResultNames) -> bool:
    """Return whether a mask of another command is no longer true."""
    return any(path in own and path not in true for path in names.masks.values())


def _hand_over(record: Path, written: Iterable[Path], names: ResultNames) -> None:
    """Strike files that are this command's now from the record of another one."""
    content = read_sidecar(record)
    ours = {os.path.abspath(path) for path in written}
    taken = [path for path in _recorded(record) if os.path.abspath(path) in ours]
    if content is None or not taken:
        return
    gone = {os.path.relpath(path, record.parent) for path in taken}
    content["files"] = {name: digest for name, digest in content["files"].items() if name not in gone}
    if any(path in taken for path in names.masks.values()):
        content.pop(OF_MASKS, None)
    write_text(record, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _still_true(
    path: Path, names: ResultNames, earlier: Mapping[str, Any], content: Mapping[str, Any]
) -> bool:
    """Return whether a file of an earlier run says what a run of now would say."""
    images = [record.get("source") for record in (earlier, content)]
    if None not in images and images[0] != images[1]:
        return False
    is_known = all(isinstance(image, dict) and image.get("sha256") for image in images)
    if path in names.masks.values() and not is_known:
        return False  # nobody knows of what image
    if path in [names.masks[name] for name in OF_IMAGE]:
        return True
    if path in [names.masks[name] for name in OF_LEVELS]:
        return _have_same_levels(earlier, content)
    return bool(earlier.get("discs") == content["discs"])


def _have_same_levels(earlier: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Return whether discs of one value are at one place, and none is at the place of another one."""
    before, now = _places(earlier), _places(content)
    if not before or not now:
        return False
    apart = np.linalg.norm(np.array([*before.values()])[:, None] - np.array([*now.values()])[None], axis=2)
    same_value = np.array([*before])[:, None] == np.array([*now])[None]
    return bool((same_value & (apart <= SAME_DISC_MM)).any()) and bool(
        (same_value == (apart <= SAME_DISC_MM)).all()
    )


def _places(content: Mapping[str, Any]) -> dict[int, list[float]]:
    """Return where the discs are that the masks take their levels from, by value."""
    try:
        return {
            int(disc["value"]): [float(c) for c in disc["world_mm"]]
            for disc in content["discs"]
            if disc["value"] >= DISC_VALUES[0]
        }
    except (KeyError, TypeError, ValueError):  # edited by hand
        return {}
