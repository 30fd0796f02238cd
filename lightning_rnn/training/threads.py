"""How many CPU threads a run uses.

A second thread helps a large network and slows down a small one. OpenMP's threads wait for each
other in busy loops, so on a machine whose cores are in use more threads make any network several
times slower. The number of threads changes the order of sums and so the last digits.
"""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.models.network import NetworkOptions
from lightning_rnn.training.conditions import CONDITIONS, THREADS
from lightning_rnn.training.data_statistics import sequence_data

WORK_PER_THREAD = 1 << 17  # multiplications of a recurrent product that occupy one thread
SAMPLE_SECONDS = 0.05  # time over which the use of the cores is measured


def choose_num_threads(options: NetworkOptions, batch_size: int) -> int:
    """Choose the number of threads for training on the CPU, unless `OMP_NUM_THREADS` is set.

    It is one thread for every 2^17 multiplications of a product (B, H) x (H, H), B being the batch
    size and H the hidden size, or one for each sequence of a batch with an inception stem, whose
    convolutions take most of the time; at most as many as there are free cores.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    useful = batch_size * options.hidden_size**2 // WORK_PER_THREAD
    if options.stem == "inception":
        useful = max(useful, batch_size)
    if useful <= 1:
        return 1  # without measuring the use of the cores
    return max(1, min(useful, num_free_cores()))


class ThreadChoice(Callback):
    """Chooses the number of threads for training on the CPU, and restores it afterwards.

    A resumed run continues with the number of its checkpoint, since the number changes rounding.
    """

    def __init__(self) -> None:
        self._num_threads_before: int | None = None

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Set the number of threads."""
        if stage != "fit" or trainer.strategy.root_device.type != "cpu":
            return
        self._num_threads_before = torch.get_num_threads()
        batch_size = getattr(sequence_data(trainer), "batch_size", None) or 1
        torch.set_num_threads(choose_num_threads(pl_module.options, batch_size))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue with the stored number of threads, unless `OMP_NUM_THREADS` is set."""
        stored = checkpoint.get(CONDITIONS, {}).get(THREADS)
        is_chosen = self._num_threads_before is not None and "OMP_NUM_THREADS" not in os.environ
        if is_chosen and stored is not None:
            torch.set_num_threads(stored)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the number of threads."""
        if self._num_threads_before is not None:
            torch.set_num_threads(self._num_threads_before)
            self._num_threads_before = None

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restore the number of threads: Lightning does not call `teardown` after an error."""
        self.teardown(trainer, pl_module, "fit")


def num_free_cores() -> int:
    """Return how many of this process's cores are idle.

    Outside Linux, the load average tells; on Windows, which has none, all cores count as idle.
    """
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not Path("/proc/stat").exists():
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return round((num_cores or 1) - load)
    idle_before = _idle_seconds()
    start = time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    idle_cores = (_idle_seconds() - idle_before) / (time.monotonic() - start)
    return min(num_cores or 1, round(idle_cores))


def _idle_seconds() -> float:
    """Return the seconds that all cores together have been idle since the machine started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    idle = int(fields[4]) + int(fields[5])  # idle, and waiting for input or output
    return idle / os.sysconf("SC_CLK_TCK")
