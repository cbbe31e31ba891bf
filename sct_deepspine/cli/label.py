"""The command ``sct_deepspine_label``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_deepspine.cli._common import Arguments, add_device, run

if TYPE_CHECKING:
    from sct_deepspine.discs import DiscLabels
    from sct_deepspine.volume import Volume

__all__ = ["get_parser", "main"]

PROGRAM = "sct_deepspine_label"

DESCRIPTION = """\
Label the intervertebral discs of a spine MRI, of any contrast, orientation and field of view.
Writes one voxel per disc at its posterior tip, with SCT's disc values (3 is C2/C3, 8 is C7/T1,
20 is T12/L1, 25 is L5/S1), ready for sct_register_to_template -ldisc.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(PROGRAM, DESCRIPTION)
    mandatory = parser.mandatory.add_mutually_exclusive_group(required=True)
    mandatory.add_argument("-i", metavar="IMAGE", help="Image (NIfTI, one 3-D volume). Example: t2.nii.gz")
    mandatory.add_argument(
        "-demo",
        action="store_true",
        help="Make a scan that never was, label it and show the error against its truth",
    )
    add = parser.optional.add_argument
    add("-s", metavar="SEG", help="Spinal cord mask, on any grid; the centreline is then taken from it")
    place = parser.optional.add_mutually_exclusive_group()
    place.add_argument("-o", metavar="FILE", help="Label image to write. Default: IMAGE_discs.nii.gz")
    place.add_argument("-ofolder", metavar="DIR", help="Folder to write to. Default: the current one")
    anchor = parser.optional.add_mutually_exclusive_group()
    anchor.add_argument(
        "-initdisc",
        metavar="VALUE,Z",
        help="A disc whose level is known, and its slice counted from the inferior end. The others follow. "
        "Example: -initdisc 3,142 puts C2/C3 at slice 142",
    )
    anchor.add_argument(
        "-initlabel",
        metavar="FILE",
        help="Label image with one disc or more whose level is known. The others follow",
    )
    add("-weights", metavar="FILE", help="Weights (.safetensors) other than the shipped ones")
    add_device(parser)
    add(
        "-upper",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also write C1/C2 (2) and the top of C1 (1), extrapolated",
    )
    add("-csv", type=int, choices=(0, 1), default=0, help="Also write the discs as CSV")
    add(
        "-slicer",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also write the discs as 3D Slicer markups (.mrk.json)",
    )
    add("-heatmaps", type=int, choices=(0, 1), default=0, help="Also write one heat map per disc (4-D NIfTI)")
    add(
        "-attention",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also write the network's attention map (NIfTI)",
    )
    add("-qc-png", metavar="FILE", help="Also write a picture of the discs and the heat maps")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv
        Arguments; by default those of the process.

    Returns
    -------
    int
        0, or 1 after one line on stderr.
    """
    parser = get_parser()
    arguments = parser.parse(argv)
    arguments.words = [PROGRAM, *(sys.argv[1:] if argv is None else argv)]
    if arguments.initdisc is not None:
        try:
            value, place = (int(word) for word in arguments.initdisc.split(","))
        except ValueError:
            parser.error(f"argument -initdisc: expected VALUE,Z such as 3,142, got {arguments.initdisc}")
        arguments.initdisc = value, place
    return run(_demo if arguments.demo else _label, arguments)


def _label(arguments: argparse.Namespace) -> int:
    labels, outputs = _label_file(arguments, Path(arguments.i))
    if arguments.v:
        _report(arguments, labels, outputs)
    return 0


def _label_file(arguments: argparse.Namespace, image: Path) -> tuple[DiscLabels, list[Path]]:
    from sct_deepspine.labeling import label_discs
    from sct_deepspine.volume import read_volume

    target = _target(arguments, image)
    volume = read_volume(image)
    labels = label_discs(
        volume,
        seg=arguments.s,
        anchor=_anchor(arguments, volume),
        weights=arguments.weights,
        device=arguments.device,
        return_maps=bool(arguments.heatmaps or arguments.attention or arguments.qc_png),
    )
    labels = labels.of(str(image))
    if arguments.upper:
        labels = labels.with_upper_discs()
    return labels, _write(arguments, labels, target)


def _target(arguments: argparse.Namespace, image: Path) -> Path:
    """Return the label image's path, having checked that it can be written before anything is computed."""
    from sct_deepspine.errors import OutputError

    stem = image.name
    for suffix in (".gz", ".nii", ".img", ".hdr", ".mgz"):
        stem = stem.removesuffix(suffix)
    target = Path(arguments.o) if arguments.o else Path(arguments.ofolder or ".") / f"{stem}_discs.nii.gz"
    if not target.name.endswith((".nii", ".nii.gz")):
        raise OutputError(f"the output must be .nii or .nii.gz, got {target}")
    for given in (image, arguments.s):
        if given and target.exists() and Path(given).exists() and target.samefile(given):
            raise OutputError(f"the output {target} is an input; give another name with -o")
    for folder in {target.parent, Path(arguments.qc_png).parent if arguments.qc_png else target.parent}:
        # The output folder is made if need be, but only when there is something to write.
        place = _existing(folder) if arguments.ofolder and folder == target.parent else folder
        if not place.is_dir():
            raise OutputError(f"no such folder: {place}")
        if not os.access(place, os.W_OK):
            raise OutputError(f"the folder {place} can't be written to")
    return target


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _anchor(arguments: argparse.Namespace, volume: Volume) -> Any:
    from sct_deepspine.anchors import anchor_at_slice, anchors_from_labels

    if arguments.initdisc is not None:
        value, slice_index = arguments.initdisc
        return anchor_at_slice(value, slice_index, volume)
    if arguments.initlabel is not None:
        return anchors_from_labels(arguments.initlabel)
    return None


