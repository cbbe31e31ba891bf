"""Which discs the registration to the template can be given safely."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import combinations
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import numpy as np

from sct_deepspine.anatomy import TEMPLATE_LAST_VALUE, last_template_value
from sct_deepspine.errors import SctError
from sct_deepspine.io.files import make_folder
from sct_deepspine.io.images import ImageLike, read_mask, read_volume
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.sct.toolbox import absolute, require_sct, run_command

if TYPE_CHECKING:
    from sct_deepspine.geometry.displacement import WarpedStraightSpace

__all__ = [
    "LeftOut",
    "Registration",
    "check_registration",
    "register_to_template",
    "remove_registration",
    "straighten",
    "template_labels",
    "usable_labels",
]


@dataclass(frozen=True)
class LeftOut:
    """A disc that is not given to the registration, and why."""

    value: int
    name: str
    reason: str


def usable_labels(labels: DiscLabels, seg: ImageLike | None = None) -> tuple[DiscLabels, tuple[LeftOut, ...]]:
    """Return which discs the registration can be given safely, if any.

    It takes values that the template has, each once, without a gap, and discs beside the cord mask only:
    others would collapse on the mask's end slice and overwrite each other there.

    Parameters
    ----------
    labels
        The discs found.
    seg
        The cord mask, if there is one.

    Returns
    -------
    labels
        The discs that can be given.
    left_out
        The others, each with its reason.
    """
    bottom, top = (-np.inf, np.inf) if seg is None else _cord_extent(seg)
    beside: list[Disc] = []
    left_out: list[LeftOut] = []
    for disc in labels.discs:
        z = disc.point_world[2]
        if disc.value > TEMPLATE_LAST_VALUE:
            left_out.append(LeftOut(disc.value, disc.name, "the template has no such disc"))
        elif disc.value > last_template_value(labels.presacral):
            left_out.append(LeftOut(disc.value, disc.name, "a vertebra is extra or missing below T11"))
        elif not bottom <= z <= top:
            place = "below" if z < bottom else "above"
            left_out.append(LeftOut(disc.value, disc.name, f"it lies {place} the cord mask"))
        else:
            beside.append(disc)
    usable = replace(labels, discs=tuple(beside)).for_template()
    reason = "a disc between it and the others is missing"
    left_out += [LeftOut(d.value, d.name, reason) for d in beside if d not in usable.discs]
    return usable, tuple(sorted(left_out, key=lambda out: out.value))


def template_labels(
    labels: DiscLabels, seg: ImageLike, *, count: int | None = None
) -> tuple[DiscLabels, tuple[LeftOut, ...]]:
    """Choose the discs that the registration is given, of those that it can be given safely.

    Parameters
    ----------
    labels, seg
        As in :func:`usable_labels`.
    count
        Number of discs to give: 1 (the most central of the surest), 2 (the surest pair far apart), or
        all by default.

    Returns
    -------
    labels
        The discs to give.
    left_out
        The others, each with its reason.

    Raises
    ------
    SctError
        If no disc can be given.
    """
    usable, left_out = usable_labels(labels, seg)
    kept = list(usable.discs)
    if not kept:
        raise SctError(
            "no disc can be given to the registration: none lies beside the cord mask and in the template"
        )
    if count is not None and count < len(kept):
        chosen = _best_few(kept, count)
        reason = f"only {count} {'disc was' if count == 1 else 'discs were'} asked for"
        left_out += tuple(LeftOut(d.value, d.name, reason) for d in kept if d not in chosen)
        kept = chosen
    return replace(labels, discs=tuple(kept)), tuple(sorted(left_out, key=lambda out: out.value))


def _cord_extent(seg: ImageLike) -> tuple[float, float]:
    """Return the lowest and highest world z of a mask's voxel centres."""
    mask = read_mask(seg)
    z = mask.grid.world_from_voxel(np.argwhere(mask.data))[:, 2]
    return float(z.min()), float(z.max())


def _best_few(discs: list[Disc], count: int) -> list[Disc]:
    """Return one sure disc near the middle, or the sure pair far apart."""
    if count == 1:
        middle = (len(discs) - 1) / 2
        best = max(range(len(discs)), key=lambda n: discs[n].confidence - abs(n - middle) / (4 * len(discs)))
        return [discs[best]]

    def worth(pair: Iterable[Disc]) -> float:
        upper, lower = pair
        distance = float(np.linalg.norm(upper.point_world - lower.point_world))
        return upper.confidence * lower.confidence * distance

    return list(max(combinations(discs, 2), key=worth))


BINARIES = (
    "isct_antsRegistration",
    "isct_antsApplyTransforms",
    "isct_antsSliceRegularizedRegistration",
    "isct_ComposeMultiTransform",
)


CONTRASTS = ("t1", "t2", "t2s")

OUTPUTS, DISCS = ("warp_template2anat", "warp_anat2template", "template2anat", "anat2template"), "discs"
"""What a registration leaves in its folder, and the labels that it was given."""

MIN_SLICES = 2
"""An image of one slice ends in an error of SCT's straightening."""


@dataclass(frozen=True)
class Registration:
    """What ``sct_register_to_template`` made.

    Parameters
    ----------
    labels
        The discs it was given.
    left_out
        Those it was not.
    warp_template2anat, warp_anat2template
        The warps.
    template2anat, anat2template
        The template in the image's space, and the image in the template's.
    """

    labels: DiscLabels
    left_out: tuple[LeftOut, ...]
    warp_template2anat: Path
    warp_anat2template: Path
    template2anat: Path
    anat2template: Path


