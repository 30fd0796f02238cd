"""The scripts in `examples/`, as a user runs them."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest
import torch
from sklearn.metrics import accuracy_score

from lightning_rnn import SequenceNetwork, export_onnx
from lightning_rnn.errors import NumericError
from lightning_rnn.models.network import NetworkOptions

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
    assert len(found) == 3
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


def test_a_search_survives_a_trial_that_diverges(tmp_path, monkeypatch, caplog):
    caplog.set_level("ERROR", "lightning.pytorch")  # as the search does, but given back
    main = runpy.run_path(str(EXAMPLES / "search.py"))["main"]
    storage = f"sqlite:///{tmp_path}/search.db"

    def search(name, diverging):
        def train(trial, path, max_epochs):
            if trial.number in diverging:
                raise NumericError("loss: found nan")
            return trial.suggest_float("lr", 0, 1)

        monkeypatch.setitem(main.__globals__, "train", train)
        monkeypatch.setattr(
            sys,
            "argv",
            ["search.py", "train.csv", "--trials=3", "--storage", storage, "--study", name],
        )
        main()

    search("some", {0})
    with pytest.raises(SystemExit, match="no trial has been completed"):
        search("all", range(100))
    for name, expected in (("some", ["FAIL", "COMPLETE", "COMPLETE"]), ("all", ["FAIL"] * 3)):
        trials = optuna.load_study(study_name=name, storage=storage).get_trials()
        assert [trial.state.name for trial in trials] == expected


@pytest.mark.slow
def test_a_search_goes_on_where_it_was(tmp_path):
    rng = np.random.default_rng(0)
    steps = {f"t{i}": rng.normal(size=60) for i in range(12)}
    pl.DataFrame({"label": np.where(sum(steps.values()) > 0, "up", "down")} | steps).write_csv(
        tmp_path / "train.csv"
    )
    options = ("train.csv", "--max_epochs", 2)
    example("search.py", *options, "--trials", 2, cwd=tmp_path)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/search.db")
    first = study.get_trials()
    assert len(first) == 2
    done = example("search.py", *options, "--trials", 8, cwd=tmp_path)
    trials = study.get_trials()
    assert len(trials) == 8
    assert [t.params for t in trials[:2]] == [t.params for t in first]
    assert f"8 trials, lowest validation loss {study.best_value:.4f}" in done.stdout
    command = done.stdout.splitlines()[-1]
    assert all(f"--model.{name} {value}" in command for name, value in study.best_params.items())
    assert "--trainer.max_epochs 2" in command
    example("search.py", *options, "--trials", 8, cwd=tmp_path)
    assert len(study.get_trials()) == 8
    states = {t.state.name for t in trials}
    assert states <= {"COMPLETE", "PRUNED"}
    assert all(t.intermediate_values for t in trials)


@pytest.mark.slow
def test_folds_never_judge_what_they_have_seen(tmp_path, make_long):
    make_long([f"s{i}" for i in range(40)]).write_csv(tmp_path / "train.csv")
    columns = ("--id_column", "id", "--time_column", "time", "--group_column", "group")
    done = example(
        "folds.py", "train.csv", *columns, "--folds", 4, "--max_epochs", 10, cwd=tmp_path
    )
    table = pl.read_csv(tmp_path / "folds.csv")
    groups = pl.read_csv(tmp_path / "train.csv").select("id", "group").unique()
    joined = table.join(groups, on="id")
    assert len(joined) == 40
    assert set(joined["fold"]) == {0, 1, 2, 3}
    assert joined.group_by("group").agg(pl.col("fold").n_unique())["fold"].max() == 1
    p = table.select("probability_down", "probability_up").to_numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    accuracy = accuracy_score(table["label"], np.array(["down", "up"])[p.argmax(1)])
    assert f"all: accuracy {accuracy:.4f}" in done.stdout
    assert accuracy > 0.9
