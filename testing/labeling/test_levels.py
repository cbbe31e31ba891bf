import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_deepspine.anatomy import EXPECTED_SPACING_MM
from sct_deepspine.errors import AnchorError, GeometryError, NoDiscsError
from sct_deepspine.labeling.levels import Candidates, DecodingParameters, assign_levels, best_path
from sct_deepspine.spacing import SpacingPrior, extrapolate_superior, fill_skipped

few = settings(max_examples=12, deadline=None, derandomize=True, database=None)
spans = st.tuples(st.integers(3, 18), st.integers(7, 12)).map(lambda s: (s[0], min(s[0] + s[1] - 1, 25)))
seeds = st.integers(0, 10_000)


def spine(first, last, seed=0, *, sharpness=0.8, noise_mm=1.2, size=1.0):
    """Return the candidates of a spine whose maps are right."""
    rng = np.random.default_rng(seed)
    values = np.arange(first, last + 1)
    points = rng.normal(0, noise_mm, (len(values), 3))
    points[:, 2] -= size * SpacingPrior().depth_mm(values)
    level = rng.uniform(0, 0.03, (len(values), 23))
    level[np.arange(len(values)), values - 3] += sharpness
    return Candidates(points, rng.uniform(0.5, 0.9, len(values)), level)


def keep(candidates, chosen):
    return replace(
        candidates,
        points=candidates.points[chosen],
        score=candidates.score[chosen],
        level=candidates.level[chosen],
    )


def insert(candidates, at, point, score, level):
    return replace(
        candidates,
        points=np.insert(candidates.points, at, point, axis=0),
        score=np.insert(candidates.score, at, score),
        level=np.insert(candidates.level, at, level, axis=0),
    )


def all_readings(candidates, anchors, prior, parameters):
    """Score every reading one by one, from the definition: ``[(score, {candidate: value}), ...]``."""
    count, levels = candidates.level.shape
    floor = parameters.level_floor
    row = candidates.level + parameters.level_background / levels
    probability = floor + (1 - levels * floor) * row / row.sum(axis=1, keepdims=True)
    sizes = np.exp(prior.log_body())
    readings = []
    for n in range(1, count + 1):
        for chosen in itertools.combinations(range(count), n):
            for values in itertools.combinations(range(levels), n):
                labels = dict(zip(chosen, (candidates.first_value + v for v in values), strict=True))
                if any(labels.get(k) != v for k, v in anchors.items()):
                    continue
                if n > 1 and np.diff(values).max() > parameters.max_step:
                    continue
                alone = sum(
                    parameters.level_weight * np.log(levels * probability[k, v])
                    + np.log(candidates.score[k] / parameters.score_unit)
                    - parameters.omission_cost * np.log(1 - min(candidates.score[k], 0.95))
                    for k, v in zip(chosen, values, strict=True)
                )
                for size, share in zip(prior.body_factors, sizes, strict=True):
                    score = alone + np.log(share)
                    for (j, u), (k, v) in itertools.pairwise(labels.items()):
                        expected = size * sum(prior.spacing_mm[w] for w in range(u, v))
                        distance = np.linalg.norm(candidates.points[j] - candidates.points[k])
                        misfit = 0.5 * (np.log(distance / expected) / prior.spread) ** 2
                        score -= min(misfit, parameters.spacing_cap) + parameters.skip_cost * (v - u - 1)
                    readings.append((score, labels))
    return readings


