"""`compare --runs`, and names of runs."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import RUN, TINY, TINY_DATA
from hypothesis import given
from hypothesis import strategies as st

from lightning_rnn.cli.run_table import EvaluatedRun, table
from lightning_rnn.evaluation.comparison import paired_p_value
from lightning_rnn.training import tensorboard

FIT = (*TINY, *TINY_DATA, "--trainer.max_epochs", 1)
NAMED = Path("lightning_logs/version_1_wide-gru")


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_the_p_value_is_a_share_of_all_signs(differences):
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = [abs(np.dot(sign, differences)) for sign in signs]
    expected = np.mean([value >= abs(sum(differences)) for value in sums])
    assert paired_p_value(differences) == pytest.approx(expected)


def test_the_p_value_of_many_differences_is_continuous():
    exact = paired_p_value([1] * 530 + [-1] * 470)
    normal = paired_p_value([1] * 530 + [-1] * 471)
    assert exact == pytest.approx(0.0620, abs=1e-4)  # of the binomial distribution
    assert normal == pytest.approx(exact, abs=5e-3)


def test_tests_of_a_part_are_compared_with_each_other_only():
    """As with `--trainer.limit_test_batches`."""
    runs = []
    for num_sequences in (4, 2):
        labels = pl.DataFrame({"label": ["a"] * num_sequences}).with_columns(
            true_label=pl.col("label")
        )
        metrics = {"test/num_sequences": num_sequences, "test/accuracy": 1.0, "test/log_loss": 0.0}
        metrics |= {"origin": {"data": "0" * 64}, "classes": {}}
        runs.append(EvaluatedRun(f"run_{num_sequences}", {}, metrics, labels))
    assert [row["difference from *"] for row in table(runs)] == ["", ""]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, run_ok):
    """Return a folder with two runs that are tested on the same data, and one on others."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tensorboard, "can_draw", lambda: False)  # takes time
        run_ok("fit", *FIT)
        run_ok("test")
        run_ok("fit", *FIT, "--model.cell", "gru", "--run_name", "wide-gru")
        run_ok("test")  # of the newest run, which has a name
        run_ok("fit", *FIT, "--data.seed", 7)
        run_ok("test")
    return folder


def row(out, name):
    (line,) = [line for line in out.splitlines() if line.split()[0] == name]
    return line


def test_runs_are_shown_side_by_side(runs, monkeypatch, run_ok):
    monkeypatch.chdir(runs)
    assert (NAMED / "test_metrics.json").is_file()
    out = run_ok("compare", "--runs", "lightning_logs")
    header = row(out, "run")
    places = [header.index(name) for name in ("version_0", "version_1_wide-gru", "version_2")]
    assert places == sorted(places)
    assert row(out, "model.cell").split() == ["model.cell", "rnn", "gru", "rnn"]
    assert row(out, "data.seed").split() == ["data.seed", "0", "0", "7"]
    assert "hidden_size" not in out  # is the same
    found = []
    for name in ("version_0", "version_1_wide-gru", "version_2"):
        metrics = json.loads((runs / "lightning_logs" / name / "test_metrics.json").read_text())
        assert f"{metrics['test/accuracy']:.4f} (" in row(out, "accuracy")
        found.append((metrics["test/accuracy"], -metrics["test/log_loss"]))
    best = "version_0" if found[0] > found[1] else "version_1_wide-gru"
    assert header.count("*") == 2
    assert f"* {best}" in header
    assert "* version_2" in header  # other data: the only one
    difference = -abs(found[0][0] - found[1][0])
    assert f"{difference:+.4f} (p = " in row(out, "difference")


def test_the_p_value_is_that_of_the_predictions(runs, monkeypatch, run_ok):
    monkeypatch.chdir(runs)
    paired = np.zeros(64, dtype=int)
    for sign, name in ((1, "version_0"), (-1, "version_1_wide-gru")):
        lines = Path("lightning_logs", name, "test_predictions.csv").read_text().splitlines()
        table = [line.split(",") for line in lines]
        label, true = table[0].index("label"), table[0].index("true_label")
        paired += sign * np.array([cells[label] == cells[true] for cells in table[1:]])
    out = run_ok("compare", "--runs", "lightning_logs")
    assert f"(p = {paired_p_value(paired.tolist()):.2g})" in row(out, "difference")


def test_runs_without_a_test_are_named(runs, tmp_path, monkeypatch, run_ok):
    shutil.copytree(runs / "lightning_logs", tmp_path / "logs")
    (tmp_path / "logs/version_2/test_metrics.json").unlink()
    monkeypatch.chdir(tmp_path)
    out = run_ok("compare", "--runs", "logs")
    assert "not tested: logs/version_2" in out
    assert "version_2" not in row(out, "run")


def test_damaged_files_are_refused(trained, run_ok, refused, monkeypatch):
    monkeypatch.setattr(tensorboard, "can_draw", lambda: False)
    assert "--runs: expected a folder with runs" in refused("compare", "--runs", "none", code=2)
    refused_text = refused("compare", "--runs", "lightning_logs", "--model.lr", 1, code=2)
    assert "--runs: expected no options of fit beside it, got '--model.lr 1'" in refused_text
    run_ok("test")
    predictions = RUN / "test_predictions.csv"
    content = predictions.read_text()
    predictions.write_text(content.replace("positive\n", "other\n"))
    text = refused("compare", "--runs", "lightning_logs", code=1)
    assert "expected files of the same test" in text
    predictions.write_text(content.partition("\n")[0])  # no sequences
    text = refused("compare", "--runs", "lightning_logs", code=1)
    assert "expected files of the same test" in text
    predictions.write_text("x\n")
    text = refused("compare", "--runs", "lightning_logs", code=1)
    assert "expected predictions as written by test" in text


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b"])
def test_bad_names_are_refused(name, empty, refused):
    assert "--run_name: expected letters" in refused("fit", *FIT, "--run_name", name, code=2)


def test_a_named_run_is_continued(runs, tmp_path, monkeypatch, run_ok):
    shutil.copytree(runs / "lightning_logs", tmp_path / "lightning_logs")
    shutil.rmtree(tmp_path / "lightning_logs/version_2")
    monkeypatch.chdir(tmp_path)
    out = run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert f"continuing from {tmp_path / NAMED}" in out
    assert sorted(path.name for path in Path("lightning_logs").iterdir()) == [
        "version_0",
        "version_1_wide-gru",
    ]
