from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, Grid

ALL_ORIENTATIONS = [
    np.column_stack([axes, flips]) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)
]


def s_curve(length_mm: float = 160.0, step_mm: float = 0.1) -> FloatArray:
    """Points by arc length on a curve with a lordosis and a sideways bend, about world origin."""
    arc = np.arange(0, length_mm + step_mm / 2, step_mm)
    wave = np.cos(np.pi * arc / length_mm)
    sagittal, coronal = np.radians(25) * wave, np.radians(15) * wave**2
    tangents = np.stack(
        [np.sin(coronal) * np.cos(sagittal), np.sin(sagittal), np.cos(coronal) * np.cos(sagittal)], axis=1
    )
    points = np.vstack([np.zeros(3), np.cumsum((tangents[1:] + tangents[:-1]) / 2 * step_mm, axis=0)])
    return points - points.mean(axis=0)


def draw_cord(
    curve: FloatArray, spacing_mm: tuple[float, ...], rotation: Rotation
) -> tuple[np.ndarray, Grid]:
    """Draw a cord of 4 mm radius, cut square 2 mm before the ends of the curve."""
    axes = rotation.as_matrix() * spacing_mm
    extent = curve @ np.linalg.inv(axes).T
    lowest = np.floor(extent.min(axis=0) - 6 / np.array(spacing_mm))
    shape = np.ceil(extent.max(axis=0) + 6 / np.array(spacing_mm) - lowest).astype(int) + 1
    grid = Grid(tuple(shape), np.block([[axes, (axes @ lowest)[:, None]], [np.zeros(3), 1.0]]))
    voxels = np.indices(grid.shape).reshape(3, -1).T
    distance, nearest = cKDTree(curve[::5]).query(grid.world_from_voxel(voxels), distance_upper_bound=4.0)
    within = np.isfinite(distance) & (nearest >= 4) & (nearest < len(curve[::5]) - 4)
    return within.reshape(grid.shape), grid


def distance_to(curve: FloatArray, points: FloatArray) -> FloatArray:
    return cKDTree(curve).query(points)[0]


def along(line: Centerline, step_mm: float = 0.5) -> FloatArray:
    return line.points_world(np.arange(0, line.length_mm, step_mm))


def test_shuffled_and_repeated_points_of_a_straight_line_give_that_line():
    rng = np.random.default_rng(1)
    direction = np.array([0.2, -0.3, np.sqrt(0.87)])
    heights = np.r_[0.0, 70.0, rng.uniform(0, 70, 20)].repeat(2)
    foot = np.array([5, 6, 7])
    line = Centerline.from_points(foot + rng.permutation(heights)[:, None] * direction)

    assert line.length_mm == pytest.approx(70)
    np.testing.assert_allclose(line.points_world([0, 33, 70]), np.outer([0, 33, 70], direction) + foot)
    np.testing.assert_allclose(line.tangents([0, 33, 70]), [direction] * 3)
    np.testing.assert_allclose(line.curvatures([0, 33, 70]), 0, atol=1e-9)


@pytest.mark.parametrize("inferior", [(0, 0, 0), (-31, 47, -101), (10, 90, -20)])
def test_two_points_give_the_straight_line_between_them(inferior):
    superior = np.array([3, 5, 7])
    line = Centerline.from_points([superior, inferior])

    assert line.length_mm == pytest.approx(np.linalg.norm(superior - inferior))
    np.testing.assert_allclose(line.curvatures(line.samples_arc_mm), 0, atol=1e-9)
    np.testing.assert_allclose(line.points_world([0, line.length_mm]), [inferior, superior], atol=1e-9)


@pytest.mark.parametrize("step", [1, 50, 200])
def test_length_and_position_follow_a_curve_from_inferior_to_superior(step):
    curve = s_curve()
    line = Centerline.from_points(curve[::-step])

    assert line.length_mm == pytest.approx(160, abs=0.2)
    np.testing.assert_allclose(line.points_world(np.arange(0, 160.1, 20)), curve[::200], atol=0.25)


def test_arc_length_is_true_to_the_curve():
    line = Centerline.from_points(s_curve()[::10])
    steps = np.linalg.norm(np.diff(along(line, 0.01), axis=0), axis=1)

    np.testing.assert_allclose(steps, 0.01, rtol=1e-5)


