"""The centreline of a cord or canal: a smooth curve by arc length, from points or from a mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.curves import CubicCurve, UniformSpline, cubic_weights, solve_band, through_points
from sct_deepspine.geometry.grid import FloatArray, Grid, as_points, point_text, transform_points

__all__ = [
    "SMOOTHING_MM",
    "Centerline",
    "distance_from_line_mm",
    "followed_line",
    "places_along_line",
    "smoothing_spline",
]

SMOOTHING_MM = 10.0
"""Default smoothing: waves shorter than about 60 mm (2π × this) are taken for noise."""

EXTENSION_MM = 60.0
"""A line is followed straight on beyond its ends by this much."""

SAMPLE_STEP_MM = 1.0
"""Arc length between the points of a centreline, at most."""

MIN_LENGTH_MM = 3.0
"""Shortest span of points that define a centreline."""

MIN_KNOT_STEP_MM = 2.0
"""Knots of the spline are not nearer together than about this, however small the smoothing."""

# A trace of resistance to bending, so that two points already define a (straight) line.
STIFFNESS_MM = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class Centerline:
    """A smooth curve in the world, from its inferior end (arc length 0) to its superior end.

    Outside ``[0, length_mm]`` the curve goes on as a straight line along the tangent of its end.

    Parameters
    ----------
    samples_world
        ``(N, 3)`` world points at equal steps of arc length, from inferior to superior.
    length_mm
        Arc length from the first sample to the last.

    Raises
    ------
    GeometryError
        If there are fewer than four samples, one is not finite, or the length is not positive.
    """

    samples_world: FloatArray
    length_mm: float
    _spline: CubicCurve = field(init=False, repr=False)

    def __post_init__(self) -> None:
        samples = as_points(self.samples_world).copy()
        if len(samples) < 4 or not np.isfinite(samples).all() or not 0 < self.length_mm < np.inf:
            raise GeometryError(
                f"a centreline needs four finite samples and a positive length, "
                f"got {len(samples)} samples and {self.length_mm} mm"
            )
        samples.setflags(write=False)
        object.__setattr__(self, "samples_world", samples)
        object.__setattr__(self, "length_mm", float(self.length_mm))
        object.__setattr__(self, "_spline", through_points(self.samples_arc_mm, samples))

    def __repr__(self) -> str:
        first, last = (point_text(self.samples_world[n]) for n in (0, -1))
        return f"Centerline({self.length_mm:.0f} mm, from {first} to {last})"

    @classmethod
    def from_points(cls, points_world: ArrayLike, *, smoothing_mm: float = SMOOTHING_MM) -> Centerline:
        """Fit a centreline to points along the spine.

        Parameters
        ----------
        points_world
            ``(K, 3)`` world points in any order; they are sorted along their main axis. Repeated
            points count once more, rows that are not finite are absent points.
        smoothing_mm
            Length scale of the smoothing: a wave of angular frequency ω (radians per mm) keeps the
            share ``1 / (1 + (smoothing_mm · ω)⁶)`` of its amplitude.

        Raises
        ------
        GeometryError
            If the points span less than 3 mm, or the smoothing is not positive.

        Examples
        --------
        >>> round(Centerline.from_points([[0, 0, 40], [0, 30, 0]]).length_mm, 6)
        50.0
        """
        points = as_points(points_world)
        return _fit(points, np.ones(len(points)), smoothing_mm)

    @classmethod
    def from_mask(
        cls, mask_array: ArrayLike, grid: Grid, *, smoothing_mm: float = SMOOTHING_MM
    ) -> Centerline:
        """Fit a centreline to the centre of mass of each slice of a cord mask.

        Slices are taken across the voxel axis nearest to the superior-inferior direction. A slice
        that holds less of the cord than the median slice counts for less, by the cube of its share:
        where an oblique slice cuts the end of the cord, its centre of mass lies off the axis.

        Parameters
        ----------
        mask_array
            Array of the grid's shape, 0/1 or soft; values that are not positive are background.
        grid
            Where the mask lies in the world.
        smoothing_mm
            As in :meth:`from_points`.

        Raises
        ------
        GeometryError
            If the mask is empty, does not have the grid's shape, or spans less than 3 mm.
        """
        centres, masses = _centres_of_mass(np.asarray(mask_array), grid)
        return _fit(centres, np.minimum(masses / np.median(masses), 1) ** 3, smoothing_mm)

    def transformed(self, affine: ArrayLike) -> Centerline:
        """Return the centreline carried along by a ``(4, 4)`` rigid map of the world."""
        return Centerline(transform_points(affine, self.samples_world), self.length_mm)

    @property
    def samples_arc_mm(self) -> FloatArray:
        """Arc length of each sample, ``(N,)``, mm."""
        return np.linspace(0, self.length_mm, len(self.samples_world))

    def points_world(self, arc_mm: ArrayLike) -> FloatArray:
        """Return the world points at ``(K,)`` arc lengths, ``(K, 3)``; NaN where one is not finite."""
        arc = _as_arc(arc_mm)
        start, end = self._spline([0, self.length_mm], 1)
        below = np.minimum(arc, 0)[:, None] * start
        above = np.maximum(arc - self.length_mm, 0)[:, None] * end
        return self._spline(np.clip(arc, 0, self.length_mm)) + below + above

    def tangents(self, arc_mm: ArrayLike) -> FloatArray:
        """Return the unit tangents, pointing superior, at ``(K,)`` arc lengths, ``(K, 3)``."""
        tangents = self._spline(np.clip(_as_arc(arc_mm), 0, self.length_mm), 1)
        return tangents / np.sqrt(np.einsum("ki,ki->k", tangents, tangents))[:, None]

    def curvatures(self, arc_mm: ArrayLike) -> FloatArray:
        """Return the curvature vectors at ``(K,)`` arc lengths, ``(K, 3)``, 1/mm.

        They point to the centre of curvature, and are zero on the straight lines beyond the ends.
        """
        arc = _as_arc(arc_mm)
        inside = np.clip(arc, 0, self.length_mm)
        return self._spline(inside, 2) * (arc == inside)[:, None]

    def slices(self, arc_mm: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return :meth:`points_world`, :meth:`tangents` and :meth:`curvatures` in one go."""
        arc = _as_arc(arc_mm)
        inside = np.clip(arc, 0, self.length_mm)
        points, slopes, bends = self._spline.with_derivatives(inside)
        tangents = slopes / np.sqrt(np.einsum("ki,ki->k", slopes, slopes))[:, None]
        return points + (arc - inside)[:, None] * slopes, tangents, bends * (arc == inside)[:, None]


