"""Odd structure in the midsagittal plane: voids of signal, discs that don't stand out, a step.

Only grey values are looked at, in patches in front of the posterior tips: ``along`` the spine (mm, downwards)
and in front of the tip. Besides, slices that were laid side by side in one picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.reading import read_linear
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.agreement import ABOUT_CANAL_MM
from sct_deepspine.labeling.candidates import columns_about
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labels import Disc

__all__ = ["find_flat_discs", "find_step", "find_voids", "mosaic_tiles"]

MOSAIC_TILES, MOSAIC_LIKENESS, MOSAIC_GAIN = range(2, 9), 0.88, 0.25
"""How many tiles a mosaic has along each side (at least three), the median correlation of neighbouring tiles,
and what it must gain over other numbers of tiles, divisors and multiples aside. Of 155 mosaics of sagittal
slices 121 have both; of 725 views of ``val`` and ``hard``, plain, perturbed and cropped, none has."""

MOSAIC_PIXELS, MIN_TILE_PIXELS = 512, 24
"""A slice is read at so many pixels along its longer side, and tiles smaller than this are not looked for."""

ALONG_MM = np.arange(-10.0, 10.1, 1.0)
IN_FRONT_MM = np.arange(4.0, 16.1, 2.0)
"""Where a patch is read: half a cervical body above and below, and the hinder half of the disc."""

DARK = 0.12
"""Share of the range of grey values (1st to 95th percentile of the plane) below which there is no signal."""

AT_DISC_MM, DARK_AT_DISC, DARK_BESIDE = 4.0, 0.85, 0.6
"""A void covers this share of what is near the disc's height, and this share of a body beside it: bone alone,
or a worn disc alone, is no void."""

LIT_DISCS, DARK_ELSEWHERE = 0.4, 0.3
"""So many of the discs must have patches of which no more than this share is dark: else the contrast is one
in which bone is black, and nothing is said."""

MIN_DISCS = 4
"""So many discs are compared with each other; with fewer, nothing is said."""

FLAT_MM, BONE_MM, FLAT_SHARE = 4.0, 7.0, 0.3
"""A disc does not stand out if its grey values rise and fall, so far above and below its height, and differ
from those of the bone beyond the second distance, by less than this share of the median disc's: it may be
fused."""

STEP_ROWS = 2
REACH_PIXELS, MIN_PIXELS = 8, 3
"""How far rows are moved against each other, and what is a step: 16 and 6 mm."""

MIN_LIKENESS, MIN_GAIN = 0.6, 0.3
"""Correlation of the rows above and below a step once it is undone, and what undoing it gains."""

BEYOND_ROWS = 10
"""How far beyond the outermost discs a step is looked for: 20 mm."""

NEARBY_ROWS = 4, 10
"""Rows on either side that tell how far a spine leans here: that is no step."""


def _patches(prediction: PlanePrediction, discs: Sequence[Disc]) -> FloatArray:
    """Read a patch in front of each disc, ``(K, along, in front)``; NaN outside the image."""
    plane, image = prediction.plane, prediction.image
    pixels = plane.pixel_from_world(np.array([disc.point_world for disc in discs]))
    down = np.gradient(pixels, axis=0)
    down /= np.maximum(np.linalg.norm(down, axis=1, keepdims=True), 1e-6)
    front = np.stack([-down[:, 1], down[:, 0]], axis=1)
    place = (
        pixels[:, None, None]
        + down[:, None, None] * (ALONG_MM / plane.pixel_mm)[None, :, None, None]
        + front[:, None, None] * (IN_FRONT_MM / plane.pixel_mm)[None, None, :, None]
    )
    where = np.moveaxis(place, -1, 0)
    within = np.all([(w >= 0) & (w <= n - 1) for w, n in zip(where, image.shape, strict=True)], axis=0)
    inside = within & (read_linear((image != 0).astype(np.float32), where) > 0.99)
    return np.where(inside, read_linear(image, where), np.nan)


def find_voids(prediction: PlanePrediction, discs: Sequence[Disc]) -> list[Disc]:
    """Return the discs that lie in a void of signal, as round metal."""
    seen = prediction.image[prediction.image != 0]
    if len(discs) < 2 or not len(seen):
        return []
    low, high = np.percentile(seen, (1, 95))
    patches = _patches(prediction, discs)
    dark = np.where(np.isnan(patches), 0.0, patches < low + DARK * (high - low))
    near = np.abs(ALONG_MM) <= AT_DISC_MM
    at_disc = dark[:, near].mean(axis=(1, 2))
    beside = np.maximum(
        dark[:, ALONG_MM < -AT_DISC_MM].mean(axis=(1, 2)), dark[:, ALONG_MM > AT_DISC_MM].mean(axis=(1, 2))
    )
    is_void = (at_disc > DARK_AT_DISC) & (beside > DARK_BESIDE)
    if np.quantile(dark.mean(axis=(1, 2)), LIT_DISCS) > DARK_ELSEWHERE:
        return []
    return [disc for disc, void in zip(discs, is_void, strict=True) if void]


def find_flat_discs(prediction: PlanePrediction, discs: Sequence[Disc]) -> list[Disc]:
    """Return the discs that don't stand out from the bone above and below, as where vertebrae are fused."""
    if len(discs) < MIN_DISCS:
        return []
    profiles = np.nan_to_num(_patches(prediction, discs)).mean(axis=2)
    at_disc, bone = np.abs(ALONG_MM) <= FLAT_MM, np.abs(ALONG_MM) >= BONE_MM
    along = ALONG_MM[at_disc] / FLAT_MM
    near = profiles[:, at_disc]
    slope = near @ along / (along @ along)
    swing = np.ptp(near - slope[:, None] * along, axis=1)
    contrast = np.abs(near.mean(axis=1) - profiles[:, bone].mean(axis=1))
    stands_out = np.maximum(swing, contrast)
    least = FLAT_SHARE * np.median(stands_out)
    return [disc for disc, own in zip(discs[1:-1], stands_out[1:-1], strict=True) if own < least]


