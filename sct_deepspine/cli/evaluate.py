"""The command ``sct_deepspine_evaluate``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sct_deepspine.cli._common import FAILURE, Arguments, add_networks, run

if TYPE_CHECKING:
    from sct_deepspine.io.annotations import LabelledScan
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel

__all__ = ["get_parser", "main"]

DESCRIPTION = """\
Label every scan of a folder whose discs are known, and report the accuracy: distance to the true disc of the
same value, scans with every level right, missed and false discs, and the published metrics.

The folder holds NAME.nii.gz with NAME.json: "image", "subject", "region", "contrast", "discs" (value ->
world mm) and "labelled_span_mm" (the world z outside which nothing is counted).
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(
        "sct_deepspine_evaluate", DESCRIPTION, "sct_deepspine_evaluate -i labelled_scans -stress 1"
    )
    parser.mandatory.add_argument(
        "-i", metavar="FOLDER", required=True, help="Folder of labelled scans, or a labelled BIDS dataset"
    )
    add = parser.optional.add_argument
    add("-csv", "-o", dest="o", metavar="CSV", help="Write one line per scan (-o is the old spelling)")
    add(
        "-stress",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also label each scan under perturbations of contrast, resolution, pose and view, and score "
        "the confidences. Default: 0",
    )
    add(
        "-composites",
        type=int,
        default=0,
        metavar="N",
        help="Also label N whole spines composed of the folder's cervical and lumbar scans. Default: 0",
    )
    add(
        "-masks",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also segment each scan that has true masks, and score ours; with -stress 1 under the "
        "perturbations, too. Default: 0",
    )
    add("-weights-masks", metavar="FILE", help="Weights of the masks other than the shipped ones")
    add("-confidences", metavar="CSV", help="Write each confidence, and whether the result was right")
    add(
        "-reliability",
        metavar="PNG",
        help="Draw the share of right results against confidence",
    )
    add("-seed", type=int, default=0, metavar="N", help="Seed of the random changes of -stress. Default: 0")
    add_networks(parser)
    return parser


def main(
    argv: Sequence[str] | None = None,
    *,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
) -> int:
    """Run the command, on loaded models instead of those of the options.

    Returns 0, or 1 after one line on stderr.
    """
    parser = get_parser()
    arguments = parser.parse(argv)
    if arguments.weights_masks and not arguments.masks:
        parser.error("-weights-masks does nothing without -masks 1")
    arguments.model, arguments.mask_model = model, mask_model
    return run(_evaluate, arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sct_deepspine.evaluation.run import (
        composite_cases,
        confidence_report,
        evaluate_cases,
        evaluate_folder,
        folder_cases,
        outcomes_csv,
        report,
        results_csv,
        stress_report,
    )
    from sct_deepspine.io.annotations import read_annotations
    from sct_deepspine.io.files import write_text
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.reporting.figures import write_reliability

    model = arguments.model or LabelingModel.load(arguments.weights, device=arguments.device)
    total = len(read_annotations(arguments.i))
    each = evaluate_folder(arguments.i, weights=model)
    results = list(tqdm(each, total=total, unit="scan", disable=None if arguments.v else True))
    if arguments.o:
        write_text(arguments.o, results_csv(results))
    print(report(results))
    logging.getLogger("sct_deepspine").setLevel(logging.ERROR)  # failures are the tables' to tell
    named = [("plain", result) for result in results]
    bar = {"unit": "case", "disable": None if arguments.v else True}
    if arguments.stress:
        cases = folder_cases(arguments.i, seed=arguments.seed)
        named = list(tqdm(evaluate_cases(cases, weights=model), **bar))
        print(f"\n{stress_report(named)}")
    if arguments.composites:
        cases = composite_cases(_composites(arguments), seed=arguments.seed)
        whole = list(tqdm(evaluate_cases(cases, weights=model), **bar))
        print(f"\n{stress_report(whole)}")
        named += whole
    print(f"\n{confidence_report(o for _, result in named for o in result.outcomes)}")
    if arguments.masks:
        print(f"\n{_mask_reports(arguments, model)}")
    if arguments.confidences:
        write_text(arguments.confidences, outcomes_csv(named))
    if arguments.reliability:
        write_reliability([j for _, result in named for j in result.outcomes], arguments.reliability)
    return FAILURE if all(result.error for result in results) else 0


def _mask_reports(arguments: argparse.Namespace, labeling: LabelingModel) -> str:
    import numpy as np
    from tqdm import tqdm

    from sct_deepspine.evaluation.masks import area_report, mask_report, segment_and_score
    from sct_deepspine.io.annotations import read_scans
    from sct_deepspine.segmentation.model import SegmentationModel
    from sct_deepspine.simulation.perturbations import Case, perturbed

    model = arguments.mask_model or SegmentationModel.load(arguments.weights_masks, device=arguments.device)
    results = []
    scans = [scan for scan in read_scans(arguments.i) if scan.has_masks]
    for index, scan in enumerate(tqdm(scans, unit="scan", disable=None if arguments.v else True)):
        plain = Case("plain", scan.volume, scan.discs, scan.span_z_mm)
        rng = np.random.default_rng((arguments.seed, index))
        for case in perturbed(scan, rng) if arguments.stress else (plain,):
            results.append(segment_and_score(scan, case, model=model, labeling=labeling))
    seconds = np.mean([result.seconds for result in results])
    return "\n\n".join(
        [mask_report(results), area_report(results), f"{seconds:.2f} s a scan on average, discs and masks"]
    )


def _composites(arguments: argparse.Namespace) -> Iterator[LabelledScan]:
    import numpy as np

    from sct_deepspine.errors import ImageError
    from sct_deepspine.io.annotations import read_scans
    from sct_deepspine.simulation.composite import can_compose, make_composite

    scans = read_scans(arguments.i)
    if not can_compose(scans):
        raise ImageError(
            f"{arguments.i} holds no cervical scan (C2/C3 to T1/T2) or no lumbar scan (T12/L1 to L5/S1), "
            "which a composite needs"
        )
    for number in range(arguments.composites):
        scan = make_composite(np.random.default_rng((arguments.seed, number)), scans)
        yield replace(scan, name=f"composite {number + 1}", subject=f"composite {number + 1}")
