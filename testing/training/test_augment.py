import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sct_deepspine.training.augment import (
    _ghost,
    _implant,
    _lose_resolution,
    _ring,
    _spike,
    _wrap,
    crop_field_of_view,
    darken_bone,
    random_grid,
    randomise_grey_values,
    randomise_parcels,
    randomise_tissues,
    smooth_field,
    thick_axial_slices,
)

VERTEBRA, DISC, CANAL = 1, 2, 3


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_random_grid_is_about_the_middle_and_of_the_scale_it_tells():
    for seed in range(10):
        grid, scale = random_grid(rng(seed), (96, 64), 2.0)
        assert grid.shape == (96, 64, 2)
        step = np.linalg.norm(np.diff(grid, axis=0), axis=2).mean()
        assert step == pytest.approx(2.0 * scale, rel=0.35)
        assert np.abs(grid.mean(axis=(0, 1))).max() < 8
    upright, _ = random_grid(rng(1), (96, 64), 2.0, turn_degrees=0.0)
    assert upright[0, :, 1].mean() > upright[-1, :, 1].mean()
    assert upright[:, 0, 0].mean() < upright[:, -1, 0].mean()


def test_parcels_of_like_appearance_get_grey_values_of_their_own():
    plane = np.full((48, 48), 0.3, np.float32)
    plane[10:30, 10:30] = 0.8
    plane += 0.02 * rng().standard_normal(plane.shape).astype(np.float32)
    before = plane.copy()
    changed = [randomise_parcels(rng(seed), plane) for seed in range(20)]
    np.testing.assert_array_equal(plane, before)
    assert all(c.shape == plane.shape and c.dtype == np.float32 for c in changed)
    steps = [c[15:25, 15:25].mean() - c[35:45, 35:45].mean() for c in changed]
    assert min(steps) < -0.1  # the contrast can be the other way round
    assert max(steps) > 0.1
    flat = np.zeros((48, 48), np.float32)
    np.testing.assert_array_equal(randomise_parcels(rng(), flat), flat)


@pytest.mark.parametrize("corrupt", [_ghost, _wrap, _ring, _spike], ids=lambda f: f.__name__)
def test_an_artefact_corrupts_a_plane_and_leaves_it_recognisable(corrupt):
    plane = gaussian_filter(rng().random((64, 48)), 2).astype(np.float32)
    for seed in range(10):
        changed = corrupt(rng(seed), plane)
        assert changed.shape == plane.shape
        assert np.isfinite(changed).all()
        assert (changed != plane).any()
        assert np.corrcoef(changed.ravel(), plane.ravel())[0, 1] > 0.2


def test_ringing_comes_of_the_outer_part_of_k_space_alone():
    plane = rng().random((48, 35)).astype(np.float32)
    before = np.fft.fft2(plane)
    kept = []
    for seed in range(12):
        after = np.fft.fft2(_ring(rng(seed), plane))
        lost = np.abs(after) < 1e-3 * np.abs(before)
        np.testing.assert_allclose(after[~lost], before[~lost], atol=1e-3)
        places = np.stack(np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in plane.shape), indexing="ij"))
        radius = np.hypot(*places)
        assert radius[lost].min() >= radius[~lost].max()
        kept.append(radius[~lost].max() / 48)
    assert min(kept) > 0.15
    assert max(kept) < 0.5
    assert max(kept) - min(kept) > 0.1


def test_a_spike_is_one_wave_over_the_whole_plane():
    plane = rng().random((48, 35)).astype(np.float32)
    places = set()
    for seed in range(20):
        wave = np.fft.fft2(_spike(rng(seed), plane) - plane)
        strong = np.argwhere(np.abs(wave) > 0.1 * np.abs(wave).max())
        assert len(strong) <= 2  # a wave and its mirror image
        assert ((strong.sum(axis=0) % plane.shape == 0) | (len(strong) == 1)).all()
        places.add(tuple(strong[0].tolist()))
    assert len(places) > 10


def test_round_metal_the_signal_is_lost():
    plane = np.ones((64, 48), np.float32)
    holes = [_implant(rng(seed), plane, 2.0).min() for seed in range(10)]
    assert max(holes) < 0.2


