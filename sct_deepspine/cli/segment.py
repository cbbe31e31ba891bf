"""The command ``sct_deepspine_segment``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sct_deepspine.cli._common import Arguments, about, add_networks, run

if TYPE_CHECKING:
    from sct_deepspine.geometry.volume import Volume
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.labels import DiscLabels
    from sct_deepspine.segmentation.model import SegmentationModel

__all__ = ["get_parser", "main"]

PROGRAM = "sct_deepspine_segment"

DESCRIPTION = """\
Segment the spinal cord, the canal, the vertebrae and the discs of a spine MRI. Writes

  IMAGE_spine.nii.gz        all of it, with TotalSpineSeg's values: 1 cord, 2 canal, 11-17 C1-C7,
                            21-32 T1-T12, 41-45 L1-L5, 63-67, 71-82, 91-95 and 100 the discs
  IMAGE_seg.nii.gz          the cord, as SCT's commands take it
  IMAGE_canal.nii.gz        the dural sac: cord, fluid and roots
  IMAGE_seg_labeled.nii.gz  the cord by vertebral level, as sct_label_vertebrae writes it
  IMAGE_spine.json          volumes, how sure each level is, and what was never measured
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(PROGRAM, DESCRIPTION)
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
        help="Replace files that this command did not write, or that were edited since",
    )
    add_networks(parser).add_argument(
        "-weights-discs", metavar="FILE", help="Weights of the labelling other than the shipped ones"
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
        Loaded models instead of ``-weights`` and ``-weights-discs``.

    Returns
    -------
    int
        0, or 1 after one line on stderr.
    """
    arguments = get_parser().parse(argv)
    arguments.model, arguments.labeling = model, labeling
    arguments.words = [PROGRAM, *(sys.argv[1:] if argv is None else argv)]
    return run(_segment, arguments)


def _segment(arguments: argparse.Namespace) -> int:
    from sct_deepspine._version import __version__
    from sct_deepspine.io.bids import image_stem
    from sct_deepspine.io.images import read_volume
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.labeling.pipeline import label_discs
    from sct_deepspine.reporting.results import write_results
    from sct_deepspine.reporting.tables import mask_table
    from sct_deepspine.segmentation.model import SegmentationModel
    from sct_deepspine.segmentation.pipeline import segment_spine

    image, folder = Path(arguments.i), Path(arguments.ofolder or ".")
    stem = image_stem(image)
    model = arguments.model or SegmentationModel.load(arguments.weights, device=arguments.device)
    labeling = arguments.labeling or LabelingModel.load(arguments.weights_discs, device=arguments.device)
    with about("-i", image):
        volume = read_volume(image)
    if arguments.ldisc:
        with about("-ldisc", arguments.ldisc):
            labels = _given_labels(arguments.ldisc, volume)
    else:
        labels = label_discs(volume, weights=labeling)
    masks = segment_spine(volume, labels=labels, weights=model, labeling=labeling)
    masks = masks.of(labels.of(arguments.i))
    written = write_results(
        masks.labels,
        folder / f"{stem}_spine.json",
        masks.writers(folder, stem),
        overwrite=bool(arguments.overwrite),
        command=shlex.join(arguments.words),
        GeneratedBy=[{"Name": PROGRAM, "Version": __version__}],
        masks=masks.as_dict(),
    )
    if arguments.v:
        print(mask_table(masks))
        for sentence in masks.warnings:
            print(f"WARNING: {sentence}")
        print("\nWritten:", *(f"  {path}" for path in written), sep="\n")
    return 0


def _given_labels(source: str, volume: Volume) -> DiscLabels:
    """Read the discs that a person checked."""
    from dataclasses import replace

    from sct_deepspine.anatomy import DISC_VALUES
    from sct_deepspine.labeling.corrections import labels_in_view, read_labelled_points
    from sct_deepspine.labels import DiscLabels

    points, notes = labels_in_view(read_labelled_points(source), volume.grid)
    told = DiscLabels((), volume.grid, 1.0, warnings=notes).with_tips(points)
    landmarks = tuple(disc for disc in told.discs if disc.value not in DISC_VALUES)
    return replace(told.without(disc.value for disc in landmarks), landmarks=landmarks)
