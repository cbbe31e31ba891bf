"""What a person edited is what comes out: by hand-made cases, and by random edits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_deepspine.anatomy import disc_name
from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.labeling.corrections import Corrections, compare_labels
from sct_deepspine.labels import Disc, DiscLabels, VertebraCount

GRID = Grid((31, 61, 241), np.eye(4))


def labels_of(values):
    discs = tuple(
        Disc(v, np.array([15.0, 30.0, 230.0 - 17.0 * n]), 0.9) for n, v in enumerate(sorted(values))
    )
    return DiscLabels(discs, GRID, 0.9)


def points_of(labels):
    return {disc.value: disc.point_world for disc in labels.discs}


def edited(labels, points):
    corrections = compare_labels(list(points), labels, voxel_mm=1.7)
    assert corrections is not None
    return points_of(corrections.apply(labels))


NECK = labels_of(range(3, 13))


def test_an_unedited_copy_changes_nothing():
    assert compare_labels(list(points_of(NECK).items()), NECK, 1.7) == Corrections()


@pytest.mark.parametrize(
    "far", [(0, 0, 1), (0, -1, 1), (0, 0, 14), (0, 0, -20), (0, 14, 0), (0, -30, 0), (12, 9, 40)]
)
def test_a_disc_stays_where_it_was_moved_however_far(far):
    points = points_of(NECK)
    points[7] = points[7] + far
    after = edited(NECK, points.items())
    assert list(after) == list(range(3, 13))
    np.testing.assert_allclose(after[7], points[7])


@pytest.mark.parametrize(
    ("first", "last", "shift", "value"), [(18, 25, 1, 25), (18, 25, 2, 25), (3, 12, -3, 3)]
)
def test_a_nudged_disc_is_never_renumbered_out_of_the_spine(first, last, shift, value):
    labels = labels_of(range(first, last + 1))
    points = points_of(labels)
    points[value] = points[value] + np.array([0, 1, 0])
    other = 20 if first > 3 else 7
    points = {(v + shift if v == other else v): p for v, p in points.items() if v != other + shift}
    with pytest.raises(AnchorError, match=f"would be {value + shift}"):
        edited(labels, points.items())


def test_a_disc_moved_to_where_the_dens_would_be_renumbers_nothing():
    whole = labels_of(range(2, 13))
    points = {v: p for v, p in points_of(whole).items() if v > 2}
    points[3] = whole.discs[0].point_world + np.array([0, 1, 1])
    after = edited(whole, points.items())
    assert list(after) == list(range(3, 13))
    np.testing.assert_allclose(after[3], points[3])


def test_renamed_and_removed_in_one_edit():
    renamed = {v + 1: p for v, p in points_of(NECK).items()}
    without_first = {v: p for v, p in renamed.items() if v != 4}
    assert list(edited(NECK, without_first.items())) == list(range(5, 14))
    without_second = {v: p for v, p in renamed.items() if v != 5}
    assert list(edited(NECK, without_second.items())) == [4, *range(6, 14)]


def test_a_disc_removed_and_renamed_out_of_the_spine_has_no_name_to_tell():
    labels = labels_of(range(15, 26))
    kept = {value + 2: point for value, point in points_of(labels).items() if value < 24}
    assert list(edited(labels, kept.items())) == list(kept)


def test_the_lowest_disc_of_a_spine_with_a_vertebra_more_is_told_by_its_name():
    labels = replace(labels_of(range(15, 27)), count=VertebraCount(25, 1.0))
    corrections = compare_labels([*points_of(labels).items()][:-2], labels, 1.7)
    assert "not among the edited labels, so left out: L5/L6, L6/S1" in corrections.apply(labels).warnings


def test_a_disc_removed_in_between_stays_away_and_the_gap_is_pointed_out():
    points = {v: p for v, p in points_of(NECK).items() if v != 6}
    labels = compare_labels(list(points.items()), NECK, 1.7).apply(NECK)
    assert labels.values.tolist() == [3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert any("C5/C6 was removed" in warning for warning in labels.warnings)
    assert labels.for_template().values.tolist() == [7, 8, 9, 10, 11, 12]  # the longest run without a gap


@pytest.mark.parametrize("value", [4, 11])
def test_a_gap_beside_an_end_is_pointed_out_too(value):
    points = {v: p for v, p in points_of(NECK).items() if v != value}
    labels = compare_labels(list(points.items()), NECK, 1.7).apply(NECK)
    assert [warning.split(";")[0] for warning in labels.warnings] == [f"{disc_name(value)} was removed"]


def test_discs_left_out_at_the_ends_are_named_and_c1_c2_is_not():
    whole = labels_of(range(2, 13))
    points = {v: p for v, p in points_of(whole).items() if v not in (2, 3, 12)}
    labels = compare_labels(list(points.items()), whole, 1.7).apply(whole)
    assert labels.warnings == ("not among the edited labels, so left out: C2/C3, T4/T5",)
    counted = replace(labels_of(range(20, 27)), count=VertebraCount(25, 0.9))
    points = {v: p for v, p in points_of(counted).items() if v < 26}
    labels = compare_labels(list(points.items()), counted, 1.7).apply(counted)
    assert labels.warnings == ("not among the edited labels, so left out: L6/S1",)


def test_a_person_who_renamed_is_sure_of_the_levels():
    points = points_of(NECK)
    renamed = [(v + 1, p) for v, p in points.items()]
    assert compare_labels(renamed, NECK, 1.7).apply(NECK).level_confidence == 1.0
    fewer = list(points.items())[1:]
    assert compare_labels(fewer, NECK, 1.7).apply(NECK).level_confidence == NECK.level_confidence


def test_every_disc_that_was_nudged_is_moved():
    points = {v: p + np.array([0, 0.6 * (v in (4, 7, 12)), 0]) for v, p in points_of(NECK).items()}
    corrections = compare_labels(list(points.items()), NECK, 1.7)
    assert list(corrections.tips) == [4, 7, 12]
    assert (corrections.shift, corrections.removed) == (0, frozenset())


def test_the_last_disc_of_a_longer_spine_can_be_moved():
    counted = replace(labels_of(range(20, 27)), count=VertebraCount(25, 0.9))
    points = points_of(counted)
    points[26] = points[26] + np.array([0, 1, 0])
    np.testing.assert_allclose(edited(counted, points.items())[26], points[26])


def test_nothing_left_is_an_error():
    with pytest.raises(AnchorError, match="nothing is left to write"):
        Corrections(removed=frozenset(range(3, 13))).apply(NECK)
    with pytest.raises(AnchorError, match="nothing is left to write"):
        Corrections(shift=30).apply(NECK)


@pytest.mark.parametrize("at_voxel", [True, False])
def test_a_label_image_holds_a_disc_at_the_voxel_of_its_tip(at_voxel):
    """A tip lies between voxels, and at the image's border in the outermost one."""
    heights = [240.4, 220.3, 200.25, 180.6, 17.7, 0.3]
    tips = {v: np.array([0.2, 60.3, z]) for v, z in enumerate(heights, start=3)}
    automatic = DiscLabels(tuple(Disc(v, tip, 0.9) for v, tip in tips.items()), GRID, 0.9)
    points = [(v, tip.round() if at_voxel else tip + np.array([0.03, 0, 0])) for v, tip in tips.items()]
    assert compare_labels(points, automatic, 1.7) == Corrections()
    points[2] = (5, points[2][1] + [0.06, 0, 0.3])
    assert list(compare_labels(points, automatic, 1.7).tips) == [5]


