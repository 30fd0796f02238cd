"""What the event files hold, and figures of any evaluation."""

import io
import json
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import sklearn.metrics as sk
import torch
from evaluations import random_evaluation
from helpers import BEST, LAST, RUN, load
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util.tensor_util import make_ndarray

from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.synthetic_module import SyntheticDataModule
from lightning_rnn.errors import OptionError
from lightning_rnn.evaluation.figures import fonts_with, new_axes, pixels, short_names
from lightning_rnn.evaluation.gradient_flow import horizon
from lightning_rnn.evaluation.metrics import Metrics
from lightning_rnn.evaluation.plots import evaluation_figures
from lightning_rnn.evaluation.plots_gradient_flow import attribution
from lightning_rnn.evaluation.plots_sequences import mistakes
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision
from lightning_rnn.training import watching
from lightning_rnn.training.tensorboard import Figures, GradientFlowProbe
from lightning_rnn.training.watching import DRAWING_SHARE, DrawingTime, is_due

EVALUATION = (
    "roc",
    "precision_recall",
    "confusion",
    "reliability",
    "scores",
    "mistakes",
    "accuracy_by_length",
)
GRADIENT_FLOW = {
    f"gradient_flow/{name}" for name in ("gradient", "gradient_by_epoch", "attribution")
}
SIZES = ("--data.num_train", 64, "--data.num_val", 120, "--data.num_test", 64)
SMALL = (*SIZES, "--data.min_length", 4, "--model.cell", "lstm")
EACH = ("--figures.every_n_epochs", 1, "--gradient_flow.every_n_epochs", 1)


def events():
    return EventAccumulator(
        str(RUN), size_guidance={"images": 0, "scalars": 0, "tensors": 0}
    ).Reload()


def is_drawn(image):
    """Whether something is on white: axes, text and more, of several colours."""
    array = np.asarray(image.convert("RGB")).astype(np.int64)
    return (
        len(np.unique(array @ (1, 256, 65536))) > 20 and 0.01 < (array < 250).any(2).mean() < 0.97
    )


def test_a_run_shows_everything(empty, run_ok, tiny):
    run_ok("fit", *tiny, *SMALL, *EACH)
    out = run_ok("test")
    found = events()
    tags = found.Tags()
    assert {
        f"{part}/{name}" for part in ("val", "test") for name in EVALUATION
    } | GRADIENT_FLOW == set(tags["images"])
    for tag in tags["images"]:
        for event in found.Images(tag):
            assert is_drawn(Image.open(io.BytesIO(event.encoded_image_string))), tag
    assert [event.step for event in found.Images("val/roc")] == [1, 3]
    for name in EVALUATION:
        assert is_drawn(Image.open(RUN / f"figures/test_{name}.png"))
    assert f"figures written to {RUN.absolute() / 'figures'}" in out
    scalars = {
        "train/loss",
        "train/accuracy",
        "train/lr",
        "train/grad_norm",
        "train/sequences_per_second",
        "val/loss",
        "test/loss",
        "gradient_flow/horizon/layer0",
        "gradient_flow/saturation/layer0/forget",
    }
    assert scalars <= set(tags["scalars"])
    assert all(np.isfinite(e.value) for tag in tags["scalars"] for e in found.Scalars(tag))
    assert all(e.value > 1 for e in found.Scalars("train/sequences_per_second"))


@pytest.mark.slow
def test_drawing_is_not_counted_as_training(empty, run_ok, tiny, monkeypatch):
    for callback, method in ((Figures, "_show"), (GradientFlowProbe, "_measure")):
        monkeypatch.setattr(callback, method, lambda *_, **__: time.sleep(2.0))
    run_ok("fit", *tiny, *SMALL, *EACH)
    rates = [event.value for event in events().Scalars("train/sequences_per_second")]
    assert min(rates) > 64 / 2.0


def test_precision_recall_curves_equal_scikit_learns(empty, run_ok, tiny):
    run_ok("fit", *tiny, *SMALL)
    run_ok("test")
    run_ok("predict")
    (event,) = events().Tensors("test/pr_curve")
    true, false, _, missed, precision, recall = make_ndarray(event.tensor_proto)
    p = pl.read_csv(RUN / "predictions.csv")["probability_positive"].to_numpy().astype(np.float32)
    settings = {"num_train": 64, "num_val": 120, "num_test": 64, "min_length": 4}
    y = SyntheticDataModule(**settings).split("test").labels.numpy()
    for i, threshold in enumerate(np.linspace(0, 1, len(precision))):
        decided = p >= np.float32(threshold)
        if np.abs(p - threshold).min() < 1e-6:
            continue
        assert precision[i] == pytest.approx(
            sk.precision_score(y, decided, zero_division=0), abs=1e-6
        )
        assert recall[i] == pytest.approx(sk.recall_score(y, decided), abs=1e-6)
        assert (true[i], false[i], missed[i]) == (
            (decided & y).sum(),
            (decided & ~y & 1).sum(),
            (~decided & y).sum(),
        )


