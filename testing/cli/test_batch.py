"""A cohort is labelled once, whatever happens on the way."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, fake_mask_model, fake_model
from platforms import RUN_BATCH, posix_signals, symbolic_links

from sct_deepspine.batch import BatchOptions, Row, run_batch, write_overview
from sct_deepspine.cli.batch import main
from sct_deepspine.cli.bids import main as bids_main
from sct_deepspine.cli.label import main as label_main
from sct_deepspine.errors import ImageError
from sct_deepspine.io.bids import find_scans
from sct_deepspine.io.files import write_text
from sct_deepspine.reporting.html import Entry
from sct_deepspine.workflow import overview
from sct_deepspine.workflow.overview import keep_row
from sct_deepspine.workflow.tables import write_tables

MODEL = fake_model()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small image of noise: quickly read, and without a spine."""
    path = tmp_path_factory.mktemp("small") / "noise.nii.gz"
    data = np.random.default_rng(0).normal(100, 20, (4, 30, 40)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([4, 4, 4, 1.0])), path)
    return path


@pytest.fixture
def dataset(tmp_path, painted):
    """A BIDS dataset of three painted phantoms, one T1w, and one broken file."""
    root = tmp_path / "data set ü"
    image = nib.Nifti1Image(painted.data, painted.grid.affine)
    for subject in ("01", "02", "03"):
        folder = root / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        nib.save(image, folder / f"sub-{subject}_T2w.nii.gz")
    nib.save(image, root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    (root / "sub-02" / "anat" / "sub-02_T2w.nii.gz").write_bytes(b"\x1f\x8b broken")
    nib.save(image, root / "sub-03" / "anat" / "sub-03_T2w_seg.nii.gz")
    (root / "derivatives").mkdir()
    nib.save(image, root / "derivatives" / "sub-03_T2w.nii.gz")
    return root


def rows_of(results):
    with (results / "derivatives" / "sct_deepspine" / "summary.csv").open(
        newline="", encoding="utf-8"
    ) as file:
        return {row["scan"]: row for row in csv.DictReader(file)}


# What is found


def test_the_scans_of_a_bids_dataset_are_found_and_nothing_else(dataset):
    names = [scan.path.name for scan in find_scans(dataset)]
    assert names == ["sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz", "sub-02_T2w.nii.gz", "sub-03_T2w.nii.gz"]
    assert [str(scan.folder) for scan in find_scans(dataset)][-1] == os.path.join("sub-03", "anat")
    assert {scan.subject for scan in find_scans(dataset)} == {"sub-01", "sub-02", "sub-03"}


def test_filters_choose_among_them(dataset):
    assert len(find_scans(dataset, contrasts=["T2w"])) == 3
    assert len(find_scans(dataset, include=["sub-01*"])) == 2
    assert len(find_scans(dataset, include=["sub-01*"], exclude=["*T1w*"])) == 1
    with pytest.raises(ImageError, match="no scan"):
        find_scans(dataset, contrasts=["PD"])


def test_a_glob_a_list_and_a_plain_folder_are_sources_too(dataset, tmp_path):
    assert len(find_scans(f"{dataset}/sub-*/anat/*_T2w.nii.gz")) == 3
    (dataset / "list.txt").write_text(
        "# mine\nsub-01/anat/sub-01_T2w.nii.gz\n\nsub-03/anat/sub-03_T2w.nii\n", encoding="utf-8"
    )
    assert [scan.subject for scan in find_scans(dataset / "list.txt")] == ["sub-01", "sub-03"]
    assert len(find_scans(dataset / "sub-01")) == 2
    for nothing in (tmp_path / "lost", f"{tmp_path}/*.nii.gz"):
        with pytest.raises(ImageError, match="no such folder, list or glob"):
            find_scans(nothing)


def test_results_of_another_image_of_the_same_name_are_not_replaced_in_silence(painted, tmp_path):
    options, warnings = BatchOptions(tmp_path / "out"), []
    for folder, scale in (("a", 1), ("a", 2), ("b", 2), ("b", 3)):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / "t2.nii.gz"
        nib.save(nib.Nifti1Image(painted.data * scale, painted.grid.affine), path)
        (row,) = run_batch(find_scans(str(path)), options, model=MODEL)
        warnings.append("another image called t2, from another folder" in row.warnings)
    assert warnings == [False, False, False, True]


def test_two_scans_of_one_name_are_refused(dataset):
    (dataset / "list.txt").write_text("a/x.nii.gz\nb/x.nii.gz\n", encoding="utf-8")
    with pytest.raises(ImageError, match="under one name"):
        find_scans(dataset / "list.txt")


# What is written


def test_a_cohort_is_labelled_and_one_bad_scan_does_not_stop_it(dataset, tmp_path, capsys, phantom):
    results = tmp_path / "out"
    assert main(["-i", str(dataset), "-o", str(results)], model=MODEL) == 1
    printed = capsys.readouterr()
    assert "FAILED" in printed.err
    assert "4 scans: 3 done, 0 skipped, 0 corrected, 1 failed" in printed.out
    rows = rows_of(results)
    bad = rows.pop(os.path.join("sub-02", "anat", "sub-02_T2w"))
    assert bad["status"] == "failed"
    assert "can't be read" in bad["error"]
    assert {row["status"] for row in rows.values()} == {"done"}
    assert {row["discs"] for row in rows.values()} == {str(len(phantom.discs))}
    folder = results / "derivatives" / "sct_deepspine"
    label = folder / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
    data = np.asarray(nib.load(label).dataobj)
    assert sorted(data[data > 0].tolist()) == sorted(phantom.discs)
    assert (
        json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))["DatasetType"]
        == "derivative"
    )
    sidecar = json.loads(label.with_name("sub-01_T2w_label-discs_dlabel.json").read_text(encoding="utf-8"))
    assert len(sidecar["Fingerprint"]) == 64
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count('"picture": "iVBOR') == 3
    assert page.index("sub-02_T2w") < page.index("sub-01_T2w")  # what failed comes first


def test_what_is_finished_is_skipped_and_what_has_changed_is_not(dataset, tmp_path):
    results = tmp_path / "out"
    words = ["-i", str(dataset), "-o", str(results), "-v", "0", "-contrast", "T2w", "-exclude", "sub-02*"]
    assert main(words, model=MODEL) == 0
    folder = results / "derivatives" / "sct_deepspine"
    label = folder / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
    before = label.stat().st_mtime_ns
    rows = rows_of(results)
    assert main(words, model=MODEL) == 0
    assert rows_of(results) == rows  # what was found, how, and in which time
    assert {row["status"] for row in rows.values()} == {"done"}
    assert label.stat().st_mtime_ns == before

    image = dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    loaded = nib.load(image)
    nib.save(nib.Nifti1Image(np.asarray(loaded.dataobj) * 2, loaded.affine), image)
    (folder / "sub-03" / "anat" / "sub-03_T2w_label-discs_dlabel.nii.gz").unlink()
    assert main(words, model=MODEL) == 0
    assert {row["status"] for row in rows_of(results).values()} == {"done"}
    assert main([*words, "-upper", "1"], model=MODEL) == 0
    assert {row["status"] for row in rows_of(results).values()} == {"done"}