FAR = np.array([15.0, 55.0, 12.0])


def one_renamed(automatic=NECK):
    """Return the labels of a file in which C5/C6 bears the value of C6/C7: all others follow by one."""
    return {v: (7 if v == 6 else v, p) for v, p in points_of(automatic).items()}


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        (10, 10, 11),  # moved under its old value, which follows the others
        (10, 11, 11),  # moved under the value that it has now
        (None, 13, 14),  # added below the others
    ],
)
def test_a_disc_at_a_new_place_follows_the_renumbering(old, value, new):
    points = one_renamed()
    points.pop(old, None)
    after = edited(NECK, [*points.values(), (value, FAR)])
    assert list(after) == sorted({*range(4, 14), new})
    np.testing.assert_allclose(after[new], FAR)


def test_a_value_that_fits_no_disc_that_is_gone_is_refused_while_others_are_renamed():
    points = one_renamed()
    del points[10]
    with pytest.raises(AnchorError, match="15 is at a new place while others were renamed"):
        compare_labels([*points.values(), (15, FAR)], NECK, 1.7)


def test_labels_without_c1_c2_can_be_renamed_and_added_to_at_once():
    whole = labels_of(range(2, 13))
    points = one_renamed(whole)
    del points[2]  # it is rarely written
    assert list(edited(whole, [*points.values(), (13, FAR)])) == list(range(4, 15))


