"""A procedural (synthetic) spine scan with exact truth, for the demonstration, for tests and for training.

Everything is drawn in the straightened space, where anatomy is a function of the distance to the
cord and of the (fractional) level, and read from there for each voxel of a curved volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from sct_deepspine.anatomy import EXPECTED_SPACING_MM, SACRUM_STEPS_MM
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.straightening import StraighteningTransform, StraightSpace
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import (
    CANAL_TISSUE,
    CORD_TISSUE,
    DISC_TISSUE,
    VERTEBRA_TISSUE,
    LabelledScan,
)

__all__ = [
    "PHANTOM_REGION",
    "T2W",
    "Contrast",
    "Rendering",
    "Spine",
    "canal_line",
    "frame_scan",
    "grow_spine",
    "make_phantom",
    "make_varied_phantom",
    "random_contrast",
    "render_spine",
    "unit_range",
]

PHANTOM_REGION = "phantom"

VIEWS = ((3, 25), (3, 12), (17, 25), (8, 20), (3, 25), (14, 25), (3, 16), (10, 25))
"""First and last disc of the views to draw from."""

SPINELESS_SHARE = 0.15
"""Share of the varied phantoms that show a body without a spine."""

FUSED_SHARE = 0.02
"""Of the discs of a varied phantom."""

UNCOMMON_SHARE = 0.1
"""Of the varied phantoms, with a vertebra more or less than 7, 12 and 5."""

UNCOMMON_VALUES = 10, 20
"""Where a vertebra is more or less; discs above count from the head, those below from the sacrum."""

SLOPE_LEVELS = (1, 4, 8, 11, 14, 18, 21, 23, 25, 27)
"""Levels at which :data:`SLOPE_DEGREES` gives the lean; interpolated between."""

SLOPE_DEGREES = (5, 6, -20, -16, 0, 12, 10, 0, -25, -45)
"""Forward lean of the spine, going down, by level: lordosis, kyphosis, lordosis, sacrum."""


def unit_range(data: NDArray[Any]) -> NDArray[np.float32]:
    """Scale grey values to about 0…1."""
    grey = np.asarray(data, dtype=np.float32)
    low, high = np.percentile(grey, (0.5, 99.5))
    return np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1.2)


@dataclass(frozen=True)
class Contrast:
    """Grey value of each tissue, 0 to 1."""

    fluid: float = 1.0
    cord: float = 0.45
    disc: float = 0.55
    bone: float = 0.35
    cortex: float = 0.06
    fat: float = 0.8
    muscle: float = 0.2
    organ: float = 0.3
    brain: float = 0.45
    air: float = 0.0


T2W = Contrast()


def random_contrast(rng: np.random.Generator) -> Contrast:
    """Draw a grey value for every tissue, as no single MR sequence would give."""
    values = dict(zip(Contrast.__dataclass_fields__, rng.uniform(0.05, 1.0, 10), strict=True))
    return Contrast(**values | {"air": rng.uniform(0, 0.1), "cortex": rng.uniform(0, 0.2)})


@dataclass(frozen=True, eq=False)
class Spine:
    """One person's spine.

    Parameters
    ----------
    values
        Disc values, from the top of C1 (1) down to the remnants in the sacrum (26 and more). The disc
        below an extra vertebra has a value between its neighbours', that of a missing one is left out.
    depth_mm
        Distance of each from the superior end of the centreline, along it.
    length_mm
        Length of the centreline.
    space
        The space that straightens it.
    size
        1 is the template's.
    degenerated
        Disc value → height of the disc as a share of a healthy one's; 0 is fused, no disc to be seen.
    """

    values: FloatArray
    depth_mm: FloatArray
    length_mm: float
    space: StraighteningTransform
    size: float
    degenerated: Mapping[int, float] = field(default_factory=dict)

    @property
    def named(self) -> NDArray[np.bool_]:
        """Which discs have a value that everyone would give them, ``(N,)``."""
        first, last = UNCOMMON_VALUES
        common = np.array_equal(self.values, np.arange(1, len(self.values) + 1))
        apart = (self.values < first) | ((self.values > last) & (self.values % 1 == 0))
        return apart | common

    def tip_straight(self, value: FloatArray | NDArray[np.int64]) -> FloatArray:
        """Posterior tip of discs, ``(K, 3)``."""
        index = np.searchsorted(self.values, value)
        forward = _canal_radius(np.asarray(value, dtype=float), self.size) + 1.0
        return np.stack([np.zeros(len(index)), forward, self.length_mm - self.depth_mm[index]], axis=1)


def make_phantom(
    rng: np.random.Generator,
    *,
    first: int = 3,
    last: int = 25,
    voxel_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    contrast: Contrast = T2W,
    spine: bool = True,
    noise: float = 0.03,
    degenerated: Mapping[int, float] | None = None,
    sway_degrees: float = 4.0,
    extra: int | None = None,
    missing: int | None = None,
) -> LabelledScan:
    """Make a synthetic scan of a spine.

    Parameters
    ----------
    rng
        Of its shape and texture.
    first, last
        Disc values in view, superior and inferior end; 3 to 25.
    voxel_mm
        Voxel size: right, anterior, superior.
    contrast
        Grey values.
    spine
        False for a body without vertebrae, discs, canal and cord.
    noise
        Standard deviation of the noise, relative to the brightest tissue.
    degenerated
        Disc value → height of the disc as a share of a healthy one's; 0 is fused.
    sway_degrees
        Spread of the sideways lean of a scoliosis.
    extra, missing
        Disc value, 10 to 20, below which there is a vertebra too many, or which is gone with its vertebra.

    Returns
    -------
    LabelledScan
        With every disc and landmark in view labelled (discs from 10 to 20 without a value if a vertebra is
        extra or missing), the cord's centreline and the tissues.
    """
    if not 3 <= first < last <= 25:
        raise ValueError(f"expected 3 <= first < last <= 25, got {first} and {last}")
    body = grow_spine(rng, degenerated=degenerated, sway_degrees=sway_degrees, extra=extra, missing=missing)
    in_view = (body.values >= first) & (body.values <= last)
    grid = frame_scan(rng, body.space.native_from_straight(body.tip_straight(body.values[in_view])), voxel_mm)
    # Beyond the last discs lie the landmarks: the dens and S1/S2.
    in_view |= ((body.values < first) & (first == 3)) | ((body.values == 26) & (last == 25))
    visible, named = body.values[in_view], body.named[in_view]
    tips = body.space.native_from_straight(body.tip_straight(visible))
    rendered = render_spine(rng, body, grid, contrast, spine=spine)
    grey = gaussian_filter(rendered.grey, [0.4 / size for size in voxel_mm])
    shade = zoom(
        rng.standard_normal((3, 3, 4)), [n / k for n, k in zip(grid.shape, (3, 3, 4), strict=True)], order=1
    )
    grey = grey * np.exp(0.12 * shade) + noise * rng.standard_normal(grid.shape)
    volume = Volume(np.round(1000 * np.clip(grey, 0, 2)).astype(np.int16), grid)
    inside = grid.contains_voxel(grid.voxel_from_world(tips))
    shown = inside & spine
    is_disc = (visible >= 3) & (visible <= 25)
    points = {int(v): tip for v, tip in zip(visible[shown & named], tips[shown & named], strict=True)}
    span = tips[is_disc, 2].min() - 12, tips[is_disc, 2].max() + 12
    return LabelledScan(
        name="phantom",
        subject="phantom",
        region=PHANTOM_REGION,
        contrast="synthetic",
        volume=volume,
        discs={v: tip for v, tip in points.items() if 3 <= v <= 25},
        landmarks={v: tip for v, tip in points.items() if not 3 <= v <= 25},
        unnamed=tips[shown & ~named],
        span_z_mm=(-np.inf if last == 25 else float(span[0]), np.inf if first == 3 else float(span[1])),
        centerline_world=canal_line(body, grid) if spine else None,
        tissue=Volume(rendered.tissue, grid),
    )


def canal_line(body: Spine, grid: Grid) -> FloatArray:
    """Return the cord's centres in a field of view, ``(N, 3)`` world, z ascending."""
    arc = np.arange(0, body.length_mm, 1.0)
    line = body.space.native_from_straight(np.stack([0 * arc, 0 * arc, arc], axis=1))
    line = line[grid.contains_voxel(grid.voxel_from_world(line))]
    return line[np.argsort(line[:, 2])]


