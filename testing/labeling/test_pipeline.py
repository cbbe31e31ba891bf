import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from fakes import PaintReader, SctLikeImage, fake_model, paint_truth
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat

from sct_deepspine import DiscLabels, label_discs
from sct_deepspine.errors import (
    AnchorError,
    DeepSpineError,
    ImageError,
    NoDiscsError,
    RequestError,
    UncertainError,
)
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.straightening import ComposedSpace, StraightSpace
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.anchors import anchor_at_slice
from sct_deepspine.labeling.heatmaps import DiscCodec, DiscMaps
from sct_deepspine.labeling.pipeline import straighten
from sct_deepspine.reporting.figures import write_png
from sct_deepspine.simulation.phantom import make_phantom
from sct_deepspine.spacing import fill_skipped

FINE = DiscCodec(stride=2, sigma_cells=1.5)
ORIENTATIONS = [
    np.column_stack([axes, flips])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def nifti(volume):
    return nib.Nifti1Image(volume.data, volume.grid.affine)


def errors_mm(labels, scan):
    assert labels.values.tolist() == sorted(scan.discs)
    return np.array([np.linalg.norm(d.point_world - scan.discs[d.value]) for d in labels.discs])


def corrupt(**edits):
    """Return an edit of maps that changes some of them."""
    return lambda maps: replace(maps, **{name: edit(getattr(maps, name)) for name, edit in edits.items()})


def never(maps):
    return np.zeros_like(maps)


# The whole path


def test_the_discs_of_a_phantom_are_found_with_their_levels(phantom, painted):
    model = fake_model()
    labels = label_discs(painted, weights=model)
    assert errors_mm(labels, phantom).max() < 0.5
    assert not labels.interpolated.any()
    assert labels.level_confidence > 0.99
    assert (labels.confidence > 0.9).all()
    assert labels.warnings == ()
    assert dict(labels.weights) == model.identity
    assert labels.prediction is None


def test_the_fine_look_brings_them_nearer(phantom, painted):
    def smear(maps):
        """Move every peak by one cell of 4 mm."""
        return np.roll(maps, 1, axis=-2)

    coarse = PaintReader(edit=corrupt(any_disc=smear, level=smear))
    model = fake_model(coarse)
    assert errors_mm(label_discs(painted, weights=model), phantom).min() > 3
    model = fake_model(coarse, PaintReader(1.0, FINE))
    assert errors_mm(label_discs(painted, weights=model), phantom).max() < 0.5


@pytest.mark.parametrize("sees", [True, False])
def test_a_network_of_its_own_may_find_the_canal_and_the_coarse_one_looks_where_it_does_not(
    sees, phantom, painted
):
    finder = PaintReader(4.0) if sees else PaintReader(4.0, edit=corrupt(canal=never))
    model = fake_model(refine=PaintReader(1.0, FINE), canal=finder)
    assert errors_mm(label_discs(painted, weights=model), phantom).max() < 0.5
    blind = PaintReader(edit=corrupt(canal=never))
    with pytest.raises(NoDiscsError, match="no spine was found"):
        label_discs(painted, weights=replace(model, locate=blind))


@pytest.mark.parametrize(("first", "last", "seed"), [(3, 25, 2), (17, 25, 3), (8, 20, 4)])
def test_any_view_of_the_spine_is_labelled(first, last, seed):
    rng = np.random.default_rng(seed)
    scan = make_phantom(rng, first=first, last=last, voxel_mm=(5.0, 2.5, 2.5))
    model = fake_model(refine=PaintReader(1.0, FINE))
    assert errors_mm(label_discs(paint_truth(scan), weights=model), scan).max() < 0.8


@pytest.fixture(scope="module")
def plain_points(painted):
    """The discs found in the image as it is."""
    return label_discs(painted, weights=fake_model(refine=PaintReader(1.0, FINE))).points_world


@pytest.mark.parametrize("ornt", ORIENTATIONS, ids=lambda ornt: "".join(nib.orientations.ornt2axcodes(ornt)))
def test_the_same_discs_are_found_in_all_48_orientations(ornt, phantom, painted, plain_points):
    model = fake_model(refine=PaintReader(1.0, FINE))
    image = nifti(painted).as_reoriented(ornt)
    labels = label_discs(image, weights=model)
    assert errors_mm(labels, phantom).max() < 0.5
    np.testing.assert_allclose(labels.points_world, plain_points, atol=0.1)
    found = labels.to_image()
    assert found.shape == image.shape
    np.testing.assert_array_equal(found.affine, image.affine)
    world = Grid(found.shape, found.affine).world_from_voxel(np.argwhere(found.get_fdata()))
    nearest = np.linalg.norm(world[:, None] - labels.points_world, axis=2).min(axis=1)
    assert len(nearest) == len(labels.discs)
    assert nearest.max() <= np.linalg.norm(painted.grid.spacing_mm) / 2 + 1e-6


def turned(degrees):
    """Return a turn of the world about its vertical and its transverse axis, ``(4, 4)``."""
    angle = np.radians(degrees)
    return from_matvec(euler2mat(z=angle, x=-angle), [3, -20, 15])


@pytest.mark.parametrize("degrees", [5, 20])
def test_oblique_slices_have_the_discs_of_straight_ones(degrees, painted, plain_points):
    model = fake_model(refine=PaintReader(1.0, FINE))
    turn = turned(degrees)
    labels = label_discs(painted.transformed(turn), return_maps=True, weights=model)
    np.testing.assert_allclose(labels.points_world, apply_affine(turn, plain_points), atol=0.05)
    # The plane is where the discs are: tips lie near it, and the picture shows them there.
    rows, columns = np.round(labels.prediction.plane.pixel_from_world(labels.points_world)).astype(int).T
    nearest = labels.prediction.plane.points_world[rows, columns]
    assert np.linalg.norm(nearest - labels.points_world, axis=1).max() < labels.prediction.plane.pixel_mm


def test_what_is_told_of_an_oblique_image_is_told_in_the_world(phantom, painted, plain_points):
    model = fake_model(refine=PaintReader(1.0, FINE))
    turn = turned(15)
    image = painted.transformed(turn)
    line = Centerline.from_points(phantom.centerline_world)
    space = ComposedSpace(StraightSpace(line), turn)
    there = apply_affine(turn, plain_points)
    anchor = 5, there[2]
    for told in (
        {"centerline": line.transformed(turn)},
        {"straight": line.transformed(turn)},
        {"straight": space},
    ):
        labels = label_discs(image, anchor=anchor, **told, weights=model)
        assert labels.values.tolist() == sorted(phantom.discs)
        np.testing.assert_allclose(labels.points_world, there, atol=1.0)


@pytest.mark.parametrize("degrees", [0, 20])
def test_a_slice_number_means_the_slice_however_it_is_tilted(degrees, phantom, painted):
    model = fake_model()
    # The spine is far behind the middle, so that a tilted slice is much lower there than in the middle.
    data = np.pad(painted.data, [(0, 0), (0, 80), (0, 0)])
    image = Volume(data, Grid(data.shape, painted.grid.affine)).transformed(turned(degrees))
    slice_index = round(float(painted.grid.voxel_from_world(phantom.discs[6])[0, 2]))
    labels = label_discs(image, anchor=anchor_at_slice(9, slice_index, image), weights=model)
    assert labels.values.tolist() == [value + 3 for value in sorted(phantom.discs)]


def test_tilted_axial_slices_have_the_same_discs(phantom):
    # Turned by 8 degrees about two axes, with other voxels, about the same middle.
    grid = phantom.volume.grid
    turn = turned(8)[:3, :3]
    spacing = np.array([1.1, 1.7, 3.0])
    shape = tuple(int(n) for n in np.array(grid.shape) * grid.spacing_mm / spacing)
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = grid.middle_world - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    tilted = replace(phantom, volume=Volume(np.empty(shape), Grid(shape, affine)))
    model = fake_model()
    assert errors_mm(label_discs(paint_truth(tilted), weights=model), phantom).max() < 0.6


@pytest.mark.parametrize("kind", ["path", "nibabel", "pair", "sct"])
def test_every_kind_of_image_has_the_same_discs(kind, phantom, painted, painted_file):
    model = fake_model()
    image = {
        "path": painted_file,
        "nibabel": nib.load(painted_file),
        "pair": (painted.data, painted.grid.affine),
        "sct": SctLikeImage(painted.data.copy(), painted.grid.affine),
    }[kind]
    labels = label_discs(image, weights=model)
    assert errors_mm(labels, phantom).max() < 0.5
    data = {
        "path": lambda: labels.to_image().get_fdata(),
        "nibabel": lambda: labels.to_image().get_fdata(),
        "pair": lambda: labels.to_image()[0],
        "sct": lambda: labels.to_image().data,
    }[kind]()
    assert data.shape == painted.data.shape
    assert sorted(data[data > 0].tolist()) == sorted(phantom.discs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float64])
