import numpy as np
import pytest
import torch
from mask_folders import write_folder

from sct_deepspine.errors import DatasetError
from sct_deepspine.recipes.dataset import MaskSlices, slices_of
from sct_deepspine.recipes.folders import Sample, find_cases, read_sample
from sct_deepspine.recipes.loss import mask_loss
from sct_deepspine.recipes.task import MaskCodec, MaskTask, Standardisation, find_values

CODEC = MaskCodec((0, 255))
PLAIN = Standardisation("training", (0.0,), (1.0,))


def sample(image, mask=None, known=None, name="one"):
    image = np.asarray(image)
    mask = np.zeros(image.shape[-2:], dtype=int) if mask is None else np.asarray(mask)
    return Sample(name, name, image[None, None], mask[None], None if known is None else known[None])


def numbered(rows, columns):
    """Return an image whose pixels tell where they are."""
    return np.arange(rows * columns).reshape(rows, columns)


def items(samples, *, length=40, **changes):
    task = MaskTask(CODEC, **{"standardisation": PLAIN} | changes)
    return list(MaskSlices(slices_of(samples, task), task, seed=1, length=length))


# Classes


def test_classes_come_back_from_their_maps():
    for values in ((0, 255), (0, 3, 7)):
        codec = MaskCodec(values)
        mask = np.array([[values[0], values[1]], [values[-1], values[0]]])
        indices = codec.encode(mask, "one")
        raw = 9.0 * np.eye(len(values))[indices].transpose(2, 0, 1)
        raw = raw[1:] - 4.5 if codec.channels == 1 else raw
        maps = codec.split(raw)
        np.testing.assert_allclose(maps.sum(axis=0), 1, rtol=1e-6)
        np.testing.assert_array_equal(np.array(values)[codec.decide(maps)], mask)


def test_one_map_is_a_sigmoid_and_several_are_a_softmax():
    raw = np.random.default_rng(0).normal(size=(3, 4, 5))
    np.testing.assert_allclose(MaskCodec((0, 1)).split(raw[:1])[1], 1 / (1 + np.exp(-raw[0])), rtol=1e-6)
    torched = torch.softmax(torch.tensor(raw), dim=0).numpy()
    np.testing.assert_allclose(MaskCodec((0, 1, 2)).split(raw), torched, rtol=1e-6)


def test_values_are_found_and_strange_ones_refused():
    image = numbered(8, 8)
    assert find_values([sample(image, image % 3), sample(image, image % 2 * 5)]) == (0, 1, 2, 5)
    with pytest.raises(DatasetError, match=r"\[7\]"):
        find_values([sample(image, np.full((8, 8), 7))])
    with pytest.raises(DatasetError, match="one holds 64 values"):
        find_values([sample(image, image)])
    with pytest.raises(DatasetError, match="holds the value 128"):
        CODEC.encode(np.array([0, 128, 255]), "one")


# Standardisation


