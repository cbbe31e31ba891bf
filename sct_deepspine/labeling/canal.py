"""The canal stage: find the cord or canal in 3-D, from the image alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.errors import GeometryError, NoDiscsError, RequestError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import (
    SLAB_MM,
    SamplingPlane,
    midsagittal_plane,
    normalise,
    sagittal_planes,
    sample,
)
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.io.images import ImageLike, read_mask
from sct_deepspine.labeling.checks import WHAT_TO_CHECK
from sct_deepspine.labeling.heatmaps import DiscPredictor

__all__ = [
    "ABOUT_CANAL_MM",
    "OffCanal",
    "coarse_view",
    "find_centerline",
    "find_centerline_once",
    "follow_given",
    "given_centerline",
]

PLANE_STEP_MM, PLANE_SLAB_MM = 8.0, 6.0
"""Distance of the planes laid across the volume, and the thickness averaged about each."""

SIDE_STEPS_MM = -6.0, 0.0, 6.0
"""Once the canal is found, it is followed in its own sampling and in one on either side."""

SHARPNESS, SIDE_SHARPNESS = 2, 10
"""Powers of the canal map that weigh planes across the whole volume, and the three about the canal. The
second was chosen on ``val``: with 8 to 14 the canal's middle is found best, with 4 a tenth less well."""

ABOUT_CANAL_MM = 60.0
"""How much is seen in front of the canal and behind it once it is found."""

CANAL_SEEN = 0.3
"""The canal map counts from here on."""

MIN_CANAL_MM, MIN_CANAL_SHARE = 40.0, 0.5
"""A canal is at least so long, or this share of the image's height, if that is less."""

JOIN_MM = 10.0
"""Left free between a given centreline and what continues it."""

OFF_CANAL_MM, OFF_LENGTH_MM = 8.0, 10.0
"""A given line is not followed where it is this far from the canal that the network finds, over this length:
the cord lies within 5 mm of the canal's middle, and the network errs by 2 to 3 mm."""

OFF_SHARE = 0.67
"""A line of which this share is off does not belong to the image."""

MAX_STEP_CELLS = 2
"""Cells by which the canal may move, from one row to the next."""

CENTERLINE_SMOOTHING_MM = 15.0
"""Smoothing of the line through the canal; see :meth:`.Centerline.from_points`."""


def coarse_view(view: DeobliquedVolume, predictor: DiscPredictor) -> DeobliquedVolume:
    """Return a view as coarse as a network's planes, which is all that the first stages need."""
    return view.block_mean((SLAB_MM / 2, predictor.pixel_mm, predictor.pixel_mm))


def find_centerline(
    view: DeobliquedVolume,
    predictor: DiscPredictor,
    *,
    finder: DiscPredictor | None = None,
    about_mm: float = ABOUT_CANAL_MM,
) -> Centerline:
    """Follow the canal map through sagittal planes laid across the whole volume, then about the canal.

    A plane well beside the canal still shows it faintly, which draws a leaning canal towards the middle of
    the volume. The second pass, in three planes that follow the first line, undoes most of that.

    Parameters
    ----------
    view
        The volume, coarse.
    predictor
        The coarse network.
    finder
        A network of still coarser planes, for the first pass across several slices. Where it sees no canal,
        and by default, the coarse one looks.
    about_mm
        How much the second pass sees in front of the canal and behind it.

    Raises
    ------
    NoDiscsError
        If no canal of at least 40 mm, or half of the image's height, is seen.
    """
    if view.volume.data.shape[0] == 1:
        return find_centerline_once(view, predictor)
    if finder:
        try:
            line = find_centerline_once(coarse_view(view, finder), finder)
            return _follow_again(line, view, predictor, about_mm)
        except NoDiscsError:
            pass
    line = find_centerline_once(view, predictor)
    try:
        return _follow_again(line, view, predictor, about_mm)
    except NoDiscsError:
        return line


