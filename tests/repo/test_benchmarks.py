"""The benchmarks run at tiny sizes, and the documents name only those that exist."""

import csv
import importlib
import math
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = (ROOT / "benchmarks").glob("*.py")
MODULES = sorted(path.stem for path in PATHS if not path.stem.startswith("__"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT_FIT = ["--trainer.max_epochs=1", "--data.num_train=64", "--data.num_test=64"]
TWO_EPOCHS = """
import time
for epoch in range(2):
    print(f"epoch {epoch + 1}/2  train/loss 0.5  val/loss 0.25")
    time.sleep(0.1)
"""


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Return a function that imports a benchmark, whose results go to a temporary folder."""
    monkeypatch.syspath_prepend(str(ROOT))
    harness = importlib.import_module("benchmarks.harness")
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def read_results(tmp_path, name):
    with (tmp_path / "quick" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", MODULES)
def test_benchmark_can_be_imported(name, benchmark):
    benchmark(name)


def test_sides_run_in_turn(benchmark):
    harness = benchmark("harness")
    order = []
    calls = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert harness.alternate(calls, runs=2, warm_up=1) == {"a": [3, 5], "b": [4, 6]}
    assert order == ["a", "b"] * 3


def test_comparison_reports_median_and_range(benchmark, tmp_path):
    harness = benchmark("harness")
    sides = [
        harness.Side("training", ["-c", TWO_EPOCHS], sequences=100),
        harness.Side("nothing", ["-c", "pass"]),
    ]
    harness.save("example", harness.compare("case", sides, runs=3, warm_up=0), quick=True)
    training, nothing = read_results(tmp_path, "example")
    assert 1000 <= float(training["us_per_sequence"]) < 10_000  # 0.1 s for 100 sequences
    assert training["loss"] == "0.2500"
    assert float(training["wall_s_ratio"]) == 1
    low, median, high = (float(nothing[f"wall_s{part}"]) for part in ("_min", "", "_max"))
    assert 0 < low <= median <= high
    assert math.isnan(float(nothing["us_per_sequence"]))
    assert nothing["python"] == sys.version.split()[0]


def test_a_command_that_fails_is_an_error(benchmark):
    harness = benchmark("harness")
    with pytest.raises(RuntimeError, match="no such thing"):
        harness.Side("bad", ["-c", "raise SystemExit('no such thing')"]).run()


def test_cells_run(benchmark, tmp_path):
    benchmark("cells").main(runs=1, quick=True)
    names = [row["cell"] for row in read_results(tmp_path, "cells")]
    assert names == ["torch rnn", "torch lstm", "torch gru", "rnn", "lstm", "gru", "mingru"]


def test_inference_runs(benchmark, tmp_path):
    benchmark("inference").main(runs=1, quick=True)
    assert {row["how"] for row in read_results(tmp_path, "inference")} >= {
        "plain loop",
        "torch streaming",
        "onnx streaming",
        "OnnxClassifier",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["published", "mid", "wide", "ragged", "ranks", "monitoring", "small", "sizes"]
)
def test_training_runs(case, benchmark, tmp_path):
    benchmark("training").main(case=case, runs=1, quick=True)
    rows = read_results(tmp_path, f"training_{case}")
    assert len(rows) >= 2
    quantity = "wall_s" if case == "small" else "us_per_sequence"
    assert all(float(row[quantity]) > 0 for row in rows)


@pytest.mark.slow
def test_start_up_runs(benchmark, tmp_path):
    benchmark("start_up").main(runs=1, quick=True)
    sides = [row["side"] for row in read_results(tmp_path, "start_up")]
    assert sides[-2:] == ["published script", "fit"]


@pytest.mark.slow
def test_larger_than_memory_runs(benchmark, tmp_path):
    benchmark("larger_than_memory").main(runs=1, quick=True)
    sides = [row["side"] for row in read_results(tmp_path, "larger_than_memory")]
    assert sides == ["memory", "file", "tiny"]


@pytest.mark.slow
def test_accuracy_runs(benchmark, tmp_path):
    benchmark("accuracy").main("c", "model.cell", "rnn", "gru", SHORT_FIT, runs=2, quick=True)
    (row,) = read_results(tmp_path, "accuracy_c")
    difference = float(row["others_accuracy"]) - float(row["accuracy"])
    assert float(row["difference"]) == pytest.approx(difference, abs=2e-4)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_documents_name_existing_scripts_and_benchmarks(path):
    text = path.read_text()
    modules = re.findall(r"-m benchmarks\.([a-z_]+)", text)
    scripts = re.findall(r"python ((?:[a-z_]+/)+[a-z_]+\.py)", text)
    assert [name for name in modules if name not in MODULES] == []
    assert [name for name in scripts if not (ROOT / name).exists()] == []


def test_documented_benchmark_options_exist(benchmark):
    """A value of `--case` in a document is one that the benchmark accepts."""
    text = "\n".join(path.read_text() for path in PAGES)
    cases = set(re.findall(r"--case ([a-z]+)", text))
    assert cases
    assert cases <= {*benchmark("training").CASES, "wide"}
