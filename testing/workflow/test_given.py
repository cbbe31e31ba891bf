"""What becomes of labels that a person made: one rule, the same through every command and through Python."""

import hashlib
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from fakes import fake_model
from nibabel.affines import from_matvec
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from sct_deepspine import ScanRequest, label_discs, process_scan
from sct_deepspine.errors import AnchorError, LabelsError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.disc_labels import GivenLabels
from sct_deepspine.io.identity import ImageIdentity
from sct_deepspine.labels import Disc, DiscLabels, VertebraCount
from sct_deepspine.workflow.given import (
    anchors_in_view,
    as_looked,
    checked_labels,
    compared_edits,
    labels_of_page,
    read_given,
    used_on,
)

MODEL = fake_model()
GRID = Grid((31, 61, 241), np.eye(4))
SCAN = Volume(np.zeros(GRID.shape, np.float32), GRID)
TIPS = {value: np.array([15.0, 40.0, 215.0 - 20 * n]) for n, value in enumerate(range(3, 13))}
LINE = Centerline.from_points(np.array([[15.0, 30.0, z] for z in np.arange(2.0, 239, 2)]))


def test_what_lies_out_of_view_is_passed_over_with_a_note():
    points = [(3, np.array([15.0, 30.0, 400.0])), (9, np.array([15.0, 30.0, 100.0]))]
    anchors, notes = anchors_in_view(points, GRID)
    assert list(anchors) == [9]
    assert notes == ("outside the image, ignored: C2/C3",)
    with pytest.raises(AnchorError, match="belong together"):
        anchors_in_view(points[:1], GRID)


# Checked labels against the image, and against what is seen in it


@pytest.fixture
def seen(painted):
    return label_discs(painted, weights=MODEL)


def moved(seen, by):
    return {disc.value: disc.point_world + by for disc in seen.discs}


def checked(labels, painted, seen):
    return checked_labels(read_given(labels, painted), painted, base=seen)


def test_labels_that_fit_are_taken_without_a_word(painted, seen):
    labels = checked(moved(seen, 0), painted, seen)
    assert labels.warnings == ()
    assert labels.values.tolist() == seen.values.tolist()
    behind = moved(seen, np.array([0, -10.0, 0]))  # in the cord, as some people label
    assert checked(behind, painted, seen).warnings == ()


@pytest.mark.parametrize("by", [(0, 0, 9), (0, 0, -9), (0, 21, 0), (22, 0, 0)])
def test_labels_beside_the_discs_are_pointed_out(by, painted, seen):
    (warning,) = checked(moved(seen, np.array(by, dtype=float)), painted, seen).warnings
    assert "mm or more from the detected discs" in warning


def test_levels_that_the_image_contradicts_are_pointed_out(painted, seen):
    other = {value + 1: point for value, point in moved(seen, 0).items()}
    (warning,) = checked(other, painted, seen).warnings
    assert "the labels are 1 level below what the image shows with a confidence of" in warning
    assert checked(other, painted, replace(seen, level_confidence=0.6)).warnings == ()


@pytest.mark.parametrize(("by", "shift", "limit"), [(9.0, 0, 0.5), (0.0, 1, 0.5), (0.0, 0, 1.0)])
def test_labels_of_another_image_that_do_not_fit_this_one_are_doubted(by, shift, limit, painted, seen):
    points = tuple((value + shift, point) for value, point in moved(seen, np.array([0, 0, by])).items())
    made_on = ImageIdentity("0" * 64, seen.grid)
    for other_image, confidence in ((True, limit), (False, 1.0)):
        given_ = GivenLabels(points, made_on=made_on, other_image=other_image)
        labels = checked_labels(given_, painted, base=seen)
        assert labels.level_confidence == confidence
        assert {disc.confidence for disc in labels.discs} == {confidence}


def test_labels_of_another_image_that_lie_where_no_disc_was_detected_are_doubted(painted, seen):
    upper = replace(seen, discs=seen.discs[:3])
    labels = checked_labels(GivenLabels((*moved(seen, 0).items(),), other_image=True), painted, base=upper)
    (warning,) = labels.warnings
    assert warning.startswith("half of the labels or more lie where no disc was detected")
    assert labels.level_confidence == 0.5