def _follow_again(
    line: Centerline, view: DeobliquedVolume, predictor: DiscPredictor, about_mm: float
) -> Centerline:
    """Follow the canal map in three planes along a line, which show what is about it."""
    plane = midsagittal_plane(view, line, predictor.pixel_mm)
    columns = plane.columns_about(line.samples_world, about_mm)
    points, right = plane.points_world[:, columns], plane.axes[:, 0]
    planes = [replace(plane, points_world=points + x * right) for x in SIDE_STEPS_MM]
    return _follow_canal(view, planes, predictor, SLAB_MM, SIDE_SHARPNESS)


def find_centerline_once(view: DeobliquedVolume, predictor: DiscPredictor) -> Centerline:
    """Follow the canal map through sagittal planes laid across the whole volume.

    Raises
    ------
    NoDiscsError
        If no canal of at least 40 mm, or half of the image's height, is seen.
    """
    planes = sagittal_planes(view, predictor.pixel_mm, step_mm=PLANE_STEP_MM)
    return _follow_canal(view, planes, predictor, _slab_mm(planes), SHARPNESS)


def _follow_canal(
    view: DeobliquedVolume,
    planes: list[SamplingPlane],
    predictor: DiscPredictor,
    slab_mm: float,
    sharpness: int,
) -> Centerline:
    images = [normalise(*sample(view.volume, plane, slab_mm=slab_mm)) for plane in planes]
    canal = np.stack([maps.canal for maps in predictor.predict(images)])
    points = _trace(canal, planes, predictor, sharpness)
    low, high = view.extent_mm()
    shortest = min(MIN_CANAL_MM, MIN_CANAL_SHARE * float(high[2] - low[2]))
    if len(points) < 2 or np.ptp(view.heights_mm(points)) < shortest:
        raise NoDiscsError(f"no spine was found in the image; {WHAT_TO_CHECK}")
    try:
        return Centerline.from_points(points, smoothing_mm=CENTERLINE_SMOOTHING_MM)
    except GeometryError as error:
        raise NoDiscsError(f"no spine was found in the image ({error})") from error


@dataclass(frozen=True, eq=False)
class OffCanal:
    """Where a given centreline was not followed.

    Parameters
    ----------
    points_world
        ``(N, 3)`` points of it that lie off the canal.
    farthest_mm
        The most that one lies off.
    """

    points_world: FloatArray
    farthest_mm: float


def given_centerline(seg: ImageLike | None, centerline: Centerline | ArrayLike | None) -> Centerline | None:
    """Return the centreline that a person gives, as a line or as a cord mask; None if there is none.

    Raises
    ------
    RequestError
        If both are given.
    ImageError, GeometryError
        If the mask can't be read, or there is no line in it.
    """
    if seg is not None and centerline is not None:
        raise RequestError("give seg or centerline, not both: each of them says where the cord is")
    if isinstance(centerline, Centerline):
        return centerline
    if centerline is not None:
        return Centerline.from_points(centerline)
    if seg is not None:
        mask = read_mask(seg)
        return Centerline.from_mask(mask.data, mask.grid)
    return None


def follow_given(
    line: Centerline,
    view: DeobliquedVolume,
    predictor: DiscPredictor,
    *,
    finder: DiscPredictor | None = None,
) -> tuple[Centerline, OffCanal | None]:
    """Follow a cord's centreline where it runs along the canal, and the network's beside and beyond it.

    A cord mask ends at the conus or where someone stopped drawing; the discs do not. Where it lies off the
    canal that the network finds, it is not followed. Where the network finds none, the line is trusted. The
    view and the networks are those of :func:`find_centerline`.

    Returns
    -------
    line
        To be followed.
    off
        Where it is not the one that was given.

    Raises
    ------
    GeometryError
        If the centreline lies outside the image, or most of it off the canal.
    """
    own = line.samples_world
    if not view.volume.grid.contains_voxel(view.volume.grid.voxel_from_world(own)).any():
        raise GeometryError("the cord mask or centreline lies outside the image; do they belong together?")
    try:
        found = find_centerline(view, predictor, finder=finder).samples_world
    except NoDiscsError:
        return line, None
    distance = _apart_mm(own, found, view)
    is_off = _long_runs(distance > OFF_CANAL_MM, OFF_LENGTH_MM * len(own) / max(line.length_mm, 1.0))
    if is_off.mean() > OFF_SHARE:
        raise GeometryError(
            "the cord mask or centreline does not run along the spinal canal of the image "
            f"({1 - is_off.mean():.0%} of it does); do they belong together?"
        )
    heights, kept = view.heights_mm(found), view.heights_mm(own[~is_off])
    apart = np.abs(heights[:, None] - kept).min(axis=1) > JOIN_MM
    if not apart.any() and not is_off.any():
        return line, None
    followed = Centerline.from_points(np.vstack([own[~is_off], found[apart]]))
    return followed, OffCanal(own[is_off], float(distance[is_off].max())) if is_off.any() else None