def test_masks_are_written_beside_the_labels_and_shown(dataset, tmp_path):
    results, masks = tmp_path / "out", fake_mask_model()
    words = ["-i", str(dataset), "-o", str(results), "-v", "0", "-include", "sub-01_T2w*"]
    assert main([*words, "-masks", "1"], model=MODEL, mask_model=masks) == 0
    folder = results / "derivatives" / "sct_deepspine"
    names = {
        f"sub-01_space-T2w_{name}.nii.gz"
        for name in ("seg-spine_dseg", "label-cord_mask", "label-canal_mask", "seg-cordlevels_dseg")
    }
    assert names < {path.name for path in (folder / "sub-01" / "anat").iterdir()}
    sidecar_path = folder / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.json"
    sidecar = json.loads(sidecar_path.read_text(encoding="utf-8"))
    assert names < sidecar["files"].keys()
    assert sidecar["masks"]["weights"]["name"] == "fake"
    assert sidecar["masks"]["cord_mm3"] > 0
    spine = nib.load(folder / "sub-01" / "anat" / "sub-01_space-T2w_seg-spine_dseg.nii.gz")
    image = nib.load(dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    assert spine.shape == image.shape
    assert np.allclose(spine.affine, image.affine)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert '"kind": "cord"' in page
    assert '"kind": "vertebra"' in page


def test_what_was_done_without_masks_or_with_other_ones_is_done_again(dataset, tmp_path):
    scans = find_scans(dataset, include=["sub-01_T2w*"])
    plain, masked = BatchOptions(tmp_path / "out"), BatchOptions(tmp_path / "out", masks=True)
    runs = [(plain, "a"), (masked, "a"), (masked, "a"), (masked, "b"), (plain, "b"), (plain, "b")]
    statuses, written = [], []
    for options, name in runs:
        rows = run_batch(scans, options, model=MODEL, mask_model=fake_mask_model(sha256=name))
        statuses += [row.status for row in rows]
        written.append(len(list(options.derivatives.rglob("*_seg-spine_dseg.nii.gz"))))
    assert statuses == ["done", "done", "skipped", "done", "skipped", "skipped"]
    assert written == [0, 1, 1, 1, 1, 1]  # what nobody asked to remove stays


def test_a_scan_that_was_interrupted_leaves_nothing_and_is_done_again(dataset, tmp_path):
    options = BatchOptions(tmp_path / "out")
    scan = find_scans(dataset, include=["sub-01_T2w*"])

    def interrupt(maps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_batch(scan, options, model=fake_model(PaintReader(edit=interrupt))))
    assert not list(options.derivatives.rglob("*dlabel*"))
    (row,) = run_batch(scan, options, model=MODEL)
    assert row.status == "done"


@pytest.fixture
def once(dataset, tmp_path):
    """A scan that was labelled, the options, and its label image."""
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    options = BatchOptions(tmp_path / "out")
    list(run_batch(scan, options, model=MODEL))
    return scan, options, options.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"


def test_labels_corrected_by_hand_are_kept(once):
    scan, options, label = once
    image = nib.load(label)
    data = np.asarray(image.dataobj).copy()
    data[data == 3] = 0
    nib.save(nib.Nifti1Image(data, image.affine, image.header), label)
    before = label.read_bytes()
    (row,) = run_batch(scan, replace(options, upper=True), model=MODEL)
    assert (row.status, row.first) == ("corrected", "C3/C4")
    assert label.read_bytes() == before


def test_corrected_labels_of_an_image_that_has_changed_are_pointed_out(once):
    scan, options, label = once
    edit(label, lambda data: np.where(data == 3, 0, data))
    image = nib.load(scan[0].path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0.5, image.affine), scan[0].path)
    for later in (options, replace(options, csv=True)):  # taken over, they are still those of the old image
        (row,) = run_batch(scan, later, model=MODEL)
        assert row.status == "corrected"
        assert row.warnings.count("made on another image") == 1
    edit(label, lambda data: np.where(data == 4, 0, data))
    (row,) = run_batch(scan, options, model=MODEL)
    assert "made on another image" not in row.warnings  # edited beside the new one


def test_corrected_labels_that_do_not_fit_the_new_image_are_doubted(once):
    scan, options, label = once
    edit(label, lambda data: np.where(data == 3, 0, data))
    assert [row.level_confidence for row in run_batch(scan, options, model=MODEL)] == [1.0]
    image = nib.load(scan[0].path)
    moved = np.roll(np.asarray(image.dataobj), 6, axis=2)  # 9 mm upwards
    nib.save(nib.Nifti1Image(moved, image.affine), scan[0].path)
    (row,) = run_batch(scan, options, model=MODEL)
    assert (row.status, row.level_confidence, row.least_confidence) == ("corrected", 0.5, 0.5)
    assert "made on another image" in row.warnings


def test_corrected_labels_follow_the_grid_of_their_image(once):
    scan, options, label = once
    edit(label, lambda data: np.where(data == 3, 0, data))
    list(run_batch(scan, options, model=MODEL))
    image = nib.load(scan[0].path)
    whole = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    flipped = whole.as_reoriented(np.array([[0, 1], [1, 1], [2, -1]]))
    nib.save(flipped, scan[0].path)
    (row,) = run_batch(scan, options, model=MODEL)
    assert (row.status, row.first, row.error) == ("corrected", "C3/C4", "")
    np.testing.assert_array_equal(nib.load(label).affine, flipped.affine)


def test_labels_without_a_record_are_nobodys(once):
    scan, options, label = once
    label.with_name("sub-01_T2w_label-discs_dlabel.json").unlink()
    before = label.read_bytes()
    (row,) = run_batch(scan, options, model=MODEL)
    assert row.status == "failed"
    assert "nobody can tell whether a person made sub-01_T2w_label-discs_dlabel.nii.gz; " in row.error
    assert label.read_bytes() == before
    for path in label.parent.glob("*_dlabel.*"):
        path.unlink()
    assert [row.status for row in run_batch(scan, options, model=MODEL)] == ["done"]


def test_an_unreadable_label_file_is_named_with_a_remedy(once):
    scan, options, label = once
    edit(label, lambda data: 0 * data)
    (row,) = run_batch(scan, options, model=MODEL)
    assert row.error.startswith(f"{label}: ")
    assert row.error.endswith("repair it, or move it away")


@pytest.mark.parametrize("taken_over", [False, True])
def test_edits_outlive_the_corrections_that_they_were_made_after(taken_over, dataset, tmp_path, phantom):
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    discs = {value: tip for value, tip in phantom.discs.items() if value > 3}
    options = BatchOptions(tmp_path / "out")
    corrected = replace(options, corrections={scan[0].name: discs})
    assert [row.first for row in run_batch(scan, corrected, model=MODEL)] == ["C3/C4"]
    label = corrected.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
    copy = tmp_path / "out" / "derivatives" / "labels" / f"{scan[0].name}_label-discs_dlabel.nii.gz"
    edited = edit(label, lambda data: np.where(data == 4, 0, data))
    if taken_over:
        list(run_batch(scan, options, model=MODEL))
    for later in (corrected, corrected, options, replace(corrected, csv=True)):
        assert [row.first for row in run_batch(scan, later, model=MODEL)] == ["C4/C5"]
        assert label.read_bytes() == edited
        assert 4 not in np.asarray(nib.load(copy).dataobj)  # follows, as nobody edited it
    other = {value + 1: tip for value, tip in discs.items()}
    (row,) = run_batch(scan, replace(corrected, corrections={scan[0].name: other}), model=MODEL)
    assert "was edited by hand, and the corrections hold other labels" in row.error
    assert label.read_bytes() == edited


