from dataclasses import replace

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.planes import SamplingPlane, coronal_plane, normalise, sagittal_plane, sample
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.images import read_volume

GRADIENT = np.array([0.37, -1.3, 2.1])
SHAPE = 13, 29, 31
AFFINE = np.array([[3.1, 0.4, 0, -18], [-0.6, 1.3, 0.2, -20], [0, -0.1, 1.7, -25], [0, 0, 0, 1]])


def ramp_at(points_world):
    return points_world @ GRADIENT + 100


def ramp_volume(shape=SHAPE, affine=AFFINE, dtype=np.float64):
    grid = Grid(shape, affine)
    world = grid.world_from_voxel(np.indices(shape).reshape(3, -1).T)
    return Volume(ramp_at(world).reshape(shape).astype(dtype), grid)


def plane_about(middle, shape=(11, 7), pixel_mm=1.9, *, lateral_mm=None):
    corner = middle + pixel_mm / 2 * np.array([0, -(shape[1] - 1), shape[0] - 1])
    return sagittal_plane(corner, shape, pixel_mm, lateral_mm=lateral_mm)


def bent_plane(middle, shape=(11, 7), pixel_mm=1.9):
    """A sampling that sways sideways along its rows, and is sheared."""
    flat = plane_about(middle, shape, pixel_mm).points_world
    rows, columns = np.indices(shape)
    points = flat.copy()
    points[..., 0] += 3 * np.sin(rows / 3) + 0.2 * columns
    points[..., 2] += 0.3 * columns
    return SamplingPlane(points, pixel_mm)


# The sampling


def test_rows_run_down_and_columns_run_forward_in_steps_of_a_pixel():
    points = sagittal_plane([5, -10, 40], (4, 3), 2.5).points_world
    np.testing.assert_allclose(points[0, 0], [5, -10, 40])
    np.testing.assert_allclose(points[3, 0], [5, -10, 32.5])
    np.testing.assert_allclose(points[0, 2], [5, -5, 40])


def test_a_bent_plane_has_its_rows_where_they_were_asked_for():
    lateral = np.array([1.0, 3, 7, 2])
    points = sagittal_plane([5, -10, 40], (4, 3), 2.5, lateral_mm=lateral).points_world
    np.testing.assert_allclose(points[..., 0], np.repeat(lateral[:, None], 3, axis=1))
    np.testing.assert_allclose(
        points[..., 1:], sagittal_plane([5, -10, 40], (4, 3), 2.5).points_world[..., 1:]
    )


def test_pixels_at_integers_are_the_planes_points():
    sampling = bent_plane(np.zeros(3))
    index = np.indices(sampling.shape).reshape(2, -1).T
    np.testing.assert_allclose(
        sampling.world_from_pixel(index), sampling.points_world.reshape(-1, 3), rtol=0, atol=1e-12
    )


def test_fractional_pixels_are_exact_on_a_flat_plane_and_one_pixel_beyond_it():
    sampling = sagittal_plane([5, -10, 40], (6, 5), 2.5)
    pixels = np.random.default_rng(0).uniform([-1, -1], [6, 5], (200, 2))
    truth = np.stack([np.full(200, 5.0), -10 + 2.5 * pixels[:, 1], 40 - 2.5 * pixels[:, 0]], axis=1)
    np.testing.assert_allclose(sampling.world_from_pixel(pixels), truth, rtol=0, atol=1e-9)


def test_fractional_pixels_are_bilinear_on_a_bent_plane():
    sampling = bent_plane(np.zeros(3))
    a, b, c, d = sampling.points_world[[3, 3, 4, 4], [2, 3, 2, 3]]
    (between,) = sampling.world_from_pixel([[3.25, 2.6]])
    np.testing.assert_allclose(between, 0.75 * (0.4 * a + 0.6 * b) + 0.25 * (0.4 * c + 0.6 * d))


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_a_plane_one_pixel_wide_still_places_its_pixels(shape):
    sampling = sagittal_plane([5, -10, 40], shape, 2.5)
    index = np.indices(shape).reshape(2, -1).T
    np.testing.assert_allclose(sampling.world_from_pixel(index), sampling.points_world.reshape(-1, 3))


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_sub_pixels_have_their_pixels_centre_as_mean(factor):
    for sampling in (plane_about(np.zeros(3)), sagittal_plane([0, 0, 0], (4, 3), 2.0)):
        fine = sampling.subdivided(factor).points_world
        assert fine.shape == (sampling.shape[0] * factor, sampling.shape[1] * factor, 3)
        blocks = fine.reshape(sampling.shape[0], factor, sampling.shape[1], factor, 3)
        np.testing.assert_allclose(blocks.mean(axis=(1, 3)), sampling.points_world, rtol=0, atol=1e-9)
        if factor > 1:
            np.testing.assert_allclose(fine[0, 1, 1] - fine[0, 0, 1], sampling.pixel_mm / factor)


