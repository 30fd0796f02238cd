"""Gradient flow against cells of torch, unrolled by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.evaluation.gradient_flow import (
    CANDIDATES,
    GATES,
    attribute,
    horizon,
    measure_gradient_flow,
)
from lightning_rnn.models.network import NetworkOptions, SequenceNetwork
from lightning_rnn.padding import Padding

CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}


def make(lengths=(7, 5, 7, 2), num_features=3, **options):
    torch.manual_seed(1)
    options = NetworkOptions(hidden_size=6, **options)
    network = SequenceNetwork(input_size=num_features, num_classes=2, options=options)
    lengths = torch.tensor(lengths)
    x = torch.randn(len(lengths), int(lengths.max()), num_features)
    x = x.masked_fill((torch.arange(x.shape[1]) >= lengths[:, None])[..., None], 0.0)
    index = torch.arange(len(lengths))
    return network, SequenceBatch(x, Padding.of(lengths, x.shape[1]), index % 2, index)


class MinGRUCell(nn.Module):
    """One step, from the equations."""

    def __init__(self, layer):
        super().__init__()
        self.linear = layer.linear

    def forward(self, x, h):
        gate, value = self.linear(x).chunk(2, dim=1)
        return (1 - gate.sigmoid()) * h + gate.sigmoid() * value


def cell_of(layer, name):
    """A cell of torch with a layer's weights, in double precision."""
    if name == "mingru":
        return MinGRUCell(layer.layer).double()
    cell = CELLS[name](layer.layer.input_size, layer.layer.hidden_size).double()
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, kind).data.copy_(getattr(layer.layer, f"{kind}_l0"))
    return cell


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "mingru"])
def test_state_gradients_equal_autograds_on_an_unrolled_cell(name, pooling):
    network, batch = make(cell=name, num_layers=2, pooling=pooling)
    cells = [cell_of(layer, name) for layer in network.recurrent.forward_layers]
    weight, bias = network.head.weight.double(), network.head.bias.double()
    norms = {}  # (layer, steps back): one a sequence
    for x, length, y in zip(batch.x.double(), batch.lengths.tolist(), batch.y, strict=True):
        states = []
        inputs = [x_t[None] for x_t in x[:length]]
        for cell in cells:
            zero = torch.zeros(1, 6, dtype=torch.float64)
            state, run = ((zero, zero) if name == "lstm" else zero), []
            for x_t in inputs:
                state = cell(x_t, state)
                run.append(state if name == "lstm" else (state,))
            states.append(run)
            inputs = [s[0] for s in run]
        logit = (inputs[-1] @ weight.t() + bias)[0, 0]
        loss = binary_cross_entropy_with_logits(logit, y.double())
        for i, run in enumerate(states):
            for t, state in enumerate(run):
                grads = torch.autograd.grad(loss, state, retain_graph=True, allow_unused=True)
                norm = sum(g.square().sum() for g in grads if g is not None).sqrt()
                norms.setdefault((i, length - 1 - t), []).append(norm)
    found = measure_gradient_flow(network, batch).gradients
    assert set(found) == {"layer0", "layer1"}
    for i in (0, 1):
        wanted = torch.stack([torch.stack(norms[i, back]).mean() for back in range(7)])
        torch.testing.assert_close(found[f"layer{i}"], wanted, rtol=1e-5, atol=0)


def test_the_backward_direction_counts_from_the_start():
    """Reading a mirrored sequence, it does what the forward direction does on the sequence."""
    network, batch = make(cell="lstm", bidirectional=True)
    layers = network.recurrent
    layers.backward_layers[0].load_state_dict(layers.forward_layers[0].state_dict())
    with torch.no_grad():
        network.head.weight.copy_(network.head.weight[:, :6].repeat(1, 2))
    x = batch.x.clone()
    for i, length in enumerate(batch.lengths.tolist()):
        x[i, :length] = batch.x[i, :length].flip(0)
    one, other = (
        measure_gradient_flow(network, batch),
        measure_gradient_flow(network, replace(batch, x=x)),
    )
    torch.testing.assert_close(one.gradients["layer0"], other.gradients["layer0_backward"])
    torch.testing.assert_close(one.gradients["layer0_backward"], other.gradients["layer0"])


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gate_saturation(name):
    network, batch = make(cell=name, lengths=(5, 3), initialization="torch")
    found = measure_gradient_flow(network, batch).saturation
    assert set(found) == {f"layer0/{gate}" for gate in GATES[name] if gate not in CANDIDATES}
    layer = network.recurrent.forward_layers[0].layer
    with torch.no_grad():
        layer.bias_ih_l0[:6] += 50  # the first gate: input or reset
    first = next(iter(found))
    changed = measure_gradient_flow(network, batch).saturation
    assert changed[first] == 1.0
    assert found[first] < 0.5
    assert not measure_gradient_flow(*make(cell="rnn")).saturation


def test_attribution_adds_up_for_a_linear_decision():
    """With states far from saturation the logit is linear in the contributions of the steps."""
    network, batch = make(cell="rnn", pooling="mean")
    with torch.no_grad():
        for p in network.recurrent.parameters():
            p.mul_(1e-3 if p.ndim == 2 else 0)
        network.head.bias.zero_()
    found = attribute(network, batch)
    logits = network(batch.x, batch.lengths).detach().abs().double()
    torch.testing.assert_close(found.sum(1), logits, rtol=1e-3, atol=0)
    assert found[3, 2:].abs().max() == 0  # after the end


def test_the_network_stays_as_it_is():
    network, batch = make(cell="gru", dropout=0.5, stem="conv", lengths=(30, 9))
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    first, second = measure_gradient_flow(network, batch), measure_gradient_flow(network, batch)
    added = attribute(network, batch)
    assert torch.equal(first.gradients["layer0"], second.gradients["layer0"])  # no dropout
    assert len(first.gradients["layer0"]) == 32
    assert added.shape == (2, 30)
    assert network.training
    assert network.options.pooling == "last"
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_horizon():
    assert horizon(torch.tensor([1.0, 0.5, 0.02, 0.009, 0.5])) == 3
    assert horizon(torch.tensor([0.001, 1.0, 0.5])) == 3  # never below 1 % after its maximum
    assert horizon(torch.tensor([1.0])) == 1
    assert horizon(torch.zeros(5)) == 0


def test_frozen_weights_do_not_matter():
    network, batch = make(cell="gru", stem="conv")
    expected = measure_gradient_flow(network, batch)
    network.freeze()
    gradients = measure_gradient_flow(network, batch).gradients
    assert gradients.keys() == expected.gradients.keys()
    for name, curve in gradients.items():
        assert torch.equal(curve, expected.gradients[name])
