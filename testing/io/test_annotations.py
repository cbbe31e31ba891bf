import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import write_scan
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat

from sct_deepspine.errors import DatasetError
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import canal_points, read_scans, slice_centres
from sct_deepspine.simulation.phantom import make_phantom


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def lumbar():
    """A view that ends above C2/C3 and below L5/S1 nowhere: T10/T11 to L2/L3."""
    return make_phantom(rng(5), first=18, last=22, voxel_mm=(5.0, 2.5, 2.5))


def test_scans_come_back_from_their_folder(phantom, lumbar, tmp_path):
    write_scan(phantom, phantom.volume, tmp_path, subject="a", region="neck (whole)", contrast="T1w")
    write_scan(replace(lumbar, name="zz"), lumbar.volume, tmp_path, subject="b")
    first, second = read_scans(tmp_path)
    assert (first.name, first.subject, first.group) == ("phantom.nii.gz", "a", "neck T1w")
    assert (second.name, second.subject, second.group) == ("zz.nii.gz", "b", "neck T2w")
    np.testing.assert_array_equal(first.volume.data, phantom.volume.data)
    assert first.span_z_mm == phantom.span_z_mm
    for value, tip in phantom.discs.items():
        np.testing.assert_allclose(first.discs[value], tip)
    assert first.centerline_world is None


def test_an_oblique_scan_is_read_along_its_slices(phantom, tmp_path):
    turn = from_matvec(euler2mat(z=0.3), [0, 0, 40])
    there = {value: apply_affine(turn, tip) for value, tip in phantom.discs.items()}
    write_scan(
        replace(phantom, discs=there, span_z_mm=(-10.0, 50.0)), phantom.volume.transformed(turn), tmp_path
    )
    (scan,) = (scan.deobliqued() for scan in read_scans(tmp_path))
    np.testing.assert_allclose(scan.volume.grid.axes, np.eye(3), atol=1e-9)
    for value, tip in phantom.discs.items():
        here, before = (
            v.grid.voxel_from_world(t) for v, t in ((scan.volume, scan.discs[value]), (phantom.volume, tip))
        )
        np.testing.assert_allclose(here, before, atol=1e-3)
    assert scan.span_z_mm == pytest.approx((-10.0, 50.0))


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no labelled scan"):
        read_scans(tmp_path)


def test_other_json_files_of_the_folder_are_passed_over(phantom, tmp_path):
    write_scan(phantom, phantom.volume, tmp_path)
    (tmp_path / "notes.json").write_text('{"text": "nothing here"}', encoding="utf-8")
    assert [scan.name for scan in read_scans(tmp_path)] == ["phantom.nii.gz"]


def test_slice_centres_are_those_of_each_axial_slice(phantom):
    grid = phantom.volume.grid
    mask = np.zeros(grid.shape, bool)
    mask[3, 20:23, 5] = mask[4, 30, 9] = mask[6, 30, 9] = True
    centres = slice_centres(Volume(mask, grid))
    np.testing.assert_allclose(centres, grid.world_from_voxel([[3, 21, 5], [5, 30, 9]]))


def test_without_a_mask_the_canal_is_guessed_behind_the_tips(phantom):
    guessed = canal_points(replace(phantom, centerline_world=None))
    assert canal_points(phantom) is phantom.centerline_world
    line = phantom.centerline_world
    heights = [tip[2] for tip in phantom.discs.values()]
    guessed = guessed[(guessed[:, 2] > min(heights)) & (guessed[:, 2] < max(heights))]
    y = np.interp(guessed[:, 2], line[:, 2], line[:, 1])
    assert np.abs(guessed[:, 1] - y).max() < 6


@pytest.mark.data
def test_real_scans_have_their_discs_in_view_from_top_to_bottom(data_folder):
    cards = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((data_folder / "train").glob("*.json"))
    ]
    assert len(cards) > 10
    for card in cards:
        heights = [card["discs"][value][2] for value in sorted(card["discs"], key=int)]
        assert (np.diff(heights) < 0).all(), card["image"]
        low, high = card["labelled_span_mm"]
        assert low < min(heights) < max(heights) < high, card["image"]
    subjects = {
        name: {json.loads(path.read_text(encoding="utf-8"))["subject"] for path in folder.glob("*.json")}
        for name, folder in ((name, data_folder / name) for name in ("train", "val"))
    }
    assert not subjects["train"] & subjects["val"]
