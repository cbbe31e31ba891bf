"""The tables of a study: one line a disc, and one line a structure, of all scans in a folder of results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sct_deepspine.io.files import plain_cell, plain_line, write_text
from sct_deepspine.io.sidecar import read_sidecar
from sct_deepspine.workflow.names import bids_names

__all__ = ["write_tables"]

SCAN: Mapping[str, str] = {
    "participant_id": "BIDS participant, n/a for a name without one",
    "session_id": "BIDS session, n/a where there is none",
    "scan": "Folder and name of the scan",
}
"""Columns that both tables begin with."""

DISCS: Mapping[str, str] = {
    **SCAN,
    "value": "SCT's disc value: 3 is C2/C3, 8 is C7/T1, 20 is T12/L1, 25 is L5/S1",
    "name": "Anatomical name",
    "x_mm": "Posterior tip, world RAS+ mm, to the right",
    "y_mm": "Posterior tip, world RAS+ mm, to the front",
    "z_mm": "Posterior tip, world RAS+ mm, upwards",
    "i": "Posterior tip, continuous voxel index along the first axis",
    "j": "Posterior tip, continuous voxel index along the second axis",
    "k": "Posterior tip, continuous voxel index along the third axis",
    "confidence": "Probability that a disc is there and bears this value, 0 to 1",
    "level_confidence": "Probability that no disc of the scan bears a wrong level, 0 to 1",
    "presacral_vertebrae": "Vertebrae above the sacrum, 24 as a rule; n/a where both ends are not seen",
    "interpolated": "1 if the disc was not seen but placed between its neighbours",
    "from_session": "1 if it was not seen in this image but placed where other images of the session show it",
    "corrected": "1 if a person set the labels of this scan",
    "levelled_by": "Images of the session that were labelled together with this one, separated by spaces",
}
"""Columns of ``discs.tsv``, and what they mean."""

VOLUMES: Mapping[str, str] = {
    **SCAN,
    "structure": "cord, canal, or the name of a vertebra or disc",
    "value": "Value in the mask seg-spine_dseg",
    "volume_mm3": "Volume of its voxels, mm3. The cord is for registration and levels, not for areas",
    "confidence": "The lower confidence of the discs beside it, 0 to 1; n/a for cord and canal",
    "unsure": "1 if it should be checked: a disc beside it may not be there, or bear another level",
    "measured": "1 if masks of this structure were compared with true ones, in T2w images",
}
"""Columns of ``volumes.tsv``, and what they mean."""


def write_tables(derivatives: Path, scans: Sequence[str]) -> list[Path]:
    """Write ``discs.tsv`` and ``volumes.tsv`` with their data dictionaries; returns the tables' paths.

    Parameters
    ----------
    derivatives
        Folder of results.
    scans
        Names of the scans that have labels.
    """
    records = [(name, record) for name in scans if (record := _record(derivatives, name)) is not None]
    out = []
    for file, columns, rows in (
        ("discs", DISCS, [row for name, record in records for row in _discs(name, record)]),
        ("volumes", VOLUMES, [row for name, record in records for row in _volumes(name, record)]),
    ):
        path = derivatives / f"{file}.tsv"
        write_text(path, _tsv(columns, rows))
        dictionary = {name: {"Description": text} for name, text in columns.items()}
        write_text(path.with_suffix(".json"), json.dumps(dictionary, indent=2) + "\n")
        out.append(path)
    return out


def _record(derivatives: Path, scan: str) -> dict[str, Any] | None:
    place = derivatives / scan
    return read_sidecar(bids_names(place.parent, place.name).sidecar)


def _scan(name: str) -> dict[str, str]:
    found = {
        column: match.group() if (match := re.search(rf"{entity}-[A-Za-z0-9]+", name)) else "n/a"
        for column, entity in (("participant_id", "sub"), ("session_id", "ses"))
    }
    return {**found, "scan": name}


def _discs(name: str, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    session = record.get("session", {})
    images, own = session.get("images", []), session.get("index")
    beside: list[int] = next((group for group in session.get("groups", []) if own in group), [])
    for disc in record.get("discs", []):
        yield {
            **_scan(name),
            "value": disc["value"],
            "name": disc["name"],
            **dict(zip(("x_mm", "y_mm", "z_mm"), disc["world_mm"], strict=True)),
            **dict(zip("ijk", disc["voxel"], strict=True)),
            "confidence": disc["confidence"],
            "level_confidence": record["level_confidence"],
            "presacral_vertebrae": (record.get("presacral_vertebrae") or {}).get("number", "n/a"),
            "interpolated": int(disc["interpolated"]),
            "from_session": int(disc.get("from_session", False)),
            "corrected": int(bool(record.get("Corrected"))),
            "levelled_by": " ".join(images[n] for n in beside if n != own) or "n/a",
        }


def _volumes(name: str, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    masks = record.get("masks")
    if not masks:
        return
    for value, structure in ((1, "cord"), (2, "canal")):
        plain = {"structure": structure, "value": value, "volume_mm3": masks[f"{structure}_mm3"]}
        yield {**_scan(name), **plain, "confidence": "n/a", "unsure": "n/a", "measured": "n/a"}
    for part in masks["structures"]:
        yield {
            **_scan(name),
            "structure": part["name"],
            **{key: part[key] for key in ("value", "volume_mm3", "confidence")},
            "unsure": int(part["unsure"]),
            "measured": int(part["measured"]),
        }


def _tsv(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(columns), *([row[name] for name in columns] for row in rows)]
    cells = ("\t".join(plain_line(plain_cell(cell)).replace("\t", " ") for cell in line) for line in lines)
    return "\n".join(cells) + "\n"
