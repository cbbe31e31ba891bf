import numpy as np
import pytest

from sct_deepspine.errors import GeometryError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.spacing import SpacingPrior, extrapolate_superior

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
