import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import PaintReader, write_scan
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from scipy.ndimage import gaussian_filter, map_coordinates

from sct_deepspine.errors import ImageError
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.heatmaps import DiscCodec
from sct_deepspine.models.config import HourglassConfig
from sct_deepspine.simulation.phantom import make_phantom, make_varied_phantom, random_contrast
from sct_deepspine.training.augment import (
    _ghost,
    _implant,
    _lose_resolution,
    _ring,
    _spike,
    _wrap,
    crop_field_of_view,
    random_grid,
    randomise_grey_values,
    randomise_parcels,
    randomise_tissues,
    smooth_field,
)
from sct_deepspine.training.dataset import (
    LATERAL_WEIGHT,
    NO_LEVEL,
    PlaneSettings,
    RandomPlanes,
    canal_points,
    read_folder,
    slice_centres,
)
from sct_deepspine.training.loop import ROLES, Checkpoint, TrainingConfig, learning_rate, train
from sct_deepspine.training.loss import map_loss
from sct_deepspine.training.validation import Validation, write_convergence

CODEC = DiscCodec(stride=2)
TINY = HourglassConfig(channels=CODEC.channels, stacks=2, width=8, depth=2)
PLANES = PlaneSettings(shape=(64, 32), pixel_mm=4.0)
FINE_PLANES = PlaneSettings(shape=(96, 64), pixel_mm=2.0)
STRAIGHT = PlaneSettings(shape=(96, 64), pixel_mm=1.0, straight=True, turn_degrees=10.0)
VERTEBRA, DISC, CANAL = 1, 2, 3


def rng(seed=0):
    return np.random.default_rng(seed)


def planes_of(scan, settings=PLANES, **options):
    return RandomPlanes([scan], CODEC, settings, **{"length": 6, "seed": 3} | options)


@pytest.fixture(scope="module")
def lumbar():
    """A view that ends above C2/C3 and below L5/S1 nowhere: T10/T11 to L2/L3."""
    return make_phantom(rng(5), first=18, last=22, voxel_mm=(5.0, 2.5, 2.5))


# The phantom


@pytest.mark.parametrize(("first", "last", "seed"), [(3, 10, 0), (8, 20, 1), (17, 25, 2)])
def test_every_tip_lies_where_its_disc_meets_the_canal(first, last, seed):
    scan = make_phantom(rng(seed), first=first, last=last, voxel_mm=(4.0, 1.5, 1.5))
    grid = scan.volume.grid
    assert list(scan.discs) == list(range(first, last + 1))
    tips = np.array(list(scan.discs.values()))
    assert grid.contains_voxel(grid.voxel_from_world(tips)).all()
    assert (np.diff(tips[:, 2]) < 0).all()
    # Forward of the tip is disc, across it a vertebra's corner at most; behind it is canal.
    line = scan.centerline_world
    for tip in tips:
        centre = line[np.argmin(np.linalg.norm(line - tip, axis=1))]
        forward = (tip - centre) / np.linalg.norm(tip - centre)
        probes = tip + np.outer([-4, -3, 2.5, 4], forward)
        index = np.round(grid.voxel_from_world(probes)).astype(int)
        assert scan.tissue.data[tuple(index.T)].tolist() == [CANAL, CANAL, DISC, DISC]