def test_labels_most_of_which_lie_outside_the_image_are_pointed_out(painted, seen):
    points = moved(seen, 0)
    low = {value + 12: point - [0, 0, 400] for value, point in points.items()}
    few = dict([*points.items()][:4])
    given_ = GivenLabels((*few.items(), *low.items()), Grid((9, 9, 9), np.eye(4)), other_image=True)
    labels = checked_labels(given_, painted, base=seen)
    assert any("labels lie outside the image: were they made on another?" in w for w in labels.warnings)
    assert labels.level_confidence == 0.5


def test_a_gap_is_named(painted, seen):
    points = moved(seen, 0)
    del points[5]
    (warning,) = checked(points, painted, seen).warnings
    assert warning.startswith("C4/C5 is not among the labels")


def label_image(seen, affine):
    data = np.zeros(seen.grid.shape, np.uint8)
    for disc in seen.discs:
        data[tuple(np.round(seen.grid.voxel_from_world(disc.point_world)).astype(int).ravel())] = disc.value
    return nib.Nifti1Image(data, affine)


@pytest.mark.parametrize("by", [(0, 0, 40), (0, 0, -36), (0, 0, 10), (0, 20, 0), (30, 0, 0), (0, 0, 3)])
def test_a_label_image_of_the_scan_before_it_was_moved_is_refused(by, painted, seen):
    affine = np.array(seen.grid.affine)
    affine[:3, 3] += by
    with pytest.raises(LabelsError, match=r"lies elsewhere \(origins"):
        checked(label_image(seen, affine), painted, seen)


def test_labels_of_a_cropped_image_are_taken_and_named(painted, seen):
    cut = painted.grid.shape[2] // 2
    affine = np.array(painted.grid.affine)
    affine[:3, 3] += affine[:3, 2] * cut
    data = np.ascontiguousarray(painted.data[:, :, cut:])
    upper = Volume(data, Grid(data.shape, affine))
    labels = checked_labels(read_given(label_image(seen, seen.grid.affine), upper), upper)
    assert 0 < len(labels) < len(seen)
    assert "outside the image, ignored" in labels.warnings[0]


@pytest.mark.parametrize("codes", ["LAS", "RPS", "RAI", "PIR", "ASR"])
def test_a_label_image_may_be_stored_in_another_orientation(codes, painted, seen):
    image = label_image(seen, seen.grid.affine)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    labels = checked(image.as_reoriented(turn), painted, seen)
    assert labels.values.tolist() == seen.values.tolist()
    assert labels.warnings == ()


def test_a_table_of_another_scan_of_the_session_is_taken(painted_file, painted, tmp_path):
    process_scan(painted_file, model=MODEL).save(tmp_path, csv=True)
    cut = painted.grid.shape[2] // 3
    upper = nib.Nifti1Image(
        painted.data[:, :, cut:], painted.grid.affine @ from_matvec(np.eye(3), (0, 0, cut))
    )
    nib.save(upper, tmp_path / "upper.nii.gz")
    labels = process_scan(
        tmp_path / "upper.nii.gz", ScanRequest(labels=tmp_path / "t2_discs.nii.gz"), model=MODEL
    ).labels
    assert 2 < len(labels) < 9


def test_own_labels_come_back_without_landmarks_that_are_no_discs(painted, seen):
    marks = (Disc(1, seen.discs[0].point_world + 30.0, 0.9), Disc(2, seen.discs[0].point_world + 15.0, 0.9))
    labels = checked(replace(seen, landmarks=marks), painted, seen)
    assert labels.values.tolist() == seen.values.tolist()


@pytest.mark.parametrize("kind", ["t2_discs.nii.gz", "t2_discs.csv", "t2_discs.mrk.json"])
def test_files_remember_the_image_that_they_were_made_on(kind, painted_file, tmp_path):
    process_scan(painted_file, model=MODEL).save(tmp_path, csv=True, slicer=True)
    request = ScanRequest(labels=tmp_path / kind)
    assert process_scan(painted_file, request, model=MODEL).notes == ()
    image = nib.load(painted_file)
    # The same voxels, another content.
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0.5, image.affine), painted_file)
    (note,) = process_scan(painted_file, request, model=MODEL).notes
    assert "made on another image, or on another version of this one" in note
    # The same content, moved.
    affine = image.affine.copy()
    affine[2, 3] += 18
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), painted_file)
    with pytest.raises(LabelsError, match=r"\(origins 18 mm apart"):
        process_scan(painted_file, request, model=MODEL)