def test_edits_outlive_corrections_also_where_the_dataset_has_other_labels(dataset, tmp_path, phantom):
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    folder = dataset / "derivatives" / "labels" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    list(run_batch(scan, BatchOptions(tmp_path / "first"), model=MODEL))
    name = "sub-01_T2w_label-discs_dlabel.nii.gz"
    first = BatchOptions(tmp_path / "first").derivatives / "sub-01" / "anat" / name
    edit(first, one_level_down)
    first.rename(folder / name)
    options = BatchOptions(tmp_path / "out", corrections={scan[0].name: phantom.discs})
    (row,) = run_batch(scan, options, model=MODEL)
    assert "was not used" in row.warnings
    label = options.derivatives / "sub-01" / "anat" / name
    edited = edit(label, lambda data: np.where(data == 3, 0, data))
    for _ in range(2):
        assert [row.first for row in run_batch(scan, options, model=MODEL)] == ["C3/C4"]
        assert label.read_bytes() == edited


def test_corrections_replace_those_that_were_applied_before(dataset, tmp_path, phantom):
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    for first, name in ((3, "C2/C3"), (4, "C3/C4"), (4, "C3/C4"), (3, "C2/C3")):
        discs = {value: tip for value, tip in phantom.discs.items() if value >= first}
        options = BatchOptions(tmp_path / "out", corrections={scan[0].name: discs})
        assert [row.first for row in run_batch(scan, options, model=MODEL)] == [name]


def test_an_s1_s2_set_on_the_page_outlives_an_edit_of_the_label_image(dataset, tmp_path, phantom):
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    shift = 25 - max(phantom.discs)
    discs = {value + shift: tip for value, tip in phantom.discs.items()}
    last = max(phantom.discs)
    discs[26] = phantom.discs[last] + 0.6 * (phantom.discs[last] - phantom.discs[last - 1])
    options = BatchOptions(tmp_path / "out", corrections={scan[0].name: discs})
    list(run_batch(scan, options, model=MODEL))
    label = options.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
    edit(label, lambda data: np.where(data == min(discs), 0, data))
    list(run_batch(scan, replace(options, corrections={}), model=MODEL))
    record = json.loads(label.with_name(label.name.replace(".nii.gz", ".json")).read_text(encoding="utf-8"))
    assert [mark["value"] for mark in record["landmarks"]] == [26]
    assert min(disc["value"] for disc in record["discs"]) == min(discs) + 1


def test_labels_are_not_cut_with_their_image(once):
    scan, options, label = once
    edited = edit(label, lambda data: np.where(data == 3, 0, data))
    image = nib.load(scan[0].path)
    whole = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    nib.save(whole.slicer[:, :, whole.shape[2] // 2 :], scan[0].path)
    (row,) = run_batch(scan, options, model=MODEL)
    assert row.status == "failed"
    assert label.read_bytes() == edited
    nib.save(whole, scan[0].path)
    assert [row.first for row in run_batch(scan, options, model=MODEL)] == ["C3/C4"]


def test_corrected_labels_on_an_image_without_a_spine_are_doubted(once, small):
    scan, options, label = once
    edit(label, lambda data: np.where(data == 3, 0, data))
    list(run_batch(scan, options, model=MODEL))
    image = nib.load(scan[0].path)
    noise = np.random.default_rng(0).normal(100, 20, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, image.affine), scan[0].path)
    blind = fake_model(PaintReader(edit=see_nothing))
    (row,) = run_batch(scan, options, model=blind)
    assert (row.status, row.level_confidence) == ("corrected", 0.5)
    assert "too few discs were detected" in row.warnings


def test_labels_of_another_image_of_the_same_name_are_not_applied(painted, tmp_path):
    options = BatchOptions(tmp_path / "out")
    for folder, scale in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(painted.data * scale, painted.grid.affine), tmp_path / folder / "t2.nii.gz")
    first, second = (find_scans(str(tmp_path / folder / "t2.nii.gz")) for folder in ("a", "b"))
    list(run_batch(first, options, model=MODEL))
    edited = edit(options.derivatives / "t2_label-discs_dlabel.nii.gz", one_level_down)
    (row,) = run_batch(second, options, model=MODEL)
    assert "made of another image of this name, in another folder" in row.error
    assert (options.derivatives / "t2_label-discs_dlabel.nii.gz").read_bytes() == edited
    assert [row.status for row in run_batch(first, options, model=MODEL)] == ["corrected"]


def test_a_checked_copy_that_was_edited_is_not_replaced(dataset, tmp_path, phantom):
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    corrected = BatchOptions(tmp_path / "out", corrections={scan[0].name: phantom.discs})
    list(run_batch(scan, corrected, model=MODEL))
    copy = tmp_path / "out" / "derivatives" / "labels" / f"{scan[0].name}_label-discs_dlabel.nii.gz"
    edited = edit(copy, lambda data: np.roll(data, 1, axis=1))  # by one voxel
    later = {value: np.add(tip, [0, 0, 4]) for value, tip in phantom.discs.items()}
    (row,) = run_batch(scan, replace(corrected, corrections={scan[0].name: later}), model=MODEL)
    assert f"{copy} holds labels that a person made" in row.error
    assert copy.read_bytes() == edited


def test_labels_of_the_dataset_that_differ_from_those_in_the_results_are_named(dataset, tmp_path, phantom):
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    options = BatchOptions(dataset, corrections={scan[0].name: phantom.discs})
    list(run_batch(scan, options, model=MODEL))
    options = replace(options, corrections={})
    (row,) = run_batch(scan, replace(options, csv=True), model=MODEL)
    assert (row.status, "was not used" in row.warnings) == ("corrected", False)
    copy = dataset / "derivatives" / "labels" / f"{scan[0].name}_label-discs_dlabel.nii.gz"
    edit(copy, one_level_down)
    (row,) = run_batch(scan, options, model=MODEL)
    assert f"{copy} was not used: corrections and labels corrected in the results come first" in row.warnings


def edit(path, change):
    image = nib.load(path)
    data = change(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(data, image.affine, image.header), path)
    return path.read_bytes()


def one_level_down(data):
    return np.where(data > 0, data + 1, 0).astype(data.dtype)


def disc_values(spine):
    return set(np.unique(np.asarray(nib.load(spine).dataobj)).tolist()) & {*range(63, 68), *range(71, 83)}


@pytest.fixture
def masked(dataset, tmp_path):
    """A segmented scan: itself, the options, the models, and the folder of its files."""
    options = BatchOptions(tmp_path / "out", masks=True)
    scan = find_scans(dataset, include=["sub-01_T2w*"])
    models = {"model": MODEL, "mask_model": fake_mask_model()}
    list(run_batch(scan, options, **models))
    return scan, options, models, options.derivatives / "sub-01" / "anat"


