"""Starting weights: their statistics, and that they make long lags learnable."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_rnn import SequenceNetwork, SyntheticDataModule
from lightning_rnn.errors import OptionError
from lightning_rnn.models.initialization import RNN_INPUT_SCALE, UNKNOWN_SPAN, start_bias
from lightning_rnn.models.network import NetworkOptions
from lightning_rnn.models.recurrent import CELLS

GATES = {"rnn": 1, "lstm": 4, "gru": 3, "mingru": 2}


def network(cell, input_size=2, seed=0, **options):
    torch.manual_seed(seed)
    options = NetworkOptions(cell=cell, **{"hidden_size": 24} | options)
    return SequenceNetwork(input_size=input_size, num_classes=3, options=options)


def layers(net):
    return [*net.recurrent.forward_layers, *net.recurrent.backward_layers]


def biases(layer):
    """Return the sum of the biases of each gate, since torch's layers have two of them."""
    if layer.cell == "mingru":
        return layer.layer.linear.bias.chunk(2)
    total = layer.layer.bias_ih_l0 + layer.layer.bias_hh_l0
    return total.chunk(GATES[layer.cell])


def timescales(layer):
    """Return after how many steps a unit forgets, and the biases of the other gates."""
    gates = biases(layer)
    if layer.cell == "lstm":
        assert torch.equal(gates[0], -gates[1])
        kept, others = gates[1].sigmoid(), gates[2:]
    elif layer.cell == "gru":  # torch's update gate keeps the state
        kept, others = gates[1].sigmoid(), (gates[0], gates[2])
    else:  # the gate of mingru replaces the state
        kept, others = 1 - gates[0].sigmoid(), gates[1:]
    return 1 / (1 - kept), others


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_weights_of_each_gate_layer_and_direction(cell, bidirectional):
    net = network(cell, num_layers=2, bidirectional=bidirectional)
    assert len(layers(net)) == (4 if bidirectional else 2)
    for layer in layers(net):
        for name, weight in layer.layer.named_parameters():
            for matrix in weight.chunk(GATES[cell]) if weight.ndim == 2 else ():
                if "weight_hh" in name:
                    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(24))
                    continue
                bound = math.sqrt(6 / sum(matrix.shape))
                bound *= RNN_INPUT_SCALE if cell == "rnn" else 1.0
                assert 0.8 * bound < matrix.abs().max() <= bound
                expected = torch.tensor(bound / math.sqrt(3))
                torch.testing.assert_close(matrix.std(), expected, rtol=0.25, atol=0)
    assert torch.count_nonzero(net.head.bias) == 0


@pytest.mark.parametrize("cell", ["lstm", "gru", "mingru"])
@pytest.mark.parametrize("span", [1, 2, 3, 10, 500])
def test_gates_remember_from_two_steps_to_the_span(cell, span):
    for layer in layers(network(cell, num_layers=2, bidirectional=True, memory_span=span)):
        found, others = timescales(layer)
        quantiles = (torch.arange(24) + 0.5) / 24
        expected = 2 + quantiles * max(span - 2, 0)  # evenly spaced from 2 to the span
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
        assert all(torch.count_nonzero(bias) == 0 for bias in others)


def test_biases_have_the_published_distribution():
    b = start_bias("gru", 1000, span=50).chunk(3)[1]
    drawn = torch.empty(100_000).uniform_(1, 49).log()  # Tallec and Ollivier 2018, equation 16
    levels = torch.linspace(0.01, 0.99, 50)
    torch.testing.assert_close(b.quantile(levels), drawn.quantile(levels), rtol=0.05, atol=0.1)


def test_rotations_of_a_vanilla_rnn():
    matrix = layers(network("rnn", hidden_size=25))[0].layer.weight_hh_l0
    angles = torch.linalg.eigvals(matrix).angle().abs()
    assert math.pi / 4 < angles.max() < math.pi / 2
    assert 0 < angles[:24].min() < math.pi / 4
    assert matrix[24, 24] == 1  # an odd unit


@pytest.mark.parametrize("cell", CELLS)
def test_torchs_own_start(cell):
    net = network(cell, initialization="torch", memory_span=7)
    torch.manual_seed(0)
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell)
    if kind is None:
        assert torch.count_nonzero(layers(net)[0].layer.linear.bias) == 48
        return
    expected = kind(2, 24).state_dict()
    for name, weight in layers(net)[0].layer.state_dict().items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("cell", CELLS)
def test_draws_come_from_the_global_generator(cell):
    first = network(cell).state_dict()
    again = network(cell).state_dict()
    other = network(cell, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
def test_a_later_span_equals_an_earlier_one(cell, stem):
    net = network(cell, stem=stem)
    net.set_memory_span(37)
    expected = network(cell, stem=stem, memory_span=37)
    assert net.options == expected.options
    for name, weight in expected.state_dict().items():
        assert torch.equal(net.state_dict()[name], weight), name


@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
def test_the_span_counts_steps_behind_the_stem(stem):
    found, _ = timescales(layers(network("gru", stem=stem, memory_span=400))[0])
    assert found.max() < (400 if stem == "none" else 100) <= found.max() * 1.1


def test_without_a_span_it_is_100():
    assert UNKNOWN_SPAN == 100
    expected = network("lstm", memory_span=100).state_dict()
    for name, weight in network("lstm").state_dict().items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("initialization", ["chrono", "torch"])
def test_trained_weights_stay(initialization):
    net = network("lstm", initialization=initialization)
    with torch.no_grad():
        layers(net)[0].layer.bias_ih_l0[3] += 0.1
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    net.set_memory_span(7)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("initialization", ["chrono", "torch"])
def test_long_lags_can_be_learned(cell, initialization):
    """The first of 31 steps decides: 60 steps of training suffice, but not with torch's start."""
    torch.manual_seed(0)
    options = NetworkOptions(cell=cell, initialization=initialization, memory_span=31)
    net = SequenceNetwork(input_size=1, num_classes=2, options=options)
    data = SyntheticDataModule(task="delayed_recall", length=30, num_train=32 * 60, num_val=500)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for batch in data.train_dataloader():
        logits = net(batch.x, batch.padding)
        loss = binary_cross_entropy_with_logits(logits, batch.y.float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    val = data.split("val").batch(torch.arange(500))
    with torch.no_grad():
        accuracy = ((net(val.x, val.padding) > 0) == val.y).float().mean()
    if initialization == "chrono":
        assert accuracy > 0.95
    else:
        assert accuracy < 0.65


def test_options_out_of_range_are_refused():
    with pytest.raises(OptionError, match=r"^initialization: expected chrono or torch, got"):
        network("rnn", initialization="zeros")
    with pytest.raises(
        OptionError, match=r"^memory_span: expected an integer of at least 1, got 0"
    ):
        network("rnn", memory_span=0)
