"""The scikit-learn estimator."""

import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from lightning_rnn import RecurrentClassifier, SequenceClassifier, Sequences, StreamingClassifier
from lightning_rnn import estimator as estimator_module
from lightning_rnn.data.split import split_rows
from lightning_rnn.errors import DataError, OptionError
from lightning_rnn.training.arrays import as_arrays

STEPS = "columns are time steps, of which another sequence may have more or fewer, not features"
UNMET = {
    "check_classifiers_train": STEPS,  # its last demand; that it learns is tested below
    "check_n_features_in": STEPS,
    "check_n_features_in_after_fitting": STEPS,
    "check_sample_weight_equivalence_on_dense_data": "batches of repeated sequences are others",
}
QUICK = {"hidden_size": 8, "max_steps": 20, "random_state": 0}
FILES = yaml.safe_load((Path(__file__).parents[2] / "configs/files.yaml").read_text())


@parametrize_with_checks(
    [RecurrentClassifier(hidden_size=8, stem="conv", max_steps=10, random_state=0)],
    expected_failed_checks=lambda estimator: UNMET,
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def problem(n=90, steps=8, seed=0):
    """Sequences whose class (of three) is where the second feature is high."""
    rng = np.random.default_rng(seed)
    y = np.array(["early", "late", "never"])[np.arange(n) % 3]
    x = rng.normal(size=(n, steps, 2)).astype(np.float32)
    x[y == "early", : steps // 2, 1] += 3
    x[y == "late", steps // 2 :, 1] += 3
    x[rng.random(x.shape) < 0.05] = np.nan
    return x, y


@pytest.fixture(scope="module")
def fitted():
    x, y = problem()
    return RecurrentClassifier(
        cell="gru", bidirectional=False, hidden_size=8, max_steps=60, random_state=0
    ).fit(x, y)


def settings_of_fit(monkeypatch, **settings):
    """Return the model and what the Trainer got, of an estimator with these settings."""
    trainers = []

    class RecordingTrainer(Trainer):
        def __init__(self, **arguments):
            trainers.append(arguments)
            super().__init__(**arguments | {"max_steps": 1})

    monkeypatch.setattr(estimator_module, "Trainer", RecordingTrainer)
    x, y = problem()
    model = RecurrentClassifier(**settings).fit(x, y == "early").model_
    return model, trainers[-1]


def test_the_defaults_are_those_of_the_config(monkeypatch):
    model, trainer = settings_of_fit(monkeypatch)
    given = {name: value for name, value in FILES["model"].items() if value is not None}
    assert given.items() <= {k: v for k, v in model.hparams.items() if k in given}.items()
    assert FILES["trainer"].items() <= trainer.items()
    given = RecurrentClassifier().get_params()
    common = FILES["model"].keys() & given.keys()
    assert {name: given[name] for name in common} == {k: FILES["model"][k] for k in common}
    assert {"cell", "hidden_size", "lr", "stem"} <= common


def test_a_new_key_of_the_config_is_enough(monkeypatch):
    monkeypatch.setitem(estimator_module.MODEL, "pos_weight", 2.0)
    monkeypatch.setitem(estimator_module.TRAINER, "accumulate_grad_batches", 2)
    model, trainer = settings_of_fit(monkeypatch)
    assert model.class_weight.tolist() == [1.0, 2.0]
    assert trainer["accumulate_grad_batches"] == 2


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_epochs": 3}, (3, -1)),
        ({"max_steps": 3}, (-1, 3)),
        ({"max_epochs": 2, "max_steps": 3}, (2, 3)),
    ],
)
def test_how_long_it_trains(monkeypatch, limits, expected):
    _, trainer = settings_of_fit(monkeypatch, **limits)
    assert (trainer["max_epochs"], trainer["max_steps"]) == expected


def test_a_few_steps_of_the_defaults_learn():
    model = RecurrentClassifier(max_steps=60, random_state=0).fit(*problem())
    assert model.score(*problem(seed=1)) > 0.9


def test_it_learns(fitted):
    x, y = problem(seed=1)
    p = fitted.predict_proba(x)
    assert p.shape == (90, 3)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert fitted.classes_.tolist() == ["early", "late", "never"]
    assert fitted.n_features_in_ == 2
    assert (fitted.predict(x) == y).mean() == fitted.score(x, y) > 0.9
    np.testing.assert_array_equal(p, fitted.model_.predict_proba(x))


def test_two_classes_have_two_columns():
    x, y = problem()
    y = y == "early"
    model = RecurrentClassifier(**QUICK).fit(x, y)
    p = model.predict_proba(x)
    assert p.shape == (90, 2)
    assert model.classes_.tolist() == [False, True]
    np.testing.assert_array_equal(model.predict(x), p[:, 1] > 0.5)


def test_every_form_of_x_says_the_same():
    x, y = problem()
    expected = RecurrentClassifier(**QUICK).fit(x, y).predict_proba(x)
    swapped = RecurrentClassifier(**QUICK, axis_order="nft")
    for model, form in (
        (RecurrentClassifier(**QUICK), list(x)),
        (swapped, x.transpose(0, 2, 1)),
        (swapped, [part.T for part in x]),
    ):
        np.testing.assert_array_equal(clone(model).fit(form, y).predict_proba(form), expected)
    flat = RecurrentClassifier(**QUICK).fit(x[:, :, 1], y).predict_proba(x[:, :, 1])
    for form in (x[:, :, 1:], [part[:, 1] for part in x]):
        np.testing.assert_array_equal(
            RecurrentClassifier(**QUICK).fit(form, y).predict_proba(form), flat
        )


def test_lists_of_different_lengths():
    x, y = problem()
    rows = [row[: 4 + i % 5] for i, row in enumerate(x)]
    model = RecurrentClassifier(**QUICK).fit(rows, y)
    p = model.predict_proba(rows)
    np.testing.assert_allclose(p[7], model.predict_proba(rows[7:8])[0], atol=1e-6)
    assert cross_val_score(model, rows, y, cv=3).shape == (3,)


def test_the_same_seed_gives_the_same_model_and_leaves_the_random_state():
    x, y = problem()
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first, second = (
        RecurrentClassifier(**QUICK, dropout=0.2).fit(x, y).predict_proba(x) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    other = RecurrentClassifier(**QUICK | {"random_state": 1}).fit(x, y).predict_proba(x)
    assert not np.array_equal(first, other)


def test_it_is_cloned_and_pickled(fitted):
    x, _ = problem()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(x), fitted.predict_proba(x))
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    with pytest.raises(NotFittedError):
        copy.predict(x)


def test_in_scikit_learns_tools():
    x, y = problem(60)
    rows = [row[: 5 + i % 4] for i, row in enumerate(x)]
    search = GridSearchCV(RecurrentClassifier(**QUICK), {"cell": ["rnn", "mingru"]}, cv=2).fit(
        rows, y
    )
    assert search.best_params_["cell"] in ("rnn", "mingru")
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    scaled = make_pipeline(
        FunctionTransformer(lambda block: block * 2), RecurrentClassifier(**QUICK)
    ).fit(x, y)
    assert scaled.predict(x).shape == (60,)
    calibrated = CalibratedClassifierCV(RecurrentClassifier(**QUICK), cv=2).fit(x, y)
    np.testing.assert_allclose(calibrated.predict_proba(x).sum(1), 1, atol=1e-6)
    groups = np.arange(60) // 6
    out = cross_val_predict(
        RecurrentClassifier(**QUICK),
        rows,
        y,
        groups=groups,
        cv=GroupKFold(3),
        method="predict_proba",
    )
    assert out.shape == (60, 3)
    assert np.isfinite(out).all()


def test_class_weights():
    x, y = problem()
    weights = {"early": 4.0, "never": 0.5}
    model = RecurrentClassifier(**QUICK, class_weight=weights).fit(x, y).model_
    assert model.class_weight.tolist() == [4.0, 1.0, 0.5]
    model = RecurrentClassifier(**QUICK, class_weight="balanced").fit(x[:50], y[:50]).model_
    np.testing.assert_allclose(model.class_weight, 50 / 3 / np.array([17, 17, 16]), rtol=1e-6)


def test_settings_of_numpys_types():
    x, y = problem(12)
    settings = {"hidden_size": np.int64(3), "max_steps": np.int32(2), "lr": np.float32(0.5)}
    model = RecurrentClassifier(**settings, bidirectional=np.False_, stem="none").fit(x, y)
    assert model.embed(x).shape == (12, 3)
    assert model.history_[-1]["step"] == 2
    assert type(model.model_.hparams["lr"]) is float


@pytest.mark.parametrize("settings", [{"cell": "rnn"}, {"cell": "gru", "bidirectional": True}])
def test_a_weight_of_k_is_k_equal_sequences(settings):
    signs = sorted(set(itertools.permutations([1, 1, 1, -1, -1, -1])))  # of mean 0, deviation 1
    X = np.array(signs, dtype=float)
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    weights = np.random.default_rng(0).integers(1, 4, size=len(X))
    one_batch = {"batch_size": 100, "dropout": 0.0, "stem": "none", "hidden_size": 4}
    estimator = RecurrentClassifier(max_steps=5, random_state=0, **one_batch, **settings)
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    repeated = clone(estimator).fit(X.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-6)
    losses = [[epoch["train/loss"] for epoch in model.history_] for model in (weighted, repeated)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_sample_weights():
    x, y = problem()
    weights = np.where(np.arange(90) % 5 == 0, 0.0, 1.0)
    kept = weights > 0
    expected = RecurrentClassifier(**QUICK).fit(x[kept], y[kept]).predict_proba(x)
    for scale in (1.0, 0.1, 7):
        model = RecurrentClassifier(**QUICK).fit(x, y, weights * scale)
        np.testing.assert_allclose(model.predict_proba(x), expected, atol=1e-6)
    # of two contradicting labels of each sequence, the heavier one is learnt
    twice = np.concatenate([x, x])
    contradicting = np.concatenate([np.full(90, "yes"), np.full(90, "no")])
    for heavy in ("yes", "no"):
        model = RecurrentClassifier(**QUICK | {"max_steps": 60})
        model.fit(twice, contradicting, np.where(contradicting == heavy, 1.0, 0.01))
        assert set(model.predict(x)) == {heavy}
    model.fit(list(twice), contradicting, sample_weight=[1] * 180)
    assert model.model_.sequence_weights is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 11, r"^sample_weight: expected the shape \(12,\), got \(11,\)$"),
        ([-1.0] + [1.0] * 11, "^sample_weight: expected weights of at least 0, .*got -1.0$"),
        ([0.0] * 12, "^sample_weight: expected weights .* not all of them zero, got 0.0$"),
        ([np.nan] * 12, "sample_weight contains NaN"),
        ([1.0] + [0.0] * 11, "^y: expected at least two classes, got one class, 'early'$"),
    ],
)
def test_sample_weights_that_cannot_be_used(weights, message):
    x, y = problem(12)
    with pytest.raises(ValueError, match=message):
        RecurrentClassifier(**QUICK).fit(x, y, weights)