def test_edits_can_be_the_labels_themselves(painted_file):
    result = process_scan(painted_file, model=MODEL)
    edited = result.labels.shifted(1)
    again = process_scan(painted_file, ScanRequest(edits=edited), model=MODEL)
    assert again.labels.values.tolist() == edited.values.tolist()


def test_few_automatic_labels_tell_the_level_and_many_are_an_edited_copy(painted_file, seen):
    points = moved(seen, 0)
    few = {value: points[value] for value in (3, 4, 5)}
    assert len(process_scan(painted_file, ScanRequest(edits=few), model=MODEL).labels) == len(points)
    most = {value: points[value] for value in (3, 4, 5, 6, 7)}
    labels = process_scan(painted_file, ScanRequest(edits=most), model=MODEL).labels
    assert labels.values.tolist() == [3, 4, 5, 6, 7]
    assert labels.warnings[-1] == "not among the edited labels, so left out: C7/T1, T1/T2, T2/T3"


def test_a_landmark_among_edited_labels_stays(painted_file, seen, painted):
    points = moved(seen, 0) | {26: painted.grid.middle_world + np.array([0, 0, -1.0])}
    labels = process_scan(painted_file, ScanRequest(edits=points), model=MODEL).labels
    assert [mark.value for mark in labels.landmarks] == [26]


# Labels of the review page: all the discs of the image


def page_file(tmp_path, points, *, absent=(), **entry):
    """Write what the review page saves of one scan."""
    discs = [{"value": value, "world_mm": list(point)} for value, point in points.items()]
    scan = {"name": "t2", "discs": discs, "absent": list(absent)} | entry
    path = tmp_path / "corrections.json"
    path.write_text(json.dumps({"format": 2, "scans": {"t2": scan}}), encoding="utf-8")
    return path


def test_a_gap_among_the_labels_of_the_review_page_is_refused(painted, seen, tmp_path):
    points = moved(seen, 0)
    place = points.pop(5)
    with pytest.raises(LabelsError, match=r"5 \(C4/C5\) is missing between discs above and below"):
        checked(page_file(tmp_path, points), painted, seen)
    fused = checked(page_file(tmp_path, points, absent=[5]), painted, seen)
    assert fused.warnings == ()
    assert fused.values.tolist() == [3, 4, 6, 7, 8, 9, 10]
    assert len(checked(page_file(tmp_path, points | {5: place}), painted, seen)) == len(seen)
    # An end that is missing is no gap.
    del points[3], points[4]
    assert checked(page_file(tmp_path, points), painted, seen).values.tolist() == [6, 7, 8, 9, 10]


def test_labels_of_the_review_page_are_not_doubted(painted, seen, tmp_path):
    """Whoever made them has seen ours."""
    other = {value + 1: point for value, point in moved(seen, 0).items()}
    assert checked(page_file(tmp_path, other), painted, seen).warnings == ()


def test_a_scan_without_any_disc_is_refused(painted, seen, tmp_path):
    with pytest.raises(LabelsError, match="every disc was removed"):
        checked(page_file(tmp_path, {}), painted, seen)
    middle = painted.grid.middle_world
    with pytest.raises(LabelsError, match="no disc from the top of C1"):
        checked({26: middle}, painted, None)


def test_a_count_that_the_page_saved_names_the_discs(painted, seen, tmp_path):
    points = {value + 16: point for value, point in moved(seen, 0).items()}
    labels = checked(page_file(tmp_path, points, presacral=25), painted, seen)
    assert labels.presacral == 25
    assert labels.values.tolist() == list(range(19, 27))
    assert [labels[25].name, labels[26].name] == ["L5/L6", "L6/S1"]
    usual = checked(page_file(tmp_path, points), painted, seen)
    assert (labels.count.probability, usual.count) == (1.0, None)
    (sacrum,) = usual.landmarks
    assert (sacrum.value, sacrum.name, sacrum.confidence) == (26, "S1/S2", 1.0)
    np.testing.assert_allclose(sacrum.point_world, points[26])


def test_only_what_the_page_saved_whole_is_told_from_other_labels(painted, seen, tmp_path):
    page = read_given(page_file(tmp_path, moved(seen, 0)), painted)
    other = read_given(moved(seen, 0), painted)
    assert labels_of_page(ScanRequest(labels=page)) is page
    assert labels_of_page(ScanRequest(edits=page)) is page
    assert labels_of_page(ScanRequest(labels=other)) is None
    assert labels_of_page(ScanRequest(edits=other)) is None
    assert labels_of_page(ScanRequest(edits=tmp_path / "corrections.json")) is None
    assert labels_of_page(ScanRequest()) is None


