"""The inception stem."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_rnn.models.inception import InceptionStem, average_steps
from lightning_rnn.padding import Padding

EXACT = {"rtol": 0.0, "atol": 1e-10}  # in float64


def stem_of(num_features, *, causal):
    torch.manual_seed(0)
    stem = InceptionStem(num_features, causal=causal).double()
    with torch.no_grad():
        for module in stem.modules():
            if hasattr(module, "running_mean"):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return stem


def convolve(x, weight, *, causal):
    size = weight.shape[2]
    before = size - 1 if causal else size // 2
    return nn.functional.conv1d(nn.functional.pad(x, (before, size - 1 - before)), weight)


def normalise(x, norm, *, training):
    reference = nn.BatchNorm1d(x.shape[1]).double().train(training)
    reference.load_state_dict(norm.state_dict(), strict=False)
    return reference(x)


def reference_outputs(stem, x, *, causal):
    """Return the outputs of all steps (B, C, T) of sequences (B, F, T) without padding."""
    shortcut = normalise(
        convolve(x, stem.shortcut.weight, causal=causal), stem.shortcut_norm, training=stem.training
    )
    for i, block in enumerate(stem.blocks):
        reduced = x
        if isinstance(block.bottleneck, nn.Conv1d):
            reduced = convolve(x, block.bottleneck.weight, causal=causal)
        parts = [convolve(reduced, conv.weight, causal=causal) for conv in block.convs]
        shifts = (0, 1, 2) if causal else (-1, 0, 1)
        steps = x.shape[2]
        padded = nn.functional.pad(x, (2, 2))
        shifted = [padded[:, :, 2 - shift : 2 - shift + steps] for shift in shifts]
        maxima = torch.stack(shifted).amax(0)
        parts.append(convolve(maxima, block.pool_conv.weight, causal=causal))
        x = normalise(torch.cat(parts, 1), block.norm, training=stem.training)
        if i == len(stem.blocks) - 1:
            x = x + shortcut
        x = x.relu()
    return x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_features", [1, 17])
def test_stem_equals_torch_layers_on_sequences_without_padding(num_features, causal, training):
    stem = stem_of(num_features, causal=causal).train(training)
    x = torch.randn(4, 45, num_features, dtype=torch.float64)
    lengths = torch.full((4,), 45)
    results = [stem(x, Padding(lengths, is_full=is_full)) for is_full in (True, False)]
    expected = reference_outputs(
        stem_of(num_features, causal=causal).train(training), x.transpose(1, 2), causal=causal
    )
    if not training:  # the running statistics have moved
        expected = reference_outputs(stem, x.transpose(1, 2), causal=causal)
    for result in results:
        torch.testing.assert_close(result.summary, expected.mean(2), **EXACT)
        averages = [part.mean(2) for part in expected.split(4, dim=2)]
        torch.testing.assert_close(result.x, torch.stack(averages, 1), **EXACT)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    extra=st.integers(0, 9),
    causal=st.booleans(),
    training=st.booleans(),
)
@settings(max_examples=25)
def test_padding_changes_nothing(lengths, extra, causal, training):
    results = []
    for width in (max(lengths), max(lengths) + extra):
        stem = stem_of(2, causal=causal).train(training)
        torch.manual_seed(1)
        x = torch.zeros(len(lengths), width, 2, dtype=torch.float64)
        for row, length in zip(x, lengths, strict=True):
            row[:length] = torch.randn(length, 2, dtype=torch.float64)
        result = stem(x, Padding(torch.tensor(lengths)))
        for row, length in zip(result.x, result.padding.lengths.tolist(), strict=True):
            assert (row[length:] == 0).all()
        results.append(
            torch.cat([result.x[:, : -(-max(lengths) // 4)].flatten(1), result.summary], 1)
        )
    torch.testing.assert_close(results[0], results[1], **EXACT)


@given(num_steps=st.integers(1, 60), cut=st.integers(1, 60))
@settings(max_examples=25)
def test_a_causal_stem_does_not_see_later_steps(num_steps, cut):
    cut = min(cut, num_steps)
    stem = stem_of(1, causal=True).eval()
    x = torch.randn(1, num_steps, 1, dtype=torch.float64)
    whole = stem(x, Padding(torch.tensor([num_steps]))).x
    start = stem(x[:, :cut], Padding(torch.tensor([cut]))).x
    complete = cut // 4
    torch.testing.assert_close(start[:, :complete], whole[:, :complete], **EXACT)


@given(lengths=st.lists(st.integers(1, 13), min_size=1, max_size=5), seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_average_steps(lengths, seed):
    torch.manual_seed(seed)
    x = torch.zeros(len(lengths), 3, max(lengths), dtype=torch.float64)
    for row, length in zip(x, lengths, strict=True):
        row[:, :length] = torch.randn(3, length, dtype=torch.float64)
    averages = average_steps(x, torch.tensor(lengths))
    for row, average, length in zip(x, averages, lengths, strict=True):
        expected = torch.stack([part.mean(1) for part in row[:, :length].split(4, dim=1)], dim=1)
        torch.testing.assert_close(average[:, : expected.shape[1]], expected, **EXACT)
        assert (average[:, expected.shape[1] :] == 0).all()
