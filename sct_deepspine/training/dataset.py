"""The random planes a network is trained on, with their target maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.planes import (
    PLANE_ANTERIOR_MM,
    PLANE_POSTERIOR_MM,
    SamplingPlane,
    normalise,
    read_labels,
    sample,
)
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import UNKNOWN_TISSUE, VERTEBRA_TISSUE, LabelledScan, canal_points
from sct_deepspine.labeling.heatmaps import DiscCodec, gaussian
from sct_deepspine.simulation.composite import COMPOSITE_REGION
from sct_deepspine.simulation.phantom import PHANTOM_REGION, unit_range
from sct_deepspine.training.augment import (
    crop_field_of_view,
    darken_bone,
    random_grid,
    random_texture,
    randomise_grey_values,
    randomise_parcels,
    randomise_tissues,
    thick_axial_slices,
)
from sct_deepspine.training.known import is_known

__all__ = ["PlaneSettings", "RandomPlanes", "inexact_space", "prepare_scan", "sampling_shares"]

GROUP_POWER = 0.35
"""A group is sampled in proportion to its number of scans to this power."""

CANAL_SIGMA_MM = 5.0
"""Standard deviation of the canal's target across it, mm."""

CENTERLINE_ERROR_MM = 1.2, 2.0, 0.0
"""Spread of the errors of a centreline that a network finds: right, anterior, superior."""

AWAY_MM = 80.0
"""A plane away from the spine begins up to this far from the tips."""

THICK_SHARE = 0.75
"""Share of the planes with dark bone that come in thick axial slices, as most such series do."""

FAR_MM = 1e6
"""Coordinate of cells outside the space: farther than any target reaches."""

LATERAL_WEIGHT = 0.6
"""A disc's peak fades across the plane more slowly than within it: a disc is wide, its tip is not."""


@dataclass(frozen=True)
class PlaneSettings:
    """How training planes are made.

    Parameters
    ----------
    shape
        Rows and columns, pixels.
    pixel_mm
        Edge of a pixel.
    lateral_share
        Share of planes put anywhere across the volume instead of near the spine's middle.
    away_share
        Share of native planes laid in front of the spine or behind it.
    empty_share
        Share of planes that show a random texture and no spine.
    straight
        Whether planes are laid in the straightened space, along a centreline as inexact as one that
        a network finds, or in the native one.
    turn_degrees
        Largest in-plane rotation.
    tissue_share
        Share of planes whose labelled tissues get grey values of their own.
    parcel_share
        Share of planes whose clusters of like appearance get grey values of their own.
    phantom_share, composite_share
        Share of planes taken from phantoms and from composite spines, if there are any beside real ones.
    dark_bone_share
        Share of the planes with labelled tissues in which bone is the darkest one, most of them averaged over
        thick axial slices.
    between_weight
        What a cell midway between two discs counts more than another, where no disc must be seen: that is
        where half a level is off.
    tall_rows, tall_share
        Rows of a plane that holds a whole spine, and the share of batches of such planes.
    """

    shape: tuple[int, int] = (192, 96)
    pixel_mm: float = 2.0
    lateral_share: float = 0.25
    away_share: float = 0.06
    empty_share: float = 0.04
    straight: bool = False
    turn_degrees: float = 22.0
    tissue_share: float = 0.5
    parcel_share: float = 0.4
    phantom_share: float = 0.12
    composite_share: float = 0.25
    dark_bone_share: float = 0.0
    between_weight: float = 0.0
    tall_rows: int = 320
    tall_share: float = 0.0


