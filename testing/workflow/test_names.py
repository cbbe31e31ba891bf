"""What the files of a scan are called: users and other programs find them by these names."""

from dataclasses import fields
from pathlib import Path

import pytest

from sct_deepspine.workflow.names import ResultNames, bids_names, mask_names, sct_names

HERE = Path("out")


def listed(names):
    """Return the name of every file, by what it is; all lie in one folder."""
    paths = {field.name: getattr(names, field.name) for field in fields(ResultNames)}
    flat = {kind: path for kind, path in paths.items() if isinstance(path, Path)}
    flat |= {f"mask {part}": path for part, path in names.masks.items()}
    assert {path.parent for path in (*flat.values(), *names.other_records)} == {HERE}
    return {kind: path.name for kind, path in flat.items()}


OF_SCT = {
    "labels": "t2_discs.nii.gz",
    "sidecar": "t2_discs.json",
    "template": "t2_discs_template.nii.gz",
    "csv": "t2_discs.csv",
    "markups": "t2_discs.mrk.json",
    "heatmaps": "t2_heatmaps.nii.gz",
    "heatmap_volumes": "t2_heatmaps.json",
    "attention": "t2_attention.nii.gz",
    "preview": "t2_discs.png",
    "registration": "t2_reg",
    "mask spine": "t2_spine.nii.gz",
    "mask seg": "t2_seg.nii.gz",
    "mask canal": "t2_canal.nii.gz",
    "mask seg_labeled": "t2_seg_labeled.nii.gz",
}


def test_files_beside_an_image_are_named_as_sct_names_them():
    names = sct_names(HERE / "t2_discs.nii.gz")
    assert listed(names) == OF_SCT
    assert names.records == (HERE / "t2_discs.json", HERE / "t2_spine.json")


def test_another_name_of_the_labels_names_the_other_files():
    names = listed(sct_names(HERE / "mine.nii"))
    assert names["labels"] == "mine.nii"
    assert {names["sidecar"], names["preview"], names["mask seg"]} == {
        *("mine.json", "mine.png", "mine_seg.nii.gz"),
    }


def test_the_command_that_makes_masks_has_a_record_and_a_picture_of_its_own():
    names = mask_names(HERE, "t2")
    assert listed(names) == OF_SCT | {"sidecar": "t2_spine.json", "preview": "t2_spine.png"}
    assert names.records == (HERE / "t2_spine.json", HERE / "t2_discs.json")


def test_derivatives_are_named_as_bids_names_them():
    names = bids_names(HERE, "sub-01_ses-a_T2w")
    base, mask = "sub-01_ses-a_T2w_label-discs", "sub-01_ses-a_space-T2w"
    assert listed(names) == {
        "labels": f"{base}_dlabel.nii.gz",
        "sidecar": f"{base}_dlabel.json",
        "template": f"{base}_desc-template_dlabel.nii.gz",
        "csv": f"{base}_dlabel.csv",
        "markups": f"{base}_dlabel.mrk.json",
        "heatmaps": "sub-01_ses-a_T2w_heatmaps.nii.gz",
        "heatmap_volumes": "sub-01_ses-a_T2w_heatmaps.json",
        "attention": "sub-01_ses-a_T2w_attention.nii.gz",
        "preview": f"{base}_dlabel.png",
        "registration": "sub-01_ses-a_T2w_reg",
        "mask spine": f"{mask}_seg-spine_dseg.nii.gz",
        "mask seg": f"{mask}_label-cord_mask.nii.gz",
        "mask canal": f"{mask}_label-canal_mask.nii.gz",
        "mask seg_labeled": f"{mask}_seg-cordlevels_dseg.nii.gz",
    }
    assert names.records == (names.sidecar,)


@pytest.mark.parametrize("stem", ["t2", "patient_T2w", "sub-01", "sub-01_acq-x-y", "sub-01_"])
def test_masks_of_an_image_that_is_not_named_by_bids_keep_plain_names(stem):
    assert bids_names(HERE, stem).masks["seg"] == HERE / f"{stem}_seg.nii.gz"