def test_voxels_of_any_type_have_the_same_discs(dtype, phantom, painted):
    model = fake_model()
    scale = 250 if dtype is np.uint8 else 30_000
    image = (np.round(painted.data * scale).astype(dtype), painted.grid.affine)
    assert errors_mm(label_discs(image, weights=model), phantom).max() < 0.5


def test_the_image_is_not_altered(painted):
    model = fake_model(refine=PaintReader(1.0, FINE))
    image = nifti(painted)
    header = image.header.copy()
    sct = SctLikeImage(painted.data.copy(), painted.grid.affine)
    for source in (image, sct, painted):
        label_discs(source, return_maps=True, weights=model).to_image()
    np.testing.assert_array_equal(image.get_fdata(), painted.data)
    assert image.header == header
    np.testing.assert_array_equal(sct.data, painted.data)


def test_labelling_twice_gives_the_same(painted):
    model = fake_model()
    one, other = label_discs(painted, weights=model), label_discs(painted, weights=model)
    assert one.to_json() == other.to_json()


def cut_near(volume, tip, side, margin_mm):
    """End the image a little beyond a disc."""
    grid = volume.grid
    place = grid.voxel_from_world(tip)[0, 2]
    if side == "top":
        return volume.data[:, :, : round(place + margin_mm / grid.spacing_mm[2]) + 1], grid.affine
    first = round(place - margin_mm / grid.spacing_mm[2])
    affine = np.array(grid.affine)
    affine[:3, 3] = grid.world_from_voxel([0, 0, first])[0]
    return volume.data[:, :, first:], affine


