"""Search hyper-parameters with Optuna, with all options of `fit`.

    python examples/search.py --trials 50 --data.train_path vitals.csv --data.id_column patient \
        --data.time_column hour --data.val_fraction 0.2
    python examples/search.py --space '{model.lr: {low: 0.001, high: 0.1, log: true}}' ...

The search space has options of `fit`: a list contains the values to choose from, and `low` and
`high` are the bounds of whole numbers, if both are whole, or of decimal ones. All other options are
the same in all trials.

Each trial is a run of `fit` in a folder of its own, with one CPU thread. It is pruned when its
validation metric falls behind that of the other trials after as many validations. A trial that
diverges fails and does not count. The same command continues a study.

Several processes, also on several machines, share a study by its storage: a file of Optuna's
journal, which may be on a network file system, or the URL of a database such as
postgresql://user:password@host/name. If a process is killed, one of the others continues its trial
from the last checkpoint, after twice --heartbeat seconds.
"""

import argparse
import json
import logging
import math
import os
import shlex
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from lightning_rnn.cli.command_line import CommandLine
from lightning_rnn.cli.main import SILENCED_WARNINGS
from lightning_rnn.cli.request import Request, find_initial_weights, find_run
from lightning_rnn.errors import (
    CheckpointError,
    LightningRNNError,
    NumericError,
    OptionError,
    check,
)
from lightning_rnn.training.interrupts import Interrupts

SPACE = """
model.cell: [rnn, lstm, gru, mingru]
model.hidden_size: {low: 8, high: 128, log: true}
model.num_layers: {low: 1, high: 2}
model.pooling: [last, mean, max]
model.stem: [none, conv]
model.dropout: {low: 0.0, high: 0.5}
model.lr: {low: 0.001, high: 0.03, log: true}
"""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SET_BY_SEARCH = {"--ckpt_path", "--trainer.default_root_dir"}
RESCALES_LOSS = {"model.class_weights", "model.pos_weight"}
RANGE = {"low", "high", "log"}
MONITORS = ("val/loss", "val/accuracy", "val/auroc", "val/f1")
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
RETRY = RetryHeartbeatStaleTrialCallback(max_retry=3)


class ReportToOptuna(Callback):
    """Reports the metric to Optuna at each validation, and ends a run that is pruned.

    Args:
        trial: The trial.
        monitor: Name of the metric.

    Attributes:
        values: The metric at each validation.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial = trial
        self.monitor = monitor
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metric."""
        value = float(trainer.callback_metrics.get(self.monitor, math.nan))
        self.values.append(value)
        self.trial.report(value, len(self.values))
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores, for a trial that is continued."""
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the values until the checkpoint, and report them."""
        self.values = list(state_dict["values"])
        for step, value in enumerate(self.values, start=1):
            self.trial.report(value, step)


def fit(args: Sequence[str], callback: Callback | None) -> None:
    """Run `fit` with a callback; without one, only check the options and the data."""

    class Fit(CommandLine):
        def execute(self) -> None:
            if callback is not None:
                self.trainer.callbacks.append(callback)
                super().execute()
            elif self.datamodule.split("val") is None:
                raise OptionError("expected validation data, got none", name="val_fraction")

    request = Request.from_args(["fit", *args])
    run = find_run(request)
    initial = find_initial_weights(request, run)
    if run is not None:
        request = request.with_config_of(run)
    Fit(request, run, initial, Interrupts())


