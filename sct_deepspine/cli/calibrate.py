"""The command ``sct_deepspine_calibrate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sct_deepspine.cli._common import Arguments, run
from sct_deepspine.cli._runs import need_torch

__all__ = ["get_parser", "main"]

PROGRAM = "sct_deepspine_calibrate"

DESCRIPTION = """\
Calibrate the confidences of trained networks on subjects that they were not trained on. Writes
weights.safetensors with its card to the folder given by -ofolder.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    example = f"{PROGRAM} -weights weights.safetensors -i fold0.csv -ofolder out"
    parser = Arguments(PROGRAM, DESCRIPTION, example)
    add = parser.mandatory.add_argument
    add("-weights", metavar="FILE", required=True, help="Weights of the labelling")
    add(
        "-i",
        "-confidences",
        dest="confidences",
        nargs="+",
        required=True,
        metavar="CSV",
        help="Confidences on held-out subjects, from sct_deepspine_evaluate -confidences "
        "(-confidences is the old spelling)",
    )
    add("-ofolder", metavar="DIR", required=True, help="Folder to write to")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after one line on stderr."""
    return run(_calibrate, get_parser().parse(argv))


def _calibrate(arguments: argparse.Namespace) -> int:
    need_torch("train")
    from sct_deepspine.evaluation.run import read_outcomes
    from sct_deepspine.training.release import calibrate_weights

    outcomes = [outcome for path in arguments.confidences for _, outcome in read_outcomes(path)]
    path = calibrate_weights(arguments.weights, outcomes, Path(arguments.ofolder))
    if arguments.v:
        print(f"{len(outcomes)} outcomes\nWritten: {path}")
    return 0