def make_varied_phantom(
    rng: np.random.Generator,
    *,
    spineless_share: float = SPINELESS_SHARE,
    views: Sequence[tuple[int, int]] = VIEWS,
) -> LabelledScan:
    """Make a phantom of random view, contrast and noise; some have no spine."""
    first, last = views[int(rng.integers(len(views)))]
    contrast = T2W if rng.random() < 0.5 else random_contrast(rng)
    noise, spine = rng.uniform(0.01, 0.06), rng.random() >= spineless_share
    height = np.clip(rng.normal(1.0, 0.3, 26), 0.3, 1.2) * (rng.random(26) > FUSED_SHARE)
    uncommon = (
        int(rng.integers(UNCOMMON_VALUES[0], UNCOMMON_VALUES[1] + 1))
        if rng.random() < UNCOMMON_SHARE
        else None
    )
    is_extra = rng.random() < 0.5
    return make_phantom(
        rng,
        first=first,
        last=last,
        voxel_mm=(3.0, 1.5, 1.5) if last - first > 13 else (3.0, 1.0, 1.0),
        contrast=contrast,
        noise=noise,
        spine=spine,
        degenerated=dict(enumerate(height.tolist())),
        sway_degrees=12.0 if rng.random() < 0.3 else 4.0,
        extra=uncommon if is_extra else None,
        missing=None if is_extra else uncommon,
    )


