"""Intervals hold what their name says: the truth in 95 of 100 studies, and subjects as a whole."""

import numpy as np
import pytest

from sct_deepspine.evaluation.resampling import mean_interval, subject_intervals


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_interval_is_that_of_95_in_100():
    """Of a mean of many subjects it is 1.96 standard errors to each side."""
    values = rng(1).normal(5, 2, 400)
    low, high = mean_interval(values, [str(n) for n in range(400)], generator=rng())
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_scans_of_one_subject_are_drawn_together():
    subjects = [str(n) for n in range(30)]
    values = rng(2).normal(0, 1, 30)
    alone = np.subtract(*mean_interval(values, subjects, generator=rng()))
    copied = np.subtract(*mean_interval(np.tile(values, 5), 5 * subjects, generator=rng()))
    apart = np.subtract(*mean_interval(np.tile(values, 5), [str(n) for n in range(150)], generator=rng()))
    assert copied == pytest.approx(alone)
    assert abs(apart) < 0.6 * abs(alone)


def test_a_subject_with_more_scans_counts_for_more():
    low, high = mean_interval([0.0] * 99 + [1.0], ["many"] * 99 + ["one"], generator=rng())
    assert (low, high) == (0.0, 1.0)
    shares = subject_intervals(
        [[0, 99], [1, 1]], ["many", "one"], lambda sums: sums[:, :1] / sums[:, 1:], generator=rng(3)
    )
    assert shares[:, 0].tolist() == [0.0, 1.0]


def test_what_is_not_defined_is_left_out_and_one_subject_has_no_interval():
    values = [1.0, np.nan, 3.0, np.nan]
    assert mean_interval(values, list("aabb"), generator=rng()) == (1.0, 3.0)
    assert np.isnan(mean_interval([1.0, 2.0], ["a", "a"], generator=rng())).all()
    assert np.isnan(mean_interval([np.nan, np.nan], ["a", "b"], generator=rng())).all()


def test_the_same_generator_gives_the_same_interval():
    values, subjects = rng(4).normal(size=20), [str(n) for n in range(20)]
    one, same, other = (mean_interval(values, subjects, generator=rng(seed)) for seed in (7, 7, 8))
    assert one == same != other