def compared_metrics():
    """Return the metrics that all event files of the run list for the comparison of runs."""
    found = set()
    for path in RUN.glob("events*"):
        events = EventAccumulator(str(path)).Reload()
        if hparams.EXPERIMENT_TAG in events.summary_metadata:
            content = events.SummaryMetadata(hparams.EXPERIMENT_TAG).plugin_data.content
            infos = hparams.parse_experiment_plugin_data(content).metric_infos
            found |= {info.name.tag for info in infos}
    return found


def test_runs_can_be_compared_by_their_hyper_parameters(empty, run_ok, tiny):
    run_ok("fit", *tiny, *SMALL)
    run_ok("test")
    found = events()
    content = found.SummaryMetadata(hparams.SESSION_START_INFO_TAG).plugin_data.content
    assert (
        hparams.parse_session_start_info_plugin_data(content).hparams["cell"].string_value == "lstm"
    )
    content = found.SummaryMetadata(hparams.EXPERIMENT_TAG).plugin_data.content
    infos = hparams.parse_experiment_plugin_data(content).hparam_infos
    infos = sorted(infos, key=lambda info: (not info.differs, info.name))  # as TensorBoard does
    names = [info.name for info in infos]
    changed = {"cell", "hidden_size", "data/num_train", "data/num_val", "data/num_test"}
    assert set(names[:6]) == changed | {"data/min_length"}
    scalars = set(found.Tags()["scalars"])
    assert found.Scalars("hp/val_loss")[0].value == pytest.approx(load(BEST)["metrics"]["val/loss"])
    shown = compared_metrics()
    assert "hp/val_loss" in shown
    assert shown <= scalars
    assert "hp/test_accuracy" in scalars
    metrics = json.loads((RUN / "test_metrics.json").read_text())
    assert found.Scalars("hp/test_accuracy")[-1].value == pytest.approx(metrics["test/accuracy"])


def test_what_is_due():
    assert [epoch for epoch in range(1, 20) if is_due(epoch, None)] == [1, 2, 4, 8, 16]
    assert is_due(7, None, is_last=True)
    assert [epoch for epoch in range(1, 10) if is_due(epoch, 3, is_last=epoch == 8)] == [3, 6, 9]


def test_figures_take_a_share_of_the_time(monkeypatch):
    now = 100.0
    monkeypatch.setattr(watching.time, "monotonic", lambda: now)
    drawing_time = DrawingTime()
    total = 0.0
    for _ in range(1000):
        now += 1.0
        if drawing_time.suffices(is_last=False):
            with drawing_time.measure():
                now += 2.0
            total += 2.0
        assert total <= DRAWING_SHARE * (now - 100.0)
    assert total > 0.9 * DRAWING_SHARE * (now - 100.0) - 4.0
    assert drawing_time.suffices(is_last=True)


def test_a_default_run_shows_its_gradient_flow_and_draws_nothing(empty, run_ok):
    run_ok("fit", *SMALL, "--trainer.max_epochs", 6)
    horizons = events().Scalars("gradient_flow/horizon/layer0")
    assert [event.step for event in horizons] == [1, 3, 7, 11]  # epochs 1, 2, 4, 6
    assert [event.step for event in events().Tensors("val/pr_curve")] == [1, 3, 7, 11]
    assert len(events().Scalars("val/loss")) == 6
    assert not events().Tags()["images"]


def test_without_matplotlib(empty, run_ok, tiny, monkeypatch):
    monkeypatch.setattr(watching, "find_spec", lambda name: None)
    watching.can_draw.cache_clear()
    out = run_ok("fit", *tiny, *SMALL, *EACH)
    watching.can_draw.cache_clear()
    assert out.count("figures skipped: matplotlib is not installed; run: pip install") == 1
    assert not events().Tags()["images"]
    assert len(events().Tensors("val/pr_curve")) == 2


@pytest.mark.slow
def test_the_heat_map_goes_on_after_a_resume(empty, run_ok, tiny):
    run_ok("fit", *tiny, *SMALL, "--gradient_flow.every_n_epochs", 1, "--trainer.max_epochs", 2)
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    state = load(LAST)["callbacks"]["GradientFlowProbe"]
    assert state["epochs"] == [1, 2, 3]
    assert [len(curve) for curve in state["curves"]["layer0"]] == [10] * 3
    found = [event.value for event in events().Scalars("gradient_flow/horizon/layer0")]
    assert found == [horizon(curve) for curve in state["curves"]["layer0"]]


