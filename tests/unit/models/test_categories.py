"""Codes of categories become one-hot vectors or embeddings, as in a plain reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import OptionError
from lightning_rnn.evaluation.gradient_flow import attribute, measure_gradient_flow
from lightning_rnn.models.network import NetworkOptions, SequenceNetwork
from lightning_rnn.models.preprocess import Preprocess

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # in float64


def network(sizes, embedding_size, **options):
    torch.manual_seed(len(sizes))
    options = NetworkOptions(hidden_size=4, embedding_size=embedding_size, **options)
    net = SequenceNetwork(
        input_size=len(sizes), num_classes=2, options=options, category_sizes=sizes
    ).double()
    is_number = torch.tensor(sizes) == 0
    net.preprocess.set_moments(torch.where(is_number, 0.5, 0.0), torch.where(is_number, 2.0, 1.0))
    return net


def sequence(rng, length, sizes):
    """Return (T, F) raw values: numbers, codes from 0 on, and missing values."""
    columns = [
        rng.integers(0, size + 1, length) if size else rng.normal(size=length) for size in sizes
    ]
    x = np.stack(columns, axis=1).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    return x


def vectors(net, x, sizes, embedding_size):
    """The inputs of the recurrent layer for one sequence (T, F), cell by cell: numbers first."""
    last = [0.5 if size == 0 else 0.0 for size in sizes]
    steps = []
    for row in x:
        numbers, encoded = [], []
        for i, size in enumerate(sizes):
            if not math.isnan(row[i]):
                last[i] = row[i]
            if size == 0:
                numbers.append(torch.tensor([(last[i] - 0.5) / 2.0]))
            elif last[i] == 0:
                encoded.append(torch.zeros(min(size, embedding_size)))
            elif size <= embedding_size:
                encoded.append(nn.functional.one_hot(torch.tensor(int(last[i]) - 1), size))
            else:
                encoded.append(net.preprocess.embeddings[str(i)].weight[int(last[i])])
        steps.append(torch.cat([part.double() for part in numbers + encoded]))
    return torch.stack(steps)


def padded(rows, extra, garbage):
    lengths = torch.tensor([len(row) for row in rows])
    shape = (len(rows), int(lengths.max()) + extra, rows[0].shape[1])
    x = torch.full(shape, garbage, dtype=torch.float64)
    for i, row in enumerate(rows):
        x[i, : len(row)] = torch.from_numpy(row)
    return x, lengths


SIZES = st.lists(st.sampled_from((0, 1, 2, 3, 5)), min_size=1, max_size=4)


@given(sizes=SIZES, embedding_size=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_equals_one_hot_vectors_and_embeddings_in_front_of_torchs_gru(sizes, embedding_size, seed):
    rng = np.random.default_rng(seed)
    net = network(sizes, embedding_size, cell="gru")
    layer = net.recurrent.forward_layers[0].layer
    gru = nn.GRU(layer.input_size, 4, batch_first=True).double()
    gru.load_state_dict(layer.state_dict())
    rows = [sequence(rng, int(length), sizes) for length in rng.integers(1, 6, 3)]
    found = net(*padded(rows, 2, math.nan))
    for i, row in enumerate(rows):
        _, state = gru(vectors(net, row, sizes, embedding_size)[None])
        torch.testing.assert_close(found[i], net.head(state[0, 0]).squeeze(), **EXACT)


@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
@pytest.mark.parametrize("garbage", [math.nan, 1e30, math.inf, 3.0])
def test_padding_changes_neither_logits_nor_gradients(stem, garbage):
    rng = np.random.default_rng(0)
    sizes = [0, 2, 7]
    rows = [sequence(rng, length, sizes) for length in (9, 4, 1)]
    results = []
    for extra, fill in ((0, 0.0), (5, garbage)):
        net = network(sizes, 3, stem=stem).train()
        logits = net(*padded(rows, extra, fill))
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in net.parameters())])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, **EXACT)
    embedding_gradient = results[0][1]
    assert embedding_gradient.shape == (8, 3)
    assert embedding_gradient[0].eq(0).all()
    assert embedding_gradient[1:].ne(0).any()


def test_no_code_is_limited_or_rounded():
    size = 12_000  # above the limit of standardised values
    preprocess = Preprocess(1, [size], embedding_size=2)
    codes = torch.tensor([[[1.0], [10_001.0], [12_000.0], [12_001.0], [-1.0]]])
    found = preprocess.encode(codes)
    table = preprocess.embeddings["0"].weight
    assert torch.equal(found[0, :3], table[[1, 10_001, 12_000]])
    assert found[0, 3:].eq(0).all()
    with pytest.raises(OptionError, match=r"^precision: .*12000 categories, got torch.bfloat16"):
        preprocess.encode(codes.bfloat16())


def test_gradient_flow_and_attribution_take_categories():
    sizes = [2, 5]
    net = network(sizes, 3)
    rng = np.random.default_rng(0)
    batch = Sequences.from_arrays([sequence(rng, 6, sizes), sequence(rng, 3, sizes)], [0, 1]).batch(
        torch.tensor([0, 1])
    )
    contributions = attribute(net, batch)
    assert contributions.shape == (2, 6)
    assert contributions[1, 3:].eq(0).all()
    assert measure_gradient_flow(net, batch).gradients["layer0"].shape == (6,)
