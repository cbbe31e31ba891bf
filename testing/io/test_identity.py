"""Which image something was made on: told by its file, and by where its voxels lie."""

import hashlib
import json

import numpy as np
import pytest
from platforms import symbolic_links

from sct_deepspine.errors import ImageError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.io.identity import (
    ImageIdentity,
    file_sha256,
    grid_difference,
    recorded_identity,
    same_box,
)

SHAPE = (7, 11, 13)
AFFINE = np.array([[2.0, 0, 0, -5], [0, 1.5, 0, 9], [0, 0, 1, -40], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)
IDENTITY = ImageIdentity("ab" * 32, GRID)


def moved(offset):
    affine = AFFINE.copy()
    affine[:3, 3] += offset
    return Grid(SHAPE, affine)


def reoriented(order, flips):
    """Return a grid of the same voxels whose axes come in another order, some of them reversed."""
    affine = AFFINE.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, list(order)]
    return Grid(tuple(SHAPE[axis] for axis in order), affine)


# The content of a file


def test_the_fingerprint_is_of_all_bytes(tmp_path):
    content = bytes(range(256)) * 9000  # longer than one block
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "is_pointer"),
    [
        (b"/annex/objects/SHA256E-s5432--0123.nii.gz\n", True),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", True),
        (b"/annex/objects/" + bytes(1984), True),
        (b"/annex/objects/" + bytes(1985), False),  # no pointer is so long
        (b"an image", False),
    ],
)
def test_a_file_that_stands_for_an_image_is_told(content, is_pointer, tmp_path):
    (tmp_path / "t2.nii.gz").write_bytes(content)
    if is_pointer:
        with pytest.raises(ImageError, match=r"t2\.nii\.gz stands for an image whose content is not here"):
            file_sha256(tmp_path / "t2.nii.gz")
    else:
        assert file_sha256(tmp_path / "t2.nii.gz") == hashlib.sha256(content).hexdigest()


@symbolic_links
def test_a_link_to_content_that_is_not_here_is_told(tmp_path):
    (tmp_path / "real.nii").write_bytes(b"an image")
    (tmp_path / "t2.nii").symlink_to("real.nii")
    assert file_sha256(tmp_path / "t2.nii") == file_sha256(tmp_path / "real.nii")
    (tmp_path / "real.nii").unlink()
    with pytest.raises(ImageError, match=r"t2\.nii is a link whose content is not here"):
        file_sha256(tmp_path / "t2.nii")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"lost\.nii can't be read"):
        file_sha256(tmp_path / "lost.nii")


# Two grids


@pytest.mark.parametrize("offset", [(0, 0, 0), (0.4, 0, 0), (0.2, -0.3, 0.2)])
def test_headers_that_round_are_at_one_place(offset):
    assert grid_difference(GRID, moved(offset)) == ""


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Grid((7, 11, 14), AFFINE), "7 × 11 × 13 and 7 × 11 × 14 voxels"),
        (Grid(SHAPE, AFFINE @ np.diag([1, 1, 1.01, 1])), "voxels of 2 × 1.5 × 1 mm and of 2 × 1.5 × 1.01 mm"),
        (moved((0, 0, 0.6)), "origins 1 mm apart"),
        (moved((0, 3, -4)), "origins 5 mm apart"),
        (Grid(SHAPE, AFFINE @ np.diag([-1, 1, 1, 1])), "orientations that part them by up to 24 mm"),
    ],
)
def test_the_first_difference_of_two_grids_is_named(other, words):
    assert grid_difference(GRID, other) == words


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_box_is_the_same_in_every_orientation(order, flips):
    other = reoriented(order, flips)
    assert same_box(GRID, other)
    assert same_box(other, GRID)
    affine = other.affine.copy()
    affine[2, 3] += 0.4
    assert same_box(GRID, Grid(other.shape, affine))
    affine[2, 3] += 0.2
    assert not same_box(GRID, Grid(other.shape, affine))


def test_a_box_with_other_voxels_is_another_one():
    finer = AFFINE @ np.diag([1, 1, 0.5, 1])
    assert not same_box(GRID, Grid((7, 11, 26), finer))
    assert not same_box(GRID, Grid((7, 11, 12), AFFINE))
    # As many voxels, one corner in common.
    assert not same_box(GRID, Grid(SHAPE, AFFINE @ np.diag([1, 1, 2, 1])))


# What a file records


def record(path, identity=IDENTITY, **changes):
    source = identity.as_dict() | changes.pop("source", {})
    content = {"files": {"t2_discs.nii.gz": "0", "t2_discs.csv": "0", "t2_discs.mrk.json": "0"}} | changes
    content |= {"source": source, "GeneratedBy": [{"Name": "sct_deepspine"}]}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", ["t2_discs.nii.gz", "t2_discs.csv", "t2_discs.mrk.json"])
def test_labels_tell_their_image_by_the_record_beside_them(name, tmp_path):
    record(tmp_path / "t2_discs.json")
    found = recorded_identity(tmp_path / name)
    assert found.sha256 == IDENTITY.sha256
    assert found.grid.shape == SHAPE
    np.testing.assert_allclose(found.grid.affine, AFFINE)


def test_a_label_image_without_compression_has_the_same_record(tmp_path):
    record(tmp_path / "t2_discs.json", files={"t2_discs.nii": "0"})
    assert recorded_identity(tmp_path / "t2_discs.nii").sha256 == IDENTITY.sha256


def test_a_record_that_does_not_name_the_labels_says_nothing_of_them(tmp_path):
    record(tmp_path / "t2_discs.json", files={"t2_discs.csv": "0"})
    assert recorded_identity(tmp_path / "t2_discs.nii.gz") is None
    assert recorded_identity(tmp_path / "other.nii.gz") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"shape": [7, 11]}},
        {"source": {"shape": ["a", "b", "c"]}},
        {"source": {"shape": None}},
        {"source": {"affine": [[1, 2], [3, 4]]}},
        {"source": {"affine": np.zeros((4, 4)).tolist()}},
        {"files": None},
    ],
)
def test_a_broken_record_says_nothing(changes, tmp_path):
    record(tmp_path / "t2_discs.json", **changes)
    assert recorded_identity(tmp_path / "t2_discs.nii.gz") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {"t2_discs.csv": ""}}', "\x00"])
def test_another_file_beside_labels_is_no_record(text, tmp_path):
    (tmp_path / "t2_discs.json").write_text(text, encoding="utf-8")
    assert recorded_identity(tmp_path / "t2_discs.csv") is None


def test_an_identity_comes_back_from_json():
    back = ImageIdentity.from_dict(json.loads(json.dumps(IDENTITY.as_dict())))
    assert (back.sha256, back.grid.shape) == (IDENTITY.sha256, SHAPE)
    np.testing.assert_allclose(back.grid.affine, AFFINE)
