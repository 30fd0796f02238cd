"""The convolutional stem and its batch normalisation over valid positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_rnn.models.padding import valid_steps
from lightning_rnn.models.stem import ConvStem, MaskedBatchNorm, output_lengths
from lightning_rnn.padding import Padding

EXACT = {"rtol": 0.0, "atol": 1e-10}  # in float64


def norms(channels):
    """A masked normalisation and torch's, with the same random weights."""
    ours, torchs = MaskedBatchNorm(channels).double(), nn.BatchNorm1d(channels).double()
    with torch.no_grad():
        for a, b in ((ours.weight, torchs.weight), (ours.bias, torchs.bias)):
            a.copy_(b.copy_(torch.randn_like(a)))
    return ours, torchs


def compare_running(ours, torchs):
    torch.testing.assert_close(ours.running_mean, torchs.running_mean, **EXACT)
    torch.testing.assert_close(ours.running_var, torchs.running_var, **EXACT)


@pytest.mark.parametrize("is_full", [False, True])
def test_equals_torchs_batch_norm_where_nothing_is_padded(is_full):
    torch.manual_seed(0)
    ours, torchs = norms(3)
    for _ in range(3):
        x = torch.randn(4, 3, 5, dtype=torch.float64) * 3 + 2
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        upstream = torch.randn_like(x)
        y, expected = ours(a, torch.ones(4, 1, 5, dtype=torch.bool), is_full=is_full), torchs(b)
        y.backward(upstream)
        expected.backward(upstream)
        torch.testing.assert_close(y, expected, **EXACT)
        torch.testing.assert_close(a.grad, b.grad, **EXACT)
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad, **EXACT)
    torch.testing.assert_close(ours.bias.grad, torchs.bias.grad, **EXACT)
    compare_running(ours, torchs)
    ours.eval()
    torchs.eval()
    torch.testing.assert_close(ours(x, torch.ones(4, 1, 5, dtype=torch.bool)), torchs(x), **EXACT)


@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=5), seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_statistics_and_gradients_ignore_padding(lengths, seed):
    torch.manual_seed(seed)
    ours, torchs = norms(2)
    width = max(lengths) + 2
    mask = valid_steps(torch.tensor(lengths), width)  # (B, T)
    x = torch.randn(len(lengths), 2, width, dtype=torch.float64)
    x.transpose(1, 2)[~mask] = 1e6
    a = x.clone().requires_grad_()
    b = x.transpose(1, 2)[mask].clone().requires_grad_()  # (valid positions, C)
    y, expected = ours(a, mask[:, None]).transpose(1, 2)[mask], torchs(b)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(y, expected, **EXACT)
    torch.testing.assert_close(
        a.grad.transpose(1, 2)[mask], b.grad, rtol=0.0, atol=1e-8
    )  # / sqrt(eps) near ties
    assert a.grad.transpose(1, 2)[~mask].abs().max() == 0
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad, **EXACT)
    torch.testing.assert_close(ours.bias.grad, torchs.bias.grad, **EXACT)
    compare_running(ours, torchs)


def test_one_valid_position_is_normalised_to_the_bias():
    norm, _ = norms(2)
    x = torch.tensor([[[3.0, 1e6], [-4.0, -1e6]]], dtype=torch.float64, requires_grad=True)
    y = norm(x, torch.tensor([[[True, False]]]))
    torch.testing.assert_close(y[0, :, 0], norm.bias, **EXACT)
    y[0, :, 0].sum().backward()
    assert x.grad.isfinite().all()
    assert norm.weight.grad.isfinite().all()
    assert norm.running_mean.tolist() == pytest.approx([0.3, -0.4])
    assert norm.running_var.tolist() == pytest.approx([0.9, 0.9])


def test_sums_run_in_float32_for_bfloat16_values():
    torch.manual_seed(0)
    x = (300 + 8 * torch.randn(8, 2, 64)).bfloat16()
    norm = MaskedBatchNorm(2)
    y = norm(x, torch.ones(8, 1, 64, dtype=torch.bool))
    assert y.dtype == torch.bfloat16
    exact = x.double().transpose(1, 2).reshape(-1, 2)
    torch.testing.assert_close(norm.running_mean.double(), 0.1 * exact.mean(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        norm.running_var.double(), 0.9 + 0.1 * exact.var(0), rtol=1e-4, atol=0
    )


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), extra=st.integers(0, 5))
@settings(max_examples=20)
def test_each_convolution_halves_a_length_rounded_up(lengths, extra):
    width = max(lengths) + extra
    stem = ConvStem(1, num_channels=2).eval()
    output = stem(torch.zeros(len(lengths), width, 1), Padding(torch.tensor(lengths)))
    half = [-(-length // 2) for length in lengths]
    assert output.padding.lengths.tolist() == [-(-length // 2) for length in half]
    assert output.padding.lengths.tolist() == output_lengths(torch.tensor(lengths)).tolist()
    assert output.x.shape == (len(lengths), -(-width // 4), 2)
    assert output.summary.shape == (len(lengths), 0)


@pytest.mark.parametrize("training", [True, False])
def test_stem_equals_torch_layers_on_one_unpadded_batch(training):
    torch.manual_seed(0)
    stem = ConvStem(3, num_channels=4).double().train(training)
    x = torch.randn(5, 13, 3, dtype=torch.float64)
    expected = x.transpose(1, 2)
    for conv in stem.convs:
        expected = nn.functional.conv1d(expected, conv.weight, stride=2, padding=4)
        expected = nn.BatchNorm1d(4).double().train(training)(expected).relu()
    for is_full in (True, False):
        output = stem(x, Padding(torch.full((5,), 13), is_full=is_full))
        torch.testing.assert_close(output.x, expected.transpose(1, 2), **EXACT)
        assert output.padding.lengths.tolist() == [4] * 5
        assert output.padding.is_full == is_full
        assert output.x.shape == (5, 4, 4)


def test_stem_is_zero_after_each_end():
    torch.manual_seed(0)
    stem = ConvStem(1, num_channels=4)
    with torch.no_grad():
        for norm in stem.norms:
            norm.bias.fill_(1.0)  # would show in padding
    x = torch.randn(2, 24, 1)
    x[1, 5:] = 0.0
    output = stem(x, Padding(torch.tensor([24, 5])))
    assert output.padding.lengths.tolist() == [6, 2]
    assert output.x[1, 2:].abs().max() == 0
    assert (output.x[1, :2] > 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_steps", [1, 2])
def test_weights_that_see_only_padding_have_no_gradient(num_steps, dtype):
    """Those of a single step in bfloat16 are uninitialised memory in torch 2.13 on a CPU."""
    torch.manual_seed(0)
    stem = ConvStem(1).to(dtype)
    x = torch.randn(4, num_steps, 1, dtype=dtype)
    output = stem(x, Padding(torch.full((4,), num_steps), is_full=True)).x
    assert output.shape == (4, 1, 64)
    used = [torch.full((size,), 1e4, dtype=dtype) for size in (4096, 40000) for _ in range(9)]
    del used  # so that the next allocations do not find zeros
    output.backward(torch.randn_like(output))
    gradient = stem.convs[1].weight.grad  # (64, 64, 9), of one step at the centre
    assert gradient[:, :, 4].any()
    assert not gradient[:, :, :4].any()
    assert not gradient[:, :, 5:].any()
