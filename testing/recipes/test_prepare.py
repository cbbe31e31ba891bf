import json

import numpy as np
import pytest
from mask_folders import write_lung, write_retina, write_skin
from PIL import Image

from sct_deepspine.errors import DatasetError, OutputError
from sct_deepspine.recipes.folders import find_cases, read_sample
from sct_deepspine.recipes.pictures import read_mask_picture
from sct_deepspine.recipes.prepare import TASKS, contrast_enhanced, prepare, resized, resized_mask
from sct_deepspine.recipes.split import draw_split, read_split

WRITERS = {"skin": write_skin, "retina": write_retina, "lung": write_lung}


def prepared(task, tmp_path, **options):
    count = prepare(TASKS[task], WRITERS[task](tmp_path / "download"), tmp_path / "made", **options)
    cases = find_cases(tmp_path / "made")
    assert len(cases) == count
    return cases, [read_sample(case) for case in cases]


def test_skin_images_are_resized_to_the_published_side(tmp_path):
    cases, samples = prepared("skin", tmp_path)
    assert [case.name for case in cases] == [f"ISIC_{n:07d}" for n in range(4)]
    assert {sample.image.shape for sample in samples} == {(1, 3, 256, 256)}
    assert {sample.mask.shape for sample in samples} == {(1, 256, 256)}
    assert TASKS["skin"].side == 256


def test_masks_keep_their_values_and_their_share_when_resized(tmp_path):
    """Published code resized them bilinearly and cut them at 0.5 of 255, which fattens them."""
    cases, samples = prepared("skin", tmp_path, side=40)
    for case, sample in zip(cases, samples, strict=True):
        assert set(np.unique(sample.mask)) == {0, 255}
        truth = read_mask_picture(
            tmp_path / "download/ISIC2018_Task1_Training_GroundTruth" / f"{case.name}_segmentation.png"
        )
        assert (sample.mask > 0).mean() == pytest.approx((truth > 0).mean(), abs=0.01)


def test_a_mask_of_several_values_gets_no_new_one():
    mask = np.random.default_rng(0).choice([0, 3, 200], (23, 31))
    for side in (7, 16, 64):
        assert set(np.unique(resized_mask(mask, side))) <= {0, 3, 200}
    np.testing.assert_array_equal(
        resized_mask(np.kron(mask[:20, :20], np.ones((3, 3), int)), 20), mask[:20, :20]
    )


def test_an_image_and_its_mask_stay_on_top_of_each_other_when_resized():
    mask = np.zeros((60, 90), dtype=np.uint8)
    mask[12:30, 45:63] = 255
    image, small = resized(mask, 30), resized_mask(mask, 30)
    assert np.abs(image.astype(int) - small)[1:-1, 1:-1].mean() < 3
    np.testing.assert_allclose(
        [c.mean() for c in np.nonzero(small)], [c.mean() for c in np.nonzero(image > 127)], atol=0.3
    )


def test_retina_keeps_the_official_split_and_the_fields_of_view(tmp_path):
    cases, samples = prepared("retina", tmp_path)
    assert len(cases) == 6
    for sample in samples:
        assert sample.image.shape == (1, 1, 73, 67)
        assert sample.known is not None
        assert sample.known.sum() == (73 - 16) * (67 - 10)
    split = read_split(tmp_path / "made" / "split.json", [case.subject for case in cases], seed=0)
    assert list(split.test) == ["01_test", "02_test", "03_test"]
    assert sorted((*split.train, *split.val)) == ["21_training", "22_training", "23_training"]


def test_fundus_images_become_grey_flat_and_bright():
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 120, 128)[None, :] + np.zeros((128, 1))
    ramp += 6 * np.sin(np.arange(128) / 2)[:, None] + rng.normal(0, 1, ramp.shape)
    colours = np.stack([ramp, ramp, ramp], axis=2).clip(0, 255).astype(np.uint8)
    made = contrast_enhanced(colours).astype(float)
    grey = colours[..., 0].astype(float)
    waves = [image[:, 20:40].mean(axis=1).std() / image.std() for image in (grey, made)]
    assert waves[1] > 1.5 * waves[0]  # local contrast
    red = contrast_enhanced(colours * np.array([1, 0, 0], dtype=np.uint8))
    assert np.abs(red.astype(float) - made).mean() < 12  # brightness alone does not matter
    assert made.min() < 30
    assert made.max() > 225