def test_curvature_points_to_the_centre_of_a_circle():
    angle = np.linspace(-0.5, 0.5, 121)
    line = Centerline.from_points(
        120 * np.stack([np.zeros(121), np.cos(angle), np.sin(angle)], axis=1), smoothing_mm=5
    )
    arc = np.linspace(10, 110, 7)
    np.testing.assert_allclose(
        line.points_world(arc) + 120**2 * line.curvatures(arc), np.zeros((7, 3)), atol=2.5
    )


def test_lordosis_is_kept_where_a_second_derivative_penalty_would_flatten_its_ends():
    angle = np.linspace(-0.4, 0.4, 97)
    arch = 120 * np.stack([np.zeros(97), np.cos(angle), np.sin(angle)], axis=1)
    line = Centerline.from_points(arch)

    radii = np.linalg.norm(along(line)[:, 1:], axis=1)
    np.testing.assert_allclose(radii, 120, atol=0.05)


def test_smoothing_removes_the_stairs_of_a_one_voxel_centreline():
    curve = s_curve()
    stairs = np.round(curve[::10])
    assert distance_to(curve, stairs).max() > 0.6

    assert distance_to(curve, along(Centerline.from_points(stairs))).max() < 0.3


def test_less_smoothing_follows_the_points_more_closely():
    curve = s_curve()[::10]
    bumpy = curve + np.array([1.0, 0, 0]) * np.sin(curve[:, 2:] / 4)
    close, smooth = (Centerline.from_points(bumpy, smoothing_mm=mm) for mm in (1, 20))

    assert distance_to(along(close, 0.1), bumpy).max() < 0.1
    assert distance_to(along(smooth, 0.1), bumpy).max() > 0.8


@pytest.mark.parametrize(
    ("spacing_mm", "angles_deg", "end_mm"),
    [
        ((1, 1, 1), (0, 0, 0), 0),
        ((1, 1, 1), (10, -5, 8), 0),
        ((3.3, 0.8, 0.9), (0, 0, 0), 0),
        ((0.7, 0.7, 4), (9, 0, 0), 4),
        # The thick sagittal slices rise more per voxel than the rows do.
        ((3.3, 0.8, 0.9), (0, 20, 0), 10),
        # Slices 45 degrees off the end of the cord, where only a part of each is in the mask.
        ((1, 1, 1), (20, -10, 15), 10),
    ],
)
def test_mask_of_a_smooth_cord_gives_its_centreline_within_a_third_of_a_millimetre(
    spacing_mm, angles_deg, end_mm
):
    curve = s_curve()
    line = Centerline.from_mask(
        *draw_cord(curve, spacing_mm, Rotation.from_euler("xyz", angles_deg, degrees=True))
    )

    assert line.length_mm == pytest.approx(156, abs=6)
    deviation = distance_to(curve, line.points_world(np.arange(end_mm, line.length_mm - end_mm, 0.5)))
    assert deviation.max() < 0.3


def test_mask_gives_the_same_centreline_in_all_48_orientations():
    mask, grid = draw_cord(
        s_curve(60.0), (2.1, 1.7, 2.9), Rotation.from_euler("xyz", (7, -5, 11), degrees=True)
    )
    truth = along(Centerline.from_mask(mask, grid))
    assert len(ALL_ORIENTATIONS) == 48
    for orientation in ALL_ORIENTATIONS:
        turned = apply_orientation(mask, orientation)
        affine = grid.affine @ inv_ornt_aff(orientation, mask.shape)
        line = Centerline.from_mask(turned, Grid(turned.shape, affine))
        np.testing.assert_allclose(along(line), truth, atol=1e-6)


def test_soft_mask_counts_by_its_values():
    mask = np.zeros((5, 7, 41))
    mask[2, 3] = 0.75
    mask[2, 4] = 0.25
    mask[4, 6] = np.nan
    mask[0, 0] = -1
    line = Centerline.from_mask(mask, Grid(mask.shape, np.eye(4)))

    np.testing.assert_allclose(
        line.points_world([0, 20, 40]), [[2, 3.25, 0], [2, 3.25, 20], [2, 3.25, 40]], atol=1e-9
    )