def straighten(
    image: str | os.PathLike[str], seg: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> WarpedStraightSpace:
    """Run ``sct_straighten_spinalcord`` and return the space that its warps define.

    Parameters
    ----------
    image, seg
        Files of the image and of its cord mask.
    folder
        Receives the warps; made if need be.

    Raises
    ------
    SctError
        If SCT is missing or its command fails.
    """
    target = Path(folder).resolve()
    make_folder(target)
    run_command(
        "sct_straighten_spinalcord", ["-i", absolute(image), "-s", absolute(seg), "-ofolder", str(target)]
    )
    from sct_deepspine.io.warps import read_straightening

    return read_straightening(target)


def register_to_template(
    image: str | os.PathLike[str],
    seg: str | os.PathLike[str],
    discs: DiscLabels,
    *,
    contrast: str,
    folder: str | os.PathLike[str],
    template: str | os.PathLike[str] | None = None,
    param: str | None = None,
    count: int | None = None,
    keep_temporary: bool = False,
    run: Callable[[str, Sequence[str]], None] = run_command,
) -> Registration:
    """Run ``sct_register_to_template -ldisc`` with the discs that it can take.

    Parameters
    ----------
    image, seg
        Files of the image and of its cord mask.
    discs
        The discs found in the image.
    contrast
        Of the template to register to: ``t1``, ``t2`` or ``t2s``.
    folder
        Receives the warps; made if need be.
    template
        Folder of the template; SCT's PAM50 by default.
    param
        Registration steps, as ``sct_register_to_template -param`` takes them.
    count
        As in :func:`sct_deepspine.sct.registration.template_labels`.
    keep_temporary
        Whether SCT leaves its temporary folder where it is.
    run
        Runs one of SCT's commands with its arguments.

    Raises
    ------
    SctError
        If SCT, its programs or its template are missing, no disc can be given, or the command fails.
    """
    place = check_registration(contrast, template, param)
    target = Path(folder).resolve()
    labels, left_out = template_labels(discs, seg, count=count)
    was_there = target.exists()
    make_folder(target)
    given = target / f"{DISCS}.nii.gz"
    labels.save(given)
    words = ["-i", absolute(image), "-s", absolute(seg), "-ldisc", str(given), "-c", contrast]
    words += ["-t", str(place), "-ofolder", str(target), "-r", str(int(not keep_temporary))]
    words += ["-param", param] if param else []
    remove_registration(target, keep=given)  # of an earlier run, if this one stops half-way
    paths = [target / f"{name}.nii.gz" for name in OUTPUTS]
    try:
        run("sct_register_to_template", words)
        for path in paths:
            if not path.is_file():
                raise SctError(f"sct_register_to_template ended well but did not write {path}")
    except BaseException:  # an interruption, too: nothing half-written stays
        remove_registration(target)
        if not was_there:
            rmtree(target, ignore_errors=True)
        raise
    return Registration(labels, left_out, *paths)


def remove_registration(folder: Path, *, keep: Path | None = None) -> list[Path]:
    """Remove what a registration left in a folder, and the folder if nothing else is in it.

    Parameters
    ----------
    folder
        The folder; it need not exist.
    keep
        A file to leave.

    Returns
    -------
    list[Path]
        The files that were removed.
    """
    left = [folder / f"{name}.nii.gz" for name in (*OUTPUTS, DISCS)]
    removed = [path for path in left if path.is_file() and path != keep]
    for path in removed:
        path.unlink()
    with suppress(OSError):  # it is not there, or holds something else
        folder.rmdir()
    return removed


def check_registration(
    contrast: str, template: str | os.PathLike[str] | None = None, param: str | None = None
) -> Path:
    """Check that a registration can work, before anything is computed; return the template's folder.

    Raises
    ------
    SctError
        If SCT, its programs, its template or the template's image of that contrast are missing, or SCT does
        not understand the steps.
    """
    if contrast not in CONTRASTS:
        raise SctError(f"the template has the contrasts {', '.join(CONTRASTS)}, not {contrast}")
    place = _checked_template(template)
    if not any((place / "template").glob(f"*_{contrast}.nii*")):
        raise SctError(
            f"the template in {place} has no image of the contrast {contrast}; choose another with -c"
        )
    _check_binaries()
    if param is not None:
        _check_steps(param)
    return place


def _check_steps(param: str) -> None:
    """Let SCT read the registration steps."""
    try:
        algorithms = import_module("spinalcordtoolbox.registration.algorithms")
    except ImportError:  # another version keeps them elsewhere; it reads them when it runs
        return
    try:
        algorithms.ParamregMultiStep(param.split(":"))
    except Exception as error:  # whatever SCT raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SctError(f"-param {param} can't be read by SCT: {reason}") from error


def check_slices(image: str | os.PathLike[str]) -> None:
    """Refuse an image of one slice, which SCT can't register, before anything is computed.

    Raises
    ------
    SctError
        If it has fewer slices than :data:`MIN_SLICES`.
    """
    shape = read_volume(image).grid.shape
    if min(shape) < MIN_SLICES:
        raise SctError(f"the image has {min(shape)} slice; SCT registers images of {MIN_SLICES} or more")


def _checked_template(template: str | os.PathLike[str] | None) -> Path:
    require_sct()
    data = Path(import_module("spinalcordtoolbox.utils.sys").__data_dir__)
    place = Path(template).resolve() if template is not None else data / "PAM50"
    if not (place / "template" / "info_label.txt").is_file():
        raise SctError(f"no template in {place}; install it with: sct_download_data -d PAM50")
    return place


def _check_binaries() -> None:
    folder = Path(import_module("spinalcordtoolbox.utils.sys").__bin_dir__)
    missing = [name for name in BINARIES if not any(folder.glob(f"{name}*"))]
    if missing:
        raise SctError(f"SCT's programs {', '.join(missing)} are not in {folder}; install SCT again")
