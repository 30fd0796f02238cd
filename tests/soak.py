"""Train 20,000 steps, and print memory, descriptors, threads and the size of the run folder.

    python tests/soak.py --steps 20000

Figures are drawn every 500 steps. By default, `fit` draws when that takes at most 5 % of its time:
memory would grow by some 40 MB at a moment that depends on the load of the machine.

Exit code 0 if, after the first 1,000 steps, descriptors and threads stay the same, and the highest
memory of the second half of the run is at most 8 MB above that of the first half. What `fit` writes
with every report (history, TensorBoard events) grows with the number of reports.
"""

import argparse
import os
import re
import sys
import tempfile
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.__main__ import main as program

WARM_UP = 1000  # steps
MAX_GROWTH = 8.0  # MB, of which an arena of the allocator has a few
ARGS = """
    --preset tutorial --trainer.max_epochs -1 --trainer.accelerator cpu
    --trainer.enable_progress_bar false --model.cell gru --model.hidden_size 2
    --data.length 3 --data.num_train 400 --data.num_val 100 --data.num_test 100 --data.batch_size 8
    --figures.every_n_epochs 10 --gradient_flow.every_n_epochs 10
"""


@dataclass(frozen=True)
class State:
    """What a process uses after a number of steps."""

    step: int
    megabytes: float
    descriptors: int
    threads: int
    folder: dict[str, int] = field(default_factory=dict)  # bytes by kind of file


class Recorder(Callback):
    """Notes the state of the process every 1,000 steps."""

    states: list[State] = []  # noqa: RUF012  of the one run of this process

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step % 1000 != 0:
            return
        status = Path("/proc/self/status").read_text()
        memory = int(re.findall(r"VmRSS:\s*(\d+)", status)[0]) / 1000
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        threads = len(list(Path("/proc/self/task").iterdir()))
        sizes: dict[str, int] = {}
        for path in Path(str(trainer.log_dir)).rglob("*"):
            if path.is_file():
                kind = "events" if path.name.startswith("events.") else path.suffix
                sizes[kind] = sizes.get(kind, 0) + path.stat().st_size
        state = State(trainer.global_step, memory, descriptors, threads, sizes)
        self.states.append(state)
        print(state, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    from soak import Recorder as Recorded  # the class that the option names

    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        limit = ["--trainer.max_steps", str(options.steps)]
        code = program(["fit", *ARGS.split(), *limit, "--trainer.callbacks+=soak.Recorder"])
    if code != 0:
        return code
    first, *others = Recorded.states
    print(f"{'step':>6} {'MB':>7} {'fds':>4} {'threads':>7}  bytes in the run folder")
    for state in (first, *others):
        numbers = f"{state.step:6} {state.megabytes:7.1f} {state.descriptors:4} {state.threads:7}"
        print(f"{numbers}  {sum(state.folder.values()):,}: {state.folder}")
    memory = [state.megabytes for state in Recorded.states]
    half = len(memory) // 2
    growth = max(memory[half:]) - max(memory[:half])
    descriptors = max(state.descriptors for state in others) - first.descriptors
    threads = max(state.threads for state in others) - first.threads
    print(f"memory: {max(memory) - memory[0]:+.1f} MB, second half over first {growth:+.1f} MB")
    print(f"after {WARM_UP} steps: {descriptors:+} fds, {threads:+} threads")
    return int(growth > MAX_GROWTH or descriptors > 0 or threads > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
