"""Numbers that mean missing: the same run as with empty cells, from every format."""

from contextlib import chdir

import numpy as np
import polars as pl
import pytest
import torch
from helpers import BEST, TINY

from lightning_rnn import OnnxClassifier, SequenceClassifier

MARK = -9999.0
OPTIONS = ("--data", "FileDataModule", "--data.val_fraction", 0.25)
MARKS = ("--data.missing_values", "[-9999, -3.4e+38]")
STEPS = 6


def sequences(missing):
    """(40, 6, 1) values, some missing: at the end, in the middle, and all of a sequence."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, STEPS, 1)).round(3)
    x[::2] += 2
    x[rng.random(x.shape) < 0.2] = missing
    x[:8, -2:] = missing
    x[3] = missing
    return x


def write(name, missing):
    x = sequences(missing)
    labels = np.array(["a", "b"] * 20)
    if name == "x.npz":
        np.savez(name, X=x, y=labels)
    elif name == "x.npy":
        np.save(name, x)
        np.save("x_labels.npy", labels)
    elif name in ("x.tsv", "x.ts"):
        tab, colon = ("\t", "") if name == "x.tsv" else (",", ":")
        lines = []
        for label, row in zip(labels, x[:, :, 0], strict=True):
            values = tab.join(map(str, row))
            lines.append(f"{values}:{label}" if colon else f"{label}\t{values}")
        header = ["@classLabel true a b", "@data"] if colon else []
        with open(name, "w") as file:
            file.write("\n".join([*header, *lines]) + "\n")
    else:
        ids = np.repeat(np.arange(40), STEPS)
        values = pl.Series("v", x.reshape(-1)).fill_nan(None)
        table = pl.DataFrame([pl.Series("id", ids), values, pl.Series("label", labels[ids])])
        if name == "x.csv":
            table.write_csv(name)
        else:
            table.write_parquet(name)


def fit(run_ok, folder, name, missing, *options, packed=False):
    """Train and predict in a folder; return probabilities and weights."""
    folder.mkdir()
    with chdir(folder):
        write(name, missing)
        columns = ("id_column", "id") if name in ("x.csv", "x.parquet") else ()
        path = name
        if packed:
            path = "packed"
            marks = ("--missing_values", "[-9999]") if options and packed == "marked" else ()
            columns = ("--id_column", "id", *marks)
            run_ok("pack", "--input", name, "--output", path, *columns)
            columns = ()
        columns = [f"--data.{columns[0]}", columns[1]] if columns else []
        run_ok("fit", *OPTIONS, "--data.train_path", path, *columns, *options, *TINY)
        run_ok("predict", "--data.predict_path", path, "--output", "p.csv")
        weights = torch.load(BEST, weights_only=True)["state_dict"]
        return pl.read_csv("p.csv")["probability_b"].to_numpy(), weights


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("x.csv", False),
        ("x.npz", False),
        *(
            pytest.param(name, False, marks=pytest.mark.slow)
            for name in ("x.parquet", "x.ts", "x.tsv", "x.npy")
        ),
        pytest.param("x.csv", True, marks=pytest.mark.slow),
        ("x.csv", "marked"),
    ],
)
def test_a_mark_is_like_no_value(tmp_path, run_ok, name, packed):
    expected, weights = fit(run_ok, tmp_path / "empty", name, np.nan, packed=packed)
    found, other_weights = fit(run_ok, tmp_path / "marked", name, MARK, *MARKS, packed=packed)
    np.testing.assert_array_equal(found, expected)
    for key, weight in weights.items():
        assert torch.equal(weight, other_weights[key]), key
    with chdir(tmp_path / "marked"):
        run_ok("export", "--output", "model.onnx")
        classifier = OnnxClassifier("model.onnx")
        model = SequenceClassifier.load_from_checkpoint(BEST, weights_only=True)
    for missing in (MARK, np.nan):
        x = sequences(missing)
        np.testing.assert_allclose(classifier.predict_proba(x), found, rtol=0, atol=1e-5)
        np.testing.assert_allclose(model.predict_proba(x), found, rtol=0, atol=1e-6)


def test_huge_values_are_finite_in_every_command(tmp_path, run_ok, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("x.csv", -3.4028235e38)
    columns = ("--data.id_column", "id", "--data.test_path", "x.csv")
    run_ok("fit", *OPTIONS, "--data.train_path", "x.csv", *columns, *TINY)
    assert "nan" not in run_ok("test").lower()
    run_ok("predict", "--output", "p.csv")
    probabilities = pl.read_csv("p.csv")["probability_b"].to_numpy()
    assert np.isfinite(probabilities).all()
    model = SequenceClassifier.load_from_checkpoint(BEST, weights_only=True)
    assert model.network.preprocess.std.isfinite().all()
    run_ok("export", "--output", "model.onnx")
    found = OnnxClassifier("model.onnx").predict_proba(sequences(-3.4028235e38))
    np.testing.assert_allclose(found, probabilities, rtol=0, atol=1e-5)


def test_other_marks_than_in_training_are_refused(tmp_path, run_ok, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("x.npz", MARK)
    run_ok("fit", *OPTIONS, "--data.train_path", "x.npz", *MARKS, *TINY)
    other = ("--data.predict_path", "x.npz", "--data.missing_values", "[-1]")
    message = refused("predict", *other, code=2)
    assert message.startswith("--data.missing_values: expected [-9999.0, -3.4e+38] as in ")
    assert refused(
        "fit", *OPTIONS, "--data.train_path", "x.npz", "--data.missing_values", "[1e39]", code=2
    ).startswith("--data.missing_values: expected finite float32 numbers, got [1e+39]")


def test_digits_lost_are_named_by_inspect_and_refused_by_fit(
    tmp_path, run_ok, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", X=1.7e9 + np.arange(240.0).reshape(24, 10), y=["a", "b"] * 12)
    message = refused("fit", *OPTIONS, "--data.train_path", "x.npz", code=1)
    assert message.startswith("feature 0: expected values that float32 tells apart")
    assert f"- {message}" in run_ok("inspect", *OPTIONS, "--data.train_path", "x.npz")
