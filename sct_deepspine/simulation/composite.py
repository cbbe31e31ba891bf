"""Composite spines, made of the scans of several subjects; tissues for scans that have no labels of them.

The cervical spine of one subject, the thoracic spine of the template or of a rendered spine, and the
lumbar spine of another subject are straightened, set into one procedural body
(:mod:`sct_deepspine.simulation.phantom`) and bent with it like a living spine. Their truth is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from sct_deepspine.anatomy import DISC_VALUES, EXPECTED_SPACING_MM, SACRUM_STEPS_MM
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, as_points
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import VERTEBRA_TISSUE, LabelledScan, canal_points
from sct_deepspine.simulation.phantom import (
    T2W,
    Spine,
    canal_line,
    frame_scan,
    grow_spine,
    random_contrast,
    render_spine,
    unit_range,
)

__all__ = ["COMPOSITE_REGION", "can_compose", "compose_scans", "fit_tissues", "make_composite"]

COMPOSITE_REGION = "composite"

SEAM_LEVELS = 0.15
"""Two pieces blend into each other over this share of a vertebra on either side of its middle."""

EDGE_VOXELS = 2.0
"""A piece blends into the rendered body over about this many voxels at its border."""

CERVICAL_ENDS = (8, 11)
"""Range of the last disc that is taken from a cervical scan, SCT's values."""

LUMBAR_STARTS = (18, 20)
"""Range of the first disc that is taken from a lumbar scan, SCT's values."""

CORE_MM = 15.0
"""Half the width, left to right, of the region about the canal by which grey values are matched; it reaches
three times as far forwards and backwards."""

CORE_GREY = 0.38, 0.24
"""Mean and spread to which each piece is brought about its canal, so that a seam is no step."""

COMPOSITE_VOXEL_MM = (3.0, 1.5, 1.5)
"""Voxel size of a composite: right, anterior, superior."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """What one scan gives to a composite spine: the discs ``values``, consecutive, and what lies about them.

    ``places`` are the values of these discs in the composite body, ``scale`` its millimetres per millimetre
    of the scan.
    """

    volume: Volume
    space: StraightSpace
    values: NDArray[np.int64]
    places: FloatArray
    tips_straight: FloatArray
    scale: float

    @classmethod
    def cut(cls, scan: LabelledScan, first: int, last: int, size: float) -> _Piece:
        scan = scan.deobliqued()
        values = np.array([v for v in sorted(scan.levels) if first <= v <= last])
        space = StraightSpace(Centerline.from_points(canal_points(scan)))
        tips = space.straight_from_native(np.array([scan.levels[v] for v in values]))
        expected = sum(EXPECTED_SPACING_MM[int(v)] for v in values[:-1])
        scale = size * expected / float(tips[0, 2] - tips[-1, 2])
        volume = Volume(unit_range(scan.volume.data), scan.volume.grid)
        return cls(volume, space, values, values.astype(np.float64), tips, scale)

    def parted(self, extra: int | None, missing: int | None) -> list[_Piece]:
        """Return the piece, or both parts of it about a vertebra that is extra or missing in the body.

        An extra vertebra is made of the lower half of the one above and the upper half of the one below it;
        the disc below it has a value in between. Of a part with one disc nothing can be taken.
        """
        place = extra if extra is not None else missing
        if place is None or not self.values[0] <= place <= self.values[-1]:
            return [self]
        upper = self.values <= place - (missing is not None)
        lower = self.values >= place + (missing is not None)
        below = self.places + 0.5 * ((self.values == place) & (extra is not None))
        return [
            replace(
                self, values=self.values[kept], places=places[kept], tips_straight=self.tips_straight[kept]
            )
            for kept, places in ((upper, self.places), (lower, below))
            if kept.sum() > 1
        ]

    @property
    def steps_mm(self) -> FloatArray:
        """Distances from each disc to the next, in the composite body."""
        return -np.diff(self.tips_straight[:, 2]) * self.scale

    def read(self, straight: FloatArray, down: FloatArray, body: Spine) -> tuple[FloatArray, FloatArray]:
        """Return the grey values at the composite body's straight points, and how much they count, 0…1."""
        # Between discs the two bodies' lengths are matched piece by piece, beyond them by the scale.
        ordinal = np.searchsorted(body.values, self.places)
        depth = body.depth_mm[ordinal]
        reach = 1e3
        knots = np.concatenate([[depth[0] - reach], depth, [depth[-1] + reach]])
        heights = self.tips_straight[:, 2]
        ends = heights[0] + reach / self.scale, heights[-1] - reach / self.scale
        z = np.interp(down, knots, np.concatenate([[ends[0]], heights, [ends[1]]]))
        points = np.stack([straight[:, 0] / self.scale, straight[:, 1] / self.scale, z], axis=1)
        voxels = self.volume.grid.voxel_from_world(self.space.native_from_straight(points))
        inside = self.volume.grid.contains_voxel(voxels)
        grey: FloatArray = np.zeros(len(points))
        grey[inside] = map_coordinates(self.volume.data, voxels[inside].T, order=1, mode="nearest")
        level = np.interp(down, body.depth_mm, np.arange(len(body.values)))
        above = 1.0 if self.values[0] <= 3 else _ramp(level - (ordinal[0] - 0.5))
        below = 1.0 if self.values[-1] >= 25 else _ramp(ordinal[-1] + 0.5 - level)
        middle = inside & (np.abs(straight[:, 0]) < CORE_MM) & (np.abs(straight[:, 1]) < 3 * CORE_MM)
        if middle.any():
            grey = np.clip(CORE_GREY[0] + CORE_GREY[1] * _standard(grey, grey[middle]), 0, 1.2)
        return grey, np.asarray(inside * above * below, dtype=np.float64)


