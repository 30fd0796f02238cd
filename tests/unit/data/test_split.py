"""Splits: disjoint, complete, repeatable, stratified, and never through a group."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_rnn.data import split as split_module
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import SPLITS, split_rows
from lightning_rnn.errors import DataError

SHARES = st.sampled_from((0.0, 0.1, 0.25, 0.4))


def labelled(labels, groups=None):
    groups = None if groups is None else np.array([f"g{g}" for g in groups], dtype=object)
    return Sequences(np.zeros((len(labels), 1)), [1] * len(labels), labels, groups=groups)


def divide(sequences, val=0.2, test=0.2, stratify=True, seed=0, num_folds=None, fold=0):
    return split_rows(
        sequences,
        val_fraction=val,
        test_fraction=test,
        stratify=stratify,
        seed=seed,
        num_folds=num_folds,
        fold=fold,
    )


def divided_or_refused(*args):
    """Return the rows by split and "", or None and the message."""
    try:
        return divide(*args), ""
    except DataError as error:
        return None, str(error)


def check_partition(parts, n):
    assert tuple(parts) == SPLITS
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(n))
    assert all(rows.tolist() == sorted(rows.tolist()) for rows in parts.values())


@given(
    counts=st.lists(st.integers(4, 30), min_size=1, max_size=4),
    val=SHARES,
    test=SHARES,
    stratify=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=80)
def test_rows_are_dealt_completely_and_in_proportion(counts, val, test, stratify, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    strata = counts if stratify else [len(labels)]
    held_out = [
        [max(1, int(share * n + 0.5)) if share else 0 for n in strata] for share in (val, test)
    ]
    parts, message = divided_or_refused(labelled(labels), val, test, stratify, seed)
    if parts is None:  # no sequence of a class is left to train on, by rounding or by chance
        assert message.startswith("train split: expected ")
        assert not stratify or any(v + t >= n for v, t, n in zip(*held_out, strata, strict=True))
        return
    check_partition(parts, len(labels))
    for name, expected in zip(("val", "test"), held_out, strict=True):
        part = labels[parts[name].numpy()]
        found = np.bincount(part, minlength=len(counts)).tolist() if stratify else [len(part)]
        assert found == expected


@given(
    owners=st.lists(st.integers(0, 11), min_size=12, max_size=60),
    val=SHARES,
    test=SHARES,
    stratify=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=80)
def test_no_group_is_in_two_parts(owners, val, test, stratify, seed):
    labels = np.random.default_rng(seed).integers(0, 2, len(owners))
    parts, message = divided_or_refused(labelled(labels, owners), val, test, stratify, seed)
    if parts is None:
        assert " split: expected " in message
    assume(parts is not None)
    check_partition(parts, len(owners))
    of_part = [{owners[row] for row in rows} for rows in parts.values()]
    assert sum(map(len, of_part)) == len(set(owners))
    assert [len(rows) > 0 for rows in parts.values()] == [True, val > 0, test > 0]


@given(
    counts=st.lists(st.integers(7, 30), min_size=1, max_size=4),
    num_folds=st.integers(2, 7),
    size=st.sampled_from([None, 1, 2]),
    stratify=st.booleans(),
    seed=st.integers(0, 5),
)
def test_each_sequence_is_tested_in_one_fold(counts, num_folds, size, stratify, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.random.default_rng(seed).permutation(labels)
    groups = None
    if size is not None:
        groups = np.array([f"g{i // size}" for i in range(len(labels))])
    data = labelled(labels, groups)
    tested = []
    for fold in range(num_folds):
        rows, error = divided_or_refused(data, 0.2, 1 / num_folds, stratify, seed, num_folds, fold)
        if error:  # classes in too few groups, or not stratified
            assert size == 2 or not stratify
            return
        tested.append(rows["test"])
        dealt = torch.cat(list(rows.values()))
        assert dealt.sort().values.tolist() == list(range(len(labels)))
        if groups is not None:
            owners = [set(groups[part.numpy()]) for part in rows.values()]
            assert sum(map(len, owners)) == len(set(groups))
        sizes = [len(rows["val"]), len(rows["test"])]
        if size is None and stratify:
            assert abs(sizes[0] - 0.2 * len(labels)) <= len(counts)
            assert abs(sizes[1] - len(labels) / num_folds) < 1
            found = np.bincount(labels[rows["test"].numpy()], minlength=len(counts))
            assert (abs(found - np.array(counts) / num_folds) < 1).all()
    assert torch.cat(tested).sort().values.tolist() == list(range(len(labels)))


def test_a_class_of_fewer_sequences_than_folds_is_refused():
    data = labelled([0] * 10 + [1] * 3)
    message = "fold 1 split: expected every class, got no sequence of class '1'.*fewer num_folds"
    for fold in range(4):
        with pytest.raises(DataError, match=message):
            divide(data, 0.0, 0.25, num_folds=4, fold=fold)


@pytest.mark.parametrize("grouped", [False, True])
def test_is_a_function_of_the_seed(grouped):
    sequences = labelled([0, 1] * 50, np.arange(100) // 2 if grouped else None)
    first, again, other = (divide(sequences, seed=seed) for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in SPLITS)
    assert not any(torch.equal(first[name], other[name]) for name in SPLITS)


def test_stays_as_it_was():
    """A split that differs between versions would put training sequences into the test split."""
    parts = divide(labelled([0, 1] * 10), seed=0)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 12, "val": 4, "test": 4}
    torch.manual_seed(123)  # whatever the global generator is at
    assert divide(labelled([0, 1] * 10), seed=0)["val"].tolist() == parts["val"].tolist()


def test_groups_keep_about_the_fractions_and_classes():
    groups = np.repeat(np.arange(50), 4)  # of four sequences each
    labels = np.repeat([0, 0, 0, 1, 1], 40)[np.random.default_rng(0).permutation(200)]
    parts = divide(labelled(labels, groups))
    for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert len(parts[name]) / 200 == pytest.approx(share, abs=0.04)
        assert labels[parts[name].numpy()].mean() == pytest.approx(0.4, abs=0.08)


def test_without_stratification_classes_are_left_to_chance():
    labels = [0] * 90 + [1] * 10
    ones = {
        sum(labels[row] for row in divide(labelled(labels), stratify=False, seed=s)["val"])
        for s in range(20)
    }
    assert len(ones) > 2
    assert {
        sum(labels[row] for row in divide(labelled(labels), seed=s)["val"]) for s in range(20)
    } == {2}


def test_everything_trains_where_nothing_is_held_out():
    parts = divide(labelled([0, 1, 1]), 0.0, 0.0)
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [0, 1, 2],
        "val": [],
        "test": [],
    }


@pytest.mark.parametrize(
    ("labels", "groups", "options", "message"),
    [
        (
            [0, 1, 0, 1],
            [0, 0, 0, 0],
            {"test": 0.0},
            "val split: expected at least one sequence, got none: "
            "a fraction of 0.2 of 4 sequences, or too few groups",
        ),
        (
            [0, 1, 0, 1],
            [0, 0, 0, 0],
            {"test": 0.5, "num_folds": 2},
            "fold 1 split: expected at least one sequence, got none: "
            "a fraction of 0.5 of 4 sequences, or too few groups",
        ),
        (
            [0, 0, 0, 1, 1],
            None,
            {},
            "train split: expected every class, got no sequence of class '1': too few sequences or "
            "groups of it; choose other fractions, or stratify false",
        ),
        (
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            np.arange(10),
            {"test": 0.0},
            "val split: expected every class, got no sequence of class '1': too few sequences or "
            "groups of it; choose other fractions, or stratify false",
        ),
    ],
    ids=[
        "one group",
        "one group, two folds",
        "two of a class, three parts",
        "one of a class, two parts",
    ],
)
def test_refuses(labels, groups, options, message):
    with pytest.raises(DataError) as caught:
        divide(labelled(labels, groups), **options)
    assert str(caught.value) == message


def test_a_class_missing_from_training_is_refused_without_stratification_too():
    def divide_often():
        for seed in range(50):  # the only sequence of class 0 is held out sooner or later
            divide(labelled([0] + [1] * 9), 0.3, 0.0, stratify=False, seed=seed)

    message = "train split: expected every class, got no sequence of class '0'"
    with pytest.raises(DataError, match=message):
        divide_often()


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_assigned_as_by_a_table_of_groups_and_classes(seed):
    rng = np.random.default_rng(seed)
    n, num_groups, num_classes = rng.integers([20, 5, 1], [200, 40, 12])
    strata = torch.from_numpy(rng.integers(num_classes, size=n))
    groups = rng.integers(num_groups, size=n).astype(str)
    share = torch.tensor([0.5, 0.0, 0.5] if seed % 4 == 0 else [0.6, 0.2, 0.2], dtype=torch.float64)
    found = split_module._assign_groups(
        strata, groups, share.tolist(), torch.Generator().manual_seed(seed)
    )
    names, group_of = np.unique(groups, return_inverse=True)
    counts = torch.zeros(len(names), int(strata.max()) + 1, dtype=torch.float64)
    for group, stratum in zip(group_of, strata, strict=True):
        counts[group, stratum] += 1
    expected = share[:, None] * counts.sum(0)
    assigned = torch.zeros_like(expected)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    for group in order[counts[order].sum(1).argsort(descending=True, stable=True)].tolist():
        gain = ((expected - assigned) * counts[group]).sum(1) / counts[group].sum()
        gain[share == 0] = -torch.inf
        split = int((gain / expected.sum(1).clamp(min=1e-9)).argmax())
        assert (found[group_of == group] == split).all()
        assigned[split] += counts[group]
