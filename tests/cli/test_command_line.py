"""What each command writes and prints, and where its settings come from."""

import hashlib
import json
import re
import shlex
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from helpers import BEST, LAST, RUN, TINY_DATA, load
from lightning.pytorch import Trainer
from polars.testing import assert_frame_equal
from sklearn import metrics as sk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_rnn import FileDataModule, SequenceClassifier, SyntheticDataModule, __version__
from lightning_rnn.__main__ import main
from lightning_rnn.cli.request import COMMANDS

SIZES = {"num_train": 64, "num_val": 32, "num_test": 64}  # of TINY_DATA


def test_part():
    """Return the sequences that the `trained` run is tested on."""
    return SyntheticDataModule(**SIZES, seed=5).split("test")


test_part.__test__ = False


def arrays(sequences):
    return [sequences.batch(torch.tensor([i])).x[0].numpy() for i in range(len(sequences))]


def epoch_lines(out):
    """Return each epoch's metrics by name."""
    found = []
    for line in out.splitlines():
        if line.startswith("epoch "):
            found.append(
                {name: float(value) for name, value in re.findall(r"(\w+/\w+) (\S+)", line)}
            )
    return found


def printed_config(run_ok, *args):
    return yaml.safe_load(run_ok(*args, "--print_config"))


# fit