def test_training_images_have_mean_zero_and_deviation_one_channel_by_channel(rng):
    image = rng.normal([[[[3]], [[50]]]], [[[[2]], [[9]]]], (2, 2, 41, 43))
    masks = np.zeros((2, 41, 43), dtype=int)
    standard = Standardisation.fit("training", [Sample("a", "a", image, masks)])
    shown = np.stack([standard(plane) for plane in image])
    np.testing.assert_allclose(shown.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(shown.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert abs(standard(image[0] + 10).mean() - 10 / 2) > 0.5  # not made anew of each image


def test_each_image_is_standardised_by_itself_if_that_is_asked_for(rng):
    standard = Standardisation.fit("image", [])
    shown = standard(rng.normal(7, 3, (1, 41, 43)))
    np.testing.assert_allclose((shown.mean(), shown.std()), (0, 1), atol=1e-5)
    assert (standard(np.full((1, 5, 5), 4)) == 0).all()


# Items


def test_patches_lie_in_the_image_and_show_mask_and_image_alike():
    image = numbered(53, 47)
    for item in items([sample(image, 255 * (image % 2))], patch=16):
        shown = item["image"][0].numpy()
        row, column = divmod(int(shown[0, 0]), 47)
        np.testing.assert_array_equal(shown, image[row : row + 16, column : column + 16])
        np.testing.assert_array_equal(item["target"].numpy(), shown.astype(int) % 2)
        assert item["known"].min() == 1


def test_centres_of_patches_lie_in_the_field_of_view():
    """Published code compared a string with True, so that its patches came from everywhere."""
    image, known = numbered(61, 67), np.zeros((61, 67), dtype=bool)
    known[20:30, 35:50] = True
    corners = [int(item["image"][0, 0, 0]) for item in items([sample(image, None, known)], patch=8)]
    centres = np.array([divmod(corner, 67) for corner in corners]) + 4
    assert known[tuple(centres.T)].all()
    assert np.ptp(centres[:, 0]) > 5
    assert np.ptp(centres[:, 1]) > 8
    everywhere = [int(item["image"][0, 0, 0]) for item in items([sample(image)], patch=8)]
    assert np.ptp([corner // 67 for corner in everywhere]) > 30


def test_the_loss_does_not_count_outside_the_field_of_view_nor_beyond_the_image():
    known = np.ones((13, 11), dtype=bool)
    known[:, :5] = False
    (item,) = items([sample(numbered(13, 11), None, known)], length=1)
    assert item["image"].shape == (1, 16, 16)
    expected = np.zeros((16, 16))
    expected[:13, 5:11] = 1
    np.testing.assert_array_equal(item["known"].numpy(), expected)
    maps = torch.full((1, 1, 16, 16), -20.0)
    batch = {name: value[None] for name, value in item.items()}
    right = mask_loss([maps], batch)
    maps[..., :5], maps[..., 13:, :] = 20.0, 20.0  # wrong where nothing counts
    assert mask_loss([maps], batch) == right
    maps[..., 7] = 20.0
    assert mask_loss([maps], batch) > right + 1


def test_a_small_image_is_padded_to_a_patch():
    (item,) = items([sample(numbered(5, 40))], length=1, patch=16)
    assert item["image"].shape == (1, 16, 16)
    assert item["known"].sum() == 5 * 16


def test_every_image_is_shown_once_before_any_is_shown_again():
    samples = [sample(np.full((8, 8), n)) for n in range(7)]
    seen = [int(item["image"][0, 0, 0]) for item in items(samples, length=21)]
    for start in (0, 7, 14):
        assert sorted(seen[start : start + 7]) == list(range(7))
    assert seen[:7] != seen[7:14]


def test_a_resumed_run_sees_what_it_would_have_seen():
    task = MaskTask(CODEC, PLAIN, patch=16, augment=True)
    slices = slices_of([sample(numbered(53, 47)), sample(numbered(31, 37))], task)
    whole = list(MaskSlices(slices, task, seed=4, length=9))
    late = MaskSlices(slices, task, seed=4, start=5, length=4)
    for index in range(4):
        assert torch.equal(late[index]["image"], whole[5 + index]["image"])
    other = MaskSlices(slices, task, seed=5, length=9)
    assert not all(torch.equal(other[n]["image"], whole[n]["image"]) for n in range(9))


def test_images_are_flipped_and_turned_only_if_that_is_asked_for():
    image = numbered(16, 16)
    corners = {0, 15, 240, 255}
    plain = items([sample(image)])
    assert all(np.array_equal(item["image"][0].numpy(), image) for item in plain)
    turned = items([sample(image, 255 * (image % 2))], augment=True)
    shown = {tuple(item["image"][0, 0, :2].int().tolist()) for item in turned}
    assert len(shown) == 8
    assert {first for first, _ in shown} == corners
    for item in turned:
        np.testing.assert_array_equal(item["target"].numpy(), item["image"][0].numpy() % 2)


def test_oblong_images_keep_their_shape_when_turned():
    shapes = {tuple(item["image"].shape) for item in items([sample(numbered(16, 24))], augment=True)}
    assert shapes == {(1, 16, 24)}


def test_planes_without_field_of_view_are_left_out():
    known = np.zeros((2, 8, 8), dtype=bool)
    known[1] = True
    volume = Sample("v", "v", np.zeros((2, 1, 8, 8)), np.zeros((2, 8, 8), dtype=int), known)
    assert len(slices_of([volume], MaskTask(CODEC, PLAIN))) == 1


def test_the_task_comes_back_from_its_dictionary(tmp_path):
    write_folder(tmp_path, channels=3)
    samples = [read_sample(case) for case in find_cases(tmp_path)]
    standard = Standardisation.fit("training", samples)
    task = MaskTask(MaskCodec((0, 1, 5)), standard, 3, patch=24, augment=True, subject="(a)")
    assert MaskTask.from_dict(task.as_dict()) == task


def test_a_patch_that_the_networks_cant_take_is_refused():
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        MaskTask(CODEC, PLAIN, patch=20)