def test_masks_json_and_picture_follow_labels_corrected_by_hand(masked, tmp_path):
    scan, options, models, folder = masked
    label, spine = (
        folder / "sub-01_T2w_label-discs_dlabel.nii.gz",
        folder / "sub-01_space-T2w_seg-spine_dseg.nii.gz",
    )
    assert min(disc_values(spine)) == 63
    corrected = edit(label, one_level_down)
    for _ in range(2):
        (row,) = run_batch(scan, options, **models)
        assert (row.status, row.first, row.level_confidence) == ("corrected", "C3/C4", 1.0)
        assert label.read_bytes() == corrected
        assert min(disc_values(spine)) == 64
    sidecar = json.loads((folder / "sub-01_T2w_label-discs_dlabel.json").read_text(encoding="utf-8"))
    assert sidecar["discs"][0]["value"] == 4
    entry = options.derivatives / "sourcedata" / "pictures" / "sub-01" / "anat" / "sub-01_T2w.json"
    assert Entry.from_json(entry.read_text(encoding="utf-8")).discs[0]["value"] == 4
    (row,) = run_batch(scan, BatchOptions(tmp_path / "out"), **models)
    assert row.status == "corrected"
    assert spine.exists()  # still true
    edit(label, one_level_down)
    (row,) = run_batch(scan, BatchOptions(tmp_path / "out"), **models)
    assert row.first == "C4/C5"
    assert not spine.exists()


def test_a_mask_edited_beside_corrected_labels_is_kept(masked):
    scan, options, models, folder = masked
    edit(folder / "sub-01_T2w_label-discs_dlabel.nii.gz", one_level_down)
    mask = edit(folder / "sub-01_space-T2w_label-cord_mask.nii.gz", np.zeros_like)
    for _ in range(2):
        (row,) = run_batch(scan, options, **models)
        assert (
            row.warnings
            == "sub-01_space-T2w_label-cord_mask.nii.gz is not this command's, or was edited: it is kept"
        )
        assert (folder / "sub-01_space-T2w_label-cord_mask.nii.gz").read_bytes() == mask
        assert min(disc_values(folder / "sub-01_space-T2w_seg-spine_dseg.nii.gz")) == 64


def test_corrected_labels_outlive_a_scan_that_fails(dataset, tmp_path):
    options = BatchOptions(tmp_path / "out")
    (scan,) = find_scans(dataset, include=["sub-01_T2w*"])
    list(run_batch([scan], options, model=MODEL))
    label = options.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
    corrected = edit(label, one_level_down)
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["corrected"]
    scan.path.write_bytes(b"no longer an image")
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["failed"]
    assert label.read_bytes() == corrected


def test_a_failure_that_has_passed_is_no_longer_shown(dataset, tmp_path):
    options = BatchOptions(tmp_path / "out")
    (scan,) = find_scans(dataset, include=["sub-01_T2w*"])
    list(run_batch([scan], options, model=MODEL))
    label = options.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
    edit(label, one_level_down)
    list(run_batch([scan], options, model=MODEL))
    entry = options.derivatives / "sourcedata" / "pictures" / "sub-01" / "anat" / "sub-01_T2w.json"
    away = scan.path.rename(tmp_path / "away.nii.gz")
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["failed"]
    assert label.is_file()
    away.rename(scan.path)
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["corrected"]
    assert not Entry.from_json(entry.read_text(encoding="utf-8")).error


@pytest.mark.parametrize("what", ["gone", "a pointer"])
def test_labels_outlive_an_image_that_is_out_of_reach(what, dataset, tmp_path):
    options = BatchOptions(tmp_path / "out")
    (scan,) = find_scans(dataset, include=["sub-01_T2w*"])
    list(run_batch([scan], options, model=MODEL))
    scan.path.unlink()
    if what == "a pointer":
        scan.path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n", encoding="utf-8")
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["failed"]
    assert list(options.derivatives.rglob("*dlabel.nii.gz"))


def see_nothing(maps):
    return replace(maps, any_disc=0 * maps.any_disc, canal=0 * maps.canal)


def test_a_scan_without_a_visible_spine_can_be_labelled_by_a_person(small, tmp_path):
    (scan,) = find_scans(small)
    options = BatchOptions(tmp_path / "out", masks=True)
    models = {"model": fake_model(PaintReader(edit=see_nothing)), "mask_model": fake_mask_model()}
    assert [row.status for row in run_batch([scan], options, **models)] == ["failed"]
    corrections = {"noise": {5: (8.0, 60.0, 100.0), 6: (8.0, 60.0, 84.0)}}
    options = BatchOptions(tmp_path / "out", masks=True, corrections=corrections)
    (row,) = run_batch([scan], options, **models)
    assert (row.status, row.discs, row.first) == ("corrected", 2, "C4/C5")
    assert row.warnings.startswith("no masks: no spine was found in the image")
    assert not list(options.derivatives.glob("sourcedata/pictures/*.json"))


def test_a_json_of_somebody_elses_is_not_replaced(once):
    scan, options, label = once
    edit(label, one_level_down)
    sidecar = label.with_name("sub-01_T2w_label-discs_dlabel.json")
    sidecar.write_text('{"Author": "me"}', encoding="utf-8")
    (row,) = run_batch(scan, options, model=MODEL)
    assert "is not this command's" in row.error
    assert sidecar.read_text(encoding="utf-8") == '{"Author": "me"}'


