"""Scans with known discs, and the random planes a network is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, slices_from_world
from sct_deepspine.geometry.planes import ANTERIOR_MM, POSTERIOR_MM, Sheet, normalise, sample
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import label_cards
from sct_deepspine.io.bids import image_stem
from sct_deepspine.io.images import read_mask, read_volume
from sct_deepspine.labeling.heatmaps import Codec, gaussian
from sct_deepspine.training.augment import (
    crop_field_of_view,
    random_grid,
    random_texture,
    randomise_grey_values,
    recolour_parcels,
    recolour_tissues,
)

__all__ = [
    "PlaneSettings",
    "RandomPlanes",
    "Scan",
    "canal_points",
    "read_folder",
    "read_scan",
    "slice_centres",
    "unit_range",
]

SYNTHETIC_GROUP = "phantom"
JOINED_GROUP = "joined"
GROUP_POWER = 0.35
"""A group is drawn in proportion to its number of scans to this power."""

TISSUE_KEYS = ("tissue_seg", "vertebra_seg")
CANAL_TISSUE = 3
CANAL_SIGMA_MM = 5.0
CANAL_BEHIND_TIP_MM = 9.0
NO_LEVEL = -100
"""What the loss (torch's cross-entropy) takes for a class that is not known."""

AWAY_MM = 80.0
"""A plane away from the spine begins up to this far from the tips."""

FAR_MM = 1e6
UNKNOWN_MM = 6.0, 40.0
"""Where the next landmark beyond the last labelled point may lie."""

LATERAL_WEIGHT = 0.6
"""A disc's peak fades across the plane more slowly than within it: a disc is wide, its tip is not."""


@dataclass(frozen=True)
class Scan:
    """One scan with its truth.

    Parameters
    ----------
    name
        For tables and messages.
    subject
        Whose scan it is; sets are split by subject.
    group
        Region and contrast, for tables and for drawing evenly.
    volume
        In RAS order, its slices along the axes (see :func:`sct_deepspine.geometry.grid.slices_from_world`).
    discs
        Disc value → ``(3,)`` posterior tip, in the world the volume lies in.
    span_z_mm
        World z between which every visible disc is labelled.
    centerline_world
        ``(N, 3)`` cord or canal centres, one per slice, or None.
    tissue
        Labels on the volume's grid, or None.
    unnamed
        ``(N, 3)`` tips of discs of which no one can tell the value, world.
    landmarks
        Value → ``(3,)`` world of what is no disc but tells the level: the tip (1) and the base (2) of the
        dens, and S1/S2 (26).
    """

    name: str
    subject: str
    group: str
    volume: Volume
    discs: dict[int, FloatArray]
    span_z_mm: tuple[float, float]
    centerline_world: FloatArray | None = None
    tissue: Volume | None = None
    unnamed: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    landmarks: dict[int, FloatArray] = field(default_factory=dict)

    @property
    def levels(self) -> dict[int, FloatArray]:
        """Discs and landmarks together."""
        return self.discs | self.landmarks

    def is_known(self, z_mm: FloatArray) -> NDArray[np.bool_]:
        """Tell at which world z an empty "any disc" map is the truth.

        Nothing above the dens and nothing below S1/S2 is drawn, so that the span is open there, except
        where a landmark must be that is not labelled. A scan without any disc is one without a spine.
        """
        low, high = self.span_z_mm
        if not self.discs:
            return np.ones(z_mm.shape, dtype=bool)
        top, bottom = min(self.levels), max(self.levels)
        known = ((z_mm < high) | (top <= 3)) & ((z_mm > low) | (bottom >= 25))
        if top in (2, 3):
            above = z_mm - self.levels[top][2]
            known &= (above < UNKNOWN_MM[0]) | (above > UNKNOWN_MM[1] * (top - 1))
        if bottom == 25:
            below = self.levels[bottom][2] - z_mm
            known &= (below < UNKNOWN_MM[0]) | (below > UNKNOWN_MM[1])
        return known

    def lateral_mm(self, z_mm: FloatArray) -> FloatArray:
        """World x of the spine's middle at world z."""
        if self.centerline_world is not None:
            line = self.centerline_world
            return np.interp(z_mm, line[:, 2], gaussian_filter1d(line[:, 0], 6, mode="nearest"))
        points = np.array(list(self.levels.values()))
        if not self.discs:
            return np.full_like(z_mm, self.volume.grid.corners_world()[:, 0].mean())
        low, high = points[:, 2].min(), points[:, 2].max()
        parabola = np.polynomial.Polynomial.fit(points[:, 2], points[:, 0], min(2, len(points) - 1))
        return parabola(np.clip(z_mm, low, high))


def read_folder(folder: str | Path) -> list[Scan]:
    """Read every scan of a folder of NIfTI files with JSON labels beside them.

    Raises
    ------
    ImageError
        If the folder holds no labelled scan, or one can't be read.
    """
    return [read_scan(path, card) for path, card in label_cards(folder)]


def read_scan(path: Path, card: dict[str, Any]) -> Scan:
    """Read one scan that a card describes, turned to its slices as for labelling."""
    folder = path.parent
    volume = read_volume(folder / card["image"]).as_ras()
    turn = slices_from_world(volume.grid)
    middle, volume = volume.grid.middle_world, volume.moved(turn)
    tissue_name = next((card[key] for key in TISSUE_KEYS if key in card), None)
    tissue = read_volume(folder / tissue_name).as_ras().moved(turn) if tissue_name else None
    canal = None
    if "cord_seg" in card:
        canal = read_mask(folder / card["cord_seg"]).as_ras().moved(turn)
    elif "tissue_seg" in card and tissue is not None:
        canal = Volume(tissue.data == CANAL_TISSUE, tissue.grid)
    return Scan(
        name=image_stem(card["image"]),
        subject=card["subject"],
        group=f"{card['region'].split(' (')[0]} {card['contrast']}",
        volume=volume,
        discs={int(value): apply_affine(turn, point) for value, point in card["discs"].items()},
        landmarks={
            int(value): apply_affine(turn, point) for value, point in card.get("landmarks", {}).items()
        },
        span_z_mm=_turned_span(card["labelled_span_mm"], turn, middle),
        centerline_world=None if canal is None else slice_centres(canal),
        tissue=tissue,
    )


def _turned_span(span_mm: Sequence[float], turn: FloatArray, middle: FloatArray) -> tuple[float, float]:
    """Return the heights of a span after a turn, as they are in the middle of the image."""
    low, high = (
        float(apply_affine(turn, [middle[0], middle[1], z])[2]) if np.isfinite(z) else z for z in span_mm
    )
    return low, high


def slice_centres(mask: Volume) -> FloatArray:
    """Return the centre of mass of each axial slice of a RAS mask, ``(N, 3)`` world, z ascending."""
    inside = np.argwhere(mask.data)
    slices, index = np.unique(inside[:, 2], return_inverse=True)
    count = np.bincount(index)
    centres = np.stack([np.bincount(index, inside[:, axis]) / count for axis in range(3)], axis=1)
    world = mask.grid.world_from_voxel(centres[np.isin(slices, inside[:, 2])])
    return world[np.argsort(world[:, 2])]


@dataclass(frozen=True)
class PlaneSettings:
    """How training planes are drawn.

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
    recolour_share
        Share of planes whose labelled tissues get grey values of their own.
    parcel_share
        Share of planes whose clusters of like appearance get grey values of their own.
    synthetic_share, joined_share
        Share of planes drawn from phantoms and from joined spines, if there are any beside real ones.
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
    recolour_share: float = 0.5
    parcel_share: float = 0.4
    synthetic_share: float = 0.12
    joined_share: float = 0.25
    tall_rows: int = 320
    tall_share: float = 0.0


class RandomPlanes(Dataset[dict[str, torch.Tensor]]):
    """Random planes with their target maps; plane ``index`` is the same on every run of a seed.

    Parameters
    ----------
    scans
        Scans to draw from; small groups more often than their size.
    codec
        Layout of the target maps.
    settings
        How planes are drawn.
    length
        Number of planes.
    seed
        Of every random choice.
    start
        Index of the first plane, to go on where an earlier run stopped.
    batch
        Planes of a batch follow each other and have one shape.
    """

    def __init__(
        self,
        scans: Sequence[Scan],
        codec: Codec,
        settings: PlaneSettings,
        *,
        length: int,
        seed: int,
        start: int = 0,
        batch: int = 1,
    ) -> None:
        self.codec, self.settings = codec, settings
        self.length, self.seed, self.start, self.batch = length, seed, start, batch
        self.scans = [_prepare(scan, settings.pixel_mm) for scan in scans]
        self.weights = _shares(scans, settings)
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
        lay = self._lay_straight_sheet if straight else self._lay_native_sheet
        sheet, scale = lay(rng, scan, shape)
        slab_mm = rng.uniform(1, 7)
        plane, inside = sample(scan.volume, sheet, slab_mm=slab_mm, oversample=1)
        if rng.random() < self.settings.parcel_share:
            plane = recolour_parcels(rng, plane)
        if scan.tissue is not None and rng.random() < self.settings.recolour_share:
            plane = recolour_tissues(rng, plane, _read_labels(scan.tissue, sheet))
        plane = randomise_grey_values(rng, plane, pixel_mm=self.settings.pixel_mm)
        if rng.random() < self.settings.empty_share:
            plane, scan = (
                random_texture(rng, plane.shape),
                replace(scan, discs={}, landmarks={}, unnamed=np.empty((0, 3)), centerline_world=None),
            )
        inside = crop_field_of_view(rng, inside, self.settings.pixel_mm)
        targets = _draw_targets(scan, sheet, inside, self.codec, scale)
        return {"image": torch.from_numpy(normalise(plane, inside)[None]), **targets}

    def _lay_straight_sheet(
        self, rng: np.random.Generator, scan: Scan, shape: tuple[int, int]
    ) -> tuple[Sheet, float]:
        """Lay the mid-sagittal plane of the space that an inexact centreline straightens."""
        settings = self.settings
        grid, scale = random_grid(rng, shape, settings.pixel_mm, turn_degrees=settings.turn_degrees)
        line = canal_points(scan)
        knots = np.linspace(0, len(line) - 1, 7)
        error = CubicSpline(knots, rng.normal(0, (1.2, 2.0, 0.0), (7, 3)))(np.arange(len(line)))
        space = StraightSpace(Centerline.from_points(line + error))
        tips = space.straight_from_native(np.array(list(scan.levels.values())))
        middle = rng.uniform(np.nanmin(tips[:, 2]) - 20, np.nanmax(tips[:, 2]) + 20)
        straight = np.empty((*grid.shape[:2], 3))
        straight[..., 0] = rng.normal(0, 1.5)
        straight[..., 1] = grid[..., 0] + (POSTERIOR_MM + ANTERIOR_MM) / 2 + rng.normal(0, 3)
        straight[..., 2] = grid[..., 1] + middle
        points = space.native_from_straight(straight.reshape(-1, 3)).reshape(straight.shape)
        return Sheet(points, settings.pixel_mm), scale

    def _lay_native_sheet(
        self, rng: np.random.Generator, scan: Scan, shape: tuple[int, int]
    ) -> tuple[Sheet, float]:
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
        return Sheet(np.stack([x, y, z], axis=-1), settings.pixel_mm), scale


def canal_points(scan: Scan) -> FloatArray:
    """Return points along the canal, ``(N, 3)``; from the tips where there is no mask."""
    if scan.centerline_world is not None:
        return scan.centerline_world
    tips = np.array(list(scan.levels.values()))
    tips = tips[np.argsort(tips[:, 2])]
    z = np.arange(tips[0, 2] - 20, tips[-1, 2] + 20, 2.0)
    tips_y = CubicSpline(tips[:, 2], tips[:, 1], bc_type="natural")(np.clip(z, tips[0, 2], tips[-1, 2]))
    return np.stack([scan.lateral_mm(z), tips_y - CANAL_BEHIND_TIP_MM, z], axis=1)


def _shares(scans: Sequence[Scan], settings: PlaneSettings) -> FloatArray:
    """Return the probability of each scan: small groups are drawn more often than their size."""
    groups = np.array([scan.group for scan in scans])
    weights = np.array([(groups == group).sum() ** (GROUP_POWER - 1) for group in groups])
    made = {SYNTHETIC_GROUP: settings.synthetic_share, JOINED_GROUP: settings.joined_share}
    made = {group: share for group, share in made.items() if (groups == group).any()}
    real = ~np.isin(groups, list(made))
    for group, share in made.items():
        weights[groups == group] *= share / weights[groups == group].sum()
    if real.any():
        weights[real] *= (1 - sum(made.values())) / weights[real].sum()
    return weights / weights.sum()


def unit_range(data: NDArray[Any]) -> NDArray[np.float32]:
    """Scale grey values to about 0…1."""
    grey = np.asarray(data, dtype=np.float32)
    low, high = np.percentile(grey, (0.5, 99.5))
    return np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1.2)


def _prepare(scan: Scan, pixel_mm: float) -> Scan:
    """Scale grey values to 0…1 and blur to the plane's pixel, so that one sample is a pixel's mean."""
    data = unit_range(scan.volume.data)
    for axis in (1, 2):
        sigma_mm = 0.29 * pixel_mm  # the spread of a box one pixel wide
        data = gaussian_filter1d(data, sigma_mm / scan.volume.grid.spacing_mm[axis], axis=axis)
    return replace(scan, volume=Volume(data, scan.volume.grid))


def _read_labels(labels: Volume, sheet: Sheet) -> NDArray[np.uint8]:
    voxels = labels.grid.voxel_from_world(sheet.points_world.reshape(-1, 3))
    inside = labels.grid.contains_voxel(voxels)
    i, j, k = np.round(np.where(inside[:, None], voxels, 0)).astype(int).T
    values = np.where(inside, labels.data[i, j, k], 0)
    # Vertebrae are numbered in some masks: they are one tissue all the same.
    return np.where(values > CANAL_TISSUE, 1, values).astype(np.uint8).reshape(sheet.shape)


def _draw_targets(
    scan: Scan, sheet: Sheet, inside: NDArray[np.bool_], codec: Codec, scale: float
) -> dict[str, torch.Tensor]:
    """Draw the maps a perfect network would, and where they are known.

    Distances are taken in the world, so that a disc's peak is right however the sheet is bent.
    """
    stride = codec.stride
    rows, columns = (n // stride for n in sheet.shape)
    blocks = sheet.points_world.reshape(rows, stride, columns, stride, 3)
    cells = np.nan_to_num(blocks.mean(axis=(1, 3)), nan=FAR_MM)
    visible = inside.reshape(rows, stride, columns, stride).mean(axis=(1, 3)) > 0.5
    values = [value for value in scan.levels if codec.first_value <= value < codec.first_value + codec.levels]
    tips = np.array([*(scan.levels[value] for value in values), *scan.unnamed]).reshape(-1, 3)
    classes = np.array([*(value - codec.first_value for value in values), *[NO_LEVEL] * len(scan.unnamed)])
    offset = cells[None] - tips[:, None, None]
    offset[..., 0] *= LATERAL_WEIGHT
    sigma_mm = codec.sigma_cells * stride * sheet.pixel_mm * scale
    heat = gaussian((offset**2).sum(-1), sigma_mm).astype(np.float32) * visible
    known = ~visible | scan.is_known(cells[..., 2])
    empty = np.zeros((rows, columns), dtype=np.int64)
    level = classes[heat.argmax(axis=0)] if len(tips) else empty
    canal, canal_known = np.zeros((rows, columns), np.float32), ~visible | (not scan.discs)
    if scan.centerline_world is not None:
        line = scan.centerline_world
        distance, _ = cKDTree(line).query(cells, distance_upper_bound=40)
        canal = gaussian(distance**2, CANAL_SIGMA_MM).astype(np.float32) * visible
        canal_known |= (cells[..., 2] > line[0, 2]) & (cells[..., 2] < line[-1, 2])
    return {
        "any_disc": torch.from_numpy(heat.max(axis=0, initial=0)),
        "any_known": torch.from_numpy(known.astype(np.float32)),
        "level": torch.from_numpy(level.astype(np.int64)),
        "canal": torch.from_numpy(canal),
        "canal_known": torch.from_numpy(canal_known.astype(np.float32)),
    }