def _as_arc(arc_mm: ArrayLike) -> FloatArray:
    arc = np.atleast_1d(np.asarray(arc_mm, dtype=np.float64))
    if arc.ndim != 1:
        raise GeometryError(f"expected arc lengths of shape (K,), got {arc.shape}")
    return np.where(np.isfinite(arc), arc, np.nan)


def _centres_of_mass(mask: NDArray, grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Return the world centre of mass ``(S, 3)`` and the mass ``(S,)`` of each slice that has one."""
    if mask.shape != grid.shape:
        raise GeometryError(f"expected a mask of the grid's shape {grid.shape}, got {mask.shape}")
    voxels = np.nonzero(mask > 0)
    values: FloatArray = mask[voxels].astype(np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise GeometryError("the cord mask is empty or not finite; give a mask with the cord in it")
    axis = int(np.argmax(np.abs(grid.affine[2, :3]) / grid.spacing_mm))
    count = mask.shape[axis]
    moments = [values, *(values * index for index in voxels)]
    sums = np.array([np.bincount(voxels[axis], weights=m, minlength=count) for m in moments], np.float64)
    masses, *firsts = sums[:, sums[0] > 0]
    return grid.world_from_voxel(np.stack(firsts, axis=1) / masses[:, None]), masses


def _fit(points: FloatArray, weights: FloatArray, smoothing_mm: float) -> Centerline:
    """Fit the curve twice: along the points' main axis, then by the arc length so found."""
    if not 0 < smoothing_mm < np.inf:
        raise GeometryError(f"expected a positive smoothing in mm, got {smoothing_mm}")
    present = np.isfinite(points).all(axis=1)
    points, weights = points[present], weights[present]
    position = _position_along_main_axis(points)
    order = np.argsort(position, kind="stable")
    points, weights, position = points[order], weights[order], position[order]
    span = position[-1] - position[0] if len(points) else 0.0
    if span < MIN_LENGTH_MM:
        raise GeometryError(
            f"a centreline needs points that span at least {MIN_LENGTH_MM:g} mm, "
            f"got {len(points)} within {span:.3g} mm"
        )
    spline = smoothing_spline(position, points, weights, smoothing_mm)
    nodes, arc, speed = _arc_length(spline, position[0], position[-1])
    position = CubicCurve(nodes, arc, speed)(position)
    spline = smoothing_spline(position, points, weights, smoothing_mm)
    nodes, arc, speed = _arc_length(spline, position[0], position[-1])
    count = max(4, int(np.ceil(arc[-1] / SAMPLE_STEP_MM)) + 1)
    places = CubicCurve(arc, nodes, 1 / speed)(np.linspace(0, arc[-1], count))
    return Centerline(spline(np.clip(places, nodes[0], nodes[-1])), arc[-1])


def _position_along_main_axis(points: FloatArray) -> FloatArray:
    """Project points on their direction of largest spread, turned to point superior, ``(K,)`` mm."""
    if not len(points):
        return np.empty(0)
    centred = points - points.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    return centred @ (axis if axis[2] >= 0 else -axis)


def smoothing_spline(
    position: FloatArray, points: FloatArray, weights: FloatArray, smoothing_mm: float
) -> UniformSpline:
    """Fit a cubic spline with a penalty on its third derivative.

    Minimises ``∫ |curve - points|² + smoothing_mm⁶ ∫ |curve'''|²``, the first integral as a sum over
    the points. Penalising the usual second derivative would flatten the last centimetres, where
    nothing but the penalty sets the curvature: by 0.7 mm at a radius of 150 mm.
    B-spline basis and difference penalty as in Eilers & Marx, "Flexible smoothing with B-splines and
    penalties", Stat. Sci. 11 (1996).

    Parameters
    ----------
    position
        ``(K,)`` sorted, mm.
    points, weights
        ``(K, D)`` mm and ``(K,)``.
    smoothing_mm
        As in :meth:`Centerline.from_points`.
    """
    span = position[-1] - position[0]
    intervals = int(np.ceil(span / max(smoothing_mm / 2.5, MIN_KNOT_STEP_MM)))
    step = span / intervals
    first, four = cubic_weights(np.clip((position - position[0]) / step, 0, intervals), intervals)
    # Each point stands for the stretch up to its neighbours, but not for a wide gap.
    gaps = np.minimum(np.diff(position), smoothing_mm)
    weighted = (weights * (np.append(gaps, 0) + np.append(0, gaps)) / 2)[:, None] * four
    count, column = intervals + 3, first[:, None] + np.arange(4)
    pairs = column[:, :, None] * count + column[:, None]
    products = weighted[:, :, None] * four[:, None]
    normal = np.bincount(pairs.ravel(), products.ravel(), count**2).astype(np.float64).reshape(count, count)
    normal += smoothing_mm**6 / step**5 * _squared_differences(count, 3)
    normal += STIFFNESS_MM**4 / step**3 * _squared_differences(count, 2)
    origin = points.mean(axis=0)
    right = [
        np.bincount(column.ravel(), (weighted * offset[:, None]).ravel(), count)
        for offset in (points - origin).T
    ]
    coefficients = solve_band(normal, np.transpose(right), 3) + origin  # cubic pieces, third differences
    return UniformSpline(float(position[0]), float(step), coefficients)


def _squared_differences(count: int, order: int) -> FloatArray:
    """Return the matrix of the sum of squared differences of neighbouring numbers, of some order."""
    difference = np.diff(np.eye(count), n=order, axis=0)
    beyond = np.pad(difference, ((order, order), (0, 0)))
    return np.diff(beyond, n=order, axis=0) * (-1) ** order


def _arc_length(spline: UniformSpline, start: float, end: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return parameters from start to end, about 0.5 mm apart, the arc length up to each, and its slope."""
    nodes = np.linspace(start, end, max(8, int(np.ceil(2 * (end - start))) + 1))
    velocity, acceleration = spline(nodes, 1), spline(nodes, 2)
    speed = np.linalg.norm(velocity, axis=1)
    change = np.einsum("ki,ki->k", velocity, acceleration) / speed
    step = nodes[1] - nodes[0]
    # The integral of the cubic with these speeds and changes of speed: exact to the fourth order of the step.
    pieces = step / 2 * (speed[:-1] + speed[1:]) + step**2 / 12 * (change[:-1] - change[1:])
    return nodes, np.concatenate([[0.0], np.cumsum(pieces)]), speed


def distance_from_line_mm(points_world: FloatArray, line: Centerline) -> FloatArray:
    """Return the distance of points from a line that is followed straight on beyond its ends."""
    return places_along_line(points_world, line, step_mm=2.0)[1]


def places_along_line(
    points_world: FloatArray, line: Centerline, *, step_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Return the arc length, in steps, of what of a line is nearest to points, and how far it is, mm."""
    arc, places = followed_line(line, step_mm=step_mm)
    distance = np.linalg.norm(points_world[:, None] - places, axis=2)
    return arc[distance.argmin(axis=1)], distance.min(axis=1)


def followed_line(line: Centerline, *, step_mm: float) -> tuple[FloatArray, FloatArray]:
    """Return arc lengths in steps, ``(N,)`` mm, and the world points there, ``(N, 3)``.

    The line is followed straight on beyond its ends.
    """
    arc = np.arange(-EXTENSION_MM, line.length_mm + EXTENSION_MM, step_mm)
    return arc, line.points_world(arc)
