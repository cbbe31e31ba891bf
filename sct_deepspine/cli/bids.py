"""The command ``sct_deepspine_bids``: the batch with the arguments of a BIDS App."""

from __future__ import annotations

from collections.abc import Sequence

from sct_deepspine.cli import batch
from sct_deepspine.cli._common import Arguments

__all__ = ["get_parser", "main"]

DESCRIPTION = """\
Label the discs of every scan of a BIDS dataset, as a BIDS App: sct_deepspine_bids /data /out participant.
Writes /out/derivatives/sct_deepspine; see sct_deepspine_batch.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments("sct_deepspine_bids", DESCRIPTION)
    parser.mandatory.add_argument("bids_dir", help="The dataset")
    parser.mandatory.add_argument("output_dir", help="Folder of results")
    parser.mandatory.add_argument("analysis_level", choices=("participant",), help="The only level")
    add = parser.optional.add_argument
    add(
        "--participant-label", "--participant_label", nargs="+", default=[], metavar="ID", help="Without sub-"
    )
    add("--contrast", nargs="+", default=[], metavar="C", help="BIDS suffixes to take: T1w T2w …")
    add("--masks", action="store_true", help="Also segment cord, canal, vertebrae and discs")
    add("--jobs", type=int, default=1, metavar="N", help="Processes, which share the cores. Default: 1")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit codes are those of ``sct_deepspine_batch``."""
    arguments = get_parser().parse(argv)
    words = ["-i", arguments.bids_dir, "-o", arguments.output_dir, "-v", str(arguments.v)]
    words += ["-jobs", str(arguments.jobs), "-masks", str(int(arguments.masks))]
    if arguments.participant_label:
        words += ["-include", *(f"sub-{label}_*" for label in arguments.participant_label)]
    if arguments.contrast:
        words += ["-contrast", *arguments.contrast]
    return batch.main(words)
