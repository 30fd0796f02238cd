"""Metrics against scikit-learn on the same numbers."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from evaluations import make_evaluation, random_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.evaluation.metrics import (
    CALIBRATION_BINS,
    TEST_METRICS,
    evaluate,
    evaluate_classes,
    evaluate_test,
)
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies

ALL = (*TEST_METRICS, "ece")
FULL = {
    "loss",
    "accuracy",
    "auroc",
    "f1",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "log_loss",
    "ece",
}


def probabilities_of(logits):
    """(N, K) in double precision."""
    if logits.ndim == 1:
        # torch's sigmoid rounds equal inputs differently at the end of a tensor, which breaks ties
        p = 1 / (1 + np.exp(-logits.double().numpy()))
        return np.stack([1 - p, p], axis=1)
    return logits.double().softmax(1).numpy()


def slow_ece(p, y):
    error = 0.0
    for low in range(CALIBRATION_BINS):
        inside = [i for i in range(len(y)) if low <= p[i].max() * CALIBRATION_BINS < low + 1]
        if inside:
            confidence = sum(p[i].max() for i in inside) / len(inside)
            accuracy = sum(p[i].argmax() == y[i] for i in inside) / len(inside)
            error += len(inside) / len(y) * abs(confidence - accuracy)
    return error


def reference(o):
    """The same metrics from scikit-learn."""
    p, y = probabilities_of(o.logits), o.labels.numpy()
    k = p.shape[1]
    score = p[:, 1] if k == 2 else p
    decided = p.argmax(1)
    average = "binary" if k == 2 else "macro"
    return {
        "loss": o.losses.mean().item(),
        "accuracy": sk.accuracy_score(y, decided),
        "auroc": sk.roc_auc_score(y, score, multi_class="ovr", average="macro"),
        "f1": sk.f1_score(y, decided, average=average, zero_division=0),
        "average_precision": sk.average_precision_score(
            y if k == 2 else np.eye(k)[y], score, average="macro"
        ),
        "balanced_accuracy": sk.balanced_accuracy_score(y, decided),
        "brier": sk.brier_score_loss(y, score, labels=np.arange(k)),
        "log_loss": sk.log_loss(y, p, labels=np.arange(k)),
        "ece": slow_ece(p, y),
    }


@given(n=st.integers(8, 80), seed=st.integers(0, 2**31))
@settings(max_examples=20)
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_equal_scikit_learns(num_classes, n, seed):
    o = random_evaluation(num_classes, n, seed)
    found = evaluate(o, Decision(), ALL)
    assert set(found) == FULL
    assert all(value.dtype == torch.float32 and value.shape == () for value in found.values())
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        reference(o), abs=1e-5
    )


def test_a_short_evaluation_is_part_of_the_full_one():
    o = random_evaluation(3, 40, 0)
    short, full = evaluate(o, Decision()), evaluate(o, Decision(), ALL)
    assert set(short) == {"loss", "accuracy", "auroc", "f1"}
    assert all(short[name] == full[name] for name in short)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_areas_are_those_of_the_calibrated_probabilities(num_classes):
    o = random_evaluation(num_classes, 60, 0)
    decision = Decision()
    decision.set(temperature=3.0)
    found = evaluate_test(o, decision)
    calibrated = reference(replace(o, logits=o.logits / 3))
    for name in ("auroc", "average_precision"):
        assert found[name].item() == pytest.approx(calibrated[name], abs=1e-6)
        if num_classes == 3:
            before = found[f"{name}_uncalibrated"].item()
            assert before == pytest.approx(reference(o)[name], abs=1e-6)
            assert abs(before - calibrated[name]) > 1e-4


def test_calibration_error_of_many_equal_probabilities():
    """A sum in float32 would be wrong by 0.001."""
    labels = (torch.arange(300_000) % 100 != 0).long()
    probability = torch.tensor(0.99)
    o = make_evaluation(probability.logit().expand(300_000), labels)
    found = evaluate(o, Decision(), ["ece"])["ece"]
    assert found.item() == pytest.approx(0, abs=1e-6)


def test_by_hand():
    found = evaluate(make_evaluation([2.0, -1.0, 0.5, 0.0], [1, 1, 0, 0]), Decision(), ALL)
    p = 1 / (1 + np.exp([-2.0, 1.0, -0.5, 0.0]))
    assert found["loss"].item() == 2.0
    assert found["accuracy"].item() == 0.5  # a logit of 0 is decided as the first class
    assert found["auroc"].item() == 0.5
    assert found["f1"].item() == 0.5
    assert found["brier"].item() == pytest.approx(((p - [1, 1, 0, 0]) ** 2).mean())
    assert found["log_loss"].item() == pytest.approx(
        -np.log([p[0], p[1], 1 - p[2], 1 - p[3]]).mean()
    )


def test_confident_logits_are_ranked_apart():
    """Their probabilities are all 1, in double precision as well."""
    found = evaluate(make_evaluation([300.0, 310.0, 320.0, 330.0], [0, 0, 1, 1]), Decision(), ALL)
    assert (found["auroc"].item(), found["average_precision"].item()) == (1.0, 1.0)


@pytest.mark.parametrize("y", [0, 1])
def test_one_class_of_two_leaves_out_what_is_undefined(y):
    o = make_evaluation([1.0, -1.0, 2.0], [y] * 3)
    found = evaluate(o, Decision(), ALL)
    assert set(found) - {"f1"} == FULL - {"auroc", "average_precision", "f1"}
    accuracy = 2 / 3 if y else 1 / 3
    assert found["accuracy"].item() == found["balanced_accuracy"].item() == pytest.approx(accuracy)
    assert found["log_loss"].item() == pytest.approx(
        sk.log_loss(o.labels, probabilities_of(o.logits), labels=[0, 1])
    )
    assert found["ece"].item() == pytest.approx(
        slow_ece(probabilities_of(o.logits), o.labels.numpy()), abs=1e-6
    )
    if y:
        assert found["f1"].item() == pytest.approx(0.8)


@pytest.mark.parametrize("logits", [[-1.0, -2.0], [1.0, -2.0]])
def test_f1_is_left_out_where_nothing_is_labelled_positive(logits):
    """It would be 0 / 0 or 0 for any prediction: a perfect classifier would look like the worst."""
    assert set(evaluate(make_evaluation(logits, [0, 0]), Decision())) == {
        "loss",
        "accuracy",
    }


def test_missing_classes_of_many():
    o = make_evaluation([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]], [0, 1, 1])
    found = evaluate(o, Decision(), ALL)
    assert set(found) == FULL - {"auroc", "average_precision"}
    decided = [0, 1, 0]
    assert found["balanced_accuracy"].item() == pytest.approx(
        sk.balanced_accuracy_score(o.labels, decided)
    )
    assert found["f1"].item() == pytest.approx(sk.f1_score(o.labels, decided, average="macro"))


@given(n=st.integers(1, 20), seed=st.integers(0, 2**31))
@settings(max_examples=20)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_cross_entropies_equal_the_definition(num_classes, n, seed):
    o = random_evaluation(num_classes, n, seed)
    p = probabilities_of(o.logits)
    expected = [-np.log(p[i, y]) for i, y in enumerate(o.labels)]
    np.testing.assert_allclose(
        cross_entropies(o.logits, o.labels).numpy(), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("num_classes", "n"), [(2, 30), (3, 40), (12, 25)])
def test_metrics_of_classes_equal_scikit_learns(num_classes, n):
    evaluation = random_evaluation(num_classes, n, seed=n)
    names = [f"class {k}" for k in range(num_classes)]
    y = evaluation.labels.numpy()
    decided = Decision().predict(evaluation.logits).numpy()
    codes = list(range(num_classes))
    expected = sk.precision_recall_fscore_support(y, decided, labels=codes, zero_division=np.nan)
    matrix = sk.confusion_matrix(y, decided, labels=codes)
    for k, found in enumerate(evaluate_classes(evaluation, Decision(), names).values()):
        values = [np.nan if v is None else v for v in (found.precision, found.recall, found.f1)]
        assert values == pytest.approx([column[k] for column in expected[:3]], nan_ok=True)
        assert found.support == expected[3][k]
        assert found.predicted_as == dict(zip(names, matrix[k].tolist(), strict=True))
