from dataclasses import replace

import numpy as np
import pytest
from fakes import TissueOracle, fake_mask_model, fake_model
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from sct_deepspine import LabelsError, NoDiscsError, label_discs, segment_spine
from sct_deepspine.anatomy import EXPECTED_SPACING_MM
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.annotations import CANAL_TISSUE, CORD_TISSUE, DISC_TISSUE, VERTEBRA_TISSUE
from sct_deepspine.labels import Disc, DiscLabels
from sct_deepspine.segmentation.masks import disc_mask_value, vertebra_mask_value
from sct_deepspine.segmentation.tissues import Tissue


def labels_of(scan):
    """The phantom's own discs and canal, as if they had been found."""
    discs = tuple(Disc(value, tip, 0.9) for value, tip in sorted(scan.discs.items()))
    return DiscLabels(
        discs, scan.volume.grid, 0.9, canal=Centerline.from_points(scan.centerline_world), view="landmark"
    )


class TubeSeer:
    """Sees a canal along the middle of the planes in the middle, whatever it is shown."""

    pixel_mm = 1.0
    in_channels = 1

    def predict(self, planes):
        maps = np.zeros((len(planes), len(Tissue), *planes[0].shape[-2:]), dtype=np.float32)
        maps[:, Tissue.OTHER] = 0.5
        middle = len(planes) // 2
        maps[middle - 3 : middle + 4, Tissue.FLUID, :, 53:67] = 1
        return list(maps)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope="module")
def masks(phantom):
    return segment_spine(
        phantom.volume, labels=labels_of(phantom), weights=fake_mask_model(TissueOracle(phantom))
    )


def test_what_the_network_sees_comes_back_on_the_images_grid(phantom, masks):
    tissue, spine = phantom.tissue.data, masks.spine
    # Voxels of 4 mm and planes of 2 mm: some of a border is lost, nothing more.
    assert dice(masks.canal > 0, np.isin(tissue, (CANAL_TISSUE, CORD_TISSUE))) > 0.9
    assert dice(masks.cord > 0, tissue == CORD_TISSUE) > 0.85
    assert dice(spine >= 63, tissue == DISC_TISSUE) > 0.75
    assert spine.shape == phantom.volume.grid.shape
    assert spine.dtype == np.uint8


def test_vertebrae_and_discs_bear_the_level_of_their_discs(phantom, masks):
    grid = phantom.volume.grid
    for value, tip in phantom.discs.items():
        voxel = tuple(np.round(grid.voxel_from_world(tip + np.array([0, 7.0, 0]))[0]).astype(int))
        around = masks.spine[tuple(slice(max(i - 1, 0), i + 2) for i in voxel)]
        assert disc_mask_value(value) in around
    both = [v for v in phantom.discs if v + 1 in phantom.discs]
    bone = phantom.tissue.data == VERTEBRA_TISSUE
    for number in both:
        middle = (phantom.discs[number] + phantom.discs[number + 1]) / 2 + np.array([0, 9.0, 0])
        voxel = tuple(np.round(grid.voxel_from_world(middle)[0]).astype(int))
        assert bone[voxel]
        assert masks.spine[voxel] == vertebra_mask_value(number)


def test_the_cord_is_numbered_by_vertebral_level(phantom, masks):
    cord = masks.cord > 0
    assert ((masks.cord_levels > 0) <= cord).all()
    grid = phantom.volume.grid
    for number in (v for v in phantom.discs if v + 1 in phantom.discs):
        z = (phantom.discs[number][2] + phantom.discs[number + 1][2]) / 2
        row = int(np.round(grid.voxel_from_world([0, 0, z])[0, 2]))
        values = masks.cord_levels[:, :, row][cord[:, :, row]]
        assert (values == number).mean() > 0.6


def test_the_cord_has_one_level_above_the_first_disc_and_one_below_the_last(phantom, masks):
    """As high as the template makes them; beyond there is none."""
    known = {v: tip for v, tip in phantom.discs.items() if 5 <= v <= 8}
    labels = labels_of(replace(phantom, discs=known))
    out = segment_spine(phantom.volume, labels=labels, weights=fake_mask_model(TissueOracle(phantom)))
    grid, cord = phantom.volume.grid, out.cord > 0

    def share(number, z):
        row = int(np.round(grid.voxel_from_world([0, 0, z])[0, 2]))
        return (out.cord_levels[:, :, row][cord[:, :, row]] == number).mean()

    top, bottom = known[5][2], known[8][2]
    assert share(4, top + 0.5 * EXPECTED_SPACING_MM[4]) > 0.9
    assert share(8, bottom - 0.5 * EXPECTED_SPACING_MM[8]) > 0.9
    assert share(0, top + 1.6 * EXPECTED_SPACING_MM[4]) > 0.9
    assert share(0, bottom - 1.6 * EXPECTED_SPACING_MM[8]) > 0.9
    assert set(np.unique(out.cord_levels)) == {0, 4, 5, 6, 7, 8}


