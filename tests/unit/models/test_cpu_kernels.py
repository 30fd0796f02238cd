"""The recurrences with backward passes by hand, against autograd through torch's own layers and a plain loop."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_rnn.models import cpu_kernels as recurrences
from lightning_rnn.models.cpu_kernels import (
    GRURecurrence,
    LinearRecurrence,
    TanhRecurrence,
    scan,
    step_by_step,
)
from lightning_rnn.models.recurrent import CELLS, MinGRU, RecurrentLayer

EXACT = {"rtol": 0.0, "atol": 1e-12}  # in float64
SIZES, SEEDS = st.integers(1, 5), st.integers(0, 2**31)


def gradients(outputs, inputs, weight):
    return torch.autograd.grad((outputs * weight).sum(), inputs)


@given(
    batch=SIZES,
    steps=st.integers(1, 9),
    features=SIZES,
    hidden=SIZES,
    seed=SEEDS,
    chunk=st.sampled_from([1, 8, 999]),
    begun=st.booleans(),
)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize(("torchs", "ours"), [(nn.RNN, TanhRecurrence), (nn.GRU, GRURecurrence)])
def test_values_and_gradients_equal_torchs(
    torchs, ours, batch, steps, features, hidden, seed, chunk, begun
):
    torch.manual_seed(seed)
    layer = torchs(features, hidden, batch_first=True).double()
    x = torch.randn(batch, steps, features, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(batch, steps, hidden, dtype=torch.float64)
    h_0 = torch.randn(batch, hidden, dtype=torch.float64, requires_grad=True) if begun else None
    inputs = [x, *([] if h_0 is None else [h_0]), *layer.parameters()]
    expected = layer(x, None if h_0 is None else h_0[None])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrences, "CHUNK", chunk)  # steps prepared together, from one to all
        found = ours.apply(x, h_0, *layer.all_weights[0])
        torch.testing.assert_close(found, expected, **EXACT)
        pairs = zip(
            gradients(found, inputs, weight), gradients(expected, inputs, weight), strict=True
        )
        for ours_, torchs_ in pairs:
            torch.testing.assert_close(ours_, torchs_, **EXACT)


@given(batch=SIZES, steps=st.integers(1, 40), hidden=SIZES, seed=SEEDS, begun=st.booleans())
@settings(max_examples=40, deadline=None)
def test_linear_recurrence_equals_the_plain_loop(batch, steps, hidden, seed, begun):
    torch.manual_seed(seed)
    inputs = [
        torch.randn(steps, batch, hidden, dtype=torch.float64, requires_grad=True) for _ in range(2)
    ]
    weight = torch.randn(steps, batch, hidden, dtype=torch.float64)
    if begun:  # a step before the first: a gate wide open for h_0
        h_0 = torch.randn(batch, hidden, dtype=torch.float64, requires_grad=True)
        found = LinearRecurrence.apply(*inputs, h_0)
        open_, whole = torch.full_like(inputs[0][:1], 1e9), [torch.cat([h_0[None], inputs[1]])]
        expected = step_by_step(torch.cat([open_, inputs[0]]), *whole)[1:]
        inputs.append(h_0)
    else:
        found, expected = LinearRecurrence.apply(*inputs, None), step_by_step(*inputs)
    torch.testing.assert_close(found, expected, **EXACT)
    pairs = zip(gradients(found, inputs, weight), gradients(expected, inputs, weight), strict=True)
    for ours, loops in pairs:
        torch.testing.assert_close(ours, loops, **EXACT)


@given(steps=st.integers(0, 40), seed=SEEDS, reverse=st.booleans())
@settings(max_examples=40, deadline=None)
def test_scan_equals_its_definition(steps, seed, reverse):
    torch.manual_seed(seed)
    a, b = torch.randn(steps, 3, dtype=torch.float64), torch.randn(steps, 3, dtype=torch.float64)
    first = torch.randn(3, dtype=torch.float64)
    state, expected = first, torch.empty_like(b)
    for t in reversed(range(steps)) if reverse else range(steps):
        expected[t] = state = a[t] * state + b[t]
    torch.testing.assert_close(scan(a, b, first, reverse=reverse), expected, rtol=1e-10, atol=1e-10)


def test_scan_is_exact_in_float32_over_thousands_of_steps():
    """As close to float64 as the plain loop in float32 is: gates near 0 and near 1, which log space would lose."""
    torch.manual_seed(0)
    gate, value = 6 * torch.randn(5000, 2, 8), torch.randn(5000, 2, 8)
    truth = step_by_step(gate.double(), value.double())
    errors = [
        float((h - truth).abs().max())
        for h in (LinearRecurrence.apply(gate, value, None), step_by_step(gate, value))
    ]
    assert errors[0] < 2 * errors[1] < 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_training_and_evaluation_agree(cell):
    torch.manual_seed(0)
    layer, x = RecurrentLayer(cell, 3, 8), torch.randn(4, 50, 3)
    with torch.no_grad():
        evaluated = layer(x)
    torch.testing.assert_close(layer(x).detach(), evaluated, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_trains(cell):
    torch.manual_seed(0)
    layer, x = RecurrentLayer(cell, 3, 8), torch.randn(4, 20, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    output.float().sum().backward()
    exact = layer(x)
    torch.testing.assert_close(output.float(), exact, rtol=0, atol=0.05)
    assert all(torch.isfinite(weight.grad).all() for weight in layer.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_mingru_is_exported_for_any_number_of_steps():
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    layer, file = MinGRU(3, 4).eval(), io.BytesIO()
    axes = {"x": {0: "B", 1: "T"}}
    torch.onnx.export(
        layer, (torch.randn(2, 7, 3),), file, input_names=["x"], dynamic_axes=axes, dynamo=False
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    for batch, steps in ((1, 1), (3, 2), (2, 50)):
        x = torch.randn(batch, steps, 3)
        (found,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), layer(x).detach(), rtol=0, atol=1e-6)