def _standard(grey: FloatArray, of: FloatArray) -> FloatArray:
    return (grey - of.mean()) / max(float(of.std()), 1e-3)


def _ramp(levels: FloatArray) -> FloatArray:
    return np.clip(0.5 + levels / (2 * SEAM_LEVELS), 0, 1)


def compose_scans(
    rng: np.random.Generator,
    cervical: LabelledScan,
    lumbar: LabelledScan,
    thoracic: LabelledScan | None = None,
    *,
    name: str = "composite",
    voxel_mm: tuple[float, float, float] = COMPOSITE_VOXEL_MM,
    extra: int | None = None,
    missing: int | None = None,
) -> LabelledScan:
    """Make a whole spine of the spines of two or three subjects.

    The pieces are straightened, brought to one body size, matched disc by disc, set into a procedural
    body and bent with it. They meet in the middle of a vertebra. Where no piece reaches, the
    procedural body is seen.

    Parameters
    ----------
    rng
        Of the body's shape, its seams and its colours.
    cervical
        A scan with the discs from C2/C3 (3) to T1/T2 or beyond.
    lumbar
        A scan with discs to L5/S1 (25).
    thoracic
        A scan with the discs in between; without it the thoracic is rendered.
    name
        Name of the scan.
    voxel_mm
        Size of its voxels.
    extra, missing
        Disc value below which there is a vertebra too many, or which is gone with its vertebra. Discs are
        then labelled as they are counted from C2, and S1/S2 is a landmark with the value 27, or 25.

    Returns
    -------
    LabelledScan
        C2/C3 to L5/S1, every disc labelled, and the landmarks that are in the pieces.
    """
    size = float(np.exp(rng.normal(0, 0.08)))
    last = min(int(rng.integers(CERVICAL_ENDS[0], CERVICAL_ENDS[1] + 1)), max(cervical.discs))
    first = max(int(rng.integers(LUMBAR_STARTS[0], LUMBAR_STARTS[1] + 1)), min(lumbar.discs))
    pieces = [_Piece.cut(cervical, 1, last, size), _Piece.cut(lumbar, first, 26, size)]
    if thoracic is not None:
        pieces.insert(1, _Piece.cut(thoracic, last, first, size))
    body = grow_spine(
        rng,
        size=size,
        steps_mm={
            int(value): float(step)
            for piece in pieces
            for value, step in zip(piece.values, piece.steps_mm, strict=False)
        },
        extra=extra,
        missing=missing,
    )
    pieces = [part for piece in pieces for part in piece.parted(extra, missing)]
    shown = body.values[(body.values >= pieces[0].places[0]) & (body.values <= pieces[-1].places[-1])]
    points = {float(v): body.tip_straight(np.array([v]))[0] for v in shown}
    for piece in pieces:
        for place, tip in zip(piece.places, piece.tips_straight, strict=True):
            points[float(place)][:2] = tip[:2] * piece.scale
    counted = np.searchsorted(body.values, shown) + 1
    tips = dict(zip(counted.tolist(), points.values(), strict=True))
    discs = range(DISC_VALUES[0], DISC_VALUES.stop + (extra is not None) - (missing is not None))
    tips_world = body.space.native_from_straight(np.array(list(tips.values())))
    grid = frame_scan(rng, tips_world, voxel_mm)
    rendered = render_spine(rng, body, grid, T2W if rng.random() < 0.75 else random_contrast(rng))
    grey, weight = rendered.grey.astype(np.float64), np.zeros(grid.shape)
    down = (body.length_mm - rendered.straight[..., 2]).astype(np.float64)
    near = np.isfinite(rendered.straight).all(axis=-1)
    for piece in pieces:
        values, counts = np.zeros(grid.shape), np.zeros(grid.shape)
        values[near], counts[near] = piece.read(rendered.straight[near].astype(np.float64), down[near], body)
        # Fade at the borders, inwards only: what was not read has no grey value to fade with.
        counts *= np.clip(2 * gaussian_filter((counts > 0).astype(np.float64), EDGE_VOXELS) - 1, 0, 1)
        share = np.divide(counts, weight + counts, out=np.zeros_like(counts), where=counts > 0)
        blend = np.where(weight > 0, share, counts)
        grey += blend * (values - grey)
        weight = np.maximum(weight, counts)
    inside = grid.contains_voxel(grid.voxel_from_world(tips_world))
    seen = {v: tip for v, tip, is_seen in zip(tips, tips_world, inside, strict=True) if is_seen}
    return LabelledScan(
        name=name,
        subject=name,
        region=COMPOSITE_REGION,
        contrast="composite",
        volume=Volume(np.round(1000 * np.clip(grey, 0, 2)).astype(np.int16), grid),
        discs={v: tip for v, tip in seen.items() if v in discs},
        landmarks={v: tip for v, tip in seen.items() if v not in discs},
        span_z_mm=(-np.inf, np.inf),
        centerline_world=canal_line(body, grid),
        tissue=Volume(rendered.tissue, grid),
    )


