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
from finished_runs import history, newest, outcome
from helpers import BEST, LAST, PREVIOUS, RUN, assert_one_line_error, load, run_process

from lightning_rnn import SequenceClassifier
from lightning_rnn.cli.parser import Parser
from lightning_rnn.training.checkpoints import Checkpoints
from lightning_rnn.training.schedules import schedule_factor

LOGS = RUN.parent
STEPS = 4  # in an epoch of `SMALL`
DATA = ("--data.num_train", 64, "--data.batch_size", 16, "--data.num_val", 32)
SMALL = (*DATA, "--trainer.log_every_n_steps", 1)
VARIED_DATA = ("--data.fresh", "true", "--data.length", 20, "--data.min_length", 4)
MODEL = ("--model.stem", "conv", "--model.dropout", 0.3, "--model.cell", "lstm")
ALL_ON = (*SMALL, *VARIED_DATA, *MODEL, "--model.hidden_size", 8)


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
    return [value for name, _, value in history(RUN) if name == tag]


# exactness


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_processes_continue_exactly(ranks):
    """In a process of its own, since this one may have threads, which a forked one lacks."""
    module = Path(kill_and_resume.__file__)
    result = run_process(
        "--cases", 2, "--ranks", ranks, cwd=module.parent, module="kill_and_resume"
    )
    assert result.code == 0, result


@pytest.mark.parametrize("ckpt_path", ["last", "auto", str(LAST)])
@pytest.mark.parametrize("step", [5, 2 * STEPS - 1])  # inside an epoch, in the last step of one
def test_a_stopped_run_continues_in_its_folder_with_its_settings(
    tmp_path, monkeypatch, run, run_ok, ckpt_path, step
):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    clipping = ("--trainer.gradient_clip_val", 0.5)
    monitor = ("--checkpoint.monitor", "val/accuracy")
    args = ("fit", *ALL_ON, "--trainer.max_epochs", 4, *clipping, *monitor)
    monkeypatch.chdir(tmp_path / "whole")
    run_ok(*args)
    monkeypatch.chdir(tmp_path / "stopped")
    with terminated_in(step):
        assert run(*args).code == 128 + signal.SIGTERM
    assert load(LAST)["global_step"] == step + 1
    before = (RUN / "config.yaml").read_text()
    run_ok("fit", "--ckpt_path", ckpt_path)
    assert folders() == ["version_0"]
    assert steps_of("train/loss") == [STEPS * epoch - 1 for epoch in (1, 2, 3, 4)]
    assert steps_of("train/lr") == list(range(4 * STEPS))
    assert (RUN / "config.yaml").read_text() == before
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


ACCUMULATING = {
    "always": ("--trainer.accumulate_grad_batches", 2),
    "from the second epoch on": (
        "--trainer.callbacks+=GradientAccumulationScheduler",
        "--trainer.callbacks.scheduling={1: 3}",
    ),
}


@pytest.mark.parametrize("name", ACCUMULATING)
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_gradients_that_accumulate_are_not_lost(
    tmp_path, monkeypatch, run, run_ok, name, precision
):
    """The signal arrives after the first batch of a step."""
    args = ("fit", *ALL_ON, *ACCUMULATING[name], "--trainer.precision", precision)
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        if folder == "whole":
            run_ok(*args, "--trainer.max_epochs", 3)
    with terminated_in(STEPS if "epoch" in name else 1):
        assert run(*args, "--trainer.max_epochs", 3).code == 128 + signal.SIGTERM
    assert "gradients" in load(LAST)
    run_ok("fit", "--ckpt_path", "last")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "CSVLogger"])
def test_a_validation_before_the_first_step_stays_in_the_history(
    tmp_path, monkeypatch, run, run_ok, logger
):
    """The process ends when the state that has been validated first is saved as the best."""
    args = ("fit", *SMALL, "--trainer.max_epochs", 3, "--trainer.accumulate_grad_batches", 4)
    args += ("--trainer.val_check_interval", 2, "--trainer.logger", logger)
    args += ("--trainer.logger.save_dir", ".")
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        if folder == "whole":
            run_ok(*args)

    def save_and_end(self, trainer, name):
        save(self, trainer, name)
        raise ZeroDivisionError

    save = Checkpoints._save
    with patch.object(Checkpoints, "_save", save_and_end):
        assert run(*args).code == 1
    assert load(BEST)["global_step"] == 0
    run_ok(*args, "--ckpt_path", "auto")
    at_start = [tag for tag, step, _ in history(RUN) if tag.endswith("val/loss") and step == 0]
    assert len(at_start) == 2  # after two and after four batches
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


