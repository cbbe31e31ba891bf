"""A self-contained HTML page on which a person reviews, rates and corrects labelled scans."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.planes import SLAB_MM, normalise, sample
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.files import write_text
from sct_deepspine.labels import DiscLabels

__all__ = ["Entry", "failed_entry", "make_entry", "read_entries", "write_page"]

PIXEL_MM = 1.0
GREY_RANGE = -1.0, 3.0
"""Normalised grey values shown from black to white."""


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

    def to_json(self) -> str:
        """Return the entry as JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        lists = {name: tuple(values.get(name, ())) for name in ("discs", "warnings", "column_step")}
        lists["row_origins"] = tuple(tuple(point) for point in values.get("row_origins", ()))
        return cls(**values | lists)


def make_entry(labels: DiscLabels, volume: Volume, name: str) -> Entry:
    """Make an entry of a scan's labels.

    Parameters
    ----------
    labels
        From ``label_discs(..., return_maps=True)``.
    volume
        The scan.
    name
        What it is called.

    Raises
    ------
    DeepSpineError
        If the labels were made without maps.
    """
    if labels.prediction is None:
        raise DeepSpineError("a picture needs the maps; call label_discs with return_maps=True")
    factor = max(1, round(labels.prediction.plane.pixel_mm / PIXEL_MM))
    plane = labels.prediction.plane.subdivided(factor)
    image = normalise(*sample(volume.as_ras(), plane, slab_mm=SLAB_MM))
    low, high = GREY_RANGE
    grey = np.clip(255 * (image - low) / (high - low), 0, 255).astype(np.uint8)
    discs = tuple(
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
    return Entry(
        name=name,
        picture=_png(grey),
        width=grey.shape[1],
        height=grey.shape[0],
        discs=discs,
        level_confidence=round(labels.level_confidence, 3),
        warnings=labels.warnings,
        row_origins=tuple(tuple(round(float(c), 2) for c in point) for point in plane.points_world[:, 0]),
        column_step=tuple(round(float(c), 5) for c in plane.pixel_mm * plane.axes[:, 1]),
    )


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
    identity = hashlib.sha256(f"{Path(path).resolve()}\n{data}".encode()).hexdigest()[:16]
    page = template.replace("{{title}}", html.escape(title)).replace("{{identity}}", identity)
    write_text(path, page.replace("{{entries}}", data))