# Which image they were made on


def test_labels_of_another_image_are_noted_if_the_file_records_it(tmp_path):
    (tmp_path / "t2.nii").write_bytes(b"an image")
    image = tmp_path / "t2.nii"
    fitting, other = hashlib.sha256(b"an image").hexdigest(), "0" * 64
    points = tuple(TIPS.items())
    for sha256, is_other in ((fitting, False), (other, True), ("", False)):
        given_ = GivenLabels(points, made_on=ImageIdentity(sha256, GRID))
        assert used_on(given_, image).other_image is is_other
        assert not used_on(given_, SCAN).other_image
    assert not used_on(GivenLabels(points), image).other_image


def test_labels_that_all_lie_in_view_have_no_note():
    anchors, notes = anchors_in_view(list(TIPS.items()), GRID)
    assert list(anchors) == list(TIPS)
    assert notes == ()


def by_voxel(grid, values=TIPS):
    """Labels at the voxels at which they lie in the scan, on another grid."""
    return tuple((value, grid.world_from_voxel(GRID.voxel_from_world(TIPS[value]))[0]) for value in values)


LIFTED = Grid(GRID.shape, np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 9], [0, 0, 0, 1]]))


@pytest.mark.parametrize("recorded", [True, False])
def test_edits_of_the_image_before_its_header_was_changed_are_refused(recorded):
    made_on = ImageIdentity("", LIFTED) if recorded else None
    given_ = GivenLabels(by_voxel(LIFTED), GRID if recorded else LIFTED, made_on)
    with pytest.raises(LabelsError, match=r"its header was another one \(origins 9 mm apart\)"):
        compared_edits(given_, spine())


def test_labels_of_another_image_are_no_edits_and_no_error():
    beside = tuple((value, tip + np.array([0, 9, 7])) for value, tip in TIPS.items())
    assert compared_edits(GivenLabels(beside, LIFTED), spine()) is None  # not in the same voxels either
    few = by_voxel(LIFTED, (3, 4))
    assert compared_edits(GivenLabels(few, LIFTED), spine()) is None
    larger = Grid((31, 61, 260), LIFTED.affine)
    assert compared_edits(GivenLabels(by_voxel(LIFTED), larger), spine()) is None
    assert (
        compared_edits(GivenLabels(by_voxel(LIFTED)), spine()) is None
    )  # a table: nothing is known of voxels
    assert compared_edits(GivenLabels(((26, TIPS[3]),), LIFTED), spine()) is None


def test_edits_of_this_image_are_told():
    points = tuple((value, tip) for value, tip in TIPS.items() if value != 7)
    assert compared_edits(GivenLabels(points, GRID), spine()).removed == {7}


def test_labels_that_were_found_are_read_with_their_grid_count_and_landmarks():
    marks = Disc(1, TIPS[3] + 9, 0.9), Disc(27, TIPS[3] - 99, 0.9)
    found = replace(spine(), count=VertebraCount(25, 0.9), landmarks=marks)
    given_ = read_given(found, SCAN)
    assert [value for value, _ in given_.points] == [*TIPS, 27]  # the dens (1) would be read as the top of C1
    assert (given_.grid, given_.presacral, given_.complete) == (GRID, 25, False)


def test_of_many_scans_of_the_page_the_one_of_the_image_is_read(tmp_path):
    scans = {
        name: {"name": name, "discs": [{"value": value, "world_mm": [1, 2, 3]}]}
        for name, value in (("a", 3), ("b", 4))
    }
    path = tmp_path / "corrections.json"
    path.write_text(json.dumps({"format": 2, "scans": scans}), encoding="utf-8")
    (tmp_path / "b.nii").write_bytes(b"an image")
    assert [value for value, _ in read_given(path, tmp_path / "b.nii").points] == [4]
    with pytest.raises(LabelsError, match="holds 2 corrected scans"):
        read_given(path, SCAN)


def test_a_label_outside_the_image_is_named():
    points = dict(TIPS) | {5: np.array([15.0, 40.0, 500.0]), 6: np.array([15.0, 40.0, -500.0])}
    with pytest.raises(LabelsError, match=r"^5 \(C4/C5\) at \(15, 40, 500\) mm lies outside the image"):
        doubts(points, spine())


