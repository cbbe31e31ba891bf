from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sct_deepspine.errors import GeometryError, ImageError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.displacement import AxisLength, DisplacementField, WarpedStraightSpace
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.io.warps import read_displacement_field, read_straightening

LPS = np.array([-1, -1, 1])
SENTINEL = 100000.0


def oblique_grid(flips: tuple[int, int, int] = (1, 1, 1)) -> Grid:
    """Grid of prime shape and unequal spacing, turned, with some axes flipped."""
    axes = Rotation.from_euler("xyz", (11, -23, 37), degrees=True).as_matrix() * [1.7, 0.9, 3.1] * flips
    return Grid((5, 7, 11), np.block([[axes, np.array([[13], [-17], [19]])], [np.zeros(3), 1.0]]))


def points_within(grid: Grid, seed: int, count: int = 50) -> FloatArray:
    voxels = np.random.default_rng(seed).uniform(0, 1, (count, 3)) * (np.array(grid.shape) - 1)
    return grid.world_from_voxel(voxels)


def write(path: Path, grid: Grid, vectors_lps: FloatArray) -> Path:
    """Write a field as SCT and ANTs do."""
    image = nibabel.Nifti1Image(vectors_lps[:, :, :, None, :].astype(np.float32), grid.affine)
    image.header.set_intent("vector")
    image.to_filename(path)
    return path


def centres_world(grid: Grid) -> FloatArray:
    return grid.world_from_voxel(np.indices(grid.shape).reshape(3, -1).T)


def field_of(grid: Grid, source_world: FloatArray) -> FloatArray:
    """Return the vectors to store for a map given at the voxels' centres; NaN becomes the sentinel."""
    vectors = (source_world - centres_world(grid)) * LPS
    return np.where(np.isfinite(vectors), vectors, -SENTINEL).reshape(*grid.shape, 3)