def _apart_mm(own: FloatArray, found: FloatArray, view: DeobliquedVolume) -> FloatArray:
    """Return how far points lie beside a line at their height, ``(N,)``; 0 beyond its ends."""
    there, here = (apply_affine(view.deobliqued_from_world, points) for points in (found, own))
    there = there[np.argsort(there[:, 2])]
    beside = [here[:, axis] - np.interp(here[:, 2], there[:, 2], there[:, axis]) for axis in (0, 1)]
    shown = (here[:, 2] >= there[0, 2]) & (here[:, 2] <= there[-1, 2])
    return np.where(shown, np.hypot(*beside), 0.0)


def _long_runs(flags: NDArray[np.bool_], length: float) -> NDArray[np.bool_]:
    """Keep the runs of true entries that are at least so long."""
    run = np.cumsum(np.diff(flags, prepend=False)) * flags  # odd numbers, one for each run
    sizes = np.bincount(run)
    return flags & (sizes[run] >= length)


def _slab_mm(planes: list[SamplingPlane]) -> float:
    """Average over 6 mm, but never over more than lies between two planes."""
    if len(planes) == 1:
        return SLAB_MM
    step = np.linalg.norm(planes[1].points_world[0, 0] - planes[0].points_world[0, 0])
    return min(PLANE_SLAB_MM, float(step))


def _trace(
    canal: NDArray[np.float32], planes: list[SamplingPlane], predictor: DiscPredictor, sharpness: int
) -> FloatArray:
    """Turn canal maps, ``(planes, rows, columns)``, into ``(N, 3)`` world points, one a row."""
    best = canal.max(axis=0)
    columns = _best_path(np.log(best + 0.02))
    rows = np.arange(len(columns))
    seen = _longest_run(best[rows, columns] > CANAL_SEEN, largest_gap=4)
    if seen is None:
        return np.empty((0, 3))
    rows, columns = rows[seen], columns[seen]
    window = columns[:, None] + np.arange(-2, 3)
    inside = (window >= 0) & (window < best.shape[1])
    weight = np.where(inside, best[rows[:, None], np.clip(window, 0, best.shape[1] - 1)], 0) ** 2
    centre = (weight * window).sum(axis=1) / weight.sum(axis=1)
    pixels = predictor.codec.pixel_from_cell(np.stack([rows, centre], axis=1))
    points = np.stack([plane.world_from_pixel(pixels) for plane in planes])
    across = canal[:, rows, columns] ** sharpness
    return (across[..., None] * points).sum(axis=0) / across.sum(axis=0)[:, None]


def _best_path(score: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the column of each row on the best path that moves two columns a row at most."""
    rows, columns = score.shape
    total = score.astype(np.float64)
    came_from = np.zeros((rows, columns), dtype=np.int64)
    shifts = np.arange(-MAX_STEP_CELLS, MAX_STEP_CELLS + 1)
    cost = 0.05 * np.abs(shifts)[:, None]
    for row in range(1, rows):
        padded = np.pad(total[row - 1], MAX_STEP_CELLS, constant_values=-np.inf)
        options = np.stack([padded[MAX_STEP_CELLS + s : MAX_STEP_CELLS + s + columns] for s in shifts]) - cost
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
