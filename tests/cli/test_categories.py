"""Columns of categories and of tokens, by every command."""

import json

import numpy as np
import polars as pl
import pytest
from helpers import BEST, CPU, LAST, RUN, TINY, load

from lightning_rnn import OnnxClassifier, SequenceClassifier, StreamingClassifier

WORDS = [f"w{i}" for i in range(9)]
OPTIONS = ("--data.id_column", "id", "--data.token_column", "word")
SMALL = (*TINY, *CPU, "--model.embedding_size", 4, "--model.bidirectional", "false")
PATHS = ("--data.train_path", "train.csv", "--data.test_path", "test.csv")


def write_table(path, count, words, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        for _ in range(int(rng.integers(2, 6))):
            colour = str(rng.choice(["red", "blue", ""]))
            rows.append((f"s{i}", str(rng.choice(words)), colour, rng.normal(), "ab"[i % 2]))
    pl.DataFrame(rows, schema=["id", "word", "colour", "x", "label"], orient="row").write_csv(path)


def sequences(path):
    """Return the rows of each sequence, as objects."""
    frame = pl.read_csv(path, schema_overrides={"x": pl.Float64})
    groups = frame.partition_by("id", maintain_order=True)
    return [group.select("word", "colour", "x").to_numpy() for group in groups]


def probabilities(file):
    return pl.read_csv(RUN / file)["probability_b"].to_numpy()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, run_ok):
    """A folder with a run on a token column, which is embedded, and a column of two categories."""
    folder = tmp_path_factory.mktemp("categories")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_table("train.csv", 30, WORDS, 0)
        write_table("test.csv", 8, WORDS, 1)
        write_table("some.csv", 20, WORDS[3:], 2)
        write_table("other.csv", 20, [*WORDS, "new"], 3)
        run_ok("fit", *PATHS, *OPTIONS, "--data.category_columns", "[colour]", *SMALL)
    return folder


@pytest.fixture
def here(fitted, monkeypatch):
    monkeypatch.chdir(fitted)


def test_checkpoint_predictions_and_exported_files_agree(here, run_ok):
    settings = load(BEST)["hyper_parameters"]
    assert settings["categories"] == {"colour": ["blue", "red"], "word": WORDS}
    assert load(BEST)["state_dict"]["network.preprocess.embeddings.0.weight"].shape == (10, 4)
    run_ok("test")
    run_ok("predict", "--output", RUN / "test.csv")
    expected = probabilities("test.csv")
    x = sequences("test.csv")
    model = SequenceClassifier.load_from_checkpoint(BEST)
    np.testing.assert_allclose(model.predict_proba(x), expected, atol=1e-6)
    run_ok("export", "--overwrite", "true")
    run_ok("export", "--streaming", "true", "--overwrite", "true")
    classifier = OnnxClassifier(RUN / "model.onnx")
    assert classifier.categories == settings["categories"]
    np.testing.assert_allclose(classifier.predict_proba(x), expected, atol=1e-5)
    stream = StreamingClassifier(RUN / "step.onnx")
    found = stream.update(range(len(x)), x)
    ends_with_a_value = [row[-1, 2] is not None for row in x]
    assert all(ends_with_a_value)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    one_step = StreamingClassifier(RUN / "step.onnx").update(["s"], [x[0][0]])
    np.testing.assert_allclose(one_step, classifier.predict_proba([x[0][:1]]), atol=1e-5)


def test_unknown_categories(here, run, run_ok):
    result = run("predict", "--data.predict_path", "other.csv")
    assert result.code == 1
    assert "column 'word': expected one of the categories 'w0', " in result.err
    assert "(or --data.unknown_categories true), got 'new'" in result.err
    unknown = ("--data.unknown_categories", "true", "--output", RUN / "unknown.csv")
    run_ok("predict", "--data.predict_path", "other.csv", *unknown)
    run_ok("export", "--overwrite", "true")
    classifier = OnnxClassifier(RUN / "model.onnx", unknown_categories=True)
    found = classifier.predict_proba(sequences("other.csv"))
    np.testing.assert_allclose(found, probabilities("unknown.csv"), atol=1e-5)
    columns = (*OPTIONS, "--data.category_columns", "[colour]")
    result = run("fit", *PATHS[:2], "--data.val_path", "other.csv", *columns, *SMALL)
    assert "other.csv: line" in result.err


def test_fine_tuning_keeps_the_categories(here, run, run_ok, tmp_path):
    root = ("--trainer.default_root_dir", tmp_path, "--init_from", BEST, *SMALL)
    root += ("--model.weight_decay", 0)
    run_ok("fit", "--data.train_path", "some.csv", "--data.id_column", "id", *root)
    tuned = load(tmp_path / BEST)
    assert tuned["hyper_parameters"]["categories"]["word"] == WORDS
    before = load(BEST)["state_dict"]["network.preprocess.embeddings.0.weight"]
    after = tuned["state_dict"]["network.preprocess.embeddings.0.weight"]
    is_same = (before == after).all(1)
    assert is_same[:4].all()  # the words that do not occur, and the unknown one
    assert not is_same[4:].any()
    for path, options, message in (
        ("other.csv", (), "column 'word': expected one of the categories 'w0'"),
        ("some.csv", ("--data.categories", "{word: [w8, w7, w6, w5, w4, w3]}"), "column 'colour'"),
        (
            "some.csv",
            ("--data.categories", "{word: [w3, w4, w5, w6, w7, w8], colour: [blue, red]}"),
            "--init_from: expected weights for the categories ('w3'",
        ),
    ):
        result = run("fit", "--data.train_path", path, "--data.id_column", "id", *root, *options)
        assert result.code in (1, 2)
        assert message in result.err


def test_resuming_gives_the_uninterrupted_run(here, run, run_ok, tmp_path):
    options = (*PATHS, *OPTIONS, "--data.category_columns", "[colour]", *SMALL)
    root = ("--trainer.default_root_dir", tmp_path)
    run_ok("fit", *options, *root, "--trainer.max_epochs", 1)
    run_ok("fit", *root, "--ckpt_path", tmp_path / LAST, "--trainer.max_epochs", 2)
    resumed = load(tmp_path / LAST)
    assert resumed["hyper_parameters"] == load(LAST)["hyper_parameters"]
    renamed = tmp_path / "renamed.csv"
    renamed.write_text((tmp_path.cwd() / "train.csv").read_text().replace("red", "rot"))
    result = run("fit", *root, "--ckpt_path", tmp_path / LAST, "--data.train_path", renamed)
    assert result.code == 1
    assert "expected data with the categories {'colour': ['blue', 'red']" in result.err


def test_packed_files(here, run_ok, tmp_path):
    columns = ("--id_column", "id", "--token_column", "word", "--category_columns", "[colour]")
    known = ("--categories", json.dumps(load(BEST)["hyper_parameters"]["categories"]))
    run_ok("pack", "--input", "test.csv", "--output", tmp_path / "packed", *columns, *known)
    run_ok("predict", "--output", RUN / "plain.csv")
    packed = ("--data.predict_path", tmp_path / "packed", "--output", RUN / "packed.csv")
    run_ok("predict", *packed)
    np.testing.assert_array_equal(probabilities("packed.csv"), probabilities("plain.csv"))


def test_inspect_lists_the_categories(here, run_ok):
    report = run_ok("inspect", "train.csv", *OPTIONS, "--data.category_columns", "[colour]")
    assert "features: 3 (word, colour, x)\n2 categories of colour: 'blue', 'red'\n" in report