@pytest.mark.parametrize("margin_mm", [1.5, 3.0, 6.0])
@pytest.mark.parametrize(("value", "side"), [(3, "top"), (10, "bottom")])
def test_a_disc_near_the_images_end_is_labelled(value, side, margin_mm, phantom, painted):
    model = fake_model()
    labels = label_discs(cut_near(painted, phantom.discs[value], side, margin_mm), weights=model)
    assert errors_mm(labels, phantom).max() < 2.5


# What the decoding owes to order


def swapped_at(value, other):
    """Swap the channels of two levels around the disc of the first."""

    def edit(maps):
        level = maps.level.copy()
        a, b = value - 3, other - 3
        here = maps.heat[a] > 0.3
        level[[a, b]] = np.where(here, level[[b, a]], level[[a, b]])
        return DiscMaps(maps.any_disc, level, maps.canal)

    return edit


@pytest.mark.parametrize(("value", "other"), [(6, 7), (5, 8), (3, 25), (10, 9)])
def test_one_disc_whose_level_is_predicted_wrongly_follows_the_others(value, other, phantom, painted):
    model = fake_model()
    plain = label_discs(painted, weights=model)
    model = fake_model(PaintReader(edit=swapped_at(value, other)))
    labels = label_discs(painted, weights=model)
    assert errors_mm(labels, phantom).max() < 0.5
    np.testing.assert_allclose(labels.points_world, plain.points_world, atol=1e-6)


