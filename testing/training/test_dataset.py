from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from sct_deepspine.labeling.heatmaps import NO_LEVEL, DiscCodec
from sct_deepspine.simulation.phantom import make_phantom
from sct_deepspine.training.dataset import LATERAL_WEIGHT, PlaneSettings, RandomPlanes
from sct_deepspine.training.known import is_known
from sct_deepspine.training.roles import ROLES

CODEC = DiscCodec(stride=2)
PLANES = PlaneSettings(shape=(64, 32), pixel_mm=4.0)
FINE_PLANES = PlaneSettings(shape=(96, 64), pixel_mm=2.0)
STRAIGHT = PlaneSettings(shape=(96, 64), pixel_mm=1.0, straight=True, turn_degrees=10.0)
VERTEBRA, DISC, CANAL, CORD = 1, 2, 3, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def planes_of(scan, settings=PLANES, **options):
    return RandomPlanes([scan], CODEC, settings, **{"length": 6, "seed": 3} | options)


@pytest.fixture(scope="module")
def lumbar():
    """A view that ends above C2/C3 and below L5/S1 nowhere: T10/T11 to L2/L3."""
    return make_phantom(rng(5), first=18, last=22, voxel_mm=(5.0, 2.5, 2.5))


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
        assert set(item["level"].unique().tolist()) <= {NO_LEVEL, *range(CODEC.levels)}
        assert set(item["any_known"].unique().tolist()) <= {0.0, 1.0}


class Recorded(RandomPlanes):
    """Keeps the planes that are laid."""

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
        plane, _ = planes.laid
        heat, level = item["any_disc"].numpy(), item["level"].numpy()
        for value, tip in phantom.discs.items():
            distance = np.linalg.norm(np.nan_to_num(plane.points_world, nan=1e6) - tip, axis=2)
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
        plane, scale = planes.laid
        cells = plane.points_world.reshape(rows, 2, columns, 2, 3).mean(axis=(1, 3))
        offset = (cells[:, :, None] - tips) * [LATERAL_WEIGHT, 1, 1]
        sigma_mm = CODEC.sigma_cells * CODEC.stride * FINE_PLANES.pixel_mm * scale
        truth = np.exp(-0.5 * (offset**2).sum(-1).min(-1) / sigma_mm**2)
        covered = (item["image"][0].numpy() != 0).reshape(rows, 2, columns, 2).mean(axis=(1, 3)) == 1
        np.testing.assert_allclose(item["any_disc"].numpy()[covered], truth[covered], atol=1e-5)
        seen += (truth[covered] > 0.5).sum()
    assert seen > 20
    assert 0 < LATERAL_WEIGHT < 1