def _write(arguments: argparse.Namespace, labels: DiscLabels, target: Path) -> list[Path]:
    from sct_deepspine import outputs
    from sct_deepspine.errors import DeepSpineError
    from sct_deepspine.files import make_folder, write_text

    base = target.with_name(target.name.removesuffix(".gz").removesuffix(".nii"))
    stem = base.name.removesuffix("_discs")
    if arguments.attention and (labels.drawn is None or labels.drawn.attention is None):
        raise DeepSpineError("these weights have no attention map; leave -attention out")
    labels.to_array()  # fails before the first file is written, if it fails
    make_folder(target.parent)
    written = [target, base.with_name(f"{base.name}.json")]
    labels.save(target)
    write_text(written[1], labels.to_json(command=shlex.join(arguments.words), GeneratedBy=_generated_by()))
    in_template = labels.for_template()
    if 0 < len(in_template.discs) < len(labels.discs):
        written.append(base.with_name(f"{base.name}_template.nii.gz"))
        in_template.save(written[-1])
    if arguments.csv:
        written.append(base.with_name(f"{base.name}.csv"))
        write_text(written[-1], labels.to_csv())
    if arguments.slicer:
        written.append(base.with_name(f"{base.name}.mrk.json"))
        outputs.write_markups(labels, written[-1])
    if arguments.heatmaps and labels.drawn is not None:
        written.append(base.with_name(f"{stem}_heatmaps.nii.gz"))
        outputs.write_heatmaps(labels.drawn, written[-1])
    if arguments.attention and labels.drawn is not None:
        written.append(base.with_name(f"{stem}_attention.nii.gz"))
        outputs.write_attention(labels.drawn, written[-1])
    if arguments.qc_png:
        from sct_deepspine.qc import write_png

        written.append(Path(arguments.qc_png))
        write_png(labels, written[-1])
    return written


def _generated_by() -> list[dict[str, str]]:
    from sct_deepspine import __version__

    return [{"Name": PROGRAM, "Version": __version__}]


def _report(arguments: argparse.Namespace, labels: DiscLabels, outputs: list[Path]) -> None:
    """Print what was found, where it went and what to run next."""
    print(_table(labels))
    for sentence in labels.warnings:
        print(f"WARNING: {sentence}")
    print("\nWritten:", *(f"  {path}" for path in outputs), sep="\n")
    image, discs = shlex.quote(str(arguments.i)), shlex.quote(str(outputs[0]))
    seg = shlex.quote(arguments.s) if arguments.s else "SEG"
    print(f"\nTo look at it:\n  fsleyes {image} -cm greyscale {discs} -cm subcortical")
    if not labels.for_template().discs:
        print("\nThe template ends at L1/L2: none of these discs is in it.")
        return
    known = next((path for path in outputs[1:] if path.name.endswith("_template.nii.gz")), outputs[0])
    print(
        f"\nNext (SEG is the cord mask, -c the contrast: t1, t2 or t2s):\n  sct_register_to_template "
        f"-i {image} -s {seg} -ldisc {shlex.quote(str(known))} -c t2"
    )


def _table(labels: DiscLabels) -> str:
    lines = [f"{'value':>5}  {'disc':<9} {'x mm':>8} {'y mm':>8} {'z mm':>8}  {'confidence':>10}"]
    for disc in labels.discs:
        x, y, z = disc.point_world
        note = "  interpolated" if disc.interpolated else ""
        lines.append(
            f"{disc.value:>5}  {disc.name:<9} {x:8.1f} {y:8.1f} {z:8.1f}  {disc.confidence:10.2f}{note}"
        )
    lines.append(
        f"{len(labels.discs)} discs; probability that every level is right: {labels.level_confidence:.2f}"
    )
    return "\n".join(lines)


def _demo(arguments: argparse.Namespace) -> int:
    """Make a phantom scan, label it, and compare with its truth."""
    import nibabel as nib
    import numpy as np

    from sct_deepspine.files import make_folder, written_whole
    from sct_deepspine.training.phantom import make_phantom

    folder = Path(arguments.o).parent if arguments.o else Path(arguments.ofolder or ".")
    image = folder / "phantom.nii.gz"
    arguments.i = str(image)
    _target(arguments, image)
    phantom = make_phantom(np.random.default_rng(0), first=3, last=16)
    make_folder(folder)
    with written_whole(image) as partial:
        nib.save(nib.Nifti1Image(phantom.volume.data, phantom.volume.grid.affine), partial)
    labels, outputs = _label_file(arguments, image)
    if arguments.v:
        _report(arguments, labels, [*outputs, image])
    found = {disc.value: disc.point_world for disc in labels.discs}
    errors = [float(np.linalg.norm(found[v] - tip)) for v, tip in phantom.discs.items() if v in found]
    print(
        f"\nTruth of the phantom: {len(phantom.discs)} discs, {len(errors)} found, "
        f"{len(found.keys() - phantom.discs.keys())} invented; "
        f"error of the same disc: mean {np.mean(errors or [np.nan]):.2f} mm, "
        f"largest {np.max(errors or [np.nan]):.2f} mm"
    )
    return 0
