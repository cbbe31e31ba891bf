"""The command ``sct_deepspine_segment``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sct_deepspine.cli._common import Arguments, about, add_networks, one_matrix_thread, run
from sct_deepspine.cli._reports import (
    add_report_arguments,
    add_to_reports,
    page_is_wanted,
    refuse_idle_names,
)

if TYPE_CHECKING:
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel

__all__ = ["get_parser", "main"]

PROGRAM = "sct_deepspine_segment"

DESCRIPTION = """\
Segment the spinal cord, the canal, the vertebrae and the discs of a spine MRI. Writes

  IMAGE_spine.nii.gz        all structures, with TotalSpineSeg's values: 1 cord, 2 canal, 11-17 C1-C7,
                            21-32 T1-T12, 41-45 L1-L5, 63-67, 71-82, 91-95 and 100 the discs
  IMAGE_seg.nii.gz          the cord, as SCT's commands take it
  IMAGE_canal.nii.gz        the dural sac: cord, fluid and roots
  IMAGE_seg_labeled.nii.gz  the cord by vertebral level, as sct_label_vertebrae writes it
  IMAGE_spine.png           a picture of them
  IMAGE_spine.json          volumes, confidence of each level, and structures without measured accuracy

The cord is for registration and levels: to measure its area, use sct_deepseg spinalcord.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(PROGRAM, DESCRIPTION, "sct_deepspine_segment -i t2.nii.gz -ldisc t2_discs.nii.gz")
    parser.mandatory.add_argument(
        "-i", metavar="IMAGE", required=True, help="Image (NIfTI, one 3-D volume). Example: t2.nii.gz"
    )
    add = parser.optional.add_argument
    add(
        "-ldisc",
        metavar="FILE",
        help="Disc labels of this image that a person checked, instead of labelling it: "
        "a label image, CSV or 3D Slicer markups",
    )
    add("-ofolder", metavar="DIR", help="Folder to write to. Default: the current one")
    add(
        "-overwrite",
        type=int,
        choices=(0, 1),
        default=0,
        help="Replace files that this command did not write, or that were edited since. Default: 0",
    )
    add(
        "-preview",
        type=int,
        choices=(0, 1),
        default=1,
        help="Write IMAGE_spine.png, a picture of the discs and masks. Default: 1",
    )
    add_report_arguments(parser)
    add_networks(parser).add_argument(
        "-weights-masks", metavar="FILE", help="Weights of the masks other than the shipped ones"
    )
    return parser


def main(
    argv: Sequence[str] | None = None,
    *,
    model: SegmentationModel | None = None,
    labeling: LabelingModel | None = None,
) -> int:
    """Run the command.

    Parameters
    ----------
    argv
        Arguments; by default those of the process.
    model, labeling
        Loaded models instead of ``-weights-masks`` and ``-weights-discs``.

    Returns
    -------
    int
        0, or 1 after one line on stderr.
    """
    parser = get_parser()
    arguments = parser.parse(argv)
    refuse_idle_names(parser, arguments)
    arguments.model, arguments.labeling = model, labeling
    arguments.words = [PROGRAM, *(sys.argv[1:] if argv is None else argv)]
    with one_matrix_thread():
        return run(_segment, arguments)


def _segment(arguments: argparse.Namespace) -> int:
    from sct_deepspine.errors import AnchorError, NoDiscsError
    from sct_deepspine.io.bids import image_stem
    from sct_deepspine.labeling.checks import read_scan
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.reporting.tables import mask_table
    from sct_deepspine.sct.toolbox import show_viewer
    from sct_deepspine.segmentation.model import SegmentationModel
    from sct_deepspine.workflow.given import read_given
    from sct_deepspine.workflow.names import mask_names
    from sct_deepspine.workflow.request import ScanRequest
    from sct_deepspine.workflow.result import Outputs, save_result
    from sct_deepspine.workflow.scan import NO_MASKS, process_scan

    image, folder = Path(arguments.i), Path(arguments.ofolder or ".")
    model = arguments.model or SegmentationModel.load(arguments.weights_masks, device=arguments.device)
    labeling = arguments.labeling or LabelingModel.load(arguments.weights, device=arguments.device)
    with about("-i", image):
        volume = read_scan(image)
    with about("-ldisc", arguments.ldisc, AnchorError):
        labels = read_given(arguments.ldisc, arguments.i) if arguments.ldisc else None
        request = ScanRequest(labels=labels, masks=True, maps=page_is_wanted(arguments))
        result = process_scan(volume, request, model=labeling, mask_model=model).with_source(arguments.i)
    if result.masks is None:
        raise NoDiscsError("; ".join(note for note in result.notes if note.startswith(NO_MASKS)))
    saved = save_result(
        result,
        mask_names(folder, image_stem(image)),
        Outputs(labels=False, preview=bool(arguments.preview)),
        overwrite=bool(arguments.overwrite),
        inputs=[Path(given) for given in (image, arguments.ldisc) if given],
        command=shlex.join(arguments.words),
    )
    pages = add_to_reports(arguments, result)
    if arguments.v:
        print(mask_table(result.masks))
        for sentence in result.notes:
            print(f"WARNING: {sentence}")
        print("\nWritten:", *(f"  {path}" for path in (*saved.written, *pages)), sep="\n")
        if saved.removed:
            print("Removed, out of date:", *(f"  {path}" for path in saved.removed), sep="\n")
        show_viewer(str(image), [str(saved.written[0])])
    return 0
