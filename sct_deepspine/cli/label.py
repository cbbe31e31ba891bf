"""The command ``sct_deepspine_label``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sct_deepspine.cli._common import Arguments, about, add_networks, one_matrix_thread, run
from sct_deepspine.cli._reports import add_report_arguments, refuse_idle_names

if TYPE_CHECKING:
    from sct_deepspine.cli._products import Products
    from sct_deepspine.io.annotations import LabelledScan
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel
    from sct_deepspine.workflow.request import ScanRequest
    from sct_deepspine.workflow.result import ScanResult

__all__ = ["get_parser", "main"]

PROGRAM = "sct_deepspine_label"

DESCRIPTION = """\
Label the intervertebral discs of a spine MRI, of any contrast, orientation and field of view.
Writes one voxel per disc at its posterior tip, with SCT's disc values (3 is C2/C3, 8 is C7/T1,
20 is T12/L1, 25 is L5/S1), ready for sct_register_to_template -ldisc.
"""


def get_parser() -> Arguments:
    """Return the parser of the command."""
    parser = Arguments(PROGRAM, DESCRIPTION, "sct_deepspine_label -i t2.nii.gz -masks 1")
    parser.mandatory.add_argument(
        "-i",
        metavar="IMAGE",
        nargs="+",
        help="Image (NIfTI, one 3-D volume), or several of one person in scanner coordinates, which are then "
        "labelled together: landmarks in one determine the levels in all. Example: t2.nii.gz",
    )
    _add_input(parser)
    _add_correction(parser)
    _add_outputs(parser)
    _add_quality_control(parser)
    _add_registration(parser)
    add_networks(parser).add_argument(
        "-weights-masks", metavar="FILE", help="Weights of the masks other than the shipped ones"
    )
    parser.misc.add_argument(
        "-demo",
        action="store_true",
        help="Instead of an image, make a synthetic scan, label it, and show the error against its truth",
    )
    parser.misc.add_argument(
        "-r", type=int, choices=(0, 1), default=1, help="Remove temporary files. Default: 1"
    )
    return parser


def _add_input(parser: Arguments) -> None:
    group = parser.group("input")
    group.add_argument(
        "-localizer",
        metavar="FILE",
        nargs="+",
        default=[],
        help="Further images of this person, used for level assignment only; no output is written",
    )
    group.add_argument(
        "-s", metavar="SEG", help="Spinal cord mask, on any grid: the centreline is taken from it"
    )
    straight = group.add_mutually_exclusive_group()
    straight.add_argument(
        "-straight",
        choices=("auto", "sct", "off"),
        default="auto",
        help="How the fine stage straightens the spine: auto (built in), sct (sct_straighten_spinalcord, "
        "needs -s) or off. Default: auto",
    )
    straight.add_argument(
        "-warps",
        metavar="DIR",
        help="Straighten with warp_curve2straight.nii.gz and warp_straight2curve.nii.gz of this folder",
    )
    group.add_argument(
        "-min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="Write nothing, and exit with 1, if the probability that every level is right is below this. "
        "Default: 0",
    )


def _add_correction(parser: Arguments) -> None:
    anchor = parser.group("correction").add_mutually_exclusive_group()
    anchor.add_argument(
        "-initdisc",
        metavar="VALUE,Z",
        help="A disc whose level is known, and its slice counted from the inferior end. The others follow. "
        "Example: with -initdisc 3,142 the disc nearest to slice 142 is C2/C3",
    )
    anchor.add_argument("-initz", metavar="Z,VALUE", help="The same in the notation of sct_label_vertebrae")
    anchor.add_argument(
        "-initlabel",
        metavar="FILE",
        help="Discs whose level is known: labels of any scan of the session (those outside the image are "
        "ignored), or the labels that this command wrote, edited by hand: renumber one and the others "
        "follow, move one and it stays there, remove one and it stays away. A label image, CSV or 3D Slicer "
        "markups",
    )
    anchor.add_argument(
        "-ldisc",
        metavar="FILE",
        help="All discs of this image, checked by a person: used unchanged",
    )


def _add_outputs(parser: Arguments) -> None:
    group = parser.group("outputs")
    place = group.add_mutually_exclusive_group()
    place.add_argument("-o", metavar="FILE", help="Label image to write. Default: IMAGE_discs.nii.gz")
    place.add_argument("-ofolder", metavar="DIR", help="Folder to write to. Default: the current one")
    switches = {
        "-upper": "Also write C1/C2 (2) and the top of C1 (1): where detected, else extrapolated",
        "-csv": "Also write the discs as CSV",
        "-slicer": "Also write the discs as 3D Slicer markups (.mrk.json)",
        "-heatmaps": "Also write one heat map per value (4-D NIfTI, with a JSON file that names the volumes)",
        "-masks": "Also segment the spine, as sct_deepspine_segment does: IMAGE_spine, _seg, _canal, "
        "_seg_labeled. The cord (_seg) is for registration and levels, not for its area",
        "-attention": "Also write the network's attention map (NIfTI)",
        "-overwrite": "Replace files that this command did not write, or that were edited since",
    }
    for name, text in switches.items():
        group.add_argument(name, type=int, choices=(0, 1), default=0, help=f"{text}. Default: 0")
    group.add_argument(
        "-preview",
        type=int,
        choices=(0, 1),
        default=1,
        help="Write IMAGE_discs.png, a picture of the discs and of the masks, if any. Default: 1",
    )


def _add_quality_control(parser: Arguments) -> None:
    group = add_report_arguments(parser)
    group.add_argument(
        "-qc-png", metavar="FILE", help="Write a larger picture of the discs, with the heat map"
    )


def _add_registration(parser: Arguments) -> None:
    add = parser.group("registration").add_argument
    add(
        "-register",
        type=int,
        choices=(0, 1),
        default=0,
        help="Also run sct_register_to_template (needs SCT) with these discs and the cord mask of -s or, "
        "without it, our own, as -masks 1 makes it; writes to IMAGE_reg beside the labels. Default: 0",
    )
    add("-c", choices=("t1", "t2", "t2s"), help="Contrast to register with. Default: t2")
    add("-t", metavar="DIR", help="Template to register to. Default: SCT's PAM50")
    add(
        "-param",
        metavar="STEPS",
        help="Steps of the registration, as in sct_register_to_template",
    )
    add(
        "-n-labels",
        type=int,
        choices=(1, 2),
        metavar="N",
        help="Register with the best one or two discs instead of all",
    )


def main(
    argv: Sequence[str] | None = None,
    *,
    model: LabelingModel | None = None,
    mask_model: SegmentationModel | None = None,
    demo_scan: LabelledScan | None = None,
) -> int:
    """Run the command.

    Parameters
    ----------
    argv
        Arguments; by default those of the process.
    model, mask_model
        A loaded model instead of ``-weights``, and one of the masks instead of ``-weights-masks``.
    demo_scan
        The scan of ``-demo`` instead of a synthetic one.

    Returns
    -------
    int
        0, or 1 after one line on stderr.
    """
    parser = get_parser()
    arguments = parser.parse(argv)
    arguments.model, arguments.mask_model, arguments.demo_scan = model, mask_model, demo_scan
    arguments.words = [PROGRAM, *(sys.argv[1:] if argv is None else argv)]
    arguments.images = arguments.i or []
    if bool(arguments.images) == arguments.demo:
        parser.error(
            "give an image with -i, or -demo" if not arguments.images else "-i and -demo exclude each other"
        )
    arguments.initdisc = _disc_and_slice(parser, arguments)
    if arguments.weights_masks and not (arguments.masks or (arguments.register and not arguments.s)):
        parser.error("-weights-masks does nothing without -masks 1")
    if not 0 <= arguments.min_confidence <= 1:
        parser.error(f"argument -min-confidence: expected 0 to 1, got {arguments.min_confidence:g}")
    if arguments.straight == "sct" and not arguments.s:
        parser.error("-straight sct needs the cord mask: give -s SEG")
    _refuse_idle_options(parser, arguments)
    together = len(arguments.images) > 1 or bool(arguments.localizer)
    if together:
        _refuse_options_of_one_image(parser, arguments)
    arguments.i = arguments.images[0] if arguments.images else None
    arguments.c = arguments.c or "t2"
    return run(_demo if arguments.demo else _label_session if together else _label, arguments)


def _disc_and_slice(parser: Arguments, arguments: argparse.Namespace) -> tuple[int, int] | None:
    """Return value and slice of -initdisc or -initz."""
    for option, form in (("initdisc", "VALUE,Z such as 3,142"), ("initz", "Z,VALUE such as 142,3")):
        given = getattr(arguments, option)
        if given is None:
            continue
        try:
            first, second = (int(word) for word in given.split(","))
        except ValueError:
            parser.error(f"argument -{option}: expected {form}, got {given}")
        return (first, second) if option == "initdisc" else (second, first)
    return None


def _refuse_idle_options(parser: Arguments, arguments: argparse.Namespace) -> None:
    """Refuse options that would do nothing without another one."""
    for option in ("t", "param", "n_labels"):
        if getattr(arguments, option) is not None and not arguments.register:
            parser.error(f"-{option.replace('_', '-')} does nothing without -register")
    for option in ("initdisc", "initlabel", "ldisc", "s"):
        if getattr(arguments, option) is not None and arguments.demo:
            parser.error(f"-{option} does nothing with -demo")
    if arguments.ldisc and (arguments.warps or arguments.straight != "auto"):
        parser.error("-straight and -warps do nothing with -ldisc: its labels are used unchanged")
    refuse_idle_names(parser, arguments)


OF_ONE_IMAGE = "o", "s", "warps", "heatmaps", "attention", "qc_png", "register"
"""Options that name or need one image."""


def _refuse_options_of_one_image(parser: Arguments, arguments: argparse.Namespace) -> None:
    """Refuse what can't be done with several images."""
    for option in OF_ONE_IMAGE:
        if getattr(arguments, option):
            parser.error(f"-{option.replace('_', '-')} is of one image: give one with -i, without -localizer")
    if arguments.straight != "auto":
        parser.error("-straight is of one image: give one with -i, without -localizer")
    if arguments.demo and arguments.localizer:
        parser.error("-localizer does nothing with -demo")


