"""The network: padding changes nothing, whatever the combination, in evaluation and in training."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_rnn.errors import OptionError
from lightning_rnn.models.network import NetworkOptions, SequenceNetwork
from lightning_rnn.padding import Padding

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # in float64
COMBINATIONS = list(
    product(
        ("rnn", "lstm", "gru"), (1, 2), (False, True), ("last", "mean", "max"), ("none", "conv")
    )
) + list(product(("lstm", "gru"), (1,), (False, True), ("last", "mean", "max"), ("inception",)))
combinations = pytest.mark.parametrize(
    ("cell", "num_layers", "bidirectional", "pooling", "stem"), COMBINATIONS
)
GARBAGE = (math.nan, 1e30, -1e30, math.inf)


def network(seed, *, num_classes=2, hidden_size=3, **options):
    """A small float64 network with input size 2, whose buffers differ from their initial values."""
    torch.manual_seed(seed)
    options = NetworkOptions(hidden_size=hidden_size, **options)
    net = SequenceNetwork(input_size=2, num_classes=num_classes, options=options).double()
    net.preprocess.set_moments(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.7]))
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    for name, parameter in net.named_parameters():
        if "norm" in name and name.endswith("bias"):
            # a channel of equal values would be at the kink of the ReLU but for rounding errors
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    return net


@st.composite
def ragged(draw):
    """A list of (T_i, 2) float64 arrays with some values missing, and widths to pad them by."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    share = draw(st.sampled_from((0.0, 0.3, 1.0)))
    rows = [rng.normal(size=(length, 2)) for length in lengths]
    return [np.where(rng.random(row.shape) < share, np.nan, row) for row in rows], draw(
        st.integers(1, 9)
    )


def pad(rows, extra, garbage):
    lengths = torch.tensor([len(row) for row in rows])
    x = torch.full(
        (len(rows), int(lengths.max()) + extra, rows[0].shape[1]), garbage, dtype=torch.float64
    )
    for i, row in enumerate(rows):
        x[i, : len(row)] = torch.from_numpy(row)
    return x, lengths


@combinations
@given(batch=ragged(), num_classes=st.sampled_from((2, 3)), garbage=st.sampled_from(GARBAGE))
@settings(max_examples=5)
def test_logits_do_not_depend_on_company_or_padding(
    cell, num_layers, bidirectional, pooling, stem, batch, num_classes, garbage
):
    rows, extra = batch
    options = {
        "cell": cell,
        "num_layers": num_layers,
        "bidirectional": bidirectional,
        "pooling": pooling,
    }
    net = network(0, stem=stem, num_classes=num_classes, dropout=0.3, **options).eval()
    with torch.no_grad():
        alone = torch.cat([net(*pad([row], 0, 0.0)) for row in rows])
        assert alone.shape == ((len(rows),) if num_classes == 2 else (len(rows), 3))
        assert alone.isfinite().all()
        for width in (0, extra):
            torch.testing.assert_close(net(*pad(rows, width, garbage)), alone, **EXACT)


def train_step(net, x, lengths, y, seed):
    """Loss, gradients and buffers of one step of training, from a copy of the buffers."""
    torch.manual_seed(seed)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train().zero_grad()
    logits = net(x, lengths)
    loss = (
        binary_cross_entropy_with_logits(logits, y.double())
        if logits.ndim == 1
        else cross_entropy(logits, y)
    )
    loss.backward()
    result = {
        "loss": loss.detach(),
        **{f"grad {n}": p.grad.clone() for n, p in net.named_parameters()},
    }
    result |= {name: buffer.clone() for name, buffer in net.named_buffers()}
    for name, buffer in net.named_buffers():
        buffer.copy_(before[name])
    return result


