"""One scan, one request, one result; and one meaning of a person's labels, whoever reads them."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, fake_mask_model, fake_model
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from sct_deepspine import ScanRequest, process_scan
from sct_deepspine.batch import BatchOptions, run_batch
from sct_deepspine.cli import label as label_command
from sct_deepspine.cli import segment as segment_command
from sct_deepspine.errors import GeometryError, LabelsError, NoDiscsError, OutputError, RequestError
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.bids import find_scans

MODEL = fake_model()
MASKS = fake_mask_model()


def points_of(labels):
    return {disc.value: disc.point_world for disc in labels.discs}


def voxel_labels(image, points):
    """Return an image of labels, value → world point, on an image's grid."""
    data = np.zeros(image.shape, np.uint8)
    for value, point in points.items():
        voxel = np.linalg.inv(image.affine)[:3] @ [*point, 1]
        data[tuple(np.round(voxel).astype(int))] = value
    return nib.Nifti1Image(data, image.affine)


@pytest.fixture
def dataset(tmp_path, painted):
    """A BIDS dataset of one scan."""
    folder = tmp_path / "data" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(painted.data, painted.grid.affine), folder / "sub-01_T2w.nii.gz")
    return tmp_path / "data"


@pytest.fixture
def given(dataset, phantom, tmp_path):
    """A person's labels with values of every kind: the dens (2), discs, S1/S2 (26) and the conus (60)."""
    image = nib.load(dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    tips = [phantom.discs[value] for value in sorted(phantom.discs)]
    path = tmp_path / "given.nii.gz"
    nib.save(voxel_labels(image, dict(zip((2, 3, 4, 5, 26, 60), tips, strict=False))), path)
    return path


# One rule


def through_python(dataset, given, out):
    scan = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    request = ScanRequest(labels=given, masks=True)
    return process_scan(scan, request, model=MODEL, mask_model=MASKS).save(out)[1]


def through_label(dataset, given, out):
    scan = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    words = ["-i", scan, "-ldisc", given, "-ofolder", out, "-v", "0"]
    assert label_command.main([str(word) for word in words], model=MODEL) == 0
    return out / "sub-01_T2w_discs.json"


def through_segment(dataset, given, out):
    scan = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    words = ["-i", scan, "-ldisc", given, "-ofolder", out, "-v", "0"]
    assert segment_command.main([str(word) for word in words], model=MASKS, labeling=MODEL) == 0
    return out / "sub-01_T2w_spine.json"


def through_batch(dataset, given, out):
    folder = dataset / "derivatives" / "labels" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (folder / "sub-01_T2w_label-discs_dlabel.nii.gz").write_bytes(given.read_bytes())
    options = BatchOptions(out)
    (row,) = run_batch(find_scans(dataset), options, model=MODEL)
    assert row.status == "corrected"
    return options.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.json"


WAYS = through_python, through_label, through_segment, through_batch


@pytest.mark.parametrize("way", WAYS)
def test_labels_that_a_person_checked_mean_the_same_everywhere(way, dataset, given, tmp_path):
    content = json.loads(way(dataset, given, tmp_path / "out").read_text(encoding="utf-8"))
    assert [disc["value"] for disc in content["discs"]] == [2, 3, 4, 5]
    assert [mark["value"] for mark in content["landmarks"]] == [26]
    assert content["view"] == "corrected"
    assert content["level_confidence"] == 1


@pytest.mark.parametrize("way", [through_python, through_label, through_batch])
def test_a_landmark_is_never_written_to_a_label_image(way, dataset, given, tmp_path):
    sidecar = way(dataset, given, tmp_path / "out")
    data = np.asarray(nib.load(sidecar.with_name(f"{sidecar.stem}.nii.gz")).dataobj)
    assert sorted(data[data > 0].tolist()) == [2, 3, 4, 5]


def test_edits_hold_the_same_values(dataset, given):
    scan = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    labels = process_scan(scan, ScanRequest(edits=given), model=MODEL).labels
    assert labels.values.tolist() == [2, 3, 4, 5]


# The correction loop in Python


def test_the_whole_correction_loop_in_python(painted_file, tmp_path):
    first = process_scan(painted_file, model=MODEL)
    label_file = first.save(tmp_path)[0]
    image = nib.load(label_file)
    data = np.asarray(image.dataobj).copy()
    data[data == 5] = 6  # rename one, and the others follow
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "edited.nii.gz")
    second = process_scan(painted_file, ScanRequest(edits=tmp_path / "edited.nii.gz"), model=MODEL)
    assert second.labels.values.tolist() == (first.labels.values + 1).tolist()
    moved = {
        value: point + np.array([0, 6, 0]) for value, point in points_of(first.labels).items() if value == 7
    }
    third = process_scan(painted_file, ScanRequest(edits=points_of(first.labels) | moved), model=MODEL)
    np.testing.assert_allclose(points_of(third.labels)[7], moved[7])
    np.testing.assert_allclose(points_of(third.labels)[8], points_of(first.labels)[8])


