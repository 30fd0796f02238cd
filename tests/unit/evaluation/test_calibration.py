"""Temperature and threshold: against slow references, and through the program."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sklearn.metrics as sk
import torch
from evaluations import make_evaluation
from helpers import BEST, LAST, RUN, load
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from lightning_rnn import SequenceClassifier
from lightning_rnn.data.synthetic_module import SyntheticDataModule
from lightning_rnn.errors import OptionError
from lightning_rnn.evaluation.calibration import (
    Objective,
    calibrate,
    fit_temperature,
    fit_threshold,
    shortage,
)
from lightning_rnn.models.decision import Decision

VAL = ("--data.num_train", 64, "--data.num_val", 200, "--data.num_test", 300, "--data.seed", 5)
METRICS = {
    "accuracy": sk.accuracy_score,
    "f1": lambda y, d: sk.f1_score(y, d, zero_division=0),
    "youden": lambda y, d: sk.balanced_accuracy_score(y, d) * 2 - 1,
    "precision": lambda y, d: sk.precision_score(y, d, zero_division=0),
    "recall": sk.recall_score,
}


def sample(n, seed, scale=1.0, decimals=2):
    """Logits that know something of the labels, ties among them, both classes there."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 4 == 0).astype(int)
    logits = np.round(scale * (rng.normal(size=n) + 1.5 * y - 1), decimals)
    return torch.tensor(logits, dtype=torch.float32), torch.from_numpy(y)


@pytest.mark.parametrize("num_classes", [2, 3, 6])
@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
def test_temperature_is_that_of_the_lowest_loss(num_classes, scale):
    generator = torch.Generator().manual_seed(num_classes)
    y = torch.randint(num_classes, (300,), generator=generator)
    logits = scale * (
        torch.randn(300, num_classes, generator=generator) + torch.eye(num_classes)[y]
    )
    logits = logits[:, 1] - logits[:, 0] if num_classes == 2 else logits

    def loss(log_temperature):  # sequence by sequence
        z = np.stack([np.zeros(300), logits.numpy()], 1) if num_classes == 2 else logits.numpy()
        total = np.exp(-log_temperature) + log_temperature
        for row, code in zip(z / np.exp(log_temperature), y.tolist(), strict=True):
            log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
            total -= log_p[code]
        return total

    wanted = np.exp(
        minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).x
    )
    assert fit_temperature(logits, y) == pytest.approx(wanted, rel=1e-4)


