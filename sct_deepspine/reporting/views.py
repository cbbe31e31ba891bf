"""Pictures of a scan: the plane along its canal, and a coronal one through its discs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SLAB_MM, SamplingPlane, coronal_plane, normalise, sample
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labels import DiscLabels

__all__ = ["View", "coronal_view", "sagittal_view"]

FINEST_MM, COARSEST_MM = 0.5, 1.0
"""A pixel is as large as the volume's voxels, within these."""

GREY_RANGE = -1.0, 3.0
"""Normalised grey values from black to white."""

POSTERIOR_MM, ANTERIOR_MM = 70.0, 90.0
"""What is shown behind the discs and in front of them."""

WIDTH_MM, NARROWEST_MM = 110.0, 12.0
"""Of the coronal picture; a slice or two make none."""

DEPTH_MM = 12.0
"""How far before their posterior tips the coronal picture shows the discs: about the middle of a cervical
disc, the posterior half of a lumbar one."""


@dataclass(frozen=True, eq=False)
class View:
    """A plane and the grey values on it.

    Parameters
    ----------
    plane
        The pixels' places.
    grey
        ``(rows, columns)``, 0 to 255.
    """

    plane: SamplingPlane
    grey: NDArray[np.uint8]


def sagittal_view(labels: DiscLabels, plane: SamplingPlane, volume: Volume) -> View:
    """Read the part of a midsagittal plane that is about the discs, as finely as the volume resolves."""
    columns = plane.pixel_from_world(labels.points_world)[:, 1]
    if len(columns):
        first = max(int(columns.min() - POSTERIOR_MM / plane.pixel_mm), 0)
        last = int(columns.max() + ANTERIOR_MM / plane.pixel_mm) + 1
        plane = replace(plane, points_world=plane.points_world[:, first:last])
    in_plane_mm = float(np.clip(np.sort(volume.grid.spacing_mm)[1], FINEST_MM, COARSEST_MM))
    plane = plane.subdivided(max(1, int(np.ceil(plane.pixel_mm / in_plane_mm - 0.1))))
    return View(plane, _grey(*sample(volume.as_ras(), plane, slab_mm=SLAB_MM)))


def coronal_view(
    labels: DiscLabels, canal: Centerline, sagittal: SamplingPlane, volume: Volume
) -> tuple[View, FloatArray] | None:
    """Read a coronal plane through the discs, with the rows of a sagittal one.

    Returns
    -------
    view
        Without the columns that lie beside the volume. None if the volume is too narrow for one.
    places
        ``(rows, 2)``: row and column in the coronal picture of a disc whose tip is in a row of the sagittal
        one.
    """
    tips, discs = _lines(labels, canal, sagittal)
    plane = coronal_plane(sagittal, discs, WIDTH_MM)
    image, inside = sample(volume.as_ras(), plane)
    seen = np.nonzero(inside.any(axis=0))[0]
    if len(seen) * plane.pixel_mm < NARROWEST_MM:
        return None
    kept = slice(seen[0], seen[-1] + 1)
    plane = replace(plane, points_world=plane.points_world[:, kept])
    places = plane.pixel_from_world(sagittal.points_world[:, 0])
    heights = tips @ sagittal.axes[:, 2]
    order = np.argsort(heights)
    drop_mm = ((tips - discs) @ sagittal.axes[:, 2])[order]
    places[:, 0] += (
        np.interp(sagittal.points_world[:, 0] @ sagittal.axes[:, 2], heights[order], drop_mm) / plane.pixel_mm
    )
    return View(plane, _grey(image[:, kept], inside[:, kept])), places


def _lines(labels: DiscLabels, canal: Centerline, sagittal: SamplingPlane) -> tuple[FloatArray, FloatArray]:
    """Return the lines along the canal through the discs' tips and through the discs, ``(N, 3)`` world each.

    A disc lies before its tip at right angles to the canal. Beyond the first and the last disc the lines keep
    their distance from the canal.
    """
    samples, arc = canal.samples_world, canal.samples_arc_mm
    tangents, anterior = canal.tangents(arc), sagittal.axes[:, 1]
    forwards = anterior - (tangents @ anterior)[:, None] * tangents
    forwards /= np.maximum(np.linalg.norm(forwards, axis=1, keepdims=True), 1e-6)
    offsets = labels.points_world[:, None] - samples
    nearest = (offsets**2).sum(axis=2).argmin(axis=1)
    before = (offsets[np.arange(len(nearest)), nearest] * forwards[nearest]).sum(axis=1)
    order = np.argsort(arc[nearest])
    depth = np.interp(arc, arc[nearest][order], before[order]) if len(order) else np.zeros(len(arc))
    return samples + depth[:, None] * forwards, samples + (depth + DEPTH_MM)[:, None] * forwards


def _grey(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    low, high = GREY_RANGE
    grey = np.clip(255 * (normalise(image, inside) - low) / (high - low), 0, 255)
    return np.where(inside, grey, 0).astype(np.uint8)