@pytest.mark.parametrize("watcher", [Figures, GradientFlowProbe])
def test_intervals_are_checked(watcher):
    with pytest.raises(OptionError, match="expected an integer of at least 1, got 0") as caught:
        watcher(every_n_epochs=0)
    assert caught.value.name == f"{watcher.__name__}.every_n_epochs"


def sequences(lengths, num_features=2):
    return Sequences(torch.randn(sum(lengths), num_features), torch.tensor(lengths))


def decision_of(temperature, threshold):
    decision = Decision()
    decision.set(temperature, threshold)
    return decision


SMALL_CASES = ["two", "three"]
OTHER_CASES = ["many", "one class", "all right", "a single one", "confident"]


@pytest.mark.parametrize(
    ("case", "decision"),
    [
        *((case, Decision()) for case in SMALL_CASES + OTHER_CASES),
        *((case, decision_of(2.0, 0.3)) for case in SMALL_CASES),
        *(
            pytest.param(case, decision_of(2.0, 0.3), marks=pytest.mark.slow)
            for case in OTHER_CASES
        ),
    ],
)
@pytest.mark.slow
def test_any_evaluation_can_be_drawn(case, decision):
    n, k = {"many": (80, 23), "three": (30, 3), "a single one": (1, 2)}.get(case, (30, 2))
    o = random_evaluation(k, n, 0)
    match case:
        case "one class":
            o = replace(o, labels=torch.zeros_like(o.labels))
        case "all right":
            o = replace(o, logits=10.0 * (2 * o.labels - 1))
        case "confident":
            o = replace(o, logits=o.logits * 1000)
    names = [f"class {i} of long name" for i in range(k)]
    data = sequences([1 + i % 9 for i in range(n)])
    drawn = dict(evaluation_figures(o, decision, data, Schema(2, names)))
    assert tuple(drawn) == EVALUATION[: len(EVALUATION) - (n == 1)]  # one sequence has one length
    for name, figure in drawn.items():
        image = pixels(figure)
        assert image.dtype == np.uint8
        assert is_drawn(Image.fromarray(image)), name


