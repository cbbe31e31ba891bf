"""Odd structure in the midsagittal plane: voids of signal, discs that don't stand out, a step, a repeat.

Only grey values count, in patches in front of the posterior tips: ``along`` the spine (mm, downwards)
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
from sct_deepspine.labeling.canal import ABOUT_CANAL_MM
from sct_deepspine.labeling.candidates import columns_about
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labels import Disc

__all__ = ["find_flat_discs", "find_repeat", "find_step", "find_voids", "mosaic_tiles"]

MAX_TILES, MIN_TILE_PIXELS, MAX_TILE_ASPECT = 6, 14, 4.0
"""Most tiles of a mosaic along a side, and the least side, in pixels, and the largest aspect of a tile."""

MOSAIC_PIXELS, MIN_PICTURE_PIXELS, DETAIL_PIXELS = 192, 64, 7
"""A slice is read at the first number of pixels along its longer side, if the shorter one then has the
second; its mean over a square of the third is taken off."""

MOSAIC_LIKENESS, MIN_SHIFTED = 0.5, 0.2
"""Three in four neighbouring tiles of a mosaic correlate at least this well; the whole picture and itself,
moved by a tile, at least as well as the second. Of 452 mosaics of 1 × 2 to 5 × 5 slices 427 do, of the middle
slices of 56 scans none."""

REPEAT_MM, MIN_REPEAT, MIN_DROP = (16.0, 120.0), 0.87, 0.12
"""How much of the spine is shown twice, one copy right below the other; how well the copies correlate at
least, and how much better than half a copy above and below. Of 88 stacks of two slabs that overlap by 20 to
60 mm 85 do, of 750 other views none; a composite spine comes to 0.88 and 0.06."""

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
in which bone is black, and none is reported."""

MIN_DISCS = 4
"""So many discs are compared with each other; with fewer, none is reported."""

FLAT_MM, BONE_MM = 4.0, 7.0
"""A disc stands out by how its grey values rise and fall so far above and below its height, and by how they
differ from those of the bone beyond the second distance."""

NEIGHBOURS, FLAT_PRODUCT = 2, 0.27
"""It does not, and may be fused, if this times how much the grey values change from row to row, each as a
share of what so many discs above and below come to, is less than the second. Of 204 discs of 51 scans that
were filled with bone 170 are found; of the 333 discs as they are, 2 are taken for fused."""

STEP_ROWS = 2
"""Rows above and below a border that are averaged to compare them."""

REACH_PIXELS, MIN_PIXELS = 8, 3
"""How far rows are moved against each other, and what is a step: 16 and 6 mm."""

MIN_COLUMNS = 52
"""Rows that show less of the body than this (pixels of 2 mm) are not compared: too little is left once they
are moved."""

MIN_LIKENESS, MIN_GAIN = 0.6, 0.3
"""Correlation of the rows above and below a step once it is undone, and what undoing it gains."""

MIN_SHOWN = 0.1
"""Rows whose grey values vary less than this share of what is usual (variance) show nothing."""

BODY_WIDTH_MM = 60.0
"""Repeats are looked for so far from the canal, forwards and backwards."""

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
    patches = np.nan_to_num(_patches(prediction, discs))
    profiles = patches.mean(axis=2)
    at_disc, bone = np.abs(ALONG_MM) <= FLAT_MM, np.abs(ALONG_MM) >= BONE_MM
    along = ALONG_MM[at_disc] / FLAT_MM
    near = profiles[:, at_disc]
    slope = near @ along / (along @ along)
    swing = np.ptp(near - slope[:, None] * along, axis=1)
    contrast = np.abs(near.mean(axis=1) - profiles[:, bone].mean(axis=1))
    stands_out = np.maximum(swing, contrast)
    change = np.abs(np.diff(patches, axis=1)).mean(axis=(1, 2))
    flat = []
    for k in range(1, len(discs) - 1):
        beside = [*range(max(k - NEIGHBOURS, 0), k), *range(k + 1, min(k + NEIGHBOURS + 1, len(discs)))]
        usual = np.median(stands_out[beside]) * np.median(change[beside])
        if stands_out[k] * change[k] < FLAT_PRODUCT * usual:
            flat.append(discs[k])
    return flat


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
    within = image != 0  # the image's own border is no edge
    within = within[:, 1:] & within[:, :-1]
    within[:, 1:-1] &= within[:, 2:] & within[:, :-2]
    likeness = _likeness(np.diff(_smoothed(image), axis=1) * within)
    columns = within.sum(axis=1)
    shift = likeness.argmax(axis=1) - REACH_PIXELS
    best, gain = likeness.max(axis=1), likeness.max(axis=1) - likeness[:, REACH_PIXELS]
    rows = narrow.plane.pixel_from_world(np.array([disc.point_world for disc in discs]))[:, 0]
    first = max(NEARBY_ROWS[1], int(rows.min() - BEYOND_ROWS))
    last = min(len(shift) - NEARBY_ROWS[1], int(rows.max() + BEYOND_ROWS))
    found = []
    for row in range(first, last):
        nearby = [*range(row - NEARBY_ROWS[1], row - NEARBY_ROWS[0] + 1)]
        nearby += [*range(row + NEARBY_ROWS[0], row + NEARBY_ROWS[1] + 1)]
        if columns[row : row + 2 * STEP_ROWS].min() < MIN_COLUMNS:
            continue
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