def test_what_excludes_each_other_can_not_be_asked_for():
    with pytest.raises(RequestError, match="give anchors or labels, not both"):
        ScanRequest(anchors={3: (0, 0, 0)}, labels={3: (0, 0, 0)})
    for number in (-0.1, 1.1, float("nan"), "a"):
        with pytest.raises(RequestError, match="min_confidence"):
            ScanRequest(min_confidence=number)
    for place in (3, (3, 4, 5)):
        with pytest.raises(RequestError, match="anchor_slice"):
            ScanRequest(anchor_slice=place)
    with pytest.raises(RequestError, match="min_confidence"):
        ScanRequest(min_confidence=2)


def test_results_are_saved_under_both_schemes_of_names(painted_file, tmp_path):
    result = process_scan(painted_file, ScanRequest(masks=True), model=MODEL, mask_model=MASKS)
    plain = {path.name for path in result.save(tmp_path / "a", csv=True)}
    assert {"t2_discs.nii.gz", "t2_discs.json", "t2_discs.csv", "t2_spine.nii.gz"} <= plain
    bids = {path.name for path in result.save(tmp_path / "b", stem="sub-01_T2w", names="bids")}
    assert {"sub-01_T2w_label-discs_dlabel.nii.gz", "sub-01_space-T2w_seg-spine_dseg.nii.gz"} <= bids
    with pytest.raises(RequestError, match="names"):
        result.save(tmp_path, names="else")


def test_an_array_is_processed_and_saved_like_a_file(painted, tmp_path):
    result = process_scan((painted.data, painted.grid.affine), model=MODEL)
    assert result.save(tmp_path)[0].name == "scan_discs.nii.gz"


def test_an_image_of_nibabel_is_saved_under_the_name_of_its_file(painted_file, tmp_path):
    image = nib.load(painted_file)
    assert process_scan(image, model=MODEL).save(tmp_path)[0].name == "t2_discs.nii.gz"
    in_memory = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    assert process_scan(in_memory, model=MODEL).save(tmp_path)[0].name == "scan_discs.nii.gz"


@pytest.mark.parametrize("given", [(21, "a"), (21,), (21.5, 3.0), "3,142"])
def test_a_slice_is_a_pair_of_integers(given):
    with pytest.raises(RequestError, match="expected anchor_slice as"):
        ScanRequest(anchor_slice=given)


def test_masks_are_saved_one_by_one(painted_file, tmp_path):
    masks = process_scan(painted_file, ScanRequest(masks=True), model=MODEL, mask_model=MASKS).masks
    masks.save(tmp_path / "whole.nii.gz")
    masks.save(tmp_path / "cord.nii.gz", part="seg")
    assert (np.asarray(nib.load(tmp_path / "whole.nii.gz").dataobj) == masks.spine).all()
    assert (np.asarray(nib.load(tmp_path / "cord.nii.gz").dataobj) == masks.cord).all()
    with pytest.raises(RequestError, match="expected a part of spine, seg"):
        masks.save(tmp_path / "x.nii.gz", part="bone")


# Labels that do not belong to the image


def moved_file(path, tmp_path, offset):
    """Write a copy of an image that lies elsewhere in the world."""
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 3] += offset
    out = tmp_path / "moved" / path.name
    out.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), out)
    return out


def test_edits_of_an_image_that_has_moved_since_are_refused(painted_file, tmp_path):
    label_file = process_scan(painted_file, model=MODEL).save(tmp_path)[0]
    image = nib.load(label_file)
    data = np.asarray(image.dataobj).copy()
    data[data == 5] = 6
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "edited.nii.gz")
    moved = moved_file(painted_file, tmp_path, (0, 0, 40))
    with pytest.raises(LabelsError, match=r"header was another one \(origins 40 mm apart"):
        process_scan(moved, ScanRequest(edits=tmp_path / "edited.nii.gz"), model=MODEL)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: p | {5: p[5] + [0, 0, 300]}, r"5 \(C4/C5\) at .* lies outside the image"),
        (lambda p: p | {5: p[5] + [0, 55, 0]}, r"5 \(C4/C5\) at .* mm from the spine"),
        (lambda p: p | {5: p[6], 6: p[5]}, r"6 \(C5/C6\) lies above 5 \(C4/C5\)"),
        (lambda p: dict(zip(p, list(p.values())[::-1], strict=True)), "lies above"),
    ],
    ids=["outside", "far", "swapped", "reversed"],
)
def test_checked_labels_that_can_not_be_are_refused_by_name(change, match, painted_file, tmp_path):
    points = points_of(process_scan(painted_file, model=MODEL).labels)
    with pytest.raises(LabelsError, match=match):
        process_scan(painted_file, ScanRequest(labels=change(points)), model=MODEL)


