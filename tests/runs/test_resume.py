"""A stopped run goes on as if nothing had happened, and does what its user asks anew."""

import signal
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import kill_and_resume
import pytest
import torch
import yaml
from kill_and_resume import history, newest, outcome

from lightning_rnn import SequenceClassifier
from lightning_rnn.cli.parser import Parser
from lightning_rnn.training.schedules import learning_rate

LOGS = Path("lightning_logs")
RUN = LOGS / "version_0"
LAST, PREVIOUS, BEST = (
    RUN / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt", "best.ckpt")
)
STEPS = 4  # in an epoch of `SMALL`
SMALL = (
    "--data.num_train",
    64,
    "--data.batch_size",
    16,
    "--data.num_val",
    32,
    "--trainer.log_every_n_steps",
    1,
)
ALL_ON = (*SMALL, "--data.fresh", "true", "--data.length", 20, "--data.min_length", 4, "--model.stem", "conv",
          "--model.dropout", 0.3, "--model.cell", "lstm", "--model.hidden_size", 8)  # fmt: skip


@contextmanager
def terminated_in(step):
    """Let the program receive SIGTERM in the training step after so many."""
    original = SequenceClassifier.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == step:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch, batch_idx)

    with patch.object(SequenceClassifier, "training_step", training_step):
        yield


def folders():
    return sorted(path.name for path in LOGS.iterdir())


def steps_of(tag):
    return [step for name, step, _ in history(RUN) if name == tag]


def values_of(tag):
    return [
        value
        for _, value in sorted((step, value) for name, step, value in history(RUN) if name == tag)
    ]


def load(path):
    return torch.load(path, weights_only=True)


@pytest.fixture
def refused(run):
    def run_badly(*args, code):
        result = run(*args)
        assert result.code == code, result
        assert result.err.startswith("lightning_rnn: error: ") and result.err.count("\n") == 1, (
            result
        )
        return result.err

    return run_badly


# exactness


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_processes_continue_exactly(ranks):
    assert kill_and_resume.campaign(ranks, kills=2, seed=ranks) == 2


@pytest.mark.parametrize("ckpt_path", ["last", "auto", str(LAST)])
@pytest.mark.parametrize("step", [5, 2 * STEPS - 1])  # inside an epoch, in the last step of one
def test_a_stopped_run_continues_in_its_folder_with_its_settings(
    tmp_path, monkeypatch, run, run_ok, ckpt_path, step
):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    settings = (
        "--trainer.max_epochs",
        4,
        "--trainer.gradient_clip_val",
        0.5,
        "--checkpoint.monitor",
        "val/accuracy",
    )
    monkeypatch.chdir(tmp_path / "whole")
    run_ok("fit", *ALL_ON, *settings)
    monkeypatch.chdir(tmp_path / "stopped")
    with terminated_in(step):
        assert run("fit", *ALL_ON, *settings).code == 128 + signal.SIGTERM
    assert load(LAST)["global_step"] == step + 1
    before = yaml.safe_load((RUN / "config.yaml").read_text())
    run_ok("fit", "--ckpt_path", ckpt_path)
    assert folders() == ["version_0"]
    assert steps_of("train/loss") == [STEPS * epoch - 1 for epoch in (1, 2, 3, 4)]
    assert steps_of("train/lr") == list(range(4 * STEPS))
    after = yaml.safe_load((RUN / "config.yaml").read_text())
    assert after.pop("ckpt_path") == str(LAST.absolute()) and before.pop("ckpt_path") is None
    assert after == before
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    "retyped", [(), ("--seed_everything", 5)]
)  # the seed of a new run says nothing about an old one
def test_more_epochs_equal_as_many_from_the_start(tmp_path, monkeypatch, run_ok, retyped):
    options = (*ALL_ON, "--model.schedule", "constant")
    for name, runs in (
        ("whole", [(*options, 4)]),
        ("parts", [(*options, 2), ("--ckpt_path", "last", *retyped, 4)]),
    ):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for *args, epochs in runs:
            run_ok("fit", *args, "--trainer.max_epochs", epochs)
    whole, parts = (load(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert whole["state_dict"].keys() == parts["state_dict"].keys()
    for name, wanted in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], wanted), name
    assert whole["global_step"] == parts["global_step"] == 4 * STEPS


