"""Learning rates against torch's own schedulers, and how they reach an optimizer."""

import math

import pytest
import torch
from torch import nn

from lightning_rnn.training.schedules import schedule_factor, set_learning_rates


def torchs_rates(scheduler, total, **options):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    schedule = scheduler(optimizer, **options)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("total", [1, 7, 100])
def test_cosine_equals_torchs(total):
    expected = torchs_rates(torch.optim.lr_scheduler.CosineAnnealingLR, total, T_max=total)
    assert [
        0.02 * schedule_factor("cosine", step, total) for step in range(total)
    ] == pytest.approx(expected, rel=1e-6)
    assert 0.02 * schedule_factor("cosine", 0, total) == 0.02
    assert 0.02 * schedule_factor("cosine", total, total) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("total", [10, 50, 1000])
def test_onecycle_equals_torchs(total):
    """torch's rises until step pct_start * total_steps - 1 and ends at step total_steps - 1."""
    options = {
        "max_lr": 0.02,
        "total_steps": total + 1,
        "pct_start": (0.3 * total + 1) / (total + 1),
    }
    scheduler = torch.optim.lr_scheduler.OneCycleLR
    expected = torchs_rates(scheduler, total, cycle_momentum=False, three_phase=False, **options)
    rates = [0.02 * schedule_factor("onecycle", step, total) for step in range(total)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert rates[0] == pytest.approx(0.02 / 25)
    assert max(rates) == pytest.approx(0.02)
    assert rates.index(max(rates)) == round(0.3 * total)
    assert 0.02 * schedule_factor("onecycle", total, total) == pytest.approx(0.02 / 250_000)


def test_constant_stays():
    steps = ((0, 10), (10, 10), (5, math.inf))
    assert {0.02 * schedule_factor("constant", step, total) for step, total in steps} == {0.02}


@pytest.mark.parametrize(
    ("schedule", "end"), [("cosine", 0.0), ("onecycle", 0.01 / 250_000), ("constant", 0.01)]
)
def test_the_rate_stays_at_its_end_beyond_the_last_step(schedule, end):
    assert 0.01 * schedule_factor(schedule, 500, 100) == pytest.approx(end, abs=1e-15)


def optimizer_with(*rates):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups)


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_each_group_has_its_own_highest_rate():
    optimizer = optimizer_with(0.1, 0.01)
    for factor in (0.04, 1.0, 0.5, 0.0):
        set_learning_rates(optimizer, factor)
        assert rates_of(optimizer) == [0.1 * factor, 0.01 * factor]


def test_an_added_group_starts_at_its_rate_and_follows_the_schedule():
    optimizer = optimizer_with(0.1)
    set_learning_rates(optimizer, 0.5)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.004})
    set_learning_rates(optimizer, 0.5)
    assert rates_of(optimizer) == pytest.approx([0.05, 0.004])
    set_learning_rates(optimizer, 0.25)
    assert rates_of(optimizer) == pytest.approx([0.025, 0.002])


def test_a_rate_set_by_someone_else_is_kept_and_follows_the_schedule():
    optimizer = optimizer_with(0.1)
    set_learning_rates(optimizer, 0.5)
    optimizer.param_groups[0]["lr"] = 0.3
    set_learning_rates(optimizer, 0.5)
    assert rates_of(optimizer) == pytest.approx([0.3])
    set_learning_rates(optimizer, 0.25)
    assert rates_of(optimizer) == pytest.approx([0.15])


def test_a_stored_optimizer_continues_its_schedule():
    whole = optimizer_with(0.1, 0.01)
    set_learning_rates(whole, 0.7)
    resumed = optimizer_with(0.1, 0.01)
    resumed.load_state_dict(whole.state_dict())
    for optimizer in (whole, resumed):
        set_learning_rates(optimizer, 0.6)
    assert rates_of(whole) == rates_of(resumed)
