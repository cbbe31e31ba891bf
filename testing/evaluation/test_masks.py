from dataclasses import replace

import numpy as np
import pytest
from fakes import TissueOracle, fake_mask_model, fake_model, paint_truth

from sct_deepspine.evaluation.masks import (
    MaskResult,
    MaskScore,
    area_report,
    cord_areas,
    mask_report,
    score_masks,
    segment_and_score,
    surface_distance_mm,
)
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labels import DiscLabels
from sct_deepspine.segmentation.masks import SpineMasks
from sct_deepspine.simulation.perturbations import Case

SPACING = np.array([2.0, 1.0, 0.5])


def box(low, high, shape=(13, 17, 19)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_surfaces_are_as_far_apart_as_they_were_moved():
    one = box((2, 3, 4), (8, 9, 10))
    moved = box((2, 5, 4), (8, 11, 10))
    assert surface_distance_mm(one, one, SPACING) == 0
    assert surface_distance_mm(one, moved, SPACING, percentile=100) == 2.0
    assert surface_distance_mm(one, moved, SPACING) == surface_distance_mm(moved, one, SPACING)


def test_a_tenth_of_a_surface_that_is_far_off_counts():
    """The distance is near the largest, not in the middle, but one odd corner does not decide."""
    true = box((2, 2, 2), (42, 42, 5), shape=(44, 44, 24))
    most, few = true.copy(), true.copy()
    most[2:42, 2:10, 5:20] = True  # a fifth of it is raised by 15 voxels
    few[2:4, 2:4, 5:20] = True
    spacing = np.ones(3)
    assert surface_distance_mm(most, true, spacing) > 10
    assert surface_distance_mm(most, true, spacing, percentile=50) == 0
    assert surface_distance_mm(few, true, spacing) < 5


def test_an_empty_mask_is_infinitely_far_unless_both_are():
    one, none = box((2, 3, 4), (8, 9, 10)), np.zeros((13, 17, 19), dtype=bool)
    assert surface_distance_mm(one, none, SPACING) == np.inf
    assert surface_distance_mm(none, none, SPACING) == 0


@pytest.fixture
def masked(phantom):
    """The phantom with a mask of every kind, and the masks that a perfect segmentation would make."""
    grid, tissue = phantom.volume.grid, phantom.tissue.data
    bodies = np.where(tissue == 1, 5, 0).astype(np.uint8)
    scan = replace(phantom, bodies=Volume(bodies, grid), cord=Volume((tissue == 4).astype(np.uint8), grid))
    spine = np.array([0, 15, 65, 2, 1], dtype=np.uint8)[tissue]
    return scan, SpineMasks(spine, np.zeros_like(spine), grid, DiscLabels((), grid, 1.0))


def test_perfect_masks_score_one(masked):
    scan, masks = masked
    scores = {score.structure: score for score in score_masks(masks, scan, masks.grid)}
    assert set(scores) == {"canal", "discs", "vertebrae", "cord", "bodies"}
    for name, score in scores.items():
        assert score.dice == 1
        if name != "bodies":
            assert (score.distance_mm, score.volume_ratio) == (0, 1)
    assert scores["bodies"].right_level == 1


def test_a_level_off_is_seen_in_the_levels_alone(masked):
    scan, masks = masked
    off = replace(masks, spine=np.where(masks.spine == 15, 16, masks.spine).astype(np.uint8))
    scores = {score.structure: score for score in score_masks(off, scan, masks.grid)}
    assert scores["bodies"].dice == scores["vertebrae"].dice == 1
    assert scores["bodies"].right_level == 0


def test_what_failed_scores_nothing(masked):
    scan, masks = masked
    for score in score_masks(None, scan, masks.grid):
        assert score.dice == 0
        assert score.structure == "bodies" or score.distance_mm == np.inf


def test_a_cord_beyond_the_true_masks_ends_is_not_counted(masked):
    scan, masks = masked
    cord = scan.cord.data.copy()
    cord[..., : cord.shape[2] // 2] = 0
    half = replace(scan, cord=Volume(cord, masks.grid))
    scores = {score.structure: score for score in score_masks(masks, half, masks.grid)}
    assert scores["cord"].dice == 1


def test_masks_are_compared_on_the_images_own_grid(masked):
    scan, masks = masked
    turn = np.eye(4)
    turn[:3, 3] = 3.0, -5.0, 7.0
    moved = replace(masks, grid=masks.grid.transformed(turn))
    scores = list(score_masks(moved, scan, moved.grid, np.linalg.inv(turn)))
    assert min(score.dice for score in scores) > 0.999


def test_the_area_of_the_cord_is_that_of_a_tilted_cylinder(phantom):
    direction = np.array([0.0, 0.35, 1.0]) / np.hypot(0.35, 1)
    grid = Grid((30, 120, 120), np.diag([1.0, 1.0, 1.0, 1.0]))
    centre = np.array([14.0, 40.0, 0.0])
    offset = grid.world_from_voxel(np.indices(grid.shape).reshape(3, -1).T) - centre
    along = offset @ direction
    radius = np.linalg.norm(offset - along[:, None] * direction, axis=1)
    cord = (radius < 6).reshape(grid.shape)
    line = centre + np.arange(0, 125, 2.0)[:, None] * direction
    scan = replace(
        phantom, centerline_world=line, discs={v: line[55 - 8 * n] for n, v in enumerate((4, 5, 6, 7))}
    )
    areas = cord_areas(cord, grid, scan)
    assert list(areas) == [4, 5, 6]
    np.testing.assert_allclose(list(areas.values()), np.pi * 36, rtol=0.04)


def test_a_case_is_segmented_and_scored(phantom):
    painted = paint_truth(phantom)
    case = Case("plain", painted, phantom.discs, phantom.span_z_mm)
    scan = replace(phantom, volume=painted)
    result = segment_and_score(scan, case, model=fake_mask_model(_Nothing()), labeling=fake_model())
    assert {score.dice for score in result.scores} == {0.0}
    assert result.seconds > 0


class _Nothing(TissueOracle):
    def __init__(self):
        pass

    def predict(self, planes):
        maps = np.zeros((len(planes), 5, *planes[0].shape[-2:]), dtype=np.float32)
        maps[:, 0] = 1
        return list(maps)


def test_the_reports_tell_means_and_errors():
    scores = tuple(
        MaskScore(f"scan {n}", f"subject {n}", "canal", dice, 1.0, 1.1) for n, dice in enumerate((0.8, 1.0))
    )
    results = [
        MaskResult("plain", scores[:1], {4: 80.0}, {4: 84.0}, 1.0),
        MaskResult("plain", scores[1:], {}, {}, 1),
    ]
    assert "0.900 (0.800 to 1.000)" in mask_report(results)
    assert "0.800  " in mask_report(results[:1])  # one subject has no interval
    assert "C4" in area_report(results)
    assert "+5.0" in area_report(results)