def test_slices_missing_from_a_mask_are_bridged():
    curve = s_curve()
    mask, grid = draw_cord(curve, (1, 1, 1), Rotation.identity())
    mask[:, :, 70:85] = False

    assert distance_to(curve, along(Centerline.from_mask(mask, grid))).max() < 0.3


def test_beyond_its_ends_the_curve_goes_on_straight_without_a_corner():
    line = Centerline.from_points(s_curve()[::10])
    for end, outward in ((0.0, -1), (line.length_mm, 1)):
        tangent = line.tangents(end)
        just_inside = line.tangents(end - outward * 1e-4)
        np.testing.assert_allclose(just_inside, tangent, atol=1e-5)
        np.testing.assert_allclose(
            line.points_world([end + outward * 60]), line.points_world(end) + outward * 60 * tangent
        )
        np.testing.assert_array_equal(line.tangents(end + outward * 60), tangent)
        np.testing.assert_array_equal(line.curvatures(end + outward * 60), [[0, 0, 0]])


def test_absent_points_are_left_out_and_absent_arc_lengths_stay_absent():
    curve = s_curve()[::10]
    holed = np.insert(curve, [3, 50], [np.nan, 1, 2], axis=0)
    line = Centerline.from_points(holed)

    np.testing.assert_array_equal(line.samples_world, Centerline.from_points(curve).samples_world)
    for values in (line.points_world, line.tangents, line.curvatures):
        np.testing.assert_array_equal(
            np.isnan(values([np.nan, 5, np.inf])), [[True] * 3, [False] * 3, [True] * 3]
        )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-180, 180), st.integers(0, 3))
def test_turning_moving_shuffling_the_points_does_the_same_to_the_curve(seed, turn_deg, repeats):
    rng = np.random.default_rng(seed)
    curve = s_curve()[::40]
    turn, shift = Rotation.from_euler("z", turn_deg, degrees=True), rng.uniform(-200, 200, 3)
    shuffled = rng.permutation(np.vstack([curve] + [curve] * repeats))

    moved = Centerline.from_points(turn.apply(shuffled) + shift)
    truth = Centerline.from_points(np.repeat(curve, repeats + 1, axis=0))
    assert moved.length_mm == pytest.approx(truth.length_mm)
    np.testing.assert_allclose(moved.samples_world, turn.apply(truth.samples_world.copy()) + shift, atol=1e-6)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [[1, 2, 3]],
        [[1, 2, 3]] * 9,
        [[0, 0, 0], [0, 0, 2.9]],
        [[0, 0, 0], [np.nan, 0, 90]],
        [[1, 2], [3, 4]],
    ],
)
def test_points_that_make_no_line_are_refused(points):
    with pytest.raises(GeometryError):
        Centerline.from_points(points)


@pytest.mark.parametrize("smoothing_mm", [0, -1, np.nan, np.inf])
def test_smoothing_has_to_be_positive(smoothing_mm):
    with pytest.raises(GeometryError, match="smoothing"):
        Centerline.from_points([[0, 0, 0], [0, 0, 50]], smoothing_mm=smoothing_mm)


def test_empty_mask_single_slice_and_wrong_shape_are_refused():
    grid = Grid((3, 5, 41), np.eye(4))
    mask = np.zeros(grid.shape)
    with pytest.raises(GeometryError, match="empty"):
        Centerline.from_mask(mask, grid)
    mask[:, :, 7] = 1
    with pytest.raises(GeometryError, match="3 mm"):
        Centerline.from_mask(mask, grid)
    with pytest.raises(GeometryError, match=r"\(3, 5, 41\)"):
        Centerline.from_mask(mask.T, grid)


def test_bad_samples_are_refused():
    good = np.outer(np.arange(5.0), [0, 0, 1])
    with pytest.raises(GeometryError, match="four"):
        Centerline(good[:3], 2.0)
    with pytest.raises(GeometryError, match="length"):
        Centerline(good, 0.0)
    with pytest.raises(GeometryError, match=r"shape \(K,\)"):
        Centerline(good, 4.0).points_world([[1.0, 2.0]])
