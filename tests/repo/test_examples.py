"""The scripts in `examples/`, as a user runs them."""

import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest
import torch
import yaml
from optuna.storages import JournalStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from scipy import stats
from sklearn.metrics import accuracy_score
from sqlalchemy.exc import SQLAlchemyError

from lightning_rnn import SequenceNetwork, export_onnx
from lightning_rnn.errors import NumericError
from lightning_rnn.models.network import NetworkOptions

SEARCHED = ("lr", "cell", "hidden_size", "bidirectional")
EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name, *args, cwd, text=None):
    command = [sys.executable, str(EXAMPLES / name), *map(str, args)]
    done = subprocess.run(command, cwd=cwd, input=text, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done


def test_python_of_the_document_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = SequenceNetwork(input_size=1, num_classes=2)
    for name, streaming in (("model", False), ("step", True)):
        export_onnx(net, f"{name}.onnx", class_names=["no", "yes"], streaming=streaming)
    page = (EXAMPLES.parent / "docs/export.md").read_text()
    found = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    assert all(code.count("\n") < 20 for code in found)
    for code in found:
        exec(code, {})


def test_lines_are_scored(tmp_path):
    torch.manual_seed(0)
    net = SequenceNetwork(input_size=2, num_classes=2, options=NetworkOptions(cell="gru")).eval()
    export_onnx(net, tmp_path / "step.onnx", class_names=["no", "yes"], streaming=True)
    lines = "a 1 2\nb 0.5 nan\n\na -1 0.25\na\n \na 1 2\n"
    done = example("score_lines.py", "step.onnx", cwd=tmp_path, text=lines)
    assert done.stderr == ""
    x = torch.tensor([[[1, 2], [-1, 0.25]], [[0.5, torch.nan], [0, 0]], [[1, 2], [0, 0]]])
    with torch.inference_mode():
        both, b, a = net.decision.probabilities(net(x, torch.tensor([2, 1, 1]))).tolist()
    found = [(name, float(p)) for name, p in (line.split() for line in done.stdout.splitlines())]
    assert [name for name, _ in found] == ["a", "b", "a", "a"]
    np.testing.assert_allclose([p for _, p in found], [a, b, both, a], atol=1e-6)
    assert len((EXAMPLES / "score_lines.py").read_text().splitlines()) < 20


def written(path, n=60):
    """Write a wide file of unusual columns; return the options that read it."""
    rng = np.random.default_rng(0)
    steps = {f"t{i}": rng.normal(size=n) for i in range(12)}
    kind = np.where(sum(steps.values()) > 0, "up", "down")
    pl.DataFrame({"name": [f"s{i}" for i in range(n)], "kind": kind} | steps).write_csv(path)
    options = {"train_path": path, "label_column": "kind", "id_column": "name", "val_fraction": 0.2}
    return [f"--data.{name}={value}" for name, value in options.items()]


def search(*args, monkeypatch):
    """Run the search in this process."""
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, args)])
    runpy.run_path(str(EXAMPLES / "search.py"), run_name="__main__")


