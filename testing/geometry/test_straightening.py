import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.straightening import StraightSpace


def curved_spine() -> FloatArray:
    """Points 1 mm apart on a spine of 450 mm with a double thoracic scoliosis of 30 degrees.

    From inferior to superior: kyphosis of 60 degrees over 260 mm, then cervical lordosis of 40 degrees
    over 130 mm. The least radius of curvature is 110 mm.
    """
    arc = np.arange(451.0)

    def turn(degrees: float, start: float, end: float) -> FloatArray:
        return np.radians(degrees) * (1 - np.cos(np.pi * np.clip((arc - start) / (end - start), 0, 1))) / 2

    sagittal = turn(60, 40, 300) - turn(40, 300, 430) - np.radians(15)
    coronal = turn(30, 80, 200) - turn(30, 220, 340) - np.radians(15)
    tangents = np.stack(
        [np.sin(coronal) * np.cos(sagittal), np.sin(sagittal), np.cos(coronal) * np.cos(sagittal)], axis=1
    )
    steps = np.vstack([[12, -34, -220], (tangents[1:] + tangents[:-1]) / 2])
    return np.cumsum(steps, axis=0)


def arch(radius_mm: float, from_deg: float, to_deg: float) -> Centerline:
    """Circle about the world origin in the sagittal plane; at 0 degrees it is anterior, going up."""
    angle = np.radians(np.linspace(from_deg, to_deg, 181))
    circle = radius_mm * np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=1)
    return Centerline.from_points(circle, smoothing_mm=2)


@pytest.fixture(scope="module")
def space() -> StraightSpace:
    return StraightSpace(Centerline.from_points(curved_spine()))


@pytest.fixture(scope="module")
def around(space: StraightSpace) -> FloatArray:
    """Straight points up to 60 mm anterior, 30 posterior, 30 lateral and 60 beyond the ends."""
    rng = np.random.default_rng(3)
    return rng.uniform([-30, -30, -60], [30, 60, space.centerline.length_mm + 60], (4000, 3))


def test_the_spine_of_these_tests_is_strongly_curved(space):
    curvature = np.linalg.norm(space.centerline.curvatures(np.arange(450)), axis=1)
    assert 1 / 115 < curvature.max() < 1 / 100
    coronal = np.degrees(np.arctan2(*space.centerline.tangents(np.arange(450))[:, [0, 2]].T))
    assert np.ptp(coronal) > 29


def test_the_centreline_becomes_the_z_axis(space):
    arc = np.linspace(-60, space.centerline.length_mm + 60, 57)
    axis = np.stack([0 * arc, 0 * arc, arc], axis=1)

    np.testing.assert_allclose(
        space.native_from_straight(axis), space.centerline.points_world(arc), atol=1e-9
    )
    np.testing.assert_allclose(
        space.straight_from_native(space.centerline.points_world(arc)), axis, atol=1e-6
    )


def test_straight_to_native_and_back_returns_every_point(space, around):
    native = space.native_from_straight(around)
    assert np.isfinite(native).all()
    np.testing.assert_allclose(space.straight_from_native(native), around, atol=1e-6)


def test_native_to_straight_and_back_returns_every_point_that_has_a_place(space):
    rng = np.random.default_rng(5)
    samples = space.centerline.samples_world
    native = rng.uniform(samples.min(axis=0) - 60, samples.max(axis=0) + 60, (4000, 3))
    straight = space.straight_from_native(native)
    placed = np.isfinite(straight).all(axis=1)

    assert placed.mean() > 0.99
    np.testing.assert_allclose(space.native_from_straight(straight)[placed], native[placed], atol=1e-6)
    np.testing.assert_array_equal(np.isnan(straight), np.repeat(~placed[:, None], 3, axis=1))


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-1e4, 1e4)] * 3))
def test_any_point_is_either_absent_or_returns(point):
    space = StraightSpace(arch(50, -60, 60))
    straight = space.straight_from_native([point])
    if np.isnan(straight).any():
        assert np.isnan(straight).all()
    else:
        np.testing.assert_allclose(space.native_from_straight(straight), [point], atol=1e-6)


def test_slices_are_undistorted_and_right_handed(space, around):
    rise = np.array([0, 0, 1.0])
    for arc in np.arange(-20, 480, 50.0):
        origin, right, anterior = space.native_from_straight([[0, 0, arc], [10, 0, arc], [0, 10, arc]])
        right, anterior = (right - origin) / 10, (anterior - origin) / 10
        superior = space.centerline.tangents(arc)[0]
        frame = np.stack([right, anterior, superior])
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(np.cross(right, anterior), superior, atol=1e-9)
        assert superior @ rise > 0


def test_right_never_leans_towards_anterior_however_the_spine_twists(space):
    arc = np.arange(-20, 480, 7.3)
    right = space.native_from_straight(np.stack([np.ones_like(arc), 0 * arc, arc], axis=1))
    right -= space.centerline.points_world(arc)
    # Exact at the samples; between them the interpolated frame is off by a trace.
    np.testing.assert_allclose(right[:, 1], 0, atol=1e-6)
    assert (right[:, 0] > 0.9).all()


