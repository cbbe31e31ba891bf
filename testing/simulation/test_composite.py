from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from sct_deepspine.anatomy import EXPECTED_SPACING_MM
from sct_deepspine.simulation.composite import can_compose, compose_scans, fit_tissues, make_composite
from sct_deepspine.simulation.phantom import make_phantom

VOXEL_MM = (5.0, 2.5, 2.5)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def scans():
    """Cervical, lumbar and thoracic scans, of three phantoms."""
    views = {"cervical": (3, 12), "lumbar": (17, 25), "thoracic": (6, 22)}
    return {
        name: replace(
            make_phantom(rng(n), first=first, last=last, voxel_mm=VOXEL_MM), name=name, region="scans"
        )
        for n, (name, (first, last)) in enumerate(views.items())
    }


@pytest.fixture(scope="module")
def scanned(scans):
    """A spine composed of three of them."""
    return make_composite(rng(), list(scans.values()), voxel_mm=VOXEL_MM)


@pytest.fixture(scope="module")
def rendered(scans):
    """A spine whose middle is a phantom's."""
    return compose_scans(rng(3), scans["cervical"], scans["lumbar"], voxel_mm=VOXEL_MM)


@pytest.fixture(params=["scanned", "rendered"])
def composite(request):
    return request.getfixturevalue(request.param)


def test_a_composite_spine_has_every_disc_inside_its_volume(composite):
    assert sorted(composite.discs) == list(range(3, 26))
    tips = np.array([composite.discs[value] for value in range(3, 26)])
    assert composite.volume.grid.contains_voxel(composite.volume.grid.voxel_from_world(tips)).all()
    assert (np.diff(tips[:, 2]) < 0).all()


def test_its_discs_are_as_far_apart_as_a_body_of_one_size_has_them(composite):
    tips = np.array([composite.discs[value] for value in range(3, 26)])
    steps = np.linalg.norm(np.diff(tips, axis=0), axis=1)
    ratios = steps / [EXPECTED_SPACING_MM[value] for value in range(3, 25)]
    assert ratios.std() / ratios.mean() < 0.15


def test_a_tip_shows_what_it_showed_in_the_scan_it_came_from(composite, scans):
    """The canal is bright just behind a tip, and what lies before it is not."""
    for value in (4, 6, 21, 23):
        tip = composite.discs[value]
        line = composite.centerline_world
        middle = line[np.abs(line[:, 2] - tip[2]).argmin()]
        behind = tip + 0.45 * (middle - tip)
        voxels = composite.volume.grid.voxel_from_world(np.array([behind, tip + np.array([0, 6, 0])]))
        fluid, disc = map_coordinates(composite.volume.data.astype(float), voxels.T, order=1)
        assert fluid > disc + 100


def test_the_same_seed_makes_the_same_spine(scans, rendered):
    cervical, lumbar = scans["cervical"], scans["lumbar"]
    same, other = (compose_scans(rng(n), cervical, lumbar, voxel_mm=VOXEL_MM) for n in (3, 8))
    np.testing.assert_array_equal(same.volume.data, rendered.volume.data)
    assert other.volume.data.shape != same.volume.data.shape or (other.volume.data != same.volume.data).any()


def test_a_set_without_a_neck_or_a_lumbar_spine_can_not_be_composed(scans):
    assert can_compose(list(scans.values()))
    assert not can_compose([scans["cervical"], scans["thoracic"]])
    assert not can_compose([scans["lumbar"], scans["thoracic"]])


def test_a_fused_level_shows_no_disc():
    sound = make_phantom(rng(5), first=18, last=22, voxel_mm=VOXEL_MM)
    fused = make_phantom(rng(5), first=18, last=22, voxel_mm=VOXEL_MM, degenerated={20: 0.0})
    np.testing.assert_allclose(fused.discs[20], sound.discs[20])

    def disc_voxels(scan, value):
        grid = scan.tissue.grid
        world = grid.world_from_voxel(np.argwhere(scan.tissue.data == 2))
        return (np.linalg.norm(world - scan.discs[value] - [0, 12, 0], axis=1) < 12).sum()

    assert disc_voxels(sound, 20) > 5
    assert disc_voxels(fused, 20) == 0
    assert disc_voxels(fused, 21) == disc_voxels(sound, 21)


@pytest.mark.parametrize(("first", "last"), [(3, 12), (18, 25)])
def test_tissues_fitted_to_the_discs_lie_where_the_tissues_are(first, last):
    scan = make_phantom(rng(6), first=first, last=last, voxel_mm=VOXEL_MM)
    fitted = fit_tissues(replace(scan, tissue=None)).tissue.data
    z = scan.volume.grid.world_from_voxel(np.indices(fitted.shape).reshape(3, -1).T)[:, 2].reshape(
        fitted.shape
    )
    tips = np.array(list(scan.discs.values()))
    within = (z > tips[:, 2].min()) & (z < tips[:, 2].max())
    for label, least in ((1, 0.85), (2, 0.6), (3, 0.85)):
        true, found = (scan.tissue.data == label) & within, (fitted == label) & within
        assert 2 * (true & found).sum() / (true.sum() + found.sum()) > least


def test_a_scan_with_one_disc_gets_no_tissues():
    scan = replace(make_phantom(rng(6), first=3, last=6, voxel_mm=VOXEL_MM), tissue=None)
    assert fit_tissues(replace(scan, discs={3: scan.discs[3], 26: scan.discs[6]})).tissue is None
    assert fit_tissues(replace(scan, discs={})).tissue is None


def test_a_composite_spine_has_tissues_at_its_discs(scanned):
    tips = np.array(list(scanned.discs.values()))
    within = np.round(scanned.volume.grid.voxel_from_world(tips + np.array([0, 5.0, 0]))).astype(int)
    assert (scanned.tissue.data[tuple(within.T)] == 2).mean() > 0.8


@pytest.mark.parametrize("place", [14, 20, 22])
@pytest.mark.parametrize(("kind", "lowest"), [("extra", 26), ("missing", 24)])
def test_a_vertebra_more_or_less_is_counted_from_c2(scans, kind, lowest, place):
    scan = make_composite(rng(5), list(scans.values()), voxel_mm=VOXEL_MM, **{kind: place})
    values = sorted(scan.discs)
    assert values[-1] == lowest
    assert set(range(3, lowest + 1)) - set(values) == set()
    assert not set(scan.landmarks) & set(values)
    heights = [scan.discs[value][2] for value in values]
    assert (np.diff(heights) < -8).all()
