"""The file that the review page saves: what is in it, and which image it is about."""

import json

import numpy as np
import pytest

from sct_deepspine.errors import LabelsError
from sct_deepspine.io.bids import ScanFile
from sct_deepspine.io.disc_labels import read_disc_labels, read_page_corrections, scan_of_image
from sct_deepspine.io.identity import file_sha256
from sct_deepspine.workflow.review import keep_ratings, matched_corrections, read_ratings

DISCS = [{"value": 3, "world_mm": [0, 0, 40]}, {"value": 4, "world_mm": [0, 0, 20], "edit": "moved"}]
GRID = {"shape": [9, 9, 9], "affine": np.eye(4).tolist()}


def scan(name, sha="", path="", **content):
    image = {"image": GRID | {"sha256": sha, "path": path}} if sha else {}
    return {"name": name, "discs": DISCS, **image, **content}


@pytest.fixture
def read(tmp_path):
    def read_scans(**scans):
        path = tmp_path / "corrections.json"
        path.write_text(json.dumps({"format": 2, "scans": scans}), encoding="utf-8")
        return read_page_corrections(path)

    return read_scans


def test_both_forms_are_read(tmp_path, read):
    (new,) = read(key=scan("a", "1" * 64, "x/a.nii", absent=[], rating="pass", accepted=True))
    assert (new.key, new.name, new.sha256, new.path) == ("key", "a", "1" * 64, "x/a.nii")
    assert (new.rating, new.accepted, new.labels.accepted) == ("pass", True, False)  # one was moved
    (tmp_path / "old.json").write_text(json.dumps({"scans": {"a": DISCS}}), encoding="utf-8")
    (old,) = read_page_corrections(tmp_path / "old.json")
    assert (old.name, old.sha256, old.rating) == ("a", "", None)
    for one in (new, old):
        assert [value for value, _ in one.labels.points] == [3, 4]
        assert one.labels.complete


def test_a_scan_that_was_only_rated_has_no_labels(read):
    (rated,) = read(key={"name": "a", "rating": "doubt"})
    assert (rated.labels, rated.rating) == (None, "doubt")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"format": 3, "scans": {}}, "of a later version"),
        ({"scans": {"k": scan("a", absent=[4])}}, r"a: 4 \(C3/C4\) is labelled and marked as not there"),
        ({"scans": {"k": scan("a", rating="good")}}, "expected the rating pass, fail, doubt, got 'good'"),
        ({"scans": {"k": {"discs": [{"value": 3}]}}}, "holds no corrections"),
        ({"scans": {"k": {"discs": DISCS, "image": {"sha256": "1"}}}}, "no grid"),
        ({"scans": []}, "holds no corrections"),
    ],
)
def test_what_is_no_such_file_is_refused(content, match, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LabelsError, match=match):
        read_page_corrections(tmp_path / "c.json")


def test_an_image_is_told_by_its_fingerprint_and_then_by_its_name(read):
    scans = read(a=scan("t2", "1" * 64, "/A/t2.nii.gz"), b=scan("t2", "2" * 64, "/B/t2.nii.gz"))
    assert scan_of_image(scans, sha256="2" * 64, path="/A/t2.nii.gz").key == "b"
    assert scan_of_image(scans, sha256="3" * 64, path="/C/t2.nii.gz") is None
    with pytest.raises(LabelsError, match="t2 were made on another version of the image"):
        scan_of_image(scans, sha256="3" * 64, path="/A/t2.nii.gz")


def test_copies_of_an_image_are_told_by_their_path(read):
    scans = read(a=scan("t2", "1" * 64, "/A/t2.nii.gz"), b=scan("t2", "1" * 64, "/B/t2.nii.gz"))
    assert scan_of_image(scans, sha256="1" * 64, path="/B/t2.nii.gz").key == "b"
    with pytest.raises(LabelsError, match=r"several scans .*/A/t2.nii.gz and /B/t2.nii.gz"):
        scan_of_image(scans, sha256="1" * 64, path="/C/t2.nii.gz")


def test_names_tell_where_no_fingerprint_is_recorded(read):
    scans = read(a=scan("sub-01/anat/x"), b=scan("sub-02/anat/x"))
    assert scan_of_image(scans, sha256="1" * 64, path="/d/sub-02/anat/x.nii.gz").key == "b"
    assert scan_of_image(scans, sha256="1" * 64, path="/d/x.nii.gz") is None


def test_one_corrected_scan_needs_no_image_and_several_do(read, tmp_path):
    read(a=scan("a"), b={"name": "b", "rating": "pass"})
    assert [value for value, _ in read_disc_labels(tmp_path / "corrections.json").points] == [3, 4]
    read(a=scan("a"), b=scan("b"))
    with pytest.raises(LabelsError, match="2 corrected scans: give the image as a path"):
        read_disc_labels(tmp_path / "corrections.json")


@pytest.fixture
def cohort(tmp_path):
    scans = []
    for name in ("one", "two", "three"):
        path = tmp_path / "in" / f"{name}.nii"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name, encoding="utf-8")
        scans.append(ScanFile(path, path.parent.relative_to(tmp_path)))
    return scans


def test_corrections_of_a_cohort_follow_the_fingerprint(cohort, read):
    one, two, three = (file_sha256(scan.path) for scan in cohort)
    found = matched_corrections(read(a=scan("in/two", one), b=scan("in/three", three)), cohort)
    assert found.keys() == {"in/one", "in/three"}
    changed = read(a=scan("in/two", "0" * 64), b=scan("in/two", two))
    assert matched_corrections(changed, cohort)["in/two"].made_on.sha256 == two
    assert matched_corrections(changed[:1], cohort)["in/two"].made_on.sha256 == "0" * 64  # refused later
    with pytest.raises(LabelsError, match="two corrections of in/two"):
        matched_corrections(read(a=scan("in/two", two), b=scan("x", two)), cohort)
    with pytest.raises(LabelsError, match="x, which is not among the scans"):
        matched_corrections(read(a=scan("x", "0" * 64)), cohort)
    cohort[1].path.write_text("one", encoding="utf-8")
    with pytest.raises(LabelsError, match="may be of in/one or in/two"):
        matched_corrections(read(a=scan("x", one)), cohort)


def test_ratings_stay_until_they_are_taken_back(read, tmp_path):
    keep_ratings(tmp_path, read(a={"name": "=a", "rating": "pass"}, b={"name": "b", "accepted": True}))
    keep_ratings(tmp_path, read(c={"name": "c", "rating": "fail"}, b={"name": "b", "rating": "doubt"}))
    known = read_ratings(tmp_path)
    assert {key: (one.rating, one.accepted) for key, one in known.items()} == {
        "a": ("pass", False),
        "b": ("doubt", True),
        "c": ("fail", False),
    }
    keep_ratings(tmp_path, read(a={"name": "=a", "rating": ""}))
    assert "a" not in read_ratings(tmp_path)
    keep_ratings(tmp_path, ())
    assert read_ratings(tmp_path).keys() == {"b", "c"}
