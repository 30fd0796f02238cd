"""Recurrent layers against torch's cells and layers, and the operations on padded batches."""

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from lightning_rnn.models import padding as padding_module
from lightning_rnn.models.padding import Segment, cut, flip_sequences, last_step, valid_steps
from lightning_rnn.models.recurrent import (
    CELLS,
    LockedDropout,
    RecurrentLayer,
    RecurrentStack,
    side_by_side,
)
from lightning_rnn.padding import Padding


class SlowMinGRUCell(nn.Module):
    """Feng et al. 2024, section 3.1, as it is written there."""

    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, 2 * hidden)

    def forward(self, x, h):
        gate, candidate = self.linear(x).chunk(2, dim=-1)
        z = torch.sigmoid(gate)
        return (1 - z) * (0 if h is None else h) + z * candidate


class SlowMinGRU(nn.Module):
    """As torch's layers over packed sequences, one sequence after the other."""

    def __init__(self, features, hidden, num_layers, *, batch_first, bidirectional):
        super().__init__()
        self.names = [
            [f"_l{i}{way}" for way in ("", "_reverse")[: 1 + bidirectional]]
            for i in range(num_layers)
        ]
        for i, ways in enumerate(self.names):
            for name in ways:
                self.add_module(name, nn.Linear(hidden * len(ways) if i else features, 2 * hidden))

    def forward(self, packed):
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        rows = []
        for row, length in zip(x, lengths.tolist(), strict=True):
            sequence = row[:length]
            for ways in self.names:
                outputs = []
                for way, name in enumerate(ways):
                    gate, candidate = self.get_submodule(name)(sequence).chunk(2, dim=-1)
                    h, states = torch.zeros_like(candidate[0]), {}
                    for t in reversed(range(length)) if way else range(length):
                        h = h + torch.sigmoid(gate[t]) * (candidate[t] - h)
                        states[t] = h
                    outputs.append(torch.stack([states[t] for t in range(length)]))
                sequence = torch.cat(outputs, dim=1)
            rows.append(sequence)
        return pack_sequence(rows, enforce_sorted=False), None


TORCH_CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell, "mingru": SlowMinGRUCell}
TORCH_LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU, "mingru": SlowMinGRU}
EXACT = {"rtol": 0.0, "atol": 1e-10}  # in float64
SIZES = st.integers(1, 5)
LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**31)


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


def test_every_cell_has_an_oracle():
    assert set(CELLS) == set(TORCH_CELLS) == set(TORCH_LAYERS)


@given(batch=SIZES, steps=SIZES, features=SIZES, hidden=SIZES, seed=SEEDS)
@settings(max_examples=15)
@pytest.mark.parametrize("cell", CELLS)
def test_both_forms_equal_torchs_cell(cell, batch, steps, features, hidden, seed):
    torch.manual_seed(seed)
    layer = RecurrentLayer(cell, features, hidden).double()
    reference = TORCH_CELLS[cell](features, hidden).double()
    reference.load_state_dict(
        {name.removesuffix("_l0"): w for name, w in layer.layer.state_dict().items()}
    )
    x = torch.randn(batch, steps, features, dtype=torch.float64)

    whole = layer(x)[0]
    assert whole.shape == (batch, steps, hidden)
    state, expected = layer.initial_state(x), None  # torch's cells start from zeros by themselves
    for t in range(steps):
        state = layer.step(x[:, t], state)
        expected = reference(x[:, t], expected)
        h = expected[0] if cell == "lstm" else expected
        torch.testing.assert_close(state[0], h, **EXACT)
        torch.testing.assert_close(whole[:, t], h, **EXACT)
    if cell == "lstm":
        torch.testing.assert_close(state[1], expected[1], **EXACT)


def test_initial_state_is_zero(cell):
    state = (
        RecurrentLayer(cell, 3, 4).double().initial_state(torch.ones(2, 5, 3, dtype=torch.float64))
    )
    assert len(state) == (2 if cell == "lstm" else 1)
    for part in state:
        assert part.dtype == torch.float64
        assert part.tolist() == [[0.0] * 4] * 2