def test_labels_that_the_dataset_has_are_taken_and_followed(dataset, tmp_path, phantom):
    folder = dataset / "derivatives" / "labels" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    image = nib.load(dataset / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    voxels = {v: np.round(np.linalg.inv(image.affine)[:3] @ [*tip, 1]) for v, tip in phantom.discs.items()}
    for shift in (1, 2):
        data = np.zeros(image.shape, dtype=np.uint8)
        for value, voxel in voxels.items():
            data[tuple(voxel.astype(int))] = value + shift
        nib.save(nib.Nifti1Image(data, image.affine), folder / "sub-01_T2w_label-discs_dlabel.nii.gz")
        options = BatchOptions(tmp_path / "out")
        rows = {row.scan: row for row in run_batch(find_scans(dataset), options, model=MODEL)}
        label = options.derivatives / "sub-01" / "anat" / "sub-01_T2w_label-discs_dlabel.nii.gz"
        assert (np.asarray(nib.load(label).dataobj) == data).all()
        assert rows[os.path.join("sub-01", "anat", "sub-01_T2w")].status == "corrected"
        assert rows[os.path.join("sub-03", "anat", "sub-03_T2w")].status != "corrected"


def test_the_bids_app_labels_the_participants_asked_for(dataset, tmp_path):
    out = tmp_path / "out"
    words = [
        str(dataset),
        str(out),
        "participant",
        "--participant-label",
        "02",
        "--contrast",
        "T2w",
        "-v",
        "0",
    ]
    assert bids_main(words) == 1  # the only scan of this participant is broken
    assert list(rows_of(out)) == [os.path.join("sub-02", "anat", "sub-02_T2w")]
    words[4] = "sub-02"
    assert bids_main(words) == 1
    (out / "derivatives" / "sct_deepspine" / "summary.csv").unlink()
    assert bids_main([str(dataset), str(out), "group", "-v", "0"]) == 0
    assert list(rows_of(out)) == [os.path.join("sub-02", "anat", "sub-02_T2w")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["participant", "--participant-label", "77"], "has no sub-77"),
        (["participant", "--session-label", "ses-1"], "has no ses-1"),
        (["group"], "run the level participant first"),
    ],
)
def test_the_bids_app_refuses_what_is_not_there(words, message, dataset, tmp_path, capsys):
    assert bids_main([str(dataset), str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err


def test_corrections_of_the_page_are_written_and_kept_for_ever_after(dataset, tmp_path, phantom):
    results, name = tmp_path / "out", os.path.join("sub-01", "anat", "sub-01_T2w")
    words = ["-i", str(dataset), "-o", str(results), "-include", "sub-01_T2w*", "-v", "0"]
    assert main(words, model=MODEL) == 0
    discs = [{"value": v + 1, "world_mm": tip.tolist()} for v, tip in phantom.discs.items() if v != 5]
    corrected = {"scans": {name: {"discs": discs, "absent": [6]}}}
    (tmp_path / "corrections.json").write_text(json.dumps(corrected), encoding="utf-8")
    assert main([*words, "-corrections", str(tmp_path / "corrections.json")], model=MODEL) == 0
    expected = sorted(value + 1 for value in phantom.discs if value != 5)
    for folder in ("sct_deepspine", "labels"):
        label = results / "derivatives" / folder / f"{name}_label-discs_dlabel.nii.gz"
        data = np.asarray(nib.load(label).dataobj)
        assert sorted(data[data > 0].tolist()) == expected
    for later in (words, [*words, "-upper", "1"]):
        assert main(later, model=MODEL) == 0
        assert rows_of(results)[name]["status"] == "corrected"
        data = np.asarray(nib.load(label).dataobj)
        assert sorted(data[data > 0].tolist()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "holds no corrections"), ('{"scans": {"sub-99/anat/x": []}}', "not among the scans")],
)
def test_corrections_that_fit_no_scan_are_refused(text, message, dataset, tmp_path, capsys):
    (tmp_path / "c.json").write_text(text, encoding="utf-8")
    words = ["-i", str(dataset), "-o", str(tmp_path / "out"), "-corrections", str(tmp_path / "c.json")]
    assert main(words, model=MODEL) == 1
    assert message in capsys.readouterr().err


def test_what_is_no_longer_true_is_removed(dataset, tmp_path):
    options = BatchOptions(tmp_path / "out")
    (scan,) = find_scans(dataset, include=["sub-01_T2w*"])
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["done"]
    scan.path.write_bytes(b"no longer an image")
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["failed"]
    assert not list(options.derivatives.rglob("*dlabel*"))


def test_what_was_asked_for_less_strictly_stays_true(dataset, tmp_path):
    options = BatchOptions(tmp_path / "out", csv=True)
    (scan,) = find_scans(dataset, include=["sub-01_T2w*"])
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["done"]
    before = sorted(options.derivatives.rglob("*dlabel*"))
    strict = replace(options, min_confidence=1.0)
    (row,) = run_batch([scan], strict, model=MODEL)
    assert row.status == "failed"
    assert not row.removed
    assert sorted(options.derivatives.rglob("*dlabel*")) == before
    # Of another image nothing holds any more.
    image = nib.load(scan.path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), scan.path)
    (row,) = run_batch([scan], strict, model=MODEL)
    assert "sub-01_T2w_label-discs_dlabel.nii.gz" in row.removed
    assert not list(options.derivatives.rglob("*dlabel*"))


def test_corrections_of_scans_that_are_not_selected_are_left_for_later(dataset, tmp_path, phantom, capsys):
    discs = [{"value": v, "world_mm": tip.tolist()} for v, tip in phantom.discs.items()]
    names = [scan.name for scan in find_scans(dataset)]
    (tmp_path / "c.json").write_text(json.dumps({"scans": dict.fromkeys(names, discs)}), encoding="utf-8")
    words = ["-i", str(dataset), "-o", str(tmp_path / "out"), "-corrections", str(tmp_path / "c.json")]
    assert main([*words, "-contrast", "T1w"], model=MODEL) == 0
    said = capsys.readouterr().out
    assert "corrections of scans that are not selected are left for later" in said
    assert [row["status"] for row in rows_of(tmp_path / "out").values()] == ["corrected"]


def test_what_is_asked_for_in_addition_is_written(dataset, tmp_path):
    options = BatchOptions(tmp_path / "out")
    (scan,) = find_scans(dataset, include=["sub-01_T2w*"])
    assert [row.status for row in run_batch([scan], options, model=MODEL)] == ["done"]
    more = replace(options, csv=True, slicer=True)
    assert [row.status for row in run_batch([scan], more, model=MODEL)] == ["done"]
    assert [row.status for row in run_batch([scan], more, model=MODEL)] == ["skipped"]
    (table,) = options.derivatives.rglob("*dlabel.csv")
    table.unlink()
    assert [row.status for row in run_batch([scan], more, model=MODEL)] == ["done"]
    assert table.is_file()


def test_what_a_person_keeps_in_the_folder_of_a_registration_stays(dataset, tmp_path):
    options = BatchOptions(tmp_path / "out")
    (scan,) = find_scans(dataset, include=["sub-01_T2w*"])
    folder = options.derivatives / "sub-01" / "anat" / "sub-01_T2w_reg"
    folder.mkdir(parents=True)
    for name in ("mine.txt", "warp_template2anat.nii.gz"):
        (folder / name).write_text("x", encoding="utf-8")
    run_batch([scan], options, model=MODEL)
    list(run_batch([scan], options, model=MODEL))
    assert (folder / "warp_template2anat.nii.gz").is_file()
    nib.save(nib.Nifti1Image(np.zeros((20, 60, 60), np.int16), np.eye(4)), scan.path)
    (row,) = run_batch([scan], options, model=MODEL)
    assert row.status == "failed"
    assert "warp_template2anat.nii.gz" in row.removed
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_the_terminal_says_what_was_removed(dataset, tmp_path, capsys):
    words = ["-i", str(dataset), "-o", str(tmp_path / "out"), "-contrast", "T1w"]
    assert main([*words, "-csv", "1"], model=MODEL) == 0
    lines = capsys.readouterr().err.splitlines()  # no terminal: a line a scan
    assert any(line.startswith("1/1 ") and "done, " in line for line in lines)
    (scan,) = find_scans(dataset, contrasts=["T1w"])
    image = nib.load(scan.path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), scan.path)
    assert main(words, model=MODEL) == 0
    assert "removed, out of date: sub-01_T1w_label-discs_dlabel.csv" in capsys.readouterr().out


def test_an_unexpected_error_is_one_scans_own(dataset, tmp_path):
    def fail(maps):
        return 1 / 0

    broken = fake_model(PaintReader(edit=fail))
    scans = find_scans(dataset, contrasts=["T1w"])
    rows = list(run_batch(scans, BatchOptions(tmp_path), model=broken))
    assert [(row.status, row.error) for row in rows] == [
        ("failed", "unexpected ZeroDivisionError: division by zero")
    ]