@few
@given(
    seed=seeds,
    count=st.integers(1, 5),
    levels=st.integers(1, 6),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    anchored=st.booleans(),
)
def test_decoding_equals_trying_every_reading(seed, count, levels, temperature, anchored):
    rng = np.random.default_rng(seed)
    points = np.cumsum(rng.uniform([-5, 8], [5, 40], (count, 2)), axis=0)
    candidates = Candidates(
        points, rng.uniform(0.02, 1, count), rng.uniform(0, 1, (count, levels)) ** 4, 19 - levels
    )
    prior = SpacingPrior(body_factors=(0.8, 1.0, 1.3))
    weights = {"level_weight": rng.uniform(0.5, 1.5), "omission_cost": rng.uniform(0, 2)}
    parameters = DecodingParameters(temperature=temperature, **weights)
    anchors = {int(rng.integers(count)): 19 - levels + int(rng.integers(levels))} if anchored else {}

    moved = candidates
    for k, value in anchors.items():
        free = all_readings(candidates, {}, prior, parameters)
        tried = range(candidates.first_value, candidates.first_value + levels)
        mass = [sum(np.exp(s / temperature) for s, labels in free if labels.get(k) == v) for v in tried]
        moved = replace(candidates, level=np.zeros((count, levels)))
        shift = value - tried[int(np.argmax(mass))]
        for column in range(max(shift, 0), min(levels, levels + shift)):
            moved.level[:, column] = candidates.level[:, column - shift]

    readings = all_readings(moved, anchors, prior, parameters)
    result = assign_levels(candidates, anchors=anchors, prior=prior, parameters=parameters)

    score, best = max(readings, key=lambda reading: reading[0])
    assert result.score == pytest.approx(score)
    assert dict(zip(result.indices, result.values, strict=True)) == best
    weights = np.exp([score / temperature for score, _ in readings])
    total = weights.sum()
    assert result.evidence == pytest.approx(np.log(total))
    for k, value, probability in zip(result.indices, result.values, result.probabilities, strict=True):
        has = np.array([labels.get(k) == value for _, labels in readings])
        assert probability == pytest.approx(weights[has].sum() / total)

    def share(shift):
        shared = [[(k, labels[k]) for k in labels if k in best] for _, labels in readings]
        has = np.array([bool(s) and all(v == best[k] + shift for k, v in s) for s in shared])
        return weights[has].sum() / total

    assert result.level_confidence == pytest.approx(share(0))
    assert result.runner_up_probability == pytest.approx(max(map(share, (-2, -1, 1, 2))), abs=1e-9)
    if result.runner_up_shift:
        assert result.runner_up_probability == pytest.approx(share(result.runner_up_shift), abs=1e-9)


@few
@given(span=spans, seed=seeds, size=st.floats(0.75, 1.3))
def test_a_clear_spine_is_read_whole_whatever_its_size_and_ends(span, seed, size):
    result = assign_levels(spine(*span, seed, size=size))
    assert result.values.tolist() == list(range(span[0], span[1] + 1))
    assert result.indices.tolist() == list(range(len(result.values)))
    assert result.level_confidence > 0.95
    assert result.score > 20
    assert result.body_factor == pytest.approx(size, rel=0.15)


@few
@given(span=spans, seed=seeds, dropped=st.integers(1, 5))
def test_a_missing_candidate_moves_no_other_label_and_is_filled_in(span, seed, dropped):
    whole = spine(*span, seed)
    result = assign_levels(keep(whole, np.arange(len(whole.score)) != dropped))
    assert result.skipped == (span[0] + dropped,)
    values, points, interpolated = fill_skipped(whole.points[result.values - span[0]], result.values)
    assert values.tolist() == list(range(span[0], span[1] + 1))
    assert np.flatnonzero(interpolated).tolist() == [dropped]
    assert np.linalg.norm(points[dropped] - whole.points[dropped]) < 10


@few
@given(span=spans, seed=seeds, data=st.data())
def test_a_map_wrong_at_one_candidate_or_in_one_channel_does_not_survive(span, seed, data):
    candidates = spine(*span, seed)
    count = len(candidates.score)
    k, other = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, 22))
    own = span[0] - 3 + k
    one_row = candidates.level.copy()
    one_row[k, [own, other]] = one_row[k, [other, own]]
    channels = candidates.level.copy()
    channels[:, [own, other]] = channels[:, [other, own]]
    for level in (one_row, channels):
        result = assign_levels(replace(candidates, level=level))
        assert result.values.tolist() == list(range(span[0], span[1] + 1))


@few
@given(span=spans, seed=seeds, above=st.integers(0, 5))
def test_a_false_candidate_between_two_discs_is_left_out(span, seed, above):
    candidates = spine(*span, seed)
    middle = candidates.points[above : above + 2].mean(axis=0)
    result = assign_levels(insert(candidates, above + 1, middle, 0.6, candidates.level[above]))
    assert above + 1 not in result.indices
    assert result.values.tolist() == list(range(span[0], span[1] + 1))


