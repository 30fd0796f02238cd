"""What does a prediction cost: one more step of a sequence, and a batch of whole sequences?

PyTorch, onnxruntime and streaming, against a plain loop over torch's own layer and a linear layer,
which handles neither missing values nor padding nor calibration. `cpu_us` is processor time, which
depends less than elapsed time on what else runs.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import alternate, options_of, ratios, save
from lightning_rnn import OnnxClassifier, SequenceNetwork, StreamingClassifier
from lightning_rnn.export.onnx_export import export_onnx
from lightning_rnn.models.network import NetworkOptions

FEATURES = 8
HIDDEN = 32
STEPS = 100
BATCH = 256
STEPS_BEFORE = 1000
PLAIN_LAYERS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
NETWORKS = [
    ("rnn", "none"),
    ("lstm", "none"),
    ("gru", "none"),
    ("mingru", "none"),
    ("lstm", "conv"),
]

Calls = dict[str, Callable[[], object]]


class PlainClassifier:
    """torch's own layer and a linear layer."""

    def __init__(self, cell: str) -> None:
        self.layer = PLAIN_LAYERS[cell](FEATURES, HIDDEN, batch_first=True).eval()
        self.head = torch.nn.Linear(HIDDEN, 1)
        self.state = None

    @torch.inference_mode()
    def step(self, x: Tensor) -> float:
        """Return the probability after one more step (1, F)."""
        output, self.state = self.layer(x[:, None], self.state)
        return float(self.head(output[:, -1]).sigmoid())

    @torch.inference_mode()
    def batch(self, x: Tensor) -> Tensor:
        """Return probabilities (B, 1) from (B, T, F)."""
        output, _ = self.layer(x)
        return self.head(output[:, -1]).sigmoid()


def make_network(cell: str, stem: str, folder: Path) -> SequenceNetwork:
    """Return a network, exported to `model.onnx` and `step.onnx` as well."""
    torch.manual_seed(0)
    options = NetworkOptions(cell=cell, hidden_size=HIDDEN, stem=stem)
    network = SequenceNetwork(input_size=FEATURES, num_classes=2, options=options).eval()
    export_onnx(network, folder / "model.onnx", class_names=["a", "b"], streaming=False)
    export_onnx(network, folder / "step.onnx", class_names=["a", "b"], streaming=True)
    return network


@torch.inference_mode()
def predict(network: SequenceNetwork, x: Tensor) -> Tensor:
    """Return probabilities from (B, T, F)."""
    lengths = torch.full((len(x),), x.shape[1])
    return network.decision.probabilities(network(x, lengths))


def step_calls(cell: str, stem: str, network: SequenceNetwork, folder: Path) -> Calls:
    x = torch.randn(1, FEATURES)
    sequence = torch.randn(1, STEPS_BEFORE, FEATURES)
    in_torch = StreamingClassifier(network)
    in_onnx = StreamingClassifier(folder / "step.onnx")
    calls: Calls = {}
    if cell in PLAIN_LAYERS and stem == "none":
        plain = PlainClassifier(cell)
        calls["plain loop"] = lambda: plain.step(x)
    calls["torch streaming"] = lambda: in_torch.update(["a"], x.numpy())
    calls["onnx streaming"] = lambda: in_onnx.update(["a"], x.numpy())
    calls[f"torch, all {STEPS_BEFORE} steps again"] = lambda: predict(network, sequence)
    return calls


def batch_calls(cell: str, stem: str, network: SequenceNetwork, folder: Path) -> Calls:
    x = torch.randn(BATCH, STEPS, FEATURES)
    arrays = list(x.numpy())
    classifier = OnnxClassifier(folder / "model.onnx")
    calls: Calls = {}
    if cell in PLAIN_LAYERS and stem == "none":
        plain = PlainClassifier(cell)
        calls["plain loop"] = lambda: plain.batch(x)
    calls["torch"] = lambda: predict(network, x)
    calls["OnnxClassifier"] = lambda: classifier.predict_proba(arrays)
    return calls


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the processor time of all threads."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(calls: Calls, runs: int) -> list[dict[str, object]]:
    """Return one row per call: median microseconds and the ratio to the plain loop."""
    functions = {name: partial(cpu_seconds, call) for name, call in calls.items()}
    seconds = alternate(functions, runs, 1 + runs // 10)
    rows: list[dict[str, object]] = []
    for how, own in seconds.items():
        row: dict[str, object] = {"how": how, "cpu_us": f"{1e6 * statistics.median(own):.0f}"}
        if "plain loop" in seconds:
            row["plain_ratio"] = f"{statistics.median(ratios(own, seconds['plain loop'])):.2f}"
        rows.append(row | {"runs": runs})
    return rows


def main(runs: int = 100, threads: int | None = None, quick: bool = False) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    rows = []
    for cell, stem in NETWORKS[:1] if quick else NETWORKS:
        name = {"cell": cell, "stem": stem, "threads": torch.get_num_threads()}
        with tempfile.TemporaryDirectory() as folder:
            network = make_network(cell, stem, Path(folder))
            steps = measure(step_calls(cell, stem, network, Path(folder)), runs)
            batches = measure(batch_calls(cell, stem, network, Path(folder)), max(1, runs // 10))
        rows += [name | {"what": "one step"} | row for row in steps]
        rows += [name | {"what": f"{BATCH} sequences of {STEPS} steps"} | row for row in batches]
    save("inference", rows, quick=quick)


if __name__ == "__main__":
    parser = options_of(__doc__, runs=100)
    parser.add_argument("--threads", type=int, help="of torch; default: torch's own choice")
    main(**vars(parser.parse_args()))