# Reading


@pytest.mark.parametrize("lay", [plane_about, bent_plane])
@pytest.mark.parametrize("oversample", [1, 2, 3, None])
@pytest.mark.parametrize("slab_mm", [0.0, 5.0, 9.0])
def test_a_linear_ramp_is_read_exactly(lay, oversample, slab_mm):
    volume = ramp_volume()
    sampling = lay(volume.grid.middle_world)
    plane, inside = sample(volume, sampling, slab_mm=slab_mm, oversample=oversample)
    assert inside.all()
    assert plane.dtype == np.float32
    # A linear function has the same mean over a pixel's area as over its sub-pixels, bent or not.
    fine = ramp_at(sampling.subdivided(oversample or 1).points_world)
    truth = fine.reshape(sampling.shape[0], oversample or 1, sampling.shape[1], oversample or 1).mean(
        axis=(1, 3)
    )
    np.testing.assert_allclose(plane, truth, rtol=1e-5, atol=1e-3)
    if lay is plane_about:
        np.testing.assert_allclose(plane, ramp_at(sampling.points_world), rtol=1e-5, atol=1e-3)


def test_a_slab_is_the_mean_across_the_plane():
    grid = Grid((41, 9, 9), np.diag([1.0, 1, 1, 1]))
    data = np.zeros(grid.shape)
    data[20] = 1
    sampling = sagittal_plane([20, 3, 5], (2, 2), 1.0)
    # Samples of a slab of 8 mm are 2 mm apart, at odd millimetres off the sampling.
    np.testing.assert_allclose(sample(Volume(data, grid), sampling)[0], 1)
    np.testing.assert_allclose(sample(Volume(data, grid), sampling, slab_mm=8)[0], 0)
    sampling = sagittal_plane([21, 3, 5], (2, 2), 1.0)
    np.testing.assert_allclose(sample(Volume(data, grid), sampling, slab_mm=8)[0], 0.25)
    anterior = sample(Volume(data, grid), replace(sampling, axes=np.eye(3)[:, [1, 0, 2]]), slab_mm=8)[0]
    np.testing.assert_allclose(anterior, 0)


def test_a_coarse_pixel_is_the_mean_of_what_it_covers():
    grid = Grid((3, 24, 24), np.eye(4))
    data = np.broadcast_to((np.indices((24, 24)).sum(axis=0) % 2).astype(float), grid.shape)
    sampling = sagittal_plane([1, 5.5, 18.5], (4, 4), 4.0)
    np.testing.assert_allclose(sample(Volume(data, grid), sampling)[0], 0.5, atol=1e-6)


def test_outside_the_image_nothing_is_read():
    volume = ramp_volume(affine=np.diag([2.0, 1, 1, 1]))
    sampling = sagittal_plane([10, -5, 33], (40, 40), 1.0)
    plane, inside = sample(volume, sampling)
    rows, columns = np.indices(sampling.shape)
    truth = (columns >= 5) & (columns < 34) & (rows >= 3) & (rows < 34)
    np.testing.assert_array_equal(inside, truth)
    assert (plane[~truth] == 0).all()
    np.testing.assert_allclose(plane[truth], ramp_at(sampling.points_world)[truth], rtol=1e-5)


@pytest.mark.parametrize(("beyond_mm", "seen"), [(1.0, True), (3.0, False)])
def test_a_pixel_that_lies_mostly_outside_is_outside(beyond_mm, seen):
    grid = Grid((3, 9, 9), np.eye(4))
    upper_face = 8.5
    sampling = sagittal_plane([1, 2, upper_face - 2 + beyond_mm], (2, 2), 4.0)
    plane, inside = sample(Volume(np.full(grid.shape, 7.0), grid), sampling, oversample=4)
    np.testing.assert_array_equal(inside, [[seen, seen], [True, True]])
    np.testing.assert_array_equal(plane, 7.0 * inside)


def test_a_plane_beside_the_image_is_outside():
    plane, inside = sample(ramp_volume(), sagittal_plane([900, 0, 0], (5, 4), 1.0))
    assert not inside.any()
    assert not plane.any()


