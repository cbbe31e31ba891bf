"""The random planes a mask network is trained on, with what each pixel may be.

No scan here has every tissue labelled. A pixel's target is therefore a set of tissues, written as the bits
of a number: one tissue where a mask says so, several where it leaves that open, all where nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch.utils.data import Dataset

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import SamplingPlane, normalise, read_labels, sample
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import (
    CANAL_TISSUE,
    CORD_TISSUE,
    DISC_TISSUE,
    UNKNOWN_TISSUE,
    VERTEBRA_TISSUE,
    LabelledScan,
    canal_points,
)
from sct_deepspine.segmentation.corridor import ANTERIOR_MM, LATERAL_MM, PLANE_STEP_MM, POSTERIOR_MM
from sct_deepspine.segmentation.tissues import ANY_TISSUE, Tissue
from sct_deepspine.training.augment import (
    crop_field_of_view,
    random_grid,
    randomise_grey_values,
    randomise_parcels,
    randomise_tissues,
)
from sct_deepspine.training.dataset import inexact_space, prepare_scan, sampling_shares

__all__ = ["RandomTissuePlanes", "TissuePlaneSettings", "possible_tissues"]

CONUS_BELOW = 22
"""Below L2/L3 the canal holds no cord: the conus ends at T12 to L2."""

LAST_DISC = 25
"""Value of L5/S1, below which the sacrum begins."""

RING_MM = 4.0
"""What lies within this of a vertebral body's mask, and not behind it, is no vertebra."""

PEDICLE_MM = 7.0
"""Farther from the middle than this, the pedicles join a body from behind."""

NEAR_CANAL_SHARE, CORD_ALONE_SHARE, NEAR_CANAL_MM = 0.5, 0.8, 12.0
"""Share of planes laid through the canal, that of scans with no mask but the cord's, and how far from its
middle."""

ALONE_SHARE, AT_BORDER_SHARE = 0.12, 0.15
"""Share of planes that are shown alone, as in a single slice, and that of planes with one neighbour only."""

_CANAL = Tissue.CORD.bit | Tissue.FLUID.bit
_POSSIBLE = {
    0: Tissue.OTHER.bit,
    VERTEBRA_TISSUE: Tissue.VERTEBRA.bit,
    DISC_TISSUE: Tissue.DISC.bit,
    CANAL_TISSUE: _CANAL,
    CORD_TISSUE: Tissue.CORD.bit,
    UNKNOWN_TISSUE: ANY_TISSUE,
}
"""What a voxel may be, by its value in a tissue mask that does not part cord and fluid."""


@dataclass(frozen=True)
class TissuePlaneSettings:
    """How training planes are made.

    Parameters
    ----------
    shape
        Rows and columns, pixels.
    pixel_mm
        Edge of a pixel.
    turn_degrees
        Largest in-plane rotation.
    tissue_share
        Share of planes whose labelled tissues get grey values of their own.
    parcel_share
        Share of planes whose clusters of like appearance get grey values of their own.
    phantom_share
        Share of planes taken from phantoms, if there are any beside real scans.
    group_power
        A group of scans is sampled in proportion to its number to this power.
    channels
        Planes that the network sees: the one that is labelled, and its neighbours at :data:`PLANE_STEP_MM`.
    """

    shape: tuple[int, int] = (160, 112)
    pixel_mm: float = 1.0
    turn_degrees: float = 10.0
    tissue_share: float = 0.4
    parcel_share: float = 0.3
    phantom_share: float = 0.15
    group_power: float = 0.6
    channels: int = 3


