"""The straightened space around a centreline, as a pair of exact point maps.

The *straight* frame is in millimetres: x right, y anterior, z superior. The centreline is its z axis
(``x = y = 0``), and z is arc length, 0 at the centreline's inferior end. A plane of constant z is the
plane normal to the centreline, undistorted. Nothing is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.curves import CubicCurve, through_points
from sct_deepspine.geometry.grid import FloatArray, as_points, transform_points

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

__all__ = ["ComposedSpace", "ShearedSpace", "StraightSpace", "StraighteningTransform"]

MIN_STRETCH = 0.1
"""Least native length per straight length along z; towards the centre of curvature it falls to 0."""

ANTERIOR_WORLD = np.array([0.0, 1.0, 0.0])
"""The anterior direction in the world (RAS+)."""

RIGHT_WORLD = np.array([1.0, 0.0, 0.0])
"""The right in the world (RAS+)."""

# Nearer than this to the anterior axis, the anterior direction across the cord is carried along.
MIN_ANTERIOR_ANGLE_DEG = 10.0
MAX_STEP_MM = 1.0
"""Longest Newton step along the centreline, mm of arc length."""

MAX_STEPS = 30
"""Newton steps after which a point counts as outside the space."""

TOLERANCE_MM = 1e-9
"""Distance of a point from its slice at which the Newton steps end."""


class StraighteningTransform(Protocol):
    """The two maps of a straight space, whatever made it."""

    @property
    def z_mm(self) -> tuple[float, float]:
        """Lowest and highest straight z of the spine."""
        ...

    def native_from_straight(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` straight points to the world."""
        ...

    def straight_from_native(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` world points to the straight space."""
        ...


@dataclass(frozen=True, eq=False)
class StraightSpace:
    """Maps between native (world) and straight points around a centreline.

    At each arc length, superior is the tangent, anterior is the world's anterior direction made
    orthogonal to the tangent, and right completes a right-handed frame. The frame depends on the
    local tangent alone, so no twist builds up along the spine. Only where the centreline runs within
    10° of the anterior axis, which leaves that direction open, is it carried along from either side.

    Parameters
    ----------
    centerline
        The curve to straighten.
    """

    centerline: Centerline
    _anterior: CubicCurve = field(init=False, repr=False)

    def __post_init__(self) -> None:
        arc = self.centerline.samples_arc_mm
        anterior = _anterior_directions(arc, self.centerline.tangents(arc))
        object.__setattr__(self, "_anterior", through_points(arc, anterior))

    @cached_property
    def _tree(self) -> cKDTree:
        from scipy.spatial import cKDTree

        return cKDTree(self.centerline.samples_world)

    @property
    def z_mm(self) -> tuple[float, float]:
        """Straight z of the centreline's two ends."""
        return 0.0, self.centerline.length_mm

    def native_from_straight(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` straight points (mm) to the world.

        NaN where a point is not finite or lies near or beyond the centre of curvature of its slice,
        where the space folds over itself.

        Raises
        ------
        GeometryError
            If the input is not a list of triples.
        """
        straight = as_points(points)
        finite = np.isfinite(straight).all(axis=1, keepdims=True)
        x, y, arc = np.where(finite, straight, np.nan).T
        # Points of one slice come one after the other in planes and lattices: its frame is computed once.
        starts = np.flatnonzero(np.diff(arc, prepend=np.nan) != 0)
        slices, counts = arc[starts], np.diff(starts, append=len(arc))
        right, anterior, _ = self._frames(slices)
        right, anterior, curvatures, middle = (
            np.repeat(of_slices, counts, axis=0)
            for of_slices in (
                right,
                anterior,
                self.centerline.curvatures(slices),
                self.centerline.points_world(slices),
            )
        )
        offsets = x[:, None] * right + y[:, None] * anterior
        stretch = 1 - _dot(offsets, curvatures)
        native = middle + offsets
        with np.errstate(invalid="ignore"):
            native[~(stretch > MIN_STRETCH)] = np.nan
        return native

    def straight_from_native(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` world points to the straight frame (mm).

        Of all slices that hold a point, the one where it is nearest to the centreline counts. NaN
        where a point is not finite or has no slice on the near side of its centre of curvature.

        Raises
        ------
        GeometryError
            If the input is not a list of triples.
        """
        native = as_points(points)
        straight = np.full(native.shape, np.nan)
        finite = np.flatnonzero(np.isfinite(native).all(axis=1))
        arc, solved = self._solve_arc(native[finite])
        finite, arc = finite[solved], arc[solved]
        offsets = native[finite] - self.centerline.points_world(arc)
        right, anterior, _ = self._frames(arc)
        straight[finite] = np.stack([_dot(offsets, right), _dot(offsets, anterior), arc], axis=1)
        return straight

    def _frames(self, arc: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return unit right, anterior and superior directions, each ``(K, 3)`` world."""
        superior = self.centerline.tangents(arc)
        anterior = self._anterior(np.clip(arc, 0, self.centerline.length_mm))
        # Between samples the interpolated direction is off by a trace, which would tilt the slice.
        anterior -= _dot(anterior, superior)[:, None] * superior
        anterior /= np.sqrt(_dot(anterior, anterior))[:, None]
        return _cross(anterior, superior), anterior, superior

    def _solve_arc(self, native: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Find by Newton's method the arc length ``(K,)`` of the slice that holds each finite point.

        The second array tells where it was found, and the space is not folded there.
        """
        arc = self._nearest_arc(native)
        solved = np.zeros(len(native), dtype=bool)
        active = np.arange(len(native))
        for _ in range(MAX_STEPS):
            points, tangents, curvatures = self.centerline.slices(arc[active])
            offsets = native[active] - points
            ahead, stretch = _dot(offsets, tangents), 1 - _dot(offsets, curvatures)
            done = np.abs(ahead) < TOLERANCE_MM
            solved[active[done]] = stretch[done] > MIN_STRETCH
            active, ahead, stretch = active[~done], ahead[~done], stretch[~done]
            if not len(active):
                break
            arc[active] += np.clip(ahead / np.maximum(stretch, MIN_STRETCH), -MAX_STEP_MM, MAX_STEP_MM)
        return arc, solved

    def _nearest_arc(self, native: FloatArray) -> FloatArray:
        """Return the arc length nearest to each point, to about a sample's step, ``(K,)``."""
        samples_arc = self.centerline.samples_arc_mm
        distance, index = self._tree.query(native)
        arc = samples_arc[index]
        # The straight lines beyond the ends compete with the samples.
        ends = samples_arc[[0, -1]]
        for end, origin, tangent, side in zip(
            ends, self.centerline.points_world(ends), self.centerline.tangents(ends), (-1, 1), strict=True
        ):
            along = np.maximum(side * (native - origin) @ tangent, 0)
            line_distance = np.linalg.norm(native - origin - side * along[:, None] * tangent, axis=1)
            nearer = (along > 0) & (line_distance < distance)
            arc = np.where(nearer, end + side * along, arc)
            distance = np.where(nearer, line_distance, distance)
        return arc


@dataclass(frozen=True, eq=False)
class ShearedSpace:
    """A space that follows a centreline without straightening it: axial slices shifted over each other.

    Its x and y are those of the world, counted from the centreline at the same height; its z is the world's.

    Parameters
    ----------
    centerline
        The curve to follow.
    """

    centerline: Centerline

    @property
    def z_mm(self) -> tuple[float, float]:
        """World z of the centreline's lowest and highest points."""
        z = self.centerline.samples_world[:, 2]
        return float(z.min()), float(z.max())

    def native_from_straight(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` sheared points (mm) to the world."""
        sheared = as_points(points)
        return sheared + self._shear(sheared[:, 2])

    def straight_from_native(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` world points to the sheared space (mm)."""
        native = as_points(points)
        return native - self._shear(native[:, 2])

    def _shear(self, z: FloatArray) -> FloatArray:
        line = self.centerline.samples_world
        line = line[np.argsort(line[:, 2])]
        x, y = (np.interp(z, line[:, 2], line[:, axis]) for axis in (0, 1))
        return np.stack([x, y, np.zeros_like(x)], axis=1)


@dataclass(frozen=True, eq=False)
class ComposedSpace:
    """A straight space that was built in another frame than the world.

    Parameters
    ----------
    space
        A straight space of that frame.
    world_from_frame
        ``(4, 4)`` rigid map from that frame to the world.
    """

    space: StraighteningTransform
    world_from_frame: FloatArray

    @property
    def z_mm(self) -> tuple[float, float]:
        """Lowest and highest straight z of the spine."""
        return self.space.z_mm

    def native_from_straight(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` straight points to the world."""
        return transform_points(self.world_from_frame, self.space.native_from_straight(points))

    def straight_from_native(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` world points to the straight space."""
        return self.space.straight_from_native(
            transform_points(np.linalg.inv(self.world_from_frame), as_points(points))
        )


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.einsum("ki,ki->k", a, b)


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    # Four times as fast as numpy.cross, which matters for a plane of pixels.
    ax, ay, az = a.T
    bx, by, bz = b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def _anterior_directions(arc: FloatArray, tangents: FloatArray) -> FloatArray:
    """Return the unit anterior direction across each tangent, ``(N, 3)`` world.

    Parameters
    ----------
    arc
        ``(N,)`` arc lengths, mm, increasing.
    tangents
        ``(N, 3)`` unit tangents, at steps small enough for neighbours to be nearly parallel.
    """
    across = ANTERIOR_WORLD - tangents[:, 1:2] * tangents
    size = np.linalg.norm(across, axis=1)
    clear = size > np.sin(np.radians(MIN_ANTERIOR_ANGLE_DEG))
    if clear.all():
        return across / size[:, None]
    first = _carry_along(tangents)
    second = np.cross(tangents, first)
    if not clear.any():
        return first
    angle = np.unwrap(np.arctan2(_dot(across, second)[clear], _dot(across, first)[clear]))
    if clear.sum() == 1:
        filled = np.full(len(arc), angle[0])
    else:
        from scipy.interpolate import PchipInterpolator

        # Monotone and smooth: the twist over a stretch left open is spread along it.
        filled = PchipInterpolator(arc[clear], angle)(np.clip(arc, arc[clear][0], arc[clear][-1]))
    return np.cos(filled)[:, None] * first + np.sin(filled)[:, None] * second


def _carry_along(tangents: FloatArray) -> FloatArray:
    """Return directions normal to the tangents that turn as little as they can, ``(N, 3)``.

    They start at the direction orthogonal to the first tangent and to the world's right.
    """
    carried = np.empty_like(tangents)
    direction = np.cross(tangents[0], RIGHT_WORLD)
    for row, tangent in enumerate(tangents):
        direction = direction - (direction @ tangent) * tangent
        direction = direction / np.linalg.norm(direction)
        carried[row] = direction
    return carried