@pytest.fixture
def in_process(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("lightning.pytorch", "lightning.fabric"):
        caplog.set_level("ERROR", name)  # as the search does, but given back
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.mark.parametrize("storage", ["search.journal", "sqlite:///search.db"])
def test_a_search_survives_a_trial_that_diverges(storage, in_process, monkeypatch):
    options = written("train.csv")

    def train(args, callback):
        if callback is not None and callback.trial.number in diverging:
            raise NumericError("loss: found nan")
        if callback is not None:
            callback.values = [0.5, 0.25]

    script = runpy.run_path(str(EXAMPLES / "search.py"))
    monkeypatch.setitem(script["main"].__globals__, "fit", train)
    for name, states in (("some", ["FAIL", "COMPLETE", "COMPLETE"]), ("all", ["FAIL"] * 3)):
        args = ["search.py", "--trials=3", "--storage", storage, "--study", name, *options]
        monkeypatch.setattr(sys, "argv", args)
        diverging = {0} if name == "some" else {0, 1, 2}
        if name == "some":
            script["main"]()
        else:
            with pytest.raises(SystemExit, match="1"):
                script["main"]()
        stored = script["open_storage"](storage, 60)
        trials = optuna.load_study(study_name=name, storage=stored).get_trials()
        assert [trial.state.name for trial in trials] == states


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--space", "{model.lr: {low: 2, high: 1}}"], "space: expected for model.lr low <= high"),
        (["--space", "{model.lr: {low: 0, high: 1, log: true}}"], "above 0 with log, got"),
        (["--space", "{model.lr: {low: 1, high: many}}"], "expected numbers as low and high"),
        (["--space", "{model.lr: []}"], "space: expected for model.lr a list, or low, high"),
        (["--space", "[model.lr]"], "space: expected options of fit, or a file"),
        (["--space", "{a: b: c}"], "space: expected YAML"),
        (["--space", "{model.pos_weight: [1, 2]}"], "monitor: expected another metric than val/l"),
        (["--model.lr", "1"], "--model.lr: is set by this script"),
        (["--ckpt_path", "last"], "--ckpt_path: is set by this script"),
        (["--heartbeat", "0"], "heartbeat: expected an integer of at least 1"),
        (["--data.val_fraction", "0"], "--data.val_fraction: expected validation data, got none"),
        (["--data.label_column", "x"], "of which 'kind' may be classes"),
    ],
)
def test_a_search_that_is_refused_writes_nothing(args, message, in_process, monkeypatch, capsys):
    options = written("train.csv", n=20)
    with pytest.raises(SystemExit):
        search(*options, *args, monkeypatch=monkeypatch)
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in Path().iterdir()] == ["train.csv"]


def test_a_search_goes_on_where_it_was(in_process, monkeypatch, capsys):
    space = "{model.lr: {low: 1e-3, high: 0.1, log: true}, model.cell: [rnn, gru], "
    space += "model.hidden_size: {low: 2, high: 4}, model.bidirectional: [true, false]}"
    Path("space.yaml").write_text(space)
    options = [*written("train.csv"), "--space=space.yaml", "--monitor=val/accuracy"]
    options += ["--trainer.max_steps=6", "--model.stem=none"]
    search(*options, "--trials=1", monkeypatch=monkeypatch)
    search(*options, "--trials=3", monkeypatch=monkeypatch)
    storage = JournalStorage(JournalFileBackend("search.journal"))
    study = optuna.load_study(study_name="search", storage=storage)
    trials = study.get_trials()
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert len(trials) == 3
    assert all(trial.intermediate_values for trial in trials)
    assert study.best_value == max(trial.value or 0 for trial in trials)
    command = capsys.readouterr().out.splitlines()[-1]
    for trial in trials:
        folder = Path(f"search/trial_{trial.number}/lightning_logs/version_0")
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert {f"model.{name}": config["model"][name] for name in SEARCHED} == trial.params
        assert config["data"]["init_args"]["label_column"] == "kind"
    assert all(f"--{name}=" in command for name in study.best_params)
    assert "--trainer.max_steps=6" in command
    with pytest.raises(SystemExit):
        search(*options, "--model.num_layers=2", monkeypatch=monkeypatch)
    assert "study: expected a new study, or the options of 'search'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["search.journal", "sqlite:///search.db"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_trial_of_a_killed_process_is_continued(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*written("train.csv", n=400), "--trials=4", "--storage", storage, "--heartbeat=1"]
    options += ["--trainer.max_epochs=25", "--model.stem=none", "--space"]
    options += ["{model.hidden_size: {low: 8, high: 64}, model.cell: [lstm]}"]
    command = [sys.executable, str(EXAMPLES / "search.py"), *options]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with first, open("second.log", "w") as log:
        running = wait_for_trials(storage, 1)
        with subprocess.Popen(command, stdout=log, stderr=log) as second:
            running = wait_for_trials(storage, 2)
            first.kill()
            assert second.wait(timeout=240) == 0, Path("second.log").read_text()
    trials = trials_of(storage)
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert len(failed) == 1
    assert failed[0].number in running
    again = [trial for trial in trials if trial.params == failed[0].params][-1]
    assert RetryHeartbeatStaleTrialCallback.retried_trial_number(again) == failed[0].number
    assert again.state.name in ("COMPLETE", "PRUNED")
    log = Path("search", f"trial_{again.number}", "log.txt").read_text()
    assert f"search/trial_{failed[0].number}/lightning_logs/version_0/checkpoints/last.ckpt" in log
    steps = list(again.intermediate_values)
    assert steps == list(range(1, len(steps) + 1))
    before = list(failed[0].intermediate_values.items())[:1]
    assert list(again.intermediate_values.items())[:1] == before
    assert sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials) >= 4


