"""Figures of what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.io.files import written_whole
from sct_deepspine.labeling.calibration import Outcome, calibration_error, reliability
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labels import DiscLabels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_heat",
    "draw_image",
    "draw_labels",
    "draw_pair",
    "new_figure",
    "pair_width_in",
    "spine_window",
    "write_png",
    "write_reliability",
]

SEEN, PLACED, TRUE = "#39ff6a", "#ffa53a", "#ff4d6d"
"""Colours of discs that were seen, of those placed between others, and of the truth."""

GREY_LIMITS = -2.0, 3.0
"""Normalised grey values from black to white."""

POSTERIOR_MM, ANTERIOR_MM = 45.0, 70.0
"""What is shown behind the discs and in front of them."""

FONT = 12
"""Font size, points."""

NAMES_IN = 1.9
"""Width of the margin for names, inches, at that font size."""

LINE_IN = 1.25 * FONT / 72
"""Least distance of two lines of text, inches."""

DPI = 110
"""Pixels per inch of the figures."""


def new_figure(width_in: float, height_in: float, *, dark: bool = False) -> Figure:
    """Return an empty figure that can be saved without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(width_in, height_in), facecolor="black" if dark else "white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    return figure


def draw_image(axes: Axes, prediction: PlanePrediction) -> None:
    """Draw the grey values of a plane."""
    axes.imshow(
        prediction.image, cmap="gray", vmin=GREY_LIMITS[0], vmax=GREY_LIMITS[1], interpolation="bicubic"
    )
    axes.axis("off")


def draw_heat(axes: Axes, prediction: PlanePrediction) -> None:
    """Lay the map of any disc over a plane, smoothly, the more opaque the higher."""
    heat, stride = prediction.maps.any_disc, prediction.codec.stride
    rows, columns = (n * stride for n in heat.shape)
    axes.imshow(
        heat,
        cmap="plasma",
        vmin=0,
        vmax=1,
        alpha=np.clip(2 * heat, 0, 0.85),
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        interpolation="bicubic",
    )


def spine_window(prediction: PlanePrediction, labels: DiscLabels) -> tuple[float, float]:
    """Return the first and the last column of the part of a plane that is worth showing."""
    columns = prediction.plane.pixel_from_world(labels.points_world)[:, 1]
    pixel_mm, width = prediction.plane.pixel_mm, prediction.plane.shape[1]
    first = max(columns.min() - POSTERIOR_MM / pixel_mm, -0.5)
    return float(first), float(min(columns.max() + ANTERIOR_MM / pixel_mm, width - 0.5))


def draw_labels(
    axes: Axes,
    prediction: PlanePrediction,
    labels: DiscLabels,
    *,
    rows_per_inch: float,
    truth: Mapping[int, FloatArray] | None = None,
) -> None:
    """Draw the discs as circles, with their names in a margin beside the picture.

    Parameters
    ----------
    axes
        Where the plane is drawn.
    prediction
        The plane.
    labels
        The discs.
    rows_per_inch
        Rows of the plane per inch of the figure.
    truth
        True discs, value → ``(3,)`` world, drawn as crosses with their values on the other side.
    """
    first, last = spine_window(prediction, labels)
    places = prediction.plane.pixel_from_world(labels.points_world)
    rows = _apart(places[:, 0], LINE_IN * rows_per_inch)
    gap = 0.08 * rows_per_inch
    end = last + NAMES_IN * rows_per_inch
    axes.axvspan(last, end, color="black")
    for disc, (row, column), text_row in zip(labels.discs, places, rows, strict=True):
        colour = PLACED if disc.interpolated else SEEN
        axes.plot(column, row, "o", ms=6, mfc="none", mec=colour, mew=1.5)
        line = [column + gap, last, last + gap], [row, row, text_row]
        axes.plot(*line, color=colour, lw=0.7, alpha=0.6)
        text = f"{disc.value}  {disc.name}  {disc.confidence:.2f}"
        axes.text(last + 2 * gap, text_row, text, color=colour, fontsize=FONT, va="center")
    for value, tip in (truth or {}).items():
        ((row, column),) = prediction.plane.pixel_from_world(tip[None])
        axes.plot(column, row, "+", ms=9, color=TRUE, mew=1.5)
        axes.text(column - gap, row, str(value), color=TRUE, fontsize=FONT, ha="right", va="center")
    axes.set_xlim(first, end)


