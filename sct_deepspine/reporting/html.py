"""An HTML page to review, rate and correct labelled scans on; it needs no server and no network."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sct_deepspine.anatomy import PRESACRAL
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.centerline import Centerline, followed_line
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SamplingPlane
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.disc_labels import GivenLabels
from sct_deepspine.io.files import make_folder, write_text
from sct_deepspine.labeling.anchors import MAX_TIP_MM
from sct_deepspine.labels import UNCERTAIN, DiscLabels
from sct_deepspine.reporting.outlines import outlined_structures
from sct_deepspine.reporting.views import coronal_view, sagittal_view
from sct_deepspine.segmentation.masks import SpineMasks

__all__ = ["Entry", "failed_entry", "make_entry", "read_entries", "write_page"]

CANAL_STEP_MM = 5.0
"""Between the points of the canal that an entry holds. A point 40 mm away is at most 0.1 mm nearer to the
canal itself: what the page takes is not refused as too far when it is applied."""


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
    canal_points
        World mm of points along the spinal canal and beyond its ends; discs far from all of them are refused.
        Empty if the canal is not known, or if an earlier version wrote the entry.
    structures
        What the masks hold, if there are any: ``kind``, ``name``, ``unsure``, ``measured``, and the outlines
        ``sagittal`` and ``coronal`` as SVG paths in the pixels of the pictures.
    image
        The image file that the scan was: ``sha256``, ``shape``, ``affine`` and ``path``; empty if it is no
        file.
    corrected
        Whether a person set these discs.
    absent
        Values that the person marked as not there.
    rating, accepted
        How a person rated the scan before: ``pass``, ``fail`` or ``doubt``, and whether the labels were
        accepted as they are.
    presacral
        Vertebrae above the sacrum: they tell the discs' names.
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
    canal_points: tuple[tuple[float, ...], ...] = ()
    structures: tuple[dict[str, Any], ...] = ()
    image: dict[str, Any] = field(default_factory=dict)
    corrected: bool = False
    absent: tuple[int, ...] = ()
    rating: str = ""
    accepted: bool = False
    presacral: int = PRESACRAL

    @property
    def key(self) -> str:
        """What ratings and corrections are kept by: the image's fingerprint, and its path or else the name.

        Examples
        --------
        >>> Entry("t2", image={"sha256": "0123456789abcdef0123", "path": "a/t2.nii.gz"}).key
        '0123456789abcdef:a/t2.nii.gz'
        """
        return f"{str(self.image.get('sha256', ''))[:16]}:{self.image.get('path') or self.name}"

    @property
    def is_doubtful(self) -> bool:
        """Whether the levels or a disc are more likely wrong than right."""
        least = min((disc["confidence"] for disc in self.discs), default=1.0)
        return not self.error and min(self.level_confidence, least) < UNCERTAIN

    def to_json(self) -> str:
        """Return the entry as JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        names = "discs", "warnings", "column_step", "structures", "absent"
        lists = {name: tuple(values.get(name, ())) for name in names}
        for name in ("row_origins", "coronal_places", "canal_points"):
            lists[name] = tuple(tuple(point) for point in values.get(name, ()))
        return cls(**values | lists)._with_places()

    def _with_places(self) -> Entry:
        """Add where the discs are in the world, which entries before 0.9.0 do not hold."""
        if not self.row_origins or all("world_mm" in disc for disc in self.discs):
            return self
        rows, step = np.array(self.row_origins), np.array(self.column_step)
        discs = []
        for disc in self.discs:
            top = int(np.clip(disc["row"], 0, max(len(rows) - 2, 0)))
            share = disc["row"] - top
            start = rows[top] * (1 - share) + rows[min(top + 1, len(rows) - 1)] * share
            discs.append(disc | {"world_mm": [round(float(c), 3) for c in start + disc["column"] * step]})
        return replace(self, discs=tuple(discs))


def make_entry(
    labels: DiscLabels,
    volume: Volume,
    name: str,
    *,
    masks: SpineMasks | None = None,
    image: dict[str, Any] | None = None,
    given: GivenLabels | None = None,
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
        Which file it was; see :meth:`sct_deepspine.io.identity.ImageIdentity.as_dict`, and its ``path``.
    given
        What a person did with the discs on the page before: what is not there, and whether the labels were
        accepted without an edit.

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
        canal_points=_canal_points(labels.canal),
        pixel_mm=round(plane.pixel_mm, 4),
        structures=outlined_structures(masks, **planes) if masks is not None else (),
        image=image or {},
        corrected=labels.view == "corrected" and not (given is not None and given.accepted),
        absent=tuple(sorted(given.absent)) if given is not None else (),
        presacral=labels.presacral,
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
            "world_mm": [round(float(c), 3) for c in disc.point_world],
        }
        for disc, (row, column) in zip(labels.discs, plane.pixel_from_world(labels.points_world), strict=True)
    )


def _canal_points(canal: Centerline | None) -> tuple[tuple[float, ...], ...]:
    return () if canal is None else _rounded(followed_line(canal, step_mm=CANAL_STEP_MM)[1], 2)


def _rounded(points: FloatArray, digits: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(c), digits) for c in point) for point in points)