def test_the_lung_itself_is_learned_and_its_truth_makes_no_field_of_view(tmp_path):
    """Published code learned the tissue around the lung, within a field of view made of the true mask."""
    cases, samples = prepared("lung", tmp_path)
    assert not (tmp_path / "made" / "fov").exists()
    for case, sample in zip(cases, samples, strict=True):
        truth = read_mask_picture(tmp_path / "download" / "2d_masks" / f"{case.name}.tif")
        np.testing.assert_array_equal(sample.mask > 0, truth > 0)
        assert sample.known is None


def test_hounsfield_units_are_clipped_and_spread(tmp_path):
    _, samples = prepared("lung", tmp_path)
    raw = np.asarray(Image.open(tmp_path / "download/2d_images/ID_0000_Z_0100.tif"))
    expected = (np.clip(raw, -512, 512) + 512) / 1024
    assert raw.min() < -512
    assert raw.max() > 512
    np.testing.assert_allclose(samples[0].image[0, 0] / 65535, expected, atol=1e-5)


def test_slices_without_lung_are_left_out_and_a_split_never_cuts_through_a_person(tmp_path):
    cases, _ = prepared("lung", tmp_path)
    assert len(cases) == 5 * 2 - 1
    assert {case.subject for case in cases} == {f"ID_{n:04d}" for n in range(5)}
    split = draw_split([case.subject for case in cases], seed=0)
    people = [{case.name[:7] for case in split.cases(cases, part)} for part in ("train", "val", "test")]
    assert sum(map(len, people)) == len(set().union(*people)) == 5


def test_slices_can_be_resized(tmp_path):
    _, samples = prepared("lung", tmp_path, side=16)
    assert {sample.image.shape for sample in samples} == {(1, 1, 16, 16)}
    assert np.iinfo(samples[0].image.dtype).max >= 2**16 - 1  # older releases of Pillow read 32 bits


EXPECTED = {
    "skin": ["ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"],
    "retina": [
        f"{half}/{part}" for half in ("training", "test") for part in ("images", "1st_manual", "mask")
    ],
    "lung": ["2d_images", "2d_masks"],
}


@pytest.mark.parametrize(("task", "part"), [(t, p) for t, parts in EXPECTED.items() for p in parts])
@pytest.mark.parametrize("state", ["absent", "empty", "half"])
def test_a_download_that_is_not_whole_gets_one_line_that_names_the_folder(task, part, state, tmp_path):
    folder = WRITERS[task](tmp_path / "download") / part
    files = sorted(path for path in folder.iterdir() if path.suffix != ".txt")
    for path in files if state != "half" else files[1:2]:
        path.unlink()
    if state == "absent":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    message = {"absent": "expected", "empty": "not unpacked", "half": "lacks the file of"}[state]
    with pytest.raises(DatasetError, match=message) as error:
        prepare(TASKS[task], tmp_path / "download", tmp_path / "made")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["download"]  # nothing half-written


def test_a_broken_file_leaves_nothing_behind(tmp_path):
    download = write_skin(tmp_path / "download")
    (download / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000003.jpg").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="ISIC_0000003"):
        prepare(TASKS["skin"], download, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["download"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="holds something already"):
        prepare(TASKS["lung"], write_lung(tmp_path / "download"), tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["mine.txt"]


def test_the_split_file_of_a_folder_is_json(tmp_path):
    prepared("retina", tmp_path)
    assert (
        json.loads((tmp_path / "made" / "split.json").read_text(encoding="utf-8"))["train"][0]
        == "21_training"
    )