def test_the_history():
    x, y = problem()
    settings = QUICK | {"batch_size": 32, "max_steps": 7}  # 3 in an epoch
    model = RecurrentClassifier(**settings).fit(x, y)
    assert [row["step"] for row in model.history_] == [3, 6, 7]
    assert {tuple(row) for row in model.history_} == {("step", "train/loss", "train/accuracy")}
    assert model.history_[-1]["train/loss"] < model.history_[0]["train/loss"]
    assert len(model.fit(x, y).history_) == 3


def test_early_stopping():
    x, y = problem(150)
    y = np.random.default_rng(0).permutation(y)  # nothing to learn
    settings = QUICK | {"max_steps": 2000, "schedule": "constant", "early_stopping": True}
    model = RecurrentClassifier(**settings, n_iter_no_change=3, validation_fraction=0.2).fit(x, y)
    losses = [row["val/loss"] for row in model.history_ if "val/loss" in row]
    assert model.history_[-1]["step"] < 2000
    assert len(losses) == np.argmin(losses) + 1 + 3
    # the weights are those of the best validation
    seed = np.random.RandomState(0).randint(2**31 - 1)
    codes = np.unique(y, return_inverse=True)[1]
    fractions = {"val_fraction": 0.2, "test_fraction": 0.0}
    rows = split_rows(Sequences.from_arrays(x, codes), **fractions, stratify=True, seed=seed)
    val = rows["val"].numpy()
    assert log_loss(y[val], model.predict_proba(x[val])) == pytest.approx(min(losses), abs=1e-5)


