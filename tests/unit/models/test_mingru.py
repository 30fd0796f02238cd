"""The minimal GRU's scan, against a plain loop."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.models.cpu_kernels import use_kernels
from lightning_rnn.models.mingru import MinGRU, Scan, scan, step_by_step

EXACT = {"rtol": 0.0, "atol": 1e-12}  # in float64
SIZES, SEEDS = st.integers(1, 5), st.integers(0, 2**31)


@given(batch=SIZES, steps=st.integers(1, 40), features=SIZES, hidden=SIZES, seed=SEEDS)
@settings(max_examples=40)
@pytest.mark.parametrize("begun", [False, True])
def test_values_and_gradients_equal_the_plain_loops(batch, steps, features, hidden, seed, begun):
    torch.manual_seed(seed)
    layer = MinGRU(features, hidden).double()
    x = torch.randn(batch, steps, features, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(batch, steps, hidden, dtype=torch.float64)
    inputs = [x, *layer.parameters()]
    hx = None
    if begun:
        hx = torch.randn(1, batch, hidden, dtype=torch.float64, requires_grad=True)
        inputs.append(hx)

    def results():
        output, last = layer(x, hx)
        loss = (output * weight).sum() + last.pow(3).sum()
        return [output, last, *torch.autograd.grad(loss, inputs)]

    with use_kernels(False):
        expected = results()
    torch.testing.assert_close(results(), expected, **EXACT)


@given(steps=st.integers(0, 40), seed=SEEDS)
@settings(max_examples=40)
def test_scan_equals_its_definition(steps, seed):
    torch.manual_seed(seed)
    a, b = torch.randn(steps, 3, dtype=torch.float64), torch.randn(steps, 3, dtype=torch.float64)
    first = torch.randn(3, dtype=torch.float64)
    state, expected = first, torch.empty_like(b)
    for t in range(steps):
        expected[t] = state = a[t] * state + b[t]
    torch.testing.assert_close(scan(a, b, first), expected, rtol=1e-10, atol=1e-10)


def test_scan_is_exact_in_float32_over_thousands_of_steps():
    """As close to float64 as the plain loop is, with gates near 0 and near 1."""
    torch.manual_seed(0)
    gate, value = 6 * torch.randn(5000, 2, 8), torch.randn(5000, 2, 8)
    zeros = torch.zeros(2, 8)
    truth = step_by_step(gate.double(), value.double(), zeros.double())
    error = float((Scan.apply(gate, value, zeros) - truth).abs().max())
    error_of_loop = float((step_by_step(gate, value, zeros) - truth).abs().max())
    assert error < 2 * error_of_loop < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_mingru_is_exported_for_any_number_of_steps():
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    layer, file = MinGRU(3, 4).eval(), io.BytesIO()
    axes = {"x": {0: "B", 1: "T"}}
    torch.onnx.export(
        layer,
        (torch.randn(2, 7, 3),),
        file,
        input_names=["x"],
        output_names=["h"],
        dynamic_axes=axes,
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    for batch, steps in ((1, 1), (3, 2), (2, 50)):
        x = torch.randn(batch, steps, 3)
        (found,) = session.run(["h"], {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), layer(x)[0].detach(), rtol=0, atol=1e-6)