def test_the_newest_run_is_continued(empty, run_ok):
    for _ in range(11):  # version_10 is newer than version_9
        run_ok("fit", *SMALL, "--trainer.max_epochs", 1)
    old = LAST.read_bytes()
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert len(folders()) == 11
    assert newest(empty).name == "version_10"
    assert load(LOGS / "version_10/checkpoints/last.ckpt")["global_step"] == 2 * STEPS
    assert LAST.read_bytes() == old


def test_a_finished_run_stays_as_it_is(trained, run_ok):
    before = load(LAST)["state_dict"]
    run_ok("fit", "--ckpt_path", "last")
    after = load(LAST)["state_dict"]
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert steps_of("train/loss") == [3, 7]


def test_files_are_found_from_another_folder(
    trained_on_files, _trained_on_files, run_ok, monkeypatch, tmp_path
):
    """The printed command must work wherever it is pasted, though the first one had relative paths."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run_ok("fit", "--ckpt_path", trained_on_files / LAST, "--trainer.max_epochs", 3)
    assert load(trained_on_files / LAST)["epoch"] == 2
    assert not list(elsewhere.iterdir())


# nothing to continue


def test_last_of_nothing_is_refused(empty, refused):
    assert "lightning_logs" in refused("fit", "--ckpt_path", "last", code=1)
    assert not list(empty.iterdir())


def test_auto_of_nothing_starts(empty, run_ok, tiny):
    out = run_ok("fit", *tiny, *SMALL, "--ckpt_path", "auto")
    assert out.startswith("nothing to continue: starting a new run\n")
    assert folders() == ["version_0"] and LAST.is_file()
    assert "continuing from" in run_ok("fit", "--ckpt_path", "auto", "--trainer.max_epochs", 3)
    assert folders() == ["version_0"]


# changes that are refused


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model.hidden_size", 9),
        ("--model.cell", "gru"),
        ("--model.num_layers", 2),
        ("--model.bidirectional", "true"),
        ("--model.dropout", 0.5),
        ("--model.pooling", "mean"),
        ("--model.stem", "conv"),
        ("--data.batch_size", 8),
        ("--data.seed", 6),
        ("--data.num_train", 65),
        ("--data.fresh", "true"),
        ("--data.length", 11),
        ("--data.task", "parity"),
    ],
)
def test_another_model_or_other_data_are_refused(trained, refused, option, value):
    before = LAST.read_bytes()
    message = refused(
        "fit", "--ckpt_path", "last", option, value, "--trainer.max_epochs", 3, code=2
    )
    assert f" {option}: found " in message
    assert LAST.read_bytes() == before and folders() == ["version_0"]


def test_another_class_of_data_is_refused(trained, refused, files):
    path = files / "ItalyPowerDemand_TRAIN.ts"
    args = ("--data", "FileDataModule", "--data.train_path", path)
    message = refused("fit", "--ckpt_path", "last", *args, code=2)
    assert " --data: found 'FileDataModule'" in message or " --model.input_size: found" in message


def test_another_content_of_the_training_file_is_refused(empty, run_ok, refused, tiny, files):
    Path("train.ts").write_bytes((files / "ItalyPowerDemand_TRAIN.ts").read_bytes())
    run_ok("fit", *tiny, "--data", "FileDataModule", "--data.train_path", "train.ts")
    before = LAST.read_bytes()
    head, data = Path("train.ts").read_text().split("@data")
    Path("train.ts").write_text(f"{head}@data{data.replace('-0.7', '-0.6')}")
    message = refused("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, code=1)
    assert "train data: expected the sequences that the checkpoint was trained with" in message
    assert LAST.read_bytes() == before


# changes that are honoured


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_the_new_rate_and_number_of_epochs_hold(empty, run_ok, schedule):
    options = {"schedule": schedule, "lr": 0.01}
    run_ok("fit", *SMALL, "--model.schedule", schedule, "--trainer.max_epochs", 2)
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 5, "--model.lr", 0.003)
    old, new = SequenceClassifier(**options), SequenceClassifier(**{**options, "lr": 0.003})
    first, total = 2 * STEPS, 5 * STEPS
    wanted = [learning_rate(old.schedule, old.lr, step, first) for step in range(first)]
    wanted += [learning_rate(new.schedule, new.lr, step, total) for step in range(first, total)]
    assert values_of("train/lr") == pytest.approx(wanted, rel=1e-6)
    saved = load(LAST)
    assert saved["global_step"] == total and saved["hyper_parameters"]["lr"] == 0.003
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(wanted[-1])


def test_the_new_weight_decay_holds(trained, run_ok):
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--model.weight_decay", 0.25)
    assert load(LAST)["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.25


def stopping_config(patience):
    callback = {"class_path": "lightning_rnn.EarlyStopping"}
    callback["init_args"] = {
        "monitor": "val/loss",
        "patience": patience,
        "min_delta": 10.0,
    }  # nothing is ever better
    return {"trainer": {"callbacks": [callback]}}


@pytest.mark.parametrize("patience", [1, 4])
def test_the_new_patience_holds(empty, run, run_ok, patience):
    Path("first.yaml").write_text(yaml.safe_dump(stopping_config(2)))
    Path("then.yaml").write_text(yaml.safe_dump(stopping_config(patience)))
    with terminated_in(2 * STEPS):
        assert run("fit", "--config", "first.yaml", *SMALL, "--trainer.max_epochs", 20).code == 143
    run_ok("fit", "--ckpt_path", "last", "--config", "then.yaml")
    # the first epoch is the best; the second was waited for, the third is judged by the new patience
    assert load(LAST)["epoch"] + 1 == max(3, 1 + patience)


def test_patience_typed_without_a_file(empty, run_ok):
    monitor = "--trainer.callbacks.monitor", "val/loss"
    words = (
        "--trainer.callbacks",
        "lightning_rnn.EarlyStopping",
        *monitor,
        "--trainer.callbacks.min_delta",
        10,
    )
    run_ok("fit", *SMALL, *words, "--trainer.callbacks.patience", 2, "--trainer.max_epochs", 20)
    assert load(LAST)["epoch"] + 1 == 3
    run_ok("fit", "--ckpt_path", "last", *words, "--trainer.callbacks.patience", 5)
    assert load(LAST)["epoch"] + 1 == 6


# the files of a run


@pytest.mark.parametrize("better", [True, False])
def test_best_is_the_best_of_the_whole_history(empty, run_ok, better):
    run_ok("fit", *SMALL, "--model.schedule", "constant", "--trainer.max_epochs", 3)
    rate = 0.01 if better else 5.0
    run_ok("fit", "--ckpt_path", "last", "--model.lr", rate, "--trainer.max_epochs", 6)
    losses = values_of("val/loss")
    assert len(losses) == 6
    at = losses.index(min(losses))
    assert (at >= 3) == better
    best = load(BEST)
    assert best["global_step"] == (at + 1) * STEPS
    assert best["metrics"]["val/loss"] == pytest.approx(losses[at])
    assert load(LAST)["global_step"] == 6 * STEPS


def test_every_file_has_one_name(trained, run_ok):
    for epochs in (3, 4):
        run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", epochs)
    assert {path.name for path in LAST.parent.iterdir()} == {
        "last.ckpt",
        "previous.ckpt",
        "best.ckpt",
    }
    assert load(LAST)["epoch"] == 3 and load(PREVIOUS)["epoch"] == 2


def test_a_damaged_last_gives_way_to_the_previous(trained, run, run_ok):
    LAST.unlink()  # it may be the same file as best.ckpt
    LAST.write_bytes(PREVIOUS.read_bytes()[:-900])
    result = run("fit", "--ckpt_path", "last")
    assert result.code == 0
    assert result.err.startswith("damaged: ") and result.err.count("\n") == 1
    assert (
        "last.ckpt: not a readable checkpoint" in result.err
        and "taking previous.ckpt" in result.err
    )
    assert f"continuing from {PREVIOUS.absolute()}, step {STEPS}" in result.out
    assert load(LAST)["global_step"] == 2 * STEPS
    assert steps_of("train/loss") == [3, 7]
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)


def test_two_damaged_checkpoints_are_refused(trained, run):
    for path in (LAST, PREVIOUS):
        path.unlink()
        path.write_bytes(b"PK")
    result = run("fit", "--ckpt_path", "last")
    assert result.code == 1
    first, second = result.err.splitlines()
    assert first.startswith("damaged: ") and "last.ckpt" in first
    assert second.startswith("lightning_rnn: error: ") and "previous.ckpt" in second


def test_what_a_killed_save_left_is_removed(trained, run_ok):
    stale = [LAST.with_name(name) for name in (".last.ckpt.123", ".best.ckpt.7")]
    for path in stale:
        path.write_bytes(b"half a checkpoint")
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert not any(path.exists() for path in stale)


@pytest.mark.parametrize(
    "content",
    [
        {"trainer": {"callbacks": [{"class_path": "foreign.Callback"}]}},
        {"trainer": {"callbacks": "foreign.Callback"}},
        {
            "trainer": {
                "logger": {
                    "class_path": "lightning.pytorch.loggers.CSVLogger",
                    "init_args": {"save_dir": "x"},
                }
            }
        },
        {"trainer": {"strategy": {"class_path": "foreign.Strategy"}}},
        {"trainer": {"profiler": "foreign.Profiler"}},
        {"data": {"class_path": "foreign.Data"}},
        {"data": "foreign.Data"},
    ],
    ids=repr,
)
def test_a_config_that_names_code_must_be_typed(trained, run, refused, content, monkeypatch):
    (trained / "foreign.py").write_text("open('imported', 'w').close()")
    monkeypatch.syspath_prepend(trained)
    config = RUN / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    assert "names code; type --config" in refused("fit", "--ckpt_path", "last", code=1)
    assert not Path("imported").exists()
    trusted = run("fit", "--ckpt_path", "last", "--config", config, "--trainer.max_epochs", 3)
    assert "names code" not in trusted.err


def test_a_typed_config_is_trusted(trained, run_ok):
    """The run's own file, with a class that would be refused untyped."""
    config = RUN / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"] = [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]
    config.write_text(yaml.safe_dump(content))
    run_ok("fit", "--ckpt_path", "last", "--config", config, "--trainer.max_epochs", 3)
    assert load(LAST)["epoch"] == 2