def test_a_straight_upright_spine_is_only_moved():
    space = StraightSpace(Centerline.from_points([[3, 5, -70], [3, 5, 90]]))
    native = np.random.default_rng(7).uniform(-100, 100, (50, 3))
    foot = np.array([3, 5, -70])

    np.testing.assert_allclose(space.straight_from_native(native), native - foot, atol=1e-9)
    np.testing.assert_allclose(space.native_from_straight(native), native + foot, atol=1e-9)


def test_space_folds_at_the_centre_of_curvature_and_is_undefined_beyond():
    space = StraightSpace(arch(40, -60, 60))
    middle = space.centerline.length_mm / 2
    offsets = np.array([-35, -39, -41, -80, 30])
    native = space.native_from_straight(np.stack([0 * offsets, offsets, middle + 0 * offsets], axis=1))

    np.testing.assert_array_equal(np.isnan(native).all(axis=1), [False, True, True, True, False])
    np.testing.assert_allclose(native[[0, 4]], [[0, 5, 0], [0, 70, 0]], atol=0.2)
    assert np.isnan(space.straight_from_native([[0, 0.5, 0.3], [7, 0.5, 0.3]])).all()
    assert np.isfinite(space.straight_from_native([[0, 6, 0], [7, 6, 0]])).all()


def test_absent_points_stay_absent_and_leave_the_others_alone(space, around):
    holed = around[:5].copy()
    holed[1, 0], holed[3, 2] = np.nan, np.inf
    for to_there, points in (
        (space.native_from_straight, around[:5]),
        (space.straight_from_native, space.native_from_straight(around[:5])),
    ):
        truth = to_there(points)
        truth[[1, 3]] = np.nan
        np.testing.assert_array_equal(to_there(np.where(np.isfinite(holed), points, holed)), truth)


def test_no_points_give_no_points(space):
    assert space.native_from_straight([]).shape == (0, 3)
    assert space.straight_from_native(np.empty((0, 3))).shape == (0, 3)


def test_points_that_are_no_triples_are_refused(space):
    for to_there in (space.native_from_straight, space.straight_from_native):
        with pytest.raises(GeometryError, match=r"\(K, 3\)"):
            to_there([[1, 2], [3, 4]])


@pytest.mark.parametrize("sway_mm", [(0, 0, 0), (4, 0, 0), (0, 4, 0), (0, -4, 0), (7, -24, -5)])
def test_anterior_is_carried_along_smoothly_where_the_spine_runs_along_it(sway_mm):
    # Over the top of an arch the tangent passes through, or just beside, the anterior axis.
    angle = np.radians(np.linspace(-55, 55, 181))
    x = np.array(sway_mm) @ [np.sin(angle), np.cos(angle), np.sin(2 * angle)]
    over_the_top = np.stack([x, 80 * np.sin(angle), 80 * np.cos(angle)], axis=1)
    space = StraightSpace(Centerline.from_points(over_the_top, smoothing_mm=3))
    arc = np.arange(-5, space.centerline.length_mm + 5, 0.1)
    anterior = space.native_from_straight(np.stack([0 * arc, 0 * arc + 1, arc], axis=1))
    anterior -= space.centerline.points_world(arc)

    turns_deg = np.degrees(np.linalg.norm(np.diff(anterior, axis=0), axis=1))
    # Half a turn over the 18 mm that leave the direction open, and no longer way round.
    assert turns_deg.max() < 1.0
    straight = np.random.default_rng(9).uniform([-20, -20, 0], [20, 20, space.centerline.length_mm], (500, 3))
    np.testing.assert_allclose(
        space.straight_from_native(space.native_from_straight(straight)), straight, atol=1e-6
    )


def test_a_spine_wholly_along_the_anterior_axis_still_has_a_frame():
    space = StraightSpace(Centerline.from_points([[0, -50, 0], [0, 50, 0]]))
    straight = np.array([[7, 0, 20], [0, 7, 20], [0, 0, 20]])
    right, anterior, origin = space.native_from_straight(straight)

    superior = space.centerline.tangents(20)[0]
    np.testing.assert_allclose(np.cross(right - origin, anterior - origin), 49 * superior, atol=1e-9)
    np.testing.assert_allclose(
        space.straight_from_native(space.native_from_straight(straight)), straight, atol=1e-9
    )


def test_one_clear_anterior_direction_serves_the_whole_curve():
    rise = np.radians([12, 8, 5, 3, 2, 2, 2, 2, 2])
    steps = np.stack([0 * rise, np.cos(rise), np.sin(rise)], axis=1)
    line = Centerline(np.vstack([np.zeros(3), np.cumsum(steps, axis=0)]), 9.0)
    right = StraightSpace(line).native_from_straight([[1, 0, arc] for arc in (0, 4, 9)])
    right -= line.points_world([0, 4, 9])
    np.testing.assert_allclose(right, [[1, 0, 0]] * 3, atol=1e-9)