def grow_spine(
    rng: np.random.Generator,
    *,
    size: float | None = None,
    steps_mm: Mapping[int, float] | None = None,
    degenerated: Mapping[int, float] | None = None,
    sway_degrees: float = 4.0,
    extra: int | None = None,
    missing: int | None = None,
) -> Spine:
    """Grow a spine of random proportions and curvature.

    Parameters
    ----------
    rng
        Of everything not given.
    size
        1 is the template's; drawn at random about it by default.
    steps_mm
        Disc value → distance to the next disc, where it is known; drawn at random elsewhere.
    degenerated, sway_degrees, extra, missing
        As in :func:`make_phantom`.
    """
    if size is None:
        size = float(np.exp(rng.normal(0, 0.08)))
    steps = np.array([EXPECTED_SPACING_MM[v] for v in range(1, 25)]) * size * np.exp(rng.normal(0, 0.04, 24))
    steps = np.concatenate([steps, np.array(SACRUM_STEPS_MM) * size])
    for value, known in (steps_mm or {}).items():
        steps[value - 1] = known
    above = 110.0  # of brain stem
    values = np.arange(1.0, len(steps) + 2)
    if extra is not None:
        steps, values = np.insert(steps, extra, steps[extra - 1]), np.insert(values, extra, extra + 0.5)
    if missing is not None:
        steps, values = np.delete(steps, missing - 1), np.delete(values, missing - 1)
    depth = above + np.concatenate([[0], np.cumsum(steps)])
    down = np.arange(0, depth[-1] + 40, 2.0)
    level = np.interp(down, depth, values)
    bend = rng.uniform(0.6, 1.3)
    lean = np.radians(np.interp(level, SLOPE_LEVELS, SLOPE_DEGREES) * bend + rng.uniform(-8, 8))
    lean = gaussian_filter(lean, 8, mode="nearest")
    sway = np.radians(rng.normal(0, sway_degrees)) * np.sin(
        2 * np.pi * (level / rng.uniform(10, 25) + rng.random())
    )
    step = np.stack([np.sin(sway), np.sin(lean) * np.cos(sway), -np.cos(lean) * np.cos(sway)], axis=1)
    points = 2.0 * np.cumsum(step, axis=0)
    line = Centerline.from_points(points)
    # Smoothing shortens the line by a trace.
    depth = depth * line.length_mm / down[-1]
    return Spine(values, depth, line.length_mm, StraightSpace(line), size, degenerated or {})