def test_stored_vectors_run_to_left_posterior_superior(tmp_path):
    grid = Grid((3, 5, 7), np.diag([2.0, 3, 5, 1]))
    path = write(tmp_path / "warp.nii.gz", grid, np.broadcast_to([1.0, 20, 300], (3, 5, 7, 3)))
    field = read_displacement_field(path)

    np.testing.assert_allclose(
        field.source_from_destination([[2, 6, 10], [1, 1, 1]]), [[1, -14, 310], [0, -19, 301]]
    )


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_a_linear_map_is_reproduced_on_oblique_flipped_anisotropic_grids(tmp_path, flips):
    grid = oblique_grid(flips)
    rng = np.random.default_rng(2)
    matrix, shift = rng.uniform(-1, 1, (3, 3)), rng.uniform(-50, 50, 3)
    field = read_displacement_field(
        write(tmp_path / "warp.nii.gz", grid, field_of(grid, centres_world(grid) @ matrix.T + shift))
    )

    points = points_within(grid, 4)
    np.testing.assert_allclose(field.source_from_destination(points), points @ matrix.T + shift, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_interpolated_displacement_stays_within_its_neighbours(seed):
    rng = np.random.default_rng(seed)
    grid = oblique_grid()
    vectors = rng.normal(0, 10, (*grid.shape, 3))
    voxel = rng.uniform(0, np.array(grid.shape) - 1)
    point = grid.world_from_voxel(voxel)
    moved = (DisplacementField(grid, vectors).source_from_destination(point) - point) * LPS

    lower = np.floor(voxel).astype(int)
    block = vectors[tuple(slice(n, n + 2) for n in lower)].reshape(-1, 3)
    assert (moved >= block.min(axis=0) - 1e-9).all()
    assert (moved <= block.max(axis=0) + 1e-9).all()


def test_every_voxel_centre_has_its_own_vector_up_to_the_border():
    grid = oblique_grid((-1, 1, -1))
    vectors = np.random.default_rng(6).normal(0, 10, (*grid.shape, 3))
    centres = centres_world(grid)
    moved = DisplacementField(grid, vectors).source_from_destination(centres)

    np.testing.assert_allclose(moved, centres + vectors.reshape(-1, 3) * LPS, atol=1e-4)


def test_outside_the_field_there_is_no_mapping():
    grid = Grid((3, 5, 7), np.eye(4))
    field = DisplacementField(grid, np.zeros((3, 5, 7, 3)))
    inside = [[0, 0, 0], [2, 4, 6], [1.5, 0, 6]]
    outside = [
        [-0.01, 0, 0],
        [2.01, 4, 6],
        [1, 4.01, 6],
        [1, 1, -7],
        [1, 1, 1e300],
        [np.nan, 1, 1],
        [1, np.inf, 1],
    ]

    np.testing.assert_allclose(field.source_from_destination(inside), inside)
    assert np.isnan(field.source_from_destination(outside)).all()


@pytest.mark.parametrize("absent", [(SENTINEL,) * 3, (-SENTINEL,) * 3, (0, 0, np.nan), (np.inf, 0, 0)])
def test_a_point_next_to_a_voxel_without_mapping_has_none(tmp_path, absent):
    grid = oblique_grid()
    vectors = np.full((*grid.shape, 3), 3.0)
    vectors[2, 3, 5] = absent
    field = read_displacement_field(write(tmp_path / "warp.nii.gz", grid, vectors))
    touching = grid.world_from_voxel(
        [[2, 3, 5], [2.5, 3.5, 5.5], [1.01, 3, 5], [2, 2.5, 5.99], [2, 3.001, 5]]
    )
    clear = grid.world_from_voxel(
        [[1, 3, 5], [2, 4, 5], [2, 3, 6], [3.5, 3, 5], [1, 2.5, 5.5], [2.5, 3.5, 6]]
    )

    assert np.isnan(field.source_from_destination(touching)).all()
    np.testing.assert_allclose(field.source_from_destination(clear), clear + 3 * LPS)


def test_a_field_of_one_slice_holds_in_that_slice_only():
    field = DisplacementField(Grid((1, 5, 7), np.eye(4)), np.ones((1, 5, 7, 3)))
    moved = field.source_from_destination([[0, 1.5, 2.5], [0.4, 1.5, 2.5]])
    np.testing.assert_allclose(moved, [[-1, 0.5, 3.5], [np.nan] * 3])


def test_missing_and_damaged_files_are_told_apart_from_wrong_shapes(tmp_path):
    grid = oblique_grid()
    whole = write(tmp_path / "whole.nii.gz", grid, np.random.default_rng(8).normal(size=(*grid.shape, 3)))
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "text.nii.gz").write_text("no image", encoding="utf-8")
    (tmp_path / "text.txt").write_text("no image", encoding="utf-8")
    with pytest.raises(ImageError, match=r"no displacement field .*gone\.nii\.gz"):
        read_displacement_field(tmp_path / "gone.nii.gz")
    for name in ("cut.nii.gz", "text.nii.gz", "text.txt"):
        with pytest.raises(ImageError, match=name) as caught:
            read_displacement_field(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_other_image_formats_are_refused(tmp_path):
    nibabel.MGHImage(np.zeros((3, 5, 7), np.float32), np.eye(4)).to_filename(tmp_path / "image.mgz")
    with pytest.raises(ImageError, match="not a NIfTI"):
        read_displacement_field(tmp_path / "image.mgz")


@pytest.mark.parametrize(
    "shape", [(5, 7, 11), (5, 7, 11, 3), (5, 7, 11, 1, 2), (5, 7, 11, 2, 3), (5, 7, 11, 1, 3, 2)]
)
def test_files_of_other_shapes_are_refused_with_their_shape(tmp_path, shape):
    nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)).to_filename(tmp_path / "warp.nii.gz")
    with pytest.raises(GeometryError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        read_displacement_field(tmp_path / "warp.nii.gz")


def test_vectors_have_to_fit_their_grid():
    with pytest.raises(GeometryError, match=r"\(5, 7, 11, 3\)"):
        DisplacementField(oblique_grid(), np.zeros((11, 7, 5, 3)))


def bent_space() -> StraightSpace:
    angle = np.radians(np.linspace(-25, 25, 101))
    circle = 110 * np.stack([0.1 * angle, np.cos(angle), np.sin(angle)], axis=1)
    return StraightSpace(Centerline.from_points(circle - [0, 90, 0], smoothing_mm=5))


def write_sct_folder(
    folder: Path,
    space: StraightSpace,
    height_from_arc: Callable[[FloatArray], FloatArray] = np.copy,
    arc_from_height: Callable[[FloatArray], FloatArray] = np.copy,
) -> FloatArray:
    """Write a straight space as SCT would; return where its straight frame starts in SCT's."""
    straight_grid = Grid(
        (31, 29, 53), np.array([[-2.0, 0, 0, 41], [0, 2, 0, -37], [0, 0, 2, 7], [0, 0, 0, 1]])
    )
    origin = straight_grid.world_from_voxel([16, 14, 0])
    straight = centres_world(straight_grid) - origin
    straight[:, 2] = arc_from_height(straight[:, 2])
    native = space.native_from_straight(straight)
    write(folder / "warp_curve2straight.nii.gz", straight_grid, field_of(straight_grid, native))

    axes = Rotation.from_euler("xyz", (5, -8, 10), degrees=True).as_matrix() * [-2, 2, 2]
    corner = -axes @ [23, 20, 30]
    native_grid = Grid((47, 47, 61), np.block([[axes, corner[:, None]], [np.zeros(3), 1.0]]))
    straight = space.straight_from_native(centres_world(native_grid))
    straight[:, 2] = height_from_arc(straight[:, 2])
    straight += origin
    straight[space.straight_from_native(centres_world(native_grid))[:, 2] < -8] = np.nan
    write(folder / "warp_straight2curve.nii.gz", native_grid, field_of(native_grid, straight))
    return origin[0]


def test_sct_folder_and_analytic_space_agree_within_interpolation(tmp_path):
    space = bent_space()
    origin = write_sct_folder(tmp_path, space)
    warped = read_straightening(tmp_path)
    straight = np.random.default_rng(10).uniform([-20, -20, 2], [20, 20, 90], (500, 3))
    native = space.native_from_straight(straight)

    np.testing.assert_allclose(warped.origin_world, origin)
    np.testing.assert_allclose(warped.native_from_straight(straight), native, atol=0.02)
    np.testing.assert_allclose(warped.straight_from_native(native), straight, atol=0.02)
    np.testing.assert_allclose(
        warped.straight_from_native(warped.native_from_straight(straight)), straight, atol=0.03
    )


def test_heights_that_are_not_arc_length_become_it(tmp_path):
    space = bent_space()
    arc = np.linspace(-60, 200, 1000)
    # In proportion to the native height, as SCT's are: tighter at the ends of this arch than in its middle.
    z = space.centerline.points_world(arc)[:, 2]
    start, end = np.interp([0, space.centerline.length_mm], arc, z)
    height = (z - start) * space.centerline.length_mm / (end - start)
    assert np.abs(height - arc)[(arc > 0) & (arc < space.centerline.length_mm)].max() > 0.5
    write_sct_folder(
        tmp_path, space, lambda a: np.interp(a, arc, height), lambda h: np.interp(h, height, arc)
    )
    warped = read_straightening(tmp_path)
    straight = np.random.default_rng(11).uniform([-20, -20, 2], [20, 20, 90], (500, 3))
    native = space.native_from_straight(straight)

    np.testing.assert_allclose(warped.straight_from_native(native), straight, atol=0.15)
    np.testing.assert_allclose(
        warped.straight_from_native(warped.native_from_straight(straight)), straight, atol=0.05
    )


def test_around_the_axis_of_rough_fields_the_maps_are_exact(tmp_path):
    space = bent_space()
    write_sct_folder(tmp_path, space)
    around = StraightSpace(read_straightening(tmp_path).axis_centerline())
    straight = np.random.default_rng(12).uniform([-20, -20, 5], [20, 20, 90], (500, 3))
    native = space.native_from_straight(straight)
    found = around.straight_from_native(native)

    np.testing.assert_allclose(around.native_from_straight(found), native, atol=1e-6)
    np.testing.assert_allclose(found[:, :2], straight[:, :2], atol=0.1)
    np.testing.assert_allclose(
        found[:, 2] - straight[:, 2], np.median(found[:, 2] - straight[:, 2]), atol=0.1
    )


def test_fields_that_map_no_axis_or_fold_it_are_refused(tmp_path):
    write_sct_folder(tmp_path, bent_space(), arc_from_height=lambda h: np.full_like(h, np.nan))
    with pytest.raises(GeometryError, match="map nothing along the straightened axis"):
        read_straightening(tmp_path)
    with pytest.raises(GeometryError, match="fold the straightened axis"):
        AxisLength(np.arange(4.0), np.array([0.0, 2, 1, 3]))


def test_sct_folder_has_no_mapping_where_sct_wrote_none(tmp_path):
    space = bent_space()
    write_sct_folder(tmp_path, space)
    warped = read_straightening(tmp_path)
    below = space.native_from_straight([[0, 0, -12], [0, 0, 40]])

    np.testing.assert_array_equal(np.isnan(warped.straight_from_native(below))[:, 0], [True, False])
    np.testing.assert_array_equal(
        np.isnan(warped.native_from_straight([[0, 0, -1], [0, 0, 1]]))[:, 0], [True, False]
    )


def test_sct_folder_without_both_fields_is_refused(tmp_path):
    write_sct_folder(tmp_path, bent_space())
    (tmp_path / "warp_straight2curve.nii.gz").unlink()
    with pytest.raises(ImageError, match="warp_straight2curve"):
        read_straightening(tmp_path)
    with pytest.raises(ImageError, match="warp_curve2straight"):
        read_straightening(tmp_path / "nowhere")


def test_origin_has_to_be_a_point():
    field = DisplacementField(oblique_grid(), np.zeros((5, 7, 11, 3)))
    with pytest.raises(GeometryError, match="origin"):
        WarpedStraightSpace(field, field, np.array([0.0, np.nan, 0.0]))


# Against another implementation


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_points_go_where_nitransforms_takes_them(tmp_path, flips):
    """At the centres of voxels, since nitransforms interpolates by cubic splines in between."""
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    grid = oblique_grid(flips)
    vectors = np.random.default_rng(7).uniform(-30, 30, (*grid.shape, 3))
    path = write(tmp_path / "warp.nii.gz", grid, vectors)
    oracle = nonlinear.DenseFieldTransform.from_filename(path, fmt="itk")
    centres = centres_world(grid)
    np.testing.assert_allclose(
        read_displacement_field(path).source_from_destination(centres), oracle.map(centres), atol=2e-3
    )


def test_a_smooth_field_agrees_with_nitransforms_between_the_voxels_too(tmp_path):
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    grid = Grid((23, 29, 31), oblique_grid().affine)
    centres = centres_world(grid)
    moved = centres + 4 * np.sin(centres / 40) + 7
    path = write(tmp_path / "warp.nii.gz", grid, field_of(grid, moved))
    oracle = nonlinear.DenseFieldTransform.from_filename(path, fmt="itk")
    voxels = np.random.default_rng(8).uniform(5, 16, (80, 3))
    points = grid.world_from_voxel(voxels)
    np.testing.assert_allclose(
        read_displacement_field(path).source_from_destination(points), oracle.map(points), atol=0.05
    )
