"""The classifier: settings, class weights, prediction, and training against a plain loop."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_rnn import FileDataModule, SequenceClassifier, SyntheticDataModule
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.errors import DataError, NumericError, OptionError
from lightning_rnn.models.initialization import start_bias
from lightning_rnn.padding import Padding
from lightning_rnn.training.schedules import schedule_factor

SMALL = {"num_train": 50, "num_val": 20, "num_test": 30, "batch_size": 16, "length": 5}


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(accelerator="cpu", log_every_n_steps=1, **{"max_epochs": 1} | quiet | options)


def model(seed=0, **options):
    torch.manual_seed(seed)
    return SequenceClassifier(**{"input_size": 1, "num_classes": 2, "hidden_size": 4} | options)


def batch_of(n, num_classes, length=5, features=1):
    y = torch.arange(n) % num_classes
    padding = Padding(torch.full((n,), length), is_full=True)
    return SequenceBatch(torch.randn(n, length, features), padding, y, torch.arange(n))


def test_the_seed_experiments_shapes():
    data = SyntheticDataModule()
    batch = next(iter(data.train_dataloader()))
    assert batch.x.shape == (32, 10, 1)
    assert batch.y.shape == (32,)
    logits = model()(batch.x, batch.lengths)
    assert logits.shape == (32,)
    assert (logits.dtype, batch.y.dtype) == (torch.float32, torch.int64)


def test_hyper_parameters_are_json():
    options = {
        "input_size": 3,
        "num_classes": 3,
        "class_names": ["a", "b", "c"],
        "feature_names": ["x", "y", "z"],
    }
    options |= {
        "class_weights": [1.0, 2.0, 0.5],
        "cell": "gru",
        "bidirectional": True,
        "stem": "conv",
    }
    hparams = dict(SequenceClassifier(**options).hparams)
    assert json.loads(json.dumps(hparams)) == hparams
    assert {name: hparams[name] for name in options} == options
    assert hparams["pos_weight"] is None
    again = SequenceClassifier(**hparams)
    assert dict(again.hparams) == hparams
    assert again.schema == Schema(3, ["a", "b", "c"], ["x", "y", "z"])


def test_class_names_are_codes_unless_given():
    assert model(num_classes=3).schema == Schema(1, ["0", "1", "2"], None)


# loss


@pytest.mark.parametrize("pos_weight", [None, 0.3, 4.0])
def test_binary_loss_equals_torchs(pos_weight):
    classifier, batch = model(pos_weight=pos_weight), batch_of(12, 2)
    weight = None if pos_weight is None else torch.tensor(pos_weight)
    expected = nn.BCEWithLogitsLoss(pos_weight=weight)(
        classifier(batch.x, batch.lengths), batch.y.float()
    )
    torch.testing.assert_close(classifier.training_step(batch, 0), expected)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 3.0]])
def test_loss_of_many_classes_equals_torchs(weights):
    classifier, batch = model(class_weights=weights, num_classes=3), batch_of(13, 3)
    weight = None if weights is None else torch.tensor(weights)
    expected = nn.CrossEntropyLoss(weight, reduction="none")(
        classifier(batch.x, batch.lengths), batch.y
    ).mean()
    torch.testing.assert_close(classifier.training_step(batch, 0), expected)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_label_smoothing_is_torchs_and_the_logged_loss_is_without(num_classes):
    smoothing = 0.2
    classifier = model(num_classes=num_classes, label_smoothing=smoothing)
    batch = batch_of(8, num_classes)
    logits = classifier(batch.x, batch.padding.lengths)
    if num_classes == 2:
        logits = torch.stack([torch.zeros_like(logits), logits], dim=1)
    smooth = nn.functional.cross_entropy(logits, batch.y, label_smoothing=smoothing)
    torch.testing.assert_close(classifier.training_step(batch, 0), smooth)
    plain = nn.functional.cross_entropy(logits, batch.y)
    torch.testing.assert_close(classifier.step_loss, plain.detach())


def test_class_weights_by_name():
    by_name = model(num_classes=3, class_names=["a", "1", "c"], class_weights={"c": 2.0, 1: 3.0})
    assert by_name.class_weight.tolist() == [1.0, 3.0, 2.0]
    assert by_name.hparams["class_weights"] == [1.0, 3.0, 2.0]
    with pytest.raises(
        OptionError, match=r"^class_weights: expected names among 0, 1, got \['x'\]"
    ):
        model(class_weights={"x": 2.0})


def test_other_batches_are_refused():
    loader = DataLoader(TensorDataset(torch.zeros(4, 3, 1), torch.zeros(4)), batch_size=2)
    message = "batch: expected a SequenceBatch, as of .* SequenceDataModule, got list"
    with pytest.raises(DataError, match=message):
        trainer().fit(model(), loader, loader)
    for command in ("validate", "test", "predict"):
        with pytest.raises(DataError, match=message):
            getattr(trainer(), command)(model(), loader)


def test_class_weights_of_two_classes_weigh_both():
    classifier, batch = model(class_weights=[0.5, 2.0]), batch_of(9, 2)
    losses = nn.BCEWithLogitsLoss(reduction="none")(
        classifier(batch.x, batch.lengths), batch.y.float()
    )
    expected = (losses * torch.where(batch.y == 1, 2.0, 0.5)).mean()
    torch.testing.assert_close(classifier.training_step(batch, 0), expected)


def test_a_batch_without_labels_cannot_be_trained_on():
    batch = replace(batch_of(2, 2), y=None)
    with pytest.raises(DataError, match=r"^expected labelled sequences"):
        model().training_step(batch, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["a"]}, "class_names: expected 2 names, got ['a']"),
        ({"lr": 0.0}, "lr: expected a number above 0, at most 1e+30, got 0.0"),
        ({"lr": math.inf}, "lr: expected a number above 0, at most 1e+30, got inf"),
        ({"lr": math.nan}, "lr: expected a number above 0, at most 1e+30, got nan"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number of at least 0, got -1.0"),
        ({"optimizer": "sgd"}, "optimizer: expected adam or adamw, got 'sgd'"),
        ({"schedule": "step"}, "schedule: expected one of constant, cosine, onecycle, got 'step'"),
        ({"pos_weight": 0.0}, "pos_weight: expected a finite number above 0, got 0.0"),
        (
            {"pos_weight": 2.0, "num_classes": 3},
            "pos_weight: expected none with 3 classes, got 2.0",
        ),
        ({"pos_weight": 2.0, "class_weights": "balanced"},
         "pos_weight: expected none together with class_weights, got 2.0"),
        ({"class_weights": [1.0]}, "class_weights: expected 2 finite numbers above 0, got [1.0]"),
        ({"class_weights": [1.0, 0.0]},
         "class_weights: expected 2 finite numbers above 0, got [1.0, 0.0]"),
        ({"class_weights": [1.0, math.nan]},
         "class_weights: expected 2 finite numbers above 0, got [1.0, nan]"),
        ({"num_classes": 1}, "num_classes: expected an integer of at least 2, got 1"),
        ({"cell": "elman"}, "cell: expected one of rnn, lstm, gru, mingru, got 'elman'"),
    ],
)  # fmt: skip
def test_option_errors(options, message):
    with pytest.raises(OptionError) as caught:
        model(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize("weights", ["inverse", (1.0, 2.0)])
def test_class_weights_that_are_not_understood_are_refused(weights):
    with pytest.raises(OptionError, match=r"^class_weights: expected "):
        model(class_weights=weights)


def test_balanced_weights_need_data_that_counts_classes():
    data = SyntheticDataModule(**SMALL)
    with pytest.raises(OptionError, match=r"^class_weights: balanced needs a data module that"):
        trainer().fit(
            model(class_weights="balanced"), data.train_dataloader(), data.val_dataloader()
        )


# prediction


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_predict_proba_equals_forward_on_each_sequence(num_classes, pooling):
    classifier = model(
        input_size=2, num_classes=num_classes, pooling=pooling, dropout=0.5, num_layers=2
    )
    classifier.network.preprocess.set_moments(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5]))

    def alone(array):
        classifier.eval()
        with torch.no_grad():
            logits = classifier(torch.from_numpy(array)[None], torch.tensor([len(array)]))
        p = logits.sigmoid() if num_classes == 2 else logits.softmax(1)
        return p[0].numpy()

    rng = np.random.default_rng(0)
    block = rng.normal(size=(6, 5, 2)).astype(np.float32)
    ragged = [rng.normal(size=(t, 2)).astype(np.float32) for t in (4, 1, 9, 2)]
    ragged[2][3:5] = np.nan
    trailing = np.concatenate([ragged[0], np.full((3, 2), np.nan, dtype=np.float32)])
    for x, parts in (
        (block, block),
        (block[0], block[:1]),
        (ragged, ragged),
        ([trailing], ragged[:1]),
    ):
        expected = np.stack([alone(part) for part in parts])
        classifier.train()
        found = classifier.predict_proba(x)
        assert classifier.training  # as it was
        assert found.dtype == np.float32
        assert found.shape == ((len(parts),) if num_classes == 2 else (len(parts), 3))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.tensor(classifier.predict_proba(torch.from_numpy(block))),
                       torch.tensor(classifier.predict_proba(block)))  # fmt: skip


def test_predict_proba_of_a_list_of_one_dimensional_arrays():
    classifier, series = model(), [np.arange(3.0), np.arange(7.0), [2, 1]]
    columns = [np.asarray(s, dtype=float)[:, None] for s in series]
    found = classifier.predict_proba(series)
    np.testing.assert_array_equal(found, classifier.predict_proba(columns))
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3, 4)), "x: expected 2 features, got 4"),
        ([np.zeros(3)], "x: expected 2 features, got 1"),
        (np.zeros(3), "x: expected shape (N, T, F) or (T, F), or a list, got shape (3,)"),
        ([], "x: expected an array or a list of at least one array, got an empty list"),
        ([[["a", "b"]]], "x[0]: expected real numbers, got dtype <U1"),
        (np.full((1, 1, 2), np.inf), "sequence 0, step 0, feature 0: expected a finite float32 "
         "number, or NaN for a missing value, got inf"),
    ],
)  # fmt: skip
def test_predict_proba_refuses(x, message):
    with pytest.raises(DataError) as caught:
        model(input_size=2).predict_proba(x)
    assert str(caught.value) == message


# training


@pytest.mark.parametrize(
    ("optimizer", "schedule", "reference"),
    [("adam", "cosine", torch.optim.Adam), ("adamw", "onecycle", torch.optim.AdamW)],
)
def test_fit_equals_a_plain_loop(optimizer, schedule, reference):
    options = {"optimizer": optimizer, "schedule": schedule, "weight_decay": 0.1, "pos_weight": 2.0}
    trained, plain, data = model(**options), model(**options), SyntheticDataModule(**SMALL)
    run = trainer(max_epochs=2)
    run.fit(trained, data)

    plain.network.preprocess.set_moments(*data.split("train").moments())
    optimizer = reference(plain.parameters(), lr=0.01, weight_decay=0.1)
    loss_of, steps, sums = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0)), 0, []
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.batch_sampler.set_epoch(epoch)
        sums = []
        for batch in loader:
            optimizer.param_groups[0]["lr"] = 0.01 * schedule_factor(schedule, steps, 8)
            logits = plain(batch.x, batch.lengths)
            loss = loss_of(logits, batch.y.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            sums.append(
                (len(batch.y), loss.item() * len(batch.y), ((logits > 0) == batch.y).sum().item())
            )
    assert run.global_step == steps == 8
    torch.testing.assert_close(trained.state_dict(), plain.state_dict())
    n, loss, correct = np.sum(sums, axis=0)
    assert n == 50
    assert run.callback_metrics["train/loss"].item() == pytest.approx(loss / n, abs=1e-6)
    assert run.callback_metrics["train/accuracy"].item() == pytest.approx(correct / n)


def test_validate_and_test_score_every_sequence():
    classifier, data, run = model(), SyntheticDataModule(**SMALL), trainer(max_epochs=3)
    run.fit(classifier, data)
    val = {
        name: value.item()
        for name, value in run.callback_metrics.items()
        if name.startswith("val/")
    }
    (test,) = run.test(classifier, data, verbose=False)
    assert {name.removeprefix("val/") for name in val} == {"loss", "accuracy", "auroc", "f1"}
    full = {"average_precision", "balanced_accuracy", "brier", "log_loss", "ece"}
    assert {name.removeprefix("test/") for name in test} == {
        "loss",
        "accuracy",
        "auroc",
        "f1",
    } | full
    for prefix, metrics in (("val", val), ("test", test)):
        part = data.split(prefix)
        y, p = part.labels.numpy(), classifier.predict_proba(part.values.view(len(part), 5, 1))
        assert metrics[f"{prefix}/accuracy"] == pytest.approx(sk.accuracy_score(y, p > 0.5))
        assert metrics[f"{prefix}/auroc"] == pytest.approx(sk.roc_auc_score(y, p), abs=1e-6)
        assert metrics[f"{prefix}/loss"] == pytest.approx(sk.log_loss(y, p.astype(float)), abs=1e-5)


def test_predict_gives_index_probability_and_label():
    classifier = model(num_classes=4, input_size=8)
    data = SyntheticDataModule(**SMALL | {"length": 12}, task="temporal_order")
    (prediction,) = trainer().predict(classifier, data)
    assert sorted(prediction.index.tolist()) == list(range(30))
    part = data.split("test")
    expected = classifier.predict_proba(part.values.view(30, 12, 8))[prediction.index.numpy()]
    np.testing.assert_allclose(prediction.probabilities.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert prediction.labels.tolist() == expected.argmax(1).tolist()
    expected = classifier.embed(part.values.view(30, 12, 8))[prediction.index.numpy()]
    np.testing.assert_allclose(prediction.embeddings.numpy(), expected, rtol=1e-5, atol=1e-7)
    head = classifier.network.head
    logits = head(torch.from_numpy(expected)).detach().softmax(1)
    np.testing.assert_allclose(logits, prediction.probabilities, rtol=1e-5, atol=1e-7)


def test_fit_without_a_validation_part():
    run = trainer()
    run.fit(model(), SyntheticDataModule(**SMALL | {"num_val": 0}))
    assert run.global_step == 4
    assert set(run.callback_metrics) == {"train/loss", "train/accuracy", "train/loss_step"}


class Recorder(DummyLogger):
    """Keeps what is logged, as (step, name) to value."""

    def __init__(self):
        super().__init__()
        self.values = {}

    def log_metrics(self, metrics, step):
        self.values |= {(step, name): value for name, value in metrics.items()}


def test_logs_every_steps_rate_and_gradient_norm_and_every_epochs_means():
    classifier, recorder = model(schedule="onecycle"), Recorder()
    run = trainer(max_epochs=2, logger=recorder, gradient_clip_val=1e-4)
    run.fit(classifier, SyntheticDataModule(**SMALL))
    series = {}
    for (_, name), value in sorted(recorder.values.items()):
        series.setdefault(name, []).append(value)
    assert series["train/lr"] == pytest.approx(
        [0.01 * schedule_factor("onecycle", step, 8) for step in range(8)]
    )
    assert len(series["train/loss_step"]) == len(series["train/grad_norm"]) == 8
    assert min(series["train/grad_norm"]) > 1e-4  # before it was clipped
    assert series["train/loss"][-1] == pytest.approx(run.callback_metrics["train/loss"].item())
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert [step for step, found in recorder.values if found == name] == [3, 7]


@pytest.mark.parametrize(("algorithm", "limit"), [("norm", 0.01), ("value", 0.01), ("norm", 1e3)])
def test_gradients_are_clipped_as_torch_clips_them(algorithm, limit):
    """Adam's first moment is a tenth of the first gradient."""
    trained, plain, data = model(), model(), SyntheticDataModule(**SMALL)
    run = trainer(max_steps=1, gradient_clip_val=limit, gradient_clip_algorithm=algorithm)
    run.fit(trained, data)
    plain.network.preprocess.set_moments(*data.train_moments)
    batch = next(iter(data.train_dataloader()))
    nn.BCEWithLogitsLoss()(plain(batch.x, batch.lengths), batch.y.float()).backward()
    if algorithm == "norm":
        nn.utils.clip_grad_norm_(plain.parameters(), limit)
    else:
        nn.utils.clip_grad_value_(plain.parameters(), limit)
    states = run.optimizers[0].state
    for ours, theirs in zip(trained.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(states[ours]["exp_avg"], 0.1 * theirs.grad)


def test_training_stops_at_a_loss_that_is_not_finite():
    classifier, run = model(), trainer()
    with torch.no_grad():
        classifier.network.head.bias.fill_(math.nan)
    with pytest.raises(NumericError) as caught:
        run.fit(classifier, SyntheticDataModule(**SMALL))
    found = (
        "training stopped at step 0: loss nan, gradient norm nan, learning rate 0.01; the largest "
    )
    assert str(caught.value).startswith(found)
    assert run.global_step == 0


def test_balanced_weights_are_those_of_scikit_learn(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [5, 10, 25])
    path = tmp_path / "x.npz"
    np.savez(path, X=rng.normal(size=(40, 3)), y=y)
    data = FileDataModule(train_path=str(path), val_path=str(path))
    classifier = model(num_classes=3, class_weights="balanced")
    assert classifier.class_weight.tolist() == [1.0] * 3
    trainer().fit(classifier, data)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert classifier.class_weight.tolist() == pytest.approx(expected.tolist())
    torch.testing.assert_close(classifier.network.preprocess.mean, data.train_moments[0])


def test_a_schedule_needs_an_end():
    with pytest.raises(
        OptionError,
        match=r"^schedule: expected constant for a run without a maximum number of epochs",
    ):
        trainer(max_epochs=-1).fit(model(), SyntheticDataModule(**SMALL))


def test_data_of_another_width_is_refused():
    with pytest.raises(DataError, match=r"^data: features: expected 2, got 1$"):
        trainer().test(model(input_size=2), SyntheticDataModule(**SMALL), verbose=False)


def test_a_model_of_another_size_is_refused_before_training():
    with pytest.raises(OptionError, match=r"^input_size: expected 1, .* got 2$"):
        trainer().fit(model(input_size=2), SyntheticDataModule(**SMALL))
    with pytest.raises(OptionError, match=r"^num_classes: expected 2, .* got 3$"):
        trainer().fit(model(num_classes=3), SyntheticDataModule(**SMALL))


def test_one_feature_is_not_broadcast_to_several():
    with pytest.raises(DataError, match=r"^x: expected 4 features per step, got 1$"):
        model(input_size=4)(torch.ones(2, 3, 1), torch.tensor([3, 2]))
    loader = SyntheticDataModule(**SMALL).test_dataloader()
    for run in (trainer().test, trainer().predict):
        with pytest.raises(DataError, match=r"^x: expected 4 features per step, got 1$"):
            run(model(input_size=4), dataloaders=loader)


@pytest.mark.parametrize("names", [["positive", "negative"], ["a", "b"]])
def test_classes_of_other_names_are_refused(names):
    data = SyntheticDataModule(**SMALL)
    assert data.class_names == ["negative", "positive"]
    other = model(class_names=names)
    for run in (trainer().fit, trainer().test):
        with pytest.raises(OptionError, match=r"^class_names: expected .*, as the data have, got"):
            run(other, datamodule=data)
    trainer().fit(model(class_names=data.class_names), datamodule=data)


def test_data_that_are_in_use_are_refused_by_a_model_of_another_size():
    data = SyntheticDataModule(**SMALL)
    trainer().validate(model(), data, verbose=False)
    for name, changed in (("input_size", 4), ("num_classes", 3)):
        with pytest.raises(OptionError, match=f"^{name}: expected .*, as the data have"):
            trainer().test(model(**{name: changed}), data, verbose=False)


def test_sequence_weights_of_other_data_are_refused():
    classifier = model()
    classifier.sequence_weights = torch.ones(500)
    message = "^sequence_weights: expected one for each training sequence, got 500$"
    with pytest.raises(OptionError, match=message):
        trainer().fit(classifier, SyntheticDataModule(**SMALL))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 5}, "input_size: expected 1, as the data have, got 5"),
        ({"num_classes": 7}, "num_classes: expected 2, as the data have, got 7"),
        ({"class_names": ["a", "b"]}, "class_names: expected .*, as the data have, got"),
    ],
)
def test_a_single_argument_that_differs_from_the_data_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        trainer().fit(SequenceClassifier(**options), SyntheticDataModule(**SMALL))


