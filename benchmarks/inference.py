"""What does a prediction cost: one more step of a sequence, and a batch of whole ones?

In PyTorch, in onnxruntime and streaming, one thread each, against a plain loop over torch's own layer and a linear one
in eval mode, which knows of no missing values, no padding and no calibration.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.common import save
from lightning_rnn import OnnxClassifier, SequenceNetwork, StreamingClassifier
from lightning_rnn.export.onnx_export import export_onnx

FEATURES, HIDDEN, STEPS, BATCH, SO_FAR = 8, 32, 100, 256, 1000
PLAIN = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def median_us(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return each call's median microseconds; the calls take turns, so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + repeats // 10):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if repeat >= repeats // 10:  # those before warm up
                times[name].append(1e6 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def calls_of(
    cell: str, stem: str, folder: Path
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable]]:
    """Return what is timed for one more step, and for a batch."""
    torch.manual_seed(0)
    net = SequenceNetwork(
        input_size=FEATURES, num_classes=2, cell=cell, hidden_size=HIDDEN, stem=stem
    ).eval()
    for name, streaming in (("model", False), ("step", True)):
        export_onnx(net, folder / f"{name}.onnx", class_names=["a", "b"], streaming=streaming)
    batch = torch.randn(BATCH, STEPS, FEATURES)
    lengths, one = torch.full((BATCH,), STEPS), batch[:1, 0]
    sequence = torch.randn(1, SO_FAR, FEATURES)
    classifier, arrays = OnnxClassifier(folder / "model.onnx"), list(batch.numpy())
    session = classifier._session
    streams = {
        name: StreamingClassifier(model)
        for name, model in (("torch", net), ("onnx", folder / "step.onnx"))
    }

    def network(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return net.decision.probabilities(net(x, lengths))

    steps: dict[str, Callable[[], object]] = {
        f"{name} streaming": lambda stream=stream: stream.update(["a"], one.numpy())
        for name, stream in streams.items()
    }
    steps[f"torch, all {SO_FAR} steps again"] = lambda: network(sequence, torch.tensor([SO_FAR]))
    whole: dict[str, Callable[[], object]] = {
        "torch": lambda: network(batch, lengths),
        "onnxruntime": lambda: session.run(None, {"x": batch.numpy(), "lengths": lengths.numpy()}),
        "OnnxClassifier": lambda: classifier.predict_proba(arrays),
    }
    if cell in PLAIN and stem == "none":
        layer, head, state = (
            PLAIN[cell](FEATURES, HIDDEN, batch_first=True).eval(),
            torch.nn.Linear(HIDDEN, 1),
            [None],
        )

        def plain_step() -> float:
            with torch.inference_mode():
                output, state[0] = layer(one[:, None], state[0])
                return float(head(output[:, -1]).sigmoid())

        def plain_batch() -> torch.Tensor:
            with torch.inference_mode():
                return head(layer(batch)[0][:, -1]).sigmoid()

        return {"plain loop": plain_step} | steps, {"plain loop": plain_batch} | whole
    return steps, whole


def main(repeats: int = 100) -> None:
    torch.set_num_threads(1)
    rows = []
    columns = [
        "cell",
        "stem",
        "what",
        "how",
        "median_us",
        "plain_ratio",
        "sequences_per_s",
        "repeats",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for cell, stem in (
            ("rnn", "none"),
            ("lstm", "none"),
            ("gru", "none"),
            ("mingru", "none"),
            ("lstm", "conv"),
        ):
            for what, calls, size, share in zip(
                ("one step", f"batch of {BATCH}, {STEPS} steps"),
                calls_of(cell, stem, Path(folder)),
                (1, BATCH),
                (1, 10),
                strict=True,
            ):
                found = median_us(calls, repeats // share)
                for how, us in found.items():
                    plain = found.get("plain loop")
                    ratio = "" if plain is None else f"{us / plain:.2f}"
                    row = dict(zip(columns, (cell, stem, what, how, f"{us:.0f}", ratio, f"{1e6 * size / us:.0f}",
                                             repeats // share), strict=True))  # fmt: skip
                    rows.append(row)
                    print("  ".join(f"{value!s:>12}" for value in row.values()), flush=True)
    save("inference", rows)


if __name__ == "__main__":
    np.seterr(all="raise")
    onnxruntime.set_default_logger_severity(3)
    main()
