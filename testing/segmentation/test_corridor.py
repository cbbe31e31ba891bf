import numpy as np
import pytest

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.straightening import StraightSpace
from sct_deepspine.segmentation.corridor import (
    ANTERIOR_MM,
    POSTERIOR_MM,
    Corridor,
    corridor_along,
    with_neighbours,
)


@pytest.fixture(scope="module")
def space():
    """A canal as curved as a lordotic neck."""
    z = np.arange(0, 130, 2.0)
    return StraightSpace(
        Centerline.from_points(np.stack([2 * np.sin(z / 40), 12 * np.sin(z / 45), z], axis=1))
    )


def test_cells_and_straight_points_are_each_others_inverse(space):
    corridor = Corridor(space, (3.0, 110.0), 0.7, 1.9)
    cells = np.random.default_rng(0).uniform(0, 20, (50, 3))
    straight = corridor.straight_from_cell(cells)
    np.testing.assert_allclose(corridor.cell_from_straight(straight), cells, atol=1e-9)


def test_rows_run_down_columns_forward_and_planes_to_the_right(space):
    corridor = Corridor(space, (0.0, 100.0))
    first, plane, row, column = corridor.straight_from_cell(
        np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    )
    np.testing.assert_allclose(plane - first, [2, 0, 0])
    np.testing.assert_allclose(row - first, [0, 0, -1])
    np.testing.assert_allclose(column - first, [0, 1, 0])
    assert first[1] == POSTERIOR_MM + 0.5
    assert first[2] == 99.5
    assert corridor.shape == (27, 100, ANTERIOR_MM - POSTERIOR_MM)
    assert corridor.lateral_mm[13] == 0


def test_planes_lie_where_the_space_says(space):
    corridor = Corridor(space, (10.0, 113.0))
    planes = corridor.planes(np.eye(3))
    exact = space.native_from_straight(
        corridor.straight_from_cell(np.indices(corridor.shape).reshape(3, -1).T)
    )
    placed = np.stack([plane.points_world for plane in planes]).reshape(-1, 3)
    both = np.isfinite(placed).all(axis=1)
    assert both.mean() > 0.95
    assert np.linalg.norm(placed[both] - exact[both], axis=1).max() < 0.15


@pytest.mark.parametrize("spacing", [(1.7, 1.7, 1.7), (3.3, 1.3, 1.9), (1.1, 5.0, 2.3)])
def test_voxels_find_their_cells(space, spacing):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -31, -71, -7
    grid = Grid(tuple(int(n) for n in np.ceil(np.array([62, 137, 141]) / spacing)), affine)
    corridor = corridor_along(space, grid, pixel_mm=1.0)
    whole = np.full((3, *grid.shape), np.nan)
    for box, cells in corridor.cells_of_voxels(grid):
        whole[(slice(None), *box)] = cells
    voxels = np.argwhere(np.ones(grid.shape, dtype=bool))
    exact = corridor.cell_from_straight(space.straight_from_native(grid.world_from_voxel(voxels)))
    found = whole.reshape(3, -1).T
    inside = np.all((exact > 0) & (exact < np.array(corridor.shape) - 1), axis=1)
    known = np.isfinite(found).all(axis=1)
    assert known[inside].mean() > 0.97
    off = np.abs(found - exact)[inside & known] * corridor.cell_mm
    assert np.percentile(off, 99) < 0.1


def test_an_image_that_goes_on_far_beyond_the_canal_shows_all_of_it(space):
    """The first slabs of its voxels, and the last ones, lie beside the corridor."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -31, -71, -180
    grid = Grid((31, 69, 260), affine)
    corridor = Corridor(space, (0.0, 120.0))
    known = np.zeros(grid.shape, dtype=bool)
    for box, cells in corridor.cells_of_voxels(grid):
        known[box] |= np.isfinite(cells[0])
    voxels = np.argwhere(np.ones(grid.shape, dtype=bool))
    exact = corridor.cell_from_straight(space.straight_from_native(grid.world_from_voxel(voxels)))
    inside = np.all((exact > 0) & (exact < np.array(corridor.shape) - 1), axis=1)
    assert inside.sum() > 10_000
    assert known.ravel()[inside].mean() > 0.97


def test_a_grid_far_away_has_no_voxel_in_the_corridor(space):
    affine = np.eye(4)
    affine[0, 3] = 500
    assert not list(Corridor(space, (0.0, 100.0)).cells_of_voxels(Grid((11, 13, 17), affine)))


def test_the_corridor_follows_the_canal_to_the_border_of_the_image(space):
    affine = np.eye(4)
    affine[:3, 3] = -30, -60, -20
    corridor = corridor_along(space, Grid((60, 120, 170), affine), pixel_mm=1.0)
    assert corridor.z_mm[0] < -25
    assert corridor.z_mm[1] > space.z_mm[1] + 20
    finer = corridor_along(space, Grid((60, 120, 170), affine), pixel_mm=0.7)
    assert finer.pixel_mm == 0.7
    np.testing.assert_allclose(finer.z_mm, corridor.z_mm, atol=1)


def test_a_plane_between_its_neighbours_has_nothing_beside_the_outermost():
    planes = [np.full((2, 3), n, dtype=np.float32) for n in (1, 2, 3)]
    assert with_neighbours(planes, 1, 3)[:, 0, 0].tolist() == [1, 2, 3]
    assert with_neighbours(planes, 0, 3)[:, 0, 0].tolist() == [0, 1, 2]
    assert with_neighbours(planes, 2, 1)[:, 0, 0].tolist() == [3]
    assert with_neighbours(planes, 0, 5)[:, 0, 0].tolist() == [0, 0, 1, 2, 3]