def test_one_renamed_disc_renumbers_the_others():
    points = [(7 if v == 6 else v, p) for v, p in points_of(NECK).items()]
    assert list(edited(NECK, points)) == list(range(4, 14))


def test_a_disc_can_be_added():
    points = points_of(NECK) | {13: np.array([15.0, 30.0, 60.0])}
    assert list(edited(NECK, points.items())) == list(range(3, 14))


def rename_two(points):
    return [(12 if v in (5, 7) else v, p) for v, p in points.items()]


def use_a_value_twice(points):
    return [*points.items(), (5, np.array([15.0, 50.0, 10.0]))]


def move_one_and_rename_another(points):
    """Rename C2/C3 to 4, remove 4, and put 5 elsewhere: it may be the old 5 or the old 4."""
    far = points[5] + np.array([0, 25, 0])
    kept = [(v, p) for v, p in points.items() if v > 5]
    return [(4, points[3]), (5, far), *kept]


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (rename_two, r"renamed by \+5 and \+7"),
        (use_a_value_twice, "5 at two places"),
        (move_one_and_rename_another, "do one after the other"),
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(edit, match):
    with pytest.raises(AnchorError, match=match):
        compare_labels(edit(points_of(NECK)), NECK, 1.7)


def test_labels_of_another_scan_are_no_edited_copy():
    points = [(v, p + np.array([0, 3, 5])) for v, p in points_of(NECK).items()]
    assert compare_labels(points, NECK, 1.7) is None


@pytest.mark.parametrize(
    ("discs", "copied", "others", "is_copy"),
    [
        (2, 2, 0, False),  # two labels where two discs are seen: whoever labels by hand does as well
        (3, 2, 0, False),
        (3, 3, 0, True),
        (4, 3, 0, True),
        (9, 4, 0, False),
        (9, 5, 0, True),
        (10, 4, 0, False),
        (10, 5, 0, True),
        (10, 5, 5, True),
        (10, 5, 6, False),
    ],
)
def test_a_copy_has_three_labels_and_half_of_all(discs, copied, others, is_copy):
    automatic = labels_of(range(3, 3 + discs))
    points = list(points_of(automatic).items())[:copied]
    points += [(3 + copied + n, np.array([15.0, 5.0, 200.0 - 9 * n])) for n in range(others)]
    found = compare_labels(points, automatic, 1.7)
    assert (found is not None) == is_copy


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_was_edited_comes_out(data):
    """Random edits: renumber all, move, remove and add some; the result is what the file says."""
    shift = data.draw(st.integers(-2, 3))
    values = list(range(5, 15))
    automatic = labels_of(values)
    file = {v + shift: p for v, p in points_of(automatic).items()}
    moved = data.draw(st.lists(st.sampled_from(sorted(file)), max_size=3, unique=True))
    left = [v for v in sorted(file) if v not in moved]
    removed = data.draw(st.lists(st.sampled_from(left), max_size=2, unique=True))
    for number, value in enumerate(moved):
        file[value] = file[value] + np.array([0, 12.0 + 5 * number, data.draw(st.integers(-8, 8))])
    for value in removed:
        del file[value]
    if data.draw(st.booleans()):
        file[max(values) + shift + 1] = np.array([15.0, 30.0, 40.0])
    after = edited(automatic, file.items())
    assert after.keys() == file.keys()
    for value, point in file.items():
        np.testing.assert_allclose(after[value], point)
