"""How sure levels may be, by what is known beside their own probability."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import PaintReader, fake_model

from sct_deepspine import label_discs
from sct_deepspine.errors import NoDiscsError
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.assessment import (
    DISAGREEING_LIMIT,
    ODD_SPACING_LIMIT,
    SMALL_VIEW_LIMIT,
    assign_checked_levels,
)
from sct_deepspine.labeling.calibration import LIMITS, Calibration
from sct_deepspine.labeling.candidates import assignment_score
from sct_deepspine.labeling.counting import Variant
from sct_deepspine.labeling.evidence import (
    Evidence,
    gather_evidence,
    kind_of_view,
    landmark_is_seen,
)
from sct_deepspine.labeling.levels import Candidates, assign_levels

CUTS = ("cut above", "cut below")
"""Changes that paint survives: its grey values are its truth."""


def spine(heights, *, first=3, level=0.98, score=0.9):
    """Return candidates at heights (mm, descending) whose levels follow each other."""
    count = len(heights)
    rows = np.full((count, 23), (1 - level) / 22)
    rows[np.arange(count), np.arange(count) + first - 3] = level
    points = np.stack([np.zeros(count), np.zeros(count), heights], axis=1)
    return Candidates(points, np.full(count, score), rows)


def with_another(candidates, height, score):
    """Add a candidate that looks like no level."""
    points = np.vstack([candidates.points, [0, 0, height]])
    order = np.argsort(-points[:, 2])
    level = np.vstack([candidates.level, np.full(23, 1 / 23)])
    return replace(
        candidates, points=points[order], score=np.append(candidates.score, score)[order], level=level[order]
    )


HEIGHTS = -np.cumsum([0, 18.4, 18.4, 16.7, 16.1, 17.0, 21.0])


@pytest.mark.parametrize(("score", "is_doubted"), [(0.5, False), (0.6, True)])
def test_what_looks_like_a_disc_between_two_is_pointed_out(score, is_doubted):
    """Half a level below C5/C6, where no order of levels has room for it."""
    candidates = with_another(spine(HEIGHTS), HEIGHTS[3] - 8, score)
    checked = assign_checked_levels(candidates, {}, fake_model())
    assert len(checked.assignment.values) == len(HEIGHTS)
    assert any("another disc lies between two" in warning for warning in checked.warnings) is is_doubted
    assert bool(checked.assignment.level_confidence <= ODD_SPACING_LIMIT) is is_doubted
    assert bool(checked.assignment.probabilities.max() <= ODD_SPACING_LIMIT) is is_doubted


def test_a_plain_spine_is_sure():
    checked = assign_checked_levels(spine(HEIGHTS), {}, fake_model())
    assert checked.assignment.level_confidence > 0.9
    assert checked.warnings == ()
    assert checked.view == "landmark"


def test_a_disc_left_out_in_a_wide_gap_is_told():
    heights = HEIGHTS - np.array([0, 0, 0, 0, 14, 14, 14])
    candidates = with_another(spine(heights), (heights[3] + heights[4]) / 2, 0.4)
    assignment = assign_levels(spine(heights))
    chosen = [k for k in range(8) if k != 4]
    forced = replace(assignment, indices=np.array(chosen))
    checked = assign_checked_levels(candidates, {}, fake_model(), assign=lambda *a, **k: forced)
    assert checked.evidence.missed == 1
    assert checked.assignment.level_confidence <= DISAGREEING_LIMIT
    assert any("another disc lies between" in sentence for sentence in checked.warnings)


def test_irregular_distances_are_told():
    heights = HEIGHTS - np.array([0, 0, 0, 0, 9, 9, 9])
    checked = assign_checked_levels(spine(heights), {}, fake_model())
    assert checked.evidence.odd_spacing == pytest.approx(np.log((16.1 + 9) / 16.1), abs=0.06)
    assert checked.assignment.level_confidence <= ODD_SPACING_LIMIT
    assert any("irregular" in sentence for sentence in checked.warnings)


def test_discs_left_over_beyond_an_end_are_told():
    assignment = assign_levels(spine(HEIGHTS))
    part = replace(assignment, indices=assignment.indices[2:], values=assignment.values[2:])
    part = replace(part, probabilities=assignment.probabilities[2:])
    checked = assign_checked_levels(spine(HEIGHTS), {}, fake_model(), assign=lambda *a, **k: part)
    assert checked.evidence.unused == 2
    assert checked.assignment.level_confidence <= DISAGREEING_LIMIT
    assert any("2 more discs" in sentence for sentence in checked.warnings)


def test_a_view_without_a_landmark_says_no_more_than_such_views_have_earned():
    for first, kind in ((5, "no_landmark"), (10, "thoracic")):
        checked = assign_checked_levels(spine(1.4 * HEIGHTS, first=first), {}, fake_model())
        assert checked.view == kind
        assert checked.assignment.level_confidence <= LIMITS[kind]
        assert (checked.assignment.probabilities <= LIMITS[kind]).all()


def test_a_true_anchor_lifts_the_limit_of_a_view_without_a_landmark():
    candidates = spine(1.4 * HEIGHTS, first=10)
    for value, sure in ((12, True), (13, True)):
        checked = assign_checked_levels(candidates, {2: value}, fake_model())
        assert checked.assignment.values[2] == value
        assert (checked.assignment.level_confidence > 0.9) == sure
        assert not any("contradicts" in sentence for sentence in checked.warnings)


# Changed readings


def doubtful_model(**options):
    weights = {"landmark": {"places": 4.0}}
    calibration = Calibration(scan={"landmark": (2.0, 1.0)}, scan_weights=weights)
    return fake_model(readings=CUTS, calibration=calibration, **options)


def test_readings_that_agree_leave_a_plain_scan_sure(painted, phantom):
    labels = label_discs(painted, weights=doubtful_model())
    assert labels.values.tolist() == sorted(phantom.discs)
    assert labels.level_confidence > 0.9
    assert labels.evidence["places"] == 1.0
    assert labels.evidence["levels"] == 1.0


class Fickle(PaintReader):
    """Predicts discs half a level lower whenever it is shown as many planes as there are changes."""

    def predict(self, planes):
        maps = PaintReader.predict(self, planes)
        if len(planes) != len(CUTS):
            return maps
        lower = ("any_disc", "level")
        return [replace(m, **{name: np.roll(getattr(m, name), 2, axis=-2) for name in lower}) for m in maps]


def test_readings_that_find_discs_elsewhere_are_doubted(painted):
    labels = label_discs(painted, weights=doubtful_model(locate=Fickle()))
    assert labels.evidence["places"] < 0.6
    assert labels.level_confidence <= DISAGREEING_LIMIT
    assert any("points may be half a level off" in sentence for sentence in labels.warnings)
    anchored = label_discs(
        painted, anchor=(5, labels.points_world[2]), weights=doubtful_model(locate=Fickle())
    )
    assert anchored.level_confidence <= DISAGREEING_LIMIT


def test_a_landmark_that_readings_do_not_see_does_not_count(painted):
    view = DeobliquedVolume.of(painted)
    z = view.extent_mm()
    line = np.stack([np.zeros(50), np.zeros(50), np.linspace(z[0][2], z[1][2], 50)], axis=1)
    point = line[:1]
    assert landmark_is_seen(Evidence(0.99, landmark=0.9), point, line, view)
    assert not landmark_is_seen(Evidence(0.99, landmark=0.3), point, line, view)
    assert not landmark_is_seen(Evidence(0.99, landmark=0.9), point - [0, 0, 60], line, view)
    slice_only = Volume(painted.data[:1], replace(painted.grid, shape=(1, *painted.grid.shape[1:])))
    single = DeobliquedVolume.of(slice_only)
    assert landmark_is_seen(Evidence(0.99, landmark=0.9), point - [0, 0, 60], line, single)


def evidence_of(indices, values, *, heights=HEIGHTS, scores=(0.9, 0.8, 0.7, 0.6, 0.55, 0.25, 0.5), **options):
    """Gather the evidence of an assignment of some of seven candidates."""
    candidates = replace(spine(heights), score=np.array(scores))
    assignment = replace(
        assign_levels(spine(HEIGHTS)),
        indices=np.array(indices),
        values=np.array(values),
        probabilities=np.full(len(values), 0.9),
        runner_up_probability=0.125,
    )
    return gather_evidence(assignment, candidates, **({"landmarks": ()} | options))


def test_peaks_of_which_no_disc_was_made_are_evidence_where_they_lie():
    evidence = evidence_of([2, 4], [10, 11])
    assert (evidence.between, evidence.beyond, evidence.unused) == (0.6, 0.9, 2)
    assert evidence.runner_up == 0.125
    below = evidence_of([1, 2, 3], [10, 11, 12], scores=(0.1, 0.8, 0.7, 0.6, 0.55, 0.25, 0.5))
    assert (below.between, below.beyond, below.unused) == (0.0, 0.55, 2)  # one of the three is faint
    assert evidence_of(range(7), range(10, 17)).beyond == 0.0


@pytest.mark.parametrize(
    ("values", "presacral", "beyond"),
    [
        ([3, 4], 24, 0.6),  # nothing is labelled above C2/C3
        ([4, 5], 24, 0.9),
        ([24, 25], 24, 0.9),  # nor below L5/S1
        ([24, 25], 25, 0.9),
        ([3, 25], 24, 0.0),
        ([3, 24], 24, 0.6),
        ([3, 24], 23, 0.0),  # which has one value less where a vertebra is missing
        ([3, 25], 25, 0.6),
        ([3, 26], 25, 0.0),
    ],
)
def test_peaks_beyond_the_ends_of_the_spine_are_no_discs_left_out(values, presacral, beyond):
    assert evidence_of([1, 2], values, variant=Variant(presacral)).beyond == beyond


def test_odd_distances_are_told_against_the_others():
    even = evidence_of(range(7), VALUES)
    assert even.odd_spacing < 0.05
    assert even.missed == 0
    heights = HEIGHTS - np.array([0, 0, 0, 0, 16, 16, 16])
    assert evidence_of(range(7), VALUES, heights=heights).odd_spacing == pytest.approx(
        np.log((16.1 + 16) / 16.1), abs=0.05
    )
    tall = evidence_of(range(7), VALUES, heights=1.4 * HEIGHTS)  # a large person is not odd
    assert tall.odd_spacing < 0.05
    # A landmark is no disc: how far it is says nothing.
    heights = HEIGHTS + np.array([16, 0, 0, 0, 0, 0, 0])
    assert evidence_of(range(7), VALUES, heights=heights).odd_spacing > 0.4
    assert evidence_of(range(7), VALUES, heights=heights, landmarks={3}).odd_spacing < 0.05


VALUES = list(range(3, 10))


@pytest.mark.parametrize(
    ("values", "probabilities", "support", "kind"),
    [
        (VALUES, [0.9] * 7, 0.9, "landmark"),
        (VALUES, [0.9] * 7, 0.3, "no_landmark"),  # the readings do not see it
        (VALUES, [0.1, *[0.9] * 6], 0.9, "no_landmark"),  # its own level is doubtful
        (VALUES, [0.1] * 7, 0.9, "landmark"),  # so are all: then they count alike
        (VALUES, [0.1] * 7, 0.3, "no_landmark"),
        ([3], [0.9], 0.3, "landmark"),  # there is nothing else to go by
        (VALUES[1:], [0.9] * 6, 0.9, "no_landmark"),
        (list(range(11, 17)), [0.9] * 6, 0.0, "thoracic"),
        ([3, *range(11, 17)], [0.9] * 7, 0.3, "thoracic"),
        ([3, *range(11, 17)], [0.9] * 7, 0.9, "landmark"),
    ],
)
def test_the_kind_of_a_view_goes_by_what_is_surely_seen(values, probabilities, support, kind, painted):
    view = DeobliquedVolume.of(painted)
    low, high = (corner[2] for corner in view.extent_mm())
    line = np.stack([np.zeros(50), np.zeros(50), np.linspace(low, high, 50)], axis=1)
    candidates = spine(high - 10.0 * np.arange(1, len(values) + 1))
    assignment = replace(
        assign_levels(spine(HEIGHTS)),
        indices=np.arange(len(values)),
        values=np.array(values),
        probabilities=np.array(probabilities),
    )
    evidence = Evidence(0.99, landmark=support)
    found = kind_of_view(assignment, candidates, evidence, canal_world=line, view=view, landmarks={3})
    assert found == kind


def test_a_view_that_scores_little_is_labelled_with_doubt_if_its_discs_are_found_again(painted):
    scores = []

    def noted(*arguments, **options):
        assignment = assign_levels(*arguments, **options)
        scores.append(assignment_score(assignment))
        return assignment

    assert label_discs(painted, weights=doubtful_model(), assign=noted).level_confidence > SMALL_VIEW_LIMIT
    needed = scores[0] + 0.2
    labels = label_discs(painted, weights=doubtful_model(minimum_score=needed))
    assert labels.level_confidence <= SMALL_VIEW_LIMIT
    assert any("few discs are in view" in sentence for sentence in labels.warnings)
    for model in (
        doubtful_model(minimum_score=scores[0] + 1.0),
        doubtful_model(minimum_score=needed, locate=Fickle()),
        fake_model(minimum_score=needed),  # which reads nothing again
    ):
        with pytest.raises(NoDiscsError, match="give the level of one disc"):
            label_discs(painted, weights=model)


def test_evidence_is_told_in_numbers():
    told = Evidence(0.5, again={3: 1.0}).as_dict()
    assert told["marginal"] == 0.5
    assert "again" not in told
    assert all(isinstance(value, float) for value in told.values())
