from dataclasses import replace

import numpy as np
import pytest
import torch

from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import (
    CANAL_TISSUE,
    CORD_TISSUE,
    DISC_TISSUE,
    UNKNOWN_TISSUE,
    VERTEBRA_TISSUE,
)
from sct_deepspine.segmentation.tissues import ANY_TISSUE, Tissue
from sct_deepspine.simulation.phantom import make_phantom
from sct_deepspine.training.loss import tissue_loss
from sct_deepspine.training.tissue_planes import (
    RandomTissuePlanes,
    TissuePlaneSettings,
    _shown,
    possible_tissues,
)

PLAIN = TissuePlaneSettings(shape=(64, 48), pixel_mm=2.0, tissue_share=0, parcel_share=0)
CANAL = Tissue.CORD.bit | Tissue.FLUID.bit


@pytest.fixture(scope="module")
def lumbar():
    """A phantom whose view ends below the sacrum's top, as a real lumbar scan's."""
    return make_phantom(np.random.default_rng(2), first=19, last=25, voxel_mm=(4.0, 2.0, 2.0)).deobliqued()


def with_masks(scan, **masks):
    empty = {"tissue": None, "bodies": None, "cord": None, "canal": None}
    volumes = {name: Volume(data.astype(np.uint8), scan.volume.grid) for name, data in masks.items()}
    return replace(scan, **empty | volumes)


def test_a_phantom_knows_every_tissue_but_the_sacrum(lumbar):
    possible, tissue = possible_tissues(lumbar).data, lumbar.tissue.data
    for value, kind in (
        (VERTEBRA_TISSUE, Tissue.VERTEBRA),
        (DISC_TISSUE, Tissue.DISC),
        (CANAL_TISSUE, Tissue.FLUID),
        (CORD_TISSUE, Tissue.CORD),
    ):
        assert (possible[tissue == value] == kind.bit).all()
    outside = possible[tissue == 0]
    assert set(np.unique(outside)) == {Tissue.OTHER.bit, Tissue.OTHER.bit | Tissue.VERTEBRA.bit}


def test_a_canal_without_a_cord_in_it_may_be_either_above_the_conus_and_fluid_below(lumbar):
    tissue = np.where(lumbar.tissue.data == CORD_TISSUE, CANAL_TISSUE, lumbar.tissue.data)
    scan = with_masks(lumbar, tissue=tissue)
    possible = possible_tissues(scan).data
    heights = scan.volume.grid.world_from_voxel(np.argwhere(tissue == CANAL_TISSUE))[:, 2]
    canal = possible[tissue == CANAL_TISSUE]
    below = heights < scan.discs[22][2]
    assert (canal[below] == Tissue.FLUID.bit).all()
    assert (canal[~below] == CANAL).all()


def test_what_a_mask_leaves_open_may_be_anything(lumbar):
    tissue = np.full(lumbar.volume.grid.shape, UNKNOWN_TISSUE)
    tissue[2, 3, 4] = DISC_TISSUE
    possible = possible_tissues(with_masks(replace(lumbar, discs={}), tissue=tissue)).data
    assert possible[2, 3, 4] == Tissue.DISC.bit
    assert (np.delete(possible.ravel(), np.ravel_multi_index((2, 3, 4), possible.shape)) == ANY_TISSUE).all()


def test_a_cord_mask_tells_nothing_beyond_its_ends(lumbar):
    cord = np.zeros(lumbar.volume.grid.shape)
    cord[3, 20, 30:50] = 1
    possible = possible_tissues(with_masks(lumbar, cord=cord)).data
    assert (possible[3, 20, 30:50] == Tissue.CORD.bit).all()
    assert possible[3, 21, 40] == ANY_TISSUE & ~Tissue.CORD.bit
    assert possible[3, 20, 29] == possible[3, 20, 50] == ANY_TISSUE