def frame_scan(rng: np.random.Generator, tips: FloatArray, voxel_mm: tuple[float, float, float]) -> Grid:
    """Lay a field of view around the discs, as a radiographer would."""
    low, high = tips.min(axis=0), tips.max(axis=0)
    low, high = low - np.array([22, 70, 14]), high + np.array([22, 90, 14])
    if rng.random() < 0.5:
        high[2] += rng.uniform(0, 50)
        low[2] -= rng.uniform(0, 40)
    shape = np.ceil((high - low) / voxel_mm).astype(int)
    affine = np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = low
    return Grid(tuple(int(n) for n in shape), affine)  # type: ignore[arg-type]


def _canal_radius(level: NDArray[np.floating], size: float) -> FloatArray:
    return size * np.interp(level, (1, 3, 8, 14, 20, 23, 25, 28), (10, 8, 8, 7, 8, 9, 8, 4))


@dataclass(frozen=True, eq=False)
class Rendering:
    """A body rendered on a grid: grey values 0…1, tissue labels, and each voxel's straight point."""

    grey: FloatArray
    tissue: NDArray[np.uint8]
    straight: NDArray[np.float32]


def render_spine(
    rng: np.random.Generator, body: Spine, grid: Grid, contrast: Contrast, *, spine: bool = True
) -> Rendering:
    """Render a body's tissues on a grid, later ones over earlier ones."""
    voxels = np.indices(grid.shape).reshape(3, -1).T
    points = body.space.straight_from_native(grid.world_from_voxel(voxels))
    straight: NDArray[np.float32] = points.reshape(*grid.shape, 3).astype(np.float32)
    x, y, z = np.moveaxis(np.nan_to_num(straight, nan=1e3), -1, 0)
    down = body.length_mm - z
    level = np.interp(down, body.depth_mm, body.values, left=0.0, right=float(body.values[-1]))
    grey = np.full(x.shape, contrast.muscle)
    tissue = np.zeros(x.shape, dtype=np.uint8)
    back = np.interp(level, (2, 8, 14, 20, 25), (45, 60, 50, 50, 60)) * rng.uniform(0.8, 1.1)
    front = np.interp(level, (2, 7, 10, 18, 25), (45, 60, 110, 120, 130)) * rng.uniform(0.9, 1.2)
    blobs = gaussian_filter(rng.standard_normal(x.shape), [2, 5, 7])
    grey[(y > 35) & (blobs > 0)] = contrast.organ
    grey[(y > 45) & (blobs > 1.2 * blobs.std())] = contrast.air
    grey[(y < -back + rng.uniform(8, 25)) | (y > front - rng.uniform(5, 20))] = contrast.fat
    grey[(y < -back) | (y > front)] = contrast.air
    if spine:
        _render_tissues(rng, body, (x, y, down, level), contrast, grey, tissue)
    return Rendering(grey + 0.03 * blobs / blobs.std(), tissue, straight)