def test_noise_candidates_far_from_the_spine_are_left_out():
    candidates = spine(9, 18)
    for at, x in ((8, 90.0), (5, -70.0), (2, 120.0)):
        candidates = insert(candidates, at, candidates.points[at] + [x, 0, 3], 0.4, np.full(23, 0.05))
    result = assign_levels(candidates)
    assert result.values.tolist() == list(range(9, 19))
    assert np.abs(candidates.points[result.indices, 0]).max() < 20


@few
@given(span=spans, seed=seeds, shift=st.sampled_from([-1, 1]), at=st.integers(0, 6))
def test_an_anchor_moves_all_labels_with_it(span, seed, shift, at):
    candidates = spine(*span, seed)
    if not 3 <= span[0] + shift <= span[1] + shift <= 25:
        shift = -shift
    result = assign_levels(candidates, anchors={at: span[0] + at + shift})
    assert result.values.tolist() == [v + shift for v in range(span[0], span[1] + 1)]
    assert result.probabilities[at] == pytest.approx(1)


def test_two_anchors_move_each_its_own_part():
    candidates = spine(5, 16)
    kept = keep(candidates, np.arange(12) != 6)
    # The maps miss nothing, but the person counts one vertebra more: the upper part stays, the lower moves.
    result = assign_levels(kept, anchors={2: 7, 8: 15})
    labels = dict(zip(result.indices.tolist(), result.values.tolist(), strict=True))
    assert (labels[0], labels[2], labels[8], labels[10]) == (5, 7, 15, 17)


def test_an_anchor_keeps_a_candidate_that_would_be_left_out():
    candidates = spine(5, 12)
    middle = candidates.points[3:5].mean(axis=0)
    candidates = insert(candidates, 4, middle, 0.001, np.zeros(23))
    result = assign_levels(candidates, anchors={4: 9})
    assert dict(zip(result.indices, result.values, strict=True))[4] == 9


