import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat

from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.grid import Grid, deobliqued_from_world, transform_points
from sct_deepspine.spacing import SpacingPrior, extrapolate_superior, fill_skipped

GRID = Grid((3, 5, 7), np.diag([2.0, 3.0, 4.0, 1.0]))


def test_a_voxel_reaches_half_way_to_the_next_and_the_border_belongs_to_the_lower_side():
    sizes = np.array(GRID.shape)
    inside = np.array([[-0.5, -0.5, -0.5], sizes - 0.500001, (sizes - 1) / 2])
    assert GRID.contains_voxel(inside).all()
    for axis in range(3):
        for place in (-0.500001, sizes[axis] - 0.5, sizes[axis], np.nan, np.inf):
            point = (sizes - 1) / 2
            point[axis] = place
            assert not GRID.contains_voxel([point]).any(), (axis, place)


def test_what_is_inside_rounds_to_a_voxel_of_the_grid():
    """The border between two grids that lie against each other belongs to one of them, not to both."""
    border = np.array([[2.5, 1.0, 1.0]])
    beside = border - [3, 0, 0]
    assert not GRID.contains_voxel(border).any()
    assert GRID.contains_voxel(beside).all()


def test_distances_from_a_landmark_at_either_end_may_differ_more():
    prior = SpacingPrior()
    upper, steps = np.array([1, 2, 3, 10, 24, 25]), np.array([1, 2])
    wide = prior.spreads(upper, steps) > prior.spreads(np.array([10]), np.array([1]))
    assert wide.tolist() == [
        [True, True, False, False, False, True],  # from the dens; to S1/S2
        [True, True, False, False, True, True],
    ]


def test_the_discs_above_go_by_the_size_of_the_upper_neck_alone():
    """A long thorax tells nothing of the dens."""
    depth = SpacingPrior().depth_mm(np.arange(1, 9))
    z = -0.8 * depth[2:]
    z[3:] -= [20, 50, 90]
    points = np.column_stack([np.zeros((6, 2)), z])
    _, placed, _ = extrapolate_superior(points, np.arange(3, 9))
    np.testing.assert_allclose(placed[0, 2] - placed[2, 2], 0.8 * (depth[2] - depth[0]))
    _, of_two, _ = extrapolate_superior(points[:2], np.arange(3, 5))
    np.testing.assert_allclose(of_two[0, 2] - of_two[2, 2], 0.8 * (depth[2] - depth[0]))


@pytest.mark.parametrize("values", [[4, 5, 6], [3]])
def test_without_c2_c3_and_another_disc_nothing_is_placed_above(values):
    points = np.column_stack([np.zeros((len(values), 2)), -17.0 * np.arange(len(values))])
    with pytest.raises(GeometryError, match="C2/C3"):
        extrapolate_superior(points, np.array(values))


@pytest.mark.parametrize(("affine", "message"), [
    (np.eye(3), "shape \\(4, 4\\)"),
    (np.diag([1, np.nan, 1, 1]), "NaN or infinite"),
    (np.diag([1, 1e200, 1, 1]), "enormous"),
    (np.diag([1.0, 0, 1, 1]), "singular"),
    (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
])  # fmt: skip
def test_an_affine_that_places_nothing_is_refused(affine, message):
    with pytest.raises(GeometryError, match=message):
        Grid((5, 5, 5), affine)


def test_thin_and_thick_voxels_are_no_singular_affine():
    grid = Grid((5, 5, 5), np.diag([0.001, 9.0, 0.3, 1.0]))
    np.testing.assert_allclose(grid.spacing_mm, [0.001, 9.0, 0.3])
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2.0


def test_points_are_taken_through_an_affine_as_nibabel_does():
    rng = np.random.default_rng(4)
    affine, points = from_matvec(rng.normal(size=(3, 3)), rng.normal(size=3)), rng.normal(size=(4, 5, 3))
    np.testing.assert_allclose(transform_points(affine, points), apply_affine(affine, points), atol=1e-12)


@pytest.mark.parametrize(("shape", "spacing", "is_turned"), [
    ((20, 64, 64), (4.0, 1.0, 1.0), True),  # sagittal slices
    ((20, 64, 64), (2.0, 1.0, 4.0), True),
    ((64, 64, 20), (1.0, 1.0, 4.0), False),  # axial slices
    ((1, 64, 64), (1.0, 1.0, 4.0), True),  # a single sagittal slice
    ((2, 64, 64), (1.0, 1.0, 4.0), False),
])  # fmt: skip
def test_oblique_slices_are_followed_where_they_were_laid_along_the_spine(shape, spacing, is_turned):
    turn = euler2mat(x=0.3, y=0.1)
    grid = Grid(shape, from_matvec(turn @ np.diag(spacing), [5, 6, 7]))
    expected = np.linalg.inv(turn) if is_turned else np.eye(3)
    np.testing.assert_allclose(deobliqued_from_world(grid)[:3, :3], expected, atol=1e-9)


def test_the_sizes_of_bodies_are_weighed_by_how_people_differ():
    prior = SpacingPrior(body_factors=(1.0, float(np.exp(0.12)), float(np.exp(-0.24))), body_spread=0.12)
    weights = np.exp(prior.log_body())
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[1:] / weights[0], np.exp([-0.5, -2.0]))


def test_a_disc_that_was_not_seen_lies_on_the_curve_of_the_others():
    angle = np.radians(np.arange(0, 50, 10.0))
    points = 200 * np.stack([0 * angle, np.cos(angle), -np.sin(angle)], axis=1)
    _, filled, flags = fill_skipped(points[[0, 1, 3, 4]], np.array([17, 18, 20, 21]))
    assert flags.tolist() == [False, False, True, False, False]
    assert abs(np.linalg.norm(filled[2]) - 200) < 0.6  # a straight line would be 3 mm off