class Search:
    """A study, and how to train a trial of it.

    Args:
        options: Options of this script.
        fit_args: Options of `fit` that are the same in all trials.

    Raises:
        LightningRNNError: If the options or the data cannot be used.
    """

    def __init__(self, options: argparse.Namespace, fit_args: Sequence[str]) -> None:
        self.options = options
        self.fit_args = fit_args
        self.space = read_space(options.space)
        given = {arg.partition("=")[0] for arg in fit_args}
        for name in sorted(given & (SET_BY_SEARCH | {f"--{name}" for name in self.space})):
            raise OptionError("is set by this script", name=name)
        is_loss = options.monitor == "val/loss"
        rescaled = sorted(RESCALES_LOSS & self.space.keys())
        expected = f"another metric than val/loss, which depends on {', '.join(rescaled)}"
        check(not (is_loss and rescaled), "monitor", options.monitor, expected)
        fit(fit_args, None)
        self.folder = Path(options.folder or options.study).expanduser()
        self.best = min if is_loss else max
        self.has_heartbeat = "://" in options.storage
        self.study = optuna.create_study(
            storage=open_storage(options.storage, options.heartbeat),
            study_name=options.study,
            load_if_exists=True,
            direction="minimize" if is_loss else "maximize",
            pruner=optuna.pruners.MedianPruner(),
        )
        settings = [self.space, options.monitor, list(fit_args)]
        if self.study.user_attrs.setdefault("settings", settings) != settings:
            expected = f"a new study, or the options of {options.study!r}"
            raise OptionError(f"expected {expected}, got other options", name="study")
        self.study.set_user_attr("settings", settings)

    def run(self) -> None:
        """Run trials until the study has as many as wanted."""
        if len(self.study.get_trials(states=FINISHED)) >= self.options.trials:
            return
        self.retry_stale_trials()
        self.study.optimize(
            self.train,
            n_trials=self.options.trials,  # ends the search if every trial diverges
            catch=(NumericError,),
            callbacks=[
                MaxTrialsCallback(self.options.trials, states=FINISHED),
                self.retry_stale_trials,
            ],
        )

    def train(self, trial: optuna.Trial) -> float:
        """Train with the settings of a trial; return the best value of the metric, or NaN."""
        args = [*self.fit_args, *(suggest(trial, *item) for item in self.space.items())]
        folder = self.folder / f"trial_{trial.number}"
        folder.mkdir(parents=True, exist_ok=True)
        earlier = RetryHeartbeatStaleTrialCallback.retry_history(self.study.trials[trial.number])
        first_folder = self.folder / f"trial_{min([trial.number, *earlier])}"
        report = ReportToOptuna(trial, self.options.monitor)
        with (
            nullcontext() if self.has_heartbeat else signs_of_life(trial, self.options.heartbeat),
            (folder / "log.txt").open("a", encoding="utf-8") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                continued = [f"--trainer.default_root_dir={first_folder}", "--ckpt_path=auto"]
                fit([*args, *continued], report)
            except CheckpointError as error:  # damaged, or its process is only slow
                print(error)
                fit([*args, f"--trainer.default_root_dir={folder}"], report)
        values = [value for value in report.values if math.isfinite(value)]
        return self.best(values, default=math.nan)

    def retry_stale_trials(self, *_: Any) -> None:
        """Queue trials again whose process has shown no sign of life, which databases do alone."""
        if self.has_heartbeat:
            return
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            seen = trial.user_attrs.get(seen_name(trial.number), started)
            if time.time() - seen < 2 * self.options.heartbeat:
                continue
            with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
                self.study.tell(trial.number, state=TrialState.FAIL)  # an error if another did it
                RETRY(self.study, trial)

    def print_result(self) -> None:
        """Print the best value, and the command that trains with its settings."""
        if not self.study.get_trials(states=(TrialState.COMPLETE,)):
            raise LightningRNNError("no trial has been completed")
        num_trials = len(self.study.get_trials(states=FINISHED))
        best = self.study.best_trial
        print(f"{num_trials} trials, best {self.options.monitor} {best.value:.4f}")
        args = [as_option(name, value) for name, value in best.params.items()]
        print(shlex.join(["python", "-m", "lightning_rnn", "fit", *self.fit_args, *args]))


def open_storage(storage: str, heartbeat: int) -> optuna.storages.BaseStorage:
    """Open the database of a URL, or else a journal file."""
    if "://" not in storage:
        return JournalStorage(JournalFileBackend(str(Path(storage).expanduser())))
    return RDBStorage(
        storage,
        heartbeat_interval=heartbeat,
        grace_period=2 * heartbeat,
        heartbeat_stale_trial_callback=RETRY,
    )


def seen_name(number: int) -> str:
    """Return the attribute that says when the process of a trial was last seen."""
    return f"seen_{number}"  # the number, because a trial that is tried again inherits attributes


@contextmanager
def signs_of_life(trial: optuna.Trial, heartbeat: int) -> Iterator[None]:
    """Store every `heartbeat` seconds that the process of a trial is alive."""
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(heartbeat):
            trial.set_user_attr(seen_name(trial.number), time.time())

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def read_space(text: str) -> dict[str, Any]:
    """Read the search space from a file or from YAML itself; raise an OptionError for others."""
    path = Path(text).expanduser()
    with suppress(OSError):  # a name that is too long
        text = path.read_text(encoding="utf-8") if path.is_file() else text
    try:
        space = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OptionError(f"expected YAML, got {str(error)[:200]}", name="space") from None
    check(isinstance(space, dict) and len(space) > 0, "space", text, "options of fit, or a file")
    for name, values in space.items():
        is_range = isinstance(values, dict) and {"low", "high"} <= values.keys() <= RANGE
        is_list = isinstance(values, list) and len(values) > 0
        expected = f"for {name} a list, or low, high and perhaps log"
        check(is_range or is_list, "space", values, expected)
        if is_range:
            values |= {end: number(values[end]) for end in ("low", "high")}
            lowest = 0 if values.get("log") else -math.inf
            is_ordered = lowest < values["low"] <= values["high"] < math.inf
            check(is_ordered, "space", values, f"for {name} low <= high, above 0 with log")
    return {str(name): values for name, values in space.items()}


def number(value: Any) -> int | float:
    """Return a number, also one such as 1e-4, which is text in YAML."""
    if isinstance(value, int):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise OptionError(
            f"expected numbers as low and high, got {value!r}", name="space"
        ) from None


def suggest(trial: optuna.Trial, name: str, values: Any) -> str:
    """Choose a value and return it as an option of `fit`."""
    if isinstance(values, list):
        value = trial.suggest_categorical(name, values)
    elif isinstance(values["low"], int) and isinstance(values["high"], int):
        value = trial.suggest_int(name, **values)
    else:
        value = trial.suggest_float(name, **values)
    return as_option(name, value)


def as_option(name: str, value: Any) -> str:
    """Return an option of `fit`."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"--{name}={text}"


def main() -> None:
    """Parse the options and search."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="All other options are those of fit: python -m lightning_rnn fit --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--space", default=SPACE, help="YAML, or a file of it; by default cell, sizes and others")
    add("--trials", type=int, default=50, help="number of trials in the study, with earlier ones")
    add("--monitor", default="val/loss", choices=MONITORS, help="metric to improve")
    add("--storage", default="search.journal", help="file of the journal, or URL of a database")
    add("--study", default="search", help="name of the study")
    add("--folder", help="folder of the runs; by default the name of the study")
    add("--heartbeat", type=int, default=60, help="seconds between signs of life")
    options, fit_args = parser.parse_known_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # several processes are faster than several threads
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    try:
        check(options.heartbeat >= 1, "heartbeat", options.heartbeat, "an integer of at least 1")
        search = Search(options, fit_args)
        search.run()
        search.print_result()
    except LightningRNNError as error:
        print(f"search.py: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
