"""ONNX files that are proven to compute what the network computes before they are put in place."""

import copy
import io
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from lightning_rnn import __version__
from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.errors import ExportError, import_extra
from lightning_rnn.export.onnx_classifier import METADATA, open_session
from lightning_rnn.export.step_network import StepNetwork
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.models.padding import valid_steps

OPSET = 17  # the operators have not changed since; onnxruntime reads it from 1.12 on
TRACED = (3, 7)  # B, T
PROVEN = ((1, 1), (2, 7), (9, 2), (1, 33), (5, 20), (16, 12), (4, 64), (7, 101))
TOLERANCE = 1e-5
OUTPUTS = ("probability", "label", "logits")
SILENCED = (
    # the exporter that replaces this one freezes the time axis of recurrent layers (pytorch issue 191855)
    "You are using the legacy TorchScript-based ONNX",
    "The feature will be removed. Please remove",
    "`torch.jit.script` is deprecated",  # what makes the minimal GRU's loop a loop in the graph
    "Exporting a model to ONNX with a batch_size other than 1",  # whether the batch has been frozen the proof tells
)


class Comparison(NamedTuple):
    """How far a file is from the network on one batch.

    Attributes:
        batch: B.
        steps: T.
        logits: Largest difference of logits, relative to logits above 1.
        probability: Largest difference of probabilities.
        labels: Classes decided otherwise than by the network from the same logits.
    """

    batch: int
    steps: int
    logits: float
    probability: float
    labels: int


class _Graph(nn.Module):
    """Adds to a network's logits what is decided by them."""

    def __init__(self, network: nn.Module, decision: nn.Module) -> None:
        super().__init__()
        self.network, self.decision = network, decision

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.network(*inputs)
        logits, *state = found if isinstance(found, tuple) else (found,)
        return self.decision.probabilities(logits), self.decision.predict(logits), logits, *state  # type: ignore[operator]


def export_onnx(
    network: SequenceNetwork,
    path: str | Path,
    *,
    class_names: list[str],
    feature_names: list[str] | None = None,
    streaming: bool = False,
) -> list[Comparison]:
    """Write a network to one ONNX file, after the file has been proven.

    The graph takes raw `x` (B, T, F) float32, NaN where missing, and `lengths` (B,) int64, for any B and T, and
    returns `probability` (B,) of the second class or (B, K), `label` (B,) int64, the code of the decided class, and
    `logits`. With `streaming` it takes one step `x` (B, F) and the state, and returns the new state as well, each
    part under its name with `next_` in front; at the beginning all parts are zero.

    Args:
        network: The network, trained.
        path: The file; an existing one is replaced.
        class_names: K names in the order of the codes.
        feature_names: F names, or none.
        streaming: Export the step, not the whole sequence.

    Returns:
        The comparisons with PyTorch.

    Raises:
        ExportError: The file computes something else than the network; nothing is left of it.
        OptionError: A two-way network with `streaming`, or a package that is not installed.
    """
    onnx = import_extra("onnx", "export")
    import_extra("onnxruntime", "export")
    network = copy.deepcopy(network).cpu().float().eval()  # the caller's stays as it is
    model = onnx.load_model_from_string(_trace(network, streaming))
    facts = {
        "version": __version__,
        "class_names": class_names,
        "feature_names": feature_names,
        "num_features": len(network.preprocess.mean),
        "temperature": float(network.decision.temperature),
        "threshold": float(network.decision.threshold),
        "streaming": streaming,
    }
    onnx.helper.set_model_props(model, {METADATA: json.dumps(facts)})
    with atomic_write(Path(path)) as beside:
        beside.write_bytes(model.SerializeToString())
        return _prove(network, beside)


def _prove(network: SequenceNetwork, path: Path) -> list[Comparison]:
    """Compare a file with the network in evaluation mode, a row for each (B, T) of `PROVEN`, none of them traced.

    The batches are ragged, with missing values and with NaN, infinity and large numbers in the padding.
    """
    session, facts = open_session(path)
    generator = torch.Generator().manual_seed(0)
    run, rows = _run_steps if facts["streaming"] else _run_whole, []
    for batch, steps in PROVEN:
        x, lengths = _random_batch(network, batch, steps, generator)
        try:
            found = run(session, network, x, lengths)
        except Exception as error:  # onnxruntime's own kinds
            text = (
                f"the ONNX graph fails with B = {batch}, T = {steps}, nothing was written: {error}"
            )
            raise ExportError(text) from None
        probability, label, logits, expected = map(torch.from_numpy, found)
        off = float(((logits - expected) / expected.abs().clamp(min=1)).abs().max())
        off_probability = float(
            (probability - network.decision.probabilities(expected)).abs().max()
        )
        labels = int((label != network.decision.predict(logits)).sum())
        rows.append(Comparison(batch, steps, off, off_probability, labels))
    if not all(
        row.logits <= TOLERANCE and row.probability <= TOLERANCE and row.labels == 0 for row in rows
    ):
        raise ExportError(
            f"the ONNX graph does not compute what PyTorch computes, nothing was written; largest difference accepted "
            f"is {TOLERANCE:g}, found\n{table(rows)}"
        )
    return rows