def test_a_label_image_of_other_voxels_is_of_another_scan():
    coarse = Grid(GRID.shape, np.diag([1.0, 1.0, 2.0, 1.0]))
    labels = checked_labels(GivenLabels(tuple(TIPS.items()), coarse), SCAN)
    assert labels.values.tolist() == list(TIPS)
    rounded = Grid(GRID.shape, np.diag([1.0, 1.0, 1.0005, 1.0]))  # as headers round
    assert len(checked_labels(GivenLabels(tuple(TIPS.items()), rounded), SCAN)) == len(TIPS)
    lifted = np.diag([1.0, 1.0, 1.0005, 1.0])
    lifted[2, 3] = 9
    with pytest.raises(LabelsError, match="lies elsewhere"):
        checked_labels(GivenLabels(tuple(TIPS.items()), Grid(GRID.shape, lifted)), SCAN)


def test_labels_of_a_scan_in_which_no_network_saw_a_spine():
    labels = checked_labels(GivenLabels(tuple(TIPS.items())), SCAN)
    assert labels.grid is GRID
    assert (labels.level_confidence, labels.canal, labels.landmarks) == (1.0, None, ())
    assert labels.values.tolist() == list(TIPS)


# Doubts about checked labels, by a spine without an image


def spine(tips=TIPS, *, confidence=0.95, interpolated=(), canal=LINE):
    discs = tuple(Disc(v, tip, 0.9, interpolated=v in interpolated) for v, tip in tips.items())
    return DiscLabels(discs, GRID, confidence, canal=canal)


def doubts(points, base, **given_):
    return list(checked_labels(GivenLabels(tuple(points.items()), **given_), SCAN, base=base).warnings)


def by(offset, values=range(3, 13)):
    return {value: TIPS[value] + np.array(offset, dtype=float) for value in values}


@pytest.mark.parametrize(
    ("offset", "is_doubted"),
    [((0, 0, 4), False), ((0, 0, 6), True), ((0, 0, -6), True), ((0, -14, 0), False), ((0, -16, 0), True)],
)
def test_labels_are_doubted_from_five_mm_along_the_spine_or_fifteen_from_the_tip(offset, is_doubted):
    found = doubts(by(offset), spine())
    assert len(found) == is_doubted
    if is_doubted:
        assert f"half of the labels lie {np.abs(offset).max()} mm or more" in found[0]


def test_half_of_the_labels_may_lie_beside_the_discs():
    assert doubts(by((0, 0, 0), range(3, 9)) | by((0, 0, -9), range(9, 13)), spine()) == []
    assert len(doubts(by((0, 0, 0), range(3, 7)) | by((0, 0, -9), range(7, 13)), spine())) == 1


def test_labels_beyond_the_discs_that_are_seen_say_nothing():
    """A network that sees the neck only is no witness of the thorax."""
    few = {value: TIPS[value] for value in (3, 4, 5, 6)}
    beside = by((0, 0, 0), (3, 4, 5, 6)) | by((0, 0, -9), range(8, 13))
    assert doubts(beside, spine(few)) == [
        "C6/C7 is not among the labels; the registration needs them without a gap"
    ]


@pytest.mark.parametrize(("labels", "discs", "is_doubted"), [(3, 10, True), (2, 10, False), (10, 2, False)])
def test_few_labels_or_few_discs_are_not_compared(labels, discs, is_doubted):
    seen_ = {value: TIPS[value] for value in range(3, 3 + discs)}
    assert len(doubts(by((0, 0, -9), range(3, 3 + labels)), spine(seen_))) == is_doubted


def test_only_discs_that_were_seen_are_compared():
    placed = spine(interpolated=range(3, 11))
    assert doubts(by((0, 0, -9)), placed) == []
    assert len(doubts(by((0, 0, -9)), spine(interpolated=range(3, 8)))) == 1


def test_without_a_canal_nothing_is_compared():
    assert doubts(by((0, 0, 9)), spine(canal=None)) == []


@pytest.mark.parametrize(
    ("shift", "words"),
    [(1, "1 level below what"), (2, "2 levels below what"), (-1, "1 level above what"), (0, None)],
)
def test_other_levels_than_the_image_shows_are_pointed_out(shift, words):
    points = {value + shift: point for value, point in by((0, 0, 1)).items()}
    found = doubts(points, spine())
    assert len(found) == (words is not None)
    if words:
        assert f"the labels are {words} the image shows with a confidence of 0.95" in found[0]


