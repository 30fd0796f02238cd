"""Learning rates against torch's own schedulers."""

import math

import pytest
import torch
from torch import nn

from lightning_rnn.training.schedules import learning_rate


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
    assert [learning_rate("cosine", 0.02, step, total) for step in range(total)] == pytest.approx(
        expected, rel=1e-6
    )
    assert learning_rate("cosine", 0.02, 0, total) == 0.02
    assert learning_rate("cosine", 0.02, total, total) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("total", [10, 50, 1000])
def test_onecycle_equals_torchs(total):
    """Torch rises until step pct_start * total_steps - 1 and ends at total_steps - 1; ours at 0.3 total and total."""
    options = {
        "max_lr": 0.02,
        "total_steps": total + 1,
        "pct_start": (0.3 * total + 1) / (total + 1),
    }
    scheduler = torch.optim.lr_scheduler.OneCycleLR
    expected = torchs_rates(scheduler, total, cycle_momentum=False, three_phase=False, **options)
    rates = [learning_rate("onecycle", 0.02, step, total) for step in range(total)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert rates[0] == pytest.approx(0.02 / 25)
    assert max(rates) == pytest.approx(0.02)
    assert rates.index(max(rates)) == round(0.3 * total)
    assert learning_rate("onecycle", 0.02, total, total) == pytest.approx(0.02 / 250_000)


def test_constant_stays():
    steps = ((0, 10), (10, 10), (5, math.inf))
    assert {learning_rate("constant", 0.02, step, total) for step, total in steps} == {0.02}


@pytest.mark.parametrize(
    ("schedule", "end"), [("cosine", 0.0), ("onecycle", 0.01 / 250_000), ("constant", 0.01)]
)
def test_the_rate_stays_at_its_end_beyond_the_last_step(schedule, end):
    assert learning_rate(schedule, 0.01, 500, 100) == pytest.approx(end, abs=1e-15)