def test_pixels_without_a_place_are_outside():
    volume = ramp_volume()
    sampling = plane_about(volume.grid.middle_world)
    holed = sampling.points_world.copy()
    holed[2:4, 3] = np.nan
    plane, inside = sample(volume, SamplingPlane(holed, sampling.pixel_mm), oversample=1)
    truth = np.ones(sampling.shape, bool)
    truth[2:4, 3] = False
    np.testing.assert_array_equal(inside, truth)
    assert np.isfinite(plane).all()
    np.testing.assert_allclose(plane[truth], ramp_at(sampling.points_world)[truth], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("slab_mm", [0.0, 2.0])
def test_a_volume_one_slice_thick_is_read_across_its_slice(slab_mm):
    volume = ramp_volume((1, 29, 31), np.diag([4.0, 1.3, 1.7, 1]))
    sampling = plane_about(volume.grid.middle_world)
    plane, inside = sample(volume, sampling, slab_mm=slab_mm)
    assert inside.all()
    np.testing.assert_allclose(plane, ramp_at(sampling.points_world), rtol=1e-5, atol=1e-3)
    assert not sample(volume, plane_about(volume.grid.middle_world + np.array([2.1, 0, 0])))[1].any()


def test_part_of_a_slab_outside_the_image_does_not_darken_it():
    grid = Grid((4, 9, 9), np.diag([2.0, 1, 1, 1]))
    volume = Volume(np.full(grid.shape, 7.0), grid)
    plane, inside = sample(volume, sagittal_plane([6, 3, 5], (2, 2), 1.0), slab_mm=6.0)
    assert inside.all()
    np.testing.assert_allclose(plane, 7)


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "float32", "float64", "longdouble", ">i2", ">f4"),
    ],
)
def test_voxels_of_every_real_type_that_is_accepted_are_read(dtype):
    grid = Grid((3, 9, 9), np.eye(4))
    data = np.zeros(grid.shape)
    data[:, :, 4:] = 1
    volume = read_volume((data.astype(dtype), grid.affine))
    plane, _ = sample(volume, sagittal_plane([1, 0, 8], (9, 9), 1.0))
    np.testing.assert_array_equal(plane[:, 0], [1, 1, 1, 1, 1, 0, 0, 0, 0])


# A coronal plane


@pytest.mark.parametrize("angle", [0.0, 0.35])
def test_a_coronal_plane_contains_its_line_and_has_the_rows_of_the_sagittal_one(angle):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xz", [angle, angle / 2]).as_matrix()
    sagittal = sagittal_plane([3.0, -20.0, 50.0], (101, 37), 0.7).transformed(turn)
    height = np.linspace(60, -40, 53)
    line = np.stack([3 + 0 * height, 5 * np.sin(height / 20), height], axis=1)
    plane = coronal_plane(sagittal, apply_affine(turn, line), 43.0)
    assert plane.shape == (101, 61)
    up = sagittal.axes[:, 2]
    np.testing.assert_allclose(plane.points_world @ up, (sagittal.points_world[:, :1] @ up) + np.zeros(61))
    middle = apply_affine(np.linalg.inv(turn), plane.points_world[:, 30])
    np.testing.assert_allclose(middle[:, 0], 3, atol=1e-9)
    np.testing.assert_allclose(middle[:, 1], 5 * np.sin(middle[:, 2] / 20), atol=0.02)
    right_to_left = plane.points_world[:, -1] - plane.points_world[:, 0]
    assert (right_to_left @ sagittal.axes[:, 0] < 0).all()
    pixels = [[3.0, 7.0], [88.5, 41.25]]
    np.testing.assert_allclose(plane.pixel_from_world(plane.world_from_pixel(pixels)), pixels, atol=1e-9)


# Grey values for the network


def test_grey_values_get_zero_mean_and_unit_spread_inside_and_zero_outside():
    rng = np.random.default_rng(0)
    inside = rng.random((31, 23)) < 0.7
    plane = np.where(inside, rng.gamma(2, 300, inside.shape), 0).astype(np.float32)
    scaled = normalise(plane, inside)
    assert scaled.dtype == np.float32
    assert scaled[inside].mean() == pytest.approx(0, abs=1e-5)
    assert scaled[inside].std() == pytest.approx(1, abs=1e-5)
    assert (scaled[~inside] == 0).all()


def test_scale_and_offset_of_the_image_do_not_matter():
    rng = np.random.default_rng(1)
    plane, inside = rng.gamma(2, 300, (31, 23)).astype(np.float32), np.ones((31, 23), bool)
    np.testing.assert_allclose(normalise(plane, inside), normalise(plane * 4 + 50, inside), atol=1e-4)


def test_one_glaring_voxel_does_not_darken_the_rest():
    rng = np.random.default_rng(2)
    plane, inside = rng.uniform(0, 1, (31, 23)).astype(np.float32), np.ones((31, 23), bool)
    glaring = plane.copy()
    glaring[3, 4] = 1e6
    rest = np.ones_like(inside)
    rest[3, 4] = False
    np.testing.assert_allclose(normalise(glaring, inside)[rest], normalise(plane, inside)[rest], atol=0.05)


def test_a_constant_plane_or_none_at_all_is_zero():
    plane, inside = np.full((5, 7), 3.5, np.float32), np.ones((5, 7), bool)
    assert not normalise(plane, inside).any()
    assert not normalise(plane, ~inside).any()
    one = ~inside
    one[2, 3] = True
    assert not normalise(plane, one).any()
