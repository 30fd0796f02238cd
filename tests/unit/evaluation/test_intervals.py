"""Confidence intervals: parts against references, coverage in a short simulation."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import make_evaluation, random_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import one_hot

from lightning_rnn.evaluation.intervals import (
    Z,
    confidence_intervals,
    design_effect,
    newcombe_interval,
    skewed_interval,
    wilson_interval,
)
from lightning_rnn.evaluation.metrics import RANK_METRICS, TEST_METRICS, Metrics, evaluate
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies


def decision_of(temperature=1.7, threshold=0.4):
    decision = Decision()
    decision.set(temperature, threshold)
    return decision


@given(seed=st.integers(0, 2**31), n=st.integers(8, 25), num_classes=st.sampled_from([2, 3, 5]))
@settings(max_examples=20)
def test_influences_are_derivatives(seed, n, num_classes):
    """Of a metric of 100 copies of each sequence, by the copies of one."""
    evaluation = random_evaluation(num_classes, n, seed)
    decision = decision_of()
    names = ["f1", "auroc", "average_precision"]
    found = Metrics(evaluation, decision).influences(names)
    row = seed % n
    values = {}
    for copies in (99, 101):
        counts = torch.full((n,), 100)
        counts[row] = copies
        rows = torch.arange(n).repeat_interleave(counts)
        metrics = Metrics(evaluation.select(rows), decision)
        values[copies] = torch.stack([metrics.value(name) for name in names])
    expected = (values[101] - values[99]) * 50
    influence = torch.stack([found[name][row] for name in names])
    torch.testing.assert_close(influence, expected, atol=1e-5, rtol=1e-3)


def test_influences_of_means_and_areas_add_up_to_nothing():
    metrics = Metrics(random_evaluation(4, 50, 0), Decision())
    for name, influence in metrics.influences(["f1", *RANK_METRICS]).items():
        assert float(influence.sum()) == pytest.approx(0, abs=1e-12), name


def test_wilson_equals_scipys():
    for correct, n in [(0, 10), (7, 10), (30, 30), (3999, 4000)]:
        expected = stats.binomtest(correct, n).proportion_ci(method="wilson")
        assert wilson_interval(correct / n, n) == pytest.approx(tuple(expected), abs=1e-6)


@pytest.mark.parametrize("auroc", [0.0, 0.3, 0.5, 0.92, 1.0])
def test_newcombe_bounds_solve_the_equation(auroc):
    interval = newcombe_interval(auroc, 20, 35)
    for bound in (interval.low, interval.high):
        assert 0 <= bound <= 1
        if 0 < bound < 1:
            factor = 1 + 26.5 * (1 - bound) / (2 - bound) + 26.5 * bound / (1 + bound)
            variance = bound * (1 - bound) * factor / (20 * 35)
            assert abs(auroc - bound) == pytest.approx(Z * math.sqrt(variance), rel=1e-6)
    assert interval.low < auroc or auroc == 0
    assert interval.high > auroc or auroc == 1


@given(seed=st.integers(0, 2**31), n=st.integers(4, 60))
@settings(max_examples=20)
def test_bounds_of_a_skewed_mean_solve_the_equation(seed, n):
    values = np.random.default_rng(seed).exponential(size=n) ** 2
    mean = values.mean()
    low, high = skewed_interval(mean, torch.from_numpy((values - mean) / n))
    s = stats.skew(values) / n**0.5
    error = values.std() * (1 / (n - 3)) ** 0.5
    for bound, quantile in ((low, Z), (high, -Z)):
        t = (mean - bound) / error
        assert t + s * t**2 / 3 + s**2 * t**3 / 27 + s / 6 == pytest.approx(quantile)


def test_without_skewness_it_is_the_normal_interval():
    values = torch.tensor([-1.0, 0.0, 1.0] * 5, dtype=torch.float64)
    low, high = skewed_interval(7.0, values / 15)
    error = float(values.square().mean() / 12) ** 0.5
    assert (low, high) == pytest.approx((7 - Z * error, 7 + Z * error))
    assert skewed_interval(7.0, torch.zeros(4, dtype=torch.float64)) == (7.0, 7.0)


def test_copies_in_a_group_count_once():
    """Each sequence four times, as one group: the intervals of the sequences alone."""
    single = random_evaluation(2, 50, 3)
    copies = single.select(torch.arange(50).repeat_interleave(4))
    groups = np.array([f"{i:02}" for i in range(50)]).repeat(4)
    expected = confidence_intervals(single, Decision())
    found = confidence_intervals(copies, Decision(), groups)
    assert set(found) == set(expected)
    for name, interval in expected.items():
        bounds = (found[name].low, found[name].high)
        assert bounds == pytest.approx((interval.low, interval.high), abs=0.01), name


def test_the_design_effect_of_single_sequences_is_one():
    assert design_effect(torch.randn(10), torch.arange(10)) == 1
    assert design_effect(torch.zeros(12), torch.arange(12) // 3) == 3


@given(seed=st.integers(0, 2**31), num_groups=st.integers(4, 12), group_size=st.integers(2, 9))
@settings(max_examples=20)
def test_the_design_effect_is_that_of_the_sums_of_groups(seed, num_groups, group_size):
    values = np.random.default_rng(seed).normal(size=(num_groups, group_size))
    values -= values.mean()
    of_groups = num_groups * values.sum(1).var(ddof=1)  # variance of the sum of all values
    effect = of_groups / (values**2).sum() * (num_groups - 1) / (num_groups - 3)
    expected = np.clip(effect, 1, group_size)
    units = torch.arange(num_groups).repeat_interleave(group_size)
    found = design_effect(torch.from_numpy(values).flatten(), units)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_few_groups_count_as_single_sequences(num_groups):
    evaluation = random_evaluation(2, 60, 0)
    groups = np.arange(60) % num_groups
    found = confidence_intervals(evaluation, Decision(), groups)
    assert set(found) == {"accuracy", "balanced_accuracy", "f1", "auroc"}
    share = float(evaluate(evaluation, Decision())["accuracy"])
    low, high = wilson_interval(share, num_groups)
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_they_contain_the_estimate(num_classes):
    evaluation = random_evaluation(num_classes, 90, 1)
    found = confidence_intervals(evaluation, Decision())
    values = evaluate(evaluation, Decision(), TEST_METRICS)
    assert set(found) == set(values)
    for name, interval in found.items():
        assert interval.low < values[name].item() < interval.high


def test_all_correct_is_not_certain():
    labels = torch.arange(30) % 2
    found = confidence_intervals(make_evaluation(20.0 * labels - 10, labels), Decision())
    for name in ("accuracy", "balanced_accuracy", "f1", "auroc", "average_precision"):
        assert found[name].low < 0.97, name
        assert found[name].high == pytest.approx(1), name


def test_losses_if_every_sequence_was_of_another_class():
    for num_classes in (2, 4):
        evaluation = random_evaluation(num_classes, 20, 3)
        decision = decision_of()
        metrics = Metrics(evaluation, decision)
        for name, temperature in (("loss", 1.0), ("log_loss", 1.7)):
            logits = evaluation.logits / temperature
            losses = []
            for shift in range(1, num_classes):
                others = (evaluation.labels + shift) % num_classes
                losses.append(cross_entropies(logits, others))
            expected = float(torch.stack(losses).double().mean())
            if name == "loss":
                own = cross_entropies(evaluation.logits, evaluation.labels)
                expected *= float(evaluation.losses.sum() / own.sum())
            assert metrics.losses_if_wrong[name] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_mistakes", [0, 1, 3])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_losses_of_few_and_nearly_perfect_sequences(num_classes, num_mistakes):
    """The mean is that of mistakes as frequent as Wilson's interval allows, at most."""
    labels = torch.arange(30) % num_classes
    generator = torch.Generator().manual_seed(num_mistakes)
    margins = (5 + torch.randn(30, generator=generator)).clamp(min=2)
    margins[:num_mistakes] *= -1
    signs = 2.0 * labels - 1
    logits = signs * margins
    if num_classes == 3:
        logits = margins[:, None] * one_hot(labels, 3)
    losses = cross_entropies(logits, labels)
    evaluation = replace(make_evaluation(logits, labels), losses=losses)
    found = confidence_intervals(evaluation, Decision())
    metrics = Metrics(evaluation, Decision())
    share = wilson_interval(num_mistakes / 30, 30)[1]
    for name, loss_of_mistake in (("loss", 6), ("log_loss", 6), ("brier", num_classes - 1)):
        assert found[name].low < float(metrics.value(name)) < found[name].high, name
        most = share * loss_of_mistake
        assert most / 4 < found[name].high < most + 0.05, name