def draw_pair(figure: Figure, prediction: PlanePrediction, labels: DiscLabels, *, height_in: float) -> None:
    """Fill a figure with a plane and its heat map, and the same plane with its discs."""
    rows = prediction.plane.shape[0]
    first, last = spine_window(prediction, labels)
    rows_per_inch = rows / (height_in - 0.45)
    names = NAMES_IN * rows_per_inch
    left, right = figure.subplots(1, 2, width_ratios=(last - first, last - first + names))
    draw_image(left, prediction)
    draw_heat(left, prediction)
    left.set_xlim(first, last)
    left.set_title("heat map of any disc", color="white", fontsize=FONT)
    draw_image(right, prediction)
    draw_labels(right, prediction, labels, rows_per_inch=rows_per_inch)
    right.set_title(f"level confidence {labels.level_confidence:.2f}", color="white", fontsize=FONT)
    for axes in (left, right):
        axes.set_ylim(rows - 0.5, -0.5)


def pair_width_in(prediction: PlanePrediction, labels: DiscLabels, height_in: float) -> float:
    """Return how wide a figure of :func:`draw_pair` is at a height, inches."""
    first, last = spine_window(prediction, labels)
    return 2 * (last - first) * (height_in - 0.45) / prediction.plane.shape[0] + NAMES_IN + 0.3


def _apart(rows: FloatArray, step: float) -> FloatArray:
    """Return positions of lines of text near the given ones, no nearer to each other than a step."""
    order = np.argsort(rows)
    placed = rows[order].astype(float)
    for _ in range(60):
        gaps = np.diff(placed)
        push = np.maximum(step - gaps, 0) / 2
        if not push.any():
            break
        placed[:-1] -= push
        placed[1:] += push
    out = np.empty_like(placed)
    out[order] = placed
    return out


def write_png(labels: DiscLabels, path: str | os.PathLike[str]) -> None:
    """Write a picture: the midsagittal plane with the heat map, and with the discs.

    Parameters
    ----------
    labels
        From ``label_discs(..., return_maps=True)``.
    path
        The PNG file.

    Raises
    ------
    DeepSpineError
        If the labels were made without maps.
    OutputError
        If it can't be written there.
    """
    if labels.prediction is None:
        raise DeepSpineError("a picture needs the maps; call label_discs with return_maps=True")
    if not labels.discs:
        raise DeepSpineError("a picture needs at least one disc")
    mm = labels.prediction.plane.shape[0] * labels.prediction.plane.pixel_mm
    height_in = float(np.clip(len(labels.discs) * LINE_IN * 1.6 + 1, max(5.5, mm / 60), 14))
    figure = new_figure(pair_width_in(labels.prediction, labels, height_in), height_in, dark=True)
    draw_pair(figure, labels.prediction, labels, height_in=height_in)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=DPI, format="png", facecolor="black")


def write_reliability(outcomes: Sequence[Outcome], path: str | os.PathLike[str]) -> None:
    """Draw how often a confidence was justified against how high it was, of scans and of discs.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    figure = new_figure(8, 4.4)
    for axes, part in zip(figure.subplots(1, 2), ("scan", "disc"), strict=True):
        own = [j for j in outcomes if j.part == part]
        predicted, right = [j.confidence for j in own], [j.right for j in own]
        rows = reliability(predicted, right)
        axes.plot([0, 1], [0, 1], color="grey", lw=1)
        axes.plot([row[0] for row in rows], [row[1] for row in rows], "o-", color="tab:blue")
        for mean, share, count in rows:
            axes.annotate(str(count), (mean, share), xytext=(5, -12), textcoords="offset points", fontsize=9)
        error = 100 * calibration_error(predicted, right)
        axes.set_title(f"{part}s: calibration error {error:.1f} %", fontsize=12)
        axes.set_xlabel("confidence", fontsize=11)
        axes.set_ylabel("share that was right", fontsize=11)
        axes.set_xlim(0, 1.04)
        axes.set_ylim(0, 1.04)
        axes.set_aspect("equal")
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=DPI, format="png")