class RandomPlanes(Dataset[dict[str, torch.Tensor]]):
    """Random planes with their target maps; plane ``index`` is the same on every run of a seed.

    Parameters
    ----------
    scans
        Scans to take planes of; small groups more often than their size.
    codec
        Layout of the target maps.
    settings
        How planes are made.
    length
        Number of planes.
    seed
        Random seed.
    start
        Index of the first plane, to go on where an earlier run stopped.
    batch
        Planes of a batch follow each other and have one shape.
    """

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        codec: DiscCodec,
        settings: PlaneSettings,
        *,
        length: int,
        seed: int,
        start: int = 0,
        batch: int = 1,
    ) -> None:
        self.codec, self.settings = codec, settings
        self.length, self.seed, self.start, self.batch = length, seed, start, batch
        self.scans = [prepare_scan(scan.deobliqued(), settings.pixel_mm) for scan in scans]
        self.weights = sampling_shares(
            scans, phantom_share=settings.phantom_share, composite_share=settings.composite_share
        )
        heights = np.array([np.ptp(scan.volume.grid.corners_world()[:, 2]) for scan in scans])
        # A plane that holds a whole spine is mostly wasted on a scan that does not.
        self.tall_weights = self.weights * heights / (self.weights @ heights)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, self.start + index))
        number = (self.start + index) // self.batch
        tall = np.random.default_rng((self.seed, number, 1)).random() < self.settings.tall_share
        shape = (self.settings.tall_rows if tall else self.settings.shape[0], self.settings.shape[1])
        scan = self.scans[rng.choice(len(self.scans), p=self.tall_weights if tall else self.weights)]
        straight = self.settings.straight and bool(scan.discs)
        lay = self._lay_straightened if straight else self._lay_native
        plane, scale = lay(rng, scan, shape)
        slab_mm = rng.uniform(1, 7)
        image, inside = sample(scan.volume, plane, slab_mm=slab_mm, oversample=1)
        if rng.random() < self.settings.parcel_share:
            image = randomise_parcels(rng, image)
        image = self._recoloured(rng, image, scan, plane)
        image = randomise_grey_values(rng, image, pixel_mm=self.settings.pixel_mm)
        if rng.random() < self.settings.empty_share:
            image = random_texture(rng, image.shape)
            scan = replace(scan, discs={}, landmarks={}, unnamed=np.empty((0, 3)), centerline_world=None)
        inside = crop_field_of_view(rng, inside, self.settings.pixel_mm)
        weight = self.settings.between_weight
        targets = _targets(scan, plane, inside, self.codec, scale, between_weight=weight)
        return {"image": torch.from_numpy(normalise(image, inside)[None]), **targets}

    def _recoloured(
        self, rng: np.random.Generator, image: NDArray[np.float32], scan: LabelledScan, plane: SamplingPlane
    ) -> NDArray[np.float32]:
        """Give the labelled tissues grey values of their own, or those of a contrast with dark bone."""
        if scan.tissue is None:
            return image
        settings = self.settings
        # Drawn only where asked for, so that planes of earlier configurations stay the same.
        darkened = settings.dark_bone_share > 0 and rng.random() < settings.dark_bone_share
        if not darkened and rng.random() >= settings.tissue_share:
            return image
        tissue = read_labels(scan.tissue, plane)
        tissue = np.where(tissue == UNKNOWN_TISSUE, 0, tissue).astype(np.uint8)
        if not darkened:
            return randomise_tissues(rng, image, tissue)
        image = darken_bone(rng, image, tissue, bone=VERTEBRA_TISSUE)
        thick = rng.random() < THICK_SHARE and not settings.straight
        return thick_axial_slices(rng, image, pixel_mm=settings.pixel_mm) if thick else image

    def _lay_straightened(
        self, rng: np.random.Generator, scan: LabelledScan, shape: tuple[int, int]
    ) -> tuple[SamplingPlane, float]:
        """Lay the mid-sagittal plane of the space that an inexact centreline straightens."""
        settings = self.settings
        grid, scale = random_grid(rng, shape, settings.pixel_mm, turn_degrees=settings.turn_degrees)
        space = inexact_space(rng, scan)
        tips = space.straight_from_native(np.array(list(scan.levels.values())))
        middle = rng.uniform(np.nanmin(tips[:, 2]) - 20, np.nanmax(tips[:, 2]) + 20)
        straight = np.empty((*grid.shape[:2], 3))
        straight[..., 0] = rng.normal(0, 1.5)
        straight[..., 1] = grid[..., 0] + (PLANE_POSTERIOR_MM + PLANE_ANTERIOR_MM) / 2 + rng.normal(0, 3)
        straight[..., 2] = grid[..., 1] + middle
        points = space.native_from_straight(straight.reshape(-1, 3)).reshape(straight.shape)
        return SamplingPlane(points, settings.pixel_mm), scale

    def _lay_native(
        self, rng: np.random.Generator, scan: LabelledScan, shape: tuple[int, int]
    ) -> tuple[SamplingPlane, float]:
        """Lay a plane anywhere along the spine, turned, scaled and bent."""
        settings = self.settings
        grid, scale = random_grid(rng, shape, settings.pixel_mm, turn_degrees=settings.turn_degrees)
        tips = np.array(list(scan.levels.values()) or [scan.volume.grid.corners_world().mean(axis=0)])
        half_width_mm = settings.pixel_mm * settings.shape[1] / 2
        z_centre = rng.uniform(tips[:, 2].min() - 40, tips[:, 2].max() + 40)
        near = tips[np.argmin(np.abs(tips[:, 2] - z_centre))]
        forwards = rng.uniform(-0.5, 0.5) * half_width_mm
        if rng.random() < settings.away_share:
            forwards = rng.choice((-1, 1)) * (half_width_mm + rng.uniform(0, AWAY_MM))
        centre = np.array([near[1] + forwards, z_centre])
        turn, tilt = np.radians(rng.uniform(-25, 25)), np.radians(rng.uniform(-12, 12))
        y, z = centre[0] + grid[..., 0] * np.cos(turn), centre[1] + grid[..., 1]
        x = (
            scan.lateral_mm(z)
            + grid[..., 0] * np.sin(turn)
            + grid[..., 1] * np.tan(tilt) * (rng.random() < 0.5)
        )
        if rng.random() < settings.lateral_share:
            corners = scan.volume.grid.corners_world()[:, 0]
            x = x + rng.uniform(corners.min(), corners.max()) - x.mean()
        else:
            x = x + rng.normal(0, 2.5)
        if scan.volume.data.shape[0] == 1:
            x = np.full_like(x, scan.volume.grid.affine[0, 3])
        return SamplingPlane(np.stack([x, y, z], axis=-1), settings.pixel_mm), scale


