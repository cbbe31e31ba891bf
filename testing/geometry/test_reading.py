import numpy as np
import pytest
from scipy.ndimage import map_coordinates, zoom

from sct_deepspine.geometry.reading import (
    read_linear,
    read_linear_axis,
    read_linear_columns,
    read_linear_rows,
)

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("shape", [(7, 5, 11), (1, 5, 11), (13, 7)])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_values_between_cells_are_scipys(shape, dtype):
    data = RNG.integers(0, 200, shape).astype(dtype)[::-1]
    places = RNG.uniform(-2, 12, (len(shape), 3, 101))
    expected = map_coordinates(data, places, np.float64, order=1, mode="nearest")
    read = read_linear(data, places)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, expected, atol=2e-4)


def test_what_holds_no_number_spreads_to_the_places_about_it_only():
    data = np.array([1.0, np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(np.isnan(read_linear(data, [np.array([0.5, 1.5, 2.0, 3.0])])), [1, 1, 0, 0])


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_one_axis_after_the_other_resizes_an_image_as_scipy_does(factor):
    image = resized = RNG.normal(size=(13, 7)).astype(np.float32)
    for axis, count in enumerate(image.shape):
        resized = read_linear_axis(resized, np.linspace(0, count - 1, round(count * factor)), axis)
    np.testing.assert_allclose(resized, zoom(image, factor, order=1), atol=1e-5)


def test_whole_rows_are_read_as_single_cells_are():
    data = RNG.normal(size=(5, 7, 3)).astype(np.float32)
    first, along, last = RNG.uniform(-1, 5, 11), RNG.uniform(-1, 8, 13), RNG.uniform(-1, 4, 11)
    places = np.broadcast_arrays(first[:, None], along, last[:, None])
    rows = read_linear_columns(read_linear_rows(data, first, last), along)
    np.testing.assert_allclose(rows, read_linear(data, places), atol=1e-5)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_cells_hold_is_read_together(order):
    data = np.asarray(RNG.normal(size=(5, 7, 3, 4)), order=order)[:, ::-1]
    places = RNG.uniform(-1, 7, (3, 40_000))
    read = read_linear(data, places)
    for held in range(4):
        expected = map_coordinates(data[..., held], places, order=1, mode="nearest")
        np.testing.assert_allclose(read[:, held], expected, atol=1e-5)


def test_along_one_axis_what_holds_no_number_spreads_only_as_far_as_it_counts():
    values = np.array([[0.0, np.nan, 2.0, 4.0]], dtype=np.float32)
    read = read_linear_axis(values, np.array([0.0, 0.5, 1.5, 2.0, 2.5]), 1)
    np.testing.assert_array_equal(read, [[0, np.nan, np.nan, 2, 3]])