def test_bodies_tell_of_themselves_and_of_what_is_just_before_them(lumbar):
    grid = lumbar.volume.grid
    voxel = np.round(grid.voxel_from_world(lumbar.discs[23] + np.array([0, 15.0, 17]))[0]).astype(int)
    bodies = np.zeros(grid.shape)
    i, j, k = voxel
    bodies[i - 2 : i + 3, j - 4 : j + 5, k - 4 : k + 5] = 23
    possible = possible_tissues(with_masks(lumbar, bodies=bodies)).data
    assert (possible[bodies > 0] == Tissue.VERTEBRA.bit).all()
    assert possible[i, j + 6, k] == ANY_TISSUE & ~Tissue.VERTEBRA.bit
    assert possible[i, j, k + 6] == ANY_TISSUE & ~Tissue.VERTEBRA.bit
    assert possible[i, j + 12, k] == ANY_TISSUE


def test_planes_are_the_same_for_a_seed_whatever_the_start(lumbar):
    planes = RandomTissuePlanes([lumbar], PLAIN, length=6, seed=5)
    later = RandomTissuePlanes([lumbar], PLAIN, length=3, seed=5, start=3)
    for one, other in zip(list(planes)[3:], later, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["possible"], other["possible"])
    assert planes[0]["image"].shape == (3, 64, 48)
    assert not torch.equal(planes[0]["image"], planes[1]["image"])


def test_a_plane_is_seen_between_its_neighbours_or_without_one_or_both(lumbar):
    planes = RandomTissuePlanes([lumbar], PLAIN, length=1, seed=3)
    left, own, right = planes._lay(np.random.default_rng(0), lumbar)
    steps = np.stack([own.points_world - left.points_world, right.points_world - own.points_world])
    lengths = np.linalg.norm(steps, axis=-1)
    np.testing.assert_allclose(lengths, lengths[0, 0, 0])
    assert 2 * np.exp(-0.25) <= lengths[0, 0, 0] <= 2 * np.exp(0.25)
    shown = np.array([_shown(np.random.default_rng(n), 3) for n in range(400)])
    assert shown[:, 1].all()
    assert np.mean(shown.all(axis=1)) == pytest.approx(0.73, abs=0.07)
    assert {tuple(row) for row in shown.tolist()} == {
        (True, True, True),
        (False, True, False),
        (False, True, True),
        (True, True, False),
    }


def test_a_network_may_see_a_plane_alone(lumbar):
    (plane,) = RandomTissuePlanes([lumbar], replace(PLAIN, channels=1), length=1, seed=5)
    assert plane["image"].shape == (1, 64, 48)


def test_a_plane_and_its_target_show_the_same_place(lumbar):
    # Where the grey values are the tissues themselves, they must agree with the target.
    values = np.array([0.1, 0.5, 0.9, 0.3, 0.7])[lumbar.tissue.data]
    scan = replace(lumbar, volume=Volume(values, lumbar.volume.grid))
    agreed = []
    for plane in RandomTissuePlanes([scan], PLAIN, length=24, seed=1):
        image, possible = plane["image"][1].numpy(), plane["possible"].numpy()
        fluid, disc = (image[possible == t.bit] for t in (Tissue.FLUID, Tissue.DISC))
        if len(fluid) > 40 and len(disc) > 40:
            agreed.append(abs(np.median(fluid) - np.median(disc)) > 0.5)
    assert len(agreed) > 3
    assert np.mean(agreed) > 0.7


def test_the_loss_is_that_of_the_tissues_a_pixel_may_be():
    raw = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    possible = torch.full((2, 3, 4), ANY_TISSUE)
    assert tissue_loss([raw], {"possible": possible}) == 0
    possible[0, 1, 2] = Tissue.DISC.bit
    possible[1, 0, 3] = CANAL
    share = raw.softmax(dim=1)
    wanted = -(share[0, Tissue.DISC, 1, 2].log() + share[1, [1, 2], 0, 3].sum().log()) / 2
    torch.testing.assert_close(tissue_loss([raw], {"possible": possible}), wanted)


def test_the_loss_has_finite_gradients_everywhere():
    raw = torch.full((1, 5, 2, 2), 80.0, requires_grad=True)
    possible = torch.tensor([[[1, 2], [6, ANY_TISSUE]]])
    tissue_loss([raw], {"possible": possible}).backward()
    assert torch.isfinite(raw.grad).all()
