"""The second, fine look: where exactly each disc is, in the straightened spine."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from sct_deepspine.frames import FloatArray
from sct_deepspine.heatmaps import DrawnSheet
from sct_deepspine.sagittal import Sheet, normalise, sample
from sct_deepspine.volume import Volume
from sct_deepspine.weights import Artist

__all__ = ["PointMap", "refine_tips", "straight_sheet"]

POSTERIOR_MM, ANTERIOR_MM = -24.0, 40.0
"""Columns of the straight sheet, from the centreline."""

BEYOND_MM = 40.0
"""Rows of the straight sheet beyond the first and the last disc."""

SLAB_MM = 4.0
REACH_MM = 9.0
"""A disc moves to a fine peak no farther away than this."""

SEEN = 0.2


class PointMap(Protocol):
    """The two maps of a straight space, whatever made it."""

    def native_from_straight(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` straight points to the world."""
        ...

    def straight_from_native(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` world points to the straight space."""
        ...


def straight_sheet(space: PointMap, z_mm: tuple[float, float], pixel_mm: float) -> Sheet:
    """Lay the mid-sagittal sheet of the straight space between two straight heights.

    Parameters
    ----------
    space
        The straight space.
    z_mm
        Lowest and highest straight z.
    pixel_mm
        Edge of a pixel.
    """
    y = np.arange(POSTERIOR_MM + pixel_mm / 2, ANTERIOR_MM, pixel_mm)
    z = np.arange(z_mm[1], z_mm[0] - pixel_mm, -pixel_mm)
    points = np.zeros((len(z), len(y), 3))
    points[..., 1], points[..., 2] = y, z[:, None]
    return Sheet(space.native_from_straight(points.reshape(-1, 3)).reshape(points.shape), pixel_mm)


def refine_tips(
    volume: Volume, space: PointMap, tips_world: FloatArray, artist: Artist
) -> tuple[FloatArray, DrawnSheet]:
    """Move discs to the peaks of the fine network.

    Parameters
    ----------
    volume
        In RAS order.
    space
        The straight space.
    tips_world
        ``(K, 3)`` posterior tips from the coarse look, superior to inferior.
    artist
        The fine network.

    Returns
    -------
    tips_world
        ``(K, 3)``; a disc stays where it was if no peak is near.
    drawn
        The straight sheet and what was drawn on it.
    """
    tips_straight = space.straight_from_native(tips_world)
    height = tips_straight[:, 2]
    low, high = np.nanmin(height) - BEYOND_MM, np.nanmax(height) + BEYOND_MM
    sheet = straight_sheet(space, (float(low), float(high)), artist.pixel_mm)
    plane = normalise(*sample(volume, sheet, slab_mm=SLAB_MM))
    maps = artist.draw([plane])[0]
    drawn = DrawnSheet(sheet, plane, maps, artist.codec)
    cells, strength, _ = artist.codec.decode(maps, threshold=SEEN)
    refined = tips_world.copy()
    if len(cells) == 0:
        return refined, drawn
    pixels = artist.codec.pixel_from_cell(cells)
    peaks_world = sheet.world_from_pixel(pixels)
    first = POSTERIOR_MM + artist.pixel_mm / 2
    peaks_straight = np.stack(
        [first + artist.pixel_mm * pixels[:, 1], high - artist.pixel_mm * pixels[:, 0]], axis=1
    )
    distance = np.linalg.norm(tips_straight[:, None, 1:] - peaks_straight, axis=2)
    # A faint peak must be near to win over a strong one; no peak is two discs.
    gain = strength - 0.5 * (distance / REACH_MM) ** 2 + 1
    possible = (distance < REACH_MM) & np.isfinite(peaks_world).all(axis=1)
    disc, peak = linear_sum_assignment(np.where(possible, gain, 0), maximize=True)
    taken = possible[disc, peak]
    refined[disc[taken]] = peaks_world[peak[taken]]
    return refined, drawn
