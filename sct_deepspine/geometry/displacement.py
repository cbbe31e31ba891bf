"""Displacement fields of the Spinal Cord Toolbox (ITK's format) as point maps.

A field lies on the grid of its *destination* and tells for each voxel where its grey value comes
from: it pulls images back. Points therefore go through it from destination to source. With ``d`` the
vector stored at a destination point, in millimetres along LPS axes, in the world (RAS+)
``source = destination + d * (-1, -1, +1)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import interp1d

from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.centerline import SMOOTHING_MM, Centerline, smoothing_spline
from sct_deepspine.geometry.grid import FloatArray, Grid, as_points
from sct_deepspine.geometry.straightening import StraightSpace

__all__ = ["AxisLength", "DisplacementField", "WarpedStraightSpace"]

RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])
"""ITK's directions (left, posterior, superior) to those of the world (right, anterior, superior)."""

# SCT writes ±100000 mm where it has no mapping; no displacement within a body comes near this.
SENTINEL_MM = 1e4
# Header rounding may put a voxel's own centre this far off an integer index.
SNAP_VOXEL = 1e-6
AXIS_STEP_MM = 0.5
"""Distance along the straightened axis at which the fields are read."""

MIN_AXIS_POINTS = 20
"""Mapped points of the axis, at :data:`AXIS_STEP_MM`, below which the fields are refused: 10 mm."""


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """A displacement field as a map of points.

    Parameters
    ----------
    grid
        The destination grid.
    vectors_lps
        ``(X, Y, Z, 3)`` displacements as stored, mm along LPS axes. Vectors that are not finite or
        longer than 10 m along an axis mean "no mapping".

    Raises
    ------
    GeometryError
        If the vectors do not have the grid's shape.
    """

    grid: Grid
    vectors_lps: NDArray[np.floating]

    def __post_init__(self) -> None:
        if np.shape(self.vectors_lps) != (*self.grid.shape, 3):
            raise GeometryError(
                f"expected displacements of shape {(*self.grid.shape, 3)}, got {np.shape(self.vectors_lps)}"
            )

    def source_from_destination(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` destination points (world) to the source (world), by linear interpolation.

        NaN where a point is not finite or outside the field (beyond the centres of its outermost
        voxels), and where one of the voxels to interpolate between holds no mapping.

        Raises
        ------
        GeometryError
            If the input is not a list of triples.
        """
        destination = as_points(points)
        source = np.full(destination.shape, np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            voxel = self.grid.voxel_from_world(destination)
            nearest = np.round(voxel)
            voxel = np.where(np.abs(voxel - nearest) < SNAP_VOXEL, nearest, voxel)
            inside = np.all((voxel >= 0) & (voxel <= np.array(self.grid.shape) - 1), axis=1)
        source[inside] = destination[inside] + self._interpolate(voxel[inside]) * RAS_FROM_LPS
        return source

    def _interpolate(self, voxel: FloatArray) -> FloatArray:
        """Interpolate the stored vectors at ``(K, 3)`` voxel points inside the grid.

        scipy's interpolators let a voxel without a mapping spoil points that give it no weight.
        """
        lower = np.floor(voxel).astype(np.intp)
        upper = np.minimum(lower + 1, np.array(self.grid.shape) - 1)
        share = voxel - lower
        # By axis, then lower or upper neighbour, then point.
        i, j, k = np.moveaxis(np.stack([lower, upper]), 2, 0)
        x, y, z = np.moveaxis(np.stack([1 - share, share]), 2, 0)
        vectors = np.zeros(voxel.shape)
        unmapped = np.zeros(len(voxel), dtype=bool)
        for a, b, c in product((0, 1), repeat=3):
            weight = x[a] * y[b] * z[c]
            values = self.vectors_lps[i[a], j[b], k[c]]
            absent = ~(np.abs(values) < SENTINEL_MM).all(axis=1)
            values[absent] = 0
            vectors += weight[:, None] * values
            # A corner without weight is no neighbour: it may hold no mapping.
            unmapped |= absent & (weight > 0)
        vectors[unmapped] = np.nan
        return vectors


@dataclass(frozen=True, eq=False)
class AxisLength:
    """How long a straight space's axis is in the native one, from the space's origin to each height.

    Parameters
    ----------
    height_mm
        ``(N,)`` increasing heights in the straight grid.
    length_mm
        ``(N,)`` increasing native lengths up to there; beyond the ends both go on at the same rate.

    Raises
    ------
    GeometryError
        If one of the two does not increase.
    """

    height_mm: FloatArray
    length_mm: FloatArray

    def __post_init__(self) -> None:
        if not (np.diff(self.height_mm) > 0).all() or not (np.diff(self.length_mm) > 0).all():
            raise GeometryError("the displacement fields fold the straightened axis over itself")

    @classmethod
    def measure(cls, space: WarpedStraightSpace) -> AxisLength:
        """Measure the axis of a space between whose heights and lengths no relation is known.

        Fields are rough along the axis (by half a millimetre), which would stretch and squeeze what is
        read through them: both the axis and the relation are smoothed.

        Raises
        ------
        GeometryError
            If the space maps less than 10 mm of its axis, or folds it over itself.
        """
        height, axis = space.axis_points()
        length = StraightSpace(Centerline.from_points(axis)).straight_from_native(axis)[:, 2]
        smooth = smoothing_spline(height, length[:, None], np.ones(len(height)), SMOOTHING_MM)(height)[:, 0]
        origin = interp1d(height, smooth, fill_value="extrapolate")(0.0)
        return cls(height, smooth - origin)

    def length_from_height(self, height_mm: FloatArray) -> FloatArray:
        """Return the native length up to ``(K,)`` heights."""
        return interp1d(self.height_mm, self.length_mm, fill_value="extrapolate")(height_mm)

    def height_from_length(self, length_mm: FloatArray) -> FloatArray:
        """Return the height at ``(K,)`` native lengths."""
        return interp1d(self.length_mm, self.height_mm, fill_value="extrapolate")(length_mm)


@dataclass(frozen=True, eq=False)
class WarpedStraightSpace:
    """Maps between native (world) and straight points through a pair of displacement fields.

    It has the maps of :class:`sct_deepspine.geometry.straightening.StraightSpace`, and is as exact as the
    fields: the two maps are each other's inverse to about the fields' interpolation error only.

    Parameters
    ----------
    native_from_straight_field
        Field on the grid of the straightened image (SCT's ``warp_curve2straight``).
    straight_from_native_field
        Field on the native grid (SCT's ``warp_straight2curve``).
    origin_world
        ``(3,)`` where the straight frame's origin lies in the world of the straightened image:
        ``world = straight + origin_world``. Leave it at zero for straight points in that world.
    axis
        Makes straight z the native length of the axis; None leaves it the height in the straight grid.

    Raises
    ------
    GeometryError
        If the origin is not three finite numbers.
    """

    native_from_straight_field: DisplacementField
    straight_from_native_field: DisplacementField
    origin_world: FloatArray
    axis: AxisLength | None = None

    def __post_init__(self) -> None:
        origin = np.array(self.origin_world, dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise GeometryError(f"expected an origin of three finite numbers, got {self.origin_world}")
        origin.setflags(write=False)
        object.__setattr__(self, "origin_world", origin)

    @classmethod
    def of_sct(
        cls, curve2straight: DisplacementField, straight2curve: DisplacementField
    ) -> WarpedStraightSpace:
        """Make the space of two fields of ``sct_straighten_spinalcord``.

        SCT puts the straightened centreline on the column of voxels in the middle of the straight
        grid, with its inferior end in the lowest slice; the straight frame starts there. Heights in that
        grid run in proportion to native heights; straight z is made arc length again.

        Raises
        ------
        GeometryError
            If they map nothing along the straightened cord.
        """
        columns, rows, _ = curve2straight.grid.shape
        # Python and numpy both round halves to even, as SCT does in straightening.py.
        middle = (round(columns / 2), round(rows / 2), 0)
        space = cls(curve2straight, straight2curve, curve2straight.grid.world_from_voxel(middle)[0])
        return replace(space, axis=AxisLength.measure(space))

    @property
    def z_mm(self) -> tuple[float, float]:
        """Lowest and highest straight z of the straight grid."""
        grid = self.native_from_straight_field.grid
        ends = grid.world_from_voxel([[0, 0, 0], [0, 0, grid.shape[2] - 1]])[:, 2] - self.origin_world[2]
        low, high = ends if self.axis is None else self.axis.length_from_height(ends)
        return float(min(low, high)), float(max(low, high))

    def axis_points(self) -> tuple[FloatArray, FloatArray]:
        """Return straight heights ``(N,)`` and the world points ``(N, 3)`` of the axis there.

        Raises
        ------
        GeometryError
            If the space maps less than 10 mm of its axis.
        """
        height = np.arange(*self.z_mm, AXIS_STEP_MM)
        axis = self.native_from_straight(height[:, None] * [0.0, 0.0, 1.0])
        mapped = np.isfinite(axis).all(axis=1)
        if mapped.sum() < MIN_AXIS_POINTS:
            raise GeometryError("the displacement fields map nothing along the straightened axis")
        return height[mapped], axis[mapped]

    def axis_centerline(self) -> Centerline:
        """Return the axis that the fields straighten.

        A plane read through the fields is stretched and squeezed as they are rough; in the analytic space
        around their axis the maps are exact, and each other's inverse.

        Raises
        ------
        GeometryError
            If the space maps less than 10 mm of its axis.
        """
        return Centerline.from_points(self.axis_points()[1])

    def native_from_straight(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` straight points (mm) to the world; NaN where the field has no mapping.

        Raises
        ------
        GeometryError
            If the input is not a list of triples.
        """
        straight = as_points(points).copy()
        if self.axis is not None:
            straight[:, 2] = self.axis.height_from_length(straight[:, 2])
        return self.native_from_straight_field.source_from_destination(straight + self.origin_world)

    def straight_from_native(self, points: ArrayLike) -> FloatArray:
        """Take ``(K, 3)`` world points to the straight frame (mm); NaN where there is no mapping.

        Raises
        ------
        GeometryError
            If the input is not a list of triples.
        """
        straight = self.straight_from_native_field.source_from_destination(points) - self.origin_world
        if self.axis is not None:
            straight[:, 2] = self.axis.length_from_height(straight[:, 2])
        return straight
