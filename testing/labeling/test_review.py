"""What a person is told to look at: with the right names, numbers and reasons."""

import numpy as np
import pytest
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from sct_deepspine.anatomy import EXPECTED_SPACING_MM
from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.assessment import CheckedLevels
from sct_deepspine.labeling.evidence import Evidence
from sct_deepspine.labeling.levels import LevelAssignment
from sct_deepspine.labeling.review import check_anchors, find_warnings
from sct_deepspine.labels import Disc, Note


def assignment_of(values, *, confidence=0.9, shift=0, indices=None):
    values = np.array(values)
    indices = np.arange(len(values)) if indices is None else np.array(indices)
    given = np.full(len(values), 0.9)
    return LevelAssignment(indices, values, given, confidence, (), 30.0, 30.0, 1.0, shift, 0.1)


def view_of(*, turn_degrees=0.0):
    turn = from_matvec(euler2mat(x=np.radians(turn_degrees)), [0, 0, 0])
    grid = Grid((5, 9, 11), np.diag([2.0, 1.0, 1.0, 1.0])).transformed(turn)
    return DeobliquedVolume.of(Volume(np.zeros(grid.shape, np.float32), grid))


def spine(first, last, *, stretched=None, factor=1.0):
    """Discs at the expected distances, but for the one below a level."""
    z, discs = 0.0, []
    for value in range(first, last + 1):
        discs.append(Disc(value, np.array([0.0, 0.0, z]), 0.9))
        z -= EXPECTED_SPACING_MM[value] * (factor if value == stretched else 1)
    return tuple(discs)


def told(discs, assignment, *, kind="landmark", anchored=False, view=None):
    claimed = frozenset(assignment.values.tolist()) & {1, 2, 26}
    checked = CheckedLevels(assignment, kind, Evidence(assignment.level_confidence), claimed=claimed)
    return find_warnings(discs, (), checked, view or view_of(), anchored=anchored)


def test_a_sound_spine_with_a_landmark_is_not_doubted():
    assert told(spine(3, 10), assignment_of(range(3, 11))) == ()


@pytest.mark.parametrize(("factor", "number"), [(2.0, "2.0 times"), (0.5, "0.5 times")])
def test_an_odd_distance_is_told_with_its_discs_and_its_ratio(factor, number):
    (warning,) = told(spine(3, 10, stretched=6, factor=factor), assignment_of(range(3, 11)))
    distance = factor * EXPECTED_SPACING_MM[6]
    assert warning.startswith(f"C5/C6 and C6/C7 are {distance:.0f} mm apart, {number} the expected spacing; ")


def test_the_size_of_a_body_is_not_odd():
    large = tuple(Disc(d.value, 1.7 * d.point_world, 0.9) for d in spine(3, 10))
    assert told(large, assignment_of(range(3, 11))) == ()


@pytest.mark.parametrize(("values", "why"), [
    (range(20, 27), "S1/S2 is not clearly visible, so the levels are uncertain: the probability"),
    (range(1, 9), "the tip of the dens and the base of the dens are not clearly visible, so the levels"),
])  # fmt: skip
def test_a_landmark_that_is_hardly_seen_is_named(values, why):
    first = max(values[0], 3)
    (warning,) = told(spine(first, min(values[-1], 25)), assignment_of(values), kind="no_landmark")
    assert warning.startswith(why)


def test_odd_distances_are_told_beside_those_of_the_same_person():
    large = tuple(Disc(d.value, 1.3 * d.point_world, 0.9) for d in spine(3, 10, stretched=6, factor=2.0))
    (warning,) = told(large, assignment_of(range(3, 11)))
    assert "mm apart, 2.0 times the expected spacing" in warning


def test_a_view_without_a_landmark_says_so_and_names_the_disc_in_the_middle():
    (warning,) = told(spine(10, 16), assignment_of(range(10, 17)), kind="thoracic")
    assert "neither the dens nor S1/S2 is in view" in warning
    assert "right is 0.90, and all may be shifted by -1 or +1; give the level" in warning
    assert "the one labelled T5/T6," in warning
    (likely,) = told(spine(10, 16), assignment_of(range(10, 17), shift=-1), kind="thoracic")
    assert "the next likely levels are shifted by -1" in likely
    assert "-1 or +1" not in likely
    assert told(spine(10, 16), assignment_of(range(10, 17)), kind="thoracic", anchored=True) == ()


@pytest.mark.parametrize("anchored", [False, True])
def test_no_low_confidence_is_given_without_a_word(anchored):
    assignment = assignment_of(range(3, 11), confidence=0.6)
    (warning,) = told(spine(3, 10), assignment, anchored=anchored)
    assert "the probability that every level is right is 0.60; check that every point lies on" in warning
    assert warning.startswith("with the anchor, ") is anchored
    checked = CheckedLevels(assignment, "landmark", Evidence(0.6), warnings=("a reason",))
    assert find_warnings(spine(3, 10), (), checked, view_of(), anchored=anchored) == ()
    assert told(spine(3, 10), assignment_of(range(3, 11), confidence=0.8), anchored=anchored) == ()


