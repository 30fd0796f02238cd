"""Learning-rate schedules, and how they are applied to an optimizer."""

import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_rnn.errors import check

Schedule = Literal["constant", "cosine", "onecycle"]
WARM_UP_FRACTION = 0.3  # of the steps of onecycle
ONECYCLE_START = 1 / 25  # first rate of onecycle, as a fraction of the highest
ONECYCLE_END = 1 / 250_000  # last rate of onecycle, as a fraction of the highest


def schedule_factor(schedule: Schedule, step: int, total_steps: float) -> float:
    """Return the learning rate of an optimizer step as a fraction of the highest rate.

    It depends on nothing else, so a resumed run with another number of epochs follows the schedule
    of that number.

    Args:
        schedule: constant; cosine, from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983,
            without restarts); onecycle, half a cosine from 1/25 up to 1 and another down to
            1/250,000 (Smith and Topin 2019, arXiv:1708.07120).
        step: Number of optimizer steps before this one.
        total_steps: Number of optimizer steps of the whole run; may be infinite if constant.

    Example:
        >>> [round(schedule_factor("cosine", step, 4), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if schedule == "constant":
        return 1.0
    progress = min(step / max(1.0, total_steps), 1.0)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if progress < WARM_UP_FRACTION:
        return _half_cosine(ONECYCLE_START, progress / WARM_UP_FRACTION)
    return _half_cosine(ONECYCLE_END, (1 - progress) / (1 - WARM_UP_FRACTION))


def _half_cosine(low: float, position: float) -> float:
    """Return a value between `low` (position 0) and 1 (position 1)."""
    return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * position))


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each parameter group to its highest rate times `factor`.

    A group keeps its highest rate under the key `initial_lr`, as with torch's own schedulers. A
    rate that something else has set since the last call, such as a callback that unfreezes
    layers, is kept for this step and follows the schedule from there. The rates of an optimizer
    that has never been scheduled are its highest ones.
    """
    is_new = all("scheduled_lr" not in group for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        if is_new:
            group["initial_lr"] = group["lr"]
        elif group.get("scheduled_lr") != group["lr"]:
            group["initial_lr"] = group["lr"] / max(factor, ONECYCLE_END)
        group["lr"] = group["initial_lr"] * factor
        group["scheduled_lr"] = group["lr"]


class LearningRateSchedule(Callback):
    """Sets the learning rate of each step, and follows changed options when a run is resumed.

    Optimizers and parameter groups that another callback adds are scheduled, too.
    """

    def __init__(self) -> None:
        self._total_steps = math.inf
        self._stored: dict[str, Any] | None = None  # hyper-parameters of the resumed checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run of the same Trainer."""
        self._stored = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the learning rate and weight decay of the run that is resumed."""
        self._stored = checkpoint["hyper_parameters"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count the steps of the run, and apply options that differ from the resumed run's."""
        self._total_steps = float(trainer.estimated_stepping_batches)
        if math.isinf(self._total_steps):
            expected = "constant for a run without a maximum number of epochs or steps"
            check(pl_module.schedule == "constant", "schedule", pl_module.schedule, expected)
        if self._stored is None:
            return
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                _change_rate(group, self._stored["lr"], pl_module.lr)
                if group.get("weight_decay") == self._stored["weight_decay"]:
                    group["weight_decay"] = pl_module.hparams["weight_decay"]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the learning rate of the step."""
        factor = schedule_factor(pl_module.schedule, trainer.global_step, self._total_steps)
        for optimizer in trainer.optimizers:
            set_learning_rates(optimizer, factor)


def _change_rate(group: dict[str, Any], old: float, new: float) -> None:
    """Change the highest rate of a group, in proportion if it has a rate of its own."""
    if new == old:
        return
    highest = group.get("initial_lr", group["lr"])
    group["initial_lr"] = new if highest == old else highest * new / old
    group["scheduled_lr"] = group["lr"]
