"""Gathering batches of all ranks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.evaluation import results
from lightning_rnn.evaluation.results import Evaluation, Predictions


def assert_equal(found, expected):
    """Compare two evaluations, or two predictions, field by field and bit by bit."""
    assert type(found) is type(expected)
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=0, equal_nan=True)


def filler():
    return Evaluation(
        index=torch.tensor([-1]),
        logits=torch.full((1, 3), 99.0),
        labels=torch.tensor([2]),
        losses=torch.tensor([99.0]),
    )


@given(
    n=st.integers(1, 12),
    size=st.integers(1, 4),
    fillers=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_gathering_restores_the_order_and_drops_fillers(n, size, fillers, seed):
    generator = torch.Generator().manual_seed(seed)
    whole = Evaluation(torch.arange(n), torch.randn(n, 3), torch.arange(n) % 3, torch.rand(n))
    batches = [whole.select(rows) for rows in torch.randperm(n, generator=generator).split(size)]
    for _ in range(fillers):
        batches.insert(int(torch.randint(len(batches) + 1, (), generator=generator)), filler())
    assert_equal(Evaluation.gather(batches), whole)


def test_gathering_from_ranks_changes_no_number(monkeypatch):
    """Index, labels and losses keep every bit on their way between ranks."""
    index = torch.tensor([2, 0, 2**53, 1])
    whole = Evaluation(
        index,
        torch.randn(4, 3).mul(1e-30),
        torch.tensor([2, 0, 1, 1]),
        torch.tensor([0.1, torch.nan, 0, 3]),
    )
    ranks = [whole.select(torch.arange(3)), whole.select(torch.arange(3, 4))]

    first_rank = iter(vars(ranks[0]).values())

    def gather_all_tensors(rows):  # called by the second rank, field by field
        return [next(first_rank), rows]

    monkeypatch.setattr(results, "is_distributed", lambda: True)
    monkeypatch.setattr(results, "gather_all_tensors", gather_all_tensors)
    assert_equal(Evaluation.gather([ranks[1]]), whole.select(index.argsort()))


def test_predictions_are_gathered_alike():
    whole = Predictions(
        torch.arange(5), torch.rand(5), torch.tensor([0, 1, 0, 1, 1]), torch.rand(5, 3)
    )
    batches = [whole.select(torch.tensor(rows)) for rows in ([4, 0], [3], [2, 1])]
    filler = torch.tensor([-1]), torch.tensor([0.5]), torch.tensor([0]), torch.zeros(1, 3)
    batches.append(Predictions(*filler))
    assert_equal(Predictions.gather(batches), whole)


@pytest.mark.parametrize("rows", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_rows_are_selected_by_index_or_mask(rows):
    whole = Evaluation(torch.arange(3), torch.rand(3), torch.tensor([0, 1, 1]), torch.rand(3))
    assert torch.equal(whole.select(rows).losses, whole.losses[rows])
