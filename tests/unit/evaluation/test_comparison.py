"""Intervals of a mean over seeds."""

import numpy as np
import pytest
from scipy import stats

from lightning_rnn.evaluation.comparison import T_QUANTILES, mean_interval, summarize
from lightning_rnn.evaluation.intervals import wilson_interval


def test_quantiles_are_those_of_scipy():
    freedom = np.arange(1, len(T_QUANTILES) + 1)
    assert stats.t.ppf(0.975, freedom) == pytest.approx(T_QUANTILES, abs=6e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_without_width_of_the_tests_it_is_the_t_interval(n):
    values = np.random.default_rng(n).uniform(0.4, 0.5, n).tolist()
    interval = mean_interval(values, [np.mean(values)] * n, [np.mean(values)] * n)
    low, high = stats.t.interval(0.95, n - 1, np.mean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-3)


def test_more_than_ten_seeds_give_a_wider_interval_than_the_t_interval():
    values = np.random.default_rng(0).uniform(0.4, 0.5, 20).tolist()
    interval = mean_interval(values, [np.mean(values)] * 20, [np.mean(values)] * 20)
    low, high = stats.t.interval(0.95, 19, np.mean(values), stats.sem(values))
    assert interval.low < low
    assert interval.high > high


def test_interval_stays_between_0_and_1():
    interval = mean_interval([0.95, 1.0], [0.8, 0.9], [1.0, 1.0])
    assert interval.low < 0.9
    assert interval.high == 1.0


@pytest.mark.parametrize("shares_test", [True, False])
def test_interval_contains_the_expected_accuracy(shares_test):
    """Accuracies of seeds vary around 0.8, and so do the shares of correct test sequences."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        true = rng.normal(0.8, 0.03, 3).clip(0, 1)  # of the model of each seed
        draws = rng.random((1, 200) if shares_test else (3, 200))
        values = (draws < true[:, None]).mean(1).tolist()
        bounds = [wilson_interval(value, 200) for value in values]
        interval = mean_interval(values, [b[0] for b in bounds], [b[1] for b in bounds])
        hits += interval.low <= 0.8 <= interval.high
    assert hits >= 0.93 * 400


def test_summary_of_two_seeds():
    first = {"test/accuracy": 0.8, "test/accuracy_low": 0.7, "test/accuracy_high": 0.9}
    second = {"test/accuracy": 0.9, "test/accuracy_low": 0.8, "test/accuracy_high": 1.0}
    common = {"test/log_loss": 0.5, "parameters": 7, "seconds": 2.0}
    summary = summarize("rnn", [first | common, second | common | {"seconds": 4.0}])
    assert summary.accuracy == pytest.approx(0.85)
    assert summary.interval.low == pytest.approx(0.85 - np.hypot(0.1, 12.706 * 0.05), abs=1e-3)
    assert (summary.seconds, summary.log_loss, summary.parameters) == (3.0, 0.5, 7)
