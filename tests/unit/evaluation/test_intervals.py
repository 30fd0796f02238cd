"""Bootstrap intervals: each resample equals `evaluate` on the sequences it drew."""

import numpy as np
import pytest
import torch
from helpers import make_evaluation, random_evaluation

from lightning_rnn.evaluation.intervals import _draw, _units, _Weighted, intervals
from lightning_rnn.evaluation.metrics import evaluate
from lightning_rnn.models.decision import Decision


def decision_of(temperature=1.7, threshold=0.4):
    decision = Decision()
    decision.set(temperature, threshold)
    return decision


@pytest.mark.parametrize(
    "groups", [None, np.array([f"g{i % 13}" for i in range(60)], dtype=object)]
)
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_a_resample_equals_the_metrics_of_its_sequences(num_classes, groups):
    o, decision = random_evaluation(num_classes, 60, num_classes), decision_of()
    weights = _draw(*_units(o.labels, groups), 20, np.random.default_rng(0))
    if groups is None:
        assert set(weights.sum(1).tolist()) == {60.0}
    else:
        assert all(
            bool((part == part[:, :1]).all())
            for part in (weights[:, groups == g] for g in set(groups))
        )
    compared = 0
    found = _Weighted(o, decision)(weights)
    for i, row in enumerate(weights.long()):
        drawn = torch.arange(60).repeat_interleave(row)
        wanted = evaluate(o.select(drawn), decision, full=True)
        if len(o.labels[drawn].unique()) == num_classes:
            compared += 1
            assert {k: v[i].item() for k, v in found.items()} == pytest.approx(
                {k: v.item() for k, v in wanted.items()}, abs=2e-5
            )
    assert compared > 10


def test_classes_keep_their_sizes_and_groups_stay_whole():
    y = torch.tensor([0] * 10 + [1] * 30)
    weights = _draw(*_units(y, None), 50, np.random.default_rng(0))
    assert set(weights[:, :10].sum(1).tolist()) == {10.0}
    groups = np.repeat([f"g{i}" for i in range(8)], 5)
    weights = _draw(*_units(y, groups), 50, np.random.default_rng(0)).view(50, 8, 5)
    assert bool((weights == weights[:, :, :1]).all())
    assert set(weights[:, :2, 0].sum(1).tolist()) == {2.0}


def test_accuracy_has_the_binomial_interval():
    """At the rate of each class, as classes keep their sizes."""
    rng = np.random.default_rng(0)
    y = np.arange(4000) % 2
    o = make_evaluation(np.where(rng.random(4000) < 0.8, 1, -1) * (2.0 * y - 1), y)
    low, high = intervals(o, Decision())["accuracy"]
    correct = ((o.logits > 0).long() == o.labels).double()
    wide = 1.96 * float(sum(correct[y == k].var() * 2000 for k in (0, 1))) ** 0.5 / 4000
    mean = float(correct.mean())
    assert [low, high] == pytest.approx([mean - wide, mean + wide], abs=0.0015)


def test_they_hold_the_estimate_and_come_from_the_seed():
    o = random_evaluation(3, 90, 1)
    found = intervals(o, Decision(), resamples=300)
    value = evaluate(o, Decision(), full=True)
    assert set(found) == set(value)
    assert all(
        found[name][0] <= value[name].item() <= found[name][1] for name in found if name != "ece"
    )
    assert (
        found
        == intervals(o, Decision(), resamples=300)
        != intervals(o, Decision(), resamples=300, seed=1)
    )


def test_what_is_undefined_is_left_out():
    found = intervals(make_evaluation([1.0, -1.0, 2.0], [0, 0, 0]), Decision(), resamples=10)
    assert not {"auroc", "average_precision", "f1"} & set(found)
    assert np.isfinite(list(found.values())).all()
