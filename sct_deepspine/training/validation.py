"""What a network in training is worth: figures and pictures on held-out scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import (
    SLAB_MM,
    SamplingPlane,
    midsagittal_plane,
    normalise,
    sample,
    straightened_plane,
)
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.io.annotations import LabelledScan, canal_points
from sct_deepspine.io.files import written_whole
from sct_deepspine.labeling.heatmaps import DiscCodec, DiscMaps, DiscPredictor
from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.networks import Network
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.training.dataset import PlaneSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Validation", "write_convergence", "write_picture"]

NEAR_MM = 6.0
"""A disc is missed if no prediction is this near to it within the sagittal plane."""

VIEW_MARGIN_MM = 30.0
"""Rows of the straightened plane beyond the outermost labels."""

SHOWN = 6
"""Most scans in a picture of the validation."""

MS_PER_PICTURE = 500
"""Time of each picture in the animation, ms."""


@dataclass(frozen=True)
class _View:
    """One scan's plane, laid by its truth."""

    scan: LabelledScan
    plane: SamplingPlane
    image: NDArray[np.float32]
    tips_pixel: dict[int, FloatArray]


class Validation:
    """Score a network on planes laid by the truth of held-out scans, one plane a scan.

    Calling it returns ``score`` (what a run is judged by), ``right`` (share of true discs found
    within 6 mm in the plane whose likeliest level, by itself, is the true one), ``missed``, ``mean_mm`` and
    ``median_mm``.

    Parameters
    ----------
    scans
        Held-out scans.
    codec, settings
        As in training; the planes are native or straight as there.
    """

    def __init__(self, scans: Sequence[LabelledScan], codec: DiscCodec, settings: PlaneSettings) -> None:
        self.codec, self.settings = codec, settings
        self.views = [_lay_view(scan, settings) for scan in scans]

    def __call__(self, network: Network, step: int, folder: Path) -> dict[str, float]:
        """Score a network and write ``validation_STEP.png`` into the folder."""
        return self.score(Predictor(TorchRuntime(network), self.codec, self.settings.pixel_mm), step, folder)

    def score(self, predictor: DiscPredictor, step: int, folder: Path) -> dict[str, float]:
        """Score a predictor and write ``validation_STEP.png`` into the folder."""
        errors: list[float] = []
        right = missed = 0
        predicted: list[DiscMaps] = []
        for view in self.views:
            maps = predictor.predict([view.image])[0]
            predicted.append(maps)
            cells, _, level = self.codec.decode(maps)
            tips = view.plane.world_from_pixel(self.codec.pixel_from_cell(cells))
            placed = np.isfinite(tips).all(axis=1)  # a straightened plane has pixels that are nowhere
            tips, level = tips[placed], level[placed]
            for value, tip in view.scan.levels.items():
                if value < self.codec.first_value:
                    continue
                distance = np.linalg.norm((tips - tip)[:, 1:], axis=1)
                if not len(distance) or distance.min() > NEAR_MM:
                    missed += 1
                    continue
                errors.append(float(distance.min()))
                right += int(level[distance.argmin()].argmax() + self.codec.first_value == value)
        count = max(missed + len(errors), 1)
        mean = float(np.mean(errors)) if errors else NEAR_MM
        self._write_picture(predicted, step, folder)
        return {
            "score": right / count - mean / 50 - missed / count,
            "right": right / count,
            "missed": missed / count,
            "mean_mm": mean,
            "median_mm": float(np.median(errors)) if errors else NEAR_MM,
        }

    def _write_picture(self, predicted: Sequence[DiscMaps], step: int, folder: Path) -> None:
        """Draw the planes: heat, likeliest level, truth as crosses."""

        def draw(axes: Axes, index: int) -> None:
            view, maps = self.views[index], predicted[index]
            shown = np.kron(maps.any_disc, np.ones((self.codec.stride, self.codec.stride)))
            axes.imshow(view.image, cmap="gray", vmin=-2, vmax=3)
            axes.imshow(np.ma.masked_less(shown, 0.05), cmap="hot", alpha=0.5, vmin=0, vmax=1)
            cells, _, level = self.codec.decode(maps)
            for (row, column), levels in zip(self.codec.pixel_from_cell(cells), level, strict=True):
                text = str(int(levels.argmax()) + self.codec.first_value)
                axes.text(column + 3, row, text, color="lime", fontsize=6, va="center")
            for row, column in view.tips_pixel.values():
                axes.plot(column, row, "c+", ms=4)
            axes.set_xlim(-0.5, view.image.shape[1] - 0.5)
            axes.set_ylim(view.image.shape[0] - 0.5, -0.5)

        write_picture(len(self.views), draw, step, folder)


def write_picture(count: int, draw: Callable[[Axes, int], None], step: int, folder: Path) -> None:
    """Draw up to six of a number of pictures, evenly chosen, in a row; writes ``validation_STEP.png``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).astype(int))
    figure = Figure(figsize=(2.4 * len(chosen), 5), facecolor="black", layout="tight")
    FigureCanvasAgg(figure)
    figure.suptitle(f"step {step}", color="white", fontsize=8)
    for axes, index in zip(np.ravel(figure.subplots(1, len(chosen))), chosen, strict=True):
        draw(axes, int(index))
        axes.axis("off")
    with written_whole(folder / f"validation_{step:06d}.png") as partial:
        figure.savefig(partial, dpi=90, format="png", facecolor="black")


def _lay_view(scan: LabelledScan, settings: PlaneSettings) -> _View:
    scan = scan.deobliqued()
    line = Centerline.from_points(canal_points(scan))
    if settings.straight:
        space = StraightSpace(line)
        height = space.straight_from_native(np.array(list(scan.levels.values())))[:, 2]
        reach = np.nanmin(height) - VIEW_MARGIN_MM, np.nanmax(height) + VIEW_MARGIN_MM
        plane = straightened_plane(space, reach, settings.pixel_mm)
    else:
        plane = midsagittal_plane(DeobliquedVolume.of(scan.volume), line, settings.pixel_mm)
    image = normalise(*sample(scan.volume, plane, slab_mm=SLAB_MM))
    tips = {value: _nearest_pixel(plane, tip) for value, tip in scan.levels.items()}
    return _View(scan, plane, image, tips)


def _nearest_pixel(plane: SamplingPlane, point: FloatArray) -> FloatArray:
    distance = np.linalg.norm(np.nan_to_num(plane.points_world, nan=1e6) - point, axis=2)
    return np.array(np.unravel_index(distance.argmin(), distance.shape), dtype=np.float64)


def write_convergence(folder: Path) -> Path | None:
    """Join the pictures of a run into ``convergence.gif``; None if there are fewer than two."""
    from PIL import Image

    pictures = sorted(folder.glob("validation_*.png"))
    if len(pictures) < 2:
        return None
    frames = []
    for path in pictures:
        with Image.open(path) as picture:
            frames.append(picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    target = folder / "convergence.gif"
    with written_whole(target) as partial:
        frames[0].save(
            partial, format="GIF", save_all=True, append_images=frames[1:], duration=MS_PER_PICTURE, loop=0
        )
    return target
