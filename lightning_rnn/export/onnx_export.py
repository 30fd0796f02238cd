"""Export to ONNX files, which are compared with the network before they are put in place."""

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # torch does not declare it

from lightning_rnn import __version__
from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.categories import Categories
from lightning_rnn.errors import DataError, ExportError, check, counted, import_extra
from lightning_rnn.export.onnx_classifier import open_session
from lightning_rnn.export.onnx_metadata import METADATA_KEY, Metadata, with_digest
from lightning_rnn.export.step_network import StepNetwork
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.models.padding import valid_steps

OPSET = 17  # the operators in use have not changed since; onnxruntime reads it from 1.12 on
TRACED_SIZE = (3, 7)  # B, T
VERIFIED_SIZES = ((1, 1), (2, 7), (9, 2), (1, 33), (5, 20), (16, 12), (4, 64), (7, 101))
# of files for single steps, of which each step is compared with the whole sequence so far
VERIFIED_STEP_SIZES = ((1, 101), (2, 40), (9, 2), (5, 20), (16, 12))
TOLERANCE = 1e-5
OUTPUTS = ("probability", "label", "logits")

# The TorchScript exporter (`dynamo=False`) is deprecated, and so is `torch.jit.script`, which turns
# the minimal GRU's loop into a loop of the graph. Their successor, `dynamo=True`, freezes the time
# axis of recurrent layers without an error (https://github.com/pytorch/pytorch/issues/191855). Once
# all supported versions of torch have the fix, pass `dynamo=True` with `dynamic_shapes` and delete
# these filters; `verify` fails if the axis is still frozen.
EXPECTED_WARNINGS = (
    "You are using the legacy TorchScript-based ONNX",
    "The feature will be removed. Please remove",
    "`torch.jit.script` is deprecated",
    "Constant folding - Only steps=1 can be constant folded",  # torch's own padding of a constant
    "Exporting a model to ONNX with a batch_size other than 1",  # `verify` fails if B is frozen
)


def export_onnx(
    network: SequenceNetwork,
    path: str | Path,
    *,
    class_names: list[str],
    feature_names: list[str] | None = None,
    categories: Categories | None = None,
    streaming: bool = False,
) -> float:
    """Write a network to an ONNX file after verifying that the file computes the same.

    The graph takes raw `x` (B, T, F) float32, NaN where missing, and `lengths` (B,) int64, for any
    B and T. A category is its code, from 1 on, and 0 if it is unknown. The graph returns
    `probability`, (B,) of the second class or (B, K), `label` (B,) int64, the code of the predicted
    class, and `logits`. With `streaming` it takes one step `x` (B, F) and the parts of the state,
    zero at first, and also returns the new parts, as `next_` and their name.

    Args:
        network: The trained network, which is not changed.
        path: The file to write or replace.
        class_names: K names in the order of the class codes.
        feature_names: F names, or None.
        categories: Categories of the features that are no numbers, in the order of their codes.
        streaming: Whether the graph takes single steps instead of whole sequences.

    Returns:
        The largest difference between file and network, see `verify`.

    Raises:
        ExportError: If the file does not compute the same; it is not written then.
        OptionError: If there are too many or too few names, the network is bidirectional or has an
            encoder with `streaming`, or onnx or onnxruntime is not installed.

    Example:
        >>> import tempfile
        >>> from lightning_rnn import SequenceNetwork, export_onnx
        >>> network = SequenceNetwork(input_size=1, num_classes=2)
        >>> path = tempfile.mkdtemp() + "/model.onnx"
        >>> export_onnx(network, path, class_names=["down", "up"]) < 1e-5
        True
    """
    num_classes = network.num_classes
    check(len(class_names) == num_classes, "class_names", class_names, f"{num_classes} names")
    if feature_names is not None:
        fits = len(feature_names) == network.input_size
        check(fits, "feature_names", feature_names, counted(network.input_size, "name"))
    sizes = [len((categories or {}).get(name, ())) for name in feature_names or ()]
    fits = {i: size for i, size in enumerate(sizes) if size} == network.preprocess.category_sizes
    check(fits, "categories", categories, "those of the features that have some in the network")
    onnx = import_extra("onnx", "export")
    import_extra("onnxruntime", "export")
    network = copy.deepcopy(network).cpu().float().eval()
    metadata = Metadata(
        version=__version__,
        class_names=class_names,
        feature_names=feature_names,
        categories=categories or {},
        num_features=network.input_size,
        missing_values=network.preprocess.missing_values,
        temperature=float(network.decision.temperature),
        threshold=float(network.decision.threshold),
        streaming=streaming,
    )
    model = onnx.load_model_from_string(trace(network, streaming=streaming))
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(with_digest(model.SerializeToString()))
        try:
            return verify(network, temporary, streaming=streaming)
        except (DataError, ExportError) as error:
            raise ExportError(f"{path}: not written, as {error}") from None


class _Graph(nn.Module):
    """A network, or a network that takes steps, followed by its decision."""

    def __init__(self, network: nn.Module, decision: Decision) -> None:
        super().__init__()
        self.network = network
        self.decision = decision

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(*inputs)
        logits, *state = outputs if isinstance(outputs, tuple) else (outputs,)
        probabilities = self.decision.probabilities(logits)
        return probabilities, self.decision.predict(logits), logits, *state


