"""Where a decision of the labelling turns, by what comes out on either side of it."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import COARSE, fake_model

from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.planes import midsagittal_plane
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.anchors import match_anchors
from sct_deepspine.labeling.assessment import CheckedLevels, assign_checked_levels
from sct_deepspine.labeling.canal import find_centerline
from sct_deepspine.labeling.candidates import find_candidates
from sct_deepspine.labeling.corrections import compare_labels
from sct_deepspine.labeling.evidence import Evidence
from sct_deepspine.labeling.heatmaps import PlanePrediction
from sct_deepspine.labeling.levels import Candidates, LevelAssignment, assign_levels
from sct_deepspine.labeling.review import find_warnings
from sct_deepspine.labels import Disc, DiscLabels

LANDMARK = 26
"""S1/S2."""


def assignment_of(values, *, confidence=0.9, probabilities=None):
    values = np.array(values)
    given = np.full(len(values), 0.9) if probabilities is None else np.array(probabilities)
    return LevelAssignment(np.arange(len(values)), values, given, confidence, (), 30.0, 30.0, 1.0, 0, 0.0)


def candidates_of(values):
    points = np.array([[0.0, 0.0, -20.0 * n] for n in range(len(values))])
    return Candidates(points, np.full(len(values), 0.9), np.full((len(values), 23), 1 / 23))


# Levels that are told to be uncertain


@pytest.mark.parametrize(("confidence", "doubted"), [(0.3, True), (0.45, True), (0.55, False), (0.9, False)])
def test_levels_more_likely_wrong_than_right_are_doubted_though_a_landmark_is_seen(confidence, doubted):
    view = DeobliquedVolume.of(Volume(np.zeros((9, 9, 200), np.float32), Grid((9, 9, 200), np.eye(4))))
    discs = tuple(Disc(v, np.array([4.0, 4.0, 190.0 - 15 * n]), 0.9) for n, v in enumerate(range(3, 9)))
    checked = CheckedLevels(
        assignment_of(range(3, 9), confidence=confidence), "landmark", Evidence(confidence)
    )
    told = find_warnings(discs, (), checked, view, anchored=False)
    assert any("the levels are uncertain" in warning for warning in told) == doubted


@pytest.mark.parametrize(
    ("probability", "view"), [(0.2, "no_landmark"), (0.45, "no_landmark"), (0.55, "landmark")]
)
def test_a_landmark_that_is_more_likely_not_there_tells_no_level(probability, view):
    values = [22, 23, 24, 25, LANDMARK]
    model = fake_model()
    landmarks = [value for value in values if value in model.landmarks]
    assert landmarks
    given = [probability if value in landmarks else 0.9 for value in values]
    free = assignment_of(values, probabilities=given)
    checked = assign_checked_levels(candidates_of(values), {}, model, assign=lambda *_args, **_options: free)
    assert checked.view == view


# What lies too far from the canal


@pytest.mark.parametrize(("forwards_mm", "kept"), [(0, True), (12, True), (45, False), (60, False)])
def test_a_disc_far_in_front_of_the_canal_is_none(forwards_mm, kept, phantom):
    view = DeobliquedVolume.of(Volume(phantom.volume.data, phantom.volume.grid))
    canal = Centerline.from_points(phantom.centerline_world)
    plane = midsagittal_plane(view, canal, 2.0)
    tip = phantom.discs[6] + np.array([0.0, forwards_mm, 0.0])
    away = np.linalg.norm(plane.points_world - tip, axis=-1)
    pixel = np.unravel_index(np.nanargmin(away), plane.shape)
    assert np.nanmin(away) < 4
    shape = tuple(-(-n // COARSE.stride) for n in plane.shape)
    cells = np.stack(np.indices(shape), axis=-1)
    maps = COARSE.maps(
        *COARSE.encode({6: COARSE.cell_from_pixel(np.array(pixel, float))}, cells), np.zeros(shape)
    )
    prediction = PlanePrediction(plane, np.zeros(plane.shape, np.float32), maps, COARSE)
    assert len(find_candidates(prediction, canal, view.volume).score) == kept


# Anchors


def test_every_anchor_holds_for_the_disc_that_it_names():
    """Two anchors that leave another number of discs between them than were seen."""
    found = candidates_of(range(5, 12))
    anchors = {5: found.points[0], 12: found.points[6]}
    matched, clamped = match_anchors(found, anchors, Grid((9, 9, 9), np.eye(4)))
    assert clamped == {0: 5, 6: 12}
    assigned = assign_levels(matched, anchors=clamped)
    values = dict(zip(assigned.indices.tolist(), assigned.values.tolist(), strict=True))
    assert (values[0], values[6]) == (5, 12)
    assert (np.diff(assigned.values) >= 1).all()


# Edited labels

GRID = Grid((31, 61, 241), np.eye(4))
NECK = DiscLabels(
    tuple(Disc(v, np.array([15.0, 30.0, 230.0 - 17 * n]), 0.9) for n, v in enumerate(range(3, 13))), GRID, 0.9
)


@pytest.mark.parametrize(("nudge_mm", "moved"), [(0.01, False), (0.2, True), (0.8, True), (1.5, True)])
def test_a_label_was_moved_if_it_lies_elsewhere_than_it_was_written(nudge_mm, moved):
    points = [
        (disc.value, np.add(disc.point_world, [0, nudge_mm * (disc.value == 7), 0])) for disc in NECK.discs
    ]
    corrections = compare_labels(points, NECK, 1.7)
    assert (list(corrections.tips) == [7]) == moved
    if moved:
        np.testing.assert_allclose(corrections.tips[7], points[4][1])


@pytest.mark.parametrize(("copied", "is_copy"), [(3, False), (4, False), (6, True), (10, True)])
def test_labels_most_of_which_lie_elsewhere_are_of_another_scan(copied, is_copy):
    points = [
        (disc.value, np.add(disc.point_world, [0, 0, 8.0 * (n >= copied)]))
        for n, disc in enumerate(NECK.discs)
    ]
    assert (compare_labels(points, NECK, 1.7) is not None) == is_copy


# The canal where nothing is seen


class Wall:
    """Sees the canal at one column in the upper and lower rows, and everywhere alike in between."""

    pixel_mm = 2.0
    codec = COARSE

    def predict(self, planes):
        """Predict maps of planes."""
        out = []
        for plane in planes:
            shape = tuple(-(-n // COARSE.stride) for n in plane.shape)
            canal = np.zeros(shape, np.float32)
            third = shape[0] // 3
            canal[:, shape[1] // 2] = 1
            canal[third:-third] = 0.6
            cells = np.stack(np.indices(shape), axis=-1)
            out.append(COARSE.maps(*COARSE.encode({}, cells), canal))
        return out


def test_where_all_columns_are_alike_the_canal_runs_straight_on():
    grid = Grid((9, 60, 120), np.diag([4.0, 2, 2, 1]))
    volume = Volume(np.random.default_rng(0).random(grid.shape).astype(np.float32), grid)
    found = find_centerline(DeobliquedVolume.of(volume), Wall())
    assert np.ptp(found.samples_world[:, 1]) < 6


def test_replaced_values_of_labels_forget_their_landmarks():
    """A dens that was seen is no dens any more when all levels are renumbered."""
    dens = Disc(2, np.array([15.0, 30.0, 238.0]), 0.9)
    shifted = replace(NECK, landmarks=(dens,)).shifted(1)
    assert shifted.values.tolist() == list(range(4, 14))
    assert shifted.landmarks == ()
    assert 2 not in shifted.with_upper_discs().values