def test_the_overview_holds_every_row(tmp_path):
    options = BatchOptions(tmp_path)
    options.derivatives.mkdir(parents=True)
    rows = [Row("b", "done", 8, "C2/C3", "T2/T3", 0.4), Row("a", "failed", error='a "quoted", line')]
    written = write_overview(options.derivatives, rows)
    with written[0].open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["scan"] for row in table] == ["a", "b"]
    assert table[0]["error"] == 'a "quoted", line'


def test_an_entry_survives_its_file():
    entry = Entry("a</script>", discs=({"value": 3},), warnings=("w",), level_confidence=0.5)
    assert Entry.from_json(entry.to_json()) == entry


# Several processes; real weights, since they start anew


def noise_cohort(small, root, count):
    root.mkdir()
    for number in range(count):
        (root / f"scan{number}.nii.gz").write_bytes(small.read_bytes())
    return find_scans(root)


def test_worker_processes_give_every_scan_one_row(small, tmp_path):
    scans = noise_cohort(small, tmp_path / "in", 5)
    rows = list(run_batch(scans, BatchOptions(tmp_path / "out"), jobs=2))
    assert sorted(row.scan for row in rows) == [f"scan{n}" for n in range(5)]
    assert {row.status for row in rows} == {"failed"}
    assert all("spine" in row.error for row in rows)


KILLER = """
import os, sys
from pathlib import Path
from sct_deepspine import batch
from sct_deepspine.io.bids import find_scans
from sct_deepspine.io.files import write_text

def label_or_die(scan, options):
    if scan.stem == "scan2":
        os._exit(9)  # no exception, no clean-up
    return batch.label_scan(scan, options)

if __name__ == "__main__":
    options = batch.BatchOptions(Path(sys.argv[2]))
    rows = list(batch.run_batch(find_scans(sys.argv[1]), options, jobs=2, label=label_or_die))
    for row in sorted(rows, key=lambda row: row.scan):
        print(row.scan, row.error)
"""


def test_a_scan_that_kills_its_worker_is_named_and_the_others_are_done(small, tmp_path):
    noise_cohort(small, tmp_path / "in", 5)
    script = tmp_path / "killer.py"
    script.write_text(KILLER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "in", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"scan{n}" for n in range(5)]
    assert lines[2].startswith("scan2 the worker process crashed twice on this scan")
    assert all("spine" in line for n, line in enumerate(lines) if n != 2)


@posix_signals
@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_so_and_leaves_nothing_half_written(signal_, code, small, tmp_path):
    noise_cohort(small, tmp_path / "in", 200)
    running = subprocess.Popen(
        [sys.executable, "-c", RUN_BATCH, "-i", tmp_path / "in", "-o", tmp_path / "out", "-jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pictures = tmp_path / "out" / "derivatives" / "sct_deepspine" / "sourcedata" / "pictures"
    for _ in range(1200):
        if (pictures.is_dir() and list(pictures.glob("*.json"))) or running.poll() is not None:
            break
        time.sleep(0.1)
    running.send_signal(signal_)
    _, err = running.communicate(timeout=90)
    assert running.returncode == code
    assert "run again to go on" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob(".deepspine-*"))
    assert len(rows_of(tmp_path / "out")) < 200


# A Dask cluster


def test_a_scheduler_that_does_not_answer_is_told(small, tmp_path, capsys):
    pytest.importorskip("distributed")
    noise_cohort(small, tmp_path / "in", 1)
    words = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-scheduler", "tcp://127.0.0.1:9"]
    assert main(words) == 1
    assert "no Dask scheduler answers" in capsys.readouterr().err


DASK = """
import os, signal, sys, time
from pathlib import Path
from distributed import Client, LocalCluster
from sct_deepspine.batch import BatchOptions, run_batch
from sct_deepspine.io.bids import find_scans
from sct_deepspine.io.files import write_text

if __name__ == "__main__":
    with LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            victim = sorted(client.run(os.getpid).values())[0]
        rows = []
        scans, options = find_scans(sys.argv[1]), BatchOptions(Path(sys.argv[2]))
        for row in run_batch(scans, options, scheduler=cluster.scheduler_address):
            if not rows:
                os.kill(victim, getattr(signal, "SIGKILL", signal.SIGTERM))
            rows.append(row)
    for row in sorted(rows, key=lambda row: row.scan):
        print("ROW", row.scan, row.status, row.error)
"""


def test_a_dask_cluster_that_loses_a_worker_loses_no_scan(small, tmp_path):
    pytest.importorskip("distributed")
    noise_cohort(small, tmp_path / "in", 12)
    script = tmp_path / "cluster.py"
    script.write_text(DASK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "in", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines() if line.startswith("ROW")]
    assert sorted(row[1] for row in rows) == sorted(f"scan{n}" for n in range(12))
    assert all("spine" in row[3] for row in rows)


OTHER_VERSION = """
import sys
sys.path[:0] = sys.argv[3].split("|")
from sct_deepspine import _version
_version.__version__ = sys.argv[4]  # as if another release were installed
from fakes import fake_model
from sct_deepspine.cli.batch import main
sys.exit(main(["-i", sys.argv[1], "-o", sys.argv[2]], model=fake_model()))
"""


def test_what_another_version_labelled_is_labelled_again(painted_file, tmp_path):
    paths = "|".join(path for path in sys.path if path)
    words = [painted_file.parent, tmp_path / "out", paths]
    counts = []
    for version in ("1.0.0", "1.0.0", "1.0.1"):
        script = [sys.executable, "-c", OTHER_VERSION, *words, version]
        done = subprocess.run(script, check=True, capture_output=True, text=True)
        counts += [line for line in done.stdout.splitlines() if line.startswith("1 scans")]
    assert counts == [
        "1 scans: 1 done, 0 skipped, 0 corrected, 0 failed",
        "1 scans: 0 done, 1 skipped, 0 corrected, 0 failed",
        "1 scans: 1 done, 0 skipped, 0 corrected, 0 failed",
    ]


# Sessions


@pytest.fixture
def session(tmp_path, painted, phantom):
    """A BIDS dataset of two subjects: the upper and the lower part of a spine, and a whole one."""
    root = tmp_path / "study"
    middle = round(float(painted.grid.voxel_from_world(phantom.discs[6])[0, 2]))
    parts = {
        "sub-01_acq-upper_T2w": slice(middle - 25, None),
        "sub-01_acq-lower_T1w": slice(0, middle + 25),
        "sub-02_T2w": slice(None),
    }
    for name, part in parts.items():
        affine = np.array(painted.grid.affine)
        affine[:3, 3] = painted.grid.world_from_voxel([0, 0, part.start or 0])[0]
        folder = root / name[:6] / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(painted.data[:, :, part], affine), folder / f"{name}.nii.gz")
    return root


def sidecar_of(results, name):
    folder = results / "derivatives" / "sct_deepspine" / name[:6] / "anat"
    return json.loads((folder / f"{name}_label-discs_dlabel.json").read_text(encoding="utf-8"))