def trace(network: SequenceNetwork, *, streaming: bool) -> bytes:
    """Return the ONNX graph of a network in evaluation mode; see `export_onnx`."""
    batch_size, num_steps = TRACED_SIZE
    x = torch.zeros(batch_size, num_steps, network.input_size)
    if streaming:
        steps = StepNetwork(network)
        state = steps.initial_state(batch_size)
        graph = _Graph(steps, network.decision)
        inputs = {"x": x[:, 0], **state}
        outputs = [*OUTPUTS, *(f"next_{name}" for name in state)]
    else:
        graph = _Graph(network, network.decision)
        inputs = {"x": x, "lengths": torch.full((batch_size,), num_steps)}
        outputs = list(OUTPUTS)
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    if not streaming:
        axes["x"][1] = "T"
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        # torch's recurrent layers compare the shapes of their inputs
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.nn\.modules\.rnn")
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            buffer,  # type: ignore[arg-type]  # this exporter takes a buffer
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=axes,
        )
    return buffer.getvalue()


def verify(network: SequenceNetwork, path: Path, *, streaming: bool) -> float:
    """Compare an exported file with its network, which is in evaluation mode on the CPU.

    The random batches of `VERIFIED_SIZES` are ragged, with missing values, and with NaN, infinity
    and large numbers in the padding. A file for single steps is compared after each step, with
    batches of `VERIFIED_STEP_SIZES`. Returns
    the largest difference of a probability or logit, relative for logits above 1; raises an
    ExportError if it is above `TOLERANCE`, onnxruntime fails, or a predicted class is another one.
    """
    session, _ = open_session(path, streaming=streaming)
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for size in VERIFIED_STEP_SIZES if streaming else VERIFIED_SIZES:
        batch_size, num_steps = size
        where = f"with B = {batch_size}, T = {num_steps}"
        x, lengths = _random_batch(network, size, generator)
        try:
            if streaming:
                # the graph takes all T steps, so that those in the padding become missing values
                x = x.masked_fill(~valid_steps(lengths, num_steps)[..., None], torch.nan)
                outputs = _run_steps(session, StepNetwork(network).initial_state(batch_size), x)
                x = x.repeat(num_steps, 1, 1)  # (T B, T, F), for the sequences after each step
                lengths = torch.arange(1, num_steps + 1).repeat_interleave(batch_size)
            else:
                inputs = {"x": x.numpy(), "lengths": lengths.numpy()}
                outputs = session.run(list(OUTPUTS), inputs)
        except Exception as error:  # onnxruntime has no public exception classes
            raise ExportError(f"the ONNX graph fails {where}: {error}") from None
        with torch.inference_mode():
            expected = network(x, lengths)
        probability, label, logits = map(torch.from_numpy, outputs)
        logit_difference = (logits - expected) / expected.abs().clamp(min=1)
        probability_difference = probability - network.decision.probabilities(expected)
        difference = float(
            torch.maximum(logit_difference.abs(), probability_difference.abs()).max()
        )
        num_wrong = int((label != network.decision.predict(logits)).sum())
        if not difference <= TOLERANCE or num_wrong > 0:  # the difference may be NaN
            message = "the ONNX graph does not compute what PyTorch computes"
            got = f"{difference:.1e} and {num_wrong} wrong classes {where}"
            raise ExportError(f"{message}: expected differences of up to {TOLERANCE:g}, got {got}")
        largest = max(largest, difference)
    return largest


def _random_batch(
    network: SequenceNetwork, size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return raw values (B, T, F) distributed like the training data, and lengths of up to T."""
    batch_size, num_steps = size
    noise = torch.randn(batch_size, num_steps, network.input_size, generator=generator)
    x = network.preprocess.mean + network.preprocess.std * noise
    for i, num_categories in network.preprocess.category_sizes.items():
        codes = torch.randint(num_categories + 1, size, generator=generator)
        x[..., i] = codes.to(x.dtype)
    x[torch.rand(x.shape, generator=generator) < 0.2] = torch.nan
    x[0, : num_steps // 2] = torch.nan  # a sequence that begins with missing values
    lengths = torch.randint(1, num_steps + 1, (batch_size,), generator=generator)
    lengths[-1] = num_steps
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 1.0])
    garbage = values[torch.randint(len(values), x.shape, generator=generator)]
    return torch.where(valid_steps(lengths, num_steps)[..., None], x, garbage), lengths


def _run_steps(session: Any, initial_state: dict[str, Tensor], x: Tensor) -> list[np.ndarray]:
    """Return the file's `OUTPUTS` after each of T steps of B sequences, (T B, ...)."""
    state = {name: part.numpy() for name, part in initial_state.items()}
    steps = []
    for x_t in x.unbind(1):
        probability, label, logits, *parts = session.run(None, {"x": x_t.numpy(), **state})
        steps.append((probability, label, logits))
        state = dict(zip(state, parts, strict=True))
    return [np.concatenate(outputs) for outputs in zip(*steps, strict=True)]