def test_a_thick_slice_is_averaged_along_one_axis():
    plane = rng().random((60, 40)).astype(np.float32)
    lost = [_lose_resolution(rng(seed), plane, 1.0) for seed in range(30)]
    assert all(out.shape == plane.shape and np.isfinite(out).all() for out in lost)
    steps = np.array([[np.abs(np.diff(out, axis=axis)).mean() for axis in (0, 1)] for out in lost])
    assert (steps[:, 0] < 0.5 * steps[:, 1]).any()
    assert (steps[:, 1] < 0.5 * steps[:, 0]).any()


def test_grey_values_change_and_stay_finite():
    plane = rng().random((48, 32)).astype(np.float32)
    before = plane.copy()
    changed = [randomise_grey_values(rng(seed), plane) for seed in range(40)]
    np.testing.assert_array_equal(plane, before)
    assert all(np.isfinite(c).all() and c.dtype == np.float32 and c.shape == plane.shape for c in changed)
    assert sum((c != plane).any() for c in changed) > 30


def test_the_field_of_view_only_shrinks_and_keeps_a_hand_width():
    inside = np.zeros((120, 80), bool)
    inside[10:110, 5:70] = True
    smaller = 0
    for seed in range(40):
        keep = crop_field_of_view(rng(seed), inside, 2.0)
        assert not (keep & ~inside).any()
        assert keep.any(axis=1).sum() >= 30
        assert keep.any(axis=0).sum() >= 35
        smaller += keep.sum() < inside.sum()
    assert 15 < smaller < 40
    assert not crop_field_of_view(rng(), np.zeros((5, 5), bool), 2.0).any()


def test_a_smooth_field_is_smooth():
    field = smooth_field(rng(), (96, 64), (6, 4))
    assert field.shape == (96, 64)
    assert 0.2 < field.std() < 3
    assert np.abs(np.diff(field, axis=0)).max() < 0.6


def test_tissues_get_grey_values_of_their_own():
    tissue = np.zeros((40, 40), np.uint8)
    tissue[5:15, 5:35], tissue[20:35, 5:35] = VERTEBRA, DISC
    plane = np.full((40, 40), 0.5, np.float32)
    contrasts = []
    for seed in range(20):
        out = randomise_tissues(rng(seed), plane, tissue)
        assert (out[0] == 0.5).all()
        contrasts.append(out[10, 20] - out[28, 20])
    assert np.ptp(contrasts) > 0.5
    np.testing.assert_array_equal(plane, 0.5)


def layered(bone=0.8, disc=0.3):
    """Return a plane of bodies and discs, bright bone, and its labels."""
    tissue = np.full((64, 32), VERTEBRA, np.uint8)
    tissue[::16] = tissue[1::16] = tissue[2::16] = tissue[3::16] = DISC
    tissue[:, 20:] = CANAL
    tissue[:, 28:] = 0
    plane = np.choose(tissue, (0.5, bone, disc, 0.6)).astype(np.float32)
    return plane + rng(9).normal(0, 0.02, plane.shape).astype(np.float32), tissue


def test_dark_bone_is_the_darkest_tissue_whatever_it_was():
    plane, tissue = layered()
    for seed in range(20):
        dark = darken_bone(rng(seed), plane, tissue, bone=VERTEBRA)
        greys = {label: np.median(dark[tissue == label]) for label in (VERTEBRA, DISC, CANAL)}
        assert greys[VERTEBRA] < 0.2
        assert greys[VERTEBRA] < min(greys[DISC], greys[CANAL])
        np.testing.assert_allclose(dark[:, 31], plane[:, 31], atol=1e-5)  # what bears no label stays


def test_thick_axial_slices_are_averaged_along_the_rows_only():
    columns = np.tile(rng().uniform(0, 1, 48), (96, 1)).astype(np.float32)
    rows = columns.T.copy()
    for seed in range(5):
        np.testing.assert_allclose(thick_axial_slices(rng(seed), columns, pixel_mm=2.0), columns, atol=1e-5)
        assert thick_axial_slices(rng(seed), rows, pixel_mm=2.0).std() < 0.85 * rows.std()