def test_a_phantom_is_the_same_for_the_same_seed_and_another_for_another():
    one, same, other = (
        make_phantom(rng(seed), first=3, last=6, voxel_mm=(6.0, 3.0, 3.0)) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(one.volume.data, same.volume.data)
    np.testing.assert_array_equal(np.array(list(one.discs.values())), np.array(list(same.discs.values())))
    assert one.volume.data.shape != other.volume.data.shape or (one.volume.data != other.volume.data).any()


def test_the_centreline_runs_through_the_canal(phantom):
    index = np.round(phantom.volume.grid.voxel_from_world(phantom.centerline_world)).astype(int)
    assert (phantom.tissue.data[tuple(index.T)] == CANAL).mean() > 0.95
    assert (np.diff(phantom.centerline_world[:, 2]) > 0).all()


def test_where_a_phantoms_discs_are_labelled_is_known_at_its_open_ends(phantom, lumbar):
    assert phantom.span_z_mm[1] == np.inf
    assert phantom.known_z_mm[1] == np.inf
    assert np.isfinite(phantom.known_z_mm[0])
    assert np.isfinite(lumbar.known_z_mm).all()
    heights = [tip[2] for tip in lumbar.discs.values()]
    assert lumbar.span_z_mm[0] < min(heights) < max(heights) < lumbar.span_z_mm[1]


def test_a_body_without_a_spine_has_no_truth():
    scan = make_phantom(rng(1), first=3, last=6, voxel_mm=(6.0, 3.0, 3.0), spine=False)
    assert scan.discs == {}
    assert scan.centerline_world is None
    assert not scan.tissue.data.any()


@pytest.mark.parametrize(("first", "last"), [(2, 8), (8, 26), (8, 8), (9, 8)])
def test_a_view_that_does_not_exist_is_refused(first, last):
    with pytest.raises(ValueError, match=f"got {first} and {last}"):
        make_phantom(rng(), first=first, last=last)


def test_contrasts_differ_and_stay_in_range():
    contrasts = [random_contrast(rng(seed)) for seed in range(20)]
    values = np.array([[*vars(c).values()] for c in contrasts])
    assert 0 <= values.min() < values.max() <= 1
    assert len(np.unique(values[:, 0])) == 20


@pytest.mark.parametrize("odd", [{"extra": 12}, {"extra": 20}, {"missing": 12}])
def test_discs_beside_an_extra_or_missing_vertebra_are_drawn_and_have_no_level(odd):
    scan = make_phantom(rng(3), first=8, last=22, voxel_mm=(5.0, 2.5, 2.5), **odd)
    usual = make_phantom(rng(3), first=8, last=22, voxel_mm=(5.0, 2.5, 2.5))
    difference = 1 if "extra" in odd else -1
    assert sorted(scan.discs) == [8, 9, 21, 22]
    assert len(scan.unnamed) == len(usual.discs) - 4 + difference

    within = np.round(scan.volume.grid.voxel_from_world(scan.unnamed + np.array([0, 4.0, 0]))).astype(int)
    assert (scan.tissue.data[tuple(within.T)] == DISC).mean() > 0.8
    settings = replace(PLANES, empty_share=0, away_share=0)
    planes = planes_of(scan, settings, length=12)
    drawn = [item for item in planes if (item["any_disc"] > 0.5).any()]
    assert drawn
    levels = np.concatenate([item["level"][item["any_disc"] > 0.5].numpy() for item in drawn])
    assert (levels == NO_LEVEL).any()
    assert set(levels[levels != NO_LEVEL] + CODEC.first_value) <= {8, 9, 21, 22}


def test_a_level_that_is_not_known_costs_nothing():
    shape = (1, 4, 4)
    batch = {
        "any_disc": torch.ones(shape),
        "any_known": torch.ones(shape),
        "level": torch.full(shape, NO_LEVEL),
        "canal": torch.zeros(shape),
        "canal_known": torch.zeros(shape),
    }
    maps = torch.zeros(1, 25, 4, 4)
    other = maps.clone()
    other[:, :23] = torch.arange(23.0)[None, :, None, None]
    assert map_loss([maps], batch) == map_loss([other], batch)
    batch["level"] = torch.full(shape, 3)
    assert map_loss([maps], batch) != map_loss([other], batch)


def test_planes_beside_the_spine_show_no_disc(phantom):
    near = list(planes_of(phantom, replace(PLANES, empty_share=0, away_share=0), length=20))
    beside = list(planes_of(phantom, replace(PLANES, empty_share=0, away_share=1), length=20))
    assert np.mean([float(item["any_disc"].max()) > 0.5 for item in near]) > 0.5
    assert np.mean([float(item["any_disc"].max()) > 0.5 for item in beside]) < 0.2
    assert np.mean([float(item["image"].abs().max()) > 0 for item in beside]) > 0.5


def test_a_varied_phantom_shows_a_stretch_of_spine_and_is_the_same_for_the_same_seed(monkeypatch):
    monkeypatch.setattr("sct_deepspine.simulation.phantom.VIEWS", ((3, 6), (22, 25)))
    scans = [make_varied_phantom(rng(seed), spineless_share=0) for seed in (0, 1, 1)]
    assert [(min(scan.discs), max(scan.discs)) for scan in scans] == [(22, 25), (3, 6), (3, 6)]
    np.testing.assert_array_equal(scans[1].volume.data, scans[2].volume.data)
    assert make_varied_phantom(rng(0), spineless_share=1).discs == {}


def test_planes_without_a_spine_ask_for_empty_maps():
    bodies = [make_phantom(rng(0), first=3, last=6, voxel_mm=(6.0, 3.0, 3.0), spine=False)]
    for role in ROLES.values():
        planes = RandomPlanes(bodies, role.codec, role.planes, length=6, seed=0)
        for plane in planes:
            assert plane["any_disc"].max() == plane["canal"].max() == 0
            assert plane["any_known"].min() == plane["canal_known"].min() == 1


# Scans on disk


def test_scans_come_back_from_their_folder(phantom, lumbar, tmp_path):
    write_scan(phantom, phantom.volume, tmp_path, subject="a", region="neck (whole)", contrast="T1w")
    write_scan(replace(lumbar, name="zz"), lumbar.volume, tmp_path, subject="b")
    first, second = read_folder(tmp_path)
    assert (first.name, first.subject, first.group) == ("phantom", "a", "neck T1w")
    assert (second.name, second.subject, second.group) == ("zz", "b", "neck T2w")
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
    (scan,) = read_folder(tmp_path)
    np.testing.assert_allclose(scan.volume.grid.axes, np.eye(3), atol=1e-9)
    for value, tip in phantom.discs.items():
        here, before = (
            v.grid.voxel_from_world(t) for v, t in ((scan.volume, scan.discs[value]), (phantom.volume, tip))
        )
        np.testing.assert_allclose(here, before, atol=1e-3)
    assert scan.span_z_mm == pytest.approx((-10.0, 50.0))


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(ImageError, match="no labelled scan"):
        read_folder(tmp_path)


def test_other_json_files_of_the_folder_are_passed_over(phantom, tmp_path):
    write_scan(phantom, phantom.volume, tmp_path)
    (tmp_path / "notes.json").write_text('{"text": "nothing here"}')
    assert [scan.name for scan in read_folder(tmp_path)] == ["phantom"]


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


# Random planes


@pytest.mark.parametrize("settings", [PLANES, STRAIGHT], ids=["native", "straight"])
def test_a_plane_is_the_same_on_every_run_wherever_the_run_starts(settings, phantom):
    whole, late = planes_of(phantom, settings), planes_of(phantom, settings, length=2, start=4)
    for one, again in ((whole[4], late[0]), (whole[5], late[1]), (whole[4], whole[4])):
        assert one.keys() == again.keys()
        for name, value in one.items():
            torch.testing.assert_close(again[name], value, rtol=0, atol=0)
    assert not torch.equal(whole[0]["image"], whole[1]["image"])
    assert not torch.equal(whole[0]["image"], planes_of(phantom, settings, seed=4)[0]["image"])


@pytest.mark.parametrize("settings", [PLANES, STRAIGHT], ids=["native", "straight"])
def test_planes_and_targets_have_the_shapes_of_the_codec(settings, phantom):
    planes = planes_of(phantom, settings)
    assert len(planes) == len(list(planes)) == 6
    rows, columns = settings.shape
    for item in planes:
        assert item["image"].shape == (1, rows, columns)
        assert item["image"].dtype == torch.float32
        for name in ("any_disc", "any_known", "level", "canal", "canal_known"):
            assert item[name].shape == (rows // 2, columns // 2)
        assert all(torch.isfinite(value).all() for value in item.values())
        assert item["any_disc"].min() >= 0
        assert item["any_disc"].max() <= 1
        assert item["canal"].min() >= 0
        assert item["canal"].max() <= 1
        assert item["level"].min() >= 0
        assert item["level"].max() < CODEC.levels
        assert set(item["any_known"].unique().tolist()) <= {0.0, 1.0}


class Recorded(RandomPlanes):
    """Keeps the samplings that are laid."""

    def _lay_native(self, rng, scan, shape):
        self.laid = super()._lay_native(rng, scan, shape)
        return self.laid

    def _lay_straightened(self, rng, scan, shape):
        self.laid = super()._lay_straightened(rng, scan, shape)
        return self.laid


@pytest.mark.parametrize("settings", [FINE_PLANES, STRAIGHT], ids=["native", "straight"])
def test_targets_peak_at_the_true_tips_and_name_their_levels(settings, phantom):
    settings = replace(settings, lateral_share=0.0)
    planes = Recorded([phantom], CODEC, settings, length=20, seed=0)
    seen = 0
    for item in planes:
        sampling, _ = planes.laid
        heat, level = item["any_disc"].numpy(), item["level"].numpy()
        for value, tip in phantom.discs.items():
            distance = np.linalg.norm(np.nan_to_num(sampling.points_world, nan=1e6) - tip, axis=2)
            pixel = np.unravel_index(distance.argmin(), distance.shape)
            row, column = (p // 2 for p in pixel)
            border = not (2 <= row < heat.shape[0] - 2 and 2 <= column < heat.shape[1] - 2)
            if border or distance.min() > settings.pixel_mm or heat[row, column] == 0:
                continue
            around = heat[row - 2 : row + 3, column - 2 : column + 3]
            top = np.array(np.unravel_index(around.argmax(), (5, 5))) - 2
            assert np.abs(top).max() <= 1
            assert around.max() > 0.7
            assert level[row, column] == value - CODEC.first_value
            seen += 1
    assert seen > 10


def test_peaks_have_the_codecs_width_in_the_plane_and_a_wider_one_across_it(phantom):
    planes = Recorded([phantom], CODEC, FINE_PLANES, length=8, seed=5)
    rows, columns = (n // 2 for n in FINE_PLANES.shape)
    tips = np.array(list(phantom.discs.values()))
    seen = 0
    for item in planes:
        sampling, scale = planes.laid
        cells = sampling.points_world.reshape(rows, 2, columns, 2, 3).mean(axis=(1, 3))
        offset = (cells[:, :, None] - tips) * [LATERAL_WEIGHT, 1, 1]
        sigma_mm = CODEC.sigma_cells * CODEC.stride * FINE_PLANES.pixel_mm * scale
        truth = np.exp(-0.5 * (offset**2).sum(-1).min(-1) / sigma_mm**2)
        covered = (item["image"][0].numpy() != 0).reshape(rows, 2, columns, 2).mean(axis=(1, 3)) == 1
        np.testing.assert_allclose(item["any_disc"].numpy()[covered], truth[covered], atol=1e-5)
        seen += (truth[covered] > 0.5).sum()
    assert seen > 20
    assert 0 < LATERAL_WEIGHT < 1


def test_what_is_not_labelled_is_masked_and_what_is_outside_is_known_to_be_empty(lumbar):
    low, high = lumbar.known_z_mm
    planes = Recorded([lumbar], CODEC, PLANES, length=10, seed=1)
    masked = 0
    for item in planes:
        sampling, _ = planes.laid
        rows, columns = (n // 2 for n in PLANES.shape)
        z = sampling.points_world[..., 2].reshape(rows, 2, columns, 2).mean(axis=(1, 3))
        unlabelled = (z <= low) | (z >= high)
        covered = (item["image"][0].numpy() != 0).reshape(rows, 2, columns, 2).mean(axis=(1, 3))
        outside = covered == 0
        known = item["any_known"].numpy().astype(bool)
        assert known[~unlabelled].all()
        assert known[outside].all()
        assert not item["any_disc"].numpy()[outside].any()
        assert not known[unlabelled & (covered == 1)].any()
        masked += (~known).sum()
    assert masked > 0


def test_without_a_canal_its_map_is_unknown_inside_the_image(phantom):
    item = planes_of(replace(phantom, centerline_world=None))[0]
    inside = torch.nn.functional.avg_pool2d((item["image"] != 0).float(), 2)[0] == 1
    assert not item["canal"].any()
    assert not item["canal_known"][inside].any()
    assert planes_of(phantom)[0]["canal_known"][inside].any()


def test_a_scan_without_a_disc_of_the_codec_has_empty_targets(lumbar):
    codec = DiscCodec(stride=2, first_value=3, levels=5)
    planes = RandomPlanes([lumbar], codec, PLANES, length=3, seed=0)
    for item in planes:
        assert not item["any_disc"].any()
        assert not item["level"].any()


def test_small_groups_are_drawn_more_often_than_their_size(phantom):
    scans = [replace(phantom, group="neck")] * 8 + [replace(phantom, group="back")] + [phantom] * 3
    planes = RandomPlanes(scans, CODEC, PLANES, length=1, seed=0)
    assert planes.weights.sum() == pytest.approx(1)
    neck, back, synthetic = planes.weights[:8].sum(), planes.weights[8], planes.weights[9:].sum()
    assert synthetic == pytest.approx(PLANES.synthetic_share)
    assert 1 < neck / back < 8
    alone = RandomPlanes([phantom] * 2, CODEC, PLANES, length=1, seed=0)
    np.testing.assert_allclose(alone.weights, 0.5)


# Augmentation


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


def test_batches_of_tall_planes_come_in_their_share(phantom):
    settings = replace(PLANES, tall_rows=96, tall_share=0.4)
    planes = RandomPlanes([phantom], CODEC, settings, length=40, seed=3, batch=4)
    rows = [item["image"].shape[1] for item in planes]
    assert set(rows) == {64, 96}
    assert all(len(set(rows[n : n + 4])) == 1 for n in range(0, 40, 4))


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
def test_an_artefact_spoils_a_plane_and_leaves_it_recognisable(corrupt):
    plane = gaussian_filter(rng().random((64, 48)), 2).astype(np.float32)
    for seed in range(10):
        spoilt = corrupt(rng(seed), plane)
        assert spoilt.shape == plane.shape
        assert np.isfinite(spoilt).all()
        assert (spoilt != plane).any()
        assert np.corrcoef(spoilt.ravel(), plane.ravel())[0, 1] > 0.2


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


def test_the_field_of_view_only_shrinks_and_keeps_a_hand_width():
    inside = np.zeros((120, 80), bool)
    inside[10:110, 5:70] = True
    smaller = 0
    for seed in range(40):
        keep = crop_field_of_view(rng(seed), inside, 2.0)
        assert not (keep & ~inside).any()
        assert keep.any(axis=1).sum() >= 50
        assert keep.any(axis=0).sum() >= 35
        smaller += keep.sum() < inside.sum()
    assert 15 < smaller < 40
    assert not crop_field_of_view(rng(), np.zeros((5, 5), bool), 2.0).any()


def test_a_smooth_field_is_smooth():
    field = smooth_field(rng(), (96, 64), (6, 4))
    assert field.shape == (96, 64)
    assert 0.2 < field.std() < 3
    assert np.abs(np.diff(field, axis=0)).max() < 0.6


# The loss


def target(**changes):
    shape = 1, 8, 6
    batch = {
        "any_disc": torch.zeros(shape),
        "any_known": torch.ones(shape),
        "level": torch.zeros(shape, dtype=torch.int64),
        "canal": torch.zeros(shape),
        "canal_known": torch.ones(shape),
    }
    batch["any_disc"][0, 3, 2] = batch["canal"][0, :, 1] = 1.0
    batch["level"][0, 3, 2] = 7
    for name, (index, value) in changes.items():
        batch[name][index] = value
    return batch


def raw_maps(seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, CODEC.channels, 8, 6, generator=generator).requires_grad_(requires_grad)


def test_unknown_cells_have_no_part_in_the_loss():
    unknown = (0, slice(5, 8), slice(3, 6))
    batch = target(any_known=(unknown, 0.0), canal_known=(unknown, 0.0))
    maps = raw_maps(requires_grad=True)
    loss = map_loss([maps], batch)
    loss.backward()
    assert not maps.grad[0, :, 5:8, 3:6].any()
    assert maps.grad[0, CODEC.levels, :5].all()
    changed = maps.detach().clone()
    changed[0, :, 5:8, 3:6] = 100.0
    torch.testing.assert_close(map_loss([changed], batch), loss.detach())


def test_a_disc_in_an_unknown_cell_does_not_teach_its_level():
    maps = raw_maps(requires_grad=True)
    map_loss([maps], target(any_known=((0, 3, 2), 0.0))).backward()
    assert not maps.grad[:, : CODEC.levels].any()


def test_levels_count_only_at_discs():
    maps = raw_maps(requires_grad=True)
    map_loss([maps], target()).backward()
    where = maps.grad[0, : CODEC.levels].abs().sum(0) > 0
    assert where.nonzero().tolist() == [[3, 2]]


def test_nothing_known_is_no_loss():
    everywhere = (slice(None), 0.0)
    batch = target(any_known=everywhere, canal_known=everywhere)
    assert map_loss([raw_maps()], batch).item() == 0


def perfect():
    maps = torch.full((1, CODEC.channels, 8, 6), -12.0)
    maps[0, CODEC.levels, 3, 2] = maps[0, 7, 3, 2] = 12.0
    maps[0, CODEC.levels + 1, :, 1] = 12.0
    return maps


def test_right_maps_cost_least_and_every_stack_counts():
    good, batch = map_loss([perfect()], target()), target()
    for corrupt in (CODEC.levels, CODEC.levels + 1, 7):
        wrong = perfect()
        wrong[0, corrupt, 3, 2] *= -1
        assert map_loss([wrong], batch) > good + 0.05
    assert map_loss([perfect(), raw_maps()], batch) > good + map_loss([raw_maps()], batch) - 1e-5


# The learning rate and the configuration


def config(**changes):
    return replace(
        TrainingConfig(TINY, PLANES, CODEC, batch=2, steps=4, evaluate_every=100, workers=0), **changes
    )


def test_every_schedule_warms_up():
    for schedule in ("cosine", "step", "constant"):
        run = config(schedule=schedule, steps=10_000, learning_rate=0.01)
        rates = [learning_rate(run, step) for step in range(200)]
        assert (np.diff(rates) > 0).all()
        assert rates[0] == pytest.approx(0.01 / 200, rel=0.02)
        assert rates[-1] == pytest.approx(0.01, rel=0.02)


def test_schedules_fall_as_their_names_say():
    def rates(schedule):
        run = config(schedule=schedule, steps=10_000, learning_rate=0.01)
        return np.array([learning_rate(run, step) for step in range(200, 10_000)])

    np.testing.assert_allclose(rates("constant"), 0.01)
    assert (np.diff(rates("cosine")) < 0).all()
    assert rates("cosine")[4800] == pytest.approx(0.005, rel=0.02)
    assert 0 < rates("cosine")[-1] < 1e-4
    step = rates("step")
    np.testing.assert_allclose(step[:4800], 0.01)
    np.testing.assert_allclose(step[4800:7300], 0.001)
    np.testing.assert_allclose(step[7300:], 0.0001)


@pytest.mark.parametrize("role", ["locate", "refine"])
def test_a_configuration_comes_back_from_its_json(role):
    whole = TrainingConfig(
        replace(TINY, attention=False, stacks=ROLES[role].stacks),
        ROLES[role].planes,
        ROLES[role].codec,
        optimiser="rmsprop",
        schedule="step",
        learning_rate=2.5e-4,
        seed=7,
    )
    assert TrainingConfig.from_json(whole.to_json()) == whole
    assert json.loads(whole.to_json())["planes"]["shape"] == list(ROLES[role].planes.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"optimiser": "sgd"}, "adamw, adam, rmsprop, got sgd"), ({"schedule": "linear"}, "got linear")],
)
def test_a_configuration_that_makes_no_run_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)


# The loop


def no_judge(network, step, folder):
    """Judge a network by nothing."""
    return {"score": float(step)}


class PowerCutError(Exception):
    """Stands for a machine that goes down."""


def interrupt(network, step, folder):
    raise PowerCutError


def weights_of(state):
    average = {f"average {name}": value for name, value in state.average.state_dict().items()}
    return state.network.state_dict() | average


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "rmsprop"])
def test_a_run_that_was_interrupted_goes_on_exactly(optimiser, phantom, tmp_path):
    run = config(optimiser=optimiser, checkpoint_minutes=0.0, learning_rate=0.05)
    whole = train([phantom], run, tmp_path / "whole", evaluate=no_judge)
    with pytest.raises(PowerCutError):
        train([phantom], replace(run, evaluate_every=3), tmp_path / "part", evaluate=interrupt)
    resumed = Checkpoint.start(run)
    resumed.load(tmp_path / "part" / "last.safetensors")
    assert resumed.step == 2
    resumed = train([phantom], run, tmp_path / "part", evaluate=no_judge, resume=True)
    assert resumed.step == whole.step == 4
    for (name, one), other in zip(weights_of(whole).items(), weights_of(resumed).values(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0, msg=name)
    begun = Checkpoint.start(run)
    assert not torch.equal(begun.network.scores[0].weight, whole.network.scores[0].weight)


def test_the_same_seed_gives_the_same_network_and_another_another(phantom, tmp_path):
    one, same, other = (
        train([phantom], config(seed=s, steps=2), tmp_path / str(n), evaluate=no_judge)
        for n, s in enumerate((1, 1, 2))
    )
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(same.network.state_dict()[name], value, rtol=0, atol=0)
    assert not torch.equal(one.network.scores[0].weight, other.network.scores[0].weight)


def test_a_checkpoint_comes_back_whole(phantom, tmp_path):
    run = config(steps=2)
    state = train([phantom], run, tmp_path, evaluate=no_judge)
    state.save(tmp_path / "copy.safetensors")
    back = Checkpoint.start(replace(run, seed=99))
    back.load(tmp_path / "copy.safetensors")
    assert (back.step, back.best) == (2, 2.0)
    for (name, one), other in zip(weights_of(state).items(), weights_of(back).values(), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0, msg=name)
    ours, theirs = state.optimiser.state_dict()["state"], back.optimiser.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for index, values in ours.items():
        for name, value in values.items():
            torch.testing.assert_close(theirs[index][name], value, rtol=0, atol=0)
    assert not list(tmp_path.glob("*.partial"))


def test_the_best_state_is_kept_and_every_evaluation_logged(phantom, tmp_path):
    scores = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.2}

    def judge(network, step, folder):
        assert not network.training
        return {"score": scores[step]}

    run = config(evaluate_every=1)
    state = train([phantom], run, tmp_path, evaluate=judge)
    best = Checkpoint.start(run)
    best.load(tmp_path / "best.safetensors")
    assert (best.step, best.best, state.best) == (2, 0.9, 0.9)
    lines = (tmp_path / "log.csv").read_text().split()
    assert lines[0] == "step,loss,score"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert TrainingConfig.from_json((tmp_path / "config.json").read_text()) == run