def test_what_is_not_labelled_is_masked_and_what_is_outside_is_known_to_be_empty(lumbar):
    planes = Recorded([lumbar], CODEC, PLANES, length=10, seed=1)
    masked = 0
    for item in planes:
        plane, _ = planes.laid
        rows, columns = (n // 2 for n in PLANES.shape)
        z = plane.points_world[..., 2].reshape(rows, 2, columns, 2).mean(axis=(1, 3))
        unlabelled = ~is_known(lumbar, z)
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
        assert (item["level"] == NO_LEVEL).all()


def test_small_groups_are_sampled_more_often_than_their_size(phantom):
    scans = [replace(phantom, region="neck")] * 8 + [replace(phantom, region="back")] + [phantom] * 3
    planes = RandomPlanes(scans, CODEC, PLANES, length=1, seed=0)
    assert planes.weights.sum() == pytest.approx(1)
    neck, back, synthetic = planes.weights[:8].sum(), planes.weights[8], planes.weights[9:].sum()
    assert synthetic == pytest.approx(PLANES.phantom_share)
    assert 1 < neck / back < 8
    alone = RandomPlanes([phantom] * 2, CODEC, PLANES, length=1, seed=0)
    np.testing.assert_allclose(alone.weights, 0.5)


def test_planes_beside_the_spine_show_no_disc(phantom):
    near = list(planes_of(phantom, replace(PLANES, empty_share=0, away_share=0), length=20))
    beside = list(planes_of(phantom, replace(PLANES, empty_share=0, away_share=1), length=20))
    assert np.mean([float(item["any_disc"].max()) > 0.5 for item in near]) > 0.5
    assert np.mean([float(item["any_disc"].max()) > 0.5 for item in beside]) < 0.2
    assert np.mean([float(item["image"].abs().max()) > 0 for item in beside]) > 0.5


def test_planes_without_a_spine_ask_for_empty_maps():
    bodies = [make_phantom(rng(0), first=3, last=6, voxel_mm=(6.0, 3.0, 3.0), spine=False)]
    for role in (ROLES["locate"], ROLES["refine"]):
        planes = RandomPlanes(bodies, role.codec, role.planes, length=6, seed=0)
        for plane in planes:
            assert plane["any_disc"].max() == plane["canal"].max() == 0
            assert plane["any_known"].min() == plane["canal_known"].min() == 1


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
    shown = [item for item in planes if (item["any_disc"] > 0.5).any()]
    assert shown
    levels = np.concatenate([item["level"][item["any_disc"] > 0.5].numpy() for item in shown])
    assert (levels == NO_LEVEL).any()
    assert set(levels[levels != NO_LEVEL] + CODEC.first_value) <= {8, 9, 21, 22}


def test_the_grey_values_of_a_plane_are_those_of_the_scan(phantom):
    """With nothing changed at random but the pose, bright canal is where the target says."""
    settings = replace(
        PLANES, pixel_mm=2.0, lateral_share=0.0, tissue_share=0.0, parcel_share=0.0, shape=(96, 64)
    )
    planes = Recorded([phantom], CODEC, settings, length=4, seed=2)
    grid = phantom.tissue.grid
    for item in planes:
        plane, _ = planes.laid
        voxel = grid.voxel_from_world(plane.points_world.reshape(-1, 3))
        tissue = map_coordinates(phantom.tissue.data, voxel.T, order=0, cval=0).reshape(plane.shape)
        canal = item["canal"].numpy().repeat(2, 0).repeat(2, 1)
        sure = canal > 0.9
        if sure.sum() > 20:
            assert np.isin(tissue[sure], (CANAL, CORD)).mean() > 0.9


def test_batches_of_tall_planes_come_in_their_share(phantom):
    settings = replace(PLANES, tall_rows=96, tall_share=0.4)
    planes = RandomPlanes([phantom], CODEC, settings, length=40, seed=3, batch=4)
    rows = [item["image"].shape[1] for item in planes]
    assert set(rows) == {64, 96}
    assert all(len(set(rows[n : n + 4])) == 1 for n in range(0, 40, 4))


# Contrasts in which bone is dark


def test_cells_midway_between_discs_count_more_and_discs_do_not(lumbar):
    settings = replace(FINE_PLANES, away_share=0.0, empty_share=0.0)
    plain = planes_of(lumbar, settings)
    weighed = planes_of(lumbar, replace(settings, between_weight=3.0))
    raised = 0
    for one, other in zip(plain, weighed, strict=True):
        torch.testing.assert_close(one["image"], other["image"], rtol=0, atol=0)
        torch.testing.assert_close(one["any_disc"], other["any_disc"], rtol=0, atol=0)
        ratio = other["any_known"] / one["any_known"].clamp(min=1e-6)
        assert ratio[one["any_known"] > 0].min() >= 1
        assert ratio.max() <= 4 + 1e-5
        raised += int((ratio > 2.5).sum())
        assert (ratio[one["any_disc"] > 0.9] < 1.3).all()
    assert raised > 10


def test_planes_with_dark_bone_show_it_darker_than_discs_and_canal(lumbar):
    upright = {"tissue_share": 0.0, "parcel_share": 0.0, "empty_share": 0.0, "away_share": 0.0}
    settings = replace(FINE_PLANES, lateral_share=0.0, dark_bone_share=1.0, **upright)
    planes = planes_of(lumbar, settings, length=12)
    plain = planes_of(lumbar, replace(settings, dark_bone_share=0.0), length=12)
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(planes, plain, strict=True))


def test_the_coarse_network_learns_from_dark_bone_and_from_what_lies_between_discs():
    planes = ROLES["locate"].planes
    assert planes.dark_bone_share > 0
    assert planes.between_weight > 0