def _label(arguments: argparse.Namespace) -> int:
    with one_matrix_thread():
        from sct_deepspine.cli._products import Products

        products = Products(arguments, Path(arguments.i))
        result = _process(arguments, products)
        products.write(result)
    if arguments.v:
        products.report(result)
    if arguments.register:
        products.register(result)
    return 0


def _label_session(arguments: argparse.Namespace) -> int:
    """Label several images of one person together."""
    from sct_deepspine.cli._products import Products, check_names
    from sct_deepspine.errors import AnchorError
    from sct_deepspine.io.images import read_one_volume
    from sct_deepspine.labeling.checks import read_scan
    from sct_deepspine.workflow.session import process_session

    check_names(arguments.images)
    products = [
        Products(argparse.Namespace(**vars(arguments) | {"i": image}), Path(image))
        for image in arguments.images
    ]
    volumes = []
    for option, files in (("-i", arguments.images), ("-localizer", arguments.localizer)):
        for file in files:
            with about(option, file):
                volumes.append(read_scan(read_one_volume(file)))
    names = [Path(file).name for file in (*arguments.images, *arguments.localizer)]
    request = _request(arguments, products[0])
    model, mask_model = _models(arguments, products[0])
    with about(*_option_of_levels(arguments), AnchorError):
        result = process_session(
            arguments.images,
            request,
            localizers=arguments.localizer,
            names=names,
            volumes=volumes,
            model=model,
            mask_model=mask_model,
        )
    pairs = list(zip(products, result.scans, strict=True))
    for product, scan in pairs:
        if scan.labels.discs:
            product.check(scan)
    for n, (product, scan) in enumerate(pairs):
        if scan.labels.discs:
            product.write(scan, session=result.record(n, names))
        if arguments.v:
            product.report_briefly(scan)
    return 0