class RandomTissuePlanes(Dataset[dict[str, torch.Tensor]]):
    """Random planes of straightened spines; plane ``index`` is the same on every run of a seed.

    Parameters
    ----------
    scans
        Scans to take planes of; small groups more often than their size.
    settings
        How planes are made.
    length
        Number of planes.
    seed
        Random seed.
    start
        Index of the first plane, to go on where an earlier run stopped.
    """

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        settings: TissuePlaneSettings,
        *,
        length: int,
        seed: int,
        start: int = 0,
    ) -> None:
        self.settings, self.length, self.seed, self.start = settings, length, seed, start
        whole = [scan.deobliqued() for scan in scans]
        self.possible = [possible_tissues(scan) for scan in whole]
        self.scans = [prepare_scan(scan, settings.pixel_mm) for scan in whole]
        self.weights = sampling_shares(
            scans, phantom_share=settings.phantom_share, group_power=settings.group_power
        )

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.start + index))
        settings = self.settings
        number = int(rng.choice(len(self.scans), p=self.weights))
        scan = self.scans[number]
        planes, middle = self._lay(rng, scan), settings.channels // 2
        slab_mm = rng.uniform(0.5, 4)
        read = [sample(scan.volume, plane, slab_mm=slab_mm, oversample=1) for plane in planes]
        # Grey values change in one picture of them all, so that a tissue keeps its value from plane to plane.
        image = np.concatenate([grey for grey, _ in read], axis=1)
        inside = np.stack([within for _, within in read])
        if rng.random() < settings.parcel_share:
            image = randomise_parcels(rng, image)
        if rng.random() < settings.tissue_share:
            shaded = [_SHADED[read_labels(self.possible[number], plane).astype(np.uint8)] for plane in planes]
            image = randomise_tissues(rng, image, np.concatenate(shaded, axis=1))
        image = randomise_grey_values(rng, image, pixel_mm=settings.pixel_mm)
        inside &= crop_field_of_view(rng, np.logical_or.reduce(inside), settings.pixel_mm)
        inside &= _shown(rng, settings.channels)[:, None, None]
        images = [normalise(*pair) for pair in zip(np.split(image, len(planes), axis=1), inside, strict=True)]
        possible = read_labels(self.possible[number], planes[middle])
        known = inside[middle] & (possible > 0)
        return {
            "image": torch.from_numpy(np.stack(images)),
            "possible": torch.from_numpy(np.where(known, possible, ANY_TISSUE).astype(np.int64)),
        }

    def _lay(self, rng: np.random.Generator, scan: LabelledScan) -> list[SamplingPlane]:
        """Lay a plane anywhere in the corridor of the space that an inexact centreline straightens.

        Its neighbours come with it, from left to right.
        """
        settings = self.settings
        grid, scale = random_grid(rng, settings.shape, settings.pixel_mm, turn_degrees=settings.turn_degrees)
        space = inexact_space(rng, scan)
        reach = min(LATERAL_MM, scan.volume.grid.shape[0] * float(scan.volume.grid.spacing_mm[0]) / 2)
        bones = scan.tissue is not None or scan.bodies is not None
        if rng.random() < (NEAR_CANAL_SHARE if bones else CORD_ALONE_SHARE):
            reach = min(reach, NEAR_CANAL_MM)
        straight = np.empty((*settings.shape, 3))
        straight[..., 0] = rng.uniform(-reach, reach)
        straight[..., 1] = grid[..., 0] + (POSTERIOR_MM + ANTERIOR_MM) / 2 + rng.normal(0, 4)
        straight[..., 2] = grid[..., 1] + rng.uniform(-10, space.z_mm[1] + 10)
        points = space.native_from_straight(straight.reshape(-1, 3)).reshape(straight.shape)
        if settings.channels == 1:
            return [SamplingPlane(points, settings.pixel_mm)]
        straight[..., 0] += PLANE_STEP_MM * scale
        # The space is linear across.
        step = space.native_from_straight(straight.reshape(-1, 3)).reshape(straight.shape) - points
        beside = np.arange(settings.channels) - settings.channels // 2
        return [SamplingPlane(points + number * step, settings.pixel_mm) for number in beside]


def _shown(rng: np.random.Generator, channels: int) -> NDArray[np.bool_]:
    """Draw which of a plane and its neighbours are shown; the plane itself always is."""
    shown = np.ones(channels, dtype=bool)
    middle, chance = channels // 2, rng.random()
    if chance < ALONE_SHARE:
        shown[:] = False
    elif chance < ALONE_SHARE + AT_BORDER_SHARE:
        shown[slice(middle) if rng.random() < 0.5 else slice(middle, None)] = False
    shown[middle] = True
    return shown


_SHADED = np.zeros(ANY_TISSUE + 1, dtype=np.uint8)
"""Tissue that is given a grey value of its own, by what a pixel may be."""
for _value, _bits in ((1, Tissue.VERTEBRA.bit), (2, Tissue.DISC.bit), (3, Tissue.FLUID.bit), (3, _CANAL)):
    _SHADED[_bits] = _value