def find_repeat(prediction: PlanePrediction, canal: Centerline) -> tuple[FloatArray, float] | None:
    """Find where an image shows a part of the spine twice, as where two slabs that overlap were stacked.

    Returns
    -------
    place
        ``(3,)`` world, on the border of the two copies.
    length_mm
        Of each copy; None instead of both where nothing is repeated.
    """
    narrow = columns_about(prediction, canal, BODY_WIDTH_MM)
    image, pixel_mm = narrow.image.astype(np.float64), narrow.plane.pixel_mm
    shortest, longest = (round(length / pixel_mm) for length in REPEAT_MM)
    sums, squares = _running(image), _running(np.einsum("rc,rc->r", image, image))
    best = MIN_REPEAT, 0, 0
    for rows in range(shortest, min(longest, len(image) // 2) + 1):
        products = _running(np.einsum("rc,rc->r", image[:-rows], image[rows:]))
        border = np.arange(rows, len(image) - rows + 1)
        above, below = sums[border] - sums[border - rows], sums[border + rows] - sums[border]
        joint = products[border] - products[border - rows] - np.einsum("rc,rc->r", above, below) / rows
        parts = [
            squares[end] - squares[end - rows] - np.einsum("rc,rc->r", own, own) / rows
            for own, end in ((above, border), (below, border + rows))
        ]
        shown = np.minimum(*parts) > MIN_SHOWN * np.median(np.maximum(*parts))
        likeness = np.where(shown, joint / np.sqrt(np.maximum(parts[0] * parts[1], 1e-9)), 0)
        at = int(likeness.argmax())
        # Levels that look alike are so half a copy above and below, too.
        beside = likeness[[max(at - rows // 2, 0), min(at + rows // 2, len(likeness) - 1)]].max()
        if likeness[at] - beside > MIN_DROP:
            best = max(best, (float(likeness[at]), rows, int(border[at])))
    _, rows, border_row = best
    if not rows:
        return None
    pixel = np.array([[border_row - 0.5, image.shape[1] / 2]])
    return narrow.plane.world_from_pixel(pixel)[0], rows * pixel_mm


def _running(values: FloatArray) -> FloatArray:
    """Return the sums over the first rows: none, one, two, and so on."""
    return np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])


def mosaic_tiles(volume: Volume) -> tuple[int, int] | None:
    """Return how many tiles the slices have downwards and across if they look like mosaics of other slices.

    Some scanners store all slices of a volume side by side in one picture. Neighbouring tiles then show
    almost the same.
    """
    data = volume.data
    axis = int(np.argmin(data.shape))
    plane = np.moveaxis(data, axis, 0)[data.shape[axis] // 2]
    step = max(1, max(plane.shape) // MOSAIC_PIXELS)
    plane = np.nan_to_num(plane[::step, ::step].astype(np.float64))
    if min(plane.shape) < MIN_PICTURE_PIXELS:
        return None
    low, high = np.percentile(plane, (1, 99))
    plane = plane.clip(low, high)
    detail = (plane - _box_mean(_box_mean(plane).T).T).astype(np.float32)
    if not _is_like_itself_moved(detail):
        return None
    numbers = range(1, MAX_TILES + 1)
    alike = [
        (down, across)
        for down in numbers
        for across in numbers
        if _tile_likeness(detail, down, across) > MOSAIC_LIKENESS
    ]
    # Tiles that hold several slices each are alike, too.
    return max(alike, key=lambda tiles: tiles[0] * tiles[1], default=None)


def _box_mean(values: FloatArray) -> FloatArray:
    """Average each row with those about it; beyond an end the last one counts on."""
    half = DETAIL_PIXELS // 2
    sums = _running(np.pad(values, ((half, half), (0, 0)), mode="edge"))
    return np.asarray((sums[DETAIL_PIXELS:] - sums[:-DETAIL_PIXELS]) / DETAIL_PIXELS)


def _is_like_itself_moved(detail: NDArray[np.float32]) -> bool:
    """Return whether a picture, moved by a tile of some size, is like itself at all: quickly."""
    for picture in (detail, detail.T):
        for tiles in range(2, MAX_TILES + 1):
            step = len(picture) // tiles
            one, other = picture[:-step], picture[step:]
            scale = float(np.linalg.norm(one) * np.linalg.norm(other))
            if step and scale and float(np.vdot(one, other)) > MIN_SHIFTED * scale:
                return True
    return False


def _tile_likeness(detail: NDArray[np.float32], down: int, across: int) -> float:
    """Return what three in four neighbouring tiles that show something correlate with at least."""
    height, width = detail.shape[0] // down, detail.shape[1] // across
    sides = sorted((height, width))
    if down * across < 2 or sides[0] < MIN_TILE_PIXELS or sides[1] > MAX_TILE_ASPECT * sides[0]:
        return 0.0
    parted = detail[: down * height, : across * width].reshape(down, height, across, width)
    tiles = parted.swapaxes(1, 2).reshape(down, across, -1)
    tiles = tiles - tiles.mean(axis=2, keepdims=True)
    spread = tiles.std(axis=2)
    shown = spread > 0.2 * np.median(spread)
    if shown.sum() < max(2, down * across / 2):
        return 0.0
    tiles = tiles / np.where(shown, spread, 1)[..., None]
    pairs = [
        (tiles[:, :-1], tiles[:, 1:], shown[:, :-1] & shown[:, 1:]),
        (tiles[:-1], tiles[1:], shown[:-1] & shown[1:]),
    ]
    found = np.concatenate([(one * other).mean(axis=2)[both] for one, other, both in pairs])
    return float(np.percentile(found, 25)) if len(found) else 0.0