@pytest.mark.parametrize("up_mm", [4, -4])
def test_labels_a_little_beyond_the_last_disc_are_compared_too(up_mm):
    points = {value + 1: point for value, point in by((0, 0, up_mm), (3, 4, 5)).items()}
    (found,) = doubts(points, spine({value: TIPS[value] for value in (3, 4, 5)}))
    assert "1 level below" in found


@pytest.mark.parametrize(("confidence", "is_doubted"), [(0.89, False), (0.9, True)])
def test_an_image_that_is_not_sure_of_its_levels_contradicts_nobody(confidence, is_doubted):
    points = {value + 1: point for value, point in TIPS.items()}
    assert len(doubts(points, spine(confidence=confidence))) == is_doubted


def test_levels_that_do_not_shift_as_one_are_not_pointed_out():
    """A vertebra more or less on the way: the person may be right."""
    points = {value + (value > 7): point for value, point in TIPS.items()}
    assert doubts(points, spine()) == [
        "C7/T1 is not among the labels; the registration needs them without a gap"
    ]


def test_whoever_edited_our_labels_has_seen_our_levels():
    points = {value + 1: point for value, point in TIPS.items()}
    assert doubts(points, spine(), made_on=ImageIdentity("", GRID)) == []
    beside = doubts(by((0, 0, -9)), spine(), made_on=ImageIdentity("", GRID))
    assert "from the detected discs" in beside[0]


def test_points_without_a_position_are_named():
    assert doubts(TIPS, spine(), unplaced=("T2/T3",)) == ["T2/T3 has no position in the file of labels"]


@pytest.mark.parametrize("canal", [LINE, None])
def test_labels_out_of_order_are_refused_with_and_without_a_canal(canal):
    points = dict(TIPS) | {5: TIPS[6], 6: TIPS[5]}
    with pytest.raises(LabelsError, match=r"6 \(C5/C6\) lies above 5 \(C4/C5\)"):
        doubts(points, spine(canal=canal))


@pytest.mark.parametrize(("y", "is_far"), [(-9.0, False), (-11.0, True)])
def test_a_label_forty_mm_from_the_canal_is_refused(y, is_far):
    wide = Grid((31, 101, 241), np.array([[1.0, 0, 0, 0], [0, 1, 0, -30], [0, 0, 1, 0], [0, 0, 0, 1]]))
    points = dict(TIPS) | {7: np.array([15.0, y, TIPS[7][2]])}
    volume = Volume(np.zeros(wide.shape, np.float32), wide)
    given_ = GivenLabels(tuple(points.items()))
    if is_far:
        with pytest.raises(LabelsError, match=r"7 \(C6/C7\) at .* lies 41 mm from the spine"):
            checked_labels(given_, volume, base=spine())
    else:
        assert len(checked_labels(given_, volume, base=spine())) == 10


def test_labels_of_a_person_are_certain_and_replace_what_was_seen():
    base = replace(spine(confidence=0.3), warnings=("odd",), landmarks=(Disc(1, TIPS[3], 0.9),))
    labels = checked_labels(GivenLabels(tuple(by((0, 1, 0), range(4, 9)).items())), SCAN, base=base)
    assert (labels.view, labels.level_confidence, labels.landmarks) == ("corrected", 1.0, ())
    assert labels.warnings == ()
    assert labels.values.tolist() == [4, 5, 6, 7, 8]
    assert labels.canal is base.canal
    assert labels.confidence.tolist() == [1.0] * 5


@pytest.mark.parametrize(("values", "looked"), [
    ([17, 19, 20, 26], [17, 19]),  # below T11/T12 nobody knows how they look
    ([24, 25, 26], [23, 24, 25]),  # from the sacrum upwards
])  # fmt: skip
def test_anchors_of_a_spine_with_a_vertebra_more_are_named_by_their_looks(values, looked):
    points = {value: np.array([0.0, 0.0, -value]) for value in values}
    found = as_looked(points, 25)
    assert list(found) == looked
    assert list(as_looked(points, 24)) == values


def test_anchors_out_of_view_are_told_by_the_names_of_their_spine():
    points = [(9, np.array([15.0, 30.0, 100.0])), (27, np.array([15.0, 30.0, -400.0]))]
    _, notes = anchors_in_view(points, GRID, 25)
    assert notes == ("outside the image, ignored: S1/S2",)
