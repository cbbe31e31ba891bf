import nibabel as nib
import numpy as np
import pytest

from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.anchors import (
    NEAR_MM,
    anchor_at_slice,
    as_anchors,
    match_anchors,
)
from sct_deepspine.labeling.levels import Candidates

NAN = np.nan


def candidates(count=4):
    """Candidates 20 mm apart, superior to inferior."""
    points = np.array([[1.0, 2.0, 100 - 20 * n] for n in range(count)]).reshape(-1, 3)
    level = np.eye(count, 23) + 0.01
    return Candidates(points, np.linspace(0.5, 0.8, count), level)


def match(found, anchors):
    """Match in an image that lies along the world."""
    return match_anchors(found, anchors, Grid((9, 9, 9), np.eye(4)))


def one_line(error):
    return "\n" not in str(error.value)


# Ways to say it


def test_anchors_are_a_mapping_a_pair_or_nothing():
    assert as_anchors(None) == {}
    pair, mapping = as_anchors((8, (1, 2, 3))), as_anchors({8: [1, 2, 3], 9: np.array([4, 5, 6])})
    np.testing.assert_array_equal(pair[8], [1, 2, 3])
    assert list(mapping) == [8, 9]
    np.testing.assert_array_equal(mapping[9], [4, 5, 6])
    assert mapping[8].dtype == np.float64


def test_coordinates_that_are_not_known_stay_unknown():
    np.testing.assert_array_equal(as_anchors((8, (NAN, NAN, 3)))[8], [NAN, NAN, 3])


@pytest.mark.parametrize(
    "anchor",
    [
        8,
        "8",
        (8,),
        (8, 3),
        (8, (1, 2)),
        (8, (NAN, NAN, NAN)),
        (8, (1, 2, np.inf)),
        (8, "here"),
        {8: None},
        {"C7/T1": (1, 2, 3)},
        {8: [[1, 2, 3]]},
    ],
    ids=str,
)
def test_what_is_no_anchor_is_refused(anchor):
    with pytest.raises(AnchorError, match="anchor") as error:
        as_anchors(anchor)
    assert one_line(error)


# From a slice number


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "ASR", "PIL"])
def test_slices_are_counted_from_the_inferior_end_in_any_orientation(orientation):
    image = nib.Nifti1Image(np.zeros((5, 7, 11)), np.diag([2.0, 3.0, 4.0, 1.0]))
    image.affine[:3, 3] = -10, 20, 100
    ornt = nib.orientations.axcodes2ornt(orientation)
    image = image.as_reoriented(ornt)
    volume = Volume(image.get_fdata(), Grid(image.shape, image.affine))
    for index, z in ((0, 100), (3, 112), (10, 140)):
        anchor = anchor_at_slice(8, index, volume)
        np.testing.assert_allclose(anchor[8], [NAN, NAN, z])


@pytest.mark.parametrize("index", [-1, 11])
def test_a_slice_the_image_does_not_have_is_refused(index):
    volume = Volume(np.zeros((5, 7, 11)), Grid((5, 7, 11), np.eye(4)))
    with pytest.raises(AnchorError, match=rf"slice {index} does not exist.*0 \(inferior\) to 10") as error:
        anchor_at_slice(8, index, volume)
    assert one_line(error)


# Which candidate is meant


def test_no_anchor_leaves_the_candidates_as_they_are():
    before = candidates()
    after, clamped = match(before, {})
    np.testing.assert_array_equal(after.points, before.points)
    assert clamped == {}


def test_an_anchor_means_the_nearest_candidate():
    after, clamped = match(candidates(), {8: np.array([3.0, 1.0, 66.0])})
    assert clamped == {2: 8}
    assert len(after.score) == 4


def test_only_the_known_coordinates_count():
    for point in ([NAN, NAN, 66.0], [900.0, NAN, 66.0]):
        anchors = as_anchors({8: point})
        if np.isnan(point[0]):
            assert match(candidates(), anchors)[1] == {2: 8}
        else:
            with pytest.raises(AnchorError, match="no disc was seen near 66 mm"):
                match(candidates(), anchors)


def test_an_anchor_where_nothing_was_seen_becomes_a_candidate_in_its_place():
    before = candidates()
    after, clamped = match(before, {9: np.array([40.0, 2.0, 71.0])})
    assert clamped == {2: 9}
    np.testing.assert_allclose(after.points[:, 2], [100, 80, 71, 60, 40])
    np.testing.assert_allclose(after.points[2], [40, 2, 71])
    assert after.score[2] > 0.5
    np.testing.assert_allclose(after.level[2], after.level[2, 0])
    for ours, theirs in ((after.score, before.score), (after.level, before.level)):
        np.testing.assert_array_equal(np.delete(ours, 2, axis=0), theirs)


def test_the_reach_of_an_anchor_ends_after_a_few_millimetres():
    near, far = ([1.0, 2.0, 100 + NEAR_MM + by] for by in (-0.1, 0.1))
    assert len(match(candidates(), as_anchors((5, near)))[0].score) == 4
    assert len(match(candidates(), as_anchors((5, far)))[0].score) == 5


def test_clamped_candidates_are_told_by_their_place_in_the_new_order():
    anchors = as_anchors({3: (1, 2, 150), 6: (1, 2, 61), 9: (1, 2, 0)})
    after, clamped = match(candidates(), anchors)
    assert (np.diff(after.points[:, 2]) < 0).all()
    assert clamped == {0: 3, 3: 6, 5: 9}


def test_an_image_without_candidates_can_be_anchored():
    after, clamped = match(candidates(0), as_anchors((8, (1, 2, 3))))
    np.testing.assert_allclose(after.points, [[1, 2, 3]])
    assert clamped == {0: 8}
    assert match(candidates(0), {})[1] == {}


def test_a_slice_without_a_disc_is_refused():
    for some in (candidates(), candidates(0)):
        with pytest.raises(AnchorError, match="no disc was seen near -70 mm; give its three") as error:
            match(some, as_anchors((8, (NAN, NAN, -70))))
        assert one_line(error)


@pytest.mark.parametrize("point", [(NAN, 2, NAN), (1, NAN, NAN)])
def test_a_place_without_height_that_is_near_no_disc_is_refused_in_plain_words(point):
    with pytest.raises(AnchorError) as error:
        match(candidates(), as_anchors((8, np.array(point) + 500)))
    assert "nan" not in str(error.value).lower()


@pytest.mark.parametrize("value", [2, 26, -4, 49])
def test_values_that_cant_be_labelled_are_refused(value):
    with pytest.raises(
        AnchorError,
        match=rf"the value {value} can't be labelled; give a disc from 3 \(C2/C3\) to 25 \(L5/S1\)",
    ):
        match(candidates(), as_anchors((value, (1, 2, 100))))


def test_two_anchors_for_one_disc_are_refused():
    with pytest.raises(AnchorError, match="anchors 5 and 6 mean the same disc") as error:
        match(candidates(), as_anchors({5: (1, 2, 99), 6: (1, 2, 103)}))
    assert one_line(error)