def test_figures_say_the_truth(monkeypatch):
    """Texts in the axes against scikit-learn."""
    monkeypatch.delattr(np, "trapezoid", raising=False)  # NumPy 1.26, which is allowed, has none
    o: Evaluation = random_evaluation(2, 70, 4)
    data = sequences([5] * 40 + [9] * 30)
    drawn = dict(evaluation_figures(o, Decision(), data, Schema(2, ["no", "yes"])))
    y, p = o.labels.numpy(), o.logits.double().sigmoid().numpy()
    labels = {
        name: drawn[name].axes[0].get_legend().texts[0].get_text()
        for name in ("roc", "precision_recall")
    }
    assert labels["roc"] == f"area {sk.roc_auc_score(y, p):.3f}  yes"
    assert labels["precision_recall"] == f"average {sk.average_precision_score(y, p):.3f}  yes"
    matrix = sk.confusion_matrix(y, p > 0.5)
    shares = matrix / matrix.sum(1, keepdims=True)
    assert [text.get_text() for text in drawn["confusion"].axes[0].texts] == [
        f"{c}\n{share:.0%}" for c, share in zip(matrix.flat, shares.flat, strict=True) if c
    ]
    accuracy = [bar.get_height() for bar in drawn["accuracy_by_length"].axes[0].patches]
    is_right = (p > 0.5) == y
    assert accuracy == pytest.approx([is_right[:40].mean(), is_right[40:].mean()])
    equal = dict(evaluation_figures(o, Decision(), sequences([5] * 70), Schema(2, ["no", "yes"])))
    assert list(equal) == list(EVALUATION[:-1])
    (curve,) = [line for line in drawn["reliability"].axes[0].lines if len(line.get_xdata()) > 2]
    share, mean = np.array([(y[at].mean(), p[at].mean()) for b in range(15) if (at := np.minimum(p * 15 // 1, 14) == b).any()]).T  # fmt: skip  # noqa: E501
    np.testing.assert_allclose(
        np.stack([curve.get_xdata(), curve.get_ydata()]), [mean, share], atol=1e-6
    )
    in_bins = np.bincount(np.minimum(p * 15 // 1, 14).astype(int), minlength=15)
    bars = drawn["reliability"].axes[1].patches
    assert [bar.get_height() for bar in bars] == [n for n in in_bins if n]
    for interval in drawn["reliability"].axes[0].collections[0].get_segments():
        assert 0 <= interval[0, 1] < interval[1, 1] <= 1
    worst = drawn["mistakes"].subfigs[0].get_suptitle()
    wrong = np.flatnonzero((p > 0.5) != y)
    i = wrong[np.argmax(np.maximum(p, 1 - p)[wrong])]
    names = ["no", "yes"]
    confidence = max(p[i], 1 - p[i])
    assert worst == f"{i}: {names[int(p[i] > 0.5)]} {confidence:.3f}\ntrue: {names[y[i]]}"


@pytest.mark.parametrize("num_features", [1, 2, 6, 9])
def test_each_feature_has_a_panel_with_its_name(num_features):
    data = sequences([12] * 30, num_features)
    names = [f"feature {i} of a very long name" for i in range(num_features)]
    schema = Schema(num_features, ["no", "yes"], names)
    metrics = Metrics(random_evaluation(2, 30, 0), Decision())
    rows = torch.arange(4)
    figures = [
        mistakes(metrics, torch.arange(30), data, schema),
        attribution(torch.randn(4, 12), data, rows.tolist(), schema),
    ]
    wanted = short_names(names)[:6]
    for figure, more in zip(figures, [[], ["contribution"]], strict=True):
        assert len(figure.subfigs) >= 2
        for part in figure.subfigs:
            assert [axes.get_title(loc="left") for axes in part.axes] == [*wanted, *more]
    lines = [axes.lines[0] for axes in figures[1].subfigs[0].axes[:-1]]
    values = data.batch(rows[:1]).x[0, :, :6]
    np.testing.assert_array_equal(np.stack([line.get_ydata() for line in lines], axis=1), values)


def test_short_names_stay_different():
    names = ["ill before treatment A", "ill before treatment A again", "ill   but treatment A"]
    assert len(set(short_names(names))) == 3
    alike = ["very long name 1 of all", "very long name 2 of all"]
    assert short_names(alike) == ["0 very lo…of all", "1 very lo…of all"]


def test_names_that_no_font_has_are_drawn_without_a_warning():
    schema = Schema(2, ["上昇", "\U0001f9ec"], ["温度", "नमस्ते"])
    drawn = evaluation_figures(random_evaluation(2, 30, 0), Decision(), sequences([5] * 30), schema)
    for name, figure in drawn:
        assert is_drawn(Image.fromarray(pixels(figure))), name


def test_a_font_is_found_for_characters_that_the_default_font_lacks():
    figure, axes = new_axes("\u2312", "", "")  # an arc, in DejaVu Sans Mono
    other, _ = new_axes("\u20d2", "", "")  # of another font
    lacking, _ = new_axes("\U0010ffff", "", "")
    images = [pixels(drawn) for drawn in (figure, other, lacking)]
    assert axes.get_title(loc="left") == "\u2312"
    assert not np.array_equal(images[0], images[2])
    families = fonts_with(frozenset([0x2312, 0x10FFFF]))
    assert families == fonts_with(frozenset([0x2312]))
    assert len(families) == 1
    assert "DejaVu" in families[0]


def test_names_are_no_formulas():
    evaluation = random_evaluation(3, 30, 0)
    schema = Schema(2, ["$\\frac$", "_hidden", "a\nb"], ["$x_{$", "<b>"])
    for name, figure in evaluation_figures(evaluation, Decision(), sequences([5] * 30), schema):
        assert is_drawn(Image.fromarray(pixels(figure))), name
        if name == "roc":
            assert len(figure.axes[0].get_legend().texts) == 3


@pytest.mark.slow
def test_the_horizon_of_an_lstm_is_longer_than_that_of_a_plain_network(empty, run_ok):
    horizons = {"rnn": [], "lstm": []}
    for version, (seed, cell) in enumerate((seed, cell) for seed in range(3) for cell in horizons):
        # short sequences among them: on long ones alone it is chance whether either learns
        data = ("--data.task", "delayed_recall", "--data.length", 50, "--data.min_length", 5)
        model = ("--model.lr", 0.003, "--model.cell", cell)
        run_ok("fit", *data, *model, "--trainer.max_epochs", 40, "--seed_everything", seed)
        found = EventAccumulator(f"lightning_logs/version_{version}").Reload()
        assert found.Scalars("val/accuracy")[-1].value > 0.95, (cell, seed)  # all have learned
        horizons[cell].append(found.Scalars("gradient_flow/horizon/layer0")[-1].value)
    assert np.median(horizons["rnn"]) < np.median(horizons["lstm"]), (
        horizons
    )  # of one seed it is chance
