"""What `fit` has to know of a run that it continues."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_rnn.cli.request import different_settings
from lightning_rnn.errors import OptionError
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.run_end import is_finished, reason_to_stop


def end_rules(trainer: dict[str, Any]) -> str:
    """Return the settings of the rules that end a run, except `max_epochs` and `max_steps`."""
    names = ("callbacks", "max_time", "min_epochs", "min_steps")
    return json.dumps({name: trainer[name] for name in names}, default=str)


def check_same_optimizer(run_folder: Path, options: dict[str, Any]) -> None:
    """Check that a run keeps the optimizer and the scheduler in its `config.yaml`.

    Lightning restores their settings together with their state.
    """
    path = run_folder / "config.yaml"
    saved = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in ("optimizer", "lr_scheduler"):
        chosen = json.loads(json.dumps(options[name], default=str))  # lists instead of tuples
        if name in saved and chosen != saved[name]:
            message = f"expected {saved[name]} as in {path}, got {chosen}"
            raise OptionError(message, name=f"--{name}")


@dataclass(frozen=True)
class ContinuedRun:
    """A checkpoint, and the settings of the Trainer that is to continue it."""

    file: CheckpointFile
    trainer: dict[str, Any]

    @property
    def reason_to_stop(self) -> str | None:
        """Why the run would train no further, in words; None if it would."""
        return reason_to_stop(self.file.content, self.trainer, end_rules(self.trainer))

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do, neither training nor what follows it."""
        run_folder = self.file.run_folder
        return self.reason_to_stop is not None and is_finished(run_folder, self.file.step)

    def finished_message(self, config: str) -> str:
        """Return what to print if the run is finished; `config` has the settings as YAML."""
        text = (
            f"the run is finished: step {self.file.step}, {self.reason_to_stop}\n"
            "nothing was changed; to train longer, raise the limit or change the rule"
        )
        saved = self.file.run_folder / "config.yaml"
        changes = different_settings(saved, config) if saved.is_file() else []
        if changes:
            text += f"\nsettings without effect: {'; '.join(changes)}"
        return text

    @property
    def purge_step(self) -> int:
        """First step whose entries in the logs are removed, because they are logged again.

        Those of step 0 are kept: validations before the first optimizer step are among them.
        """
        step = self.file.step if self.reason_to_stop is None else self.file.step + 1
        return max(1, step)

    @contextmanager
    def own_folder(self, loggers: list[Any]) -> Iterator[None]:
        """Let the settings of loggers name the folder of the run while the loggers are created.

        Afterwards the settings are again what the user has typed, which `config.yaml` repeats.
        """
        own = {"version": self.file.run_folder.name, "purge_step": self.purge_step}
        changed = []
        for logger in loggers if self.file.is_in_run_folder else []:
            settings = getattr(logger, "init_args", {})
            for name in own:
                if name in settings and settings[name] is None:
                    settings[name] = own[name]
                    changed.append((settings, name))
        yield
        for settings, name in changed:
            settings[name] = None
