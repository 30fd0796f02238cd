"""Reports on data sets: what is odd is found, what is not is left alone."""

import numpy as np
import pytest
import torch

from lightning_rnn.data.report import digests_of, length_histogram, overlaps, suspicions
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences

TWO = Schema(2, ["no", "yes"], ["a", "b"])


def make(n=50, seed=0, **columns):
    values = torch.randn(2 * n, 2, generator=torch.Generator().manual_seed(seed))
    return Sequences(values, torch.full((n,), 2), torch.arange(n) % 2, **columns)


def suspicions_of(part, name="train"):
    return suspicions(name, part, digests_of(part), TWO)


def overlaps_of(parts):
    return overlaps(parts, {name: digests_of(part) for name, part in parts.items()})


def test_nothing_is_odd_about_noise():
    parts = {"train": make(), "val": make(seed=1)}
    for name, part in parts.items():
        assert suspicions_of(part, name) == []
    assert overlaps_of(parts) == []


def test_what_is_odd():
    part = make()
    part.values[:, 1] = 3.0
    part.values[2:4] = part.values[0:2]  # sequence 1 repeats 0, of another class
    part.values[8:10] = part.values[4:6]  # sequence 4 repeats 2, of the same
    part.labels[part.labels == 1] = 0
    part.labels[:10] = torch.arange(10) % 2
    assert suspicions_of(part) == [
        "train: feature b is always 3",
        "train: classes of fewer than 20 sequences: yes 5",
        "train: sequences that repeat an earlier one: 2, 1 of them with another label",
    ]
    part.values[:, 0] = torch.nan
    assert "train: feature a has no values" in suspicions_of(part)


def test_numbers_that_may_mean_missing():
    part = make()
    part.values[::7, 0] = -9999.0
    part.values[::9, 0] = torch.finfo().min
    part.values[1::9, 1] = 999.0
    first, second, third = suspicions_of(part)
    assert first.startswith("train: feature a is -3.40282347e+38 12 times, far from other values")
    assert second.startswith("train: feature a is -9999 13 times")
    assert second.endswith("if missing, set missing_values to [-9999]")
    assert third.startswith("train: feature b is 999 11 times")
    once = make()
    once.values[0] = -9999.0
    assert suspicions_of(once) == []


@pytest.mark.parametrize("kind", ["binary", "counts", "uniform", "clipped", "heavy"])
def test_other_numbers_do_not(kind):
    rng = np.random.default_rng(0)
    values = {
        "binary": (rng.random(400) < 0.02).astype(float),
        "counts": rng.poisson(0.2, 400),
        "uniform": rng.random(400).round(2),
        "clipped": rng.normal(size=400).clip(-2, 2),
        "heavy": np.exp(2 * rng.normal(size=400)).round(1),
    }[kind]
    part = Sequences(values.reshape(200, 2), [2] * 100, np.arange(100) % 2)
    assert not any("far from" in finding for finding in suspicions_of(part))


def test_digests_differ_where_the_values_differ():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 4, size=300)
    values = rng.integers(0, 2, size=(lengths.sum(), 2)).astype(np.float32)
    parts = [part.tobytes() for part in np.split(values, lengths.cumsum()[:-1])]
    digests = digests_of(Sequences(values, lengths))
    same = np.array(parts, dtype=object)[:, None] == np.array(parts, dtype=object)
    assert (same == (digests[:, None] == digests)).all()
    assert 300 < same.sum() < 300**2


def test_parts_that_share():
    groups = np.array([f"g{i}" for i in range(50)], dtype=object)
    train, val = (
        make(groups=groups),
        make(seed=1, groups=np.array([f"g{i + 48}" for i in range(50)], dtype=object)),
    )
    val.values[:6] = train.values[10:16]
    parts = {"train": train, "val": val, "test": make(seed=2)}
    assert overlaps_of(parts) == [
        "sequences of val that are also in train: 3",
        "groups in both train and val: 2 (g48, g49)",
    ]


def test_histogram():
    lines = length_histogram(torch.tensor([3, 3, 3, 4, 20]))
    assert len(lines) == 6
    assert lines[0].split() == ["3-5", "#" * 40, "4"]
    assert lines[-1].split() == ["18-20", "#" * 10, "1"]
    assert length_histogram(torch.tensor([7, 7])) == ["  7  " + "#" * 40 + "  2"]


@pytest.mark.parametrize("task", ["sum_sign", "temporal_order"])
def test_a_synthetic_data_set(empty, run_ok, task):
    out = run_ok(
        "inspect", "--data", "SyntheticDataModule", "--data.task", task, "--data.num_test", 200
    )
    assert "train: 1000 sequences; steps: 10; no missing values" in out
    assert ("nothing suspicious" in out) == (
        task == "sum_sign"
    )  # one-hot symbols of ten steps recur
    assert not list(empty.iterdir())


def test_files(empty, run_ok, run, make_long):
    make_long([f"s{i}" for i in range(40)]).write_csv("train.csv")
    words = ("train.csv", "--data.id_column", "id", "--data.time_column", "time",
             "--data.feature_columns", "['a', 'b']")  # fmt: skip
    splits = ("--data.val_fraction", 0.2, "--data.test_path", "train.csv")
    out = run_ok("inspect", *words, *splits)
    assert "features: 2 (a, b)" in out
    assert "train: 32 sequences; steps: 3 to 5" in out
    assert "down 16, up 16" in out
    assert "- sequences of test that are also in train: 32" in out
    explicit = ("--data", "FileDataModule", "--data.train_path", *words)
    assert run_ok("inspect", *explicit, *splits) == out
    assert "train: 40 sequences" in run_ok("inspect", *words)  # as fit divides them
    result = run("inspect", *words, "--data.val_path", "nothing.csv")
    assert result.code == 1
    assert "nothing.csv" in result.err
    result = run("inspect")
    assert result.code == 2
    assert "expected a file, got nothing" in result.err
