"""Temperature and threshold, and that they travel with the weights."""

import math

import pytest
import torch

from lightning_rnn.models.decision import Decision
from lightning_rnn.models.network import SequenceNetwork

BINARY, MANY = torch.tensor([0.0, -2.0, 50.0]), torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0]])


def test_probabilities():
    decision = Decision()
    assert decision.probabilities(BINARY).tolist() == pytest.approx(
        [0.5, 1 / (1 + math.exp(2)), 1.0]
    )
    assert decision.probabilities(MANY).flatten().tolist() == pytest.approx([0.25, 0.75, 0.5, 0.5])
    assert torch.equal(decision.class_probabilities(MANY), decision.probabilities(MANY))
    both = decision.class_probabilities(BINARY)
    assert both.shape == (3, 2)
    assert torch.equal(both[:, 1], decision.probabilities(BINARY))
    assert both.sum(1).tolist() == [1.0] * 3
    for logits in (BINARY.double(), MANY.bfloat16()):
        assert decision.probabilities(logits).dtype == torch.float32


def test_temperature_divides_the_logits():
    decision = Decision()
    decision.set(temperature=2.0)
    assert decision.probabilities(BINARY).tolist() == pytest.approx([0.5, 1 / (1 + math.e), 1.0])
    assert decision.probabilities(MANY)[0, 1].item() == pytest.approx(3**0.5 / (1 + 3**0.5))


def test_the_threshold_decides_between_two_classes_alone():
    decision = Decision()
    logits = torch.tensor([0.0, 0.1, 1.0, 3.0])
    assert decision.predict(logits).tolist() == [0, 1, 1, 1]
    decision.set(threshold=0.8)
    assert decision.predict(logits).tolist() == [0, 0, 0, 1]
    decision.set(threshold=0.99)
    assert decision.predict(torch.tensor([[1.0, 2.0, 0.0]])).tolist() == [1]


def test_it_is_state_of_the_network():
    one, other = (SequenceNetwork(input_size=1, num_classes=2) for _ in range(2))
    assert not one.decision.is_fitted
    one.decision.set(2.0, 0.25)
    other.load_state_dict(one.state_dict())
    assert other.decision.is_fitted
    x, lengths = torch.randn(3, 4, 1), torch.tensor([4, 2, 1])
    logits = other(x, lengths)
    assert torch.equal(other.decision.probabilities(logits), torch.sigmoid(one(x, lengths) / 2))
    assert torch.equal(other.decision.predict(logits), (logits > 2 * math.log(0.25 / 0.75)).long())
    other.decision.set()
    assert not other.decision.is_fitted
