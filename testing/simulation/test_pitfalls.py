"""Scans that go wrong still show what their truth says."""

import numpy as np
import pytest
from fakes import paint_truth

from sct_deepspine.simulation.phantom import make_phantom
from sct_deepspine.simulation.pitfalls import (
    CORD_RADIUS_MM,
    cut_to,
    dark_bone,
    displaced_mask,
    fused,
    metal,
    pitfalls,
    resized,
    stepped,
)


@pytest.fixture(scope="module")
def lumbar():
    return make_phantom(np.random.default_rng(3), first=17, last=25, voxel_mm=(5.0, 2.0, 2.0))


def grey_at(volume, point, *, reach=(0, 0, 0)):
    """Return the mean grey value within so many voxels of a world point."""
    place = np.round(volume.grid.voxel_from_world(point)[0]).astype(int)
    block = tuple(slice(max(c - r, 0), c + r + 1) for c, r in zip(place, reach, strict=True))
    return float(volume.data[block].mean())


def test_every_kind_is_made_and_leaves_the_scan_alone(lumbar):
    before = lumbar.volume.data.copy()
    cases = list(pitfalls(lumbar, np.random.default_rng(0)))
    np.testing.assert_array_equal(lumbar.volume.data, before)
    names = {case.perturbation for case in cases}
    assert {
        "dark bone 1",
        "metal",
        "fused",
        "voxel size × 2",
        "three discs",
        "two discs with anchor",
    } <= names
    assert {"mask displaced in part", "lower part moved 8 mm", "filled with -1024 above"} <= names
    for case in cases:
        assert np.isfinite(case.image.data).all()
        for point in case.truth.values():
            assert case.image.grid.contains_voxel(case.image.grid.voxel_from_world(point))[0]


def test_dark_bone_is_darker_than_discs_in_thick_slices(lumbar):
    for seed in range(4):
        case = dark_bone(lumbar, np.random.default_rng(seed))
        assert 4 <= case.image.grid.spacing_mm[2] <= 8
        label = lumbar.tissue.labels_on(case.image.grid)
        greys = [np.median(case.image.data[label == value]) for value in (1, 2)]
        assert greys[0] < greys[1] - 0.05


def test_a_mask_is_displaced_in_part_only(lumbar):
    mask = displaced_mask(lumbar, 12.0).seg
    line, grid = lumbar.centerline_world, mask.grid
    inside = grid.world_from_voxel(np.argwhere(mask.data))
    heights = np.unique(inside[:, 2])
    centres = np.array([inside[inside[:, 2] == z].mean(axis=0) for z in heights])
    off = np.hypot(*(centres[:, axis] - np.interp(heights, line[:, 2], line[:, axis]) for axis in (0, 1)))
    assert (off > 9).mean() == pytest.approx(0.3, abs=0.1)
    assert (off < CORD_RADIUS_MM).mean() > 0.6


def test_a_step_moves_what_lies_below_and_its_truth():
    scan = make_phantom(np.random.default_rng(3), first=17, last=25, voxel_mm=(5.0, 2.0, 2.0))
    painted = paint_truth(scan)
    case = stepped(type(scan)(**{**vars(scan), "volume": painted}), 8.0, 20)
    for value, point in case.truth.items():
        assert point[1] - scan.discs[value][1] == pytest.approx(8.0 if value > 20 else 0.0)
        assert grey_at(case.image, point) > 0.45


def test_resized_voxels_carry_the_truth_along(lumbar):
    case = resized(lumbar, 2.0)
    np.testing.assert_allclose(case.image.grid.spacing_mm, 2 * lumbar.volume.as_ras().grid.spacing_mm)
    value = 20
    np.testing.assert_allclose(case.truth[value], 2 * lumbar.discs[value])


def test_metal_takes_the_signal_in_front_of_its_discs_only(lumbar):
    case = metal(lumbar, [20, 21])
    for value, tip in lumbar.discs.items():
        grey = grey_at(case.image, np.add(tip, (0, 12, 0)), reach=(0, 1, 1))
        assert (grey < 0.03) == (value in (20, 21))


def test_a_fused_disc_has_the_grey_of_the_bone(lumbar):
    case = fused(lumbar, 21)
    grid = case.image.grid
    label = lumbar.tissue.labels_on(grid)
    world = grid.world_from_voxel(np.indices(grid.shape).reshape(3, -1).T).reshape(*grid.shape, 3)

    def contrast(value):
        off = world - lumbar.discs[value]
        near = (np.abs(off[..., 2]) < 20) & (off[..., 1] > 2) & (off[..., 1] < 25) & (np.abs(off[..., 0]) < 8)
        disc, bone = (np.median(case.image.data[near & (label == tissue)]) for tissue in (2, 1))
        return abs(disc - bone)

    assert contrast(21) < 0.6 * min(contrast(20), contrast(22))


def test_a_cut_view_shows_the_discs_kept(lumbar):
    case = cut_to(lumbar, [19, 20, 21], name="three")
    assert sorted(case.truth) == [19, 20, 21]
    assert case.image.data.shape[2] < lumbar.volume.data.shape[2] / 2
