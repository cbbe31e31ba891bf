"""The command ``sct_deepspine_batch``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sct_deepspine.cli._common import (
    FAILURE,
    Arguments,
    about,
    add_networks,
    interruption_code,
    requests_to_stop,
    run,
)
from sct_deepspine.io.files import plain_line

if TYPE_CHECKING:
    from sct_deepspine.batch import Row
    from sct_deepspine.io.bids import ScanFile
    from sct_deepspine.io.disc_labels import GivenLabels, ReviewedScan
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel

__all__ = ["get_parser", "main"]

DESCRIPTION = """\
Label the discs of every scan of a cohort. Writes BIDS derivatives (OUT_DIR/derivatives/sct_deepspine/...
_label-discs_dlabel.nii.gz and .json), summary.csv, and index.html, on which the least confident scans
come first. A scan that fails does not stop the others: it is listed in the table, and the exit code is 1.
After an interruption, run the command again: finished scans are skipped.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(
        "sct_deepspine_batch", DESCRIPTION, "sct_deepspine_batch -i dataset -o results -contrast T2w -jobs 2"
    )
    parser.mandatory.add_argument(
        "-i",
        metavar="SOURCE",
        required=True,
        help="BIDS dataset, any folder, a glob in quotes, or a text file with one image per line",
    )
    parser.mandatory.add_argument(
        "-ofolder",
        "-o",
        dest="o",
        metavar="OUT_DIR",
        required=True,
        help="Folder of results (-o is the old spelling)",
    )
    add = parser.optional.add_argument
    add(
        "-include",
        metavar="PATTERN",
        nargs="+",
        default=[],
        help="Files to include, as shell patterns of their names (not regular expressions). "
        'Example: "*_T2w.nii.gz"',
    )
    add(
        "-exclude",
        metavar="PATTERN",
        nargs="+",
        default=[],
        help='Files to exclude, likewise. Example: "*axial*"',
    )
    add("-contrast", metavar="C", nargs="+", default=[], help="BIDS suffixes to include: T1w T2w …")
    add(
        "-corrections",
        metavar="JSON",
        help="File saved by the review page (corrections.json): corrected discs are written exactly as set, "
        "also to derivatives/labels, and kept by every later run; ratings go to ratings.tsv",
    )
    add("-jobs", type=int, default=1, metavar="N", help="Processes, which share the cores. Default: 1")
    add(
        "-scheduler",
        metavar="ADDRESS",
        help="Use the workers of a Dask cluster instead, such as tcp://10.0.0.1:8786. They must see the "
        "same files under the same paths",
    )
    add(
        "-upper",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also write C1/C2 (2) and the top of C1 (1): where detected, else extrapolated. Default: 0",
    )
    add(
        "-masks",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also segment cord, canal, vertebrae and discs, and show them on index.html. Files of a BIDS "
        "scan have BIDS names (space-T2w_label-cord_mask), others end in _spine, _seg, _canal, _seg_labeled. "
        "The cord is for registration and levels, not for its area. Default: 0",
    )
    switches = {
        "-csv": "Also write the discs of each scan as CSV",
        "-slicer": "Also write the discs of each scan as 3D Slicer markups (.mrk.json)",
    }
    for name, text in switches.items():
        add(name, type=int, choices=(0, 1), default=0, help=f"{text}. Default: 0")
    add(
        "-session",
        type=int,
        choices=(0, 1),
        default=1,
        help="Label all images of a BIDS session together, as one spine: landmarks in one determine the "
        "levels in all. 0: each image by itself. Default: 1",
    )
    add(
        "-min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="A scan fails if the probability that every level is right is below this. Default: 0",
    )
    register = parser.group("registration").add_argument
    register(
        "-register",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also register each scan to PAM50 with sct_register_to_template (needs SCT and -masks 1): "
        "warps go to SCAN_reg beside the labels. A scan that can't be registered keeps its labels. "
        "Default: 0",
    )
    register("-c", choices=("t1", "t2", "t2s"), help="Contrast of the template for -register. Default: t2")
    register("-t", metavar="DIR", help="Folder of the template for -register. Default: SCT's PAM50")
    add_networks(parser).add_argument(
        "-weights-masks", metavar="FILE", help="Weights of the masks other than the shipped ones"
    )
    return parser


def main(
    argv: Sequence[str] | None = None,
    *,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
) -> int:
    """Run the command; return 0, 1 if a scan failed, 130 if interrupted.

    Loaded models are used instead of ``-weights-discs`` and ``-weights-masks`` where scans are labelled in
    this process.
    """
    parser = get_parser()
    arguments = parser.parse(argv)
    if arguments.jobs < 1:
        parser.error(f"argument -jobs: expected at least 1, got {arguments.jobs}")
    if arguments.scheduler and arguments.jobs != 1:
        parser.error("-jobs and -scheduler exclude each other: a cluster has its own workers")
    if not 0 <= arguments.min_confidence <= 1:
        parser.error(f"argument -min-confidence: expected 0 to 1, got {arguments.min_confidence:g}")
    if arguments.weights_masks and not arguments.masks:
        parser.error("-weights-masks does nothing without -masks 1")
    if arguments.register and not arguments.masks:
        parser.error("-register 1 needs -masks 1: it uses their cord mask")
    for option in ("c", "t"):
        if getattr(arguments, option) is not None and not arguments.register:
            parser.error(f"-{option} does nothing without -register 1")
    arguments.model, arguments.mask_model = model, mask_model
    return run(_batch, arguments)


