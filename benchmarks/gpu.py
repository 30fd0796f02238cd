"""Everything that needs a GPU, in one command: `make gpu` or `python -m benchmarks.gpu`.

1. `pytest -m gpu`: numbers of the CPU, exact resume with `--trainer.deterministic true`.
2. `fit` without options, as a whole command.
3. The cells beside torch's own, by length.
4. Training of a wide LSTM, and the share of the GPU's time that cuDNN takes.
5. Accuracy with bf16-mixed and with TF32, against float32.

Each part writes a file whose name ends with that of the card; `gpu_NAME.csv` has a row per part.
With `--device cpu --quick`, the whole list runs on a machine without a GPU, to check its code; the
tests are skipped there.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import accuracy, cells
from benchmarks.harness import ROOT, Side, card_suffix, compare, parser_of, save
from lightning_rnn.models.losses import cross_entropies
from lightning_rnn.models.network import NetworkOptions, SequenceNetwork
from lightning_rnn.padding import Padding

LIMIT_S = 480
CUDNN = "cudnn_rnn"  # in the names of torch's operators that call it


def tests(quick: bool, device: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/runs/test_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout[-3000:], flush=True)
    closing_line = done.stdout.strip().rpartition("\n")[2]
    if done.returncode != 0:
        raise RuntimeError(closing_line)
    return closing_line


def whole_run(quick: bool, device: str) -> str:
    fit = ["-m", "lightning_rnn", "fit"]
    sides = [
        Side("fit", [*fit, f"--trainer.accelerator={device}", "--trainer.devices=1"], 1000),
        Side("fit on a CPU", [*fit, "--trainer.accelerator=cpu"], 1000),
    ]
    rows = compare("whole run", sides, runs=1 if quick else 3)
    save(f"gpu_whole_run{card_suffix(device)}", rows, quick=quick)
    return f"{rows[0]['wall_s']} s"


def by_length(quick: bool, device: str) -> str:
    cells.main(runs=1 if quick else 3, device=device, quick=quick)
    return "see the file of the cells"


def wide(quick: bool, device: str) -> str:
    """Measure training steps of a wide network, and where the time of the device goes."""
    steps, hidden, batch = (8, 4, 4) if quick else (512, 256, 256)
    options = NetworkOptions(cell="lstm", hidden_size=hidden)
    network = SequenceNetwork(input_size=1, num_classes=2, options=options).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    x = torch.randn(batch, steps, 1, device=device)
    padding = Padding(torch.full((batch,), steps, device=device), is_full=True)
    labels = torch.randint(2, (batch,), device=device)

    def train(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad()
            cross_entropies(network(x, padding), labels).mean().backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    train(3)
    ms_per_step = 1e3 * train(10)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        train(10)
    events = profiler.key_averages()
    total = 0.0
    in_cudnn = 0.0
    for event in events:  # of kernels, and of the operators that have launched them
        if event.device_type == DeviceType.CUDA:
            total += event.self_device_time_total
        elif CUDNN in event.key:
            in_cudnn += event.self_device_time_total
    share = in_cudnn / total if total > 0 else float("nan")
    row = {"case": "wide lstm", "T": steps, "B": batch, "H": hidden}
    row |= {"ms_per_step": f"{ms_per_step:.2f}", "cudnn_share": f"{share:.3f}"}
    save(f"gpu_wide{card_suffix(device)}", [row], quick=quick)
    return f"{ms_per_step:.2f} ms per step, share of cuDNN {share:.3f}"


def precision(quick: bool, device: str) -> str:
    runs = 1 if quick else 3
    for name, option, value, other in (
        ("bf16", "trainer.precision", "32-true", "bf16-mixed"),
        ("tf32", "matmul_precision", "highest", "high"),
    ):
        fit = ["--model.cell=lstm"]
        accuracy.main(name, option, value, other, fit, runs=runs, device=device, quick=quick)
    return "see the files of the accuracy"


PARTS: tuple[Callable[[bool, str], str], ...] = (tests, whole_run, by_length, wide, precision)


def main(quick: bool = False, device: str = "cuda") -> None:
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("make gpu: needs a CUDA device, and torch sees none; nothing was measured")
    start = time.monotonic()
    rows = []
    failed = []
    for part in PARTS:
        began = time.monotonic()
        result = "left out, the time is over"
        if began - start < LIMIT_S:
            try:
                result = part(quick, device)
            except Exception as error:  # a card is rare: the other parts are measured all the same
                result = f"failed: {error}"
                failed.append(part.__name__)
        seconds = f"{time.monotonic() - began:.0f}"
        rows.append({"part": part.__name__, "seconds": seconds, "result": result})
        save(f"gpu{card_suffix(device)}", rows, quick=quick)
    print(f"written to {Path('benchmarks/results')} in {time.monotonic() - start:.0f} s")
    if failed:
        sys.exit(f"make gpu: failed: {', '.join(failed)}")


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    main(**vars(parser.parse_args()))