# the seed of a new run does not matter for a resumed one
@pytest.mark.parametrize("other_seed", [(), ("--seed_everything", 5)])
def test_more_epochs_equal_as_many_from_the_start(tmp_path, monkeypatch, run_ok, other_seed):
    options = (*ALL_ON, "--model.schedule", "constant")
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    run_ok("fit", *options, "--trainer.max_epochs", 4)
    monkeypatch.chdir(tmp_path / "parts")
    run_ok("fit", *options, "--trainer.max_epochs", 2)
    run_ok("fit", "--ckpt_path", "last", *other_seed, "--trainer.max_epochs", 4)
    whole = load(tmp_path / "whole" / LAST)
    parts = load(tmp_path / "parts" / LAST)
    assert whole["state_dict"].keys() == parts["state_dict"].keys()
    for name, expected in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], expected), name
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


def state_of_files():
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in LOGS.rglob("*")}


NAME = "--trainer.callbacks"
NEVER_BETTER = (f"{NAME}+=lightning_rnn.EarlyStopping", f"{NAME}.monitor=val/loss")
STOPPED_EARLY = (*NEVER_BETTER, f"{NAME}.min_delta=10", f"{NAME}.patience=2")
ENDS = {
    "max_epochs": (("--trainer.max_epochs", 2), "max_epochs: 2"),
    "max_steps": (("--trainer.max_steps", 7), "max_steps: 7"),
    "EarlyStopping": (STOPPED_EARLY, "EarlyStopping: Monitored metric val/loss did not improve"),
    "max_time": (
        ("--trainer.max_epochs", 9999, "--trainer.max_time", "00:00:00:01"),
        "max_time: 1 s",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_finished_run_is_left_as_it_is(empty, run_ok, name):
    options, reason = ENDS[name]
    args = ("fit", *SMALL, *options)
    run_ok(*args)
    step = load(LAST)["global_step"]
    before = state_of_files()
    for again in (("fit", "--ckpt_path", "last"), (*args, "--ckpt_path", "auto")):
        out = run_ok(*again)
        assert f"the run is finished: step {step}, ended by {reason}" in out
        assert "without effect" not in out
        assert state_of_files() == before


def test_a_finished_run_says_which_settings_have_no_effect(trained, run_ok):
    before = state_of_files()
    changed = ("--model.lr", 0.5, "--checkpoint.every_n_steps", 7)
    out = run_ok("fit", "--ckpt_path", "last", *changed)
    expected = "checkpoint.every_n_steps 7 (was None); model.lr 0.5 (was 0.01)"
    assert out.endswith(f"settings without effect: {expected}\n")
    assert state_of_files() == before


@pytest.mark.parametrize("name", ENDS)
def test_a_finished_run_trains_on_with_a_higher_limit(empty, run_ok, name):
    options, _ = ENDS[name]
    run_ok("fit", *SMALL, *options)
    step = load(LAST)["global_step"]
    higher = {
        "max_epochs": ("--trainer.max_epochs", 3),
        "max_steps": ("--trainer.max_steps", 9),
        "EarlyStopping": (*STOPPED_EARLY[:-1], f"{NAME}.patience=4"),
        "max_time": ("--trainer.max_time", "00:00:00:02"),
    }
    out = run_ok("fit", "--ckpt_path", "last", *higher[name])
    assert "the run is finished" not in out
    assert load(LAST)["global_step"] > step


def test_what_follows_training_is_made_up_for(trained, run_ok):
    """A process was killed before it had calibrated the best checkpoint."""
    calibrated = load(BEST)["state_dict"]
    (RUN / "finished.txt").unlink()
    args = ("fit", "--ckpt_path", "last", "--calibrate.when", "always")
    assert "calibration: temperature" in run_ok(*args)
    after = load(BEST)["state_dict"]
    temperature = "network.decision.temperature"
    assert not torch.equal(after.pop(temperature), calibrated.pop(temperature))
    assert "the run is finished" in run_ok(*args)


def test_files_are_found_from_another_folder(
    trained_on_files, original_run_on_files, run_ok, monkeypatch, tmp_path
):
    """The printed command works in any folder, although the first one had relative paths."""
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
    assert folders() == ["version_0"]
    assert LAST.is_file()
    assert "continuing from" in run_ok("fit", "--ckpt_path", "auto", "--trainer.max_epochs", 3)
    assert folders() == ["version_0"]


def test_the_config_of_a_run_continues_it(trained, run_ok):
    """Its `null` for what `fit` takes from the data agrees with the number in the checkpoint."""
    settings = yaml.safe_load((RUN / "config.yaml").read_text())
    assert settings["model"]["memory_span"] is None
    assert load(LAST)["hyper_parameters"]["memory_span"] == 10
    config = ("--config", RUN / "config.yaml")
    run_ok("fit", *config, "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert folders() == ["version_0"]
    assert load(LAST)["hyper_parameters"]["memory_span"] == 10


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
        ("--model.initialization", "torch"),
        ("--model.memory_span", 9),
        ("--model.optimizer", "adamw"),
        ("--model.class_weights", "[1, 5]"),
        ("--model.pos_weight", 2),
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
    assert message.startswith(f"{option}: expected ")
    assert LAST.read_bytes() == before
    assert folders() == ["version_0"]


def test_another_class_of_data_is_refused(trained, refused, files):
    path = files / "ItalyPowerDemand_TRAIN.ts"
    args = ("--data", "FileDataModule", "--data.train_path", path)
    message = refused("fit", "--ckpt_path", "last", *args, code=2)
    assert message.startswith("--data: expected 'SyntheticDataModule' as in ")
    assert ", got 'FileDataModule'; --init_from in place of" in message


def test_another_content_of_the_training_file_is_refused(empty, run, run_ok, tiny, files):
    Path("train.ts").write_bytes((files / "ItalyPowerDemand_TRAIN.ts").read_bytes())
    run_ok("fit", *tiny, "--data", "FileDataModule", "--data.train_path", "train.ts")
    before = LAST.read_bytes()
    config = (RUN / "config.yaml").read_bytes()
    head, data = Path("train.ts").read_text().split("@data")
    Path("train.ts").write_text(f"{head}@data{data.replace('-0.7', '-0.6')}")
    result = run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert_one_line_error(result)
    assert "train data: expected the sequences that the checkpoint was trained with" in result.err
    assert LAST.read_bytes() == before
    assert (RUN / "config.yaml").read_bytes() == config
    Path("train.ts").write_text(f"{head}@data{data}")
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)  # continues as if never refused


# changes that are honoured


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_the_new_rate_and_number_of_epochs_hold(empty, run_ok, schedule):
    run_ok("fit", *SMALL, "--model.schedule", schedule, "--trainer.max_epochs", 2)
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 5, "--model.lr", 0.003)
    first = 2 * STEPS
    total = 5 * STEPS
    expected = []
    for step in range(first):
        expected.append(0.01 * schedule_factor(schedule, step, first))
    for step in range(first, total):
        expected.append(0.003 * schedule_factor(schedule, step, total))
    assert values_of("train/lr") == pytest.approx(expected, rel=1e-6)
    saved = load(LAST)
    assert saved["global_step"] == total
    assert saved["hyper_parameters"]["lr"] == 0.003
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(expected[-1])


def test_the_new_weight_decay_holds(trained, run_ok):
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--model.weight_decay", 0.25)
    assert load(LAST)["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.25


def stopping_config(patience):
    """Return a config with early stopping for which nothing is ever better."""
    arguments = {"monitor": "val/loss", "patience": patience, "min_delta": 10.0}
    callback = {"class_path": "lightning_rnn.EarlyStopping", "init_args": arguments}
    return {"trainer": {"callbacks": [callback]}}


@pytest.mark.parametrize("patience", [1, 4])
def test_the_new_patience_holds(empty, run, run_ok, patience):
    Path("first.yaml").write_text(yaml.safe_dump(stopping_config(2)))
    Path("then.yaml").write_text(yaml.safe_dump(stopping_config(patience)))
    with terminated_in(2 * STEPS):
        assert run("fit", "--config", "first.yaml", *SMALL, "--trainer.max_epochs", 20).code == 143
    run_ok("fit", "--ckpt_path", "last", "--config", "then.yaml")
    # the first epoch is the best; from the third on, the new patience applies
    assert load(LAST)["epoch"] + 1 == max(3, 1 + patience)


def test_patience_given_without_a_file(empty, run_ok):
    name = "--trainer.callbacks"
    stopping = (name, "lightning_rnn.EarlyStopping", f"{name}.monitor", "val/loss")
    args = ("fit", *stopping, f"{name}.min_delta", 10)
    run_ok(*args, f"{name}.patience", 2, *SMALL, "--trainer.max_epochs", 20)
    assert load(LAST)["epoch"] + 1 == 3
    run_ok(*args, f"{name}.patience", 5, "--ckpt_path", "last")
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


def test_the_best_value_of_another_metric_is_forgotten(empty, run_ok):
    """An accuracy near 1, as the value to beat, would be out of reach for a loss."""
    run_ok("fit", *SMALL, "--trainer.max_epochs", 1, "--checkpoint.monitor", "val/accuracy")
    run_ok(
        "fit", "--ckpt_path", "last", "--trainer.max_epochs", 2, "--checkpoint.monitor", "val/loss"
    )
    assert load(BEST)["epoch"] == 1


def test_every_file_has_one_name(trained, run_ok):
    for epochs in (3, 4):
        run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", epochs)
    assert sorted(LAST.parent.iterdir()) == [BEST, LAST, PREVIOUS]
    assert load(LAST)["epoch"] == 3
    assert load(PREVIOUS)["epoch"] == 2


def test_a_damaged_last_gives_way_to_the_previous(trained, run, run_ok):
    LAST.unlink()  # it may be the same file as best.ckpt
    LAST.write_bytes(PREVIOUS.read_bytes()[:-900])
    result = run("fit", "--ckpt_path", "last")
    assert result.code == 0
    assert result.err.startswith("damaged: ")
    assert result.err.count("\n") == 1
    assert "last.ckpt: not a readable checkpoint" in result.err
    assert "taking previous.ckpt" in result.err
    assert f"continuing from {PREVIOUS.absolute()}, step {STEPS}" in result.out
    assert load(LAST)["global_step"] == 2 * STEPS
    assert steps_of("train/loss") == [3, 7]
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)


def test_damaged_checkpoints_are_refused(trained, run):
    for path in (LAST, PREVIOUS, BEST):
        path.unlink()
        path.write_bytes(b"PK")
    result = run("fit", "--ckpt_path", "last")
    assert result.code == 1
    lines = result.err.splitlines()
    beginnings = ("damaged: ", "damaged: ", "lightning_rnn: error: ")
    for line, beginning, path in zip(lines, beginnings, (LAST, PREVIOUS, BEST), strict=True):
        assert line.startswith(beginning)
        assert path.name in line


def test_what_a_killed_save_left_is_removed(trained, run_ok):
    stale = [
        LAST.with_name(name) for name in (f".last.ckpt.{2**22 + 1}", f".best.ckpt.{2**22 + 2}")
    ]
    for path in stale:
        path.write_bytes(b"half a checkpoint")
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert not any(path.exists() for path in stale)


FOREIGN_CONFIGS = [
    "trainer: {callbacks: [{class_path: foreign.Callback}]}",
    "trainer: {callbacks: foreign.Callback}",
    "trainer: {callbacks: {class_path: lightning.pytorch.callbacks.LambdaCallback, "
    "init_args: {on_fit_start: foreign.run}}}",
    "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.StochasticWeightAveraging, "
    "init_args: {swa_lrs: 0.1, avg_fn: foreign.run}}]}",
    "trainer: {callbacks: '{class_path: foreign.Callback}'}",
    "trainer: {callbacks: lightning.pytorch.callbacks.model_checkpoint.os.system}",
    "trainer: {callbacks: lightning.pytorch.Trainer}",
    "trainer: {strategy: {class_path: foreign.Strategy}}",
    "trainer: {profiler: foreign.Profiler}",
    "data: {class_path: foreign.Data}",
    "data: foreign.Data",
    "model: {class_path: foreign.Model, init_args: {hidden_size: 8}}",
    "model: foreign.Model",
    "optimizer: {class_path: foreign.Optimizer}",
    "optimizer: torch.utils.data.DataLoader",
    "{optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}, lr_scheduler: {class_path: "
    "torch.optim.lr_scheduler.LambdaLR, init_args: {lr_lambda: foreign.run}}}",
]


@pytest.mark.parametrize("content", FOREIGN_CONFIGS)
def test_a_config_that_names_code_must_be_given(trained, run, refused, content, monkeypatch):
    (trained / "foreign.py").write_text("open('imported', 'w').close()")
    monkeypatch.syspath_prepend(trained)
    config = RUN / "config.yaml"
    config.write_text(content)
    message = refused("fit", "--ckpt_path", "last", code=1)
    hint = f"give this option again, or --config {config.absolute()}, which trusts it"
    assert message.endswith(f"names code; {hint}")
    assert not Path("imported").exists()
    trusted = run("fit", "--ckpt_path", "last", "--config", config, "--trainer.max_epochs", 3)
    assert "names code" not in trusted.err


def test_a_given_config_is_trusted(trained, run_ok):
    """The run's own file, with a class that would be refused otherwise."""
    config = RUN / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"] = [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]
    config.write_text(yaml.safe_dump(content))
    run_ok("fit", "--ckpt_path", "last", "--config", config, "--trainer.max_epochs", 3)
    assert load(LAST)["epoch"] == 2


OWN_CALLBACK = """
from lightning.pytorch import Callback

class OwnCallback(Callback):
    def __init__(self, width=1):
        self.width = width
"""
OF_LIGHTNING = f"{NAME}+=lightning.pytorch.callbacks"
ACCEPTED = {
    "SWA": (f"{OF_LIGHTNING}.StochasticWeightAveraging", f"{NAME}.swa_lrs=0.01"),
    "accumulation": (
        f"{OF_LIGHTNING}.GradientAccumulationScheduler",
        f"{NAME}.scheduling={{1: 2}}",
    ),
    "two checkpoints": (
        *(f"{OF_LIGHTNING}.ModelCheckpoint", f"{NAME}.filename=best.{{epoch}}"),
        *(f"{OF_LIGHTNING}.ModelCheckpoint", f"{NAME}.monitor=val/loss"),
    ),
    "time": ("--trainer.max_time", "00:00:10:00"),
    "CSVLogger": ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "."),
    "profiler": ("--trainer.profiler", "SimpleProfiler", "--trainer.profiler.dirpath", "."),
    "own callback": (f"{NAME}+=own.OwnCallback", f"{NAME}.width=3"),
    "two callbacks": (f"{NAME}+=own.OwnCallback", f"{NAME}+=own.OwnCallback", f"{NAME}.width=3"),
}