def table(rows: list[Comparison]) -> str:
    """Return comparisons as text, a row a line."""
    lines = ["    B     T  logits differ by  probabilities by  labels"]
    lines += [
        f"{r.batch:5d} {r.steps:5d}  {r.logits:16.1e}  {r.probability:16.1e}  {r.labels:6d}"
        for r in rows
    ]
    return "\n".join(lines)


def _random_batch(
    network: SequenceNetwork, batch: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return raw values like the training data's (B, T, F), garbage after the ends, and lengths of at least one T."""
    mean, std = network.preprocess.mean, network.preprocess.std
    x = mean + std * torch.randn(batch, steps, len(mean), generator=generator)
    x[torch.rand(x.shape, generator=generator) < 0.2] = torch.nan
    x[0, : steps // 2] = torch.nan  # nothing seen for long
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    lengths[-1] = steps
    garbage = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 1.0])
    for i, length in enumerate(lengths.tolist()):
        shape = (steps - length, len(mean))
        x[i, length:] = garbage[torch.randint(len(garbage), shape, generator=generator)]
    return x, lengths


def _run_whole(
    session: Any, network: SequenceNetwork, x: Tensor, lengths: Tensor
) -> tuple[Any, ...]:
    with torch.inference_mode():
        expected = network(x, lengths)
    return *session.run(
        list(OUTPUTS), {"x": x.numpy(), "lengths": lengths.numpy()}
    ), expected.numpy()


def _run_steps(
    session: Any, network: SequenceNetwork, x: Tensor, lengths: Tensor
) -> tuple[Any, ...]:
    """Compare after every step with the sequences so far; what stands in the padding becomes missing values."""
    batch, steps = x.shape[:2]
    x = x.masked_fill(~valid_steps(lengths, steps)[..., None], torch.nan)
    names = [given.name for given in session.get_inputs()[1:]]
    state = {
        name: part.numpy()
        for name, part in zip(names, StepNetwork(network).initial_state(batch), strict=True)
    }
    found = []
    for t in range(steps):
        outputs = session.run(None, {"x": x[:, t].numpy(), **state})
        found.append(outputs[:3])
        state = dict(zip(names, outputs[3:], strict=True))
    with torch.inference_mode():
        expected = network(
            x.repeat(steps, 1, 1), torch.arange(1, steps + 1).repeat_interleave(batch)
        )
    return *(np.concatenate(column) for column in zip(*found, strict=True)), expected.numpy()


def _trace(network: SequenceNetwork, streaming: bool) -> bytes:
    batch, steps = TRACED
    num_features = len(network.preprocess.mean)
    file, axes = io.BytesIO(), {name: {0: "B"} for name in OUTPUTS}
    if streaming:
        step = StepNetwork(network)
        names, after = ["x", *step.state], [*OUTPUTS, *(f"next_{name}" for name in step.state)]
        graph = _Graph(step, network.decision)
        inputs = (torch.randn(batch, num_features), *step.initial_state(batch))
        axes |= {name: {0: "B"} for name in (*names, *after)}
    else:
        names, after = ["x", "lengths"], [*OUTPUTS]
        graph = _Graph(network, network.decision)
        inputs = (torch.randn(batch, steps, num_features), torch.tensor([steps] * batch))
        axes |= {"x": {0: "B", 1: "T"}, "lengths": {0: "B"}}
    with warnings.catch_warnings(), torch.no_grad():
        for message in SILENCED:
            warnings.filterwarnings("ignore", message=message)
        # torch's own layers check the shapes of what they are given
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.nn\.modules\.rnn")
        torch.onnx.export(
            graph.eval(),
            inputs,
            file,  # type: ignore[arg-type]  # this exporter takes a buffer
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=after,
            dynamic_axes=axes,
        )
    return file.getvalue()
