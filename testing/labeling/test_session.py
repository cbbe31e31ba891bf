"""A session knows more than a series: one spine, whatever each image shows of it."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_model

from sct_deepspine import label_session
from sct_deepspine.errors import ImageError, NoDiscsError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.labeling.alignment import align_series, edge_plane
from sct_deepspine.labeling.counting import Counted, Variant
from sct_deepspine.labeling.levels import Candidates
from sct_deepspine.labeling.session import read_series
from sct_deepspine.labeling.spine import SessionDisc, Spine, discs_in_view
from sct_deepspine.labels import Disc, DiscLabels, VertebraCount
from sct_deepspine.spacing import SpacingPrior

DEPTH_MM = SpacingPrior().depth_mm(np.arange(1, 26))
SPINE = {value: np.array([0.0, 12.0, 340.0 - DEPTH_MM[value - 1] + DEPTH_MM[2]]) for value in range(3, 26)}
"""A straight spine of the usual proportions, C2/C3 at 340 mm."""

MODEL = fake_model()


def body(seed, low, high, *, shift=0.0, invert=False, step_mm=(4.0, 2.0, 2.0)):
    """Return an image of smooth structure that is the same wherever the same person is cut."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(0, 0.12, (60, 2)), rng.uniform(0, 2 * np.pi, 60)
    shape = (9, 61, round((high - low) / step_mm[2]))
    affine = np.diag([*step_mm, 1.0])
    affine[:3, 3] = -16, -60, low + shift
    _, y, z = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3).T
    world = np.stack([y * step_mm[1] - 60, z * step_mm[2] + low])
    grey = sum(np.sin(wave @ world + phase) for wave, phase in zip(*waves, strict=True)).reshape(shape)
    return Volume((-grey if invert else grey).astype(np.float32), Grid(shape, affine))


def in_view(volume, places=SPINE):
    """Return the places that an image shows."""
    grid = volume.grid
    return {v: p for v, p in places.items() if grid.contains_voxel(grid.voxel_from_world(p))[0]}


class Reader:
    """Labels images as a network would that sees each disc, and its level as well as it is told to.

    ``sure`` maps an image's lowest z to how sure it is of its levels; ``blind`` images show no spine, and in
    ``offset`` ones places lie off, mm.
    """

    def __init__(self, shift=None, sure=None, blind=(), offset=None, wrong=None):
        self.shift, self.sure, self.blind = shift or {}, sure or {}, blind
        self.offset, self.wrong = offset or {}, wrong or {}

    def __call__(self, volume, *, weights, anchor, assign):
        low = float(volume.grid.corners_world()[:, 2].min())
        if low in self.blind:
            raise NoDiscsError("no spine was found in the image")
        moved = np.array([0, 0, self.shift.get(low, 0.0)])
        places = {v: p + moved + [0, 0, self.offset.get(low, 0.0)] for v, p in SPINE.items()}
        shown = in_view(volume, places)
        sure, values = self.sure.get(low, 0.99), sorted(shown)
        level = np.full((len(values), 26), (1 - sure) / 25)
        off = self.wrong.get(low, 0)
        for row, value in enumerate(values):
            level[row, value - 1 + off] = sure
        candidates = Candidates(np.array([shown[v] for v in values]), np.full(len(values), 0.9), level, 1)
        found = assign(candidates, anchors={}, parameters=weights.parameters)
        values, probabilities = found.values, found.probabilities
        for value, point in (anchor or {}).items():
            nearest = np.linalg.norm(candidates.points[found.indices] - point, axis=1).argmin()
            values = values + value - values[nearest]
        discs = [
            Disc(int(v), candidates.points[k], float(p))
            for v, k, p in zip(values, found.indices, probabilities, strict=True)
        ]
        line = Centerline.from_points(np.array([[0, 0, z] for z in np.arange(low, low + 60, 5.0)]) + moved)
        confidence = 1.0 if anchor else sure if sure > 0.5 else 0.5
        return DiscLabels(tuple(discs), volume.grid, confidence, canal=line)


def values(session):
    return [labels.values.tolist() for labels in session.images]


TOP, MIDDLE = (200, 360), (60, 260)
"""World z of two overlapping images: discs 3 to 10, and 8 to 15."""


def test_an_image_that_can_not_tell_its_level_takes_it_from_the_one_beside_it():
    images = [body(1, *TOP), body(1, *MIDDLE, invert=True)]
    session = label_session(images, weights=MODEL, label=Reader(sure={60.0: 0.04}))
    assert values(session) == [sorted(in_view(image)) for image in images]
    assert min(labels.level_confidence for labels in session.images) > 0.9
    assert len(session.groups) == 1
    assert not any("rest on" in note.sentence for note in session.notes)  # no landmark was seen