def find_step(
    prediction: PlanePrediction, canal: Centerline, discs: Sequence[Disc]
) -> tuple[FloatArray, float] | None:
    """Find where the lower part of an image is moved forwards or backwards against the upper one.

    Only where discs were found, or a level beyond: elsewhere edges of other kinds lie across an image.

    Returns
    -------
    place
        ``(3,)`` world, on the canal's columns.
    step_mm
        Forwards, as one goes down; None instead of both where there is no step.
    """
    narrow = columns_about(prediction, canal, ABOUT_CANAL_MM)
    image, pixel_mm = narrow.image, narrow.plane.pixel_mm
    if len(image) < 2 * (NEARBY_ROWS[1] + STEP_ROWS) or image.shape[1] < 4 * REACH_PIXELS:
        return None
    likeness = _likeness(np.diff(_smoothed(image), axis=1))
    shift = likeness.argmax(axis=1) - REACH_PIXELS
    best, gain = likeness.max(axis=1), likeness.max(axis=1) - likeness[:, REACH_PIXELS]
    rows = narrow.plane.pixel_from_world(np.array([disc.point_world for disc in discs]))[:, 0]
    first = max(NEARBY_ROWS[1], int(rows.min() - BEYOND_ROWS))
    last = min(len(shift) - NEARBY_ROWS[1], int(rows.max() + BEYOND_ROWS))
    found = []
    for row in range(first, last):
        nearby = [*range(row - NEARBY_ROWS[1], row - NEARBY_ROWS[0] + 1)]
        nearby += [*range(row + NEARBY_ROWS[0], row + NEARBY_ROWS[1] + 1)]
        excess = shift[row] - np.median(shift[nearby])
        if abs(excess) >= MIN_PIXELS and best[row] > MIN_LIKENESS and gain[row] > MIN_GAIN:
            found.append((best[row] * gain[row], row, excess))
    if not found:
        return None
    _, row, excess = max(found)
    pixel = np.array([[row + STEP_ROWS - 0.5, image.shape[1] / 2]])
    return narrow.plane.world_from_pixel(pixel)[0], float(excess * pixel_mm)


def _smoothed(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average each pixel with its neighbours in the row; beyond an end the last pixel counts twice."""
    wide = np.pad(image, ((0, 0), (1, 1)), mode="edge")
    return (wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]) / np.float32(3)


def _likeness(edges: FloatArray) -> FloatArray:
    """Correlate the rows above each border with those below, moved, ``(borders, 2 reach + 1)``."""
    count = len(edges) - 2 * STEP_ROWS + 1
    above = np.stack([edges[r : r + STEP_ROWS].mean(axis=0) for r in range(count)])
    below = np.stack([edges[r + STEP_ROWS : r + 2 * STEP_ROWS].mean(axis=0) for r in range(count)])
    width, out = edges.shape[1] - REACH_PIXELS, []
    middle = above[:, REACH_PIXELS:width]
    middle = middle - middle.mean(axis=1, keepdims=True)
    for shift in range(-REACH_PIXELS, REACH_PIXELS + 1):
        moved = below[:, REACH_PIXELS + shift : width + shift]
        moved = moved - moved.mean(axis=1, keepdims=True)
        scale = np.linalg.norm(middle, axis=1) * np.linalg.norm(moved, axis=1)
        out.append((middle * moved).sum(axis=1) / np.maximum(scale, 1e-6))
    return np.stack(out, axis=1)


def mosaic_tiles(volume: Volume) -> int:
    """Return how many tiles a side the slices have if they look like mosaics of other slices, else 0.

    Some scanners store all slices of a volume side by side in one picture. Neighbouring tiles then show
    almost the same.
    """
    data = volume.data
    axis = int(np.argmin(data.shape))
    plane = np.take(data, data.shape[axis] // 2, axis=axis).astype(np.float64)
    step = max(1, max(plane.shape) // MOSAIC_PIXELS)
    likeness = {tiles: _tile_likeness(plane[::step, ::step], tiles) for tiles in MOSAIC_TILES}
    best = max(likeness, key=lambda tiles: likeness[tiles])
    others = max(likeness[tiles] for tiles in MOSAIC_TILES if best % tiles and tiles % best)
    is_mosaic = likeness[best] > MOSAIC_LIKENESS and likeness[best] - others > MOSAIC_GAIN
    return best if is_mosaic and best > 2 else 0


def _tile_likeness(plane: FloatArray, tiles: int) -> float:
    """Return the median correlation of a tile with the next one, of those that show something."""
    height, width = (count // tiles for count in plane.shape)
    if min(height, width) < MIN_TILE_PIXELS:
        return 0.0
    parted = plane[: tiles * height, : tiles * width].reshape(tiles, height, tiles, width)
    rows = parted.swapaxes(1, 2).reshape(tiles * tiles, -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    spread = rows.std(axis=1)
    shown = spread > 0.2 * np.median(spread)
    if shown.sum() < max(2, tiles * tiles / 2):
        return 0.0
    rows = rows[shown] / spread[shown, None]
    return float(np.median((rows[:-1] * rows[1:]).mean(axis=1)))
