"""What a mask network in training is worth: overlap with true masks on planes of held-out scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.planes import normalise, read_labels, sample
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.io.annotations import LabelledScan, canal_points
from sct_deepspine.models.backends.torch import TorchRuntime
from sct_deepspine.models.networks import Network
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.segmentation.corridor import Corridor, with_neighbours
from sct_deepspine.segmentation.tissues import Tissue, TissueCodec
from sct_deepspine.training.tissue_planes import TissuePlaneSettings, possible_tissues
from sct_deepspine.training.validation import write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MaskValidation"]

PLANES_A_STEP, LATERAL_REACH_MM = 2, 8.0
"""Every how many planes one is scored, and how far from the canal at most, left or right."""

CANAL = (Tissue.CORD, Tissue.FLUID)


@dataclass(frozen=True)
class _TissuePlane:
    image: NDArray[np.float32]
    possible: NDArray[np.uint8]


class MaskValidation:
    """Score a mask network on planes laid by the truth of held-out scans, five a scan.

    Calling it returns the Dice of canal, discs and vertebrae where a tissue mask tells them, that of the
    cord where a cord mask does, the share of vertebral bodies' voxels found (``bodies``), and their mean
    (``score``).

    Parameters
    ----------
    scans
        Held-out scans; those without masks are passed over.
    codec, settings
        As in training.
    """

    def __init__(
        self, scans: Sequence[LabelledScan], codec: TissueCodec, settings: TissuePlaneSettings
    ) -> None:
        self.codec, self.settings = codec, settings
        self.planes = [plane for scan in scans if scan.has_masks for plane in _lay_planes(scan, settings)]

    def __call__(self, network: Network, step: int, folder: Path) -> dict[str, float]:
        """Score a network and write ``validation_STEP.png`` into the folder."""
        predictor = Predictor(TorchRuntime(network), self.codec, self.settings.pixel_mm)
        counts: dict[str, NDArray[np.float64]] = {}
        predicted = []
        for plane in self.planes:
            likeliest = predictor.predict([plane.image])[0].argmax(axis=0)
            predicted.append(likeliest)
            for name, overlap in _overlaps(likeliest, plane.possible):
                counts[name] = counts.get(name, np.zeros(2)) + overlap
        figures = {name: float(hit / max(whole, 1)) for name, (hit, whole) in sorted(counts.items())}
        self._write_picture(predicted, step, folder)
        return {"score": float(np.mean(list(figures.values()) or [0.0])), **figures}

    def _write_picture(self, predicted: Sequence[NDArray[np.int64]], step: int, folder: Path) -> None:
        """Draw the planes with their likeliest tissues."""

        def draw(axes: Axes, index: int) -> None:
            image = self.planes[index].image
            axes.imshow(image[len(image) // 2], cmap="gray", vmin=-2, vmax=3)
            shown = np.ma.masked_equal(predicted[index], Tissue.OTHER)
            axes.imshow(shown, cmap="tab10", vmin=0, vmax=9, alpha=0.45, interpolation="nearest")

        write_picture(len(self.planes), draw, step, folder)


def _lay_planes(scan: LabelledScan, settings: TissuePlaneSettings) -> Iterator[_TissuePlane]:
    scan = scan.deobliqued()
    possible = possible_tissues(scan)
    space = StraightSpace(Centerline.from_points(canal_points(scan)))
    corridor = Corridor(space, space.z_mm, settings.pixel_mm)
    planes = corridor.planes(np.eye(3))
    read = [sample(scan.volume, plane, slab_mm=1.0) for plane in planes]
    images, middle = [normalise(*pair) for pair in read], len(planes) // 2
    for number in range(middle % PLANES_A_STEP, len(planes), PLANES_A_STEP):
        if abs(corridor.lateral_mm[number]) <= LATERAL_REACH_MM:
            target = np.where(read[number][1], read_labels(possible, planes[number]), 0).astype(np.uint8)
            yield _TissuePlane(with_neighbours(images, number, settings.channels), target)


def _overlaps(
    likeliest: NDArray[np.int64], possible: NDArray[np.uint8]
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Return twice the voxels in common and the voxels in all, by name; over what is known."""
    single = {tissue: possible == tissue.bit for tissue in Tissue}
    canal_bits = [tissue.bit for tissue in CANAL] + [sum(tissue.bit for tissue in CANAL)]
    whole = single[Tissue.DISC].any() and single[Tissue.VERTEBRA].any()
    if whole:
        known = possible > 0
        found = {
            "canal": (np.isin(likeliest, CANAL), np.isin(possible, canal_bits)),
            "discs": (likeliest == Tissue.DISC, single[Tissue.DISC]),
            "vertebrae": (likeliest == Tissue.VERTEBRA, single[Tissue.VERTEBRA]),
        }
        open_bone = known & (possible == (Tissue.OTHER.bit | Tissue.VERTEBRA.bit))
        for name, (mine, true) in found.items():
            counted = known & ~open_bone
            yield name, (2.0 * (mine & true & counted).sum(), float((mine & counted).sum() + true.sum()))
    elif single[Tissue.CORD].any():
        mine, true = likeliest == Tissue.CORD, single[Tissue.CORD]
        known = (possible > 0) & (((possible & Tissue.CORD.bit) == 0) | true)
        yield "cord", (2.0 * (mine & true).sum(), float((mine & known).sum() + true.sum()))
    elif single[Tissue.VERTEBRA].any():
        true = single[Tissue.VERTEBRA]
        yield "bodies", (float(((likeliest == Tissue.VERTEBRA) & true).sum()), float(true.sum()))