def test_the_images_of_a_session_are_labelled_together_and_done_again_together(session, tmp_path, capsys):
    words = ["-i", str(session), "-o", str(tmp_path / "out")]
    assert main(words, model=MODEL) == 0
    upper = sidecar_of(tmp_path / "out", "sub-01_acq-upper_T2w")
    assert upper["session"]["images"] == ["sub-01_acq-lower_T1w.nii.gz", "sub-01_acq-upper_T2w.nii.gz"]
    assert "session" not in sidecar_of(tmp_path / "out", "sub-02_T2w")
    capsys.readouterr()
    assert main(words, model=MODEL) == 0
    assert "3 scans: 0 done, 3 skipped" in capsys.readouterr().out
    changed = session / "sub-01" / "anat" / "sub-01_acq-lower_T1w.nii.gz"
    image = nib.load(changed)
    nib.save(nib.Nifti1Image(2 * np.asarray(image.dataobj), image.affine), changed)
    assert main(words, model=MODEL) == 0
    assert "3 scans: 2 done, 1 skipped" in capsys.readouterr().out
    assert main([*words, "-session", "0"], model=MODEL) == 0
    assert "session" not in sidecar_of(tmp_path / "out", "sub-01_acq-upper_T2w")


def test_two_geometries_of_an_image_are_said_in_a_session_too(session, tmp_path):
    name = "sub-01_acq-upper_T2w"
    path = session / "sub-01" / "anat" / f"{name}.nii.gz"
    image = nib.load(path)
    out = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    out.set_sform(image.affine, 1)
    out.set_qform(image.affine + np.outer((0, 20, 0, 0), (0, 0, 0, 1)), 1)
    nib.save(out, path)
    assert main(["-i", str(session), "-o", str(tmp_path / "out"), "-v", "0"], model=MODEL) == 0
    said = sidecar_of(tmp_path / "out", name)
    assert said["session"]
    assert sum("holds two geometries" in note for note in said["warnings"]) == 1
    other = sidecar_of(tmp_path / "out", "sub-01_acq-lower_T1w")
    assert not any("holds two geometries" in note for note in other["warnings"])


def test_corrected_labels_of_one_image_tell_the_levels_of_its_session(session, tmp_path, phantom):
    name = "sub-01/anat/sub-01_acq-lower_T1w"
    lower = {v: tip for v, tip in phantom.discs.items() if v >= 6}
    discs = [{"value": v + 1, "world_mm": tip.tolist()} for v, tip in lower.items()]
    (tmp_path / "c.json").write_text(json.dumps({"scans": {name: discs}}), encoding="utf-8")
    words = ["-i", str(session), "-o", str(tmp_path / "out"), "-include", "sub-01*"]
    assert main([*words, "-corrections", str(tmp_path / "c.json")], model=MODEL) == 0
    rows = rows_of(tmp_path / "out")
    assert rows[name]["status"] == "corrected"
    upper = sidecar_of(tmp_path / "out", "sub-01_acq-upper_T2w")
    for disc in upper["discs"]:
        if disc["value"] - 1 in phantom.discs:
            assert np.linalg.norm(disc["world_mm"] - phantom.discs[disc["value"] - 1]) < 6


def test_labels_of_one_image_that_are_refused_fail_that_image_alone(session, tmp_path, phantom):
    name, other = "sub-01/anat/sub-01_acq-lower_T1w", "sub-01/anat/sub-01_acq-upper_T2w"
    kept = [value for value in sorted(phantom.discs) if value >= 7 and value != 9]
    gap = [{"value": value, "world_mm": phantom.discs[value].tolist()} for value in kept]
    (tmp_path / "c.json").write_text(json.dumps({"scans": {name: gap}}), encoding="utf-8")
    words = ["-i", str(session), "-o", str(tmp_path / "out"), "-include", "sub-01*"]
    assert main([*words, "-corrections", str(tmp_path / "c.json")], model=MODEL) == 1
    rows = rows_of(tmp_path / "out")
    assert rows[name]["status"] == "failed"
    assert "is missing between discs above and below" in rows[name]["error"]
    assert rows[other]["status"] == "done"


def test_an_unreadable_image_of_a_session_fails_alone(session, tmp_path):
    (session / "sub-01" / "anat" / "sub-01_acq-lower_T1w.nii.gz").write_bytes(b"\x1f\x8b broken")
    words = ["-i", str(session), "-o", str(tmp_path / "out"), "-v", "0"]
    assert main(words, model=MODEL) == 1
    status = {name: row["status"] for name, row in rows_of(tmp_path / "out").items()}
    assert list(status.values()) == ["failed", "done", "done"]


def test_a_session_without_any_spine_fails_scan_by_scan(session, tmp_path):
    blind = fake_model(PaintReader(edit=see_nothing))
    words = ["-i", str(session), "-o", str(tmp_path / "out"), "-v", "0"]
    assert main(words, model=blind) == 1
    assert [row["status"] for row in rows_of(tmp_path / "out").values()] == ["failed"] * 3


# What lies in people's folders


@symbolic_links
def test_scans_whose_content_is_elsewhere_are_failures_with_a_remedy(dataset, tmp_path):
    folder = dataset / "sub-01" / "anat"
    (folder / "sub-01_T1w.nii.gz").unlink()
    (folder / "sub-01_T1w.nii.gz").symlink_to("../../.git/annex/objects/x/y/MD5E-s1--1.nii.gz")
    (folder / "sub-01_T2w.nii.gz").write_text("/annex/objects/MD5E-s123--0123.nii.gz\n", encoding="utf-8")
    words = ["-i", str(dataset), "-o", str(tmp_path / "out"), "-v", "0", "-include", "sub-01*"]
    assert main(words, model=MODEL) == 1
    errors = [row["error"] for row in rows_of(tmp_path / "out").values()]
    assert len(errors) == 2
    assert all("content is not here; get it first (datalad get" in error for error in errors)


@pytest.mark.parametrize(
    "name",
    [
        "t2_seg",
        "t2_canal",
        "t2_labels",
        "t2_lesion",
        "t2_defacemask",
        "warp_t2",
        "t2_labels-disc",
        "t2_discs-edited",
    ],
)
def test_masks_labels_and_warps_are_no_scans(name, small, tmp_path):
    for stem in ("t2", name):
        (tmp_path / f"{stem}.nii.gz").write_bytes(small.read_bytes())
    assert [scan.stem for scan in find_scans(tmp_path)] == ["t2"]


def test_a_whole_mask_from_elsewhere_is_no_scan_but_a_scan_may_be_called_spine(tmp_path):
    for name in ("t2", "t2_spine", "t1_spine"):
        nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    assert [scan.stem for scan in find_scans(tmp_path)] == ["t1_spine", "t2"]


def test_what_this_package_wrote_is_no_scan(painted_file):
    folder = painted_file.parent
    words = ["-i", str(painted_file), "-ofolder", str(folder), "-v", "0", "-masks", "1"]
    assert label_main(words, model=MODEL, mask_model=fake_mask_model()) == 0
    assert (folder / "t2_spine.nii.gz").is_file()
    assert [scan.path for scan in find_scans(folder)] == [painted_file]


