"""What becomes of labels that a person made: one rule, the same through every command and through Python."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from fakes import fake_model

from sct_deepspine import ScanRequest, label_discs, process_scan
from sct_deepspine.errors import AnchorError, LabelsError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.workflow.given import anchors_in_view, checked_labels, read_given

MODEL = fake_model()
GRID = Grid((31, 61, 241), np.eye(4))


def test_what_lies_out_of_view_is_passed_over_with_a_note():
    points = [(3, np.array([15.0, 30.0, 400.0])), (9, np.array([15.0, 30.0, 100.0]))]
    anchors, notes = anchors_in_view(points, GRID)
    assert list(anchors) == [9]
    assert notes == ("out of view and passed over: C2/C3",)
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
    assert "the labels lie beside the discs that are seen" in warning


def test_levels_that_the_image_contradicts_are_pointed_out(painted, seen):
    other = {value + 1: point for value, point in moved(seen, 0).items()}
    (warning,) = checked(other, painted, seen).warnings
    assert "the labels are 1 level below what the image shows with a confidence of" in warning
    assert checked(other, painted, replace(seen, level_confidence=0.6)).warnings == ()


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
    assert "out of view and passed over" in labels.warnings[0]


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
    with pytest.raises(LabelsError, match=r"another version of the image \(origins 18 mm apart"):
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