def test_fit_fills_the_run_folder(trained):
    found = {str(path.relative_to(RUN)) for path in RUN.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert found - events == {
        "config.yaml",
        "finished.txt",
        "hparams.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
    }
    assert [path.name for path in Path("lightning_logs").iterdir()] == ["version_0"]
    assert {path.name for path in trained.iterdir()} == {"lightning_logs", "fit.txt"}


def test_fit_prints_a_line_for_each_epoch(trained):
    out = (trained / "fit.txt").read_text()
    assert (
        "data: 64 train, 32 val sequences; steps: 10; features: 1; classes: negative, positive"
        in out
    )
    parameters = sum(p.numel() for p in SequenceClassifier.load_from_checkpoint(BEST).parameters())
    assert f"model: {parameters} parameters" in out
    lines = epoch_lines(out)
    assert len(lines) == 2
    assert all(
        list(line) == ["train/loss", "train/accuracy", "val/loss", "val/accuracy"] for line in lines
    )
    assert f"run folder: {RUN}" in out


def test_epoch_lines_are_the_epochs_own_numbers(trained, run_ok):
    """`validate` finds the validation numbers of the last epoch for the last checkpoint."""
    line = epoch_lines((trained / "fit.txt").read_text())[-1]
    out = run_ok("validate", "--ckpt_path", LAST)
    found = {
        name: float(value)
        for name, value in re.findall(r"(val/\w+)[ │]+([\d.e+-]+)(?=[ │\n])", out)
    }
    assert line["val/loss"] == pytest.approx(found["val/loss"], abs=1e-4)
    assert line["val/accuracy"] == pytest.approx(found["val/accuracy"], abs=1e-4)


@pytest.mark.parametrize("root", [".", "my runs"])
def test_fit_prints_a_next_command_that_works(empty, run_ok, tiny, root):
    out = run_ok("fit", *tiny, *TINY_DATA, "--trainer.default_root_dir", root)
    command = shlex.split(re.search(r"^next: (.*)$", out, re.MULTILINE)[1])
    assert command[:4] == ["python", "-m", "lightning_rnn", "test"]
    assert "metrics written to" in run_ok(*command[3:])
    assert (Path(root) / RUN / "test_metrics.json").is_file()
    logdir = shlex.split(re.search(r"tensorboard --logdir (.*)$", out, re.MULTILINE)[1])
    assert list(Path(*logdir).glob("version_0/events*"))


def test_a_second_fit_gets_its_own_folder_and_becomes_the_newest(trained, run_ok, tiny):
    run_ok("fit", *tiny, *TINY_DATA, "--model.cell", "gru")
    for number in range(2, 11):  # version_10 is newer than version_9
        shutil.copytree("lightning_logs/version_1", f"lightning_logs/version_{number}")
    newest = Path("lightning_logs/version_10/checkpoints/best.ckpt").absolute()
    assert f"no --ckpt_path given: using {newest}" in run_ok("test")
    assert load(newest)["hyper_parameters"]["cell"] == "gru"


def test_config_of_the_run_folder_repeats_the_run(trained, run_ok):
    run_ok("fit", "--config", RUN / "config.yaml")
    first, second = load(LAST), load("lightning_logs/version_1/checkpoints/last.ckpt")
    assert first["state_dict"].keys() == second["state_dict"].keys()
    assert all(
        torch.equal(value, second["state_dict"][name])
        for name, value in first["state_dict"].items()
    )


def test_seeds_decide_the_weights(empty, run_ok, tiny):
    for seed in (1, 1, 2):
        run_ok("fit", *tiny, *TINY_DATA, "--seed_everything", seed)
    first, second, other = (
        load(f"lightning_logs/version_{i}/checkpoints/last.ckpt")["state_dict"] for i in range(3)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["network.head.weight"], other["network.head.weight"])


def test_best_is_the_best_and_last_the_last(empty, run_ok, tiny):
    options = ("--trainer.max_epochs", 4, "--model.lr", 5, "--model.schedule", "constant")
    out = run_ok("fit", *tiny, *TINY_DATA, *options)
    losses = [line["val/loss"] for line in epoch_lines(out)]
    expected = int(np.argmin(losses))
    assert expected < 3, "the last epoch must not be the best one"
    assert load(BEST)["epoch"] == expected
    assert load(LAST)["epoch"] == 3
    validated = run_ok("validate", "--ckpt_path", BEST)
    assert float(re.search(r"val/loss[ │]+([\d.e+-]+)", validated)[1]) == pytest.approx(
        losses[expected], abs=1e-4
    )


def test_checkpoint_can_follow_another_metric(empty, run_ok, tiny):
    options = ("--trainer.max_epochs", 5, "--checkpoint.monitor", "val/accuracy")
    out = run_ok("fit", *tiny, *TINY_DATA, *options)
    assert load(BEST)["epoch"] == int(
        np.argmax([line["val/accuracy"] for line in epoch_lines(out)])
    )


def test_without_validation_the_last_is_the_best(empty, run_ok, tiny):
    out = run_ok("fit", *tiny, *TINY_DATA, "--data.num_val", 0)
    assert BEST.read_bytes() == LAST.read_bytes()
    assert load(BEST)["epoch"] == 1
    assert [list(line) for line in epoch_lines(out)] == [["train/loss", "train/accuracy"]] * 2


def test_tensorboard_has_curves_and_settings(trained, run_ok):
    run_ok("test")
    tags, hparams, curve = set(), set(), []
    for path in sorted(RUN.glob("events*")):
        events = EventAccumulator(str(path))
        events.Reload()
        tags |= set(events.Tags()["scalars"])
        if "val/accuracy" in events.Tags()["scalars"]:
            curve = [event.value for event in events.Scalars("val/accuracy")]
        if "_hparams_/session_start_info" in events.summary_metadata:
            content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
            hparams |= set(HParamsPluginData.FromString(content).session_start_info.hparams)
    curves = {f"{part}/{name}" for part in ("train", "val") for name in ("loss", "accuracy")}
    assert (
        curves | {"train/lr", "val/auroc", "val/f1", "hp/val_accuracy", "hp/test_accuracy"} <= tags
    )
    assert "hp_metric" not in tags
    assert {"cell", "lr", "data/task", "data/seed"} <= hparams
    expected = [line["val/accuracy"] for line in epoch_lines((trained / "fit.txt").read_text())]
    assert curve == pytest.approx(expected, abs=1e-4)


def test_fit_says_nothing_on_stderr(tmp_path, run_apart):
    result = run_apart("fit", "--trainer.max_epochs", 1, "--data.num_test", 64, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    assert "epoch 1/1" in result.out


def test_a_small_file_is_no_reason_for_a_warning(empty, run_ok, files):
    """The defaults: nine batches an epoch are fewer than ten steps between two log entries."""
    path = files / "ItalyPowerDemand_TRAIN.ts"
    run_ok("fit", "--trainer.max_epochs", 1, "--data", "FileDataModule", "--data.train_path", path)


# checkpoints outside the command line


@pytest.mark.slow
def test_checkpoint_serves_a_fresh_process(trained, run_apart):
    x = torch.linspace(-1, 1, 20).view(2, 10, 1).numpy()
    np.save("x.npy", x)
    script = f"""
import json, numpy, torch
content = torch.load({str(BEST)!r}, weights_only=True)
json.dumps(content["hyper_parameters"])
json.dumps(content["SyntheticDataModule"])
from lightning_rnn import SequenceClassifier
model = SequenceClassifier.load_from_checkpoint({str(BEST)!r})
print(json.dumps(model.predict_proba(numpy.load("x.npy")).tolist()))
"""
    result = run_apart("-W", "error", "-c", script, cwd=trained, module=None)
    assert (result.code, result.err) == (0, "")
    expected = SequenceClassifier.load_from_checkpoint(BEST).predict_proba(x)
    np.testing.assert_allclose(json.loads(result.out), expected, atol=1e-6)


@pytest.mark.parametrize("run_name", ["trained", "trained_on_files"])
def test_checkpoint_names_no_code(run_name, request):
    request.getfixturevalue(run_name)

    def keys(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield str(key)
                yield from keys(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                yield from keys(inner)

    content = load(BEST)
    found = set(keys(content))
    assert "hidden_size" in found
    assert not {"_instantiator", "_class_path", "class_path", "datamodule_hyper_parameters"} & found
    assert json.loads(json.dumps(content["hyper_parameters"])) == content["hyper_parameters"]


# test and validate


def test_test_takes_the_newest_run_and_writes_metrics(trained, run_ok):
    out = run_ok("test")
    assert f"no --ckpt_path given: using {BEST.absolute()}" in out
    found = json.loads((RUN / "test_metrics.json").read_text())
    assert found.pop("test/num_sequences") == 64
    assert list(found.pop("classes")) == ["negative", "positive"]
    digest = hashlib.sha256(BEST.read_bytes()).hexdigest()
    assert found.pop("origin")["checkpoint"] == digest
    run_ok("predict")
    table = pl.read_csv(RUN / "predictions.csv")
    y, p = test_part().labels.numpy(), table["probability_positive"].to_numpy()
    decided = p > 0.5
    expected = {
        "loss": sk.log_loss(y, p),
        "log_loss": sk.log_loss(y, p),
        "accuracy": sk.accuracy_score(y, decided),
        "auroc": sk.roc_auc_score(y, p),
        "f1": sk.f1_score(y, decided),
        "average_precision": sk.average_precision_score(y, p),
        "balanced_accuracy": sk.balanced_accuracy_score(y, decided),
        "brier": sk.brier_score_loss(y, p),
        "ece": calibration_error(np.where(decided, p, 1 - p), decided == y),
    }
    with_interval = set(expected) - {"ece"}
    bounds = {name for name in found if name.endswith(("_low", "_high"))}
    assert bounds == {f"test/{name}_{side}" for name in with_interval for side in ("low", "high")}
    values = {name: value for name, value in found.items() if name not in bounds}
    expected = {f"test/{name}": value for name, value in expected.items()}
    assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("word", ["best", "last"])
@pytest.mark.parametrize("command", ["fit", "validate", "predict", "export"])
def test_words_name_checkpoints_of_the_newest_run(trained, run_ok, command, word):
    shutil.copytree(RUN, "lightning_logs/version_1")
    path = Path(f"lightning_logs/version_1/checkpoints/{word}.ckpt").absolute()
    text = f"--ckpt_path {word}: using {path}"
    if (command, word) == ("fit", "last"):
        text = f"continuing from {path}, step {load(path)['global_step']}"
    assert text in run_ok(command, "--ckpt_path", word).splitlines()


def test_a_word_needs_a_run(empty, refused):
    for command in ("fit", "test", "export"):
        message = refused(command, "--ckpt_path", "last", code=1)
        assert message.startswith("expected a run with last.ckpt under lightning_logs, got none")


def calibration_error(confidence, correct, bins=15):
    """Return the mean distance of confidence and accuracy over bins of equal width."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs((confidence - correct)[bin_of == i].sum()) for i in range(bins)]
    return sum(gaps) / len(confidence)


def test_test_with_a_checkpoint_writes_into_its_run(trained, run_ok, monkeypatch):
    shutil.copytree(RUN, "elsewhere")
    monkeypatch.chdir(RUN)
    out = run_ok("test", "--ckpt_path", trained / "elsewhere/checkpoints/last.ckpt")
    assert "no --ckpt_path" not in out
    assert (trained / "elsewhere/test_metrics.json").is_file()
    assert not (trained / RUN / "test_metrics.json").exists()


def test_a_checkpoint_alone_can_be_tested(trained, run_ok):
    Path("alone").mkdir()
    shutil.copy(BEST, "alone/model.ckpt")
    run_ok("test", "--ckpt_path", "alone/model.ckpt")
    assert (trained / "alone/test_metrics.json").is_file()


def test_validate_agrees_with_scikit_learn(trained, run_ok):
    out = run_ok("validate")
    found = {
        name: float(value)
        for name, value in re.findall(r" val/(\w+)[ │]+([\d.e+-]+)(?=[ │\n])", out)
    }
    part = SyntheticDataModule(**SIZES, seed=5).split("val")
    y, p = (
        part.labels.numpy(),
        SequenceClassifier.load_from_checkpoint(BEST).predict_proba(arrays(part)),
    )
    decided = p > 0.5
    expected = {
        "accuracy": sk.accuracy_score(y, decided),
        "auroc": sk.roc_auc_score(y, p),
        "f1": sk.f1_score(y, decided),
        "loss": sk.log_loss(y, p),
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert not list(RUN.glob("*.json"))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "fit"])
def test_random_weights_are_never_scored(empty, run, command):
    code, out, err = run(command)
    assert (code, out) == (1, "")
    expected = "expected a run with best.ckpt under lightning_logs, got none; give --ckpt_path"
    assert err == f"lightning_rnn: error: {expected}\n"
    assert not list(empty.iterdir())


# predict


def test_predict_writes_a_row_for_each_sequence(trained, run_ok):
    out = run_ok("predict", "--ckpt_path", BEST)
    path = RUN.absolute() / "predictions.csv"
    assert f"64 predictions written to {path}" in out
    table = pl.read_csv(path)
    assert table.columns == [
        "id",
        "probability_negative",
        "probability_positive",
        "label",
        "true_label",
    ]
    assert table["id"].to_list() == list(range(64))
    labels = np.where(table["probability_positive"].to_numpy() > 0.5, "positive", "negative")
    assert table["label"].to_list() == labels.tolist()
    assert len(set(labels)) == 2
    expected = SequenceClassifier.load_from_checkpoint(BEST).predict_proba(arrays(test_part()))
    np.testing.assert_allclose(table["probability_positive"], expected, atol=1e-6)


def test_predict_never_overwrites_unasked(trained, run, run_ok):
    run_ok("predict")
    first = (RUN / "predictions.csv").read_bytes()
    assert "predictions-2.csv" in run_ok("predict", "--data.num_test", 3)
    assert "predictions-3.csv" in run_ok("predict", "--data.num_test", 3)
    assert (RUN / "predictions.csv").read_bytes() == first
    assert len(pl.read_csv(RUN / "predictions-2.csv")) == 3
    run_ok("predict", "--overwrite", "true", "--data.num_test", 4)
    assert len(pl.read_csv(RUN / "predictions.csv")) == 4
    assert not (RUN / "predictions-4.csv").exists()


def test_predict_writes_where_it_is_told(trained, run, run_ok):
    run_ok("predict", "--output", "new/x.parquet")
    run_ok("predict", "--output", "x.csv")
    assert_frame_equal(
        pl.read_parquet("new/x.parquet"), pl.read_csv("x.csv"), check_dtypes=False, abs_tol=1e-7
    )
    before = Path("x.csv").read_bytes()
    code, _, err = run("predict", "--output", "x.csv", "--data.num_test", 3)
    assert code == 2
    assert err == (
        "lightning_rnn: error: --output: "
        "expected a new file unless overwrite is true, but x.csv exists\n"
    )
    assert Path("x.csv").read_bytes() == before
    run_ok("predict", "--output", "x.csv", "--data.num_test", 3, "--overwrite", "true")
    assert len(pl.read_csv("x.csv")) == 3
    assert not (RUN / "predictions.csv").exists()
    assert not list(trained.rglob(".*"))  # what it wrote beside is gone


# files

TEXT = {"label": pl.String, "true_label": pl.String}


def test_files_end_to_end(empty, run_ok, tiny, files):
    paths = {part: files / f"ItalyPowerDemand_{part.upper()}.ts" for part in ("train", "test")}
    options = [word for part, path in paths.items() for word in (f"--data.{part}_path", path)]
    run_ok("fit", *tiny, "--data", "FileDataModule", *options)
    run_ok("test")
    run_ok("predict")
    part = FileDataModule(train_path=str(paths["train"]), test_path=str(paths["test"])).split(
        "test"
    )
    table = pl.read_csv(RUN / "predictions.csv", schema_overrides=TEXT)
    assert table["id"].to_list() == list(range(1029))
    p = table["probability_2"].to_numpy()
    assert table["label"].to_list() == np.where(p > 0.5, "2", "1").tolist()
    found = json.loads((RUN / "test_metrics.json").read_text())
    # the file's float32 probabilities tie where the metric's logits do not
    assert found["test/auroc"] == pytest.approx(sk.roc_auc_score(part.labels, p), abs=1e-5)
    assert found["test/accuracy"] == pytest.approx(
        sk.accuracy_score(part.labels, p > 0.5), abs=1e-6
    )
    np.testing.assert_allclose(
        p, SequenceClassifier.load_from_checkpoint(BEST).predict_proba(arrays(part)), atol=1e-6
    )
    run_ok("predict", "--trainer.limit_predict_batches", 0.5, "--output", "some.csv")
    assert_frame_equal(pl.read_csv("some.csv", schema_overrides=TEXT), table[:1024])


def test_many_classes_end_to_end(empty, run_ok, tiny, files):
    paths = [files / f"JapaneseVowels_slice_{part}.ts" for part in ("TRAIN", "TEST")]
    run_ok(
        "fit",
        *tiny,
        "--data",
        "FileDataModule",
        "--data.train_path",
        paths[0],
        "--data.test_path",
        paths[1],
    )
    run_ok("test")
    run_ok("predict")
    names = [str(k) for k in range(1, 10)]
    table = pl.read_csv(RUN / "predictions.csv", schema_overrides=TEXT)
    assert table.columns == [
        "id",
        *(f"probability_{name}" for name in names),
        "label",
        "true_label",
    ]
    p = table.select(pl.col("^probability_.*$")).to_numpy()
    part = FileDataModule(train_path=str(paths[0]), test_path=str(paths[1])).split("test")
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(
        p, SequenceClassifier.load_from_checkpoint(BEST).predict_proba(arrays(part)), atol=1e-6
    )
    assert table["label"].to_list() == [names[k] for k in p.argmax(1)]
    found = json.loads((RUN / "test_metrics.json").read_text())
    y, decided = part.labels.numpy(), p.argmax(1)
    p = p / p.sum(1, keepdims=True)  # float32 sums are not exact enough for scikit-learn
    expected = {
        "accuracy": sk.accuracy_score(y, decided),
        "auroc": sk.roc_auc_score(y, p, multi_class="ovr"),
        "f1": sk.f1_score(y, decided, average="macro"),
        "log_loss": sk.log_loss(y, p),
        "balanced_accuracy": sk.balanced_accuracy_score(y, decided),
    }
    assert {name: found[f"test/{name}"] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_ids_of_a_long_table_come_back_in_order(trained_on_files, run_ok):
    run_ok("predict")
    table = pl.read_csv(RUN / "predictions.csv")
    first_seen = pl.read_csv("test.csv")["id"].unique(maintain_order=True)
    assert table["id"].to_list() == first_seen.to_list()
    assert set(table["label"]) <= {"down", "up"}


def test_new_sequences_need_no_labels_and_no_training_file(
    trained_on_files, original_run_on_files, run_ok, make_long
):
    """Neither the training file nor the test file of the run is there any more."""
    full = make_long([f"n{i}" for i in range(7)])
    full.drop("label", "group").write_csv("new.csv")
    away = [path.rename(path.with_suffix(".away")) for path in original_run_on_files.glob("*.csv")]
    try:
        run_ok(
            "predict",
            "--data",
            "FileDataModule",
            "--data.predict_path",
            "new.csv",
            "--ckpt_path",
            BEST,
        )
        full.write_csv("labelled.csv")
        run_ok("test", "--ckpt_path", BEST, "--data.test_path", "labelled.csv")
    finally:
        for path in away:
            path.rename(path.with_suffix(".csv"))
    table = pl.read_csv(RUN / "predictions.csv")
    assert table["id"].to_list() == full["id"].unique(maintain_order=True).to_list()
    x = [full.filter(id=name).sort("time").select("a", "b").to_numpy() for name in table["id"]]
    p = SequenceClassifier.load_from_checkpoint(BEST).predict_proba(x)
    np.testing.assert_allclose(table["probability_up"], p, atol=1e-6)
    y = [full.filter(id=name)["label"][0] == "up" for name in table["id"]]
    found = json.loads((RUN / "test_metrics.json").read_text())
    assert found["test/accuracy"] == pytest.approx(sk.accuracy_score(y, p > 0.5))


def test_wide_rows_with_ids(empty, run, run_ok, tiny):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    who = [f"p{i}" for i in range(40)]
    ward = [f"w{i % 4}" for i in range(40)]
    frame = pl.DataFrame({"who": who, "ward": ward} | {f"t{i}": x[:, i] for i in range(3)})
    labelled = frame.with_columns(label=pl.Series(["down", "up"] * 20))
    labelled.write_csv("train.csv")
    partly = labelled.with_columns(label=pl.when(pl.col("who") != "p2").then("label"))
    partly.select(["t0", "ward", "label", "t1", "who", "t2"]).write_csv("new.csv")
    options = ("--data.train_path", "train.csv", "--data.id_column", "who")
    files = ("--preset", "tutorial", "--data", "FileDataModule", *options)
    out = run_ok("fit", *tiny, *files, "--data.group_column", "ward")
    assert "train.csv: no id is repeated: each row is a sequence of 3 time steps" in out
    run_ok("predict", "--data.predict_path", "new.csv", "--embeddings", "true")
    table = pl.read_csv(RUN / "predictions.csv")
    probabilities = ["probability_down", "probability_up"]
    embeddings = [f"embedding_{i}" for i in range(8)]
    assert table.columns == ["id", "group", *probabilities, "label", "true_label", *embeddings]
    assert (table["id"].to_list(), table["group"].to_list()) == (who, ward)
    assert table["true_label"].to_list() == partly["label"].to_list()
    model = SequenceClassifier.load_from_checkpoint(BEST)
    assert model.schema.step_names == ["t0", "t1", "t2"]
    np.testing.assert_allclose(
        table["probability_up"], model.predict_proba(x[..., None]), atol=1e-6
    )
    np.testing.assert_allclose(table.select(probabilities).sum_horizontal(), 1, atol=1e-6)
    np.testing.assert_allclose(table.select(embeddings), model.embed(x[..., None]), atol=1e-6)
    labelled.select(["who", "ward", "t1", "t0", "t2", "label"]).write_csv("other.csv")
    result = run("test", "--data.test_path", "other.csv")
    assert (result.code, "time steps in the order 't0', 't1', 't2'" in result.err) == (1, True)
    assert not (RUN / "test_metrics.json").exists()


@pytest.mark.slow
def test_earlier_metrics_are_kept(trained, run_ok):
    run_ok("test")
    first = (RUN / "test_metrics.json").read_bytes()
    run_ok("test")
    assert not (RUN / "test_metrics-1.json").exists()
    for number in (1, 2):
        out = run_ok("test", "--data.num_test", 30 + number)
        assert f"which differs, is kept as test_metrics-{number}.json" in out
    assert (RUN / "test_metrics-1.json").read_bytes() == first
    assert len({path.read_bytes() for path in RUN.glob("test_metrics*.json")}) == 3


def test_positive_class_is_the_one_that_probabilities_speak_of(empty, run_ok, tiny, make_long):
    make_long([f"s{i}" for i in range(40)]).write_csv("train.csv")
    options = (
        "--data",
        "FileDataModule",
        "--data.train_path",
        "train.csv",
        "--data.id_column",
        "id",
    )
    for positive in ("down", "up"):
        chosen = (
            "--data.time_column",
            "time",
            "--data.feature_columns",
            '["a"]',
            "--data.positive_class",
            positive,
        )
        run_ok("fit", *tiny, *options, *chosen, "--trainer.max_epochs", 10)
    up = np.ones((1, 4, 1), dtype=np.float32) * 1.5
    first, second = (f"lightning_logs/version_{i}/checkpoints/last.ckpt" for i in range(2))
    assert SequenceClassifier.load_from_checkpoint(first).predict_proba(up)[0] < 0.5
    assert SequenceClassifier.load_from_checkpoint(second).predict_proba(up)[0] > 0.5


# where settings come from


@pytest.mark.parametrize(
    ("config", "typed", "expected"),
    [
        (None, None, 64),  # the checkpoint over the default, 10000
        (12, None, 12),
        (None, 10, 10),
        (12, 10, 10),
    ],
)
def test_typed_over_config_over_checkpoint_over_default(trained, run_ok, config, typed, expected):
    args = ["predict", "--ckpt_path", BEST]
    if config is not None:
        Path("c.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"num_test": config}}}))
        args += ["--config", "c.yaml"]
    if typed is not None:
        args += ["--data.num_test", typed]
    run_ok(*args)
    assert len(pl.read_csv(RUN / "predictions.csv")) == expected


def test_a_config_typed_later_wins(trained, run_ok):
    Path("c.yaml").write_text("data: {init_args: {num_test: 12}}\n")
    run_ok("predict", "--data.num_test", 10, "--config", "c.yaml")
    assert len(pl.read_csv(RUN / "predictions.csv")) == 12


def test_every_setting_obeys_the_same_order(trained, run_ok):
    def settings(command, *args):
        config = printed_config(run_ok, command, "--ckpt_path", BEST, *args)
        data = config["data"]["init_args"]
        return (
            data["seed"],
            data["batch_size"],
            config["model"]["hidden_size"],
            config["model"]["lr"],
        )

    Path("c.yaml").write_text("data:\n  init_args:\n    batch_size: 4\nmodel:\n  lr: 0.5\n")
    for command in COMMANDS:
        assert settings(command) == (5, 16, 8, 0.01)
        assert settings(command, "--config", "c.yaml") == (5, 4, 8, 0.5)
        typed = ("--data.batch_size", 2, "--model.lr", 0.25)
        assert settings(command, "--config", "c.yaml", *typed) == (5, 2, 8, 0.25)
    assert printed_config(run_ok, "fit")["data"]["init_args"]["seed"] == 0


def test_checkpoint_path_may_stand_in_the_config(trained, run_ok):
    Path("c.yaml").write_text(f"ckpt_path: {BEST}\n")
    assert "no --ckpt_path" not in run_ok("predict", "--config", "c.yaml")
    assert len(pl.read_csv(RUN / "predictions.csv")) == 64


def test_fit_goes_on_from_a_checkpoint_with_its_settings(trained, run_ok):
    before = load(LAST)["hyper_parameters"]
    run_ok("fit", "--ckpt_path", LAST, "--trainer.max_epochs", 3, "--trainer.log_every_n_steps", 1)
    content = load(LAST)
    assert not Path("lightning_logs/version_1").exists()
    assert content["epoch"] == 2
    assert content["global_step"] == 3 * 64 // 16
    assert content["hyper_parameters"] == before


def test_typed_settings_win_over_the_checkpoint_in_a_run(trained, run_ok):
    """Contract with Lightning: it takes no setting from a checkpoint that is not in its config."""
    run_ok("fit", "--ckpt_path", LAST, "--model.lr", 0.25, "--trainer.max_epochs", 3)
    assert load(LAST)["hyper_parameters"]["lr"] == 0.25
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    assert config["model"]["lr"] == 0.25


def test_the_config_of_a_continued_run_starts_a_new_one(trained, run_ok):
    run_ok("fit", "--ckpt_path", LAST, "--trainer.max_epochs", 3)
    run_ok("fit", "--config", RUN / "config.yaml")
    new = load("lightning_logs/version_1/checkpoints/last.ckpt")
    assert load(LAST)["global_step"] == new["global_step"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_trainer_runs_the_command_and_loads_only_weights(trained, run_ok, monkeypatch, command):
    calls = []
    monkeypatch.setattr(Trainer, command, lambda self, *args, **objects: calls.append(objects))
    longer = ("--trainer.max_epochs", 9) if command == "fit" else ()
    run_ok(command, "--ckpt_path", BEST, *longer)
    [objects] = calls
    assert objects["weights_only"] is True
    assert objects["ckpt_path"] == str(BEST.absolute())


@pytest.mark.parametrize("words", [("--data", "FileDataModule"), ("--data=FileDataModule",)])
def test_another_data_class_inherits_nothing(trained, run_ok, words):
    data = printed_config(run_ok, "predict", "--ckpt_path", BEST, *words)["data"]
    assert data["class_path"].endswith("FileDataModule")
    assert (data["init_args"]["seed"], data["init_args"]["batch_size"]) == (0, None)
    Path("c.yaml").write_text("data: {class_path: FileDataModule}\n")
    assert (
        printed_config(run_ok, "predict", "--ckpt_path", BEST, "--config", "c.yaml")["data"] == data
    )


def test_configs_laid_over_each_other_count_as_one(trained, run_ok):
    """A later file that says nothing about root folder and data class leaves them as they are."""
    Path("lightning_logs").rename("moved")
    Path("runs").mkdir()
    Path("moved").rename("runs/lightning_logs")
    Path("first.yaml").write_text(
        "trainer: {default_root_dir: runs}\ndata: {class_path: FileDataModule}\n"
    )
    Path("second.yaml").write_text(
        "trainer: {benchmark: false}\ndata: {init_args: {id_column: id}}\n"
    )
    configs = ("--config", "first.yaml", "--config", "second.yaml")
    assert f"using {Path('runs').absolute()}" in run_ok(
        "predict", *configs, "--data.predict_path", new_file()
    )
    data = printed_config(run_ok, "predict", "--ckpt_path", "runs" / BEST, *configs)["data"]
    assert data["class_path"].endswith("FileDataModule")
    assert (data["init_args"]["seed"], data["init_args"]["batch_size"]) == (0, None)


def new_file():
    """Write a long table of one feature without labels."""
    pl.DataFrame({"id": ["x", "x", "y"], "value": [0.1, 0.2, 0.3]}).write_csv("new.csv")
    return "new.csv"


def test_another_data_class_predicts_with_the_same_model(trained, run_ok):
    x = torch.linspace(-1, 1, 30).view(3, 10, 1).numpy()
    np.savez("new.npz", X=x)
    run_ok(
        "predict", "--data", "FileDataModule", "--data.predict_path", "new.npz", "--output", "p.csv"
    )
    expected = SequenceClassifier.load_from_checkpoint(BEST).predict_proba(x)
    np.testing.assert_allclose(pl.read_csv("p.csv")["probability_positive"], expected, atol=1e-6)


ARCHITECTURE = [
    ("hidden_size", 9, 8),
    ("cell", "gru", "rnn"),
    ("num_layers", 2, 1),
    ("bidirectional", "true", False),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "typed", "stored"), ARCHITECTURE)
def test_another_architecture_is_refused(trained, run, command, name, typed, stored):
    allowed = () if command == "fit" else ("--allow_data_change", "true")
    code, _, err = run(command, "--ckpt_path", BEST, f"--model.{name}", typed, *allowed)
    assert code == 2
    expected = f"expected {stored!r} as in {BEST.absolute()}, got "
    assert err.startswith(f"lightning_rnn: error: --model.{name}: {expected}")


def test_continuing_with_other_data_is_refused(trained, run):
    code, _, err = run("fit", "--ckpt_path", BEST, "--data.seed", 6)
    assert code == 2
    expected = f"expected 5 as in {BEST.absolute()}, got 6"
    way_out = "--init_from in place of --ckpt_path starts from its weights"
    assert err == f"lightning_rnn: error: --data.seed: {expected}; {way_out}\n"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "fit"])
def test_other_synthetic_data_needs_permission(trained, run, run_ok, command):
    args = (command, "--ckpt_path", BEST, "--data.seed", 6)
    code, _, err = run(*args)
    assert code == 2
    assert err.startswith("lightning_rnn: error: --data.seed: expected 5 as in ")
    assert err.endswith(", got 6; --allow_data_change true accepts the difference\n")
    run_ok(*args, "--allow_data_change", "true")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("group_column", "null"),
        pytest.param("val_fraction", 0.3, marks=pytest.mark.slow),
        pytest.param("test_fraction", 0.1, marks=pytest.mark.slow),
        pytest.param("stratify", "false", marks=pytest.mark.slow),
    ],
)
def test_another_split_needs_permission(trained_on_files, run, run_ok, name, value):
    args = ("validate", "--ckpt_path", BEST, f"--data.{name}", value)
    if name == "group_column":  # whose column is else one of two features more
        args += ("--data.feature_columns", '["a", "b"]')
    code, _, err = run(*args)
    assert code == 2
    assert err.startswith(f"lightning_rnn: error: --data.{name}: expected ")
    assert err.endswith("; --allow_data_change true accepts the difference\n")
    run_ok(*args, "--allow_data_change", "true")


def test_a_checkpoint_of_a_users_own_data_class_restores_the_model(trained, run, run_ok):
    content = load(BEST)
    del content["SyntheticDataModule"]
    torch.save(content, "own.ckpt")
    args = ("test", "--ckpt_path", "own.ckpt")
    assert "--data: expected the data module" in run(*args).err
    config = printed_config(run_ok, *args, "--data", "SyntheticDataModule")
    assert (config["model"]["hidden_size"], config["data"]["init_args"]["seed"]) == (8, 0)


# talking to the program


def test_print_config_is_a_config(empty, run_ok, tiny):
    text = run_ok("fit", *tiny, *TINY_DATA, "--print_config")
    Path("c.yaml").write_text(text)
    assert list(empty.iterdir()) == [Path("c.yaml").absolute()]
    assert yaml.safe_load(run_ok("fit", "--config", "c.yaml", "--print_config")) == yaml.safe_load(
        text
    )
    run_ok("fit", "--config", "c.yaml")
    assert yaml.safe_load((RUN / "config.yaml").read_text()) == yaml.safe_load(text)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(empty, run_ok, command):
    out = run_ok(command, "--help", "all")
    assert out.startswith("usage: lightning_rnn")
    assert "--model.hidden_size" in out
    assert ("--output" in out) == (command == "predict")
    assert not list(empty.iterdir())


def test_the_console_script_is_the_same_program():
    [script] = entry_points(group="console_scripts", name="lightning-rnn")
    assert script.load() is main


def test_version(run_ok):
    assert run_ok("--version") == f"lightning_rnn {__version__}\n"


def test_a_command_is_required(empty, run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("lightning_rnn: error: ")
    assert all(command in err for command in COMMANDS)


def test_fast_dev_run_leaves_nothing(empty, run_ok):
    run_ok("fit", "--trainer.fast_dev_run", "true")
    assert not list(empty.iterdir())
