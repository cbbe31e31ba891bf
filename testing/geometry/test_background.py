import numpy as np
import pytest

from sct_deepspine.geometry.background import sampled_voxels, without_fill
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.planes import sagittal_plane, sample
from sct_deepspine.geometry.volume import Volume

SHAPE = (7, 23, 31)


def volume(dtype=np.float32):
    data = np.random.default_rng(0).gamma(2.0, 100.0, SHAPE)
    data[:, :5] = 0  # air
    return Volume(data.astype(dtype), Grid(SHAPE, np.eye(4)))


@pytest.mark.parametrize("fill", [-1024, -32768, 32000])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_value_far_from_all_others_is_no_image(fill, dtype):
    plain = volume(dtype)
    data = plain.data.copy()
    data[:, :, 20:] = fill
    out = without_fill(Volume(data, plain.grid))
    np.testing.assert_array_equal(np.isnan(out.data), data == fill)
    np.testing.assert_array_equal(out.data[..., :20], plain.data[..., :20])


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0), (1, 0), (1, -300), (1, 900), (50, 0)])
def test_fill_is_told_in_grey_values_of_every_scale(scale, offset):
    plain = volume()
    data = scale * plain.data + offset
    data[:, :, 20:] = data.min() - 0.5 * np.ptp(data)
    out = without_fill(Volume(data.astype(np.float32), plain.grid))
    assert np.isnan(out.data).sum() == data[:, :, 20:].size


def test_a_few_spikes_do_not_hide_fill():
    plain = volume()
    data = plain.data.copy()
    data.flat[np.random.default_rng(5).permutation(data.size)[:20]] = 30_000
    data.flat[np.random.default_rng(6).permutation(data.size)[:20]] = -30_000
    for fill in (-1024, 4000):
        data[:, 5:, 20:] = fill
        assert (np.isnan(without_fill(Volume(data, plain.grid)).data)[:, 5:, 20:]).all()


def test_a_picture_of_two_values_is_no_fill():
    data = np.zeros(SHAPE, np.float32)
    data[2:5, 3:20, 4:25] = 1000
    plain = Volume(data, Grid(SHAPE, np.eye(4)))
    assert without_fill(plain) is plain


@pytest.mark.parametrize(("share", "is_fill"), [(0.01, False), (0.04, True)])
def test_a_value_counts_as_fill_from_two_voxels_in_a_hundred_on(share, is_fill):
    plain = volume()
    data = plain.data.copy()
    places = np.random.default_rng(5).permutation(data.size)[: round(share * data.size)]
    data.flat[places] = -1024
    given = Volume(data, plain.grid)
    out = without_fill(given)
    assert np.isnan(out.data).sum() == is_fill * len(places)
    assert (out is given) == (not is_fill)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whole_slices_of_one_value_at_an_end_are_no_image(axis):
    data = volume().data.copy()
    data[:, :5] = 1.0
    np.moveaxis(data, axis, 0)[-2:] = 150.0  # a value that is frequent nowhere else, amid all others
    out = without_fill(Volume(data, Grid(SHAPE, np.eye(4))))
    empty = np.zeros(SHAPE, dtype=bool)
    np.moveaxis(empty, axis, 0)[-2:] = True
    np.testing.assert_array_equal(np.isnan(out.data), empty)


@pytest.mark.parametrize(("end", "thickness", "is_border"), [(0, 1, 0), (0, 2, 1), (-1, 1, 0), (-1, 2, 1)])
def test_a_single_slice_of_one_value_is_no_border(end, thickness, is_border):
    data = volume().data.copy()
    data[:, :5] = 1.0
    where = slice(0, thickness) if end == 0 else slice(-thickness, None)
    data[..., where] = 150.0
    out = without_fill(Volume(data, Grid(SHAPE, np.eye(4))))
    assert np.isnan(out.data).sum() == is_border * thickness * SHAPE[0] * SHAPE[1]


def test_slices_of_the_lowest_value_are_air():
    data = volume().data.copy()
    data[..., :6] = 0
    plain = Volume(data, Grid(SHAPE, np.eye(4)))
    assert without_fill(plain) is plain


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_an_image_with_air_is_the_same_one(dtype):
    plain = volume(dtype)
    assert without_fill(plain) is plain


def test_a_saturated_tissue_stays():
    plain = volume()
    clipped = Volume(np.minimum(plain.data, 255), plain.grid)
    assert without_fill(clipped) is clipped


def test_what_was_filled_is_not_read():
    data = volume().data.copy()
    data[:, :, 20:] = -1024
    filled = Volume(data, Grid(SHAPE, np.eye(4)))
    plane = sagittal_plane([3, 0, 30], (31, 23), 1.0)
    image, inside = sample(without_fill(filled), plane)
    assert not inside[:10].any()
    assert inside[12:].all()
    assert image.min() >= 0
    assert sample(filled, plane)[0].min() < -1000


@pytest.mark.parametrize("shape", [(16, 448, 448), (512, 512, 16), (64, 345, 464), (3, 500, 700)])
def test_the_voxels_sampled_lie_in_every_slice(shape):
    numbers = np.arange(np.prod(shape)).reshape(shape)
    sampled = sampled_voxels(numbers, 20_000)
    assert len(sampled) >= 20_000
    for axis, places in enumerate(np.unravel_index(sampled, shape)):
        counts = np.bincount(places, minlength=shape[axis])
        assert counts.min() > 0.5 * counts.mean()


@pytest.mark.parametrize("shape", [(5, 7, 11), (16, 16, 16), (1, 1, 900)])
@pytest.mark.parametrize("count", [1, 10, 100, 10_000])
def test_so_many_voxels_are_sampled_or_all(shape, count):
    numbers = np.arange(np.prod(shape)).reshape(shape)
    sampled = sampled_voxels(numbers, count)
    assert len(sampled) >= min(count, numbers.size)
    assert len(np.unique(sampled)) == len(sampled)


def test_no_more_voxels_are_sampled_than_it_takes():
    sampled = sampled_voxels(np.arange(7 * 11 * 13).reshape(7, 11, 13), 100)
    assert sampled.tolist() == list(range(0, 1001, 10))  # every tenth: no axis shares a factor with it
    assert sampled_voxels(np.arange(1000).reshape(10, 10, 10), 100).tolist() == list(range(0, 1000, 9))
    assert (
        len(sampled_voxels(np.arange(1000).reshape(10, 10, 10), 400)) == 1000
    )  # every second one of ten is not
    assert (
        len(sampled_voxels(np.arange(1000).reshape(10, 10, 10), 166)) == 334
    )  # nor every fourth, fifth, sixth


def test_a_frame_is_found_whatever_the_order_of_the_voxels():
    rng = np.random.default_rng(3)
    data = rng.integers(0, 300, (464, 345, 64)).astype(np.int16)
    data[:60] = -1024
    for order in ("C", "F"):
        volume = without_fill(Volume(np.array(data, order=order), Grid(data.shape, np.eye(4))))
        assert np.isnan(volume.data[:60]).all()
