"""Synthetic tasks: labels against slow readable references, and what the sequences look like."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data.synthetic_tasks import TASKS

SYMBOLS = "EBabcdXY"
WINDOWS = {
    "temporal_order": ((0.1, 0.2), (0.5, 0.6)),
    "temporal_order_6b": ((0.1, 0.2), (0.33, 0.43), (0.66, 0.76)),
}


def generate(name, lengths, seed=0, num_features=None):
    task = TASKS[name]
    lengths = torch.as_tensor(lengths) + task.extra_steps
    features = task.num_features or num_features or 1
    values, labels = task.generate(lengths, features, torch.Generator().manual_seed(seed))
    assert values.shape == (int(lengths.sum()), features)
    assert values.dtype == torch.float32
    assert labels.shape == (len(lengths),)
    assert labels.dtype == torch.int64
    return [part.tolist() for part in values.split(lengths.tolist())], labels.tolist()


def symbols_of(sequence):
    assert all(sorted(step) == [0.0] * 7 + [1.0] for step in sequence)
    return "".join(SYMBOLS[step.index(1.0)] for step in sequence)


def sum_is_positive(sequence):
    return int(math.fsum(value for step in sequence for value in step) > 0)


def marked_values_exceed_one(sequence):
    return int(sum(torch.tensor(value) for value, mark in sequence if mark == 1.0) > 1)


def ones_are_odd(sequence):
    return sum(step[0] == 1.0 for step in sequence) % 2


def first_step_is_plus(sequence):
    return int(sequence[0][0] == 1.0)


def order_of_x_and_y(sequence):
    decisive = [symbol for symbol in symbols_of(sequence) if symbol in "XY"]
    return int("".join("01"["XY".index(symbol)] for symbol in decisive), 2)


REFERENCES = {
    "sum_sign": sum_is_positive,
    "adding": marked_values_exceed_one,
    "parity": ones_are_odd,
    "delayed_recall": first_step_is_plus,
    "temporal_order": order_of_x_and_y,
    "temporal_order_6b": order_of_x_and_y,
}
each_task = pytest.mark.parametrize("name", TASKS)


def test_every_task_has_a_reference():
    assert set(TASKS) == set(REFERENCES)


@each_task
@given(
    extra=st.lists(st.integers(0, 20), min_size=1, max_size=8),
    features=st.integers(1, 3),
    seed=st.integers(0, 999),
)
@settings(max_examples=25)
def test_labels_equal_slow_reference(name, extra, features, seed):
    lengths = [TASKS[name].min_length + e for e in extra]
    parts, labels = generate(name, lengths, seed, features)
    assert labels == [REFERENCES[name](part) for part in parts]


@each_task
def test_classes_are_about_equally_frequent(name):
    _, labels = generate(name, [20] * 4000)
    counts = torch.bincount(torch.tensor(labels))
    k = len(TASKS[name].class_names)
    assert len(counts) == k
    tolerance = 4 * math.sqrt(4000 * (1 / k) * (1 - 1 / k))  # standard deviations of a fair draw
    assert (counts - 4000 / k).abs().max() < tolerance


@each_task
def test_a_generator_decides_everything(name):
    assert generate(name, [10, 15], seed=3) == generate(name, [10, 15], seed=3)
    assert generate(name, [10, 15], seed=3) != generate(name, [10, 15], seed=4)


def test_sum_sign_is_normal():
    values = torch.tensor(generate("sum_sign", [100] * 100)[0])
    assert values.mean().item() == pytest.approx(0, abs=0.05)
    assert values.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("length", [2, 3, 11])
def test_adding_marks_one_step_of_each_half(length):
    parts, _ = generate("adding", [length] * 300)
    first, second = set(), set()
    for part in parts:
        assert all(0 <= value < 1 for value, _ in part)
        assert {mark for _, mark in part} <= {0.0, 1.0}
        a, b = (t for t, (_, mark) in enumerate(part) if mark)
        first.add(a)
        second.add(b)
    assert first == set(range(length // 2))
    assert second == set(range(length // 2, length))


def test_parity_is_of_fair_bits():
    parts, _ = generate("parity", [10] * 500)
    bits = torch.tensor(parts).flatten()
    assert set(bits.tolist()) == {0.0, 1.0}
    assert bits.mean().item() == pytest.approx(0.5, abs=0.03)


def test_delayed_recall_puts_the_symbol_in_front_of_noise():
    assert TASKS["delayed_recall"].extra_steps == 1
    parts, labels = generate("delayed_recall", [6] * 1000, num_features=2)
    assert all(part[0] == [2.0 * label - 1] * 2 for part, label in zip(parts, labels, strict=True))
    noise = torch.tensor([part[1:] for part in parts])
    assert noise.shape == (1000, 6, 2)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.var().item() == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("name", WINDOWS)
@given(length=st.integers(10, 130), seed=st.integers(0, 999))
@settings(max_examples=50)
def test_temporal_order_has_the_published_structure(name, length, seed):
    (part,), _ = generate(name, [length], seed)
    text = symbols_of(part)
    assert (text[0], text[-1]) == ("E", "B")
    assert set(text[1:-1]) <= set("abcdXY")
    decisive = [t for t, symbol in enumerate(text) if symbol in "XY"]
    assert len(decisive) == len(WINDOWS[name])
    for t, (low, high) in zip(decisive, WINDOWS[name], strict=True):
        assert (
            low * length - 0.5 - 1e-4 <= t <= high * length + 0.5 + 1e-4
        )  # bounds rounded to steps


@pytest.mark.parametrize("name", WINDOWS)
def test_temporal_order_uses_every_step_of_its_windows(name):
    texts = [symbols_of(part) for part in generate(name, [100] * 600)[0]]
    found = {t for text in texts for t, symbol in enumerate(text) if symbol in "XY"}
    expected = {
        t for low, high in WINDOWS[name] for t in range(round(low * 100), round(high * 100) + 1)
    }
    assert found == expected
    assert {symbol for text in texts for symbol in text} == set(SYMBOLS)


@pytest.mark.parametrize("name", WINDOWS)
def test_class_names_spell_the_order(name):
    parts, labels = generate(name, [30] * 100)
    for part, label in zip(parts, labels, strict=True):
        assert TASKS[name].class_names[label] == "".join(s for s in symbols_of(part) if s in "XY")
