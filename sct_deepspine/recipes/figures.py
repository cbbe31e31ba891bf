"""Pictures of predicted masks, and of how a training went."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.io.files import written_whole
from sct_deepspine.recipes.folders import Sample
from sct_deepspine.recipes.task import MaskCodec
from sct_deepspine.reporting.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MaskCase", "write_best_and_worst", "write_cases", "write_curves"]

RIGHT, MISSED, FALSE = "#1fb45a", "#ff2fa0", "#ff9a1f"
"""Colours of pixels found, of those missed, and of those that are not of the class."""

OPACITY = 0.65
"""Share of the colour in a coloured pixel."""

SIDE_IN, TITLE_IN = 2.6, 0.9
"""Width of a picture, and height left for the title, inches."""

DPI = 100
"""Pixels per inch of the figures."""


@dataclass(frozen=True, eq=False)
class MaskCase:
    """One image with truth and prediction, for a picture.

    Parameters
    ----------
    title
        Written above it.
    image
        One plane, ``(channels, rows, columns)``.
    truth, predicted
        Indices of classes, ``(rows, columns)``.
    known
        The field of view, of the same shape.
    f1
        How well it went, over the whole image.
    """

    title: str
    image: NDArray[Any]
    truth: NDArray[Any]
    predicted: NDArray[Any]
    known: NDArray[np.bool_]
    f1: float

    @classmethod
    def of(cls, sample: Sample, probabilities: NDArray[np.float32], codec: MaskCodec, f1: float) -> MaskCase:
        """Take the plane of a sample that has the largest mask."""
        truth, predicted = codec.encode(sample.mask, sample.name), codec.decide(probabilities)
        plane = int(np.argmax((truth > 0).sum(axis=(1, 2))))
        known = np.ones(truth.shape, dtype=bool) if sample.known is None else sample.known
        title = f"{sample.name}\nF1 {f1:.3f}"
        return cls(title, sample.image[plane], truth[plane], predicted[plane], known[plane], f1)


def write_cases(cases: Sequence[MaskCase], path: Path, *, title: str = "", columns: int = 6) -> None:
    """Draw cases in rows: each image, and below it the image with what was found, missed and false.

    Raises
    ------
    OutputError
        If it can't be written there.
    """
    columns = min(columns, len(cases))
    lines = -(-len(cases) // columns)
    figure = new_figure(SIDE_IN * columns, (2 * SIDE_IN + 0.4) * lines + TITLE_IN)
    grid = figure.subplots(2 * lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index, case in enumerate(cases):
        line, column = divmod(index, columns)
        _draw(grid[2 * line, column], case, marked=False)
        grid[2 * line, column].set_title(case.title, fontsize=11)
        _draw(grid[2 * line + 1, column], case, marked=True)
    names = (RIGHT, "found"), (MISSED, "missed"), (FALSE, "false")
    for place, (colour, name) in zip((0.35, 0.5, 0.65), names, strict=True):
        figure.text(place, 0.004, name, color=colour, fontsize=13, weight="bold", ha="center", va="bottom")
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0.06, 1, 0.94))
    if title:
        figure.suptitle(title, fontsize=12)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=DPI, format="png")


def write_best_and_worst(cases: Sequence[MaskCase], path: Path, *, count: int = 3) -> None:
    """Draw the best cases and the worst ones, each case once; the best come first."""
    order = sorted(cases, key=lambda case: -np.nan_to_num(case.f1))
    best = order[: min(count, (len(order) + 1) // 2)]
    worst = order[len(best) :][-count:]
    title = f"the {len(best)} best and the {len(worst)} worst of {len(order)} images"
    write_cases([*best, *worst], path, title=title)


def write_curves(log: Path, path: Path) -> None:
    """Draw the losses and the F1 of a run's log against the step."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    step = [int(row["step"]) for row in rows]
    figure = new_figure(8, 3)
    left, right = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("validation_loss", "validation")):
        left.plot(step, [float(row[name]) for row in rows], ".-", label=label)
    left.set(xlabel="step", ylabel="cross-entropy per pixel", yscale="log")
    left.legend()
    right.plot(step, [float(row["f1"]) for row in rows], ".-", color="C1")
    right.set(xlabel="step", ylabel="F1 on validation images", ylim=(0, 1))
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=DPI, format="png")


def _draw(axes: Axes, case: MaskCase, *, marked: bool) -> None:
    shown = _as_colours(case.image)
    if marked:
        right = (case.truth == case.predicted) & (case.truth > 0)
        missed = (case.truth > 0) & ~right
        false = (case.predicted > 0) & ~right & ~missed
        for where, colour in ((right, RIGHT), (missed, MISSED), (false, FALSE)):
            rgb = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
            where = where & case.known
            shown[where] = (1 - OPACITY) * shown[where] + OPACITY * rgb
        shown[~case.known] *= 0.4
    axes.imshow(shown, interpolation="nearest" if max(shown.shape) <= 128 else "antialiased")


def _as_colours(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return an image of any channels as ``(rows, columns, 3)`` from 0 to 1."""
    values = image.astype(np.float64)
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return np.moveaxis(scaled if len(scaled) == 3 else np.repeat(scaled[:1], 3, axis=0), 0, 2).copy()