def test_corrections_of_an_image_that_has_moved_since_are_refused_in_a_batch(dataset, tmp_path, phantom):
    options = BatchOptions(tmp_path / "out")
    list(run_batch(find_scans(dataset), options, model=MODEL))
    label_file = options.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
    image = nib.load(label_file)
    data = np.asarray(image.dataobj).copy()
    data[data == 3] = 0
    nib.save(nib.Nifti1Image(data, image.affine), label_file)
    assert [row.status for row in run_batch(find_scans(dataset), options, model=MODEL)] == ["corrected"]
    before = label_file.read_bytes()
    scan = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    scan.write_bytes(moved_file(scan, tmp_path, (0, 0, 4)).read_bytes())
    (row,) = run_batch(find_scans(dataset), options, model=MODEL)
    assert (row.status, "another version of the image (origins 4 mm apart)" in row.error) == ("failed", True)
    assert label_file.read_bytes() == before


# Whose files they are


def test_a_file_that_was_given_is_never_removed_or_replaced(painted_file, tmp_path, phantom):
    request = ScanRequest(masks=True)
    process_scan(painted_file, request, model=MODEL, mask_model=MASKS).save(tmp_path)
    cord = tmp_path / "t2_seg.nii.gz"
    nib.save(nib.Nifti1Image((phantom.tissue.data >= 3).astype(np.uint8), phantom.volume.grid.affine), cord)
    words = ["-i", str(painted_file), "-s", str(cord), "-ofolder", str(tmp_path), "-v", "0"]
    before = cord.read_bytes()
    for more in ([], ["-initdisc", "9,60"]):
        label_command.main([*words, *more], model=MODEL)
        assert cord.read_bytes() == before


def test_files_of_somebody_else_are_not_replaced(painted_file, tmp_path):
    result = process_scan(painted_file, model=MODEL)
    Path(tmp_path / "t2_discs.nii.gz").write_bytes(b"mine")
    with pytest.raises(OutputError, match="was not written by this command"):
        result.save(tmp_path)
    assert Path(tmp_path / "t2_discs.nii.gz").read_bytes() == b"mine"


def test_a_person_sees_what_no_network_sees(painted):
    blind = fake_model(
        PaintReader(edit=lambda maps: replace(maps, any_disc=0 * maps.any_disc, canal=0 * maps.canal))
    )
    middle = painted.grid.middle_world
    labels = {5: middle + np.array([0, 0, 10]), 6: middle - np.array([0, 0, 10])}
    result = process_scan(Volume(painted.data, painted.grid), ScanRequest(labels=labels), model=blind)
    assert result.labels.values.tolist() == [5, 6]


# Two geometries in one header


@pytest.fixture
def twofold(painted_file, tmp_path):
    """An image whose qform is turned by 14° against its sform, and that qform."""
    image = nib.load(painted_file)
    turn = from_matvec(euler2mat(x=np.radians(14)), [0, 0, 0])
    other = turn @ image.affine
    out = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    out.set_sform(image.affine, 1)
    out.set_qform(other, 1)
    nib.save(out, tmp_path / "twofold.nii.gz")
    return tmp_path / "twofold.nii.gz", other


def test_which_of_two_geometries_was_used_is_said(twofold, painted_file):
    path, _ = twofold
    result = process_scan(path, model=MODEL)
    assert any("the header holds two geometries" in note for note in result.notes)
    assert not any("geometries" in note for note in process_scan(painted_file, model=MODEL).notes)


def test_a_mask_in_the_other_geometry_is_refused(twofold, phantom, tmp_path):
    path, other = twofold
    data = (phantom.tissue.data >= 3).astype(np.uint8)
    nib.save(nib.Nifti1Image(data, other), tmp_path / "seg.nii.gz")
    with pytest.raises(GeometryError, match="where the qform of the image puts it"):
        process_scan(path, ScanRequest(cord=tmp_path / "seg.nii.gz"), model=MODEL)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1)])
def test_a_header_without_an_orientation_is_pointed_out(codes, painted, tmp_path):
    path = tmp_path / "t2.nii.gz"
    ras = painted.as_ras()
    image = nib.Nifti1Image(ras.data, None)
    image.header.set_zooms(ras.grid.spacing_mm)
    for set_form, code in zip((image.set_sform, image.set_qform), codes, strict=True):
        if code:
            set_form(ras.grid.affine, code)
    nib.save(image, path)
    notes = process_scan(path, model=MODEL).notes
    assert any("the header holds no orientation" in note for note in notes) is (codes == (0, 0))


def test_what_shows_no_spine_asks_for_view_and_orientation(tmp_path):
    data = np.random.default_rng(0).normal(100, 5, (20, 120, 120)).astype(np.float32)
    blind = fake_model(PaintReader(edit=lambda m: replace(m, any_disc=0 * m.any_disc, canal=0 * m.canal)))
    with pytest.raises(NoDiscsError, match=r"is a spine in view, and is the header's orientation right\?"):
        process_scan((data, np.eye(4)), model=blind)