def test_the_average_follows_the_network():
    state = Checkpoint.start(config())
    torch.testing.assert_close(state.average.state_dict(), state.network.state_dict())
    before = state.average.scores[0].bias.clone()
    with torch.no_grad():
        state.network.scores[0].bias += 1
    state.step = 10
    state.update_average()
    moved = state.average.scores[0].bias - before
    np.testing.assert_allclose(moved, 1 - 11 / 20, rtol=1e-5)
    assert not any(p.requires_grad for p in state.average.parameters())


def test_a_few_steps_lower_the_loss(phantom, tmp_path):
    run = config(steps=30, evaluate_every=10, learning_rate=0.3, batch=4)
    train([phantom], run, tmp_path, evaluate=no_judge)
    losses = [float(line.split(",")[1]) for line in (tmp_path / "log.csv").read_text().split()[1:]]
    assert losses[-1] < 0.8 * losses[0]


# Validation


@pytest.mark.parametrize("settings", [replace(PLANES, pixel_mm=2.0), STRAIGHT], ids=["native", "straight"])
def test_a_perfect_network_has_a_perfect_score(settings, phantom, painted, monkeypatch, tmp_path):
    def reader(network, codec, pixel_mm):
        return PaintReader(pixel_mm, codec)

    monkeypatch.setattr("sct_deepspine.training.validation.Predictor", reader)
    judge = Validation([replace(phantom, volume=painted)], CODEC, settings)
    figures = judge(None, 300, tmp_path)
    assert figures["missed"] == 0
    assert figures["mean_mm"] < 0.5
    if not settings.straight:  # the bright band by which levels are read is not wholly in view else
        assert figures["right"] == 1
        assert figures["score"] > 0.98
    assert [path.name for path in tmp_path.iterdir()] == ["validation_000300.png"]


