"""Deterministic division of a data set into training, validation and test sequences."""

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError, counted

SPLITS = ("train", "val", "test")
SPLITS_OF_STAGE = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


def split_rows(
    sequences: Sequences,
    *,
    val_fraction: float,
    test_fraction: float,
    stratify: bool,
    seed: int,
    num_folds: int | None = None,
    fold: int = 0,
    class_names: list[str] | None = None,
) -> dict[str, Tensor]:
    """Divide the sequences of a data set.

    Args:
        sequences: The data set, with labels. Sequences of one group are in the same split.
        val_fraction: Fraction of the validation split, 0 for none.
        test_fraction: Fraction of the test split, 0 for none.
        stratify: Whether each split has the same proportions of the classes, and every class.
        seed: Seed of the random order.
        num_folds: Number of folds, which depend on `stratify` and `seed` only; None for none.
        fold: Fold that is the test split. `test_fraction` must be 1 / `num_folds`.
        class_names: Names of the classes, for error messages.

    Returns:
        For each of `SPLITS` the ascending positions of its sequences, int64.

    Raises:
        DataError: If a fold or a split with a fraction above 0 is empty, or if the training split,
            or with `stratify` any of them, lacks a class.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = sequences.required_labels
    fractions = [1.0 - val_fraction - test_fraction, val_fraction, test_fraction]
    strata = labels if stratify else torch.zeros_like(labels)
    groups = sequences.groups
    parts: dict[str, Tensor] = {}  # folds and splits that have to have sequences
    if num_folds is None:
        split_of = _assign(strata, groups, fractions, generator)
    else:
        fold_of = _assign_folds(strata, groups, num_folds, generator)
        for other in range(num_folds):
            parts[f"fold {other}"] = (fold_of == other).nonzero().view(-1)
        rest = (fold_of != fold).nonzero().view(-1)
        shares = [fraction / (1 - test_fraction) for fraction in fractions[:2]]
        groups = None if groups is None else groups[rest.numpy()]
        split_of = torch.full_like(labels, SPLITS.index("test"))
        split_of[rest] = _assign(strata[rest], groups, [*shares, 0.0], generator)
    rows = {name: (split_of == code).nonzero().view(-1) for code, name in enumerate(SPLITS)}
    share_of = dict(zip(SPLITS, fractions, strict=True))
    parts |= {name: rows[name] for name in SPLITS if share_of[name] > 0}
    for name, part in parts.items():
        if len(part) == 0:
            share = share_of.get(name, test_fraction)
            got = f"none: a fraction of {share:.3g} of {counted(len(labels), 'sequence')}"
            raise DataError(
                f"{name} split: expected at least one sequence, got {got}, or too few groups"
            )
        missing = set(labels.tolist()) - set(labels[part].tolist())
        if missing and (stratify or name == "train"):
            label = min(missing) if class_names is None else class_names[min(missing)]
            got = f"no sequence of class {str(label)!r}: too few sequences or groups of it"
            others = "other fractions" if num_folds is None else "fewer num_folds"
            raise DataError(
                f"{name} split: expected every class, got {got}; choose {others}, or stratify false"
            )
    return rows


def _assign(
    strata: Tensor, groups: np.ndarray | None, fractions: list[float], generator: Generator
) -> Tensor:
    if groups is None:
        return _assign_rows(strata, fractions, generator)
    return _assign_groups(strata, groups, fractions, generator)


def _assign_folds(
    strata: Tensor, groups: np.ndarray | None, num_folds: int, generator: Generator
) -> Tensor:
    """Return the fold of each sequence.

    The shuffled sequences of one stratum after the other are dealt to the folds in turn.
    """
    if groups is not None:
        return _assign_groups(strata, groups, [1 / num_folds] * num_folds, generator)
    order = torch.randperm(len(strata), generator=generator)
    order = order[strata[order].argsort(stable=True)]
    fold_of = torch.empty_like(strata)
    fold_of[order] = torch.arange(len(strata)) % num_folds
    return fold_of


def _assign_rows(strata: Tensor, fractions: list[float], generator: Generator) -> Tensor:
    """Return the split of each sequence as an index of `SPLITS`.

    The first round(fraction * n) of the n shuffled sequences of a stratum, but at least one, are
    for validation, the next ones for testing.
    """
    split_of = torch.zeros_like(strata)
    for stratum in torch.unique(strata):
        rows = (strata == stratum).nonzero().view(-1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        start = 0
        for code, fraction in enumerate(fractions[1:], start=1):
            count = 0
            if fraction > 0:
                count = max(1, int(fraction * len(rows) + 0.5))
            split_of[rows[start : start + count]] = code
            start += count
    return split_of


def _assign_groups(
    strata: Tensor, groups: np.ndarray, fractions: list[float], generator: Generator
) -> Tensor:
    """Return the split of each sequence as an index of `SPLITS`, the same within a group.

    Groups are assigned from the largest to the smallest, equal ones in random order. With n[g, k]
    sequences of stratum k in group g, and missing[s, k] sequences that split s still lacks of its
    fraction of stratum k, group g is assigned to the split s with the largest
    sum_k missing[s, k] * n[g, k] / (sum_k n[g, k] * size of s).
    """
    _, group_codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    num_strata = len(strata.bincount())  # 0 without rows
    rows = torch.from_numpy(group_codes.argsort(kind="stable"))
    strata_of_group = torch.split(strata[rows], sizes.tolist())
    share = torch.tensor(fractions, dtype=torch.float64)
    closed = torch.where(share == 0, -torch.inf, 0.0)
    expected = share[:, None] * strata.bincount()  # (splits, K)
    size = expected.sum(1).clamp(min=1e-9)
    assigned = torch.zeros_like(expected)
    split_of_group = np.zeros(len(sizes), dtype=np.int64)
    order = torch.randperm(len(sizes), generator=generator)
    order = order[torch.from_numpy(sizes)[order].argsort(descending=True, stable=True)]
    for group in order.tolist():
        counts = strata_of_group[group].bincount(minlength=num_strata)  # (K,)
        gain = ((expected - assigned) * counts).sum(1) / sizes[group]
        split = int((gain / size + closed).argmax())
        split_of_group[group] = split
        assigned[split] += counts
    return torch.from_numpy(split_of_group[group_codes])