_SHADED[Tissue.CORD.bit] = 4


def possible_tissues(scan: LabelledScan) -> Volume:
    """Return what each voxel of a scan may be, as bits; the scan is in its deobliqued frame.

    0 where a voxel is all of it unknown.
    """
    grid = scan.volume.grid
    possible = np.full(grid.shape, ANY_TISSUE, dtype=np.uint8)
    if scan.tissue is not None:
        possible &= _from_tissue(scan, scan.tissue.labels_on(grid).astype(np.uint8))
    if scan.bodies is not None:
        possible &= _from_bodies(scan, scan.bodies.labels_on(grid) > 0)
    if scan.cord is not None:
        possible &= _from_mask(scan.cord.labels_on(grid) > 0, Tissue.CORD.bit)
    if scan.canal is not None:
        possible &= _from_mask(scan.canal.labels_on(grid) > 0, _CANAL)
    return Volume(possible, grid)


def _from_tissue(scan: LabelledScan, tissue: NDArray[np.uint8]) -> NDArray[np.uint8]:
    names = dict(_POSSIBLE)
    if (tissue == CORD_TISSUE).any():
        names[CANAL_TISSUE] = Tissue.FLUID.bit
    possible = np.zeros(256, dtype=np.uint8)
    possible[list(names)] = list(names.values())
    out = possible[tissue]
    height = _heights(scan.volume)
    if CONUS_BELOW in scan.discs:
        below = height < scan.discs[CONUS_BELOW][2]
        out[(out == _CANAL) & below] = Tissue.FLUID.bit
    if LAST_DISC in scan.discs:
        # The sacrum is not in such masks, and looks like a vertebra.
        out[(out == Tissue.OTHER.bit) & _below_disc(scan, LAST_DISC)] |= Tissue.VERTEBRA.bit
    return out


def _heights(volume: Volume) -> FloatArray:
    """World z of each voxel, broadcast over the grid."""
    i, j, k = (np.arange(n) for n in volume.grid.shape)
    a = volume.grid.affine[2]
    return a[0] * i[:, None, None] + a[1] * j[:, None] + a[2] * k + a[3]


def _below_disc(scan: LabelledScan, value: int) -> NDArray[np.bool_]:
    """Return which voxels lie below a disc, across the canal."""
    space = StraightSpace(Centerline.from_points(canal_points(scan)))
    tip = scan.discs[value]
    arc = space.straight_from_native(tip)[:, 2]
    down = -space.centerline.tangents(arc)[0]
    # A disc at the sacrum slopes forwards and down, by some 20 degrees across the canal.
    voxels = np.indices(scan.volume.grid.shape).reshape(3, -1).T
    offset = scan.volume.grid.world_from_voxel(voxels) - tip
    return (offset @ down > -4.0).reshape(scan.volume.grid.shape)


def _from_bodies(scan: LabelledScan, bodies: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return what is known by a mask of vertebral bodies: these, and what is just beside them."""
    grid = scan.volume.grid
    near = distance_transform_edt(~bodies, sampling=grid.spacing_mm) <= RING_MM
    line = canal_points(scan)
    middle = np.interp(_heights(scan.volume)[:1, :1], line[:, 2], line[:, 0])
    lateral = (grid.affine[0, 0] * np.arange(grid.shape[0]) + grid.affine[0, 3])[:, None, None] - middle
    behind = np.cumsum(bodies, axis=1) == 0
    ring = near & ~bodies & ~(behind & (np.abs(lateral) > PEDICLE_MM))
    out = np.full(grid.shape, ANY_TISSUE, dtype=np.uint8)
    out[bodies] = Tissue.VERTEBRA.bit
    out[ring] = ANY_TISSUE & ~Tissue.VERTEBRA.bit
    return out


def _from_mask(mask: NDArray[np.bool_], tissues: int) -> NDArray[np.uint8]:
    """Return what is known by a mask of tissues that is complete between its lowest and highest slices."""
    slices = np.nonzero(mask.any(axis=(0, 1)))[0]
    out = np.full(mask.shape, ANY_TISSUE, dtype=np.uint8)
    out[:, :, slices[0] : slices[-1] + 1] &= ANY_TISSUE & ~tissues
    out[mask] = tissues
    return out