def test_early_stopping_holds_out_sequences_of_each_class():
    x, y = problem(12)
    with pytest.raises(DataError, match=r"^train split: expected every class, got no .*'other'"):
        RecurrentClassifier(**QUICK, early_stopping=True).fit(x[:10], [*y[:9], "other"])


def test_warm_start():
    x, y = problem()
    model = RecurrentClassifier(**QUICK, warm_start=True, schedule="constant").fit(x, y)
    first = model.history_[-1]["train/loss"]
    model.fit(x, y)
    assert model.history_[0]["train/loss"] < first
    cold = RecurrentClassifier(**QUICK, schedule="constant").fit(x, y)
    assert cold.fit(x, y).history_[-1]["train/loss"] == first
    before = model.predict(x)
    for settings, features, labels, message in (
        ({}, x, y == "early", "^y: expected early, late, never as in the last fit, got 'the class"),
        ({}, x[:, :, :1], y, "^warm_start: expected weights for 1 feature, .* the last fit for 2"),
        ({"hidden_size": 9}, x, y, "^hidden_size: expected 8 as in the last fit, got 9$"),
        ({"num_layers": 2}, x, y, "^num_layers: expected 1 as in the last fit, got 2$"),
    ):
        with pytest.raises(OptionError, match=message):
            model.set_params(**QUICK | {"num_layers": 1} | settings).fit(features, labels)
        np.testing.assert_array_equal(model.predict(x), before)
    assert not hasattr(clone(model), "model_")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": "20"}, "^max_steps: expected int or None, got '20'$"),
        ({"hidden_size": 8.5}, "^hidden_size: expected int, got 8.5$"),
        ({"early_stopping": "yes"}, "^early_stopping: expected bool, got 'yes'$"),
        ({"validation_fraction": 1.0}, "^validation_fraction: expected a number between 0 and 1,"),
        ({"n_iter_no_change": 0}, "^n_iter_no_change: expected an integer of at least 1, got 0$"),
        ({"class_weight": [1, 2, 3]}, "^class_weight: expected balanced or dict or None, got"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(OptionError, match=message):
        RecurrentClassifier(**QUICK | settings).fit(*problem(12))


def test_its_network_streams(fitted):
    x, _ = problem(4)
    stream = StreamingClassifier(fitted.model_.network)
    found = [stream.update(range(4), x[:, t]) for t in range(x.shape[1])][-1]
    expected = fitted.model_.network.decision.probabilities(
        fitted.model_(torch.from_numpy(x), torch.full((4,), 8))
    )
    np.testing.assert_allclose(found, expected.detach(), atol=1e-6)


def test_what_cannot_be_used():
    x, y = problem(12)
    for change, form, labels, error, message in (
        ({}, x, ["a"] * 12, DataError, "^y: expected at least two classes, got one class, 'a'$"),
        ({}, x, None, ValueError, "requires y"),
        ({}, x, y[:5], ValueError, "inconsistent numbers of samples"),
        ({}, np.ma.masked_invalid(x), y, DataError, "^x: expected no masked array"),
        ({}, x, np.ma.masked_array(y), DataError, "^y: expected no masked array"),
        ({}, x, np.linspace(0, 1, 12), ValueError, "Unknown label type"),
        ({}, np.where(np.isnan(x), np.inf, x), y, ValueError, "infinity"),
        ({}, [*x[:11], x[11, :, :1]], y, DataError, r"^x\[11\]: .*\(8, 1\)"),
        (
            {"axis_order": "tnf"},
            x,
            y,
            OptionError,
            "axis_order: expected ntf or nft, got 'tnf'",
        ),
        (
            {},
            [*x[:11].tolist(), [[1, 2], [3]]],
            y,
            DataError,
            r"^x\[11\]: expected a rectangular array, got nested lists of different lengths",
        ),
        (
            {"axis_order": "nft"},
            [[[1, 2], [3]], *x[1:]],
            y,
            DataError,
            r"^x\[0\]: expected a rectangular array, got nested lists",
        ),
        (
            {"class_weight": {"Early": 4, "late": 2, np.str_("nver"): 1}},
            x,
            y,
            OptionError,
            r"^class_weight: expected any of \['early', .*'never'\], got \['Early', 'nver'\]$",
        ),
        (
            {"cell": "elman"},
            x,
            y,
            OptionError,
            "^cell: expected one of rnn, lstm, gru, mingru, got 'elman'$",
        ),
    ):
        with pytest.raises(error, match=message):
            RecurrentClassifier(**QUICK | change).fit(form, labels)
    model = RecurrentClassifier(**QUICK).fit(x, y)
    with pytest.raises(DataError, match=r"^x: expected 2 features, got 1$"):
        model.predict(x[:, :, :1])


def test_an_interrupt_is_one(monkeypatch):
    """Lightning would leave with `sys.exit(1)`, which ends a notebook's kernel or a search."""

    def interrupted(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(SequenceClassifier, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        RecurrentClassifier(**QUICK).fit(*problem(12))


SCRIPT = """
import numpy as np
from lightning_rnn import RecurrentClassifier
x = np.random.default_rng(0).normal(size=(40, 6))
RecurrentClassifier(max_steps=10).fit(x, x.sum(1) > 0).predict(x)
"""


@pytest.mark.slow
def test_it_says_and_writes_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.slow
def test_scikit_learn_is_named_where_it_is_missing(tmp_path):
    script = (
        "import sys; sys.modules['sklearn'] = None\nfrom lightning_rnn import RecurrentClassifier"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "scikit-learn is not installed; run: pip install 'lightning_rnn[sklearn]'" in done.stderr


def test_lengths_reach_the_network():
    """A list's arrays are stored as they are, without padding."""
    rows = [np.ones((n, 2)) for n in (3, 1, 2)]
    assert Sequences.from_arrays(as_arrays(rows, "ntf")).lengths.tolist() == [3, 1, 2]
