"""What `fit` has to know of a run that it continues."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.run_end import is_finished, reason_to_stop


def end_rules(trainer: dict[str, Any]) -> str:
    """Return the settings of the rules that end a run, except `max_epochs` and `max_steps`."""
    names = ("callbacks", "max_time", "min_epochs", "min_steps")
    return json.dumps({name: trainer[name] for name in names}, default=str)


@dataclass(frozen=True)
class ContinuedRun:
    """A checkpoint, and the settings of the Trainer that is to continue it."""

    file: CheckpointFile
    trainer: dict[str, Any]

    @property
    def reason_to_stop(self) -> str | None:
        """Why no step is left, in words; None if one is."""
        return reason_to_stop(self.file.content, self.trainer, end_rules(self.trainer))

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do, neither training nor what follows it."""
        run_folder = self.file.run_folder
        return self.reason_to_stop is not None and is_finished(run_folder, self.file.step)

    @property
    def finished_message(self) -> str:
        """What to print if the run is finished."""
        text = f"the run is finished: step {self.file.step}, {self.reason_to_stop}"
        return f"{text}\nnothing was changed; to train longer, raise the limit or change the rule"

    @property
    def purge_step(self) -> int:
        """Step from which on is logged again what was logged: what follows training, at least."""
        return self.file.step if self.reason_to_stop is None else self.file.step + 1

    @contextmanager
    def own_folder(self, loggers: list[Any]) -> Iterator[None]:
        """Let the settings of loggers lead to the folder of the run while they are created.

        Afterwards, they are what the user has typed, as `config.yaml` has them.
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