@given(
    num_classes=st.integers(2, 6),
    n=st.integers(1, 60),
    scale=st.sampled_from([1e-4, 0.1, 1.0, 10.0, 1000.0]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_temperature_is_that_of_a_bisection(num_classes, n, scale, seed):
    """The slope of the cross entropy and of the prior by 1 / temperature, in 60 halvings."""
    rng = np.random.default_rng(seed)
    y = torch.from_numpy(rng.integers(num_classes, size=n))
    z = scale * torch.from_numpy(rng.normal(size=(n, num_classes))).float().double()
    z[torch.arange(n), y] += scale * rng.integers(3)
    target = torch.eye(num_classes, dtype=torch.float64)[y]
    low, high = -5.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        slope = (((z * np.exp(-middle)).softmax(1) - target) * z).sum()
        if slope + 1 - np.exp(middle) > 0:
            low = middle
        else:
            high = middle
    logits = z[:, 1] - z[:, 0] if num_classes == 2 else z
    assert fit_temperature(logits, y) == pytest.approx(np.exp(middle), rel=1e-5)


def test_temperature_is_finite_where_all_are_right():
    logits = torch.tensor([5.0, 6.0, -5.0, -7.0])
    assert 0.1 < fit_temperature(logits, (logits > 0).long()) < 10


@pytest.mark.parametrize("text", ["accuracy", "f1", "youden", "precision>=0.7", "recall >= .9"])
@given(n=st.integers(12, 60), seed=st.integers(0, 2**31))
@settings(max_examples=15)
def test_thresholds_are_the_best_of_all(text, n, seed):
    objective = Objective.parse(text)
    logits, y = sample(n, seed, decimals=1)
    scores = logits.sigmoid()
    found = fit_threshold(scores, y, objective)
    values = sorted({0.0, *scores.tolist()})
    decisions = [(scores > torch.tensor(value)).numpy() for value in values]
    decisions = [d for d in decisions if d.any() or objective.name == "accuracy"]
    if objective.minimum:
        decisions = [d for d in decisions if METRICS[objective.name](y, d) >= objective.minimum]
    goal = METRICS[
        {"precision": "recall", "recall": "precision"}.get(objective.name, objective.name)
    ]
    if not decisions:
        assert (found.value, found.is_reached) == (0.5, False)
        return
    decided = (scores > found.value).numpy()
    assert goal(y, decided) == pytest.approx(max(goal(y, d) for d in decisions))
    for name, rate in found.rates.items():
        assert rate == pytest.approx(METRICS[name](y, decided))
    assert not objective.minimum or METRICS[objective.name](y, decided) >= objective.minimum


def test_of_equally_good_thresholds_the_nearest_to_one_half():
    scores, y = torch.tensor([0.1, 0.2, 0.9]), torch.tensor([0, 0, 1])
    assert fit_threshold(scores, y, Objective("f1")).value == pytest.approx(0.55)


def test_adjacent_scores_are_told_apart():
    low = torch.tensor(0.7)
    scores = torch.stack([low, torch.nextafter(low, torch.tensor(1.0))])
    threshold = fit_threshold(scores, torch.tensor([0, 1]), Objective("accuracy"))
    assert (scores > threshold.value).tolist() == [False, True]


def test_a_precision_out_of_reach_leaves_the_threshold():
    logits, y = torch.tensor([3.0, 2.0, 1.0, -1.0] * 10), torch.tensor([0, 1, 0, 1] * 10)
    objective = Objective.parse("precision>=0.9")
    calibration = calibrate(make_evaluation(logits, y), objective)
    assert (calibration.threshold.value, calibration.threshold.is_reached) == (0.5, False)
    assert "no threshold reaches precision>=0.9" in calibration.describe()


def test_a_calibration_is_described_and_applied():
    logits, y = sample(200, 0)
    calibration = calibrate(make_evaluation(logits, y), Objective("f1"))
    decision = Decision()
    calibration.apply(decision)
    assert float(decision.temperature) == pytest.approx(calibration.temperature)
    assert float(decision.threshold) == calibration.threshold.value
    f1 = sk.f1_score(y, decision.predict(logits))
    assert calibration.threshold.rates["f1"] == pytest.approx(f1)
    assert re.fullmatch(
        rf"temperature \S+, threshold \S+ \(f1 {f1:.3f} on 200 validation sequences\)",
        calibration.describe(),
    )


def test_without_an_objective_the_threshold_is_one_half():
    logits, y = sample(200, 0)
    calibration = calibrate(make_evaluation(logits, y), None)
    decision = Decision()
    decision.set(3.0, 0.1)
    calibration.apply(decision)
    assert calibration.threshold is None
    assert float(decision.threshold) == 0.5
    assert re.fullmatch(r"temperature \S+ from 200 validation sequences", calibration.describe())


@pytest.mark.parametrize(
    "text",
    ["", "F1", "precision", "precision>=2", "recall>=-1", "f1>=0.5", "f1>=", "precision>=0.9x"],
)
def test_other_objectives_are_refused(text):
    with pytest.raises(OptionError, match="objective: expected accuracy, f1"):
        Objective.parse(text)


def test_shortage():
    assert shortage(torch.tensor([0] * 80 + [1] * 20), 2) is None
    assert shortage(torch.tensor([0] * 81 + [1] * 19), 2) == (
        "it needs at least 100 validation sequences and 20 of each class; "
        "there are 100, and 19 of the rarest class"
    )
    assert shortage(torch.tensor([0] * 49 + [1] * 50), 2) is not None
    assert shortage(torch.tensor([0] * 80 + [1] * 20), 3) is not None


# through the program


def stored(path):
    state = load(path)["state_dict"]
    return float(state["network.decision.temperature"]), float(state["network.decision.threshold"])


@pytest.mark.slow
def test_fit_sets_what_test_and_predict_use_in_another_process(empty, run_ok, run_apart, tiny):
    out = run_ok("fit", *tiny, *VAL, "--calibrate.objective", "recall>=0.95")
    temperature, threshold = stored(BEST)
    assert temperature != 1
    assert threshold != 0.5
    assert stored(LAST) == (1, 0.5)
    found = re.search(
        r"calibration: temperature (\S+), threshold (\S+) \(precision \S+, recall (\S+) on", out
    )
    assert [float(found[1]), float(found[2])] == pytest.approx([temperature, threshold], rel=5e-3)
    assert float(found[3]) >= 0.95
    assert run_apart("predict", cwd=empty).code == 0
    table = pl.read_csv(RUN / "predictions.csv")
    p = table["probability_positive"].to_numpy()
    part = SyntheticDataModule(num_train=64, num_val=200, num_test=300, seed=5).split("test")
    x = part.values.view(300, 10, 1)
    model = SequenceClassifier.load_from_checkpoint(BEST)
    logits = model(x, part.lengths).detach()
    np.testing.assert_allclose(p, torch.sigmoid(logits / temperature), atol=1e-6)
    np.testing.assert_allclose(p, model.predict_proba(x), atol=1e-6)
    assert (
        table["label"].to_list()
        == np.where(p > np.float32(threshold), "positive", "negative").tolist()
    )
    out = run_ok("test")
    found = json.loads((RUN / "test_metrics.json").read_text())
    y = part.labels.numpy()
    assert found["test/accuracy"] == pytest.approx(sk.accuracy_score(y, p > np.float32(threshold)))
    assert found["test/log_loss"] == pytest.approx(sk.log_loss(y, p.astype(float)), abs=1e-5)
    uncalibrated = torch.sigmoid(logits.double()).numpy()
    assert found["test/log_loss_uncalibrated"] == pytest.approx(
        sk.log_loss(y, uncalibrated), abs=1e-5
    )
    assert found["test/accuracy_uncalibrated"] == pytest.approx(
        sk.accuracy_score(y, uncalibrated > 0.5)
    )
    assert "uncalibrated" in out


def test_too_little_validation_sets_nothing(trained, run_ok):
    message = "calibration: none, as it needs at least 100 validation sequences"
    assert message in Path("fit.txt").read_text()
    assert stored(BEST) == (1, 0.5)
    out = run_ok("validate", "--calibrate.objective", "f1")
    assert message in out
    assert "calibration: temperature 1, threshold 0.5 written to" in out
    assert out.index("metrics before this calibration") < out.index("val/accuracy")
    last = LAST.read_bytes()
    out = run_ok("validate", "--calibrate.objective", "f1", "--calibrate.when", "always")
    assert "threshold" in out
    assert "f1" in out
    assert stored(BEST) != (1, 0.5)
    assert LAST.read_bytes() == last
    before = BEST.read_bytes()
    run_ok("validate")
    assert BEST.read_bytes() == before


def test_without_validation(empty, run_ok, tiny):
    out = run_ok("fit", *tiny, "--data.num_train", 32, "--data.num_val", 0)
    assert "no validation split" in out
    assert stored(BEST) == (1, 0.5)


def test_never_and_nonsense(empty, run, run_ok, tiny):
    assert "calibration:" not in run_ok("fit", *tiny, *VAL, "--calibrate.when", "never")
    assert stored(BEST) == (1, 0.5)
    result = run("fit", *tiny, *VAL, "--calibrate.objective", "best")
    assert result.code == 2
    assert "--calibrate.objective: expected accuracy, f1" in result.err


def test_training_goes_on_from_a_decided_checkpoint_as_from_any(empty, run_ok, tiny):
    run_ok("fit", *tiny, *VAL, "--model.schedule", "constant")
    assert stored(BEST) != (1, 0.5)
    weights = []
    for name in (
        "best",
        "last",
    ):  # the second of two epochs was the best: equal but for the decision
        run_ok("fit", "--ckpt_path", LAST.with_name(f"{name}.ckpt"), "--trainer.max_epochs", 3)
        weights.append(load(LAST))
    assert weights[1]["global_step"] == weights[0]["global_step"]
    assert stored(LAST) == (1, 0.5)


@pytest.mark.slow
def test_calibration_helps_an_overfitted_model(empty, run_ok, files):
    """Trained on 300 sequences until it knows them by heart, tested on 10,000 others."""
    data = ("--data.task", "adding", "--data.length", 20)
    sizes = ("--data.num_train", 300, "--data.num_val", 500)
    model = ("--model.cell", "gru", "--model.hidden_size", 64)
    training = ("--trainer.max_epochs", 60, "--trainer.check_val_every_n_epoch", 60)
    run_ok("fit", *data, *sizes, *model, *training)
    run_ok("test", "--ckpt_path", BEST)
    found = json.loads((RUN / "test_metrics.json").read_text())
    temperature, _ = stored(BEST)
    assert temperature > 1.1
    assert found["test/log_loss"] < found["test/log_loss_uncalibrated"]
    model = SequenceClassifier.load_from_checkpoint(BEST)
    part = SyntheticDataModule(task="adding", length=20, num_train=300, num_val=500).split("test")
    logits = model(part.values.view(-1, 20, 2), part.lengths).detach().double()
    before, after = logits.sigmoid(), model.network.decision.probabilities(logits)
    assert sk.roc_auc_score(part.labels, after) == pytest.approx(
        sk.roc_auc_score(part.labels, before), abs=1e-6
    )
    order = before.argsort()
    assert bool((after[order].diff() >= 0).all())


def test_many_classes_have_a_temperature_alone(empty, run, run_ok, tiny, files):
    paths = [files / f"JapaneseVowels_slice_{part}.ts" for part in ("TRAIN", "TEST")]
    data = ("--data", "FileDataModule", "--data.train_path", paths[0], "--data.val_path", paths[1])
    refused = run("fit", *tiny, *data, "--calibrate.objective", "f1")
    message = "--calibrate.objective: expected none with 9 classes, which have no threshold, got"
    assert (refused.code, message in refused.err) == (2, True)
    assert not RUN.exists()
    out = run_ok("fit", *tiny, *data, "--calibrate.when", "always")
    temperature, threshold = stored(BEST)
    assert temperature != 1
    assert threshold == 0.5
    assert "threshold" not in out
    paths = (*data[:4], "--data.val_fraction", 0)
    out = run_ok("fit", *tiny, *paths)
    assert "calibration: none, as there is no validation split\n" in out
    assert "calibration: none, as it needs" in run_ok("fit", *tiny, *data)