@pytest.mark.parametrize("shift", [-14.0, -8.0, 5.0, 8.0, 14.0])
def test_a_person_who_moved_between_two_images_is_followed(shift):
    images = [body(1, *TOP), body(1, *MIDDLE, shift=shift, invert=True)]
    reader = Reader(shift={60.0 + shift: shift}, sure={60.0 + shift: 0.04})
    session = label_session(images, weights=MODEL, label=reader)
    moved = {v: p + np.array([0, 0, shift]) for v, p in SPINE.items()}
    assert values(session) == [sorted(in_view(images[0])), sorted(in_view(images[1], moved))]
    for disc in session.images[1].discs:
        np.testing.assert_allclose(disc.point_world, SPINE[disc.value] + [0, 0, shift], atol=2.0)
    assert any("the person moved" in note.sentence for note in session.notes)
    assert any("the person moved" in text for labels in session.images for text in labels.warnings)


def test_another_person_is_labelled_apart():
    images = [body(1, *TOP), body(2, *MIDDLE)]
    session = label_session(images, weights=MODEL, label=Reader(sure={60.0: 0.04}))
    assert len(session.groups) == 2
    assert session.images[1].level_confidence == 0.5
    assert any("do not show the same anatomy" in note.sentence for note in session.notes)


def test_an_image_that_is_sure_of_other_levels_is_labelled_apart():
    images = [body(1, *TOP), body(1, *MIDDLE)]
    session = label_session(images, weights=MODEL, label=Reader(wrong={60.0: 1}, sure={60.0: 0.95}))
    assert sorted(len(group) for group in session.groups) == [1, 1]
    assert any("confident levels that contradict" in note.sentence for note in session.notes)
    (apart,) = next(group for group in session.groups if len(group) == 1 and group != (0,))
    assert session.images[apart].level_confidence <= 0.5
    assert session.images[apart].confidence.max() <= 0.5
    assert session.images[1 - apart].level_confidence > 0.9


@pytest.mark.parametrize(
    ("least", "places", "confidence"), [(0.75, 0.7, 1.0), (0.65, 0.9, 1.0), (0.65, 0.7, 0.7), (1.0, 0.5, 0.7)]
)
def test_an_image_with_uncertain_discs_of_its_own_is_doubted_whatever_the_others_say(
    least, places, confidence
):
    image = body(1, *TOP)
    points = in_view(image)
    certain = {**dict.fromkeys(points, 1.0), 5: least}
    points[2] = points[3] + [0, 0, 19]  # a landmark that is hardly seen makes no disc doubtful
    certain[2] = 0.4
    discs = tuple(SessionDisc(value, {0: point}, certain[value]) for value, point in points.items())
    spine = Spine(discs, points, 1.0, "landmark", shift_mm={0: np.zeros(3)}, support={})
    alone = DiscLabels((), image.grid, 0.5, evidence={"places": places})
    assert discs_in_view(spine, 0, image, alone, MODEL).level_confidence == confidence


@pytest.mark.parametrize(("place", "confidence"), [(4, 0.8), (20, 1.0)])
def test_an_image_below_an_extra_vertebra_is_no_surer_than_the_count(place, confidence):
    image = body(1, *TOP)
    points = in_view(image)
    variant = Variant(25, place)
    discs = tuple(SessionDisc(value, {0: point}, 1.0, variant) for value, point in points.items())
    looked = variant.apparent(np.array([*points]))
    own = tuple(Disc(int(value), point, 1.0) for value, point in zip(looked, points.values(), strict=True))
    counted = Counted(VertebraCount(25, 0.9), variant, None)
    spine = Spine(discs, points, 0.8, "landmark", shift_mm={0: np.zeros(3)}, support={}, counted=counted)
    labels = discs_in_view(spine, 0, image, DiscLabels(own, image.grid, 1.0), MODEL)
    assert labels.level_confidence == confidence


def test_an_image_without_a_visible_disc_gets_those_of_the_session_in_its_view():
    images = [body(1, *TOP), body(1, 230, 300)]
    session = label_session(images, weights=MODEL, label=Reader(blind=(230.0,)))
    assert values(session)[1] == sorted(in_view(images[1]))
    assert all(disc.from_session for disc in session.images[1].discs)
    assert session.images[1].as_dict()["discs"][0]["from_session"] is True
    assert not any(disc.from_session for disc in session.images[0].discs)


def test_a_4d_series_is_read_as_the_mean_of_its_volumes():
    top = body(1, *TOP)
    stack = np.stack([top.data, top.data + 1], axis=-1)
    session = label_session([(stack, top.grid.affine)], weights=MODEL, label=Reader())
    assert session.images[0].grid.shape == top.grid.shape


def test_places_half_a_level_off_are_not_mixed_with_those_of_a_better_image():
    images = [body(1, *TOP), body(1, 190, 350, invert=True)]
    reader = Reader(offset={190.0: 8.5}, sure={190.0: 0.6})
    session = label_session(images, weights=MODEL, label=reader)
    for disc in session.images[1].discs:
        np.testing.assert_allclose(disc.point_world, SPINE[disc.value], atol=2.0)
    assert any("lie between those of the other images" in note.sentence for note in session.notes)