def test_a_gap_of_a_few_rows_leaves_the_cord_whole(phantom, masks):
    oracle = TissueOracle(phantom, gap_rows=slice(-60, -57))
    out = segment_spine(phantom.volume, labels=labels_of(phantom), weights=fake_mask_model(oracle))
    lowest = [np.argwhere(mask)[:, 2].min() for mask in (masks.cord, out.cord)]
    assert lowest[0] == lowest[1]


@pytest.mark.parametrize("codes", [((2, 0, 1), (1, -1, -1)), ((1, 2, 0), (-1, 1, -1))])
def test_the_orientation_of_the_image_changes_nothing(phantom, masks, codes):
    order, signs = codes
    data = phantom.volume.data.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[old, new] = sign
        matrix[old, 3] = phantom.volume.grid.shape[old] - 1 if sign < 0 else 0
    affine = phantom.volume.grid.affine @ matrix
    model = fake_mask_model(TissueOracle(phantom))
    out = segment_spine((data, affine), labels=labels_of(phantom), weights=model)
    back = out.spine[tuple(slice(None, None, sign) for sign in signs)].transpose(np.argsort(order))
    assert (back == masks.spine).mean() > 0.9995


def test_an_oblique_image_is_segmented_as_an_upright_one(phantom, masks):
    turn = from_matvec(euler2mat(x=0.2, y=-0.1, z=0.15), [5, -7, 11])
    turned = Volume(phantom.volume.data, phantom.volume.grid.transformed(turn))
    whole = replace(
        phantom,
        volume=turned,
        discs={v: turn[:3, :3] @ p + turn[:3, 3] for v, p in phantom.discs.items()},
        centerline_world=phantom.centerline_world @ turn[:3, :3].T + turn[:3, 3],
        tissue=Volume(phantom.tissue.data, turned.grid),
    )
    out = segment_spine(turned, labels=labels_of(whole), weights=fake_mask_model(TissueOracle(whole)))
    assert dice(out.canal > 0, masks.canal > 0) > 0.97
    assert (
        out.spine[(out.spine > 2) & (masks.spine > 2)] == masks.spine[(out.spine > 2) & (masks.spine > 2)]
    ).mean() > 0.97


def test_without_labels_the_image_is_labelled_first(phantom, painted):
    out = segment_spine(painted, weights=fake_mask_model(TubeSeer()), labeling=fake_model())
    found = label_discs(painted, weights=fake_model())
    assert out.labels.values.tolist() == found.values.tolist()
    true = np.isin(phantom.tissue.data, (CANAL_TISSUE, CORD_TISSUE))
    assert dice(out.canal > 0, true) > 0.7


def test_a_cord_apart_from_the_rest_is_canal(phantom, masks):
    oracle = TissueOracle(phantom, gap_rows=slice(-60, -40))
    out = segment_spine(phantom.volume, labels=labels_of(phantom), weights=fake_mask_model(oracle))
    heights = np.argwhere(masks.cord)[:, 2].min(), np.argwhere(out.cord)[:, 2].min()
    assert heights[1] - heights[0] > 20
    assert dice(out.canal > 0, masks.canal > 0) > 0.99


def test_a_canal_that_breaks_off_is_pointed_out(phantom, masks):
    assert masks.warnings == ()

    class Broken(TubeSeer):
        def predict(self, planes):
            maps = np.stack(super().predict(planes))
            middle = maps.shape[2] // 2
            maps[:, Tissue.FLUID, middle - 3 : middle + 3] = 0  # 6 mm: bridged, and yet not seen
            return list(maps)

    broken = segment_spine(phantom.volume, labels=labels_of(phantom), weights=fake_mask_model(Broken()))
    (gap,) = broken.warnings
    assert gap.startswith("the canal is not seen over 6 mm near (")


def test_labels_of_another_image_are_refused(phantom):
    grid = Grid((30, 40, 50), phantom.volume.grid.affine)
    labels = DiscLabels((Disc(5, phantom.discs[5], 1.0),), grid, 1.0)
    with pytest.raises(LabelsError, match="the labels are of another image"):
        segment_spine(phantom.volume, labels=labels, weights=fake_mask_model())


@pytest.mark.parametrize(("probability", "is_cord"), [(0.5, False), (0.54, False), (0.58, True), (0.8, True)])
def test_what_may_as_well_be_fluid_is_no_cord(probability, is_cord, phantom):
    class Undecided(TubeSeer):
        def predict(self, planes):
            maps = np.stack(super().predict(planes))
            tube = maps[:, Tissue.FLUID]
            maps[:, Tissue.CORD], maps[:, Tissue.FLUID] = (
                1.2 * probability * tube,
                1.2 * (1 - probability) * tube,
            )
            return list(maps)

    masks = segment_spine(phantom.volume, labels=labels_of(phantom), weights=fake_mask_model(Undecided()))
    assert masks.canal.any()
    assert bool(masks.cord.any()) is is_cord


def test_labels_without_a_disc_are_refused(phantom):
    labels = replace(labels_of(phantom), discs=())
    with pytest.raises(NoDiscsError, match="no disc from C2/C3"):
        segment_spine(phantom.volume, labels=labels, weights=fake_mask_model(TissueOracle(phantom)))
