"""A small picture of what was found: the plane along the canal, its discs, and masks if there are any.

It is drawn with Pillow alone, which loads in a fraction of the time that a plotting library takes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.planes import SamplingPlane, midsagittal_plane, read_labels
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.io.files import plain_line, written_whole
from sct_deepspine.labels import DiscLabels
from sct_deepspine.reporting.views import View, sagittal_view
from sct_deepspine.segmentation.masks import CANAL_VALUE, CORD_VALUE, SpineMasks

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["write_layers", "write_preview"]

PLANE_MM = 2.0
"""Pixels of the plane before it is sampled as finely as the image."""

HEIGHT_PX = 760, 1500
"""Height of the picture: at least, and at most."""

LINE_PX, FONT_PX, MARGIN_PX, RADIUS_PX = 19, 14, 190, 4
"""Height of a line of text, of its letters, width of the margin of names, radius of a disc's circle."""

PNG_LEVEL = 1
"""Of compression, 0 to 9: a picture is a fifth larger than at the usual 6, and takes a third of the time."""

SEEN, PLACED, TITLE, CAUTION = (57, 255, 106), (255, 165, 58), (235, 235, 235), (255, 170, 90)
"""Colours of discs that were seen and of those that were placed, of the title and of warnings."""

CORD_COLOUR, CANAL_COLOUR, MASK_SHARE = (255, 210, 60), (70, 150, 255), 0.4
"""Colours of cord and canal, and how much masks count over the image."""


def write_preview(
    labels: DiscLabels,
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    title: str,
    masks: SpineMasks | None = None,
) -> None:
    """Write a picture of the discs of an image.

    Parameters
    ----------
    labels
        The discs, with the canal that was found.
    volume
        The image.
    path
        The PNG file.
    title
        Stands above the picture.
    masks
        Laid over the picture.

    Raises
    ------
    DeepSpineError
        If no canal is known to lay the plane along.
    OutputError
        If the picture can't be written there.
    """
    _save(_picture(_view(labels, volume), labels, title, masks), path)


def write_layers(
    labels: DiscLabels,
    volume: Volume,
    background: str | os.PathLike[str],
    overlay: str | os.PathLike[str],
    *,
    title: str,
    masks: SpineMasks | None = None,
) -> None:
    """Write the picture of :func:`write_preview` twice: with nothing but the image, and whole.

    Parameters
    ----------
    labels, volume, title, masks
        As there.
    background, overlay
        The PNG files.

    Raises
    ------
    DeepSpineError, OutputError
        As there.
    """
    view = _view(labels, volume)
    _save(_picture(view, labels, title, None, discs=False), background)
    _save(_picture(view, labels, title, masks), overlay)


def _save(picture: Image, path: str | os.PathLike[str]) -> None:
    with written_whole(path) as partial:
        picture.save(partial, format="PNG", compress_level=PNG_LEVEL)


def _view(labels: DiscLabels, volume: Volume) -> View:
    """Read the image on the plane along the canal."""
    if labels.canal is None:
        raise DeepSpineError(
            "a picture needs the canal, which labels of an image without a visible spine lack"
        )
    plane = midsagittal_plane(DeobliquedVolume.of(volume), labels.canal, PLANE_MM)
    return sagittal_view(labels, plane, volume)


def _picture(
    view: View, labels: DiscLabels, title: str, masks: SpineMasks | None, *, discs: bool = True
) -> Image:
    from PIL import Image, ImageDraw

    colours = np.repeat(view.grey[..., None], 3, axis=2)
    if masks is not None:
        colours = _laid_over(colours, read_labels(Volume(masks.spine, masks.grid), view.plane))
    rows = view.plane.shape[0]
    factor = float(np.clip(HEIGHT_PX[0] / rows, 1.0, HEIGHT_PX[1] / rows))
    size = round(view.plane.shape[1] * factor), round(rows * factor)
    picture = Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
    heading = _heading(labels, title, (size[0] + MARGIN_PX) // (FONT_PX // 2 + 1))
    top = LINE_PX * len(heading) + 6
    whole = Image.new("RGB", (size[0] + MARGIN_PX, size[1] + top), "black")
    whole.paste(picture, (0, top))
    draw = ImageDraw.Draw(whole)
    font = _font()
    for n, (text, colour) in enumerate(heading):
        draw.text((4, 3 + n * LINE_PX), text, fill=colour, font=font)
    if discs:
        _draw_discs(draw, labels, view.plane, factor, top, size, font)
    return whole


def _font() -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(FONT_PX)
    except TypeError:  # before Pillow 10.1 there is one size only
        return ImageFont.load_default()


def _laid_over(grey: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour the pixels of a mask: cord, canal, and every other structure by its value."""
    palette = np.zeros((256, 3))
    values = np.arange(256)
    hue = (values * 0.618034) % 1.0  # neighbouring values get colours far apart
    for channel, offset in enumerate((0.0, 1 / 3, 2 / 3)):
        palette[:, channel] = 127.5 * (1 + np.cos(2 * np.pi * (hue - offset)))
    palette[CORD_VALUE], palette[CANAL_VALUE] = CORD_COLOUR, CANAL_COLOUR
    share = MASK_SHARE * (mask > 0)[..., None]
    return np.asarray((1 - share) * grey + share * palette[mask.astype(np.uint8)], dtype=np.uint8)


def _heading(labels: DiscLabels, title: str, letters: int) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the lines above the picture, none wider than it, each with its colour."""
    from textwrap import wrap

    first = wrap(plain_line(title), letters, break_long_words=True)
    sure = f"probability that every level is right: {labels.level_confidence:.2f}"
    lines = [(text, TITLE) for text in [*first, *wrap(sure, letters)]]
    for sentence in labels.warnings[:2]:
        lines += [(text, CAUTION) for text in wrap(sentence, letters)]
    return lines


def _draw_discs(
    draw: ImageDraw,
    labels: DiscLabels,
    plane: SamplingPlane,
    factor: float,
    top: int,
    size: tuple[int, int],
    font: Any,
) -> None:
    """Draw a circle at each disc, and its name beside the picture."""
    places = plane.pixel_from_world(labels.points_world)
    y = (places[:, 0] + 0.5) * factor + top
    x = (places[:, 1] + 0.5) * factor
    lines = _apart(y, LINE_PX, top, top + size[1])
    for disc, column, row, line in zip(labels.discs, x, y, lines, strict=True):
        colour = PLACED if disc.interpolated or disc.from_session else SEEN
        box = (column - RADIUS_PX, row - RADIUS_PX, column + RADIUS_PX, row + RADIUS_PX)
        draw.ellipse(box, outline=colour, width=2)
        draw.line([(column + RADIUS_PX, row), (size[0], row), (size[0] + 12, line)], fill=colour)
        text = f"{disc.value:>2} {disc.name}  {disc.confidence:.2f}"
        draw.text((size[0] + 16, line - LINE_PX / 2), text, fill=colour, font=font)


def _apart(places: Sequence[float] | NDArray[Any], step: float, low: float, high: float) -> NDArray[Any]:
    """Return places of lines of text near the given ones, from top to bottom, no nearer than a step."""
    order = np.argsort(places)
    out = np.asarray(places, dtype=np.float64)[order].copy()
    for n in range(1, len(out)):
        out[n] = max(out[n], out[n - 1] + step)
    limit = high - step / 2
    for n in reversed(range(len(out))):
        out[n] = min(out[n], limit)
        limit = out[n] - step
    out = np.maximum(out, low + step / 2)
    placed = np.empty_like(out)
    placed[order] = out
    return placed
