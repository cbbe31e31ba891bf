"""The first, coarse look: find the cord or canal in 3-D, from the image alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.errors import GeometryError, NoDiscsError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import (
    SLAB_MM,
    Sheet,
    extent,
    middle_sheet,
    normalise,
    sample,
    sheets_across,
)
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.models.predictor import Artist

__all__ = ["extend_centerline", "find_centerline"]

PLANE_SLAB_MM = 6.0


SIDE_STEPS_MM = -6.0, 0.0, 6.0
"""Once the canal is found, it is looked at in its own sheet and in one on either side."""

SHARPNESS, SIDE_SHARPNESS = 2, 4
"""Powers of the canal map that weigh planes across the whole volume, and the three about the canal."""

SEEN = 0.3
"""The canal map counts from here on."""

SHORTEST_MM = 40.0
JOIN_MM = 10.0
"""Left free between a given centreline and what continues it."""

LARGEST_STEP_CELLS = 2
CENTERLINE_SMOOTHING_MM = 15.0


def find_centerline(volume: Volume, artist: Artist) -> Centerline:
    """Follow the canal map through sagittal planes laid across the whole volume, then about the canal.

    A plane well beside the canal still shows it faintly, which draws a leaning canal towards the middle of
    the volume. The second look, in three sheets that follow the first line, undoes most of that.

    Parameters
    ----------
    volume
        In RAS order.
    artist
        The coarse network.

    Raises
    ------
    NoDiscsError
        If no canal of at least 40 mm is seen.
    """
    sheets = sheets_across(volume, artist.pixel_mm)
    line = _follow_canal(volume, sheets, artist, _slab_mm(sheets), SHARPNESS)
    if len(sheets) == 1:
        return line
    middle = middle_sheet(volume, line, artist.pixel_mm)
    right = middle.axes[:, 0]
    beside = [replace(middle, points_world=middle.points_world + x * right) for x in SIDE_STEPS_MM]
    try:
        return _follow_canal(volume, beside, artist, SLAB_MM, SIDE_SHARPNESS)
    except NoDiscsError:
        return line


def _follow_canal(
    volume: Volume, sheets: list[Sheet], artist: Artist, slab_mm: float, sharpness: int
) -> Centerline:
    planes = [normalise(*sample(volume, sheet, slab_mm=slab_mm)) for sheet in sheets]
    canal = np.stack([maps.canal for maps in artist.draw(planes)])
    points = _trace(canal, sheets, artist, sharpness)
    if len(points) < 2 or np.ptp(points[:, 2]) < SHORTEST_MM:
        raise NoDiscsError("no spine was found in the image; is it a sagittal view of a spine?")
    try:
        return Centerline.from_points(points, smoothing_mm=CENTERLINE_SMOOTHING_MM)
    except GeometryError as error:
        raise NoDiscsError(f"no spine was found in the image ({error})") from error


def extend_centerline(line: Centerline, volume: Volume, artist: Artist) -> Centerline:
    """Continue a cord's centreline where the image goes on beyond it, by what the network finds there.

    A cord mask ends at the conus or where someone stopped drawing; the discs do not.

    Raises
    ------
    GeometryError
        If the centreline lies outside the image.
    """
    own = line.samples_world
    if not volume.grid.contains_voxel(volume.grid.voxel_from_world(own)).any():
        raise GeometryError("the cord mask or centreline lies outside the image; do they belong together?")
    low, high = extent(volume)
    bottom, top = own[:, 2].min(), own[:, 2].max()
    if bottom - low[2] < SHORTEST_MM and high[2] - top < SHORTEST_MM:
        return line
    try:
        found = find_centerline(volume, artist).samples_world
    except NoDiscsError:
        return line
    beyond = (found[:, 2] < bottom - JOIN_MM) | (found[:, 2] > top + JOIN_MM)
    return Centerline.from_points(np.vstack([own, found[beyond]])) if beyond.any() else line


def _slab_mm(sheets: list[Sheet]) -> float:
    """Average over 6 mm, but never over more than lies between two planes."""
    if len(sheets) == 1:
        return SLAB_MM
    step = sheets[1].points_world[0, 0, 0] - sheets[0].points_world[0, 0, 0]
    return float(min(PLANE_SLAB_MM, step))


def _trace(canal: NDArray[np.float32], sheets: list[Sheet], artist: Artist, sharpness: int) -> FloatArray:
    """Turn canal maps, ``(planes, rows, columns)``, into ``(N, 3)`` world points, one a row."""
    best = canal.max(axis=0)
    columns = _best_path(np.log(best + 0.02))
    rows = np.arange(len(columns))
    seen = _longest_run(best[rows, columns] > SEEN, largest_gap=4)
    if seen is None:
        return np.empty((0, 3))
    rows, columns = rows[seen], columns[seen]
    window = columns[:, None] + np.arange(-2, 3)
    inside = (window >= 0) & (window < best.shape[1])
    weight = np.where(inside, best[rows[:, None], np.clip(window, 0, best.shape[1] - 1)], 0) ** 2
    centre = (weight * window).sum(axis=1) / weight.sum(axis=1)
    pixels = artist.codec.pixel_from_cell(np.stack([rows, centre], axis=1))
    points = np.stack([sheet.world_from_pixel(pixels) for sheet in sheets])
    across = canal[:, rows, columns] ** sharpness
    return (across[..., None] * points).sum(axis=0) / across.sum(axis=0)[:, None]


def _best_path(score: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the column of each row on the best path that moves two columns a row at most."""
    rows, columns = score.shape
    total = score.astype(np.float64)
    came_from = np.zeros((rows, columns), dtype=np.int64)
    shifts = np.arange(-LARGEST_STEP_CELLS, LARGEST_STEP_CELLS + 1)
    cost = 0.05 * np.abs(shifts)[:, None]
    for row in range(1, rows):
        padded = np.pad(total[row - 1], LARGEST_STEP_CELLS, constant_values=-np.inf)
        options = (
            np.stack([padded[LARGEST_STEP_CELLS + s : LARGEST_STEP_CELLS + s + columns] for s in shifts])
            - cost
        )
        choice = options.argmax(axis=0)
        total[row] += options[choice, np.arange(columns)]
        came_from[row] = np.arange(columns) + shifts[choice]
    path = np.empty(rows, dtype=np.int64)
    path[-1] = total[-1].argmax()
    for row in range(rows - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return path


def _longest_run(seen: NDArray[np.bool_], *, largest_gap: int) -> NDArray[np.int64] | None:
    """Return the indices of the longest run of true entries, over gaps of a few false ones."""
    indices = np.nonzero(seen)[0]
    if not len(indices):
        return None
    runs = np.split(indices, np.nonzero(np.diff(indices) > largest_gap)[0] + 1)
    return max(runs, key=len)
