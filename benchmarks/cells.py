"""What does one training step of each cell cost, from short sequences to long ones?

Forward and backward of one layer with two features and the loss on the last state; torch's own
layers beside ours, called in turn. Ratios are to torch's LSTM.
"""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.harness import card_suffix, options_of, ratios, save, spread, time_calls
from lightning_rnn.models.recurrent import CELLS, RecurrentLayer

TORCH_LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SIZES = [(100, 64), (1024, 32), (4096, 16)]  # steps and batch size
ACCELERATOR_SIZES = [*SIZES, (512, 64), (16384, 16)]


def training_step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a function that runs forward and backward on x (B, T, F)."""

    def run() -> None:
        output = layer(x)
        states = output if isinstance(output, Tensor) else output[0]  # (B, T, H)
        states[:, -1].sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def training_steps(x: Tensor, hidden: int) -> dict[str, Callable[[], None]]:
    steps = {}
    for name, layer_class in TORCH_LAYERS.items():
        layer = layer_class(x.shape[-1], hidden, batch_first=True).to(x.device)
        steps[f"torch {name}"] = training_step(layer, x)
    for name in CELLS:
        steps[name] = training_step(RecurrentLayer(name, x.shape[-1], hidden).to(x.device), x)
    return steps


def main(
    runs: int = 5,
    device: str = "cpu",
    hidden: int = 64,
    threads: int | None = None,
    quick: bool = False,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    sizes = SIZES if device == "cpu" else ACCELERATOR_SIZES
    rows = []
    for steps, batch in [(8, 4)] if quick else sizes:
        x = torch.randn(batch, steps, 2, device=device)
        seconds = time_calls(training_steps(x, hidden), runs)
        for name, own in seconds.items():
            row = {"cell": name, "T": steps, "B": batch, "H": hidden, "device": device}
            row |= {"threads": torch.get_num_threads(), "runs": runs}
            row["ms"] = f"{1e3 * statistics.median(own):.1f}"
            rows.append(row | spread("ratio_to_lstm", ratios(own, seconds["torch lstm"])))
    save(f"cells{card_suffix(device)}", rows, quick=quick)


if __name__ == "__main__":
    parser = options_of(__doc__, runs=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    main(**vars(parser.parse_args()))
