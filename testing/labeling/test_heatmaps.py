import numpy as np
import pytest

from sct_deepspine.labeling.heatmaps import NO_LEVEL, DiscCodec, DiscMaps, gaussian, peaks

SHAPE = 37, 23


def drawn(points, shape=SHAPE, sigma=1.2):
    """Draw Gaussian peaks at points."""
    rows, columns = np.indices(shape)
    heat = [gaussian((rows - r) ** 2 + (columns - c) ** 2, sigma) for r, c in points]
    return np.max(heat, axis=0).astype(np.float32)


# Cells and pixels


@pytest.mark.parametrize("stride", [2, 4])
def test_cells_and_pixels_are_inverse_to_each_other(stride):
    codec = DiscCodec(stride)
    points = np.random.default_rng(0).uniform(-5, 200, (100, 2))
    np.testing.assert_allclose(codec.cell_from_pixel(codec.pixel_from_cell(points)), points, atol=1e-12)
    np.testing.assert_allclose(codec.pixel_from_cell(codec.cell_from_pixel(points)), points, atol=1e-12)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_cells_centre_is_the_middle_of_its_pixels(stride):
    codec = DiscCodec(stride)
    pixels = np.arange(3 * stride).reshape(3, stride)  # of cells 0, 1 and 2
    np.testing.assert_allclose(codec.pixel_from_cell([0, 1, 2]), pixels.mean(axis=1))


def test_there_is_a_map_for_each_level_one_for_any_disc_and_one_for_the_canal():
    codec = DiscCodec(2, first_value=3, levels=23)
    assert codec.channels == 25
    assert codec.values.tolist() == list(range(3, 26))
    assert DiscCodec(2, first_value=5, levels=4).values.tolist() == [5, 6, 7, 8]


# From raw maps


