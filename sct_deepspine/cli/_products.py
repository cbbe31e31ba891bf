"""What ``sct_deepspine_label`` writes and prints."""

from __future__ import annotations

import argparse
import os
import shlex
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path

from sct_deepspine import __version__
from sct_deepspine.cli._common import about
from sct_deepspine.errors import DeepSpineError, OutputError, SctError
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.bids import image_stem
from sct_deepspine.io.files import make_folder, write_text
from sct_deepspine.io.images import read_volume
from sct_deepspine.labels import DiscLabels
from sct_deepspine.reporting import exports
from sct_deepspine.reporting.results import Writer, write_results
from sct_deepspine.reporting.tables import disc_table, mask_table
from sct_deepspine.sct.registration import Registration, register_to_template, usable_labels
from sct_deepspine.sct.toolbox import (
    add_qc_entry,
    require_sct,
    run_command,
    sct_is_installed,
    show_viewer_syntax,
)
from sct_deepspine.segmentation.masks import SpineMasks

__all__ = ["Products"]


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
        self.target = self._checked_target()
        self.written: list[Path] = []
        self.shows_cord = False
        if arguments.register or arguments.straight == "sct":
            require_sct()

    @property
    def needs_maps(self) -> bool:
        """Whether something of what the networks drew is asked for."""
        asked = self.arguments
        return bool(asked.heatmaps or asked.attention or asked.qc_png or asked.qc)

    @property
    def needs_masks(self) -> bool:
        """Whether masks are asked for, or the registration needs a cord."""
        asked = self.arguments
        return bool(asked.masks or (asked.register and not asked.s))

    @property
    def cord(self) -> Path | None:
        """The cord mask that the registration gets: the given one, else our own if it shows any cord."""
        if self.arguments.s:
            return Path(self.arguments.s)
        return self.base.with_name(f"{self.stem}_seg.nii.gz") if self.shows_cord else None

    @cached_property
    def volume(self) -> Volume:
        """The image."""
        with about("-i", self.image):
            return read_volume(self.image)

    def _checked_target(self) -> Path:
        """Return the label image's path."""
        asked = self.arguments
        name = f"{image_stem(self.image)}_discs.nii.gz"
        target = Path(asked.o) if asked.o else Path(asked.ofolder or ".") / name
        if not target.name.endswith((".nii", ".nii.gz")):
            raise OutputError(f"the output must be .nii or .nii.gz, got {target}")
        for given in (self.image, asked.s, asked.initlabel):
            if given and target.exists() and Path(given).exists() and target.samefile(given):
                raise OutputError(f"the output {target} is an input; give another name with -o")
        for folder in {target.parent, Path(asked.qc_png).parent if asked.qc_png else target.parent}:
            # The output folder is made if need be, but only when there is something to write.
            place = _existing(folder) if asked.ofolder and folder == target.parent else folder
            if not place.is_dir():
                raise OutputError(f"no such folder: {place}")
            if not os.access(place, os.W_OK):
                raise OutputError(f"the folder {place} can't be written to")
        return target

    def write(self, labels: DiscLabels, masks: SpineMasks | None = None) -> None:
        """Write everything that is asked for."""
        asked, prediction = self.arguments, labels.prediction
        if asked.attention and (prediction is None or prediction.attention is None):
            raise DeepSpineError("these weights have no attention map; leave -attention out")
        labels.to_array()  # fails before the first file is written, if it fails
        generated_by = [{"Name": Path(asked.words[0]).name, "Version": __version__}]
        self.written += write_results(
            labels,
            self.base.with_name(f"{self.base.name}.json"),
            self._writers(labels, masks),
            overwrite=bool(asked.overwrite),
            command=shlex.join(asked.words),
            GeneratedBy=generated_by,
            **({"masks": masks.as_dict()} if masks else {}),
        )
        self.shows_cord = masks is not None and masks.cord_image is not None
        if asked.qc:
            self._add_to_report(labels, masks)

    def register(self, labels: DiscLabels) -> None:
        """Register with the discs that the registration can take, and print what came of it."""
        asked = self.arguments
        if asked.v:
            print("\nRegistering to the template:")
        echo = partial(print, "  sct_register_to_template:", flush=True) if asked.v else None
        done = register_to_template(
            self.image,
            self._cord_in_view(),
            labels,
            contrast=asked.c,
            folder=self.base.with_name(f"{self.stem}_reg"),
            template=asked.t,
            param=asked.param,
            count=asked.n_labels,
            keep_temporary=not asked.r,
            run=partial(run_command, echo=echo),
        )
        if asked.v:
            self._report_registration(done)

    def _cord_in_view(self) -> Path:
        """Return the cord mask, if there is a cord to register with."""
        if self.cord is None:
            raise SctError(
                "no cord was found in the image, so that there is nothing to register; "
                "below the conus, at L1 or L2, there is none"
            )
        return self.cord

    @property
    def base(self) -> Path:
        """The label image's path without its suffix."""
        return self.target.with_name(image_stem(self.target))

    @property
    def stem(self) -> str:
        """What the names of the other files begin with."""
        return self.base.name.removesuffix("_discs")

    def _writers(self, labels: DiscLabels, masks: SpineMasks | None) -> dict[Path, Writer]:
        """Return what writes each file that is asked for."""
        asked, base, prediction = self.arguments, self.base, labels.prediction
        writers: dict[Path, Writer] = {self.target: labels.save}
        seg = asked.s or (masks.cord_image if masks else None)
        usable, _ = usable_labels(labels, seg)
        if 0 < len(usable.discs) < len(labels.discs):
            writers[base.with_name(f"{base.name}_template.nii.gz")] = usable.save
        if masks is not None:
            own = masks.writers(base.parent, self.stem)
            for path in own if asked.s else ():
                if path.exists() and path.samefile(asked.s):
                    raise OutputError(f"the output {path} is an input (-s); write elsewhere with -ofolder")
            writers |= own
        if asked.csv:
            writers[base.with_name(f"{base.name}.csv")] = partial(_write_text, labels.to_csv())
        if asked.slicer:
            writers[base.with_name(f"{base.name}.mrk.json")] = partial(exports.write_markups, labels)
        if asked.heatmaps and prediction is not None:
            path = base.with_name(f"{self.stem}_heatmaps.nii.gz")
            writers[path] = partial(exports.write_heatmaps, prediction)
            text = exports.heatmap_volumes(prediction)
            writers[base.with_name(f"{self.stem}_heatmaps.json")] = partial(_write_text, text)
        if asked.attention and prediction is not None:
            path = base.with_name(f"{self.stem}_attention.nii.gz")
            writers[path] = partial(exports.write_attention, prediction)
        if asked.qc_png:
            from sct_deepspine.reporting.figures import write_png

            writers[Path(asked.qc_png)] = partial(write_png, labels)
        return writers

    def _add_to_report(self, labels: DiscLabels, masks: SpineMasks | None) -> None:
        asked, folder = self.arguments, Path(self.arguments.qc)
        make_folder(folder)
        if sct_is_installed():
            add_qc_entry(
                self.image,
                self.target,
                folder,
                command=asked.words,
                dataset=asked.qc_dataset,
                subject=asked.qc_subject,
            )
            return
        from sct_deepspine.reporting.html import make_entry, read_entries, write_page

        words = [asked.qc_dataset, asked.qc_subject, image_stem(self.image)]
        name = " / ".join(word for word in words if word)
        entries = folder / "entries"
        make_folder(entries)
        key = sha256(os.fsencode(f"{name}\n{self.image.resolve()}")).hexdigest()[:16]
        write_text(entries / f"{key}.json", make_entry(labels, self.volume, name, masks=masks).to_json())
        page = folder / "index.html"
        write_page(page, read_entries(entries), title="Disc labels")
        self.written.append(page)

    def report(self, labels: DiscLabels, masks: SpineMasks | None = None) -> None:
        """Print what was found, where it went and what to run next."""
        asked = self.arguments
        print(disc_table(labels))
        if masks is not None:
            print(f"\n{mask_table(masks)}")
        for sentence in labels.warnings:
            print(f"WARNING: {sentence}")
        print("\nWritten:", *(f"  {path}" for path in self.written), sep="\n")
        image, discs = str(asked.i), str(self.target)
        if sct_is_installed():
            show_viewer_syntax(image, discs)
        else:
            words = ["fsleyes", image, "-cm", "greyscale", discs, "-cm", "subcortical"]
            print(f"\nTo look at it:\n  {shlex.join(words)}")
        usable, left_out = usable_labels(labels, self.cord)
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
            words = ["sct_register_to_template", "-i", image, "-s", str(self.cord or "SEG"), "-ldisc", known]
            print(
                "\nNext (SEG is the cord mask, -c the contrast: t1, t2 or t2s):\n"
                f"  {shlex.join(words)} -c {asked.c}"
            )

    def _report_registration(self, done: Registration) -> None:
        names = ", ".join(f"{disc.value} {disc.name}" for disc in done.labels.discs)
        print(f"\nRegistered to the template with {names}.")
        if self.arguments.n_labels:
            for out in done.left_out:
                print(f"Left out: {out.value} {out.name}, {out.reason}.")
        print("Written:", f"  {done.warp_template2anat}", f"  {done.warp_anat2template}", sep="\n")
        words = ["sct_warp_template", "-d", str(self.arguments.i), "-w", str(done.warp_template2anat)]
        print(f"Next:\n  {shlex.join(words)}")


def _write_text(text: str, path: Path) -> None:
    write_text(path, text)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
