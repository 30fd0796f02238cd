"""The benchmarks run at tiny sizes, and the documents name only those that exist."""

import csv
import importlib
import math
import re
import sys
from pathlib import Path

import pytest
import torch

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
def test_growth_runs(benchmark, tmp_path):
    growth = benchmark("growth")
    growth.main(["temperature", "tsv"], quick=True)
    growth.main(["temperature"], quick=True)
    rows = read_results(tmp_path, "growth")
    assert [row["case"] for row in rows] == ["tsv"] * 2 + ["temperature"] * 2
    assert all(float(row["cpu_s"]) > 0 and float(row["ratio"]) > 0 for row in rows)


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


def test_rows_are_added_to_a_file(benchmark, tmp_path):
    harness = benchmark("harness")
    path = tmp_path / "new" / "rows.csv"
    assert harness.read_rows(path) == []
    harness.append_rows(path, [{"a": 1}, {"a": 2}])
    harness.append_rows(path, [{"a": 3, "b": "x,y"}])
    rows = harness.read_rows(path)
    assert [(row["a"], row["b"]) for row in rows] == [("1", ""), ("2", ""), ("3", "x,y")]
    assert {row["python"] for row in rows} == {sys.version.split()[0]}


def test_cases_of_the_study_are_different(benchmark):
    study = benchmark("study")
    for question in study.QUESTIONS:
        cases = list(study.cases(question))
        assert len({case.key() for case in cases}) == len(cases) >= 40
        assert {case.cell for case in cases} == set(study.CELLS)
        starts = {case.initialization for case in cases}
        assert starts == (
            set(study.STARTS) - {"torch"} if question == "defaults" else set(study.STARTS)
        )


def test_a_task_is_learned_if_most_seeds_have_learned_it(benchmark):
    figures = benchmark("study_figures")
    rows = [
        {"sequences": "640", "learned": "True"},
        {"sequences": "25600", "learned": "False"},
        {"sequences": "1280", "learned": "True"},
    ]
    assert figures.median_sequences(rows) == 1280
    assert math.isinf(figures.median_sequences(rows[1:2] * 2 + rows[:1]))


@pytest.mark.slow
def test_study_runs_and_continues(benchmark, tmp_path, capsys):
    study = benchmark("study")
    questions = list(study.QUESTIONS)
    study.main(questions, quick=True)
    rows = read_results(tmp_path, "study")
    longer = [row["test_lengths"] for row in rows if row["question"] == "longer"]
    assert longer[:7] == ["1 to 40", "40", "64", "96", "128", "192", "256"]
    assert {path.name for path in (tmp_path / "quick").glob("*.png")} == {
        "study_lengths.png",
        "study_longer.png",
        "study_published.png",
    }
    path = tmp_path / "quick/study.csv"
    lines = path.read_text().splitlines(keepends=True)
    removed = [line for line in lines if line.startswith("published,adding")]
    path.write_text("".join(line for line in lines if line not in removed))
    capsys.readouterr()
    study.main(questions, quick=True)
    assert f"{len(removed)} to do" in capsys.readouterr().out
    again = read_results(tmp_path, "study")
    changing = ("seconds", "cpu_seconds", "load")
    for row in (*rows, *again):
        for name in changing:
            del row[name]
    assert sorted(map(str, again)) == sorted(map(str, rows))


def write_sets(folder):
    """Copy the data sets of the tests, each to a folder of its own."""
    for path in (ROOT / "tests/files").glob("*_T*.ts*"):
        name = path.stem.rpartition("_")[0]
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / path.name).write_bytes(path.read_bytes())


@pytest.mark.slow
def test_real_series_run_and_continue(benchmark, tmp_path, capsys):
    real = benchmark("real")
    write_sets(tmp_path / "sets")
    published = tmp_path / "published.csv"
    published.write_text(
        "set,method,accuracy\nGunPoint_slice,best,0.0\nItalyPowerDemand,best,1.0\n"
    )
    arguments = {"fit_args": ["--trainer.max_steps=2", "--model.hidden_size=4"], "seeds": 2}
    arguments |= {"published": published, "quick": True}
    real.main(tmp_path / "sets", **arguments)
    assert "| best | 2 | 0.500 |" in capsys.readouterr().out
    rows = read_results(tmp_path, "real")
    names = ("GunPoint_slice", "ItalyPowerDemand", "JapaneseVowels_slice")
    assert {(row["set"], row["seed"]) for row in rows} == {(n, s) for n in names for s in "01"}
    assert {row["steps"] for row in rows} == {"2"}
    assert all(0 <= float(row["accuracy"]) <= 1 and float(row["log_loss"]) > 0 for row in rows)
    assert {row["fit"] for row in rows} == {"--trainer.max_steps=2 --model.hidden_size=4"}
    assert (tmp_path / "quick/real_default.png").exists()
    real.main(tmp_path / "sets", **{**arguments, "sets": ["GunPoint_slice"], "seeds": 3})
    assert "1 of 3 runs to do" in capsys.readouterr().out
    assert read_results(tmp_path, "real")[:6] == rows