def failed_entry(name: str, error: str, *, image: dict[str, Any] | None = None) -> Entry:
    """Make an entry of a scan that could not be labelled."""
    return Entry(name=name, error=error, image=image or {})


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


SCRIPTS = "discs.js", "work.js", "pictures.js", "page.js"
"""The page's own scripts, in the order in which they stand in it."""

HEAVY = "picture", "coronal_picture", "structures", "row_origins", "coronal_places", "canal_points"
"""What of an entry is only wanted while it is shown."""

MAX_INSIDE = 30
"""A page of more scans than this has their pictures beside it."""


def write_page(
    path: str | Path, entries: Sequence[Entry], *, title: str, pictures_beside: bool | None = None
) -> None:
    """Write the page: scans that failed first, then from the least to the most confident.

    Ratings and corrections are kept in the browser, for this page and by the key of each entry, and saved to
    one file.

    Parameters
    ----------
    path
        Where to.
    entries
        The scans.
    title
        Of the page.
    pictures_beside
        Whether pictures lie in a folder beside the page (``index_files`` for ``index.html``) and are loaded
        when they are viewed. By default those of more than 30 scans are; a page of fewer is one file that
        holds everything.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    path = Path(path)
    ordered = sorted(entries, key=lambda one: (not one.error, one.level_confidence, one.name, one.key))
    if pictures_beside is None:
        pictures_beside = len(ordered) > MAX_INSIDE
    labels = _short_names(ordered)
    rows = [
        asdict(entry) | {"key": key, "label": label, "doubtful": entry.is_doubtful}
        for entry, key, label in zip(ordered, _keys(ordered), labels, strict=True)
    ]
    folder = path.with_name(f"{path.stem}_files")
    if pictures_beside:
        make_folder(folder)
        rows = [_moved_out(row, folder) if row["picture"] else row for row in rows]
    # A "<" could end or open the script that the data stands in, or a comment.
    data = json.dumps(rows).replace("<", "\\u003c")
    identity = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    content = {"title": html.escape(title), "identity": identity, "max_tip_mm": f"{MAX_TIP_MM:g}"}
    write_text(path, _assembled(**content, entries=data))
    _clear(folder, {row["script"].rpartition("/")[2] for row in rows if "script" in row})


def _part(name: str) -> str:
    return files("sct_deepspine.reporting").joinpath(f"page/{name}").read_text(encoding="utf-8")


def _assembled(**content: str) -> str:
    """Put the parts of the page and its content together."""
    content["style"] = _part("page.css")
    content["script"] = "\n".join(_part(name) for name in SCRIPTS)
    pieces = re.split(r"\{\{(\w+)\}\}", _part("page.html"))
    return "".join(content[piece] if n % 2 else piece for n, piece in enumerate(pieces))


def _moved_out(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write what is heavy of an entry to a script of its own, named by its content."""
    content = json.dumps({name: row[name] for name in HEAVY}).replace("<", "\\u003c")
    digest = hashlib.sha256(f"{row['key']}\n{content}".encode("utf-8", "backslashreplace")).hexdigest()
    script = f"{folder.name}/{digest[:24]}.js"
    target = folder.parent / script
    if not target.is_file():
        write_text(target, f"showPictures({json.dumps(script)}, {content});\n")
    return {name: value for name, value in row.items() if name not in HEAVY} | {"script": script}


def _clear(folder: Path, wanted: set[str]) -> None:
    """Remove scripts of entries that are no longer on the page."""
    for place in folder.glob("*.js"):
        if place.name not in wanted and re.fullmatch(r"[0-9a-f]{24}\.js", place.name):
            place.unlink(missing_ok=True)
    if not wanted and folder.is_dir():
        with suppress(OSError):  # it holds something else
            folder.rmdir()


def _keys(entries: Sequence[Entry]) -> list[str]:
    """Return the key of each entry; equal ones without an image get one of their content."""
    often = Counter(entry.key for entry in entries)
    digests = [hashlib.sha256(entry.to_json().encode("utf-8", "backslashreplace")) for entry in entries]
    return [
        entry.key if often[entry.key] == 1 else f"{entry.key}#{digest.hexdigest()[:8]}"
        for entry, digest in zip(entries, digests, strict=True)
    ]


def _short_names(entries: Sequence[Entry]) -> list[str]:
    """Return the last word of each name, with as many before it as tell the scans apart.

    Examples
    --------
    >>> _short_names([Entry("sub-01/anat/sub-01_T2w"), Entry("a", image={"path": "/x/1/a.nii"}),
    ...               Entry("a", image={"path": "/x/2/a.nii"})])
    ['sub-01_T2w', '1/a', '2/a']
    """
    words = [[entry.name] if " / " in entry.name else entry.name.split("/") for entry in entries]
    for entry, parts in zip(entries, words, strict=True):
        folders = Path(entry.image.get("path", "")).as_posix().split("/")[:-1]
        if len(parts) == 1:
            parts[:0] = [folder for folder in folders if folder]
    counts = [1] * len(words)
    while True:
        names = ["/".join(parts[-count:]) for parts, count in zip(words, counts, strict=True)]
        often = Counter(names)
        same = [n for n, name in enumerate(names) if often[name] > 1 and counts[n] < len(words[n])]
        if not same:
            return names
        for n in same:
            counts[n] += 1