@pytest.mark.parametrize("method", ["predict_proba", "predict", "embed"])
def test_a_model_without_sizes_says_what_is_missing(method):
    with pytest.raises(
        OptionError, match=r"^input_size and num_classes: expected numbers, or a mo"
    ):
        getattr(SequenceClassifier(), method)(np.zeros((2, 3, 1)))
    with pytest.raises(OptionError, match=r"^input_size and num_classes: "):
        _ = SequenceClassifier().class_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": "32"}, "hidden_size: expected int, got '32'"),
        ({"hidden_size": 32.0}, "hidden_size: expected int, got 32.0"),
        ({"hidden_size": np.int64(8)}, "hidden_size: expected int, got np.int64(8)"),
        ({"lr": np.float64(0.1)}, "lr: expected float, got np.float64(0.1)"),
        ({"num_layers": True}, "num_layers: expected int or None, got True"),
        ({"lr": None}, "lr: expected float, got None"),
        ({"cell": ["gru"]}, "cell: expected one of rnn, lstm, gru, mingru, got ['gru']"),
        ({"pos_weight": "2"}, "pos_weight: expected float or None, got '2'"),
        ({"bidirectional": 1}, "bidirectional: expected bool, got 1"),
        ({"class_names": "ab"}, "class_names: expected list or None, got 'ab'"),
    ],
)
def test_arguments_of_another_type_are_refused(options, message):
    with pytest.raises(OptionError) as error:
        SequenceClassifier(**options)
    assert str(error.value) == message