def test_real_series_need_both_files(benchmark, tmp_path):
    real = benchmark("real")
    with pytest.raises(SystemExit, match="expected data sets in"):
        real.find_sets(tmp_path, None)
    write_sets(tmp_path)
    assert list(real.find_sets(tmp_path, None)) == [
        "GunPoint_slice",
        "ItalyPowerDemand",
        "JapaneseVowels_slice",
    ]
    with pytest.raises(SystemExit, match="expected Coffee in"):
        real.find_sets(tmp_path, ["Coffee", "GunPoint_slice"])
    (tmp_path / "GunPoint_slice/GunPoint_slice_TEST.tsv").unlink()
    with pytest.raises(SystemExit, match=r"GunPoint_slice_TEST\.tsv"):
        real.find_sets(tmp_path, None)


def test_another_config_is_another_variant(benchmark, tmp_path):
    real = benchmark("real")
    path = tmp_path / "mine.yaml"
    path.write_text("model: {cell: gru}\n")
    before = real.labels_of("x", ["--config", str(path), "--model.lr=0.1"])
    assert before["fit"] == "--config mine.yaml --model.lr=0.1"
    path.write_text("model: {cell: lstm}\n")
    after = real.labels_of("x", ["--config", str(path), "--model.lr=0.1"])
    assert after["configs"] != before["configs"]
    assert after | {"configs": ""} == before | {"configs": ""}


def test_average_ranks(benchmark):
    """Three sets with all figures: ours is first, first with another one, and last."""
    real = benchmark("real")
    ours = {"a": 0.9, "b": 0.8, "c": 0.1, "d": 0.5}
    published = {
        "x": {"a": 0.8, "b": 0.8, "c": 0.3, "e": 1.0},
        "y": {"a": 0.7, "b": 0.6, "c": 0.2, "d": 0.5},
        "rare": {"d": 1.0},
    }
    ranks, number = real.average_ranks(ours, published)
    assert number == 3
    assert ranks == pytest.approx({"ours": 5.5 / 3, "x": 4.5 / 3, "y": 8 / 3})


def test_published_figures_are_shares(benchmark):
    table = benchmark("real").published_table(benchmark("real").PUBLISHED)
    assert {len(table["InceptionTime"]), len(table["HIVE-COTE 2"])} == {19, 17}
    assert all(0.5 < value <= 1 for known in table.values() for value in known.values())


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be measured")
def test_the_list_for_a_gpu_ends_with_one_message_without_one(benchmark, tmp_path):
    gpu = benchmark("gpu")
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available, disabling CUDA profiling")
def test_the_list_for_a_gpu_on_a_cpu(benchmark, tmp_path):
    benchmark("gpu").main(quick=True, device="cpu")
    rows = read_results(tmp_path, "gpu")
    assert [row["part"] for row in rows] == ["tests", "whole_run", "by_length", "wide", "precision"]
    assert "skipped" in rows[0]["result"]
    names = ("gpu_whole_run", "cells", "gpu_wide", "accuracy_bf16", "accuracy_tf32")
    assert all(read_results(tmp_path, name) for name in names)


def test_the_list_for_a_gpu_goes_on_after_a_failure(benchmark, tmp_path, monkeypatch):
    gpu = benchmark("gpu")

    def broken(quick, device):
        raise RuntimeError("1 failed")

    monkeypatch.setattr(gpu, "PARTS", (broken, lambda quick, device: "measured"))
    with pytest.raises(SystemExit, match="make gpu: failed: broken"):
        gpu.main(quick=True, device="cpu")
    results = [row["result"] for row in read_results(tmp_path, "gpu")]
    assert results == ["failed: 1 failed", "measured"]


@pytest.mark.filterwarnings("ignore:CUDA is not available, disabling CUDA profiling")
def test_wide_training_on_a_cpu(benchmark, tmp_path):
    assert "ms per step" in benchmark("gpu").wide(quick=True, device="cpu")
    [row] = read_results(tmp_path, "gpu_wide")
    assert float(row["ms_per_step"]) > 0
    assert row["cudnn_share"] == "nan"
