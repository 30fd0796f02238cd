"""Standardisation and missing values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_rnn.models.preprocess import Preprocess, fill_forward
from lightning_rnn.padding import Padding

NAN = math.nan


@st.composite
def gappy(draw):
    """(B, T, F) numbers with NaN among them, as nested lists."""
    shape = [draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.integers(1, 3))]
    cells = st.one_of(st.just(NAN), st.floats(-1e6, 1e6, width=32))
    flat = draw(st.lists(cells, min_size=math.prod(shape), max_size=math.prod(shape)))
    return torch.tensor(flat).view(shape)


def slow_fill(x):
    filled = x.clone()
    for i in range(x.shape[0]):
        for f in range(x.shape[2]):
            last = 0.0
            for t in range(x.shape[1]):
                value = float(x[i, t, f])
                last = last if math.isnan(value) else value
                filled[i, t, f] = last
    return filled


@given(x=gappy())
@settings(max_examples=100)
def test_fill_forward_equals_slow_reference(x):
    before = x.clone()
    assert torch.equal(fill_forward(x), slow_fill(x))
    assert torch.equal(x.nan_to_num(7.5), before.nan_to_num(7.5))  # not in place


def test_fill_forward_by_hand():
    x = torch.tensor([[NAN, 1.0], [2.0, NAN], [NAN, NAN], [3.0, 4.0]])[None]
    assert fill_forward(x)[0].tolist() == [[0.0, 1.0], [2.0, 1.0], [2.0, 1.0], [3.0, 4.0]]


@given(x=gappy(), other=gappy(), data=st.data())
@settings(max_examples=50)
def test_later_steps_never_change_earlier_ones(x, other, data):
    preprocess = Preprocess(x.shape[2])
    preprocess.set_moments(torch.full((x.shape[2],), 3.0), torch.full((x.shape[2],), 2.0))
    padding = Padding(torch.full((len(x),), x.shape[1]))
    cut = data.draw(st.integers(0, x.shape[1]))
    changed = x.clone()
    changed[:, cut:] = float(other.flatten()[0])
    assert torch.equal(preprocess(x, padding)[:, :cut], preprocess(changed, padding)[:, :cut])


def test_takes_raw_values_and_leaves_zeros_behind_the_end():
    preprocess = Preprocess(2)
    mean, std = torch.tensor([10.0, -1.0]), torch.tensor([2.0, 0.5])
    preprocess.set_moments(mean, std)
    assert {name: buffer.tolist() for name, buffer in preprocess.named_buffers()} == {
        "mean": mean.tolist(),
        "std": std.tolist(),
    }
    x = torch.tensor(
        [[[12.0, -1.5], [NAN, 0.0], [NAN, NAN]], [[8.0, NAN], [NAN, 1e30], [math.inf, NAN]]]
    )
    expected = [[[1.0, -1.0], [1.0, 2.0], [1.0, 2.0]], [[-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]
    assert preprocess(x, Padding(torch.tensor([3, 1]))).tolist() == expected


@given(
    x=st.lists(st.floats(width=32, allow_infinity=False), min_size=2, max_size=20),
    mean=st.floats(width=32, allow_nan=False, allow_infinity=False),
    std=st.floats(2.0**-100, 2.0**127, width=32),
)
@settings(max_examples=300)
def test_all_finite_values_stay_finite(x, mean, std):
    preprocess = Preprocess(1)
    preprocess.set_moments(torch.tensor([mean]), torch.tensor([std]))
    steps = torch.tensor(x)[None, :, None]
    found = preprocess(steps, Padding(torch.tensor([len(x)])))
    exact = fill_forward((steps.double() - preprocess.mean.double()) / preprocess.std.double())
    torch.testing.assert_close(found.double(), exact.clamp(-1e4, 1e4), rtol=1e-5, atol=1e-30)


def test_numbers_that_mean_missing():
    preprocess = Preprocess(2)
    preprocess.set_moments(torch.tensor([5.0, 6.0]), torch.tensor([2.0, 3.0]))
    preprocess.missing_values = [-9999.0, -3.4028235e38]
    x = torch.tensor([[[7.0, -9999.0], [torch.finfo().min, 9.0], [-9998.0, NAN]]])
    out = preprocess(x, Padding(torch.tensor([3])))
    assert out.tolist() == [[[1.0, 0.0], [1.0, 1.0], [-5001.5, 1.0]]]


def test_starts_with_mean_0_and_deviation_1():
    x = torch.randn(2, 3, 4)
    assert torch.equal(Preprocess(4)(x, Padding(torch.tensor([3, 3]))), x)


def test_a_sequence_with_nothing_in_it_is_the_mean_throughout():
    preprocess = Preprocess(2)
    preprocess.set_moments(torch.tensor([5.0, 6.0]), torch.tensor([2.0, 3.0]))
    x = torch.full((2, 3, 2), NAN)
    x[1] = torch.tensor([5.0, 6.0])
    out = preprocess(x, Padding(torch.tensor([3, 3]), is_full=True))
    assert torch.equal(out[0], out[1])
    assert out[0].abs().max() == 0


class TakesLengths(nn.Module):
    """A trace takes tensors only."""

    def __init__(self, preprocess):
        super().__init__()
        self.preprocess = preprocess

    def forward(self, x, lengths):
        return self.preprocess(x, Padding.of(lengths, x.shape[1]))


def test_is_the_same_in_a_trace_made_without_gaps():
    full, gaps = torch.randn(2, 5, 1), torch.randn(2, 5, 1)
    gaps[0, 1], gaps[1, :3] = NAN, NAN
    lengths = torch.tensor([5, 4])
    network = TakesLengths(Preprocess(1))
    with pytest.warns() as caught:
        traced = torch.jit.trace(network, (full, lengths))
    expected = (DeprecationWarning, FutureWarning, torch.jit.TracerWarning)
    assert all(issubclass(w.category, expected) for w in caught)
    assert torch.equal(traced(gaps, lengths), network(gaps, lengths))
    assert not traced(gaps, lengths).isnan().any()
