"""The command ``sct_deepspine_evaluate``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from sct_deepspine.cli._common import Arguments, add_device, run

__all__ = ["get_parser", "main"]

DESCRIPTION = """\
Label every scan of a folder whose discs are known and report how well it went: the error of the disc
with the same value, scans with every level right, discs missed and invented, and the published metrics.

The folder holds NAME.nii.gz with NAME.json: "image", "subject", "region", "contrast", "discs" (value ->
world mm) and "labelled_span_mm" (the world z outside which nothing is counted).
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments("sct_deepspine_evaluate", DESCRIPTION)
    parser.mandatory.add_argument("-i", metavar="FOLDER", required=True, help="Folder of labelled scans")
    add = parser.optional.add_argument
    add("-o", metavar="CSV", help="Write one line per scan")
    add(
        "-stress",
        type=int,
        choices=(0, 1),
        default=0,
        help="Label each scan under 25 changes that are hard on it, too",
    )
    add("-seed", type=int, default=0, metavar="N", help="Seed of the random changes of -stress. Default: 0")
    add("-weights", metavar="FILE", help="Weights (.safetensors) other than the shipped ones")
    add_device(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after one line on stderr."""
    return run(_evaluate, get_parser().parse(argv))


def _evaluate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sct_deepspine.cards import label_cards
    from sct_deepspine.evaluation import (
        evaluate_folder,
        evaluate_stress,
        report,
        results_csv,
        stress_report,
    )
    from sct_deepspine.files import write_text

    total = len(label_cards(arguments.i))
    each = evaluate_folder(arguments.i, weights=arguments.weights, device=arguments.device)
    results = list(tqdm(each, total=total, unit="scan", disable=None if arguments.v else True))
    if arguments.o:
        write_text(arguments.o, results_csv(results))
    print(report(results))
    if arguments.stress:
        logging.getLogger("sct_deepspine").setLevel(logging.ERROR)  # failures are the table's to tell
        under = evaluate_stress(
            arguments.i, seed=arguments.seed, weights=arguments.weights, device=arguments.device
        )
        print(f"\n{stress_report(list(tqdm(under, unit='case', disable=None if arguments.v else True)))}")
    return 0
