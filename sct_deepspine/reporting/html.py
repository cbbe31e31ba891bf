"""A self-contained HTML page on which a person reviews, rates and corrects labelled scans."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SamplingPlane
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.files import write_text
from sct_deepspine.labels import DiscLabels
from sct_deepspine.reporting.outlines import outlined_structures
from sct_deepspine.reporting.views import coronal_view, sagittal_view
from sct_deepspine.segmentation.masks import SpineMasks

__all__ = ["Entry", "failed_entry", "make_entry", "read_entries", "write_page"]


@dataclass(frozen=True)
class Entry:
    """One scan on the page.

    Parameters
    ----------
    name
        What it is called.
    picture
        The plane along the spine as a PNG, base64; empty if there is none.
    width, height
        Of the picture, pixels.
    discs
        ``value``, ``name``, ``confidence``, ``interpolated``, and ``row`` and ``column`` in the picture.
    level_confidence
        Probability that no disc bears a wrong level.
    warnings
        Sentences to read.
    row_origins, column_step
        World mm of the first pixel of each row, and from one pixel of a row to the next.
    error
        Why there are no discs, if so.
    pixel_mm
        Edge of a pixel of both pictures.
    coronal_picture
        A coronal plane through the discs as a PNG, base64, from right to left; its rows are as high as those
        of the first picture. Empty if there is none.
    coronal_width
        Of this picture, pixels.
    coronal_places
        Row and column there of a disc whose tip is in a row of the first picture.
    structures
        What the masks hold, if there are any: ``kind``, ``name``, ``unsure``, ``measured``, and the outlines
        ``sagittal`` and ``coronal`` as SVG paths in the pixels of the pictures.
    image
        The image file that the scan was: ``sha256``, ``shape`` and ``affine``; empty if it is no file.
    """

    name: str
    picture: str = ""
    width: int = 0
    height: int = 0
    discs: tuple[dict[str, Any], ...] = ()
    level_confidence: float = 0.0
    warnings: tuple[str, ...] = ()
    row_origins: tuple[tuple[float, ...], ...] = ()
    column_step: tuple[float, ...] = ()
    error: str = ""
    pixel_mm: float = 1.0
    coronal_picture: str = ""
    coronal_width: int = 0
    coronal_places: tuple[tuple[float, ...], ...] = ()
    structures: tuple[dict[str, Any], ...] = ()
    image: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the entry as JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        lists = {
            name: tuple(values.get(name, ())) for name in ("discs", "warnings", "column_step", "structures")
        }
        for name in ("row_origins", "coronal_places"):
            lists[name] = tuple(tuple(point) for point in values.get(name, ()))
        return cls(**values | lists)


def make_entry(
    labels: DiscLabels,
    volume: Volume,
    name: str,
    *,
    masks: SpineMasks | None = None,
    image: dict[str, Any] | None = None,
) -> Entry:
    """Make an entry of a scan's labels.

    Parameters
    ----------
    labels
        From ``label_discs(..., return_maps=True)``.
    volume
        The scan.
    name
        What it is called.
    masks
        Its masks, to be shown as outlines.
    image
        Which file it was; see :meth:`sct_deepspine.io.identity.ImageIdentity.as_dict`.

    Raises
    ------
    DeepSpineError
        If the labels were made without maps.
    """
    if labels.prediction is None:
        raise DeepSpineError("a picture needs the maps; call label_discs with return_maps=True")
    sagittal = sagittal_view(labels, labels.prediction.plane, volume)
    plane, planes = sagittal.plane, {"sagittal": sagittal.plane}
    across = coronal_view(labels, labels.canal, plane, volume) if labels.canal else None
    coronal: dict[str, Any] = {}
    if across is not None:
        view, places = across
        planes["coronal"] = view.plane
        coronal = {
            "coronal_picture": _png(view.grey),
            "coronal_width": view.grey.shape[1],
            "coronal_places": _rounded(places, 1),
        }
    return Entry(
        name=name,
        picture=_png(sagittal.grey),
        width=plane.shape[1],
        height=plane.shape[0],
        discs=_disc_rows(labels, plane),
        level_confidence=round(labels.level_confidence, 3),
        warnings=labels.warnings,
        row_origins=_rounded(plane.points_world[:, 0], 2),
        column_step=_rounded(plane.pixel_mm * plane.axes[:, 1:2].T, 5)[0],
        pixel_mm=round(plane.pixel_mm, 4),
        structures=outlined_structures(masks, **planes) if masks is not None else (),
        image=image or {},
        **coronal,
    )


def _disc_rows(labels: DiscLabels, plane: SamplingPlane) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "value": disc.value,
            "name": disc.name,
            "confidence": round(disc.confidence, 3),
            "interpolated": disc.interpolated,
            "row": round(float(row), 1),
            "column": round(float(column), 1),
        }
        for disc, (row, column) in zip(labels.discs, plane.pixel_from_world(labels.points_world), strict=True)
    )


def _rounded(points: FloatArray, digits: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(c), digits) for c in point) for point in points)


def failed_entry(name: str, error: str) -> Entry:
    """Make an entry of a scan that could not be labelled."""
    return Entry(name=name, error=error)


def _png(grey: np.ndarray) -> str:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(grey).save(target, format="PNG")
    return base64.b64encode(target.getvalue()).decode("ascii")


def read_entries(folder: str | Path) -> list[Entry]:
    """Read the entries kept in a folder, ``*.json``."""
    entries = []
    for path in sorted(Path(folder).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # what is no entry is passed over
            entries.append(Entry.from_json(path.read_text(encoding="utf-8")))
    return entries


def write_page(path: str | Path, entries: Sequence[Entry], *, title: str) -> None:
    """Write the page: scans that failed first, then from the least to the most confident.

    It holds everything it needs. Ratings and corrections are kept in the browser, for
    these labels only, and saved to files.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    ordered = sorted(entries, key=lambda entry: (not entry.error, entry.level_confidence, entry.name))
    template = files("sct_deepspine.reporting").joinpath("report.html").read_text(encoding="utf-8")
    # A "<" could end or open the script that the data stands in, or a comment.
    data = json.dumps([asdict(entry) for entry in ordered]).replace("<", "\\u003c")
    identity = hashlib.sha256(os.fsencode(f"{Path(path).resolve()}\n{data}")).hexdigest()[:16]
    page = template.replace("{{title}}", html.escape(title)).replace("{{identity}}", identity)
    write_text(path, page.replace("{{entries}}", data))