def test_raw_maps_become_probabilities():
    codec = DiscCodec(2, levels=5)
    raw = np.random.default_rng(0).normal(0, 8, (7, *SHAPE)).astype(np.float32)
    maps = codec.split(raw)
    assert maps.any_disc.shape == maps.canal.shape == SHAPE
    assert maps.level.shape == maps.heat.shape == (5, *SHAPE)
    np.testing.assert_allclose(maps.level.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(maps.heat.sum(axis=0), maps.any_disc, atol=1e-5)
    np.testing.assert_allclose(maps.any_disc, 1 / (1 + np.exp(-raw[5].astype(float))), atol=1e-6)
    np.testing.assert_allclose(maps.canal, 1 / (1 + np.exp(-raw[6].astype(float))), atol=1e-6)
    np.testing.assert_array_equal(maps.level.argmax(axis=0), raw[:5].argmax(axis=0))


def test_huge_raw_values_do_not_overflow():
    maps = DiscCodec(2, levels=2).split(np.array([1e4, -1e4, -1e4, 1e4])[:, None, None])
    np.testing.assert_array_equal([*maps.level[:, 0, 0], maps.any_disc[0, 0], maps.canal[0, 0]], [1, 0, 0, 1])


def test_maps_of_another_layout_are_refused():
    with pytest.raises(ValueError, match="expected 25 maps, got 11"):
        DiscCodec(2).split(np.zeros((11, 4, 4)))


# Points to maps and back


def perfect(codec, points):
    """Return the maps of a network that is sure of what it sees."""
    cells = np.stack(np.indices(SHAPE), axis=-1)
    return codec.maps(*codec.encode(points, cells))


def test_a_disc_without_a_level_has_a_peak_and_no_level():
    codec = DiscCodec(2, levels=4)
    cells = np.stack(np.indices(SHAPE), axis=-1)
    any_disc, level = codec.encode({4: [10, 7]}, cells, unnamed=[[20, 7]])
    assert any_disc[20, 7] == any_disc[10, 7] == 1
    assert (level[20, 7], level[10, 7]) == (NO_LEVEL, 1)
    np.testing.assert_allclose(codec.maps(any_disc, level).level[:, 20, 7], 0.25)


def test_a_target_is_measured_in_the_frame_it_is_given_in():
    codec = DiscCodec(2)
    cells = 3.0 * np.stack(np.indices(SHAPE), axis=-1)
    any_disc, _ = codec.encode({9: [30, 21]}, cells, sigma=3.0)
    assert any_disc[10, 7] == 1
    assert any_disc[11, 7] == pytest.approx(np.exp(-0.5))


@pytest.mark.parametrize("sigma", [1.2, 1.5])
def test_points_come_back_from_their_maps_to_a_twentieth_of_a_cell(sigma):
    codec = DiscCodec(2, sigma_cells=sigma)
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = np.cumsum(rng.uniform(4, 6, 6)) - 1
        truth = np.stack([rows, rng.uniform(3, SHAPE[1] - 4, 6)], axis=1)
        points = dict(zip(range(codec.first_value + 4, codec.first_value + 10), truth, strict=True))
        found, score, level = codec.decode(perfect(codec, points))
        assert np.abs(found - truth).max() <= 0.05
        assert (level.argmax(axis=1) == np.arange(4, 10)).all()
        # The highest cell is at most half a cell off in both directions.
        assert (score >= np.exp(-0.25 / sigma**2) - 1e-6).all()


def test_strength_is_the_height_of_the_highest_cell():
    codec = DiscCodec(2)
    maps = perfect(codec, {codec.first_value + 6: [10, 7]})
    _, score, _ = codec.decode(maps)
    np.testing.assert_allclose(score, [1])
    faint = DiscMaps(maps.any_disc * np.float32(0.3), maps.level, maps.canal)
    np.testing.assert_allclose(codec.decode(faint)[1], [0.3], rtol=1e-6)


def test_the_level_is_averaged_over_the_peak_and_sums_to_one():
    codec = DiscCodec(2, levels=3)
    level = np.zeros((3, *SHAPE), np.float32)
    level[0] = 1
    level[:, 10, 7] = 0, 0.8, 0.2
    maps = DiscMaps(drawn([[10, 7]]), level, np.zeros(SHAPE, np.float32))
    (row,) = codec.decode(maps)[2]
    assert row.sum() == pytest.approx(1)
    assert row[1] == pytest.approx(4 * row[2])
    assert 0.5 < row[0] < 1


def test_discs_come_from_superior_to_inferior():
    codec = DiscCodec(2)
    points = {6: [30, 5], 12: [4, 9], 18: [17, 12]}
    found, _, level = codec.decode(perfect(codec, points))
    np.testing.assert_allclose(found, [[4, 9], [17, 12], [30, 5]], atol=0.05)
    assert level.argmax(axis=1).tolist() == [9, 15, 3]


def test_an_empty_map_gives_no_disc():
    codec = DiscCodec(2)
    for any_disc in (np.zeros(SHAPE, np.float32), np.full(SHAPE, 0.09, np.float32)):
        maps = DiscMaps(any_disc, np.full((23, *SHAPE), 1 / 23, np.float32), any_disc)
        found, score, level = codec.decode(maps)
        assert found.shape == (0, 2)
        assert score.shape == (0,)
        assert level.shape == (0, 23)


def test_absent_levels_are_not_in_the_maps():
    codec = DiscCodec(2)
    maps = perfect(codec, {1: [3, 3], 30: [9, 9]})
    assert not maps.any_disc.any()
    maps = perfect(codec, {codec.first_value + 6: [10, 7]})
    assert maps.heat[6, 10, 7] == pytest.approx(1, abs=1e-3)
    assert np.delete(maps.heat, 6, axis=0).max() < 1e-3


@pytest.mark.parametrize("flip", [(), (0,), (1,), (0, 1)], ids=["top", "bottom", "top right", "bottom right"])
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_a_slanting_peak_cut_by_the_border_still_has_a_level(flip, turned):
    rows, columns = np.indices(SHAPE)
    across, along = rows + 1.0, columns - 8
    slant = 0.8
    heat = np.exp(-(across**2 + along**2 - 2 * slant * across * along) / (8 * (1 - slant**2)))
    heat = np.flip(heat.T if turned else heat, flip).astype(np.float32)
    level = np.full((3, *heat.shape), 0.1, np.float32)
    level[1] = 0.8
    found, _, levels = DiscCodec(2, levels=3).decode(DiscMaps(heat, level, heat))
    assert len(found) == 1
    np.testing.assert_allclose(levels, [[0.1, 0.8, 0.1]], rtol=1e-5)


# Peaks


@pytest.mark.parametrize(
    "border", [(0, 11), (36, 11), (18, 0), (18, 22), (0, 0), (0, 22), (36, 0), (36, 22)], ids=str
)
def test_a_peak_at_the_border_is_found_there(border):
    points, score = peaks(drawn([border]), threshold=0.1)
    np.testing.assert_allclose(score, [1])
    # Beyond the border nothing is known of the peak's shape: half a cell of error is the price.
    np.testing.assert_allclose(points, [border], atol=0.5 + 1e-6)


@pytest.mark.parametrize("near", [(0.8, 11), (35.3, 11), (18, 0.9), (18, 21.3)], ids=str)
def test_a_peak_one_cell_from_the_border_is_exact(near):
    points, _ = peaks(drawn([near]), threshold=0.1)
    np.testing.assert_allclose(points, [near], atol=0.05)


@pytest.mark.parametrize("middle", [(10.5, 7), (10, 7.5), (10.5, 7.5)], ids=str)
def test_a_peak_midway_between_cells_is_one_peak(middle):
    points, _ = peaks(drawn([middle]), threshold=0.1)
    np.testing.assert_allclose(points, [middle], atol=0.05)


def test_peaks_closer_than_the_separation_are_one():
    heat = drawn([[10, 7], [14, 7]])
    assert len(peaks(heat, threshold=0.1, separation=3)[0]) == 2
    heat[14, 7] = 0.9
    np.testing.assert_allclose(peaks(heat, threshold=0.1, separation=5)[0], [[10, 7]], atol=0.05)


def test_peaks_below_the_threshold_are_left_out():
    heat = np.maximum(drawn([[10, 7]]), 0.4 * drawn([[25, 9]]))
    assert len(peaks(heat, threshold=0.3)[0]) == 2
    np.testing.assert_allclose(peaks(heat, threshold=0.5)[0], [[10, 7]], atol=0.05)


def test_a_lone_bright_cell_stays_where_it_is():
    heat = np.zeros(SHAPE, np.float32)
    heat[10, 7] = 1
    np.testing.assert_allclose(peaks(heat, threshold=0.1)[0], [[10, 7]], atol=1e-6)


def test_a_summit_is_at_most_one_cell_from_the_highest():
    heat = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    points, score = peaks(heat, threshold=0.1)
    assert len(points) > 5
    assert np.isfinite(points).all()
    cells = np.round(points).astype(int)
    highest = np.array([np.argwhere(heat == s)[0] for s in score.astype(np.float32)])
    assert np.abs(points - highest).max() <= 1
    assert np.abs(cells - highest).max() <= 1


def test_a_gaussian_falls_to_the_right_height_at_one_sigma():
    np.testing.assert_allclose(gaussian([0, 4.0, 16.0], 2.0), [1, np.exp(-0.5), np.exp(-2)])
