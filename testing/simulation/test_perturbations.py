"""Changed scans still show what their truth says."""

from dataclasses import replace

import numpy as np
import pytest

from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import LabelledScan
from sct_deepspine.simulation.perturbations import SCOLIOSIS_MM, perturbed, scoliotic

SHAPE = (11, 47, 101)
AFFINE = np.array([[1.5, 0, 0, -8], [0, 1.5, 0, 20], [0, 0, 2.5, -70], [0, 0, 0, 1.0]])


def landmarked_scan(values):
    """A scan whose discs are bright blobs, 22 mm apart, from a superior to an inferior value."""
    grid = Grid(SHAPE, AFFINE)
    z = 160 - 22.0 * np.arange(len(values))
    discs = {value: np.array([0.5, 55.0, height]) for value, height in zip(values, z, strict=True)}
    world = grid.world_from_voxel(np.indices(SHAPE).reshape(3, -1).T)
    data = sum(np.exp(-((world - tip) ** 2).sum(axis=1) / 30) for tip in discs.values())
    volume = Volume(data.reshape(SHAPE).astype(np.float32), grid)
    return LabelledScan("blobs", "blobs", "neck", "T2w", volume, discs, (-np.inf, np.inf))


@pytest.fixture(scope="module")
def neck():
    return landmarked_scan(range(3, 13))


@pytest.fixture(scope="module")
def cases(neck):
    return {case.perturbation: case for case in perturbed(neck, np.random.default_rng(0))}


def test_the_unchanged_scan_comes_first_and_every_family_is_there(cases):
    names = list(cases)
    assert names[0] == "plain"
    assert {
        "inverted",
        "remap 5",
        "2 mm isotropic",
        "5 mm slices",
        "yaw -20°",
        "noise",
        "bias",
        "motion",
    } <= set(names)
    assert sum(name.startswith("crop") for name in names) == 9


def brightest_world(case):
    volume = case.image
    return volume.grid.world_from_voxel(np.unravel_index(volume.data.argmax(), volume.data.shape))[0]


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "2 mm isotropic",
        "5 mm slices",
        "pitch +20°",
        "roll -20°",
        "yaw +20°",
        "pitch -20° in the slices",
        "yaw -20° in the slices",
    ],
)
def test_the_brightest_voxel_is_at_a_disc_of_the_truth(cases, name):
    case = cases[name]
    point = case.original_from_perturbed[:3, :3] @ brightest_world(case) + case.original_from_perturbed[:3, 3]
    nearest = min(np.linalg.norm(point - tip) for tip in case.truth.values())
    assert nearest < 3.0  # a voxel's diagonal, or half a thick slice


def test_inversion_makes_discs_dark(neck, cases):
    tip = np.round(neck.volume.grid.voxel_from_world(neck.discs[7])[0]).astype(int)
    assert cases["inverted"].image.data[tuple(tip)] < 0.3
    assert np.median(cases["inverted"].image.data) > 0.9


def test_thick_slices_are_thick_and_cover_the_same_width(neck, cases):
    grid = cases["5 mm slices"].image.grid
    assert grid.spacing_mm[0] == pytest.approx(5.0)
    assert grid.spacing_mm[1:] == pytest.approx(neck.volume.grid.spacing_mm[1:])


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("crop 4 with landmark", range(3, 7)),
        ("crop 4 without landmark", range(4, 8)),
        ("crop 8 with anchor", range(4, 12)),
    ],
)
def test_a_crop_shows_its_discs_and_no_other(neck, cases, name, kept):
    case = cases[name]
    assert list(case.truth) == list(kept)
    for value, tip in neck.discs.items():
        assert case.image.grid.contains_voxel(case.image.grid.voxel_from_world(tip))[0] == (value in kept)


def test_an_anchored_crop_tells_one_of_its_discs(cases):
    (value, point), *rest = cases["crop 6 with anchor"].anchor.items()
    assert not rest
    np.testing.assert_allclose(point, cases["crop 6 with anchor"].truth[value])


def test_a_lumbar_crop_keeps_the_sacrum_s_end():
    spine = landmarked_scan(range(18, 26))
    case = next(
        c for c in perturbed(spine, np.random.default_rng(0)) if c.perturbation == "crop 4 with landmark"
    )
    assert list(case.truth) == [22, 23, 24, 25]
    assert case.image.grid.affine[2, 3] == spine.volume.grid.affine[2, 3]


def test_the_same_seed_makes_the_same_scans(neck, cases):
    again = {case.perturbation: case for case in perturbed(neck, np.random.default_rng(0))}
    for name in ("remap 1", "noise", "motion"):
        np.testing.assert_array_equal(again[name].image.data, cases[name].image.data)


def test_a_scoliotic_spine_is_bent_sideways_and_its_discs_with_it(neck):
    wide = replace(neck, volume=padded(neck.volume, 20))
    cases = {case.perturbation: case for case in scoliotic(wide)}
    assert list(cases) == ["scoliosis, C-shaped", "scoliosis, S-shaped"]
    for name, case in cases.items():
        assert list(case.truth) == list(neck.discs)
        aside = np.array([case.truth[v][0] - neck.discs[v][0] for v in neck.discs])
        furthest = SCOLIOSIS_MM[name[-len("C-shaped")]]
        assert 0.8 * furthest < aside.max() <= furthest
        assert (aside.min() < -0.8 * furthest) == ("S" in name[-8:])
        np.testing.assert_allclose(aside[[0, -1]], 0, atol=1e-9)
        grid = case.image.grid
        for tip in case.truth.values():
            place = np.round(grid.voxel_from_world(tip)[0]).astype(int)
            assert case.image.data[tuple(place)] > 0.5


def padded(volume, voxels):
    data = np.pad(volume.data, ((voxels, voxels), (0, 0), (0, 0)))
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.world_from_voxel([-voxels, 0, 0])[0]
    return Volume(data, Grid(data.shape, affine))


def test_a_disc_that_is_bent_out_of_the_slices_is_in_view_no_more(neck):
    cases = list(scoliotic(neck))
    assert cases
    for case in cases:
        tips = np.array(list(case.truth.values()))
        assert 4 <= len(tips) < len(neck.discs)
        assert case.image.grid.contains_voxel(case.image.grid.voxel_from_world(tips)).all()
    single = Volume(neck.volume.data[:1], Grid((1, *SHAPE[1:]), AFFINE))
    assert not list(scoliotic(replace(neck, volume=single)))