def faint_at(value):
    """Leave out the disc of a value."""

    return lambda maps: replace(maps, any_disc=np.delete(maps.heat, value - 3, axis=0).max(axis=0))


def test_a_disc_that_was_not_seen_is_filled_in_and_flagged(phantom, painted):
    model = fake_model(PaintReader(edit=faint_at(6)))
    labels = label_discs(painted, weights=model)
    assert errors_mm(labels, phantom).max() < 4
    assert labels.values[labels.interpolated].tolist() == [6]
    assert any("not seen" in sentence and "C5/C6" in sentence for sentence in labels.warnings)
    assert labels.confidence[labels.interpolated] < labels.confidence[~labels.interpolated].min()
    values, points, _ = fill_skipped(
        labels.points_world[~labels.interpolated], labels.values[~labels.interpolated]
    )
    np.testing.assert_allclose(points, labels.points_world, atol=1e-6)
    assert values.tolist() == labels.values.tolist()


def test_levels_that_are_not_seen_are_uncertain_and_the_warning_says_what_to_do():
    model = fake_model(PaintReader(edit=corrupt(level=lambda level: np.full_like(level, 1 / 23))))
    thorax = make_phantom(np.random.default_rng(5), first=10, last=15, voxel_mm=(5.0, 2.5, 2.5))
    labels = label_discs(paint_truth(thorax), weights=model)
    assert labels.level_confidence < 0.5
    (sentence,) = [s for s in labels.warnings if "probability" in s]
    assert "neither the dens nor S1/S2 is in view" in sentence
    assert "give the level of one disc" in sentence
    assert "\n" not in sentence


def test_labels_less_certain_than_asked_for_are_refused(painted):
    model = fake_model(PaintReader(edit=corrupt(level=lambda level: np.full_like(level, 1 / 23))))
    with pytest.raises(UncertainError, match=r"less certain than asked for \(0\.\d\d < 0\.9\)"):
        label_discs(painted, weights=model, min_confidence=0.9)
    assert label_discs(painted, weights=fake_model(), min_confidence=0.9).level_confidence >= 0.9


# Anchors


def test_an_anchor_that_contradicts_the_image_is_pointed_out(painted, phantom):
    labels = label_discs(painted, anchor=(4, phantom.discs[3]), weights=fake_model())
    assert labels.values.tolist() == [value + 1 for value in sorted(phantom.discs)]
    (sentence,) = [s for s in labels.warnings if "contradicts the image" in s]
    assert "without it this disc is 3 (C2/C3)" in sentence
    assert labels.level_confidence <= 0.5
    agreeing = label_discs(painted, anchor=(3, phantom.discs[3]), weights=fake_model())
    assert not any("contradicts" in s for s in agreeing.warnings)
    assert agreeing.level_confidence > 0.9


def test_anchors_that_contradict_the_count_say_so(painted, phantom):
    anchors = {3: phantom.discs[3], 10: phantom.discs[9]}
    labels = label_discs(painted, anchor=anchors, weights=fake_model())
    (sentence,) = [s for s in labels.warnings if "vertebra may be extra or missing" in s]
    assert "5 discs are seen, 6 are expected" in sentence
    assert labels.level_confidence <= 0.5


def test_an_anchor_far_from_the_spine_is_refused(painted, phantom):
    corner = painted.grid.world_from_voxel([1, 1, 1])[0]
    with pytest.raises(AnchorError, match=r"mm from the spine that was found"):
        label_discs(painted, anchor=(3, corner), weights=fake_model())


def test_an_anchor_that_leaves_most_discs_without_a_label_is_refused(painted, phantom):
    # Below L5/S1 there is no level left for the other seven discs.
    with pytest.raises(AnchorError, match=r"does not fit the image: with it \d of \d discs can be labelled"):
        label_discs(painted, anchor=(25, phantom.discs[3]), weights=fake_model())


