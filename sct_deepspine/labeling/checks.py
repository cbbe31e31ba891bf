"""What is checked before an image is labelled: that it is a scan, and that what a person gives fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sct_deepspine.errors import AnchorError, ImageError, RequestError
from sct_deepspine.geometry.background import sampled_voxels
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.images import ImageLike, read_mask, read_volume

__all__ = [
    "MAX_TIP_MM",
    "check_anchor_places",
    "distance_from_canal_mm",
    "followed_canal",
    "given_centerline",
    "places_along_canal",
    "read_scan",
]

CANAL_EXTENSION_MM = 60.0
"""The canal is followed straight on beyond its ends by this much."""

MIN_SIDE_MM = 20.0
"""An image whose second longest side is shorter shows no spine: its voxel sizes are wrong."""

SAMPLED_VOXELS, MIN_GREYS = 200_000, 12
"""Of so many voxels, a scan has more different grey values than this."""

MAX_TIP_MM = 40.0
"""What a person gives as a posterior tip is no farther than this from the canal; tips lie 6 to 15 mm before
it."""


def read_scan(image: ImageLike) -> Volume:
    """Read an image, and refuse what is no scan.

    Raises
    ------
    ImageError
        If it can't be read, is too small for a spine, or holds a few values only, as masks do.
    """
    if isinstance(image, Volume) and image.is_scan:
        return image
    volume = read_volume(image)
    lengths = volume.grid.spacing_mm * volume.grid.shape
    if np.sort(lengths)[1] < MIN_SIDE_MM:
        met = " × ".join(f"{length:.3g}" for length in lengths)
        raise ImageError(f"the image is {met} mm small; are the voxel sizes in the header right (mm)?")
    sampled = sampled_voxels(volume.data, SAMPLED_VOXELS)
    values, _ = np.unique(sampled, return_counts=True)  # without counts it loads numpy.ma first
    if len(values) <= MIN_GREYS:
        raise ImageError(
            f"the image holds {len(values)} different values only; is it a mask or a label image, not a scan?"
        )
    return replace(volume, is_scan=True)


def given_centerline(seg: ImageLike | None, centerline: Centerline | ArrayLike | None) -> Centerline | None:
    """Return the centreline that a person gives, as a line or as a cord mask; None if there is none."""
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


def check_anchor_places(anchors: Mapping[int, FloatArray], volume: Volume, canal: Centerline) -> None:
    """Refuse an anchor whose whole point lies outside the image or far from the spine.

    Raises
    ------
    AnchorError
        Where it lies.
    """
    for value, point in anchors.items():
        if not np.isfinite(point).all():
            continue
        place = ", ".join(f"{c:.0f}" for c in point)
        if not volume.grid.contains_voxel(volume.grid.voxel_from_world(point))[0]:
            raise AnchorError(
                f"anchor {value}: ({place}) mm lies outside the image; give world RAS+ coordinates"
            )
        distance = float(distance_from_canal_mm(point[None], canal)[0])
        if distance > MAX_TIP_MM:
            raise AnchorError(
                f"anchor {value}: ({place}) mm lies {distance:.0f} mm from the spine that was found; "
                "give the posterior tip of the disc"
            )


def distance_from_canal_mm(points_world: FloatArray, canal: Centerline) -> FloatArray:
    """Return the distance of points from the canal, which is followed straight on beyond its ends."""
    return places_along_canal(points_world, canal, step_mm=2.0)[1]


def places_along_canal(
    points_world: FloatArray, canal: Centerline, *, step_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Return the arc length, in steps, of what of the canal is nearest to points, and how far it is, mm."""
    arc, places = followed_canal(canal, step_mm=step_mm)
    distance = np.linalg.norm(points_world[:, None] - places, axis=2)
    return arc[distance.argmin(axis=1)], distance.min(axis=1)


def followed_canal(canal: Centerline, *, step_mm: float) -> tuple[FloatArray, FloatArray]:
    """Return arc lengths in steps, ``(N,)`` mm, and the canal's world points there, ``(N, 3)``.

    The canal is followed straight on beyond its ends.
    """
    arc = np.arange(-CANAL_EXTENSION_MM, canal.length_mm + CANAL_EXTENSION_MM, step_mm)
    return arc, canal.points_world(arc)