def _process(arguments: argparse.Namespace, products: Products) -> ScanResult:
    from sct_deepspine.errors import AnchorError
    from sct_deepspine.labeling.checks import read_scan
    from sct_deepspine.workflow.scan import process_scan

    with about("-i", arguments.i):
        volume = read_scan(arguments.i)
    request = _request(arguments, products)
    model, mask_model = _models(arguments, products)
    with about(*_option_of_levels(arguments), AnchorError):
        result = process_scan(volume, request, model=model, mask_model=mask_model)
    return result.with_source(arguments.i)


def _models(
    arguments: argparse.Namespace, products: Products
) -> tuple[LabelingModel, SegmentationModel | None]:
    """Load the networks that are needed."""
    from sct_deepspine.labeling.model import LabelingModel
    from sct_deepspine.segmentation.model import SegmentationModel

    model = arguments.model or LabelingModel.load(arguments.weights, device=arguments.device)
    if not products.needs_masks:
        return model, None
    return model, arguments.mask_model or SegmentationModel.load(
        arguments.weights_masks, device=arguments.device
    )


def _request(arguments: argparse.Namespace, products: Products) -> ScanRequest:
    """Return what the options ask for."""
    from sct_deepspine.labeling.canal import given_centerline
    from sct_deepspine.workflow.geometry import check_mask_space
    from sct_deepspine.workflow.given import read_given_by_image
    from sct_deepspine.workflow.request import ScanRequest

    with about("-s", arguments.s):
        cord_line = given_centerline(arguments.s, None)
        if arguments.s:
            check_mask_space(arguments.s, arguments.i)
    given: dict[str, Any] = {}
    for option, meaning in (("initlabel", "edits"), ("ldisc", "labels")):
        path = getattr(arguments, option)
        if path is not None:
            with about(f"-{option}", path):
                labels = read_given_by_image(path, arguments.images)
            # Which of several images they belong to is determined with the images.
            given[meaning] = path if len(arguments.images) > 1 else labels[0]
    return ScanRequest(
        anchor_slice=arguments.initdisc,
        **given,
        cord=arguments.s,
        centerline=cord_line,
        straight=_straight(arguments),
        upper=bool(arguments.upper),
        masks=products.needs_masks,
        maps=products.needs_maps,
        min_confidence=arguments.min_confidence,
    )