def test_sequence_weights_are_those_of_the_loss():
    classifier = model(num_classes=3, class_weights=[1.0, 2.0, 0.5])
    batch = batch_of(6, 3)
    unweighted = classifier.evaluate_batch(batch).losses
    classifier.sequence_weights = torch.tensor([0.5, 3.0, 1.0, 2.0, 0.1, 1.0, 9.0])
    shuffled = replace(batch, index=torch.tensor([6, 1, 0, 2, 4, 3]))
    loss = classifier.training_step(shuffled, 0)
    expected = (unweighted * classifier.sequence_weights[shuffled.index]).mean()
    torch.testing.assert_close(loss, expected)
    assert "sequence_weights" not in classifier.state_dict()


# starting weights


def gate_biases(classifier):
    return classifier.network.recurrent.forward_layers[0].layer.bias_ih_l0


@pytest.mark.parametrize("sizes", [{}, {"input_size": 1, "num_classes": 2}])
def test_the_memory_span_is_the_longest_training_sequence(sizes):
    options = {"cell": "gru", "hidden_size": 4, "lr": 1e-30}  # the weights stay
    classifier = SequenceClassifier(**options, **sizes)
    settings = SMALL | {"task": "delayed_recall", "min_length": 3}
    trainer().fit(classifier, datamodule=SyntheticDataModule(**settings))
    assert classifier.hparams["memory_span"] == 6  # 5 steps after the first
    torch.testing.assert_close(gate_biases(classifier), start_bias("gru", 4, 6))
    longer = SyntheticDataModule(**settings | {"length": 50})
    trainer().fit(classifier, datamodule=longer)  # trained weights are kept
    assert classifier.hparams["memory_span"] == 6
    torch.testing.assert_close(gate_biases(classifier), start_bias("gru", 4, 6))