def inexact_space(rng: np.random.Generator, scan: LabelledScan) -> StraightSpace:
    """Return the space that a centreline as inexact as a network's straightens."""
    line = canal_points(scan)
    knots = np.linspace(0, len(line) - 1, 7)
    error = CubicSpline(knots, rng.normal(0, CENTERLINE_ERROR_MM, (7, 3)))(np.arange(len(line)))
    return StraightSpace(Centerline.from_points(line + error))


def sampling_shares(
    scans: Sequence[LabelledScan],
    *,
    phantom_share: float,
    composite_share: float = 0.0,
    group_power: float = GROUP_POWER,
) -> FloatArray:
    """Return the probability of each scan: small groups are sampled more often than their size."""
    groups = np.array([scan.group for scan in scans])
    weights = np.array([(groups == group).sum() ** (group_power - 1) for group in groups])
    regions = np.array([scan.region for scan in scans])
    made = {PHANTOM_REGION: phantom_share, COMPOSITE_REGION: composite_share}
    made = {region: share for region, share in made.items() if (regions == region).any()}
    real = ~np.isin(regions, list(made))
    for region, share in made.items():
        weights[regions == region] *= share / weights[regions == region].sum()
    if real.any():
        weights[real] *= (1 - sum(made.values())) / weights[real].sum()
    return weights / weights.sum()


def prepare_scan(scan: LabelledScan, pixel_mm: float) -> LabelledScan:
    """Scale grey values to 0…1 and blur to the plane's pixel, so that one sample is a pixel's mean."""
    data = unit_range(scan.volume.data)
    for axis in (1, 2):
        sigma_mm = 0.29 * pixel_mm  # the spread of a box one pixel wide
        data = gaussian_filter1d(data, sigma_mm / scan.volume.grid.spacing_mm[axis], axis=axis)
    return replace(scan, volume=Volume(data, scan.volume.grid))


def _targets(
    scan: LabelledScan,
    plane: SamplingPlane,
    inside: NDArray[np.bool_],
    codec: DiscCodec,
    scale: float,
    *,
    between_weight: float = 0.0,
) -> dict[str, torch.Tensor]:
    """Return the maps that a perfect network would predict, and where they are known and how much they count.

    Distances are taken in the world, so that a disc's peak is right however the plane is bent.
    """
    stride = codec.stride
    rows, columns = (n // stride for n in plane.shape)
    blocks = plane.points_world.reshape(rows, stride, columns, stride, 3)
    cells = np.nan_to_num(blocks.mean(axis=(1, 3)), nan=FAR_MM)
    visible = inside.reshape(rows, stride, columns, stride).mean(axis=(1, 3)) > 0.5
    across = np.array([LATERAL_WEIGHT, 1.0, 1.0])
    sigma = codec.sigma_cells * stride * plane.pixel_mm * scale
    any_disc, level = codec.encode(
        {value: tip * across for value, tip in scan.levels.items()},
        cells * across,
        sigma=sigma,
        unnamed=scan.unnamed * across,
    )
    known = (~visible | is_known(scan, cells[..., 2])).astype(np.float32)
    if between_weight:
        middles, _ = codec.encode(_between(scan), cells * across, sigma=sigma)
        known *= 1 + between_weight * middles * (1 - any_disc)
    canal, canal_known = np.zeros((rows, columns), np.float32), ~visible | (not scan.discs)
    if scan.centerline_world is not None:
        line = scan.centerline_world
        distance, _ = cKDTree(line).query(cells, distance_upper_bound=40)
        canal = gaussian(distance**2, CANAL_SIGMA_MM).astype(np.float32) * visible
        canal_known |= (cells[..., 2] > line[0, 2]) & (cells[..., 2] < line[-1, 2])
    return {
        "any_disc": torch.from_numpy(any_disc * visible),
        "any_known": torch.from_numpy(known),
        "level": torch.from_numpy(level),
        "canal": torch.from_numpy(canal),
        "canal_known": torch.from_numpy(canal_known.astype(np.float32)),
    }


def _between(scan: LabelledScan) -> dict[int, FloatArray]:
    """Return the points midway between neighbouring discs, at the hinder edge of each body, by value."""
    across = np.array([LATERAL_WEIGHT, 1.0, 1.0])
    return {
        value: (tip + scan.discs[value + 1]) / 2 * across
        for value, tip in scan.discs.items()
        if value + 1 in scan.discs
    }
