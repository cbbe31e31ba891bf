"""The files that make a folder of results a BIDS derivative: what it is, and what its tables mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sct_deepspine._version import __version__
from sct_deepspine.anatomy import DISC_VALUES, PRESACRAL, disc_name, vertebra_name
from sct_deepspine.io.files import make_folder, write_text
from sct_deepspine.segmentation.masks import CANAL_VALUE, CORD_VALUE, disc_mask_value, vertebra_mask_value
from sct_deepspine.workflow.record import GENERATED_BY

__all__ = ["describe_dataset", "describe_labels"]

DESCRIPTION = {
    "Name": "Intervertebral disc labels",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "GeneratedBy": GENERATED_BY,
}

IGNORED = (
    "*_dlabel.*",
    "*_heatmaps.*",
    "*_attention.*",
    "*_reg/**",
    "/index.html",
    "/index_files/**",
    "/summary.csv",
    "/discs.*",
    "/volumes.*",
    "/ratings.*",
)
"""What BIDS has no names for: labels named as SCT's datasets have them, tables of all scans, and the page."""

MASKS = {
    "seg-spine_dseg": "Cord, canal, vertebrae and discs, with the values of TotalSpineSeg",
    "seg-cordlevels_dseg": "The cord by vertebral level, C1 is 1",
    "label-cord_mask": "The spinal cord, for registration and levels; not for measuring areas",
    "label-canal_mask": "The dural sac: cord, fluid and roots",
}
"""Ends of the names of masks, and what they show."""

SPATIAL_REFERENCE = "The image of the same participant, session and run whose contrast the entity space names"

README = """\
Discs, and masks if they were asked for, made by sct_deepspine {version}.

index.html      every scan with its discs; what failed and what is doubtful comes first
summary.csv     one line a scan
discs.tsv       one line a disc (discs.json says what the columns mean)
volumes.tsv     one line a structure of the masks (volumes.json says what the columns mean)

In sub-*/**/anat, *_label-discs_dlabel.nii.gz has one voxel per disc with SCT's values; the JSON beside it
holds positions, confidences and notes. Masks are *_space-CONTRAST_*, of the image of that contrast and on its
grid; seg-spine_dseg.tsv names the values of the whole mask. The cord is for registration and levels: to
measure its area, use sct_deepseg spinalcord.
"""


def describe_dataset(derivatives: Path) -> None:
    """Write the description of the dataset, what validators pass over, and the tables of mask values.

    Raises
    ------
    OutputError
        If they can't be written.
    """
    make_folder(derivatives)
    write_text(derivatives / "dataset_description.json", json.dumps(DESCRIPTION, indent=2) + "\n")
    write_text(derivatives / ".bidsignore", "\n".join(IGNORED) + "\n")
    write_text(derivatives / "README.md", README.format(version=__version__))
    for name, text in MASKS.items():
        facts = {"Description": text, "SpatialReference": SPATIAL_REFERENCE, "Type": "ROI"}
        write_text(derivatives / f"{name}.json", json.dumps(facts, indent=2) + "\n")
    write_text(derivatives / "seg-spine_dseg.tsv", _values_table())
    write_text(derivatives / "seg-cordlevels_dseg.tsv", _levels_table())


def describe_labels(folder: Path) -> None:
    """Write the same of labels that a person checked, unless their dataset describes itself.

    Raises
    ------
    OutputError
        If they can't be written.
    """
    description = DESCRIPTION | {"Name": "Checked disc labels"}
    texts = {
        "dataset_description.json": json.dumps(description, indent=2) + "\n",
        ".bidsignore": "*_dlabel.*\n",
    }
    for name, text in texts.items():
        if not (folder / name).exists():
            write_text(folder / name, text)


def _values_table() -> str:
    """Return the values of the whole mask, as BIDS has look-up tables of segmentations."""
    rows: list[tuple[int, str]] = [(CORD_VALUE, "cord"), (CANAL_VALUE, "canal")]
    rows += [(vertebra_mask_value(number), vertebra_name(number)) for number in range(1, PRESACRAL + 1)]
    rows += [(disc_mask_value(value), disc_name(value)) for value in DISC_VALUES]
    more, lowest = PRESACRAL + 1, DISC_VALUES[-1]  # of a spine with a vertebra more
    rows.append((vertebra_mask_value(more), vertebra_name(more, more)))
    rows.append((disc_mask_value(lowest, more), disc_name(lowest, more)))
    return _tsv(rows)


def _levels_table() -> str:
    """Return the values of the cord by level."""
    return _tsv([(number, vertebra_name(number)) for number in range(1, 26)])


def _tsv(rows: list[tuple[int, str]]) -> str:
    lines: list[tuple[Any, ...]] = [("index", "name"), *sorted(rows)]
    return "".join("\t".join(map(str, line)) + "\n" for line in lines)
