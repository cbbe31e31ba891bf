"""What may be discs, and how well they show that there is a spine."""

import numpy as np
import pytest
from fakes import PaintReader

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.labeling.candidates import (
    assignment_score,
    columns_about,
    find_candidates,
    predict_midsagittal,
    spine_score,
)
from sct_deepspine.labeling.levels import Candidates, DecodingParameters, assign_levels

HEIGHTS = -np.cumsum([0, 18.4, 18.4, 16.7, 16.1, 17.0, 21.0])


def spine(count, score=0.9):
    """Return candidates whose levels follow each other from C2/C3 on."""
    level = np.full((count, 23), 0.02 / 22)
    level[np.arange(count), np.arange(count)] = 0.98
    points = np.stack([np.zeros(count), np.zeros(count), HEIGHTS[:count]], axis=1)
    return Candidates(points, np.full(count, score), level)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_spine_scores_as_its_best_assignment_does(count):
    candidates = spine(count)
    assignment = assign_levels(candidates)
    assert len(assignment.values) == count
    assert spine_score(candidates, DecodingParameters()) == pytest.approx(assignment_score(assignment))
    assert assignment_score(assignment) == pytest.approx(assignment.score / count**0.75)


def test_more_and_clearer_discs_score_more():
    usual = DecodingParameters()
    assert spine_score(spine(7), usual) > spine_score(spine(3), usual) > spine_score(spine(1), usual)
    assert spine_score(spine(7), usual) > spine_score(spine(7, score=0.3), usual)


def test_nothing_scores_nothing():
    nothing = Candidates(np.empty((0, 3)), np.empty(0), np.empty((0, 23)))
    assert spine_score(nothing, DecodingParameters()) == 0.0


@pytest.fixture
def canal(phantom):
    return Centerline.from_points(phantom.centerline_world)


@pytest.fixture
def prediction(painted, canal):
    return predict_midsagittal(DeobliquedVolume.of(painted), canal, PaintReader())


def test_discs_beside_the_canal_are_candidates_where_the_map_has_a_peak(prediction, canal, painted, phantom):
    candidates = find_candidates(prediction, canal, painted)
    assert candidates.first_value == 3
    tips = np.array([phantom.discs[value] for value in sorted(phantom.discs)])
    np.testing.assert_allclose(candidates.points[:, 1:], tips[:, 1:], atol=1.5)
    assert (candidates.level.argmax(axis=1) + 3).tolist() == sorted(phantom.discs)


def test_what_lies_far_from_the_canal_is_no_candidate(prediction, canal, painted):
    samples = canal.samples_world
    for offset, is_beside in ((10, True), (45, False), (-45, False)):
        other = Centerline.from_points(samples + np.array([0, offset, 0]))
        assert (len(find_candidates(prediction, other, painted).score) > 0) == is_beside


@pytest.mark.parametrize("margin_mm", [6.0, 15.0])
def test_the_columns_about_the_canal_are_kept(margin_mm, prediction, canal):
    narrow = columns_about(prediction, canal, margin_mm)
    y = prediction.plane.points_world[0, :, 1]
    wanted = canal.samples_world[:, 1].min() - margin_mm, canal.samples_world[:, 1].max() + margin_mm
    kept = narrow.plane.points_world[0, :, 1]
    pixel = prediction.plane.pixel_mm
    assert sorted([kept.min(), kept.max()]) == pytest.approx(
        [max(wanted[0], y.min()), min(wanted[1], y.max())], abs=1.1 * pixel
    )
    first = int(np.argmin(np.abs(y - kept[0])))
    np.testing.assert_array_equal(narrow.image, prediction.image[:, first : first + len(kept)])
    assert narrow.maps is prediction.maps


def test_of_a_canal_beside_the_plane_a_column_is_kept(prediction, canal):
    for offset in (500, -500):
        beside = Centerline.from_points(canal.samples_world + np.array([0, offset, 0]))
        assert columns_about(prediction, beside, 5.0).image.shape[1] == 1