def test_maps_without_identity_give_no_confidence_and_one_anchor_gives_all():
    flat = replace(spine(6, 14, noise_mm=1), level=np.zeros((9, 23)))
    unsure = assign_levels(flat)
    assert unsure.level_confidence < 0.5
    assert abs(unsure.runner_up_shift) in (1, 2)
    assert 0 < unsure.runner_up_probability < unsure.level_confidence
    sure = assign_levels(flat, anchors={4: 10})
    assert sure.values.tolist() == list(range(6, 15))
    assert sure.level_confidence > 0.95
    assert sure.runner_up_shift == 0
    assert sure.runner_up_probability == 0
    every = assign_levels(flat, anchors={k: 6 + k for k in range(9)})
    assert every.level_confidence == pytest.approx(1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("anchors", [{}, {0: 3, 30: 20}, {k: 3 + k // 2 for k in range(0, 40, 2)}])
def test_numbers_stay_probabilities_at_any_temperature_and_under_absurd_anchors(temperature, anchors):
    rng = np.random.default_rng(3)
    candidates = Candidates(rng.normal(0, 1e3, (40, 3)), rng.uniform(0, 1, 40), rng.uniform(0, 1, (40, 23)))
    result = assign_levels(
        candidates, anchors=anchors, parameters=DecodingParameters(temperature=temperature)
    )
    assert anchors.items() <= dict(zip(result.indices.tolist(), result.values.tolist(), strict=True)).items()
    for p in (*result.probabilities, result.level_confidence, result.runner_up_probability):
        assert 0 <= p <= 1 + 1e-9
    assert np.isfinite([result.score, result.evidence]).all()


def test_one_candidate_is_labelled_but_uncertain():
    result = assign_levels(spine(12, 12))
    assert result.values.tolist() == [12]
    assert result.probabilities[0] == pytest.approx(result.level_confidence)
    assert result.level_confidence < 0.7


def test_faint_candidates_score_less_than_no_spine_at_all():
    faint = replace(spine(5, 5), score=[0.01], level=np.zeros((1, 23)))
    assert assign_levels(faint).score < 0
    assert assign_levels(spine(5, 12)).score > 20


def test_no_candidate_is_no_spine():
    with pytest.raises(NoDiscsError):
        assign_levels(keep(spine(5, 8), []))


@pytest.mark.parametrize(
    "anchors", [{0: 9, 3: 8}, {0: 9, 1: 9}, {0: 5, 1: 20}, {9: 5}, {-1: 5}, {0: 2}, {0: 26}]
)
def test_anchors_that_can_not_be_are_refused(anchors):
    with pytest.raises(AnchorError):
        assign_levels(spine(5, 9), anchors=anchors)


@pytest.mark.parametrize(
    "change",
    [
        {"score": np.ones(3)},
        {"level": np.full((5, 23), np.nan)},
        {"points": np.zeros(5)},
        {"level": -np.ones((5, 23))},
    ],
)
def test_candidates_that_do_not_fit_together_are_refused(change):
    with pytest.raises(GeometryError):
        replace(spine(5, 9), **change)


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="temperature"):
        assign_levels(spine(5, 9), parameters=DecodingParameters(temperature=0))
    with pytest.raises(ValueError, match="floor"):
        assign_levels(spine(5, 9), parameters=DecodingParameters(level_floor=0.1))


def steps_of(work):
    """Count the function calls that some work takes: its time, but for the machine's."""
    count = 0

    def note(_frame, _event, _argument):
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_the_work_grows_with_the_candidates_and_not_with_their_pairs():
    rng = np.random.default_rng(0)
    steps = []
    for count in (30, 60):
        candidates = Candidates(
            rng.uniform(0, 400, (count, 3)), rng.uniform(0.2, 1, count), rng.uniform(0, 1, (count, 23))
        )
        steps.append(steps_of(lambda found=candidates: assign_levels(found)))
    assert steps[1] < 2.5 * steps[0]


@few
@given(radius=st.floats(120, 400), seed=seeds)
def test_levels_are_filled_in_along_the_curve(radius, seed):
    values = np.arange(15, 26)
    angle = SpacingPrior().depth_mm(values) / radius
    angle -= angle.mean()
    points = radius * np.column_stack([np.zeros_like(angle), np.cos(angle), -np.sin(angle)])
    gone = np.random.default_rng(seed).choice([2, 4, 7], 2, replace=False)
    kept = ~np.isin(values, values[gone])
    filled_values, filled, interpolated = fill_skipped(points[kept], values[kept])
    np.testing.assert_array_equal(filled_values, values)
    np.testing.assert_array_equal(interpolated, ~kept)
    assert np.linalg.norm(filled - points, axis=1).max() < 2.5


def test_discs_above_c2_c3_continue_the_neck_at_its_size():
    size, values = 0.8, np.arange(3, 8)
    direction = np.array([0.1, -0.2, -1.0])
    direction /= np.linalg.norm(direction)
    truth = size * SpacingPrior().depth_mm(np.arange(1, 8))[:, None] * direction + [1, 2, 3]
    all_values, points, extrapolated = extrapolate_superior(truth[2:], values)
    assert all_values.tolist() == list(range(1, 8))
    assert extrapolated.tolist() == [True, True] + [False] * 5
    np.testing.assert_allclose(points, truth, atol=1e-9)
    assert extrapolate_superior(truth[2:], values, first=2)[0].tolist() == list(range(2, 8))


def test_points_that_can_not_be_interpolated_are_refused():
    points = np.array([[0, 0, 0], [0, 0, -30.0]])
    with pytest.raises(GeometryError, match="increasing"):
        fill_skipped(points, np.array([9, 8]))
    with pytest.raises(GeometryError, match="same place"):
        fill_skipped(points * 0, np.array([8, 9]))
    with pytest.raises(GeometryError, match="increasing"):
        fill_skipped(np.empty((0, 3)), np.array([], dtype=int))
    with pytest.raises(GeometryError, match="C2/C3"):
        extrapolate_superior(points, np.array([8, 9]))
    with pytest.raises(GeometryError, match="spacing"):
        SpacingPrior().depth_mm(np.array([27]))


def test_expected_spacings_are_a_spine():
    assert sorted(EXPECTED_SPACING_MM) == list(range(1, 26))
    assert np.exp(SpacingPrior().log_body()).sum() == pytest.approx(1)
    assert all(15 <= mm <= 36 for mm in EXPECTED_SPACING_MM.values())


@pytest.mark.parametrize("seed", range(5))
def test_the_best_path_alone_is_that_of_the_assignment(seed):
    candidates = spine(5, 14, seed)
    assignment, path = assign_levels(candidates), best_path(candidates)
    assert path.score == pytest.approx(assignment.score)
    np.testing.assert_array_equal(path.indices, assignment.indices)
    np.testing.assert_array_equal(path.values, assignment.values)