@combinations
@given(
    batch=ragged(),
    num_classes=st.sampled_from((2, 3)),
    dropout=st.sampled_from((0.0, 0.4)),
    seed=st.integers(0, 99),
)
@settings(max_examples=5)
def test_training_does_not_depend_on_padding(
    cell, num_layers, bidirectional, pooling, stem, batch, num_classes, dropout, seed
):
    rows, extra = batch
    num_classes = 2 + seed % 2
    options = {
        "cell": cell,
        "num_layers": num_layers,
        "bidirectional": bidirectional,
        "pooling": pooling,
    }
    net = network(1, stem=stem, num_classes=num_classes, dropout=dropout, **options)
    y = torch.arange(len(rows)) % num_classes
    narrow = train_step(net, *pad(rows, 0, 0.0), y, seed)
    assert all(value.isfinite().all() for value in narrow.values())
    assert narrow["grad head.weight"].shape == net.head.weight.shape
    wide = train_step(net, *pad(rows, extra, GARBAGE[seed % 4]), y, seed)
    torch.testing.assert_close(wide, narrow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
def test_a_training_step_reaches_every_weight_and_statistic(stem):
    """Keeps the test above from comparing nothing."""
    net = network(2, stem=stem, num_layers=2, bidirectional=True, pooling="mean", cell="lstm")
    rows = [np.random.default_rng(i).normal(size=(9 + i, 2)) for i in range(4)]
    result = train_step(net, *pad(rows, 0, 0.0), torch.tensor([0, 1, 0, 1]), 0)
    assert all(result[f"grad {name}"].abs().max() > 1e-8 for name, _ in net.named_parameters())
    moved = [name for name, buffer in net.named_buffers() if not torch.equal(buffer, result[name])]
    assert len(moved) == {"none": 0, "conv": 4, "inception": 8}[stem]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_acts_in_training_only(dropout):
    net = network(3, dropout=dropout, hidden_size=32)
    x, lengths = torch.randn(4, 5, 2, dtype=torch.float64), torch.full((4,), 5)
    assert torch.equal(net.train()(x, lengths), net(x, lengths)) == (dropout == 0.0)
    assert torch.equal(net.eval()(x, lengths), net(x, lengths))


@given(batch=ragged())
@settings(max_examples=15)
def test_bidirectional_lstm_equals_torch_on_packed_sequences(batch):
    rows = [np.nan_to_num(row) for row in batch[0]]
    net = network(4, cell="lstm", bidirectional=True, num_layers=2, num_classes=3)
    net.preprocess.set_moments(torch.zeros(2), torch.ones(2))
    reference = nn.LSTM(2, 3, 2, batch_first=True, bidirectional=True).double()
    weights = {}
    for layers, suffix in (
        (net.recurrent.forward_layers, ""),
        (net.recurrent.backward_layers, "_reverse"),
    ):
        for i, layer in enumerate(layers):
            weights |= {
                name.replace("_l0", f"_l{i}{suffix}"): w
                for name, w in layer.layer.state_dict().items()
            }
    reference.load_state_dict(weights)
    x, lengths = pad(rows, 0, 0.0)
    _, (h, _) = reference(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    expected = net.head(
        torch.cat([h[-2], h[-1]], dim=1)
    )  # the top layer's last state of each direction
    torch.testing.assert_close(net(x, lengths), expected, **EXACT)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_pooling_equals_slow_reference(pooling, bidirectional):
    torch.manual_seed(0)
    options = NetworkOptions(hidden_size=4, pooling=pooling, bidirectional=bidirectional)
    net = SequenceNetwork(input_size=2, num_classes=2, options=options)
    x, lengths = torch.randn(3, 6, 2), torch.tensor([6, 1, 3])
    padding = Padding(lengths)
    pooled = {"last": lambda s: s[-1], "mean": lambda s: s.mean(0), "max": lambda s: s.amax(0)}[
        pooling
    ]
    directions = net.recurrent(x, padding)
    expected = torch.cat(
        [
            torch.stack([pooled(states[i, :length]) for i, length in enumerate(lengths)])
            for states in directions
        ],
        dim=1,
    )
    assert (expected[1:] < 0).any()  # where zeros in padding would win
    torch.testing.assert_close(net.pool(x, padding), expected)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_a_second_direction_reads_the_sequence_mirrored(pooling):
    both = network(4, bidirectional=True, num_layers=1, pooling=pooling)
    one = network(4, num_layers=1, pooling=pooling)
    one.recurrent.forward_layers.load_state_dict(both.recurrent.backward_layers.state_dict())
    with torch.no_grad():
        both.head.weight[:, : one.head.in_features] = 0
        one.head.weight.copy_(both.head.weight[:, one.head.in_features :])
        one.head.bias.copy_(both.head.bias)
    rows = [np.random.default_rng(n).normal(size=(n, 2)) for n in (4, 2, 7)]
    mirrored = pad([row[::-1].copy() for row in rows], 0, 0.0)
    torch.testing.assert_close(both(*pad(rows, 0, 0.0)), one(*mirrored), **EXACT)


def test_takes_raw_values():
    """Standardised values in a network without moments are raw values in one with them."""
    net, plain = network(5), network(5)
    plain.preprocess.set_moments(torch.zeros(2), torch.ones(2))
    x, lengths = pad([np.random.default_rng(0).normal(size=(n, 2)) for n in (4, 2)], 0, 0.0)
    standardised = (x - net.preprocess.mean) / net.preprocess.std
    torch.testing.assert_close(net(x, lengths), plain(standardised, lengths), **EXACT)
    assert not torch.allclose(net(x, lengths), plain(x, lengths))


@pytest.mark.parametrize(("num_classes", "outputs"), [(2, 1), (3, 3), (7, 7)])
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes(num_classes, outputs, batch):
    net = SequenceNetwork(input_size=2, num_classes=num_classes)
    logits = net(torch.randn(batch, 4, 2), torch.full((batch,), 4))
    assert logits.shape == ((batch,) if num_classes == 2 else (batch, num_classes))
    assert net.head.out_features == outputs
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(("sizes", "message"), [
    ({"input_size": 0}, "input_size: expected an integer of at least 1, got 0"),
    ({"num_classes": 1}, "num_classes: expected an integer of at least 2, got 1"),
])  # fmt: skip
def test_size_errors(sizes, message):
    with pytest.raises(OptionError) as caught:
        SequenceNetwork(**{"input_size": 1, "num_classes": 2} | sizes)
    assert str(caught.value) == message


@pytest.mark.parametrize(("option", "value", "expected"), [
    ("cell", "elman", "one of rnn, lstm, gru, mingru, got 'elman'"),
    ("hidden_size", 0, "an integer of at least 1, got 0"),
    ("num_layers", 0, "an integer of at least 1, got 0"),
    ("dropout", 1.0, "a number of at least 0 and below 1, got 1.0"),
    ("dropout", -0.1, "a number of at least 0 and below 1, got -0.1"),
    ("pooling", "sum", "one of last, mean, max, got 'sum'"),
    ("stem", "fft", "one of none, conv, inception, got 'fft'"),
])  # fmt: skip
def test_option_errors(option, value, expected):
    with pytest.raises(OptionError) as caught:
        NetworkOptions(**{option: value})
    assert str(caught.value) == f"{option}: expected {expected}"


@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
def test_lengths_and_their_padding_give_the_same_logits(stem):
    net = network(6, stem=stem, cell="lstm", num_layers=2, bidirectional=True, pooling="mean")
    for lengths in ([9, 9, 9], [9, 2, 5]):
        x = torch.randn(3, 9, 2, dtype=torch.float64)
        tensor = torch.tensor(lengths)
        unknown = Padding(tensor, is_full=False)
        torch.testing.assert_close(net(x, unknown), net(x, tensor), **EXACT)


@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
def test_a_frozen_network_trains_its_heads_only(stem):
    net = network(0, cell="lstm", stem=stem, dropout=0.5)
    net.freeze()
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    x = torch.randn(5, 9, 2, dtype=torch.float64)
    lengths = torch.tensor([9, 4, 1, 9, 7])
    binary_cross_entropy_with_logits(net(x, lengths), torch.ones(5).double()).backward()
    optimizer.step()
    changed = {n for n, value in net.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {n for n in before if n.startswith(("head.", "summary_head."))}
    assert not torch.equal(net(x, lengths), net(x, lengths))  # the head has dropout
    assert torch.equal(net.embed(x, lengths), net.eval().embed(x, lengths))
