"""Scores of masks against true ones.

Every structure is scored where a true mask of it exists. What a true mask leaves out is not counted: a scan
with vertebral bodies only tells nothing of processes, one with a cord mask nothing beyond the mask's ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from sct_deepspine.anatomy import vertebra_name
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.evaluation.resampling import mean_interval
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.io.annotations import CANAL_TISSUE, DISC_TISSUE, VERTEBRA_TISSUE, LabelledScan
from sct_deepspine.io.images import read_volume
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.segmentation.masks import (
    CANAL_VALUE,
    CORD_VALUE,
    SpineMasks,
    disc_mask_value,
    vertebra_mask_value,
)
from sct_deepspine.segmentation.model import SegmentationModel
from sct_deepspine.segmentation.pipeline import segment_spine
from sct_deepspine.simulation.perturbations import Case

__all__ = [
    "MaskResult",
    "MaskScore",
    "area_report",
    "cord_areas",
    "mask_report",
    "score_masks",
    "segment_and_score",
    "surface_distance_mm",
]

logger = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

FIRST_BONE, LAST_BONE = vertebra_mask_value(1), vertebra_mask_value(24)
"""Values of C1 and L5 in the whole mask."""

FIRST_DISC = disc_mask_value(3)
"""Value of C2/C3 in the whole mask."""


@dataclass(frozen=True)
class MaskScore:
    """How well one structure of one scan was segmented.

    Parameters
    ----------
    scan, subject
        Whose mask.
    structure
        ``canal``, ``cord``, ``discs``, ``vertebrae`` or ``bodies`` (vertebral bodies alone).
    dice
        Overlap; for bodies, of which only the inside is known, the share of their voxels found.
    distance_mm
        95th percentile of the distances between the surfaces, both ways; NaN for bodies.
    volume_ratio
        Predicted to true volume; NaN for bodies.
    right_level
        Share of a body's voxels with the value of its vertebra; NaN for others.
    """

    scan: str
    subject: str
    structure: str
    dice: float
    distance_mm: float
    volume_ratio: float
    right_level: float = float("nan")


@dataclass(frozen=True)
class MaskResult:
    """What came of segmenting one case.

    Parameters
    ----------
    perturbation
        The case's.
    scores
        One per structure that has a true mask.
    true_areas, areas
        The cord's mean cross-sectional area by vertebral level, mm²; empty if no true cord mask is there or
        the scan was perturbed.
    seconds
        Wall time, labelling included.
    """

    perturbation: str
    scores: tuple[MaskScore, ...]
    true_areas: Mapping[int, float]
    areas: Mapping[int, float]
    seconds: float


def segment_and_score(
    scan: LabelledScan, case: Case, *, model: SegmentationModel, labeling: LabelingModel
) -> MaskResult:
    """Segment one case from the image alone, and score every mask that has a true one."""
    started = time.perf_counter()
    masks = None
    try:
        labels = label_discs(case.image, anchor=case.anchor, weights=labeling)
        masks = segment_spine(case.image, labels=labels, weights=model, labeling=labeling)
    except DeepSpineError as failure:
        logger.warning("%s (%s): %s", scan.name, case.perturbation, failure)
    seconds = time.perf_counter() - started
    grid = read_volume(case.image).grid
    scores = tuple(score_masks(masks, scan, grid, case.original_from_perturbed))
    true_areas: dict[int, float] = {}
    areas: dict[int, float] = {}
    if scan.cord is not None and masks is not None and case.perturbation == "plain":
        true_areas = cord_areas(scan.cord.labels_on(grid) > 0, grid, scan)
        areas = cord_areas(masks.cord > 0, grid, scan)
    return MaskResult(case.perturbation, scores, true_areas, areas, seconds)


def score_masks(
    masks: SpineMasks | None,
    scan: LabelledScan,
    grid: Grid,
    original_from_image: ArrayLike | None = None,
) -> Iterator[MaskScore]:
    """Score the masks of one image against every true mask of its scan.

    Parameters
    ----------
    masks
        What was found, None if segmenting failed.
    scan
        The truth.
    grid
        The image's; it may be another than the scan's.
    original_from_image
        ``(4, 4)``: takes world points of the image to those of the scan.
    """
    found = np.zeros(grid.shape, np.uint8) if masks is None else masks.spine
    spacing = grid.spacing_mm

    def scored(name: str, mine: Mask, true: Mask) -> MaskScore:
        total = int(mine.sum()) + int(true.sum())
        return MaskScore(
            scan.name,
            scan.subject,
            name,
            dice=2.0 * float((mine & true).sum()) / max(total, 1),
            distance_mm=surface_distance_mm(mine, true, spacing),
            volume_ratio=float(mine.sum()) / max(float(true.sum()), 1.0),
        )

    canal = (found == CORD_VALUE) | (found == CANAL_VALUE)
    if scan.tissue is not None:
        tissue = scan.tissue.labels_on(grid, original_from_image)
        yield scored("canal", canal, tissue >= CANAL_TISSUE)
        yield scored("discs", found >= FIRST_DISC, tissue == DISC_TISSUE)
        bone = (found >= FIRST_BONE) & (found <= LAST_BONE)
        yield scored("vertebrae", bone, tissue == VERTEBRA_TISSUE)
    if scan.canal is not None:
        true = scan.canal.labels_on(grid, original_from_image) > 0
        yield scored("canal", canal & _between_ends(true), true)
    if scan.cord is not None:
        true = scan.cord.labels_on(grid, original_from_image) > 0
        yield scored("cord", (found == CORD_VALUE) & _between_ends(true), true)
    if scan.bodies is not None:
        numbers = scan.bodies.labels_on(grid, original_from_image)
        yield _score_bodies(found, numbers, scan)


def _score_bodies(found: NDArray[np.uint8], numbers: NDArray[np.uint8], scan: LabelledScan) -> MaskScore:
    inside = numbers > 0
    bone = (found >= FIRST_BONE) & (found <= LAST_BONE)
    wanted = np.zeros(256, dtype=np.uint8)
    for number in np.unique(numbers[inside]).tolist():
        wanted[number] = vertebra_mask_value(number)
    return MaskScore(
        scan.name,
        scan.subject,
        "bodies",
        dice=float(bone[inside].mean()),
        distance_mm=float("nan"),
        volume_ratio=float("nan"),
        right_level=float((found[inside] == wanted[numbers[inside]]).mean()),
    )


def _between_ends(true: Mask) -> Mask:
    """Return which slices, along the axis that a mask is longest on, lie between its ends."""
    spans = [np.nonzero(true.any(axis=tuple({0, 1, 2} - {axis})))[0] for axis in range(3)]
    axis = int(np.argmax([len(span) for span in spans]))
    out = np.zeros(true.shape, dtype=bool)
    if len(spans[axis]):
        part: list[slice] = [slice(None)] * 3
        part[axis] = slice(int(spans[axis][0]), int(spans[axis][-1]) + 1)
        out[tuple(part)] = True
    return out


def surface_distance_mm(mine: Mask, true: Mask, spacing_mm: FloatArray, *, percentile: float = 95) -> float:
    """Return a percentile of the distances from each surface to the other, of both ways together, mm.

    Infinite if one mask is empty, 0 if both are.
    """
    if not mine.any() or not true.any():
        return 0.0 if mine.any() == true.any() else float("inf")
    where = np.argwhere(mine | true)
    box = tuple(
        slice(max(low - 1, 0), high + 2) for low, high in zip(where.min(0), where.max(0), strict=True)
    )
    surfaces = [mask[box] & ~binary_erosion(mask[box]) for mask in (mine, true)]
    to_mine, to_true = (distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces)
    return float(np.percentile(np.concatenate([to_true[surfaces[0]], to_mine[surfaces[1]]]), percentile))


def cord_areas(cord: Mask, grid: Grid, scan: LabelledScan) -> dict[int, float]:
    """Return the cord's mean cross-sectional area by vertebral level, mm².

    The area across the cord: its volume between the projections of two true discs over the length of the
    centreline between them. This is what ``sct_process_segmentation -perlevel`` averages over slices.

    Parameters
    ----------
    cord
        On the grid.
    grid
        The image's.
    scan
        Has the discs and the centreline.
    """
    if scan.centerline_world is None:
        return {}
    space = StraightSpace(Centerline.from_points(scan.centerline_world))
    voxels = grid.world_from_voxel(np.argwhere(cord))
    z = space.straight_from_native(voxels)[:, 2]
    heights = {v: float(space.straight_from_native(p)[0, 2]) for v, p in scan.discs.items()}
    unit = float(abs(np.linalg.det(grid.affine[:3, :3])))
    low, high = space.z_mm
    return {
        value: float(((z <= top) & (z > heights[value + 1])).sum()) * unit / (top - heights[value + 1])
        for value, top in heights.items()
        if value + 1 in heights and low <= heights[value + 1] and top <= high
    }


def mask_report(results: Iterable[MaskResult]) -> str:
    """Return a table: for each perturbation and structure, means over scans, intervals over subjects."""
    scores = [(result.perturbation, score) for result in results for score in result.scores]
    lines = [
        f"{'stress':<24} {'structure':<10} {'scans':>5}  {'Dice (95 % interval)':<22} {'worst':>6} "
        f"{'95 % mm':>8} {'volume':>7} {'level':>6}"
    ]
    for stress in dict.fromkeys(name for name, _ in scores):
        for structure in dict.fromkeys(score.structure for _, score in scores):
            own = [s for name, s in scores if name == stress and s.structure == structure]
            if own:
                lines.append(f"{stress:<24} {structure:<10} {len(own):>5}  {_figures(own)}")
    return "\n".join(lines)


def _figures(scores: list[MaskScore]) -> str:
    dice = np.array([score.dice for score in scores])
    subjects = [score.subject for score in scores]
    low, high = mean_interval(dice, subjects, generator=np.random.default_rng(0))
    distance = np.array([score.distance_mm for score in scores])
    ratio, level = (np.array([getattr(s, name) for s in scores]) for name in ("volume_ratio", "right_level"))
    known = [
        "" if np.isnan(values).all() else f"{np.nanmean(values):.{digits}f}"
        for values, digits in ((np.where(np.isinf(distance), np.nan, distance), 2), (ratio, 3), (level, 3))
    ]
    text = f"{dice.mean():.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})")
    return f"{text:<22} {dice.min():6.3f} {known[0]:>8} {known[1]:>7} {known[2]:>6}"


def area_report(results: Iterable[MaskResult]) -> str:
    """Return a line per scan with a cord mask and level: the cord's true and predicted area."""
    lines = [f"{'scan':<24} {'level':<5} {'true mm²':>9} {'found mm²':>9} {'error %':>8}"]
    for result in results:
        for level, area in result.true_areas.items():
            found = result.areas.get(level, 0.0)
            off = 100 * (found / area - 1) if area else float("nan")
            name = result.scores[0].scan
            lines.append(f"{name:<24} {vertebra_name(level):<5} {area:9.1f} {found:9.1f} {off:+8.1f}")
    return "\n".join(lines)