def _option_of_levels(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return the option that tells the levels, and what was given with it."""
    for option in ("initlabel", "ldisc", "initz"):
        if getattr(arguments, option) is not None:
            return f"-{option}", getattr(arguments, option)
    return "-initdisc", ",".join(map(str, arguments.initdisc or ()))


def _straight(arguments: argparse.Namespace) -> Any:
    """Return the line to straighten along, or how to straighten."""
    if arguments.warps:
        from sct_deepspine.io.warps import read_straightening

        return read_straightening(arguments.warps).axis_centerline()
    if arguments.straight != "sct":
        return arguments.straight
    from sct_deepspine.sct.registration import straighten
    from sct_deepspine.sct.toolbox import temporary_folder

    with temporary_folder(keep=not arguments.r) as folder:
        return straighten(arguments.i, arguments.s, folder).axis_centerline()


def _demo(arguments: argparse.Namespace) -> int:
    """Make a phantom scan, label it, and compare with its truth."""
    import nibabel as nib
    import numpy as np

    from sct_deepspine.cli._products import Products
    from sct_deepspine.io.files import make_folder, written_whole
    from sct_deepspine.simulation.phantom import make_phantom

    folder = Path(arguments.o).parent if arguments.o else Path(arguments.ofolder or ".")
    image = folder / "phantom.nii.gz"
    arguments.i = str(image)
    products = Products(arguments, image)
    phantom = arguments.demo_scan or make_phantom(np.random.default_rng(7), first=3, last=16)
    make_folder(folder)
    with written_whole(image) as partial:
        nib.save(nib.Nifti1Image(phantom.volume.data, phantom.volume.grid.affine), partial)
    result = _process(arguments, products)
    products.write(result)
    if arguments.v:
        products.report(result)
    found = {disc.value: disc.point_world for disc in result.labels.discs}
    errors = [float(np.linalg.norm(found[v] - tip)) for v, tip in phantom.discs.items() if v in found]
    print(
        f"\nTruth of the phantom: {len(phantom.discs)} discs, {len(errors)} found, "
        f"{len(found.keys() - phantom.discs.keys())} invented; "
        f"error of the same disc: mean {np.mean(errors or [np.nan]):.2f} mm, "
        f"largest {np.max(errors or [np.nan]):.2f} mm"
    )
    return 0
