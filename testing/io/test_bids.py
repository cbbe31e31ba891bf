"""Which files are scans, and which are a person's labels of one."""

import json
from pathlib import Path

import pytest
from platforms import symbolic_links

from sct_deepspine.errors import ImageError
from sct_deepspine.io.bids import find_scans, given_labels, unused_labels
from sct_deepspine.io.disc_labels import read_disc_labels

LABELS = Path("derivatives") / "labels" / "sub-01" / "anat"


@pytest.fixture
def scan(tmp_path):
    """One scan of a BIDS dataset, whose content nothing reads."""
    place = tmp_path / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    (tmp_path / LABELS).mkdir(parents=True)
    (found,) = find_scans(tmp_path)
    return found


@pytest.mark.parametrize(
    "name",
    [
        *("t2_gmseg", "t2_wmseg", "t2_lesionseg", "t2_rootlets", "t2_pmj", "t2_roi", "t2_softmask", "t2_xfm"),
        *("t2_reg/template2anat", "t2_reg/anat2template", "t2_reg/warp_anat2template", "t2_warp"),
    ],
)
def test_masks_and_warps_are_no_scans(name, tmp_path):
    for file in ("t2", name, "roi_t2w", "mask-off_T1w"):
        path = tmp_path / f"{file}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert [scan.stem for scan in find_scans(tmp_path)] == ["mask-off_T1w", "roi_t2w", "t2"]


@pytest.mark.parametrize("folder", [LABELS, Path("derivatives") / "labels"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_labels_are_found_in_either_layout(folder, suffix, scan, tmp_path):
    path = tmp_path / folder / f"sub-01_T2w_labels-disc{suffix}"
    path.write_bytes(b"x")
    assert given_labels(scan) == path
    assert unused_labels(scan) == []


def test_labels_made_by_hand_come_before_others_and_each_unused_file_is_named(scan, tmp_path):
    names = ["label-discs_dlabel", "labels-disc-manual", "labels-disc"]
    paths = [tmp_path / LABELS / f"sub-01_T2w_{name}.nii.gz" for name in names]
    paths.append(scan.path.with_name("sub-01_T2w_labels-manual.nii.gz"))
    for path in paths:
        path.write_bytes(b"x")
    assert given_labels(scan) == paths[1]
    assert set(unused_labels(scan)) == {paths[0], paths[2], paths[3]}


def test_what_this_package_wrote_is_not_taken_for_unused_labels(scan):
    own = scan.path.with_name("sub-01_T2w_labels-disc.nii.gz")
    own.write_bytes(b"x")
    record = {"GeneratedBy": [{"Name": "sct_deepspine"}], "files": {own.name: "0"}}
    scan.path.with_name("sub-01_T2w_labels-disc.json").write_text(json.dumps(record), encoding="utf-8")
    assert unused_labels(scan) == []


@symbolic_links
def test_labels_whose_content_is_elsewhere_are_not_passed_over(scan, tmp_path):
    path = tmp_path / LABELS / "sub-01_T2w_labels-disc.nii.gz"
    path.symlink_to(tmp_path / "annex" / "gone.nii.gz")
    assert given_labels(scan) == path
    with pytest.raises(ImageError, match="content is not here"):
        read_disc_labels(path)


def test_a_pointer_of_git_lfs_says_what_to_do(tmp_path):
    path = tmp_path / "t2.nii.gz"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", encoding="utf-8"
    )
    with pytest.raises(ImageError, match="git lfs pull"):
        read_disc_labels(path)


def test_two_scans_of_one_name_in_a_glob_have_a_remedy_that_works(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t2.nii.gz").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"-i FOLDER -include PATTERN"):
        find_scans(f"{tmp_path}/*/t2.nii.gz")
    found = find_scans(tmp_path, include=["t2.nii.gz"])
    assert [scan.name for scan in found] == ["one/t2", "two/t2"]