SLOW = [name for name in ACCEPTED if not name.startswith("two")]


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.parametrize(
    "name",
    ["two checkpoints", "two callbacks", *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW)],
)
def test_settings_come_back_as_they_were_typed(empty, run_ok, refused, monkeypatch, name):
    (empty / "own.py").write_text(OWN_CALLBACK)
    monkeypatch.syspath_prepend(empty)
    args = ("fit", *SMALL, *ACCEPTED[name])
    run_ok(*args, "--trainer.max_epochs", 1)
    before = yaml.safe_load((RUN / "config.yaml").read_text())
    run_ok(*args, "--trainer.max_epochs", 2, "--ckpt_path", "auto")
    if "own" in ACCEPTED[name][0]:
        assert "'own.OwnCallback' names code" in refused("fit", "--ckpt_path", "last", code=1)
    else:
        run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    after = yaml.safe_load((RUN / "config.yaml").read_text())
    for setting in ("callbacks", "logger", "max_time", "profiler"):
        assert after["trainer"][setting] == before["trainer"][setting]
    assert folders() == ["version_0"]


def test_other_conditions_are_said(trained, run_ok):
    with pytest.warns(UserWarning, match="trained with precision 32-true, this run has 64-true"):
        run_ok(
            *("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3),
            *("--trainer.precision", "64-true"),
        )


OWN_DATA = """
from lightning_rnn import SyntheticDataModule

class OwnData(SyntheticDataModule):
    pass
"""


def test_a_run_on_a_users_own_data_module_is_continued(empty, run, run_ok, refused, monkeypatch):
    (empty / "own_data.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(empty)
    run_ok("fit", "--data", "own_data.OwnData", *SMALL, "--trainer.max_epochs", 1)
    assert "names code; give" in refused("fit", "--ckpt_path", "last", code=1)
    config = ("--config", RUN / "config.yaml")
    args = ("fit", "--ckpt_path", "last", *config, "--trainer.max_epochs", 2)
    run_ok(*args)
    assert load(LAST)["global_step"] == 2 * STEPS
    message = refused(*args, "--data", "SyntheticDataModule", code=2)
    stored = "'the class that it was trained with'"
    assert message.startswith(f"--data: expected {stored} as in {LAST.absolute()}, got ")
    result = run(*args, "--data.seed", 9, "--trainer.max_epochs", 3)
    assert_one_line_error(result)
    assert "train data: expected the sequences that the checkpoint was trained with" in result.err


def test_a_config_that_cannot_be_written_leaves_the_old_one(trained, run, monkeypatch):
    def half(self, config, path, **options):
        Path(path).write_text("trainer:")
        raise OSError("No space left on device")

    before = (RUN / "config.yaml").read_text()
    monkeypatch.setattr(Parser, "save", half)
    result = run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 9)
    assert_one_line_error(result)
    assert result.err.endswith("No space left on device\n")
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