def test_images_far_apart_are_one_chain_with_levels_unseen_between():
    images = [body(1, 240, 360), body(1, -40, 100)]
    session = label_session(images, weights=MODEL, label=Reader(sure={-40.0: 0.04}))
    assert len(session.groups) == 1
    assert values(session) == [sorted(in_view(image)) for image in images]  # seven levels are in neither


def test_a_disc_that_a_person_told_in_one_image_holds_for_all():
    images = [body(1, *TOP), body(1, *MIDDLE)]
    reader = Reader(sure={60.0: 0.04, 200.0: 0.04})
    session = label_session(images, anchors={0: {6: SPINE[5]}}, weights=MODEL, label=reader)
    assert values(session) == [[value + 1 for value in sorted(in_view(image))] for image in images]


def test_a_session_without_images_or_without_a_spine_is_refused():
    with pytest.raises(ImageError, match="at least one image"):
        label_session([], weights=MODEL)
    with pytest.raises(NoDiscsError, match="in any of the 1 images"):
        label_session([body(1, *TOP)], weights=MODEL, label=Reader(blind=(200.0,)))


def test_one_image_alone_is_labelled_as_it_is():
    session = label_session([body(1, *TOP)], weights=MODEL, label=Reader())
    assert values(session) == [sorted(in_view(body(1, *TOP)))]
    assert session.notes == ()


# Alignment


@pytest.mark.parametrize(("anterior", "superior"), [(0, 0), (6, -15), (-9, 12), (3, 4.5)])
def test_the_shift_between_two_contrasts_is_found(anterior, superior):
    first = body(3, *TOP)
    second = body(3, 180, 340, invert=True)
    moved = np.eye(4)
    moved[:3, 3] = 0, anterior, superior
    line = Centerline.from_points([[0, 0, z] for z in np.arange(180, 360, 5.0)])
    planes = edge_plane(first, line), edge_plane(second.transformed(moved), line.transformed(moved))
    found = align_series(*planes)
    np.testing.assert_allclose(found.shift_mm, (-anterior, -superior), atol=1.5)
    assert found.support > 2


def test_images_that_do_not_overlap_can_not_be_aligned():
    line = Centerline.from_points([[0, 0, z] for z in np.arange(0, 360, 5.0)])
    planes = [edge_plane(body(3, low, low + 60), line) for low in (0, 200)]
    assert align_series(*planes) is None


def test_an_image_beside_the_canal_has_no_plane():
    line = Centerline.from_points([[500, 0, z] for z in np.arange(0, 360, 5.0)])
    assert edge_plane(body(3, *TOP), line) is None


def test_a_session_is_written_in_types_of_json():
    session = label_session([body(1, *TOP)], weights=MODEL, label=Reader())
    content = replace(session, notes=()).as_dict()
    assert content["groups"] == [[0]]
    assert content["spine"][0]["name"] == "C2/C3"
    assert list(content["spine"][0]["world_mm"]) == ["0"]


def test_the_candidates_of_a_series_are_those_of_the_image_as_it_is(painted):
    turned = Volume(painted.data[:, :, ::-1], painted.grid)
    for volume in (painted, turned):
        reading = read_series(volume, MODEL)
        apart = reading.labels.points_world[:, None] - reading.candidates.points
        assert np.linalg.norm(apart, axis=2).min(axis=1).max() < 1


def test_levels_of_a_person_that_an_image_contradicts_are_doubted_in_all_images():
    images = [body(1, *TOP), body(1, *MIDDLE)]
    session = label_session(images, anchors={0: {6: SPINE[5]}}, weights=MODEL, label=Reader())
    assert values(session) == [[value + 1 for value in sorted(in_view(image))] for image in images]
    for labels in session.images:
        assert max(labels.level_confidence, labels.confidence.max()) <= 0.5
    (note,) = [note for note in session.notes if "the given levels contradict image 2" in note.sentence]
    assert note.sentence in session.images[1].warnings


def test_levels_of_a_person_that_all_images_agree_with_are_certain():
    images = [body(1, *TOP), body(1, *MIDDLE)]
    session = label_session(images, anchors={0: {5: SPINE[5]}}, weights=MODEL, label=Reader())
    assert min(labels.level_confidence for labels in session.images) > 0.9
    assert not any("contradict" in note.sentence for note in session.notes)
    assert any("the levels of image 2 rest on image 1" in note.sentence for note in session.notes)


def test_without_a_landmark_no_disc_of_a_session_is_surer_than_its_levels_may_be():
    reader = Reader(sure={150.0: 0.4, 60.0: 0.4})

    def read(volume, **options):
        return replace(reader(volume, **options), warnings=("give the level of one disc",))

    session = label_session([body(1, 150, 330), body(1, *MIDDLE)], weights=MODEL, label=read)
    for labels in session.images:
        assert labels.view == "no_landmark"
        assert 0.5 < labels.confidence.max() <= 0.7
        assert "give the level of one disc" in labels.warnings
