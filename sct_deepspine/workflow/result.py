"""What came of one scan, and its files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sct_deepspine.errors import OutputError, RequestError
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.bids import image_stem
from sct_deepspine.io.disc_labels import GivenLabels
from sct_deepspine.io.files import write_text
from sct_deepspine.io.identity import ImageIdentity
from sct_deepspine.io.images import ImageLike, image_file
from sct_deepspine.labels import DiscLabels
from sct_deepspine.reporting import exports
from sct_deepspine.sct.registration import LeftOut, usable_labels
from sct_deepspine.segmentation.masks import SpineMasks
from sct_deepspine.workflow.geometry import geometry_notes
from sct_deepspine.workflow.given import OTHER_IMAGE, labels_of_page
from sct_deepspine.workflow.names import ResultNames, bids_names, sct_names
from sct_deepspine.workflow.record import Saved, Writer, edited_files, refuse_foreign, write_results
from sct_deepspine.workflow.request import ScanRequest

__all__ = ["Outputs", "ScanResult", "check_outputs", "save_result"]

logger = logging.getLogger(__name__)

NAMINGS: dict[str, Callable[[Path, str], ResultNames]] = {
    "sct": lambda folder, stem: sct_names(folder / f"{stem}_discs.nii.gz"),
    "bids": bids_names,
}
"""The two naming schemes, each from a folder and the image's stem."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Which files are wanted; masks are written where there are any.

    Parameters
    ----------
    labels
        The label image, and the labels that the template has.
    csv, slicer
        The discs as a table, and as a point list of 3D Slicer.
    heatmaps, attention
        What the network predicted; needs a result with maps.
    preview
        A small picture of the discs, and of the masks.
    picture
        Where to write a picture with the heat map; needs a result with maps.
    """

    labels: bool = True
    csv: bool = False
    slicer: bool = False
    heatmaps: bool = False
    attention: bool = False
    preview: bool = False
    picture: Path | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ScanResult:
    """What :func:`sct_deepspine.process_scan` returns.

    Parameters
    ----------
    volume
        The scan that was read.
    labels
        Its discs.
    masks
        Its masks, if they were asked for and a spine was seen.
    request
        What was asked for.
    """

    volume: Volume
    labels: DiscLabels
    masks: SpineMasks | None
    request: ScanRequest

    def __repr__(self) -> str:
        return f"ScanResult({self.labels!r}, {self.masks!r})"

    def _repr_html_(self) -> str:
        return self.labels._repr_html_() if self.masks is None else self.masks._repr_html_()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a person should read."""
        return self.labels.warnings

    @property
    def usable(self) -> tuple[DiscLabels, tuple[LeftOut, ...]]:
        """The discs that the registration can be given safely, and the others with their reasons."""
        cord: Any = self.request.cord
        if cord is None and self.masks is not None:
            cord = self.masks.cord_image
        return usable_labels(self.labels, cord)

    def with_source(self, source: ImageLike) -> ScanResult:
        """Return the result as that of another image on the same grid, such as the file it was read from.

        If the header of that image holds two geometries, or labels were made on another one, a note says so.
        """
        labels = self.labels.with_source(source)
        given = self.request.labels if self.request.labels is not None else labels_of_page(self.request)
        notes = geometry_notes(source, self.volume.grid)
        notes += (OTHER_IMAGE,) if isinstance(given, GivenLabels) and given.other_image else ()
        new = [note for note in notes if note not in labels.warnings]
        labels = replace(labels, warnings=(*labels.warnings, *new))
        masks = None if self.masks is None else self.masks.with_labels(labels)
        return replace(self, labels=labels, masks=masks)

    def with_notes(self, sentences: Iterable[str]) -> ScanResult:
        """Return the same result with further sentences that a person should read."""
        labels = replace(self.labels, warnings=(*self.labels.warnings, *sentences))
        return replace(self, labels=labels)

    def save(
        self,
        folder: str | os.PathLike[str] = ".",
        *,
        stem: str | None = None,
        names: str = "sct",
        csv: bool = False,
        slicer: bool = False,
        preview: bool = False,
        heatmaps: bool = False,
        attention: bool = False,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write labels, masks and the JSON file that records them.

        Parameters
        ----------
        folder
            Where to; made if need be.
        stem
            What the names begin with; by default the image's name, or ``scan`` for an image without one.
        names
            ``"sct"`` (``t2_discs.nii.gz``, ``t2_seg.nii.gz`` …) or ``"bids"`` (derivatives).
        csv, slicer
            Whether to write a table, and a point list of 3D Slicer, too.
        preview
            Whether to write a small picture of the discs, and of the masks.
        heatmaps, attention
            Whether to write what the network predicted; needs a request with ``maps``.
        overwrite
            Whether to replace files that this package did not write, or that were edited since.

        Returns
        -------
        list
            The files that were written.

        Raises
        ------
        OutputError
            If a file can't be written, or would replace one that is not this package's.
        """
        if names not in NAMINGS:
            raise RequestError(f"expected names {' or '.join(NAMINGS)}, got {names!r}")
        source = self.labels.source
        if stem is None:
            file = image_file(source)
            stem = image_stem(file) if file is not None else "scan"
        outputs = Outputs(csv=csv, slicer=slicer, preview=preview, heatmaps=heatmaps, attention=attention)
        saved = save_result(self, NAMINGS[names](Path(folder), stem), outputs, overwrite=overwrite)
        return list(saved.written)


def save_result(
    result: ScanResult,
    names: ResultNames,
    outputs: Outputs | None = None,
    *,
    overwrite: bool = False,
    keep_edited: bool = False,
    inputs: Iterable[Path] = (),
    writers: dict[Path, Writer] | None = None,
    **entries: Any,
) -> Saved:
    """Write the files of a scan.

    Parameters
    ----------
    result
        What came of the scan.
    names
        Where each file goes.
    outputs
        Which files are wanted.
    overwrite
        Whether to replace files that this package did not write, or that were edited since.
    keep_edited
        Leave such files as they are, and note it, except the label image.
    inputs
        Files that were given: none is replaced or removed.
    writers
        Writers that take the place of the usual ones, by path.
    entries
        Further entries of the sidecar.

    Raises
    ------
    OutputError
        If a file can't be written, or would replace an input or one that is not this package's.
    """
    wanted = _writers(result, names, outputs or Outputs()) | (writers or {})
    inputs = list(inputs)
    _refuse_inputs(wanted, inputs)
    labels, masks = result.labels, result.masks
    if masks is not None:
        entries = {"masks": masks.as_dict(), **entries}
    if keep_edited:
        kept = edited_files(names, [path for path in wanted if path != names.labels])
        wanted = {path: write for path, write in wanted.items() if path not in kept}
        notes = [f"{path.name} is not this command's, or was edited: it is kept" for path in kept]
        labels = replace(labels, warnings=(*labels.warnings, *notes))
        if masks is not None and kept:
            entries["masks"]["kept"] = [path.name for path in kept]  # the description is of our own masks
    source = labels.source
    if isinstance(source, (str, os.PathLike)) and Path(source).is_file():
        entries = {"source": ImageIdentity.from_file(source, result.volume.grid).as_dict(), **entries}
    return write_results(labels, names, wanted, overwrite=overwrite or keep_edited, inputs=inputs, **entries)


def check_outputs(
    result: ScanResult,
    names: ResultNames,
    outputs: Outputs,
    *,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> None:
    """Refuse a result whose files could not be written by :func:`save_result`, with the same parameters.

    Raises
    ------
    OutputError
        If one would replace an input, or a file that is not this package's.
    """
    wanted = [*_writers(result, names, replace(outputs, preview=False, picture=None))]
    wanted += [names.preview] if outputs.preview else []  # drawn when it is written
    wanted += [outputs.picture] if outputs.picture else []
    _refuse_inputs(wanted, inputs)
    refuse_foreign(names, wanted, overwrite=overwrite)


def _refuse_inputs(writers: Iterable[Path], inputs: Iterable[Path]) -> None:
    for path in writers:
        for given in inputs:
            if path.exists() and given.exists() and path.samefile(given):
                raise OutputError(f"the output {path} is an input; write elsewhere with -o or -ofolder")


def _writers(result: ScanResult, names: ResultNames, outputs: Outputs) -> dict[Path, Writer]:
    """Return what writes each file that is wanted, the label image first."""
    labels, masks, prediction = result.labels, result.masks, result.labels.prediction
    out: dict[Path, Writer] = {}
    if outputs.labels:
        labels.to_array()  # fails before the first file is written, if it fails
        out[names.labels] = labels.save
        usable, _ = result.usable
        if 0 < len(usable.discs) < len(labels.discs):
            out[names.template] = usable.save
    if masks is not None:
        out |= {names.masks[name]: partial(masks.save, part=name) for name in masks.parts}
    if outputs.csv:
        out[names.csv] = partial(_write_text, labels.to_csv())
    if outputs.slicer:
        out[names.markups] = partial(exports.write_markups, labels)
    out |= _pictures(result, names, outputs)
    if prediction is None:
        if outputs.heatmaps or outputs.attention:
            raise RequestError("maps need a request with maps, and a spine that the network sees")
        return out
    if outputs.heatmaps:
        out[names.heatmaps] = partial(exports.write_heatmaps, prediction)
        out[names.heatmap_volumes] = partial(_write_text, exports.heatmap_volumes(prediction))
    if outputs.attention:
        if prediction.attention is None:
            raise RequestError("these weights have no attention map; leave -attention out")
        out[names.attention] = partial(exports.write_attention, prediction)
    return out


def _pictures(result: ScanResult, names: ResultNames, outputs: Outputs) -> dict[Path, Writer]:
    """Draw the pictures beforehand: one that can't be drawn does not cost the labels."""
    draw: dict[Path, Callable[[Path], None]] = {}
    if outputs.preview:
        from sct_deepspine.reporting.preview import write_preview

        source = result.labels.source
        title = Path(source).name if isinstance(source, (str, os.PathLike)) else names.labels.name
        draw[names.preview] = lambda path: write_preview(
            result.labels, result.volume, path, title=title, masks=result.masks
        )
    if outputs.picture:
        from sct_deepspine.reporting.figures import write_png

        draw[outputs.picture] = partial(write_png, result.labels)
    return {path: partial(_copy, content) for path, call in draw.items() if (content := _drawn(path, call))}


def _drawn(path: Path, draw: Callable[[Path], None]) -> bytes | None:
    """Return the content of a picture; None, with a warning, if it can't be drawn."""
    try:
        with TemporaryDirectory() as folder:
            place = Path(folder) / "picture.png"
            draw(place)
            return place.read_bytes()
    except Exception as error:  # whatever fonts, caches and drawing libraries meet
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning("the picture %s could not be drawn (%s)", path, reason)
        return None


def _copy(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _write_text(text: str, path: Path) -> None:
    write_text(path, text)
