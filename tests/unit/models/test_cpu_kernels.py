"""The hand-written backward passes of RNN and GRU, against torch's own layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_rnn.models import cpu_kernels
from lightning_rnn.models.cpu_kernels import FastGRU, FastRNN, use_kernels
from lightning_rnn.models.network import NetworkOptions, SequenceNetwork
from lightning_rnn.models.recurrent import CELLS, RecurrentLayer

EXACT = {"rtol": 0.0, "atol": 1e-12}  # in float64
SIZES, SEEDS = st.integers(1, 5), st.integers(0, 2**31)


def kernel_names(output):
    """The autograd function that made an output, and those that made its inputs."""
    node, names = output.grad_fn, []
    while node is not None:
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    return " ".join(names)


def results(layer, x, h_0, weight):
    """Output, last state, and the gradients of the arguments and weights."""
    output, last = layer(x, None if h_0 is None else h_0[None])
    inputs = [x, *([] if h_0 is None else [h_0]), *layer.parameters()]
    loss = (output * weight).sum() + last.pow(3).sum()
    return [output, last, *torch.autograd.grad(loss, inputs)]


@given(
    batch=SIZES,
    steps=st.integers(1, 9),
    features=SIZES,
    hidden=SIZES,
    seed=SEEDS,
    chunk=st.sampled_from([1, 8, 999]),
    begun=st.booleans(),
)
@settings(max_examples=40)
@pytest.mark.parametrize("fast", [FastRNN, FastGRU])
def test_values_and_gradients_equal_torchs(
    fast, batch, steps, features, hidden, seed, chunk, begun
):
    torch.manual_seed(seed)
    layer = fast(features, hidden).double()
    x = torch.randn(batch, steps, features, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(batch, steps, hidden, dtype=torch.float64)
    h_0 = torch.randn(batch, hidden, dtype=torch.float64, requires_grad=True) if begun else None
    with use_kernels(False):
        expected = results(layer, x, h_0, weight)
    assert "Function" not in kernel_names(expected[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_kernels, "CHUNK_VALUES", chunk)  # chunks of one step up to all steps
        found = results(layer, x, h_0, weight)
    assert f"{fast.__name__[4:]}FunctionBackward" in kernel_names(found[0])
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize(("fast", "torchs"), [(FastRNN, nn.RNN), (FastGRU, nn.GRU)])
def test_the_fast_layers_are_torchs_layers(fast, torchs):
    """The same weights for a seed, the same state dict, and torch's values for packed sequences."""
    torch.manual_seed(0)
    ours = fast(2, 3)
    torch.manual_seed(0)
    reference = torchs(2, 3, batch_first=True)
    torch.testing.assert_close(ours.state_dict(), reference.state_dict(), rtol=0, atol=0)
    x = torch.randn(2, 4, 2)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True)
    assert torch.equal(ours(packed)[0].data, reference(packed)[0].data)
    assert torch.equal(ours(x[0])[0], reference(x[0])[0])


@pytest.mark.parametrize("cell", CELLS)
def test_hooks_of_the_layers_run(cell):
    """Pruning, for instance, replaces a weight before each call."""
    layer = RecurrentLayer(cell, 2, 4)
    calls = []
    layer.layer.register_forward_hook(lambda *args: calls.append(args))
    layer(torch.randn(1, 3, 2))
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # jvp
@pytest.mark.parametrize("cell", CELLS)
def test_without_kernels_everything_is_differentiable(cell):
    """Double backward, forward mode and torch.func."""
    torch.manual_seed(0)
    options = NetworkOptions(cell=cell, hidden_size=4)
    network = SequenceNetwork(input_size=2, num_classes=2, options=options).double()
    x, lengths = torch.randn(3, 5, 2, dtype=torch.float64), torch.tensor([5, 5, 5])

    def logits(x):
        return network(x, lengths)

    with use_kernels(False):
        assert torch.autograd.gradgradcheck(logits, x.clone().requires_grad_())
        gradient = torch.func.grad(lambda x: logits(x).sum())(x)
        tangent = torch.randn_like(x)
        _, slope = torch.func.jvp(logits, (x,), (tangent,))
        torch.testing.assert_close(slope.sum(), (gradient * tangent).sum())
    (expected,) = torch.autograd.grad(logits(x.requires_grad_()).sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_training_and_evaluation_agree(cell):
    torch.manual_seed(0)
    layer, x = RecurrentLayer(cell, 3, 8), torch.randn(4, 50, 3)
    with torch.no_grad():
        evaluated = layer(x)[0]
    torch.testing.assert_close(layer(x)[0].detach(), evaluated, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_trains(cell):
    torch.manual_seed(0)
    layer, x = RecurrentLayer(cell, 3, 8), torch.randn(4, 20, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)[0]
    output.float().sum().backward()
    exact = layer(x)[0]
    torch.testing.assert_close(output.float(), exact, rtol=0, atol=0.05)
    assert all(torch.isfinite(weight.grad).all() for weight in layer.parameters())
