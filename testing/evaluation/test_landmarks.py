import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_deepspine.errors import GeometryError
from sct_deepspine.evaluation.landmarks import as_rows, format_table, pool, pool_by, score_scan

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
NECK = {value: (1.0, 2.0, -18.0 * value) for value in range(3, 12)}


def moved(discs, mm=(0, 0, 0), values=0):
    return {value + values: tuple(np.add(point, mm)) for value, point in discs.items()}


def test_the_truth_scores_perfect():
    score = score_scan(NECK, NECK)
    assert score.levels_right
    assert score.complete
    assert score.errors_mm == (0.0,) * 9
    assert score.any_level_mm == (0.0,) * 9
    assert (score.missed, score.invented, score.any_level_missed, score.any_level_false) == (0, 0, 0, 0)


@few
@given(shift=st.sampled_from([-2, -1, 1, 2]), mm=st.floats(0, 4))
def test_a_whole_level_mistake_is_perfect_to_the_published_metric_and_wrong_to_the_honest_one(shift, mm):
    score = score_scan(NECK, moved(NECK, (mm, 0, 0), shift))
    assert score.any_level_mm == pytest.approx((mm,) * 9)
    assert score.any_level_z_mm == pytest.approx((0,) * 9)
    assert (score.any_level_missed, score.any_level_false) == (0, 0)
    assert (score.missed, score.invented) == (0, 0)
    assert not score.levels_right
    assert not score.complete
    assert score.level_offsets == (shift,) * 9
    assert score.off_by_one == (9 if abs(shift) == 1 else 0)
    assert min(score.errors_mm) >= 18 * abs(shift)
    assert len(score.errors_mm) == 9 - abs(shift)


def test_errors_are_of_the_same_value_in_three_dimensions():
    score = score_scan(NECK, moved(NECK, (1, 2, 2)))
    assert score.errors_mm == pytest.approx((3.0,) * 9)
    assert score.any_level_z_mm == pytest.approx((2.0,) * 9)
    assert score.complete


def test_missed_and_invented_are_counted_one_to_one_within_both_radii():
    predicted = {v: p for v, p in NECK.items() if v != 7}
    predicted[12] = (1.0, 2.0, -400.0)
    predicted[5] = tuple(np.add(NECK[5], (7, 0, 0)))
    score = score_scan(NECK, predicted)
    assert (score.missed, score.invented) == (2, 2)
    assert (score.missed_wide, score.invented_wide) == (1, 1)
    assert score.levels_right
    assert not score.complete
    assert score.predicted_count == 9


def test_matching_keeps_as_many_pairs_as_possible():
    truth = {3: (0, 0, 0), 4: (0, 0, -6)}
    # Both predictions are nearest to disc 4; pairing it with the nearer one must not leave disc 3 alone.
    score = score_scan(truth, {3: (0, 0, -4.5), 4: (0, 0, -7)})
    assert (score.missed, score.invented) == (0, 0)


def test_two_predictions_on_one_disc_are_one_invented_and_a_wrong_level():
    predicted = {**NECK, 12: tuple(np.add(NECK[11], (0, 0, -2)))}
    score = score_scan(NECK, predicted)
    assert score.invented == 1
    assert not score.levels_right
    assert (score.any_level_missed, score.any_level_false) == (0, 0)


def test_what_lies_outside_the_labelled_interval_counts_nothing():
    beyond = {**NECK, 12: (1.0, 2.0, -18.0 * 12), 2: (1.0, 2.0, -36.0)}
    score = score_scan(NECK, beyond, span_z_mm=(-18 * 11 - 10, -18 * 3 + 10))
    assert score == score_scan(NECK, NECK)
    assert not score_scan(NECK, beyond).complete


def test_a_scan_without_predictions_misses_everything_and_has_no_right_level():
    score = score_scan(NECK, {})
    assert (score.missed, score.any_level_missed, score.invented) == (9, 9, 0)
    assert score.errors_mm == score.any_level_mm == score.level_offsets == ()
    assert not score.levels_right
    summary = pool([score])
    assert np.isnan([summary.mean_mm, *summary.mean_interval_mm, summary.off_by_one]).all()
    assert summary.missed == summary.any_level_fnr == 1


def test_published_thresholds_are_along_the_axis_and_stated():
    score = score_scan({3: (0, 0, 0)}, {3: (8, 0, 4.9)})
    assert (score.any_level_missed, score.any_level_false, score.missed) == (0, 0, 1)
    score = score_scan({3: (0, 0, 0)}, {3: (0, 0, 5.1)})
    assert (score.any_level_missed, score.any_level_false) == (1, 0)
    score = score_scan({3: (0, 0, 0)}, {3: (0, 0, 10.1)})
    assert (score.any_level_missed, score.any_level_false) == (1, 1)


@pytest.mark.parametrize("truth", [{}, {3: (0, 0, np.nan)}, {3: (0, 0)}])
def test_truth_that_can_not_be_scored_is_refused(truth):
    with pytest.raises(GeometryError):
        score_scan(truth, NECK)


@pytest.fixture
def mixed():
    good = [
        score_scan(NECK, moved(NECK, (k, 0, 0)), name=f"a{k}", subject=f"a{k}", region="neck")
        for k in range(4)
    ]
    bad = [
        score_scan(NECK, moved(NECK, values=1), name=f"b{k}", subject="b", region="lumbar") for k in range(2)
    ]
    return [*good, *bad]


def test_pooling_is_over_discs_for_errors_and_over_scans_for_levels(mixed):
    summary = pool(mixed)
    assert (summary.scans, summary.subjects, summary.discs) == (6, 5, 54)
    assert summary.mean_mm == pytest.approx((9 * (0 + 1 + 2 + 3) + 16 * 18) / 52)
    assert summary.max_mm == pytest.approx(18)
    assert summary.levels_right == summary.complete == pytest.approx(4 / 6)
    assert summary.wrong_level == summary.off_by_one == pytest.approx(18 / 54)
    assert summary.any_level_mean_mm == pytest.approx(1.0)
    assert summary.any_level_fnr == summary.any_level_fpr == summary.missed == 0


def test_intervals_hold_the_mean_resample_people_and_repeat(mixed):
    summary = pool(mixed)
    low, high = summary.mean_interval_mm
    assert low < summary.mean_mm < high
    # One resample in 3125 draws only the person whose two scans are wrong, one in three nobody wrong.
    assert summary.levels_right_interval[1] == 1
    assert summary == pool(mixed, generator=np.random.default_rng(0))
    assert np.isnan(pool(mixed[:1]).mean_interval_mm).all()  # one subject tells nothing of others
    with pytest.raises(ValueError, match="no score"):
        pool([])


def test_the_table_is_aligned_and_has_a_line_per_region_and_one_for_all(mixed):
    summaries = pool_by(mixed)
    assert list(summaries) == ["lumbar", "neck", "all"]
    lines = format_table(summaries).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert "levels right" in lines[0]
    assert "100.0" in lines[2]
    with pytest.raises(ValueError, match="region"):
        pool_by(mixed, "name")


def test_rows_survive_a_csv_file(mixed):
    rows = as_rows(mixed)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    text.seek(0)
    back = list(csv.DictReader(text))
    assert [row["levels_right"] for row in back] == ["1"] * 4 + ["0"] * 2
    assert float(back[3]["mean_mm"]) == pytest.approx(3)
