"""What is odd is named, with its place."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import PaintReader, fake_model

from sct_deepspine import label_discs
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.geometry.planes import sagittal_plane
from sct_deepspine.geometry.volume import DeobliquedVolume, Volume
from sct_deepspine.labeling.heatmaps import DiscCodec, DiscMaps, PlanePrediction
from sct_deepspine.labeling.notes import _ambiguous_sacrum, _leaving
from sct_deepspine.labeling.pipeline import _doubts
from sct_deepspine.labels import Disc, Note


def kinds(labels):
    return [note.kind for note in labels.notes]


def test_a_plain_scan_has_no_notes(painted):
    labels = label_discs(painted, weights=fake_model())
    assert labels.notes == ()
    assert labels.as_dict()["notes"] == []


def test_the_part_of_a_mask_that_is_off_the_canal_is_told_and_not_followed(painted, phantom):
    line = phantom.centerline_world.copy()
    middle = np.median(line[:, 2])
    line[np.abs(line[:, 2] - middle) < 22, 1] += 14
    grid = painted.grid
    index = np.round(grid.voxel_from_world(line)).astype(int)
    mask = np.zeros(grid.shape, np.uint8)
    mask[tuple(np.clip(index, 0, np.array(grid.shape) - 1).T)] = 1
    labels = label_discs(painted, seg=(mask, grid.affine), weights=fake_model())
    (note,) = [note for note in labels.notes if note.kind == "mask"]
    assert "is not followed there; check it" in note.sentence
    assert note.sentence in labels.warnings
    assert abs(note.point_world[2] - middle) < 15
    first, last = map(int, *re.findall(r"in slices (\d+) to (\d+)", note.sentence))
    told = grid.world_from_voxel([[0, 0, first], [0, 0, last]])[:, 2]
    np.testing.assert_allclose(told, [middle - 22, middle + 22], atol=12)
    values = labels.values.tolist()
    assert values == sorted(phantom.discs)


@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (0.5, True), (1.45, True)])
def test_voxels_of_an_improbable_size_are_told(factor, told, painted):
    scaled = np.diag([factor, factor, factor, 1.0]) @ painted.grid.affine
    labels = label_discs((painted.data, scaled), weights=fake_model(PaintReader(2.0 * factor)))
    assert ("voxel size" in kinds(labels)) == told
    if told:
        (note,) = [note for note in labels.notes if note.kind == "voxel size"]
        assert "check the voxel sizes in the header" in note.sentence


def test_a_canal_that_leaves_the_image_sideways_is_told(painted):
    view = DeobliquedVolume.of(painted)
    low, high = view.extent_mm()
    z = np.linspace(low[2], high[2], 60)
    middle, y = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2

    def line(aside_mm):
        aside = aside_mm * np.clip((z - z.mean()) / np.ptp(z) * 2, 0, 1)
        return Centerline.from_points(np.stack([middle + aside, 0 * z + y, z], axis=1), smoothing_mm=2.0)

    half = (high[0] - low[0]) / 2
    assert _leaving(line(0), view) == []
    assert _leaving(line(half - 6), view) == []
    (note,) = _leaving(line(half - 1), view)
    assert note.point_world[2] > z.mean() + 0.3 * np.ptp(z)
    assert "leaves the image sideways" in note.sentence


def checked_levels(*, counted=None, odd=0.0):
    return SimpleNamespace(counted=counted, evidence=SimpleNamespace(odd_spacing=odd))


def sacrum_seen(*, lowest_as_landmark=0.0, landmark_score=0.5, landmark_as_disc=0.0):
    """Return what a network says of L5/S1 at (0, 0, 0) and of S1/S2 28 mm below."""
    codec = DiscCodec(stride=2, first_value=1, levels=26)
    plane = sagittal_plane((0.0, -40.0, 40.0), (60, 40), 2.0)
    any_disc, level = np.zeros((30, 20), np.float32), np.full((26, 30, 20), 1e-6, np.float32)
    discs, marks = (Disc(25, np.array([0.0, 0, 0]), 1.0),), (Disc(26, np.array([0.0, 0, -28]), 1.0),)
    for disc, score, others in (
        (discs[0], 0.6, {26: lowest_as_landmark}),
        (marks[0], landmark_score, {25: landmark_as_disc}),
    ):
        row, column = np.round(codec.cell_from_pixel(plane.pixel_from_world(disc.point_world)))[0].astype(int)
        any_disc[row, column] = score
        level[:, row, column] = 0
        for value, share in {**others, disc.value: 1 - sum(others.values())}.items():
            level[value - 1, row, column] = share
    maps = DiscMaps(any_disc, level, np.zeros_like(any_disc))
    return discs, marks, PlanePrediction(plane, np.zeros((60, 40), np.float32), maps, codec)


@pytest.mark.parametrize(
    ("seen", "kind", "sentence"),
    [
        ({}, None, ""),
        ({"lowest_as_landmark": 0.04, "landmark_score": 0.77, "landmark_as_disc": 0.03}, None, ""),
        ({"lowest_as_landmark": 0.06}, "transitional sacrum", "L5/S1 looks much like S1/S2"),
        ({"lowest_as_landmark": 0.3}, "lowest disc", "L5/S1 looks much like S1/S2"),
        ({"landmark_score": 0.8}, "transitional sacrum", "S1/S2 looks as large as a disc"),
        ({"landmark_as_disc": 0.05}, "transitional sacrum", "S1/S2 looks as large as a disc"),
    ],
)
def test_a_sacrum_that_may_be_counted_wrongly_is_told(seen, kind, sentence):
    discs, marks, prediction = sacrum_seen(**seen)
    notes = _ambiguous_sacrum(discs, marks, prediction, checked_levels())
    assert [note.kind for note in notes] == ([kind] if kind else [])
    assert all(sentence in note.sentence and "one too high" in note.sentence for note in notes)


@pytest.mark.parametrize("seen", [{"landmark_score": 0.8}, {"lowest_as_landmark": 0.06}])
@pytest.mark.parametrize(("odd", "kind"), [(0.2, "transitional sacrum"), (0.25, "lowest disc")])
def test_a_sacrum_like_a_disc_is_doubted_where_the_distances_are_odd(seen, odd, kind):
    discs, marks, prediction = sacrum_seen(**seen)
    (note,) = _ambiguous_sacrum(discs, marks, prediction, checked_levels(odd=odd))
    assert note.kind == kind


@pytest.mark.parametrize(("below_mm", "kind"), [(4, "lowest disc"), (12, "transitional sacrum")])
def test_a_large_s1_s2_at_the_border_of_the_image_is_doubted(below_mm, kind):
    discs, marks, prediction = sacrum_seen(landmark_score=0.8)
    image = np.ones((60, 40), np.float32)
    row = prediction.plane.pixel_from_world(marks[0].point_world)[0, 0]
    image[round(row + below_mm / 2) + 1 :] = 0
    (note,) = _ambiguous_sacrum(discs, marks, replace(prediction, image=image), checked_levels())
    assert note.kind == kind


def test_a_spine_counted_from_c2_does_not_rest_on_the_sacrum():
    discs, marks, prediction = sacrum_seen(lowest_as_landmark=0.9, landmark_score=0.9)
    assert _ambiguous_sacrum(discs, marks, prediction, checked_levels(counted=object())) == []
    unseen = (replace(discs[0], interpolated=True),)
    assert _ambiguous_sacrum(unseen, (), prediction, checked_levels()) == []


@pytest.mark.parametrize(("kind", "anchored", "limit"), [
    ("lowest disc", False, 0.8), ("lowest disc", True, None), ("transitional sacrum", False, None),
])  # fmt: skip
def test_levels_counted_from_what_may_be_s1_s2_are_doubted_but_not_a_persons(kind, anchored, limit):
    doubts = _doubts([Note(kind, "")], upside_down=False, anchored=anchored)
    assert list(doubts.values()) == ([limit] if limit else [])


def test_notes_are_in_the_json_with_value_and_place(painted):
    scaled = np.diag([0.5, 0.5, 0.5, 1.0]) @ painted.grid.affine
    labels = label_discs((painted.data, scaled), weights=fake_model(PaintReader(1.0)))
    (entry,) = labels.as_dict()["notes"]
    assert entry.keys() == {"kind", "sentence", "values", "world_mm"}
    assert entry["sentence"] in labels.as_dict()["warnings"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("make", "kind"), [("metal", "implant"), ("step", "step"), ("fused", "fused")], ids=str
)
def test_pitfalls_of_a_real_scan_are_named(make, kind, data_folder):
    from sct_deepspine.io.annotations import read_annotations
    from sct_deepspine.simulation import pitfalls

    (scan,) = [a.read() for a in read_annotations(data_folder / "val") if a.name.startswith("spider078")]
    case = {
        "metal": lambda: pitfalls.metal(scan, [20, 21]),
        "step": lambda: pitfalls.stepped(scan, 8.0, 21),
        "fused": lambda: pitfalls.fused(scan, 22),
    }[make]()
    plain = label_discs(scan.volume)
    labels = label_discs(case.image)
    assert kind not in kinds(plain)
    (note,) = [note for note in labels.notes if note.kind == kind]
    if make != "step":
        assert set(note.values) <= set(labels.values[labels.interpolated].tolist())
        assert not plain.interpolated[np.isin(plain.values, note.values)].any()
    else:
        assert abs(note.point_world[2] - (scan.discs[21][2] - 8)) < 6


@pytest.mark.data
def test_a_displaced_mask_never_turns_a_right_scan_wrong_in_silence(data_folder):
    from sct_deepspine.io.annotations import read_annotations
    from sct_deepspine.simulation.pitfalls import displaced_mask

    for name in ("cervical_20", "VB2_10"):
        (scan,) = [a.read() for a in read_annotations(data_folder / "val") if a.name.startswith(name)]
        case = displaced_mask(scan, 12.0)
        plain, labels = label_discs(case.image), label_discs(case.image, seg=case.seg)
        assert labels.values.tolist() == plain.values.tolist()
        assert np.linalg.norm(labels.points_world - plain.points_world, axis=1).max() < 4
        assert "mask" in kinds(labels)


@pytest.mark.data
def test_grey_values_filled_far_below_all_others_change_nothing(data_folder):
    from sct_deepspine.io.annotations import read_annotations

    (scan,) = [a.read() for a in read_annotations(data_folder / "val") if a.name.startswith("cervical_20")]
    ras = scan.volume.as_ras()
    pad = np.pad(ras.data.astype(np.float32), [(0, 0), (0, 0), (0, 40)], constant_values=-1024)
    padded = Volume(pad, Grid(pad.shape, ras.grid.affine))
    plain, labels = label_discs(ras), label_discs(padded)
    assert labels.values.tolist() == plain.values.tolist()
    assert np.linalg.norm(labels.points_world - plain.points_world, axis=1).max() < 3
    assert abs(labels.level_confidence - plain.level_confidence) < 0.1