def _batch(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sct_deepspine.batch import BatchOptions, run_batch, write_overview
    from sct_deepspine.io.bids import find_scans
    from sct_deepspine.io.disc_labels import read_page_corrections
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.sct.registration import check_registration
    from sct_deepspine.segmentation.model import SegmentationModel
    from sct_deepspine.workflow.review import keep_ratings

    contrast = (arguments.c or "t2") if arguments.register else None
    if contrast:
        check_registration(contrast, arguments.t)
    # What is wrong with the weights is no scan's fault.
    model = arguments.model or LabelingModel.load(arguments.weights, device=arguments.device)
    mask_model = arguments.mask_model
    if arguments.masks and mask_model is None:
        mask_model = SegmentationModel.load(arguments.weights_masks, device=arguments.device)
    scans = find_scans(
        arguments.i, include=arguments.include, exclude=arguments.exclude, contrasts=arguments.contrast
    )
    weights, weights_masks = (
        str(Path(given).resolve()) if given else None
        for given in (arguments.weights, arguments.weights_masks)
    )
    reviewed = read_page_corrections(arguments.corrections) if arguments.corrections else ()
    corrections = _corrections(reviewed, scans, arguments)
    options = BatchOptions(
        Path(arguments.o).resolve(),
        weights,
        arguments.device,
        bool(arguments.upper),
        corrections,
        bool(arguments.masks),
        weights_masks,
        csv=bool(arguments.csv),
        slicer=bool(arguments.slicer),
        min_confidence=arguments.min_confidence,
        together=bool(arguments.session),
        register=contrast,
        template=str(Path(arguments.t).resolve()) if arguments.t else None,
    )
    rows: list[Row] = []
    bar = tqdm(total=len(scans), unit="scan", disable=None if arguments.v else True)
    with bar, requests_to_stop() as signals:
        for row in run_batch(
            scans,
            options,
            jobs=arguments.jobs,
            scheduler=arguments.scheduler,
            model=model,
            mask_model=mask_model,
            stop=lambda: bool(signals),
        ):
            rows.append(row)
            bar.update()
            if arguments.v and bar.disable:  # no terminal
                print(plain_line(_line(row, len(rows), len(scans))), file=sys.stderr, flush=True)
    keep_ratings(options.derivatives, reviewed)
    written = write_overview(options.derivatives)
    for row in rows:
        if row.error:
            print(plain_line(f"FAILED {row.scan}: {row.error}"), file=sys.stderr)
    if arguments.v:
        _report(rows, len(scans), written)
    if signals:
        print(f"interrupted after {len(rows)} of {len(scans)} scans; run again to go on", file=sys.stderr)
        return interruption_code(signals[0])
    return FAILURE if any(row.error for row in rows) else 0


def _corrections(
    reviewed: Sequence[ReviewedScan], scans: Sequence[ScanFile], arguments: argparse.Namespace
) -> dict[str, GivenLabels]:
    """Return the corrections of the scans that are selected; those of the others are passed over."""
    from sct_deepspine.errors import ImageError
    from sct_deepspine.io.bids import find_scans
    from sct_deepspine.workflow.review import matched_corrections

    every = scans
    if reviewed and (arguments.include or arguments.exclude or arguments.contrast):
        with suppress(ImageError):  # two scans of one name, of which the selection holds one
            every = find_scans(arguments.i)
    with about("-corrections", arguments.corrections):
        corrections = matched_corrections(reviewed, every)
    selected = {scan.name for scan in scans}
    others = sorted(corrections.keys() - selected)
    if others and arguments.v:
        print(
            plain_line(f"corrections of scans that are not selected are left for later: {', '.join(others)}")
        )
    return {name: labels for name, labels in corrections.items() if name in selected}


def _line(row: Row, number: int, total: int) -> str:
    """Return what came of a scan, for a log."""
    if row.error:
        found = "failed"
    else:
        found = f"{row.status}, {row.discs} discs, {row.first} to {row.last}, {row.level_confidence:.2f}"
    return f"{number}/{total} {row.scan}: {found}"


def _report(rows: Sequence[Row], total: int, written: Sequence[Path]) -> None:
    doubtful = [row for row in rows if row.is_doubtful]
    for row in sorted(doubtful, key=lambda row: row.level_confidence):
        least = f"level confidence {row.level_confidence:.2f}, of a disc {row.least_confidence:.2f} at least"
        print(plain_line(f"DOUBTFUL {row.scan}: {least}"))
    for row in rows:
        if row.removed:
            print(plain_line(f"{row.scan}: removed, out of date: {row.removed}"))
    counts = {
        status: sum(row.status == status for row in rows)
        for status in ("done", "skipped", "corrected", "failed")
    }
    print(f"{total} scans: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    print("Written:", *(f"  {path}" for path in written), sep="\n")
