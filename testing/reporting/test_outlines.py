import numpy as np
import pytest

from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.planes import sagittal_plane
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.reporting.outlines import outline, outlined_structures
from sct_deepspine.segmentation.masks import SpineMasks, disc_mask_value


def points(path):
    pieces = [piece.strip("Z") for piece in path.split("M")[1:]]
    return [np.array([place.split() for place in piece.split("L")], dtype=float) for piece in pieces]


def box_masks(orientation=(1, 1, 1)):
    """A disc C4/C5 that fills 20 × 8 × 4 mm, in an image of 1 × 0.5 × 2 mm."""
    affine = np.diag([1.0, 0.5, 2.0, 1.0]) @ np.diag([*orientation, 1])
    affine[:3, 3] = 3.0, -7.0, 11.0
    spine = np.zeros((41, 53, 29), dtype=np.uint8)
    spine[10:30, 16:32, 12:14] = disc_mask_value(5)
    grid = Grid(spine.shape, affine)
    labels = DiscLabels((Disc(5, grid.world_from_voxel([20, 16, 13])[0], 0.6),), grid, 0.6)
    return SpineMasks(spine, np.zeros_like(spine), grid, labels, measured=frozenset({disc_mask_value(5)}))


@pytest.mark.parametrize("orientation", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_the_outline_of_a_box_is_where_the_box_is(orientation):
    masks = box_masks(orientation)
    edges = masks.grid.world_from_voxel([[9.5, 15.5, 11.5], [29.5, 31.5, 13.5]])
    low, high = edges.min(axis=0), edges.max(axis=0)
    corner = np.array([edges[:, 0].mean(), low[1] - 6.25, high[2] + 5.25])
    plane = sagittal_plane(corner, (37, 43), 0.5)
    (part,) = outlined_structures(masks, sagittal=plane)
    assert (part["kind"], part["name"], part["unsure"], part["measured"]) == ("disc", "C4/C5", True, True)
    (line,) = points(part["sagittal"])
    assert len(line) == 8  # four sides, four cut corners
    assert line.min(axis=0) == pytest.approx([12.0, 10.0], abs=0.51)  # posterior and superior side, pixels
    assert line.max(axis=0) == pytest.approx([12.0 + 16, 10.0 + 8], abs=0.51)


def test_a_structure_that_a_plane_does_not_meet_has_an_empty_outline():
    masks = box_masks()
    beside = sagittal_plane(masks.grid.world_from_voxel([2, 0, 28])[0], (30, 30), 1.0)
    (part,) = outlined_structures(masks, sagittal=beside)
    assert part["sagittal"] == ""


def test_holes_and_pieces_have_lines_of_their_own():
    mask = np.zeros((13, 17), dtype=bool)
    mask[2:9, 3:10], mask[4:6, 5:7], mask[11, 14] = True, False, True
    lines = points(outline(mask))
    assert len(lines) == 3
    assert min(line.min() for line in lines) == 1.5
    assert outline(np.zeros((5, 7), dtype=bool)) == ""


def test_a_mask_at_the_border_is_closed_there():
    (line,) = points(outline(np.ones((3, 5), dtype=bool)))
    assert line.min(axis=0).tolist() == [-0.5, -0.5]
    assert line.max(axis=0).tolist() == [4.5, 2.5]