def trials_of(storage):
    if storage.endswith(".journal"):
        storage = JournalStorage(JournalFileBackend(storage))
    return optuna.load_study(study_name="search", storage=storage).get_trials()


def wait_for_trials(storage, number):
    """Return the numbers of the running trials, once so many have validated twice."""
    for _ in range(600):
        time.sleep(0.2)
        try:
            trials = trials_of(storage)
        except (KeyError, RuntimeError, OSError, SQLAlchemyError):  # the study does not exist yet
            continue
        running = [trial for trial in trials if trial.state.name == "RUNNING"]
        num_validations = [len(trial.intermediate_values) for trial in running]
        if len(running) == number and min(num_validations) > 1:
            return [trial.number for trial in running]
    raise AssertionError(f"expected {number} running trials")


def test_interval_of_folds():
    interval_of_mean = runpy.run_path(str(EXAMPLES / "folds.py"))["interval_of_mean"]
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 0.8, size=5)
    narrow = [{"f1": v, "f1_low": v - 0.001, "f1_high": v + 0.001} for v in values]
    error = np.sqrt(values.var(ddof=1) * (1 / 5 + 1 / 4))
    expected = stats.t.interval(0.95, 4, values.mean(), error)
    assert interval_of_mean("f1", narrow) == pytest.approx(expected, abs=1e-3)
    equal = [{"f1": 1.0, "f1_low": 0.8, "f1_high": 1.0}] * 4
    assert interval_of_mean("f1", equal) == pytest.approx((0.9, 1.0))


@pytest.mark.slow
def test_folds_predict_what_they_have_not_seen_and_go_on(tmp_path, make_long):
    table = make_long([f"s{i}" for i in range(40)])
    table.rename({"label": "kind"}).write_csv(tmp_path / "train.csv", separator=";")
    options = ["--data.train_path=train.csv", "--data.id_column=id", "--data.time_column=time"]
    options += ["--data.group_column=group", "--data.label_column=kind", "--model.stem=none"]
    options += ["--trainer.max_epochs=10", "--folds=4", "--jobs=1"]
    example("folds.py", *options, cwd=tmp_path)
    found = pl.read_csv(tmp_path / "folds/predictions.csv")
    expected = pl.read_csv(tmp_path / "train.csv", separator=";").unique("id")
    joined = found.join(expected, on="id", suffix="_of_file")
    assert len(joined) == len(found) == 40
    assert (joined["true_label"] == joined["kind"]).all()
    assert set(joined["fold"]) == {0, 1, 2, 3}
    assert joined.group_by("group").agg(pl.col("fold").n_unique())["fold"].max() == 1
    p = found.select("probability_down", "probability_up").to_numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    metrics = pl.read_csv(tmp_path / "folds/metrics.csv")
    row = metrics.row(by_predicate=pl.col("metric") == "test/accuracy", named=True)
    assert row["low"] < row["mean"] <= row["high"] <= 1
    for fold in range(4):
        part = found.filter(pl.col("fold") == fold)
        accuracy = accuracy_score(part["true_label"], part["label"])
        assert row[f"fold_{fold}"] == pytest.approx(accuracy)
    for path in ("fold_1/result.json", "fold_2/predictions.csv"):
        (tmp_path / "folds" / path).unlink()
    text = (tmp_path / "folds/predictions.csv").read_text()
    done = example("folds.py", *options, cwd=tmp_path)
    assert "1 of 4 folds to do" in done.stdout
    assert (tmp_path / "folds/predictions.csv").read_text() == text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.fold=1"], "--data.fold: is set by this script; give --folds"),
        (["--folds=1"], "--data.num_folds: expected an integer of at least 2, got 1"),
        (["--jobs=0"], "jobs: expected an integer of at least 1, got 0"),
        (["--data.test_fraction=0.2"], "--data.test_fraction: expected 0, as a fold is tested"),
        (["--folds=30"], "fold 0 split: expected every class"),
    ],
)
def test_folds_that_are_refused_write_nothing(args, message, in_process, monkeypatch, capsys):
    options = written("train.csv", n=20)
    monkeypatch.setattr(sys, "argv", ["folds.py", *options, *args])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLES / "folds.py"), run_name="__main__")
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["train.csv"]