def test_a_chosen_memory_span_is_kept():
    classifier = model(cell="gru", memory_span=70, lr=1e-30)
    trainer().fit(classifier, datamodule=SyntheticDataModule(**SMALL))
    assert classifier.hparams["memory_span"] == 70
    torch.testing.assert_close(gate_biases(classifier), start_bias("gru", 4, 70))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_the_memory_span_of_plain_loaders_is_100():
    classifier = model(cell="lstm", lr=1e-30)
    data = SyntheticDataModule(**SMALL)
    trainer().fit(classifier, data.train_dataloader(), data.val_dataloader())
    assert classifier.hparams["memory_span"] == 100
    torch.testing.assert_close(gate_biases(classifier), start_bias("lstm", 4, 100))


def test_training_continues_from_loaded_weights():
    trained = model(cell="gru", seed=1, memory_span=33)
    classifier = model(cell="gru", lr=1e-30)
    classifier.load_state_dict(trained.state_dict())
    trainer().fit(classifier, datamodule=SyntheticDataModule(**SMALL))
    torch.testing.assert_close(gate_biases(classifier), gate_biases(trained))


@pytest.mark.parametrize(("cell", "number"), [("rnn", 1), ("lstm", 1), ("gru", 1), ("mingru", 2)])
def test_default_number_of_layers(cell, number):
    classifier = model(cell=cell)
    assert classifier.hparams["num_layers"] == number
    assert len(classifier.network.recurrent.forward_layers) == number
    assert model(cell=cell, num_layers=1).options.num_layers == 1