def can_compose(scans: Sequence[LabelledScan]) -> bool:
    """Return whether a set has a cervical (C2/C3 to T1/T2) and a lumbar spine (T12/L1 to L5/S1)."""
    return any(map(_is_cervical, scans)) and any(map(_is_lumbar, scans))


def _is_cervical(scan: LabelledScan) -> bool:
    return {3, 9} <= scan.discs.keys() and 21 not in scan.discs


def _is_lumbar(scan: LabelledScan) -> bool:
    return {20, 25} <= scan.discs.keys()


def _is_thoracic(scan: LabelledScan) -> bool:
    return {CERVICAL_ENDS[0], LUMBAR_STARTS[1]} <= scan.discs.keys()


def make_composite(
    rng: np.random.Generator,
    scans: Sequence[LabelledScan],
    *,
    rendered_share: float = 0.35,
    voxel_mm: tuple[float, float, float] = COMPOSITE_VOXEL_MM,
    extra: int | None = None,
    missing: int | None = None,
) -> LabelledScan:
    """Compose scans of a training set for which :func:`can_compose` holds; some with a rendered thoracic.

    See :func:`compose_scans`.
    """
    kinds = (_is_cervical, _is_lumbar, _is_thoracic)
    cervicals, lumbars, thoracics = (list(filter(fits, scans)) for fits in kinds)
    cervical, lumbar = cervicals[rng.integers(len(cervicals))], lumbars[rng.integers(len(lumbars))]
    draw = not thoracics or rng.random() < rendered_share
    thoracic = None if draw else thoracics[rng.integers(len(thoracics))]
    return compose_scans(rng, cervical, lumbar, thoracic, voxel_mm=voxel_mm, extra=extra, missing=missing)


@dataclass(frozen=True, eq=False)
class _ShiftedSpace:
    """A scan's straight space, shifted across so that tips are where a rendered body has them."""

    space: StraightSpace
    heights: FloatArray
    shift: FloatArray

    @property
    def z_mm(self) -> tuple[float, float]:
        return self.space.z_mm

    def native_from_straight(self, points: ArrayLike) -> FloatArray:
        straight = as_points(points)
        return self.space.native_from_straight(straight + self._shift_at(straight[:, 2]))

    def straight_from_native(self, points: ArrayLike) -> FloatArray:
        straight = self.space.straight_from_native(points)
        return straight - self._shift_at(straight[:, 2])

    def _shift_at(self, z: FloatArray) -> FloatArray:
        across = [np.interp(z, self.heights, self.shift[:, axis]) for axis in (0, 1)]
        return np.stack([*across, np.zeros_like(z)], axis=1)


def fit_tissues(scan: LabelledScan) -> LabelledScan:
    """Give a scan without tissue labels those of a procedural body laid over its discs.

    Vertebrae, discs and canal lie where they are in the scan, to a millimetre or two, which is
    enough to give them grey values of their own. A scan with fewer than two discs gets none; one with a mask
    of its vertebral bodies gets these alone.
    """
    if scan.bodies is not None:
        bones = np.where(scan.bodies.data > 0, VERTEBRA_TISSUE, 0).astype(np.uint8)
        return replace(scan, tissue=Volume(bones, scan.bodies.grid))
    values = np.array([v for v in sorted(scan.discs) if v in DISC_VALUES])
    if len(values) < 2:
        return scan
    space = StraightSpace(Centerline.from_points(canal_points(scan)))
    tips = space.straight_from_native(np.array([scan.discs[int(v)] for v in values]))
    template = np.array([EXPECTED_SPACING_MM[v] for v in range(1, 25)])
    first, last = int(values[0]), int(values[-1])
    size = float((tips[0, 2] - tips[-1, 2]) / template[first - 1 : last - 1].sum())
    above = np.cumsum(size * template[: first - 1][::-1])[::-1]
    below = np.cumsum(size * np.array([*template[last - 1 :], *SACRUM_STEPS_MM]))
    within = np.interp(np.arange(first, last + 1), values, tips[:, 2])
    heights = np.concatenate([tips[0, 2] + above, within, tips[-1, 2] - below])
    length = space.centerline.length_mm
    body = Spine(np.arange(1.0, len(heights) + 1), length - heights, length, space, size)
    shift = tips - body.tip_straight(values)
    upwards = np.argsort(tips[:, 2])
    fitted = _ShiftedSpace(space, tips[upwards, 2], shift[upwards])
    rendered = render_spine(np.random.default_rng(0), replace(body, space=fitted), scan.volume.grid, T2W)
    return replace(scan, tissue=Volume(rendered.tissue, scan.volume.grid))