def test_a_doubt_beside_a_landmark_does_not_speak_of_shifts_that_are_not_likely():
    (warning,) = told(spine(3, 10), assignment_of(range(3, 11), confidence=0.3))
    assert "the levels are uncertain: the probability that every level is right is 0.30; give" in warning


@pytest.mark.parametrize(("degrees", "warned"), [(0, False), (30, False), (38, False), (42, True)])
def test_very_oblique_slices_are_told_with_their_angle(degrees, warned):
    warnings = told(spine(3, 10), assignment_of(range(3, 11)), view=view_of(turn_degrees=degrees))
    assert any(f"turned by {degrees}°" in warning for warning in warnings) == warned
    assert bool(warnings) == warned


def test_discs_that_were_filled_in_are_named():
    discs = [Disc(d.value, d.point_world, 0.4, d.value in (5, 7)) for d in spine(3, 10)]
    (warning,) = told(tuple(discs), assignment_of([3, 4, 6, 8, 9, 10]))
    assert warning == "not seen, placed between its neighbours: C4/C5, C6/C7"


def test_a_disc_that_a_note_calls_unseen_is_not_named_again():
    discs = tuple(Disc(d.value, d.point_world, 0.4, d.value in (5, 7)) for d in spine(3, 10))
    assignment = assignment_of([3, 4, 6, 8, 9, 10])
    checked = CheckedLevels(assignment, "landmark", Evidence(0.9))
    notes = [Note("implant", "a void", (5,)), Note("transitional sacrum", "large", (7,))]
    (warning,) = find_warnings(discs, notes, checked, view_of(), anchored=False)
    assert warning == "not seen, placed between its neighbours: C6/C7"


# Anchors against the image


def test_an_anchor_against_a_sure_image_is_told_with_what_the_image_says():
    free, held = assignment_of(range(3, 11)), assignment_of(range(4, 12))
    (warning,) = check_anchors(held, free, {2: 6})
    assert "the anchor 6 (C5/C6) contradicts the image: without it this disc is 5 (C4/C5)" in warning
    assert "with probability 0.90, and the discs are C2/C3 to T2/T3" in warning
    unsure = assignment_of(range(3, 11), confidence=0.7)
    assert check_anchors(held, unsure, {2: 6}) == ()


def test_an_anchor_on_no_detected_disc_is_told_by_what_becomes_of_the_others():
    free = assignment_of(range(3, 11), indices=[0, 1, 2, 3, 5, 6, 7, 8])
    held = assignment_of(range(4, 12), indices=[1, 2, 3, 4, 5, 6, 7, 8])
    (warning,) = check_anchors(held, free, {4: 7})
    assert "the anchor 7 (C6/C7) contradicts the image: with it 4 of 8 discs get other values" in warning
    unsure = assignment_of(range(3, 11), confidence=0.7, indices=[0, 1, 2, 3, 5, 6, 7, 8])
    assert check_anchors(held, unsure, {4: 7}) == ()
    between = assignment_of([3, 4, 5, 6, 7, 8, 9, 10], indices=[0, 1, 2, 3, 4, 5, 6, 7])
    seen = assignment_of([3, 4, 5, 6, 8, 9, 10], indices=[0, 1, 2, 3, 5, 6, 7])
    assert check_anchors(between, seen, {4: 7}) == ()


def test_anchors_that_count_otherwise_than_the_image_say_how_many_discs_are_seen():
    free, held = assignment_of(range(5, 12)), assignment_of([5, 7, 8, 9, 10, 11, 12])
    (warning,) = check_anchors(held, free, {0: 5, 6: 12})
    assert "between the anchors 5 (C4/C5) and 12 (T4/T5) 5 discs are seen, 6 are expected" in warning
    shifted, unsure = assignment_of(range(6, 13)), assignment_of(range(5, 12), confidence=0.5)
    assert check_anchors(shifted, unsure, {0: 6, 6: 12}) == ()


def test_anchors_in_a_spine_with_a_vertebra_more_bear_its_names():
    free, held = assignment_of(range(20, 27)), assignment_of(range(19, 26))
    (warning,) = check_anchors(held, free, {6: 25}, presacral=25, free_presacral=25)
    assert "the anchor 25 (L5/L6) contradicts the image: without it this disc is 26 (L6/S1)" in warning
    assert "the discs are T12/L1 to L6/S1" in warning
    fewer = assignment_of([19, 21, 22, 23, 24, 25, 26])
    (counted,) = check_anchors(fewer, free, {0: 19, 6: 26}, presacral=25, free_presacral=25)
    assert "between the anchors 19 (T11/T12) and 26 (L6/S1)" in counted


@pytest.mark.parametrize(("kept", "fits"), [(5, False), (6, True), (10, True)])
def test_an_anchor_that_leaves_few_discs_is_refused_by_name(kept, fits):
    free, held = assignment_of(range(3, 13)), assignment_of(range(3, 3 + kept))
    if fits:
        assert check_anchors(held, free, {0: 3}) == ()
    else:
        with pytest.raises(AnchorError, match=r"3 \(C2/C3\) .* 5 of 10 discs .* it C2/C3 to T4/T5"):
            check_anchors(held, free, {0: 3})