@given(
    lengths=LENGTHS
    | st.lists(st.integers(1, 12), min_size=4, max_size=9).map(lambda found: sorted(found)[::-1]),
    extra=st.integers(0, 3),
    seed=SEEDS,
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_stack_equals_torch_on_packed_sequences(
    monkeypatch, cell, num_layers, bidirectional, lengths, extra, seed
):
    torch.manual_seed(seed)
    monkeypatch.setattr(padding_module, "SEGMENT_OVERHEAD", 0)
    stack = RecurrentStack(
        cell, 2, 3, num_layers=num_layers, bidirectional=bidirectional, dropout=0.0
    ).double()
    reference = TORCH_LAYERS[cell](
        2, 3, num_layers, batch_first=True, bidirectional=bidirectional
    ).double()
    weights = {}
    for layers, suffix in ((stack.forward_layers, ""), (stack.backward_layers, "_reverse")):
        for i, layer in enumerate(layers):
            weights |= {
                re.sub("linear|_l0", f"_l{i}{suffix}", name): w
                for name, w in layer.layer.state_dict().items()
            }
    reference.load_state_dict(weights)
    lengths = torch.tensor(lengths)
    x = torch.randn(len(lengths), int(lengths.max()) + extra, 2, dtype=torch.float64)
    padding = Padding.of(lengths, x.shape[1])

    output = side_by_side(stack(x, padding), padding)
    packed, _ = reference(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    assert output.shape == expected.shape == (*x.shape[:2], stack.output_size)
    inside = valid_steps(lengths, x.shape[1])
    torch.testing.assert_close(output[inside], expected[inside], **EXACT)
    last = torch.cat([last_step(states, padding) for states in stack(x, padding)], dim=1)
    backward = expected[:, 0, 3:]  # has read the sequence when it is at its first step
    of_torch = torch.cat([last_step(expected[..., :3], padding), backward], dim=1)
    torch.testing.assert_close(last, of_torch, **EXACT)
    (output[inside].square().sum() + last.pow(3).sum()).backward()
    (expected[inside].square().sum() + of_torch.pow(3).sum()).backward()
    gradients = {name: weight.grad for name, weight in reference.named_parameters()}
    for layers, suffix in ((stack.forward_layers, ""), (stack.backward_layers, "_reverse")):
        for i, layer in enumerate(layers):
            for name, weight in layer.layer.named_parameters():
                name = re.sub("linear|_l0", f"_l{i}{suffix}", name)
                torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-9, atol=1e-11)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=70),
    extra=st.integers(0, 3),
    hidden=st.integers(1, 999),
)
@settings(max_examples=100)
def test_segments_hold_every_step_of_every_sequence(lengths, extra, hidden):
    lengths = torch.tensor(lengths).sort(descending=True).values
    width = int(lengths.max()) + extra
    covered = torch.zeros(len(lengths), width, dtype=torch.bool)
    stop = 0
    for segment in cut(Padding.of(lengths, width), width, hidden):
        assert stop == segment.start < segment.stop
        stop = segment.stop
        covered[: segment.count, segment.start : segment.stop] = True
    assert covered[valid_steps(lengths, width)].all()


def test_a_batch_with_much_padding_is_cut():
    lengths = torch.arange(92, 5, -2)
    assert cut(Padding(lengths), 92, 64) == [Segment(0, 48, 44), Segment(48, 92, 22)]
    three = torch.tensor([50] * 16 + [40] * 16 + [20] * 16)
    expected = [Segment(0, 20, 48), Segment(20, 40, 32), Segment(40, 50, 16)]
    assert cut(Padding(three), 50, 64) == expected
    twice = lengths.repeat_interleave(2)
    segments = cut(Padding(twice), 92, 64)
    assert len(segments) == 4
    steps = sum((segment.stop - segment.start) * segment.count for segment in segments)
    assert int(twice.sum()) < steps < 0.75 * 92 * len(twice)


@pytest.mark.parametrize(("padding", "hidden_size"), [
    (Padding(torch.arange(6, 93, 2)), 64),  # not sorted
    (Padding(torch.full((44,), 92)), 64),  # equal lengths
    (Padding(torch.arange(92, 5, -2)), 8),  # too small to pay off
    (Padding(torch.full((44,), 92), is_full=True), 64),
])  # fmt: skip
def test_other_batches_are_not_cut(padding, hidden_size):
    assert cut(padding, 92, hidden_size) == [Segment(0, 92, 44)]


def test_locked_dropout_keeps_one_mask_for_all_steps():
    torch.manual_seed(0)
    x = torch.randn(200, 7, 10).abs() + 0.1
    dropped = LockedDropout(0.25)(x)
    factor = dropped / x  # 0 or 1 / (1 - p)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert set(factor.mul(0.75).round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert (factor[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert 0 < (factor[0, 0] == 0).sum() < 10  # channels of one sequence differ
    assert torch.equal(LockedDropout(0.25).eval()(x), x)
    assert torch.equal(LockedDropout(0.0)(x), x)


def test_stack_drops_only_the_input_of_higher_layers():
    torch.manual_seed(0)
    x, lengths = torch.randn(4, 5, 2), Padding(torch.full((4,), 5), is_full=True)
    one = RecurrentStack("gru", 2, 8, num_layers=1, bidirectional=False, dropout=0.5)
    assert torch.equal(*one(x, lengths), *one(x, lengths))
    two = RecurrentStack("gru", 2, 8, num_layers=2, bidirectional=False, dropout=0.5)
    assert not torch.allclose(*two(x, lengths), *two(x, lengths))
    two.eval()
    assert torch.equal(*two(x, lengths), *two(x, lengths))


@given(lengths=LENGTHS, extra=st.integers(0, 3), seed=SEEDS)
@settings(max_examples=30)
def test_masking_equals_slow_reference(lengths, extra, seed):
    torch.manual_seed(seed)
    width = max(lengths) + extra
    x = torch.randn(len(lengths), width, 2)
    padding = Padding.of(torch.tensor(lengths), width)
    mask = valid_steps(padding.lengths, width)
    flipped = flip_sequences(x, padding)
    last = last_step(x, padding)
    for i, length in enumerate(lengths):
        assert mask[i].tolist() == [t < length for t in range(width)]
        for t in range(width):
            assert flipped[i, t].tolist() == x[i, length - 1 - t if t < length else t].tolist()
        assert last[i].tolist() == x[i, length - 1].tolist()
