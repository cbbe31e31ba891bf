"""Discs as notebooks show them: a picture and a table."""

from __future__ import annotations

import base64
import html
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.io.images import read_one_volume
from sct_deepspine.labels import DiscLabels
from sct_deepspine.reporting.preview import write_preview

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sct_deepspine.segmentation.masks import SpineMasks

__all__ = ["labels_figure", "labels_html", "masks_html"]

ROW = "<tr><td>{value}</td><td>{name}</td><td>{place}</td><td>{confidence:.2f}</td><td>{note}</td></tr>"
PART = "<tr><td>{name}</td><td>{volume:.2f}</td><td>{confidence:.2f}</td></tr>"
PARTS = "<tr><th>structure</th><th>cm³</th><th>confidence</th></tr>"
HEAD = "<tr><th>value</th><th>disc</th><th>x, y, z mm</th><th>confidence</th><th></th></tr>"


def _picture(labels: DiscLabels, masks: SpineMasks | None = None) -> bytes:
    """Return the preview of labels, and of masks, whose image can be read again, as PNG."""
    if labels.source is None:
        raise DeepSpineError("the image of these labels is not known; use labels.with_source(image)")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "preview.png"
        volume = read_one_volume(labels.source)
        write_preview(labels, volume, path, title=_title(labels), masks=masks)
        return path.read_bytes()


def _title(labels: DiscLabels) -> str:
    return Path(labels.source).name if isinstance(labels.source, (str, Path)) else "discs"


def masks_html(masks: SpineMasks) -> str:
    """Return tables of discs and structures, beside a picture of both if the image can be read again."""
    rows = [
        PART.format(name=part.name, volume=part.volume_mm3 / 1000, confidence=part.confidence)
        for part in masks.structures
    ]
    return labels_html(masks.labels, masks, f"<table>{PARTS}{''.join(rows)}</table>")


def labels_html(labels: DiscLabels, masks: SpineMasks | None = None, more: str = "") -> str:
    """Return a table of the discs, beside their picture if the image can be read again.

    Parameters
    ----------
    labels
        The discs.
    masks
        Masks to draw with them.
    more
        HTML to put beside the table.
    """
    rows = [
        ROW.format(
            value=disc.value,
            name=disc.name,
            place=", ".join(f"{c:.1f}" for c in disc.point_world),
            confidence=disc.confidence,
            note="interpolated" if disc.interpolated else "from session" if disc.from_session else "",
        )
        for disc in labels.discs
    ]
    sentences = [f"probability that every level is right: {labels.level_confidence:.2f}", *labels.warnings]
    text = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    table = f"<div><table>{HEAD}{''.join(rows)}</table>{text}</div>"
    picture = ""
    with suppress(DeepSpineError):
        content = base64.b64encode(_picture(labels, masks)).decode("ascii")
        picture = f'<img alt="discs" style="max-height:480px" src="data:image/png;base64,{content}">'
    return f'<div style="display:flex;gap:1em;align-items:flex-start">{picture}{table}{more}</div>'


def labels_figure(labels: DiscLabels) -> Figure:
    """Return a Matplotlib figure of the discs.

    Raises
    ------
    DeepSpineError
        If the image that they are of can't be read again, or its canal is not known.
    """
    import io

    from PIL import Image

    from sct_deepspine.reporting.figures import new_figure

    picture = Image.open(io.BytesIO(_picture(labels)))
    figure = new_figure(picture.width / 100, picture.height / 100, dark=True)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture)
    axes.axis("off")
    return figure
