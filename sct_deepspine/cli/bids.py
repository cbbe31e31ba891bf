"""The command ``sct_deepspine_bids``: the batch with the arguments of a BIDS App."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sct_deepspine.cli import batch
from sct_deepspine.cli._common import Arguments, run

__all__ = ["get_parser", "main"]

PROGRAM = "sct_deepspine_bids"

DESCRIPTION = """\
Label the discs of every scan of a BIDS dataset, as a BIDS App: sct_deepspine_bids /data /out participant.
Writes /out/derivatives/sct_deepspine; see sct_deepspine_batch. Jobs that label a participant each may share
an output folder: the level "group" rebuilds the table and the page from all results.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(
        PROGRAM, DESCRIPTION, "sct_deepspine_bids /data /out participant --participant-label 01"
    )
    parser.mandatory.add_argument("bids_dir", help="The dataset")
    parser.mandatory.add_argument("output_dir", help="Folder of results")
    parser.mandatory.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant: label the scans; group: rebuild the table and the page from all results",
    )
    add = parser.optional.add_argument
    add(
        "--participant-label",
        "--participant_label",
        nargs="+",
        default=[],
        metavar="ID",
        help="Participants to label, with or without sub-. Default: all",
    )
    add(
        "--session-label",
        "--session_label",
        nargs="+",
        default=[],
        metavar="ID",
        help="Sessions to label, with or without ses-. Default: all",
    )
    add("--contrast", nargs="+", default=[], metavar="C", help="BIDS suffixes to include: T1w T2w …")
    add("--masks", action="store_true", help="Also segment cord, canal, vertebrae and discs")
    add("--jobs", type=int, default=1, metavar="N", help="Processes, which share the cores. Default: 1")
    add(
        "--skip-bids-validator",
        "--skip_bids_validator",
        action="store_true",
        help="Accepted for runners that pass it to every BIDS App: the dataset is never validated here",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit codes are those of ``sct_deepspine_batch``."""
    arguments = get_parser().parse(argv)
    if arguments.analysis_level == "group":
        return run(_group, arguments)
    return run(_participants, arguments)


def _participants(arguments: argparse.Namespace) -> int:
    patterns = _patterns(arguments)
    words = ["-i", arguments.bids_dir, "-o", arguments.output_dir, "-v", str(arguments.v)]
    words += ["-jobs", str(arguments.jobs), "-masks", str(int(arguments.masks))]
    if patterns:
        words += ["-include", *patterns]
    if arguments.contrast:
        words += ["-contrast", *arguments.contrast]
    return batch.main(words)


def _patterns(arguments: argparse.Namespace) -> list[str]:
    """Return the patterns of names that the labels mean; each label must be there."""
    subjects = _labels(arguments.participant_label, "sub", Path(arguments.bids_dir), "sub-*")
    sessions = _labels(arguments.session_label, "ses", Path(arguments.bids_dir), "sub-*/ses-*")
    if sessions:
        return [f"{subject}_{session}_*" for subject in subjects or ["sub-*"] for session in sessions]
    return [f"{subject}_*" for subject in subjects]


def _labels(given: Sequence[str], entity: str, dataset: Path, pattern: str) -> list[str]:
    from sct_deepspine.errors import DatasetError

    names = [f"{entity}-{label.removeprefix(f'{entity}-')}" for label in given]
    there = {path.name for path in dataset.glob(pattern)}
    for name in names:
        if name not in there:
            raise DatasetError(f"{dataset} has no {name}")
    return names


def _group(arguments: argparse.Namespace) -> int:
    from sct_deepspine.batch import BatchOptions, write_overview
    from sct_deepspine.errors import DatasetError

    derivatives = BatchOptions(Path(arguments.output_dir)).derivatives
    if not derivatives.is_dir():
        raise DatasetError(f"{derivatives} is not there: run the level participant first")
    written = write_overview(derivatives)
    if arguments.v:
        print("Written:", *(f"  {path}" for path in written), sep="\n")
    return 0