def test_a_network_that_draws_nothing_misses_everything(phantom, monkeypatch, tmp_path):
    def blank(network, codec, pixel_mm):
        return PaintReader(pixel_mm, codec, edit=lambda m: replace(m, any_disc=0 * m.any_disc))

    monkeypatch.setattr("sct_deepspine.training.validation.Predictor", blank)
    figures = Validation([phantom], CODEC, PLANES)(None, 1, tmp_path)
    assert (figures["missed"], figures["right"]) == (1, 0)
    assert figures["score"] < -1


def test_pictures_become_a_film(tmp_path):
    from PIL import Image

    assert write_convergence(tmp_path) is None
    for step in (1, 2, 3):
        Image.new("RGB", (40, 30), (80 * step, 0, 0)).save(tmp_path / f"validation_{step:06d}.png")
    path = write_convergence(tmp_path)
    with Image.open(path) as film:
        assert film.n_frames == 3
        assert film.size == (40, 30)


# Real scans


@pytest.mark.data
def test_real_scans_have_their_discs_in_view_from_top_to_bottom(data_folder):
    cards = [json.loads(path.read_text()) for path in sorted((data_folder / "train").glob("*.json"))]
    assert len(cards) > 10
    for card in cards:
        heights = [card["discs"][value][2] for value in sorted(card["discs"], key=int)]
        assert (np.diff(heights) < 0).all(), card["image"]
        low, high = card["labelled_span_mm"]
        assert low < min(heights) < max(heights) < high, card["image"]
    subjects = {name: {json.loads(p.read_text())["subject"] for p in (data_folder / name).glob("*.json")}
                for name in ("train", "val")}  # fmt: skip
    assert not subjects["train"] & subjects["val"]


def test_the_grey_values_of_a_plane_are_those_of_the_scan(phantom):
    """With nothing changed at random but the pose, bright canal is where the target says."""
    settings = replace(
        PLANES, pixel_mm=2.0, lateral_share=0.0, tissue_share=0.0, parcel_share=0.0, shape=(96, 64)
    )
    planes = Recorded([phantom], CODEC, settings, length=4, seed=2)
    grid = phantom.tissue.grid
    for item in planes:
        sampling, _ = planes.laid
        voxel = grid.voxel_from_world(sampling.points_world.reshape(-1, 3))
        tissue = map_coordinates(phantom.tissue.data, voxel.T, order=0, cval=0).reshape(sampling.shape)
        canal = item["canal"].numpy().repeat(2, 0).repeat(2, 1)
        sure = canal > 0.9
        if sure.sum() > 20:
            assert (tissue[sure] == CANAL).mean() > 0.9
