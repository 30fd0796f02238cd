"""How near does an accelerator come to doing nothing but recurrences, and where are its slow sizes?

Needs a CUDA device. `fit` against the best plain loop at the `wide` size is `python -m benchmarks.training --device
cuda`; cells by length is `python -m benchmarks.cells --device cuda`; this file answers the rest:

- which share of a step's time is spent inside cuDNN's kernels at the wide size (T = 512, H = 256, B = 256);
- what a step costs for hidden sizes from 64 to 512, where some are said to take a slow kernel;
- how long the published experiment takes as a whole command on the device, and on the CPU;
- what bfloat16 and TF32 do to its accuracy and time.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cells import step
from benchmarks.clock import now
from benchmarks.common import once, save
from lightning_rnn.models.recurrent import CellName, RecurrentLayer


def kernels(cell: CellName, hidden: int, *, steps: int = 512, batch: int = 256) -> dict[str, Any]:
    """Return milliseconds of a training step of one layer and the share of it inside cuDNN's kernels."""
    x = torch.randn(batch, steps, 2, device="cuda")
    run = step(RecurrentLayer(cell, 2, hidden).cuda(), x)
    seconds = []
    for _ in range(12):
        begin = now()
        run()
        seconds.append(now() - begin)
    ms = statistics.median(seconds[2:]) * 1e3
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        run()
        now()
    # of the operators, not of the kernels beside them in the list: the time of the kernels that an operator started
    inside = sum(
        event.self_device_time_total
        for event in profiler.key_averages()
        if "::_cudnn_rnn" in event.key
    )
    return {"what": f"{cell} step", "H": hidden, "T": steps, "B": batch, "ms": f"{ms:.2f}",
            "in_cudnn": f"{inside / (ms * 1e3):.2f}"}  # fmt: skip


def whole(name: str, options: list[str]) -> dict[str, Any]:
    """Return the wall time and test accuracy of the published experiment."""
    with tempfile.TemporaryDirectory() as folder:
        root = ["--trainer.default_root_dir", folder]
        seconds, _ = once([sys.executable, "-m", "lightning_rnn", "fit", *root, *options])
        accelerator = options[:2]
        once([sys.executable, "-m", "lightning_rnn", "test", *root, *accelerator])
        metrics = json.loads(next(Path(folder).rglob("test_metrics.json")).read_text())
    return {
        "what": name,
        "ms": f"{seconds * 1e3:.0f}",
        "accuracy": f"{metrics['test/accuracy']:.4f}",
    }


def main() -> None:
    if not torch.cuda.is_available():
        print("accelerator: not measured, there is no CUDA device")
        return
    names_of_cells: tuple[CellName, ...] = ("lstm", "gru")
    rows = [
        kernels(cell, hidden)
        for cell in names_of_cells
        for hidden in (64, 96, 128, 160, 192, 256, 384, 512)
    ]
    gpu = ["--trainer.accelerator", "gpu"]
    rows += [
        whole("seed on the CPU", ["--trainer.accelerator", "cpu"]),
        whole("seed", gpu),
        whole("seed, bf16-mixed", [*gpu, "--trainer.precision", "bf16-mixed"]),
        whole("seed, TF32", [*gpu, "--matmul_precision", "high"]),
        whole(
            "lstm, bf16-mixed", [*gpu, "--model.cell", "lstm", "--trainer.precision", "bf16-mixed"]
        ),
    ]
    names = {name: "" for row in rows for name in row}
    save("accelerator", [names | row for row in rows])


if __name__ == "__main__":
    main()