def test_undefined_metrics_are_left_out():
    logits = [1.0, -1.0, 2.0, -2.0]
    found = confidence_intervals(make_evaluation(logits, [0, 0, 0, 0]), Decision())
    assert set(TEST_METRICS) - set(found) == {"auroc", "average_precision", "f1"}


def test_areas_of_many_logits_have_no_intervals(monkeypatch):
    monkeypatch.setattr("lightning_rnn.evaluation.intervals.MAX_RANKED", 3 * 40 - 1)
    found = confidence_intervals(random_evaluation(3, 40, 0), Decision())
    assert set(TEST_METRICS) - set(found) == set(RANK_METRICS)


def test_coverage(monkeypatch):
    """A short form of benchmarks/coverage.py, whose results are under benchmarks/results."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    from benchmarks.coverage import METRICS, measure_coverage

    rows = measure_coverage("good", n=100, share=0.1, repetitions=80)
    settings_of_groups = {"repetitions": 80, "group_size": 10}
    rows += measure_coverage("good", n=50, share=0.5, **settings_of_groups)
    assert [row["metric"] for row in rows] == 2 * list(METRICS)
    rare = measure_coverage("excellent", n=30, share=0.5, repetitions=40)
    for row in rare:
        if row["metric"] in ("brier", "log_loss"):
            assert float(row["coverage"]) >= 0.9, row
            assert float(row["mean_width"]) < 2, row
    for row in rows:
        # 0.95 less three standard errors of 80 repetitions
        assert float(row["coverage"]) >= 0.87, row
        assert row["group_size"] > 1 or float(row["mean_width"]) < 0.65, row