def test_a_run_on_a_users_own_data_module_goes_on(empty, run_ok, refused, monkeypatch):
    own = "from lightning_rnn import SyntheticDataModule\nclass OwnData(SyntheticDataModule):\n    pass\n"
    (empty / "own_data.py").write_text(own)
    monkeypatch.syspath_prepend(empty)
    run_ok("fit", "--data", "own_data.OwnData", *SMALL, "--trainer.max_epochs", 1)
    assert "names code; type --config" in refused("fit", "--ckpt_path", "last", code=1)
    trusted = (
        "fit",
        "--ckpt_path",
        "last",
        "--config",
        RUN / "config.yaml",
        "--trainer.max_epochs",
        2,
    )
    run_ok(*trusted)
    assert load(LAST)["global_step"] == 2 * STEPS
    err = refused(*trusted, "--data", "SyntheticDataModule", code=2)
    assert (
        "--data: found 'SyntheticDataModule', accepted is 'the class that it was trained with'"
        in err
    )
    assert "train data: expected the sequences that the checkpoint was trained with" in refused(
        *trusted, "--data.seed", 9, code=1
    )


def test_a_config_that_cannot_be_written_leaves_the_old_one(trained, run, monkeypatch):
    def half(self, config, path, **options):
        Path(path).write_text("trainer:")
        raise OSError("No space left on device")

    before = (RUN / "config.yaml").read_text()
    monkeypatch.setattr(Parser, "save", half)
    result = run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 9)
    assert (result.code, result.err) == (1, "lightning_rnn: error: No space left on device\n")
    assert (RUN / "config.yaml").read_text() == before
    assert list(RUN.glob(".config*")) == []


@pytest.mark.parametrize("content", ["[1, 2", "words", ""])
def test_a_damaged_config_is_named(trained, refused, content):
    (RUN / "config.yaml").write_text(content)
    assert "config.yaml" in refused("fit", "--ckpt_path", "last", code=1)


def test_time_goes_forward_in_the_events(trained, run_ok):
    """TensorBoard hides what was purged; what it shows has one value a step."""
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 4)
    for tag in {tag for tag, _, _ in history(RUN) if not tag.startswith("hp/")}:
        steps = steps_of(tag)
        assert all(before < after for before, after in pairwise(steps)), tag