@pytest.mark.parametrize(("at", "shift"), [(5, 1), (10, 1), (7, 0), (3, 3), (10, 15)])
def test_an_anchor_shifts_every_disc(at, shift, painted, phantom):
    model = fake_model()
    labels = label_discs(painted, anchor=(at + shift, phantom.discs[at]), weights=model)
    assert labels.values.tolist() == [value + shift for value in sorted(phantom.discs)]
    np.testing.assert_allclose(
        labels.points_world, [phantom.discs[value] for value in sorted(phantom.discs)], atol=0.5
    )


def test_where_an_anchor_leaves_no_level_for_the_upper_discs_they_are_left_out(painted, phantom):
    model = fake_model()
    labels = label_discs(painted, anchor=(4, phantom.discs[6]), weights=model)
    assert labels.values.tolist() == [3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(labels.points_world[0], phantom.discs[5], atol=0.5)


def test_a_height_is_enough_for_an_anchor(painted, phantom):
    model = fake_model()
    labels = label_discs(painted, anchor={9: (np.nan, np.nan, phantom.discs[7][2] + 3)}, weights=model)
    assert labels.values.tolist() == [value + 2 for value in sorted(phantom.discs)]


def test_an_anchor_brings_back_a_disc_that_was_not_seen(painted, phantom):
    model = fake_model(PaintReader(edit=faint_at(6)))
    labels = label_discs(painted, anchor={6: phantom.discs[6]}, weights=model)
    assert errors_mm(labels, phantom).max() < 0.5
    assert not labels.interpolated.any()


def test_anchors_that_hold_no_order_are_refused(painted, phantom):
    model = fake_model()
    with pytest.raises(AnchorError):
        label_discs(painted, anchor={8: phantom.discs[5], 5: phantom.discs[8]}, weights=model)
    with pytest.raises(AnchorError, match="give a disc from 3"):
        label_discs(painted, anchor=(1, phantom.discs[3]), weights=model)
    with pytest.raises(AnchorError):
        label_discs(painted, anchor=(8, (0, 0)), weights=model)


# A centreline that is known


def test_a_given_centreline_or_cord_replaces_the_search(phantom, painted):
    model = fake_model(PaintReader(edit=corrupt(canal=never)))
    with pytest.raises(NoDiscsError):
        label_discs(painted, weights=model)
    grid, line = phantom.volume.grid, phantom.centerline_world
    mask = np.zeros(grid.shape, np.uint8)
    index = np.round(grid.voxel_from_world(line)).astype(int)
    mask[tuple(np.clip(index, 0, np.array(grid.shape) - 1).T)] = 1
    finer = Volume(np.repeat(mask, 2, axis=0), Grid((24, *grid.shape[1:]), grid.affine @ halved()))
    for known in (
        {"centerline": line},
        {"centerline": Centerline.from_points(line)},
        {"seg": (mask, grid.affine)},
        {"seg": finer},
    ):
        labels = label_discs(painted, **known, weights=model)
        assert errors_mm(labels, phantom).max() < 3  # the mask is no more exact than its voxels of 4 mm
    assert errors_mm(label_discs(painted, centerline=line, weights=model), phantom).max() < 0.5


def halved():
    """Voxels of half the width, the first two in the place of the first one."""
    affine = np.diag([0.5, 1, 1, 1])
    affine[0, 3] = -0.25
    return affine


def test_an_empty_cord_mask_is_refused(painted):
    model = fake_model()
    with pytest.raises(ImageError, match="mask is empty"):
        label_discs(painted, seg=(np.zeros(painted.data.shape), painted.grid.affine), weights=model)


# Nothing there


def test_an_image_without_a_spine_is_refused(phantom):
    model = fake_model()
    with pytest.raises(NoDiscsError, match="no spine was found"):
        label_discs(paint_truth(phantom, discs=False, canal=False), weights=model)
    with pytest.raises(NoDiscsError, match="no disc was found"):
        label_discs(paint_truth(phantom, discs=False), weights=model)


def test_a_reading_below_the_least_score_is_refused_unless_anchored(painted, phantom):
    model = fake_model(minimum_score=1e6)
    with pytest.raises(NoDiscsError, match=r"score .* 1000000\.00 needed"):
        label_discs(painted, weights=model)
    assert len(label_discs(painted, anchor=(5, phantom.discs[5]), weights=model).discs) == len(phantom.discs)


@pytest.mark.parametrize("image", ["lost.nii.gz", None, (np.zeros((4, 5, 6)), np.eye(4))], ids=str)
def test_errors_are_of_one_family_and_one_line(image):
    model = fake_model()
    with pytest.raises(DeepSpineError) as error:
        label_discs(image, weights=model)
    assert "\n" not in str(error.value)


def test_two_discs_that_were_refined_to_one_place_do_not_break_the_labelling(phantom, painted):
    # The coarse network draws C5/C6 (6) close to C4/C5 (5), and the fine one sees the latter only.
    model = fake_model(PaintReader(edit=doubled), PaintReader(1.0, FINE, edit=faint_at(6)))
    labels = label_discs(painted, weights=model)
    assert isinstance(labels, DiscLabels)
    assert len({tuple(point) for point in labels.points_world}) == len(labels.discs)


def doubled(maps):
    """Draw C4/C5 (5) one cell of 4 mm too high and C5/C6 (6) two cells below its place."""
    heat = maps.heat.copy()
    heat[3], heat[2] = np.roll(heat[2], 2, axis=0), np.roll(heat[2], -1, axis=0)
    level = (heat + 1e-6) / (heat + 1e-6).sum(axis=0)
    return DiscMaps(heat.max(axis=0), level, maps.canal)


# Odd anatomy, and what was seen


def test_a_gap_in_the_spacing_is_told(phantom):
    tips = {v: tip - [0, 0, 14 * (v > 6)] for v, tip in phantom.discs.items() if v < 10}
    model = fake_model()
    labels = label_discs(paint_truth(replace(phantom, discs=tips)), weights=model)
    assert labels.values.tolist() == sorted(tips)
    assert any("C5/C6 and C6/C7 are" in sentence for sentence in labels.warnings)


def test_what_the_network_saw_comes_back_on_request(painted):
    model = fake_model()
    prediction = label_discs(painted, return_maps=True, weights=model).prediction
    assert prediction.image.shape == prediction.plane.shape
    assert prediction.maps.any_disc.shape == tuple(-(-n // 2) for n in prediction.plane.shape)
    assert prediction.attention.shape == prediction.maps.any_disc.shape


def test_a_picture_needs_what_the_network_saw(painted, tmp_path):
    model = fake_model()
    with pytest.raises(DeepSpineError, match="return_maps=True"):
        write_png(label_discs(painted, weights=model), tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


# Real scans


def test_an_anchor_outside_the_image_is_refused(painted):
    model = fake_model()
    with pytest.raises(AnchorError, match=r"anchor 5: \(0, 0, 9000\) mm lies outside the image"):
        label_discs(painted, anchor=(5, (0.0, 0.0, 9000.0)), weights=model)


def test_levels_that_are_refused_come_with_what_to_do(painted):
    with pytest.raises(UncertainError, match=r"asked for \(.* < 1\): \w"):
        label_discs(painted, weights=fake_model(), min_confidence=1.0)


def test_a_canal_is_given_or_found_by_a_function(phantom, painted):
    def find(*_args, **_options):
        raise AssertionError("the canal is given")

    with pytest.raises(RequestError, match="find_canal, not both"):
        label_discs(painted, centerline=phantom.centerline_world, find_canal=find, weights=fake_model())
    canal = Centerline.from_points(phantom.centerline_world)
    with pytest.raises(RequestError, match="expected straight to be"):
        straighten(DeobliquedVolume.of(painted), canal, "foo")
    with pytest.raises(RequestError, match="seg or centerline, not both"):
        label_discs(painted, seg=painted, centerline=phantom.centerline_world, weights=fake_model())