@pytest.mark.parametrize(
    "end",
    [
        "labels-disc",
        "label-disc",
        "labels-manual",
        "labels-disc-manual",
        "label-discs_desc-manual_dlabel",
        "space-orig_label-discs_dlabel",
    ],
)
def test_hand_labels_under_the_names_of_datasets_are_taken(end, dataset, tmp_path, phantom, painted):
    folder = dataset / "derivatives" / "labels" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    data = np.zeros(painted.data.shape, dtype=np.uint8)
    for value in (4, 5, 6):
        data[tuple(np.round(painted.grid.voxel_from_world(phantom.discs[value])[0]).astype(int))] = value
    nib.save(nib.Nifti1Image(data, painted.grid.affine), folder / f"sub-01_T2w_{end}.nii.gz")
    options = BatchOptions(tmp_path / "out")
    (row,) = run_batch(find_scans(dataset, include=["sub-01_T2w*"]), options, model=MODEL)
    assert (row.status, row.discs, row.first) == ("corrected", 3, "C3/C4")


def test_labels_of_a_scan_that_were_not_used_are_named(dataset, tmp_path, small):
    folder = dataset / "derivatives" / "labels" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (folder / "sub-01_T2w_my-disc-labels_v2.nii.gz").write_bytes(small.read_bytes())
    (row,) = run_batch(
        find_scans(dataset, include=["sub-01_T2w*"]), BatchOptions(tmp_path / "out"), model=MODEL
    )
    assert row.status == "done"
    assert (
        "sub-01_T2w_my-disc-labels_v2.nii.gz looks like disc labels of this scan and was not used"
        in row.warnings
    )


def test_a_list_may_have_quotes_and_a_byte_order_mark(dataset):
    (dataset / "list.txt").write_bytes(b'\xef\xbb\xbf"sub-01/anat/sub-01_T2w.nii.gz"\r\n\r\n')
    assert [scan.stem for scan in find_scans(dataset / "list.txt")] == ["sub-01_T2w"]


def test_two_files_of_one_name_are_refused_with_a_remedy(dataset):
    plain = dataset / "sub-01" / "anat" / "sub-01_T2w.nii"
    plain.write_bytes(b"x")
    with pytest.raises(ImageError, match=r"leave one out \(-exclude\), or give the folder"):
        find_scans(dataset)


def table_of(results, name):
    with (results / "derivatives" / "sct_deepspine" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_tables_of_a_study_have_a_line_a_disc_and_a_line_a_structure(session, tmp_path, phantom):
    words = ["-i", str(session), "-o", str(tmp_path / "out"), "-masks", "1", "-v", "0"]
    assert main(words, model=MODEL, mask_model=fake_mask_model()) == 0
    discs, volumes = table_of(tmp_path / "out", "discs.tsv"), table_of(tmp_path / "out", "volumes.tsv")
    whole = [row for row in discs if row["scan"] == "sub-02/anat/sub-02_T2w"]
    assert [int(row["value"]) for row in whole] == sorted(phantom.discs)
    assert {row["participant_id"] for row in discs} == {"sub-01", "sub-02"}
    for row in whole:
        place = [float(row[f"{axis}_mm"]) for axis in "xyz"]
        assert np.linalg.norm(place - phantom.discs[int(row["value"])]) < 3
    upper = next(row for row in discs if "upper" in row["scan"])
    assert upper["levelled_by"] == "sub-01_acq-lower_T1w.nii.gz"
    assert {row["structure"] for row in volumes} >= {"cord", "canal"}
    for name, table in (("discs", discs), ("volumes", volumes)):
        folder = tmp_path / "out" / "derivatives" / "sct_deepspine"
        assert list(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))) == list(table[0])


def validator_errors(dataset):
    """Return what the validator of BIDS, with the schema that it holds, finds wrong with a dataset."""
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    line = [validator, dataset, "--format", "json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue["severity"] == "error"]


def test_the_results_are_valid_derivatives(session, tmp_path):
    words = ["-i", str(session), "-o", str(tmp_path / "out"), "-masks", "1", "-csv", "1", "-slicer", "1"]
    assert main([*words, "-v", "0"], model=MODEL, mask_model=fake_mask_model()) == 0
    assert validator_errors(tmp_path / "out" / "derivatives" / "sct_deepspine") == []


def test_checked_labels_are_a_dataset_of_their_own(dataset, tmp_path, phantom):
    discs = [{"value": v, "world_mm": tip.tolist()} for v, tip in phantom.discs.items()]
    (tmp_path / "c.json").write_text(json.dumps({"scans": {"sub-01/anat/sub-01_T1w": discs}}))
    words = ["-i", str(dataset), "-o", str(tmp_path / "out"), "-contrast", "T1w", "-v", "0"]
    assert main([*words, "-corrections", str(tmp_path / "c.json")], model=MODEL) == 0
    labels = tmp_path / "out" / "derivatives" / "labels"
    assert validator_errors(labels) == []
    (labels / "dataset_description.json").write_text('{"Name": "mine"}', encoding="utf-8")
    (tmp_path / "c.json").write_text(json.dumps({"scans": {"sub-01/anat/sub-01_T1w": discs[1:]}}))
    assert main([*words, "-corrections", str(tmp_path / "c.json")], model=MODEL) == 0
    assert json.loads((labels / "dataset_description.json").read_text(encoding="utf-8")) == {"Name": "mine"}


# One folder of results for many jobs


def test_the_table_and_the_page_hold_what_all_jobs_did(dataset, tmp_path):
    for contrast in ("T1w", "T2w"):
        words = ["-i", str(dataset), "-o", str(tmp_path / "out"), "-contrast", contrast, "-v", "0"]
        main(words, model=MODEL)
    assert len(rows_of(tmp_path / "out")) == 4
    page = (tmp_path / "out" / "derivatives" / "sct_deepspine" / "index.html").read_text(encoding="utf-8")
    assert page.count('"picture": "iVBOR') == 3


def test_a_job_that_ends_while_another_one_writes_misses_nothing(tmp_path):
    folder = tmp_path / "derivatives"
    keep_row(folder, Row("a", "done"))
    added = []

    def write_and_add_another(*arguments):
        paths = write_tables(*arguments)
        if not added:
            added.append(True)
            keep_row(folder, Row("b", "done"))
        return paths

    written = write_overview(folder, tables=write_and_add_another)
    with written[0].open(newline="", encoding="utf-8") as file:
        assert [row["scan"] for row in csv.DictReader(file)] == ["a", "b"]


def test_the_table_is_made_while_another_job_writes_beside_it(tmp_path):
    """Folders of half-written files come and go while what was kept is listed."""
    keep_row(tmp_path, Row("sub-01/anat/sub-01_T2w", "done"))
    busy = tmp_path / overview.ROWS / "sub-01" / "anat"
    stop = threading.Event()

    def write():
        while not stop.is_set():
            write_text(busy / "other.txt", "x")

    other = threading.Thread(target=write)
    other.start()
    try:
        for _ in range(300):
            assert [row.scan for row in overview.read_rows(tmp_path)] == ["sub-01/anat/sub-01_T2w"]
    finally:
        stop.set()
        other.join()
