import numpy as np
import pytest

from sct_deepspine.simulation.phantom import make_phantom, make_varied_phantom, random_contrast
from sct_deepspine.training.known import is_known

VERTEBRA, DISC, CANAL, CORD = 1, 2, 3, 4


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def lumbar():
    """A view that ends above C2/C3 and below L5/S1 nowhere: T10/T11 to L2/L3."""
    return make_phantom(rng(5), first=18, last=22, voxel_mm=(5.0, 2.5, 2.5))


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
        seen = scan.tissue.data[tuple(index.T)]
        assert set(seen[:2].tolist()) <= {CANAL, CORD}
        assert seen[2:].tolist() == [DISC, DISC]


def test_a_phantom_is_the_same_for_the_same_seed_and_another_for_another():
    one, same, other = (
        make_phantom(rng(seed), first=3, last=6, voxel_mm=(6.0, 3.0, 3.0)) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(one.volume.data, same.volume.data)
    np.testing.assert_array_equal(np.array(list(one.discs.values())), np.array(list(same.discs.values())))
    assert one.volume.data.shape != other.volume.data.shape or (one.volume.data != other.volume.data).any()


def test_the_centreline_runs_through_the_canal(phantom):
    index = np.round(phantom.volume.grid.voxel_from_world(phantom.centerline_world)).astype(int)
    assert np.isin(phantom.tissue.data[tuple(index.T)], (CANAL, CORD)).mean() > 0.95
    assert (np.diff(phantom.centerline_world[:, 2]) > 0).all()


def test_where_a_phantoms_discs_are_labelled_is_known_at_its_open_ends(phantom, lumbar):
    assert phantom.span_z_mm[1] == np.inf
    assert is_known(phantom, np.array([-1e3, 1e3])).tolist() == [False, True]
    assert not is_known(lumbar, np.array([-1e3, 1e3])).any()
    heights = [tip[2] for tip in lumbar.discs.values()]
    assert is_known(lumbar, np.array(heights)).all()
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


def test_a_varied_phantom_shows_a_stretch_of_spine_and_is_the_same_for_the_same_seed():
    views = (3, 4), (24, 25)
    scans = [make_varied_phantom(rng(seed), spineless_share=0, views=views) for seed in (0, 1, 1)]
    assert [(min(scan.discs), max(scan.discs)) for scan in scans] == [(24, 25), (3, 4), (3, 4)]
    np.testing.assert_array_equal(scans[1].volume.data, scans[2].volume.data)
    assert make_varied_phantom(rng(0), spineless_share=1).discs == {}
