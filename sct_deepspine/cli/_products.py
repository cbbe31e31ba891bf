"""Where the files of ``sct_deepspine_label`` go, and what it prints about them."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sct_deepspine.cli._common import clock, existing_folder
from sct_deepspine.cli._reports import add_to_reports, page_is_wanted
from sct_deepspine.errors import OutputError, SctError
from sct_deepspine.io.bids import image_stem
from sct_deepspine.reporting.tables import disc_table, mask_table
from sct_deepspine.sct.registration import (
    Registration,
    check_registration,
    check_slices,
    register_to_template,
    usable_labels,
)
from sct_deepspine.sct.toolbox import (
    require_sct,
    run_command,
    show_viewer,
)
from sct_deepspine.workflow.names import ResultNames, sct_names
from sct_deepspine.workflow.record import Saved, edited_files
from sct_deepspine.workflow.result import Outputs, ScanResult, check_outputs, save_result

__all__ = ["Products", "check_names"]


class Products:
    """The files asked for, and where they go; checked before anything is computed.

    Parameters
    ----------
    arguments
        The command's arguments.
    image
        The image's path.

    Raises
    ------
    OutputError
        If the labels can't be written where they are asked for.
    SctError
        If a registration is asked for and SCT is not installed.
    """

    def __init__(self, arguments: argparse.Namespace, image: Path) -> None:
        self.arguments, self.image = arguments, image
        self.names: ResultNames = sct_names(self._checked_target())
        self.written: list[Path] = []
        self.removed: tuple[Path, ...] = ()
        if arguments.register or arguments.straight == "sct":
            require_sct()
        if arguments.register:
            check_registration(arguments.c or "t2", arguments.t, arguments.param)
            check_slices(image)
            self._refuse_foreign_cord()

    @property
    def outputs(self) -> Outputs:
        """Which files are asked for."""
        asked = self.arguments
        return Outputs(
            csv=bool(asked.csv),
            slicer=bool(asked.slicer),
            heatmaps=bool(asked.heatmaps),
            attention=bool(asked.attention),
            preview=bool(asked.preview),
            picture=Path(asked.qc_png) if asked.qc_png else None,
        )

    @property
    def needs_maps(self) -> bool:
        """Whether something of what the networks drew is asked for."""
        asked = self.arguments
        return bool(asked.heatmaps or asked.attention or asked.qc_png or page_is_wanted(asked))

    @property
    def needs_masks(self) -> bool:
        """Whether masks are asked for, or the registration needs a cord."""
        asked = self.arguments
        return bool(asked.masks or (asked.register and not asked.s))

    def cord(self, result: ScanResult) -> Path | None:
        """Return the cord mask that the registration gets: the given one, else ours if it shows a cord."""
        if self.arguments.s:
            return Path(self.arguments.s)
        shows_cord = result.masks is not None and result.masks.cord_image is not None
        return self.names.masks["seg"] if shows_cord else None

    def _refuse_foreign_cord(self) -> None:
        """Point to a cord mask that is there and would be in the way of our own."""
        cord = self.names.masks["seg"]
        if self.needs_masks and not self.arguments.overwrite and edited_files(self.names, [cord]):
            raise OutputError(
                f"{cord} is there and was not made by this command: register with it (-s {cord}), or write "
                "elsewhere with -ofolder"
            )

    def _checked_target(self) -> Path:
        """Return the label image's path."""
        asked = self.arguments
        name = f"{image_stem(self.image)}_discs.nii.gz"
        target = Path(asked.o) if asked.o else Path(asked.ofolder or ".") / name
        if not target.name.endswith((".nii", ".nii.gz")):
            raise OutputError(f"the output must be .nii or .nii.gz, got {target}")
        if target in sct_names(target.with_name(name)).masks.values():
            raise OutputError(f"{target} is the name of a mask of this image; give another one with -o")
        for given in self.inputs:
            if target.exists() and given.exists() and target.samefile(given):
                raise OutputError(f"the output {target} is an input; give another name with -o")
        for folder in {target.parent, Path(asked.qc_png).parent if asked.qc_png else target.parent}:
            place = existing_folder(folder)  # folders are made when there is something to write
            if not place.is_dir():
                raise OutputError(f"no such folder: {place}")
            if not os.access(place, os.W_OK):
                raise OutputError(f"the folder {place} can't be written to")
        return target

    @property
    def inputs(self) -> list[Path]:
        """The files that were given."""
        asked = self.arguments
        given = (self.image, *asked.images, *asked.localizer, asked.s, asked.initlabel, asked.ldisc)
        return [Path(path) for path in given if path]

    def check(self, result: ScanResult) -> None:
        """Refuse a result that can't be written, before anything is."""
        asked = self.arguments
        try:
            check_outputs(
                result, self.names, self.outputs, overwrite=bool(asked.overwrite), inputs=self.inputs
            )
        except OutputError as error:
            raise _naming_option(error, asked) from error

    def write(self, result: ScanResult, **entries: Any) -> None:
        """Write everything that is asked for, and further entries of the sidecar."""
        asked = self.arguments
        try:
            saved = save_result(
                result,
                self.names,
                self.outputs,
                overwrite=bool(asked.overwrite),
                inputs=self.inputs,
                command=shlex.join(asked.words),
                **entries,
            )
        except OutputError as error:
            raise _naming_option(error, asked) from error
        self._note(saved)
        self.written += add_to_reports(asked, result, labels=self.names.labels)

    def _note(self, saved: Saved) -> None:
        self.written += saved.written
        self.removed = saved.removed

    def register(self, result: ScanResult) -> None:
        """Register with the discs that the registration can take, and print what came of it."""
        asked = self.arguments
        started = time.perf_counter()
        if asked.v:
            print(
                "\nRegistering to the template with sct_register_to_template (1 to 4 minutes) …", flush=True
            )
        echo = partial(print, "  ", flush=True) if asked.v == 2 else None
        with clock("registering", shown=asked.v == 1):
            done = register_to_template(
                self.image,
                self._cord_in_view(result),
                result.labels,
                contrast=asked.c,
                folder=self.names.registration,
                template=asked.t,
                param=asked.param,
                count=asked.n_labels,
                keep_temporary=not asked.r,
                run=partial(run_command, echo=echo),
            )
        if asked.v:
            print(f"done in {time.perf_counter() - started:.0f} s")
            self._report_registration(done)

    def _cord_in_view(self, result: ScanResult) -> Path:
        """Return the cord mask, if there is a cord to register with."""
        cord = self.cord(result)
        if cord is None:
            raise SctError(
                "no cord was found in the image, so that there is nothing to register; "
                "below the conus, at L1 or L2, there is none"
            )
        return cord

    def report(self, result: ScanResult) -> None:
        """Print what was found, where it went and what to run next."""
        asked, labels, masks = self.arguments, result.labels, result.masks
        print(disc_table(labels))
        if masks is not None:
            print(f"\n{mask_table(masks)}")
        for sentence in labels.warnings:
            print(f"WARNING: {sentence}")
        print("\nWritten:", *(f"  {path}" for path in self.written), sep="\n")
        if self.removed:
            print("Removed, out of date:", *(f"  {path}" for path in self.removed), sep="\n")
        image, discs = str(asked.i), str(self.names.labels)
        mask = self.names.masks["spine"]
        show_viewer(image, [*([str(mask)] if mask in self.written else []), discs])
        usable, left_out = usable_labels(labels, self.cord(result))
        if not labels.for_template().discs:
            print("\nThe template ends at L1/L2: none of these discs is in it.")
            return
        for out in left_out:
            print(f"Not for the registration: {out.value} {out.name}, {out.reason}.")
        if not usable.discs:
            print("\nNo disc of the template lies beside the cord mask: there is nothing to register with.")
        elif not asked.register:
            ends = "_template.nii.gz"
            known = next((str(path) for path in self.written if path.name.endswith(ends)), discs)
            words = [
                "sct_register_to_template",
                "-i",
                image,
                "-s",
                str(self.cord(result) or "SEG"),
                "-ldisc",
                known,
            ]
            print(
                "\nNext (SEG is the cord mask, -c the contrast: t1, t2 or t2s):\n"
                f"  {shlex.join(words)} -c {asked.c}"
            )

    def report_briefly(self, result: ScanResult) -> None:
        """Print what was found in one image of several, and where it went."""
        labels = result.labels
        if not labels.discs:
            earlier = "; what an earlier run wrote is still there" if self.names.labels.exists() else ""
            print(f"{self.arguments.i}: no disc lies in this image; nothing is written{earlier}")
            return
        first, last = labels.discs[0].name, labels.discs[-1].name
        print(
            f"{self.arguments.i}: {len(labels.discs)} discs, {first} to {last}; probability that every level "
            f"is right: {labels.level_confidence:.2f}"
        )
        placed = [disc.name for disc in labels.discs if disc.from_session]
        if placed:
            print(f"  placed as the other images show them: {', '.join(placed)}")
        for sentence in labels.warnings:
            print(f"  WARNING: {sentence}")
        print(*(f"  {path}" for path in self.written), sep="\n")
        if self.removed:
            print("  removed, out of date:", *(f"    {path}" for path in self.removed), sep="\n")

    def _report_registration(self, done: Registration) -> None:
        names = ", ".join(f"{disc.value} {disc.name}" for disc in done.labels.discs)
        print(f"\nRegistered to the template with {names}.")
        if self.arguments.n_labels:
            for out in done.left_out:
                print(f"Left out: {out.value} {out.name}, {out.reason}.")
        folder = done.warp_template2anat.parent
        made = sorted(path for path in folder.iterdir() if path.is_file())
        print("Written:", *(f"  {path}" for path in made), sep="\n")
        words = ["sct_warp_template", "-d", str(self.arguments.i), "-w", str(done.warp_template2anat)]
        print(f"Next:\n  {shlex.join(words)}")


def check_names(images: Sequence[str]) -> None:
    """Refuse two images whose results would bear one name."""
    taken: dict[str, str] = {}
    for image in images:
        stem = image_stem(image)
        if stem in taken:
            raise OutputError(
                f"{taken[stem]} and {image} would be labelled under one name ({stem}_discs.nii.gz); "
                "rename one"
            )
        taken[stem] = image


def _naming_option(error: OutputError, asked: argparse.Namespace) -> OutputError:
    """Say which option gave an input that would be written over."""
    for option in ("s", "initlabel", "ldisc"):
        given = getattr(asked, option)
        if given and f"{Path(given).name} is an input" in str(error):
            return OutputError(str(error).replace("is an input", f"is an input (-{option})"))
    return error
