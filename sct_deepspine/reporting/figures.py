"""Pictures of what was found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sct_deepspine.errors import DeepSpineError
from sct_deepspine.io.files import written_whole
from sct_deepspine.labeling.calibration import Outcome, calibration_error, reliability
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labels import DiscLabels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_prediction", "write_png", "write_reliability"]


def draw_prediction(
    axes: Axes, prediction: PlanePrediction, labels: DiscLabels | None = None, *, heat: bool = False
) -> None:
    """Draw a native sampling, its heat maps if asked for, and its discs with names and confidences."""
    height, width = prediction.plane.shape
    axes.imshow(prediction.image, cmap="gray", vmin=-2, vmax=3, interpolation="bilinear")
    if heat:
        edges = (-0.5, prediction.maps.any_disc.shape[1] * prediction.codec.stride - 0.5)
        bottom = prediction.maps.any_disc.shape[0] * prediction.codec.stride - 0.5
        shown = np.ma.masked_less(prediction.maps.any_disc, 0.05)
        axes.imshow(shown, cmap="hot", alpha=0.5, vmin=0, vmax=1, extent=(*edges, bottom, -0.5))
    if labels is not None and labels.discs:
        for disc, (row, column) in zip(
            labels.discs, prediction.plane.pixel_from_world(labels.points_world), strict=True
        ):
            colour = "orange" if disc.interpolated else "lime"
            axes.plot(column, row, "o", ms=4, mfc="none", mec=colour)
            text = f"{disc.value} {disc.name} {disc.confidence:.2f}"
            axes.text(column + 4, row, text, color=colour, fontsize=7, va="center")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.axis("off")


def write_png(labels: DiscLabels, path: str | os.PathLike[str]) -> None:
    """Write a picture: the sampling with its discs, and beside it the heat maps.

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if labels.prediction is None:
        raise DeepSpineError("a picture needs the maps; call label_discs with return_maps=True")
    height, width = labels.prediction.plane.shape
    figure = Figure(figsize=(10, 10 * height / (2 * width)), facecolor="black", layout="tight")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    draw_prediction(left, labels.prediction, labels)
    draw_prediction(right, labels.prediction, heat=True)
    left.set_title(f"level confidence {labels.level_confidence:.2f}", color="white", fontsize=9)
    right.set_title("any disc", color="white", fontsize=9)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=100, format="png", facecolor="black")


def write_reliability(outcomes: Sequence[Outcome], path: str | os.PathLike[str]) -> None:
    """Draw how often a confidence was justified against how high it was, of scans and of discs.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="tight")
    FigureCanvasAgg(figure)
    for axes, part in zip(figure.subplots(1, 2), ("scan", "disc"), strict=True):
        own = [j for j in outcomes if j.part == part]
        said, right = [j.confidence for j in own], [j.right for j in own]
        rows = reliability(said, right)
        axes.plot([0, 1], [0, 1], color="grey", lw=1)
        axes.plot([row[0] for row in rows], [row[1] for row in rows], "o-", color="tab:blue")
        for mean, share, count in rows:
            axes.annotate(str(count), (mean, share), xytext=(4, -10), textcoords="offset points", fontsize=7)
        axes.set_title(
            f"{part}s: calibration error {100 * calibration_error(said, right):.1f} %", fontsize=10
        )
        axes.set_xlabel("confidence")
        axes.set_ylabel("share that was right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_aspect("equal")
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
