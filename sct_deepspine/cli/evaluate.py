"""The command ``sct_deepspine_evaluate``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sct_deepspine.cli._common import Arguments, add_networks, run

if TYPE_CHECKING:
    from sct_deepspine.simulation.perturbations import LabelledScan

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
        help="Label each scan under 28 changes that are hard on it, too, and judge the confidences",
    )
    add(
        "-joined",
        type=int,
        default=0,
        metavar="N",
        help="Also label N whole spines joined of the folder's necks and lumbar spines, whole and in part",
    )
    add("-confidences", metavar="CSV", help="Write how sure the labelling was, and whether it was right")
    add("-reliability", metavar="PNG", help="Draw how often it was right against how sure it was")
    add("-seed", type=int, default=0, metavar="N", help="Seed of the random changes of -stress. Default: 0")
    add_networks(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after one line on stderr."""
    return run(_evaluate, get_parser().parse(argv))


def _evaluate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sct_deepspine.evaluation.run import (
        confidence_report,
        evaluate_folder,
        evaluate_stress,
        evaluate_whole_spines,
        judgements_csv,
        report,
        results_csv,
        stress_report,
    )
    from sct_deepspine.io.annotations import label_cards
    from sct_deepspine.io.files import write_text
    from sct_deepspine.reporting.figures import write_reliability

    total = len(label_cards(arguments.i))
    each = evaluate_folder(arguments.i, weights=arguments.weights, device=arguments.device)
    results = list(tqdm(each, total=total, unit="scan", disable=None if arguments.v else True))
    if arguments.o:
        write_text(arguments.o, results_csv(results))
    print(report(results))
    logging.getLogger("sct_deepspine").setLevel(logging.ERROR)  # failures are the tables' to tell
    named = [("plain", result) for result in results]
    bar = {"unit": "case", "disable": None if arguments.v else True}
    options = {"seed": arguments.seed, "weights": arguments.weights, "device": arguments.device}
    if arguments.stress:
        named = list(tqdm(evaluate_stress(arguments.i, **options), **bar))
        print(f"\n{stress_report(named)}")
    if arguments.joined:
        whole = list(tqdm(evaluate_whole_spines(_joined(arguments), **options), **bar))
        print(f"\n{stress_report(whole)}")
        named += whole
    print(f"\n{confidence_report(result for _, result in named)}")
    if arguments.confidences:
        write_text(arguments.confidences, judgements_csv(named))
    if arguments.reliability:
        write_reliability([j for _, result in named for j in result.judgements], arguments.reliability)
    return 0


def _joined(arguments: argparse.Namespace) -> Iterator[tuple[str, LabelledScan]]:
    import numpy as np

    from sct_deepspine.errors import ImageError
    from sct_deepspine.simulation.composite import can_join, make_joined_scan
    from sct_deepspine.simulation.perturbations import LabelledScan
    from sct_deepspine.training.dataset import read_folder

    scans = read_folder(arguments.i)
    if not can_join(scans):
        raise ImageError(
            f"{arguments.i} holds no neck (C2/C3 to T1/T2) or no lumbar spine (T12/L1 to L5/S1) to join"
        )
    for number in range(arguments.joined):
        scan = make_joined_scan(np.random.default_rng((arguments.seed, number)), scans)
        yield f"joined {number + 1}", LabelledScan(scan.volume, scan.discs, scan.span_z_mm)
