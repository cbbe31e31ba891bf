"""Counting the vertebrae above the sacrum: levels, findings, and what follows from them."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from fakes import fake_model

from sct_deepspine import ScanRequest, label_discs, process_scan
from sct_deepspine.anatomy import PRESACRAL, disc_name
from sct_deepspine.errors import AnchorError
from sct_deepspine.geometry.grid import Grid
from sct_deepspine.io.disc_labels import read_disc_labels, read_page_corrections
from sct_deepspine.labeling.assessment import assign_checked_levels
from sct_deepspine.labeling.corrections import compare_labels
from sct_deepspine.labeling.counting import USUAL, Variant, assign_variant, count_vertebrae
from sct_deepspine.labeling.levels import Candidates, DecodingParameters, assign_levels, path_evidence
from sct_deepspine.labeling.spine import SessionDisc
from sct_deepspine.labels import Disc, DiscLabels, VertebraCount
from sct_deepspine.sct.registration import usable_labels
from sct_deepspine.segmentation.masks import disc_mask_value, vertebra_mask_value
from sct_deepspine.simulation.phantom import make_phantom
from sct_deepspine.workflow.given import compared_edits

PARAMETERS = DecodingParameters()
ODD = [Variant(PRESACRAL + more, place) for more in (-1, 1) for place in (12, 14, 18, 20)]


def candidates_of(variant, *, first=1, last=None, seed=0, blur=0.3):
    """Return what a spine that is built in a certain way shows of itself: levels as they look."""
    rng = np.random.default_rng(seed)
    counted = np.arange(first, (last or variant.presacral + 2) + 1)
    points = rng.normal(0, 1.2, (len(counted), 3))
    points[:, 2] -= variant.spacing().depth_mm(counted)
    level = rng.uniform(0, 0.02, (len(counted), 26))
    for row, value in enumerate(variant.apparent(counted)):
        level[row, value - 1] += 0.8
        for beside in (value - 2, value):  # in doubt between a level and its neighbours
            if 0 <= beside < 26:
                level[row, beside] += blur * rng.random()
    return Candidates(points, rng.uniform(0.5, 0.9, len(counted)), level, 1)


@pytest.mark.parametrize("variant", ODD)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_vertebra_more_or_less_is_counted_and_the_values_go_on_from_c2(variant, seed):
    candidates = candidates_of(variant, seed=seed)
    counted = count_vertebrae(candidates, parameters=PARAMETERS)
    assert counted.count.presacral == variant.presacral
    assert 0.8 < counted.count.probability <= 1
    assert counted.assignment.values.tolist() == list(range(1, variant.presacral + 3))


@pytest.mark.parametrize("seed", range(6))
def test_a_usual_spine_is_counted_as_one_also_where_a_disc_was_missed_or_invented(seed):
    whole = candidates_of(USUAL, seed=seed)
    kept = np.delete(np.arange(26), 6 + 3 * seed)
    missed = replace(whole, points=whole.points[kept], score=whole.score[kept], level=whole.level[kept])
    middle = 8 + seed
    invented = replace(
        whole,
        points=np.insert(whole.points, middle, whole.points[middle - 1 : middle + 1].mean(axis=0), axis=0),
        score=np.insert(whole.score, middle, 0.15),
        level=np.insert(whole.level, middle, whole.level[middle], axis=0),
    )
    for candidates in (whole, missed, invented):
        count = count_vertebrae(candidates, parameters=PARAMETERS).count
        assert count.is_usual
        assert count.probability > 0.95


@pytest.mark.parametrize(("first", "last"), [(3, 26), (1, 25), (4, 20), (16, 26)])
def test_nothing_is_counted_unless_the_dens_and_the_sacrum_are_seen(first, last):
    assert count_vertebrae(candidates_of(USUAL, first=first, last=last), parameters=PARAMETERS) is None


def test_networks_that_know_no_landmark_count_nothing():
    whole = candidates_of(USUAL, first=3, last=25)
    discs_only = Candidates(whole.points, whole.score, whole.level[:, 2:25], 3)
    assert count_vertebrae(discs_only, anchors={0: 3, 22: 25}, parameters=PARAMETERS) is None


@pytest.mark.parametrize("variant", [Variant(25, 18), Variant(23, 18)])
def test_two_known_discs_tell_the_ends_as_landmarks_do(variant):
    lowest = variant.presacral + 1
    candidates = candidates_of(variant, first=3, last=lowest)
    assert count_vertebrae(candidates, anchors={0: 3}, parameters=PARAMETERS) is None
    anchors = {0: 3, len(candidates.score) - 1: 25}  # as a person names the disc above the sacrum
    counted = count_vertebrae(candidates, anchors=anchors, parameters=PARAMETERS)
    assert counted.count.presacral == variant.presacral
    assert counted.assignment.values.tolist() == list(range(3, lowest + 1))


def test_an_anchor_holds_in_the_levels_of_a_spine_that_is_counted():
    """Of two candidates for one disc the weaker one is taken if a person says so."""
    candidates = candidates_of(Variant(25, 18), seed=5)
    twice = 9
    points = np.insert(candidates.points, twice, candidates.points[twice] + [0, 0, 2.0], axis=0)
    score = np.insert(candidates.score, twice, 0.05)
    level = np.insert(candidates.level, twice, candidates.level[twice], axis=0)
    seen = Candidates(points, score, level, 1)
    value = twice + 1
    chosen = []
    for anchors in ({}, {twice: value}):
        counted = count_vertebrae(seen, anchors=anchors, parameters=PARAMETERS)
        assert counted.count.presacral == 25
        at = counted.assignment.values.tolist().index(value)
        chosen.append(int(counted.assignment.indices[at]))
    assert chosen == [twice + 1, twice]


@pytest.mark.parametrize("anchors", [{}, {4: 5}, {2: 3, 20: 21}])
def test_the_evidence_is_that_of_the_assignment(anchors):
    candidates = candidates_of(USUAL, seed=3)
    said = assign_levels(candidates, anchors=anchors, parameters=PARAMETERS).evidence
    assert path_evidence(candidates, anchors=anchors, parameters=PARAMETERS) == pytest.approx(said)


def test_the_evidence_prefers_the_way_in_which_the_spine_is_built():
    candidates = candidates_of(Variant(25, 18), seed=4)
    odd = assign_variant(candidates, Variant(25, 18), parameters=PARAMETERS)
    assert odd.evidence > assign_variant(candidates, USUAL, parameters=PARAMETERS).evidence + 5


def labels_of(presacral, *, first=3):
    lowest = presacral + 1
    grid = Grid((31, 61, 700), np.eye(4))
    discs = tuple(
        Disc(v, np.array([15.0, 30.0, 680.0 - 26.0 * n]), 0.9, presacral=presacral)
        for n, v in enumerate(range(first, lowest + 1))
    )
    return DiscLabels(discs, grid, 0.9, count=VertebraCount(presacral, 0.98))


def test_names_and_mask_values_follow_the_count():
    assert [d.name for d in labels_of(25).discs[-3:]] == ["L4/L5", "L5/L6", "L6/S1"]
    assert [d.name for d in labels_of(23).discs[-2:]] == ["L3/L4", "L4/S1"]
    assert (vertebra_mask_value(25), disc_mask_value(25, 25), disc_mask_value(26, 25)) == (46, 96, 100)
    assert disc_mask_value(24, 23) == 100
    with pytest.raises(ValueError, match="27"):
        disc_name(27)


@pytest.mark.parametrize("presacral", [23, 25])
def test_the_registration_gets_what_lies_above_the_odd_vertebra(presacral):
    assert labels_of(PRESACRAL).for_template().values[-1] == 21
    labels, left_out = usable_labels(labels_of(presacral))
    assert labels.values.tolist() == list(range(3, 20))
    assert {20, 21} <= {out.value for out in left_out if "extra or missing" in out.reason}


def test_an_edited_copy_of_its_labels_is_understood():
    labels = labels_of(25)
    points = {disc.value: disc.point_world for disc in labels.discs}
    points[26] = points[26] + [0, 5, 0]
    given = read_disc_labels(points)
    edited = compared_edits(given, labels).apply(labels)
    assert edited.values.tolist() == labels.values.tolist()
    np.testing.assert_allclose(edited[26].point_world, points[26])
    assert edited[26].name == "L6/S1"
    shifted = compare_labels([(v - 1, p) for v, p in points.items() if v > 4], labels, 1.7).apply(labels)
    assert shifted.count is None
    assert shifted.discs[-1].name == "L5/S1"


def test_an_image_that_can_not_count_agrees_with_a_spine_that_was_counted():
    disc = SessionDisc(22, {}, 0.9, Variant(25, 20))
    assert disc.agrees_with(22, counted=True)
    assert disc.agrees_with(21, counted=False)
    assert not disc.agrees_with(21, counted=True)
    assert not disc.agrees_with(23, counted=False)
    assert not SessionDisc(22, {}, 0.9).agrees_with(21, counted=False)


@pytest.mark.parametrize("variant", [Variant(23, 14), Variant(25, 14), USUAL])
def test_two_anchors_count_also_where_nothing_tells_a_level(variant):
    seen = candidates_of(variant, first=4, last=variant.presacral)
    seen = replace(seen, level=np.full_like(seen.level, 1 / 26))
    last = int(variant.apparent(np.array([variant.presacral]))[0])
    counted = count_vertebrae(seen, anchors={0: 4, len(seen.score) - 1: last}, parameters=PARAMETERS)
    assert counted.count.presacral == variant.presacral
    assert counted.assignment.values.tolist() == list(range(4, variant.presacral + 1))


@pytest.mark.parametrize("place", [18, 20])
@pytest.mark.parametrize("like_a_disc", [0.5, 0.9])
def test_a_missing_vertebra_is_counted_also_if_s1_s2_and_s2_s3_look_like_discs(place, like_a_disc):
    spine = candidates_of(Variant(23, place))
    level = np.vstack([spine.level, np.zeros(26)])
    level[-2] = 0
    level[-2, 24:] = like_a_disc, 1 - like_a_disc
    level[-1, 24:] = 0.3, 0.7
    points = np.vstack([spine.points, spine.points[-1] - [0, 0, 24]])
    seen = Candidates(points, np.append(spine.score, 0.7), level, 1)
    counted = count_vertebrae(seen, parameters=PARAMETERS)
    assert counted.count.presacral == 23
    assert counted.count.probability > 0.9


@pytest.mark.parametrize(("k", "value"), [(4, 3), (12, 15), (20, 18), (24, 26)])
def test_an_anchor_that_contradicts_a_counted_spine_is_told_by_its_names(k, value):
    candidates = candidates_of(Variant(25, 12))
    with suppress(AnchorError):  # it may not fit at all, which is said
        checked = assign_checked_levels(candidates, {k: value}, fake_model())
        assert checked.assignment.level_confidence <= 0.5
        assert any("contradicts the image" in text or "anchor" in text for text in checked.warnings)


@pytest.fixture(scope="module", params=[("extra", 25, "L6/S1"), ("missing", 23, "L4/S1")])
def odd_scan(request):
    kind, number, lowest = request.param
    scan = make_phantom(np.random.default_rng(2), voxel_mm=(3.0, 1.5, 1.5), **{kind: 15})
    return scan, number, lowest


def test_the_shipped_networks_find_it(odd_scan):
    scan, number, lowest = odd_scan
    labels = label_discs(scan.volume)
    assert labels.count.presacral == number
    assert labels.discs[-1].name == lowest
    assert labels.values.tolist() == list(range(3, number + 2))
    assert 0.7 < labels.level_confidence <= 0.8
    (note,) = (n for n in labels.notes if n.kind == "vertebra count")
    assert f"{number} presacral vertebrae" in note.sentence
    content = json.loads(labels.to_json())
    assert content["presacral_vertebrae"]["number"] == number
    assert content["discs"][-1]["name"] == lowest


def test_what_the_review_page_saved_of_it_comes_back(odd_scan, tmp_path):
    scan, number, lowest = odd_scan
    labels = label_discs(scan.volume)
    discs = [{"value": d.value, "world_mm": d.point_world.tolist()} for d in labels.discs]
    saved = {"name": "t2", "discs": discs, "absent": [], "presacral": number}
    path = tmp_path / "corrections.json"
    path.write_text(json.dumps({"format": 2, "scans": {"k": saved}}), encoding="utf-8")
    (reviewed,) = read_page_corrections(path)
    result = process_scan(scan.volume, ScanRequest(labels=reviewed.labels))
    assert result.labels.values.tolist() == labels.values.tolist()
    assert result.labels.discs[-1].name == lowest
    saved["presacral"] = 30
    path.write_text(json.dumps({"format": 2, "scans": {"k": saved}}), encoding="utf-8")
    with pytest.raises(ValueError, match="23, 24 or 25"):
        read_page_corrections(path)


def test_its_lowest_vertebra_is_no_sacrum_in_the_masks(odd_scan):
    scan, number, _ = odd_scan
    masks = process_scan(scan.volume, ScanRequest(masks=True)).masks
    names = [part.name for part in masks.structures]
    assert ("L6" in names) == (number == 25)
    assert ("L5" in names) == (number == 25)
    assert 100 in np.unique(masks.spine)
