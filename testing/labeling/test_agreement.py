"""Readings of a changed view, with networks whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import PaintReader
from scipy.ndimage import gaussian_filter

from sct_deepspine.geometry.volume import DeobliquedVolume
from sct_deepspine.labeling.agreement import CHANGES, agreement, landmark_support, read_again
from sct_deepspine.labeling.canal import coarse_view, find_centerline
from sct_deepspine.labeling.candidates import find_candidates, predict_midsagittal
from sct_deepspine.labeling.evidence import gather_evidence
from sct_deepspine.labeling.levels import Candidates, assign_levels, best_path


@pytest.fixture(scope="module")
def seen(painted):
    """What the coarse stage sees of the phantom: prediction, canal, volume, candidates, assignment."""
    view, reader = DeobliquedVolume.of(painted), PaintReader()
    coarse = coarse_view(view, reader)
    canal = find_centerline(coarse, reader)
    prediction = predict_midsagittal(coarse, canal, reader)
    candidates = find_candidates(prediction, canal, view.volume)
    return prediction, canal, view.volume, candidates, assign_levels(candidates)


def read(seen, changes, reader=None):
    prediction, canal, volume, candidates, assignment = seen
    readings = read_again(
        prediction, canal, volume, reader or PaintReader(), candidates=candidates, decode=best_path,
        changes=changes,
    )  # fmt: skip
    points = candidates.points[assignment.indices]
    return readings, agreement(readings, prediction, points, assignment.values, landmarks=(3, 25))


def same(image, pixel_mm):
    return image


def test_a_reading_of_the_same_plane_agrees(seen):
    _, agreed = read(seen, {"same": same})
    assert agreed.levels == 1.0
    assert agreed.places == 1.0
    assert (agreed.discs == 1.0).all()


def shifted_levels(maps):
    return replace(maps, level=np.roll(maps.level, 1, axis=0))


def test_other_levels_at_the_same_places_are_a_disagreement_about_levels_only(seen):
    _, agreed = read(seen, {"same": same}, PaintReader(edit=shifted_levels))
    assert agreed.levels == 0.0
    assert agreed.places == 1.0


def test_half_a_level_off_is_a_disagreement_about_places(seen):
    def half_a_level_down(image, pixel_mm):
        rows = round(9 / pixel_mm)
        out = np.zeros_like(image)
        out[rows:] = image[:-rows]
        return out

    _, agreed = read(seen, {"moved": half_a_level_down})
    assert agreed.places < 0.3
    assert agreed.levels == 0.0


def plane_of(rows, columns=9, *, empty=2):
    """Return a plane of distinct grey values with a few empty rows and columns about it."""
    grey = np.random.default_rng(3).normal(1.0, 0.4, (rows, columns)).astype(np.float32)
    return np.pad(grey, empty), np.pad(np.ones((rows, columns), bool), empty)


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_grey_values_are_raised_to_a_power_within_the_image(exponent):
    image, inside = plane_of(30)
    changed = CHANGES[f"gamma {exponent:g}"](image, 2.0)
    grey = image[inside]
    expected = ((grey - grey.min()) / np.ptp(grey)) ** exponent
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(changed[inside], expected, atol=1e-4)
    assert (changed[~inside] == 0).all()
    assert changed.dtype == np.float32


def test_an_empty_plane_stays_as_it_is():
    empty = np.zeros((12, 7), np.float32)
    assert (CHANGES["gamma 2"](empty, 2.0) == empty).all()


@pytest.mark.parametrize(
    ("rows", "pixel_mm", "cut"), [(100, 2.5, 10), (100, 5.0, 5), (30, 2.5, 6), (3, 2.5, 1)]
)
def test_25_mm_or_a_fifth_of_the_image_is_cut_off_at_either_end(rows, pixel_mm, cut):
    image, _ = plane_of(rows)
    above, below = (CHANGES[name](image, pixel_mm) for name in ("cut above", "cut below"))
    assert (above[: 2 + cut] == 0).all()
    assert (above[2 + cut :] == image[2 + cut :]).all()
    assert (below[2 + rows - cut :] == 0).all()
    assert (below[: 2 + rows - cut] == image[: 2 + rows - cut]).all()


def test_blur_does_not_mix_in_what_lies_outside():
    image, inside = plane_of(40, 30)
    blurred = CHANGES["blurred"](image, 1.0)
    assert (blurred[~inside] == 0).all()
    middle = np.zeros_like(inside)
    middle[12:-12, 12:-12] = True
    np.testing.assert_allclose(blurred[middle], gaussian_filter(image, 1.0)[middle], atol=1e-4)
    flat = CHANGES["blurred"](np.where(inside, 3, 0).astype(np.float32), 1.0)
    np.testing.assert_allclose(flat[inside], 3, atol=1e-4)


def test_discs_that_were_cut_off_are_not_missed(seen):
    readings, agreed = read(seen, {"cut above": CHANGES["cut above"], "cut below": CHANGES["cut below"]})
    assert all((~reading.shown).sum() > 5 for reading in readings)
    assert agreed.places == 1.0


def test_a_disc_that_one_reading_does_not_find_is_told(seen):
    prediction, _, _, candidates, assignment = seen
    row = int(prediction.plane.pixel_from_world(candidates.points[assignment.indices[4:5]])[0, 0])

    def without_one(image, pixel_mm):
        out = image.copy()
        out[row - 4 : row + 5] = np.minimum(out[row - 4 : row + 5], np.median(image[image != 0]))
        return out

    _, agreed = read(seen, {"same": same, "without": without_one})
    least = int(agreed.discs.argmin())
    assert agreed.discs[least] == 0.5
    assert np.delete(agreed.discs, least).min() == 1.0


def test_a_landmark_is_supported_by_how_probable_readings_find_it(seen):
    prediction, _, _, candidates, assignment = seen
    index, value = int(assignment.indices[0]), int(assignment.values[0])
    sure, _ = read(seen, {"same": same})
    other, _ = read(seen, {"same": same}, PaintReader(edit=shifted_levels))
    support = [
        landmark_support(readings, prediction, candidates, [index], values=[value])
        for readings in (sure, [*sure, *other], other)
    ]
    assert support == pytest.approx([1.0, 0.5, 0.0], abs=0.05)
    assert landmark_support(sure, prediction, candidates, [], values=[]) == 0.0


def test_evidence_counts_what_no_disc_was_made_of(seen):
    prediction, _, _, candidates, _ = seen
    readings, _ = read(seen, {"same": same})
    last = len(candidates.score) - 1
    part = assign_levels(candidates, anchors={0: 25})  # nothing can follow the last level
    evidence = gather_evidence(
        replace(part, values=np.array([20]), indices=np.array([0])),
        candidates,
        prediction=prediction,
        readings=readings,
        landmarks=(3, 25),
    )
    assert evidence.unused == last
    assert evidence.beyond == candidates.score[1:].max()
    assert evidence.between == 0.0


def test_evidence_holds_how_changed_readings_agree(seen):
    prediction, _, _, candidates, assignment = seen
    first, *others = assignment.values.tolist()

    def evidence(readings, **options):
        words = {"prediction": prediction, "readings": readings, "landmarks": (first,)} | options
        return gather_evidence(assignment, candidates, **words)

    alike, _ = read(seen, {"same": same})
    shifted, _ = read(seen, {"same": same}, PaintReader(edit=shifted_levels))
    sure, doubtful = evidence(alike), evidence(shifted)
    assert (sure.levels, sure.places) == (1.0, 1.0)
    assert sure.landmark == pytest.approx(1.0, abs=0.05)
    assert list(sure.again) == others
    assert doubtful.levels < 0.5
    assert doubtful.landmark == pytest.approx(0.0, abs=0.05)
    assert evidence(alike, landmarks=()).landmark == 0.0
    # Without readings, or without what they are compared with, nothing is told of agreement.
    for options in ({"readings": ()}, {"prediction": None}):
        assert evidence(**({"readings": alike} | options)).again == {}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_leave_what_is_outside_and_the_plane_alone(name):
    image = np.random.default_rng(0).normal(0, 1, (60, 40)).astype(np.float32)
    image[:8] = 0
    before = image.copy()
    changed = CHANGES[name](image, 2.0)
    np.testing.assert_array_equal(image, before)
    assert changed.dtype == np.float32
    assert changed.shape == image.shape
    assert (changed[:8] == 0).all()
    assert not np.array_equal(changed, image)
    assert (changed[25:40] != 0).all()


def test_a_reading_that_does_not_show_a_landmark_says_nothing_of_it(seen):
    prediction, _, _, candidates, assignment = seen
    index, value = int(assignment.indices[0]), int(assignment.values[0])
    row = int(prediction.plane.pixel_from_world(candidates.points[index][None])[0, 0])

    def without_it(image, pixel_mm):
        out = image.copy()
        out[: row + 1] = 0
        return out

    shown, _ = read(seen, {"same": same})
    hidden, _ = read(seen, {"without": without_it}, PaintReader(edit=shifted_levels))
    support = [
        landmark_support(readings, prediction, candidates, [index], values=[value])
        for readings in ([*shown, *hidden], hidden)
    ]
    assert support == pytest.approx([1.0, 0.0], abs=0.05)


def test_other_levels_of_discs_are_a_disagreement_also_where_the_landmarks_are_the_same(seen):
    prediction, canal, volume, candidates, assignment = seen
    landmarks = assignment.values[[0, -1]].tolist()

    def discs_shifted(again):
        path = best_path(again)
        return replace(path, values=np.where(np.isin(path.values, landmarks), path.values, path.values + 1))

    readings = read_again(
        prediction, canal, volume, PaintReader(), candidates=candidates, decode=discs_shifted,
        changes={"same": same},
    )  # fmt: skip
    points = candidates.points[assignment.indices]
    agreed = agreement(readings, prediction, points, assignment.values, landmarks=landmarks)
    assert (agreed.levels, agreed.places) == (0.0, 1.0)


def test_what_a_reading_finds_besides_is_put_in_its_place_along_the_spine(seen):
    *scene, candidates, _ = seen
    kept = np.delete(np.arange(len(candidates.score)), 4)
    fewer = Candidates(candidates.points[kept], candidates.score[kept], candidates.level[kept], 3)
    (reading,), _ = read((*scene, fewer, assign_levels(fewer)), {"same": same})
    np.testing.assert_allclose(reading.refined.points, candidates.points, atol=0.1)
    np.testing.assert_allclose(reading.refined.score, candidates.score, atol=0.01)
    assert reading.refined.level[4].argmax() == candidates.level[4].argmax()