def _render_tissues(
    rng: np.random.Generator,
    body: Spine,
    where: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    contrast: Contrast,
    grey: FloatArray,
    tissue: NDArray[np.uint8],
) -> None:
    x, y, down, level = where
    size = body.size
    # Discs lie at whole numbers of the ordinal, whatever their values are.
    ordinal = 1 + np.interp(down, body.depth_mm, np.arange(len(body.values)), left=-1.0)
    nearest = np.clip(np.round(ordinal), 2, len(body.values)).astype(int)
    offset = down - body.depth_mm[nearest - 1]
    value = body.values[nearest - 1]
    spacing = np.interp(level, body.values[:-1], np.diff(body.depth_mm))
    thickness = spacing * np.where(
        value >= 26, 0.06, np.interp(level, (3, 8, 13, 20, 25), (0.26, 0.26, 0.17, 0.24, 0.3))
    )
    canal = _canal_radius(level, size)
    tip = canal + 1.0
    body_depth = size * np.interp(level, (2, 3, 8, 14, 20, 24, 25.5, 28), (10, 15, 17, 26, 32, 35, 30, 14))
    half_width = size * np.interp(level, (2, 8, 14, 20, 25, 28), (9, 13, 15, 21, 25, 14))

    ring = np.abs((ordinal % 1) - 0.5)  # 0.5 at a disc, 0 in mid-vertebra
    waist = 1.5 * (1 - 4 * ring**2)
    column = (y > tip + waist) & (y < tip + body_depth - waist) & (np.abs(x) < half_width) & (level >= 2.0)
    rim = (
        (y > tip + waist - 1.2)
        & (y < tip + body_depth - waist + 1.2)
        & (np.abs(x) < half_width + 1.5)
        & (level >= 2)
    )
    height = np.array([body.degenerated.get(int(v), 1.0) for v in body.values])[nearest - 1]
    is_disc = (np.abs(offset) < height * thickness / 2) & (value >= 3)
    end_plate = (np.abs(offset) < height * thickness / 2 + 1.2) & (value >= 3) & (height > 0)
    dens = (level > 0.9) & (level < 2.1) & (np.hypot(x, y - tip - 6) < 5.5 * size)
    arch = (np.abs(level - 1.4) < 0.25) & (np.hypot(x / 2, y - tip - 15) < 3.5 * size)
    # Spinous processes slope down and backwards, long in the neck's end and in the thorax.
    reach = np.interp(level, (2, 3, 5, 8, 14, 20, 25, 26), (22, 24, 18, 32, 28, 32, 26, 5))
    slope = np.interp(level, (3, 8, 14, 20, 25), (0.3, 0.4, 1.1, 0.35, 0.2))
    shifted = np.interp(down + slope * (y + canal), body.depth_mm, np.arange(len(body.values)))
    process = (
        (np.abs((shifted % 1) - 0.55) < 0.27)
        & (y < -canal - 2)
        & (y > -canal - reach)
        & (np.abs(x) < 4)
        & (level > 2)
    )

    grey[(y < -canal) & (y > -canal - 5) & (np.abs(x) < 8) & (level > 2)] = contrast.fat
    grey[process] = contrast.bone
    grey[rim | arch] = contrast.cortex
    bright = contrast.bone + 0.04 * rng.standard_normal(40)[np.clip(np.floor(ordinal), 0, 39).astype(int)]
    grey[column] = bright[column]
    grey[dens] = contrast.bone
    grey[column & end_plate] = contrast.cortex
    wear = rng.uniform(0.3, 1.1, 40)[nearest]
    core = np.abs(y - tip - body_depth / 2) < 0.32 * body_depth
    disc_grey = contrast.disc * np.where(core, wear, 0.5 * wear)
    grey[column & is_disc] = disc_grey[column & is_disc]
    tissue[((column | dens) & ~is_disc) | arch | process] = VERTEBRA_TISSUE
    tissue[column & is_disc & (value <= 25)] = DISC_TISSUE

    radius = np.hypot(x, y)
    in_canal = (radius < canal) & (level > 0.8)
    grey[in_canal] = contrast.fluid
    tissue[in_canal] = CANAL_TISSUE
    cord = size * np.interp(level, (1, 7, 12, 18, 20.5, 21), (5.5, 5.2, 4.2, 4.8, 2.5, 0))
    grey[radius < cord] = contrast.cord
    tissue[in_canal & (radius < cord)] = CORD_TISSUE
    roots = (level > 20.5) & (radius < canal) & (np.sin(2.5 * y + x) > 0.6) & (y < 1)
    grey[roots] = 0.6 * contrast.fluid + 0.4 * contrast.cord
    # Brain stem, cerebellum behind it, the skull's base in front, above the first vertebra.
    high = body.depth_mm[0] - down
    head = (level < 0.9) | (high > 0)
    stem = head & (np.hypot(x / 1.2, y - 0.1 * high) < 6 + 0.08 * np.clip(high, 0, None))
    cerebellum = (np.hypot((y + 28) / 26, (high - 38) / 28) < 1) & head
    clivus = head & (y > 0.2 * high + 14) & (y < 0.2 * high + 24)
    grey[head & (y > -70) & (y < 60)] = contrast.muscle
    grey[head & (np.hypot((y + 8) / 52, (high - 60) / 62) < 1)] = contrast.fluid
    grey[cerebellum | stem] = contrast.brain
    grey[clivus] = contrast.bone
