"""Deterministic division of a data set into training, validation and test sequences."""

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.distributed import gather_objects, is_distributed
from lightning_rnn.errors import DataError

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
    class_names: list[str] | None = None,
) -> dict[str, Tensor]:
    """Divide the sequences of a data set.

    Args:
        sequences: The data set, with labels. Sequences of one group are in the same split.
        val_fraction: Fraction of the validation split, 0 for none.
        test_fraction: Fraction of the test split, 0 for none.
        stratify: Whether each split has the same proportions of the classes, and every class.
        seed: Seed of the random order.
        class_names: Names of the classes, for error messages.

    Returns:
        For each of `SPLITS` the ascending positions of its sequences, int64.

    Raises:
        DataError: If a split with a fraction above 0 is empty, or if the training split, or with
            `stratify` any split, lacks a class.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = sequences.required_labels
    fractions = [1.0 - val_fraction - test_fraction, val_fraction, test_fraction]
    strata = labels if stratify else torch.zeros_like(labels)
    if sequences.groups is None:
        split_of = _assign_rows(strata, fractions, generator)
    else:
        split_of = _assign_groups(strata, sequences.groups, fractions, generator)
    rows: dict[str, Tensor] = {}
    for code, name in enumerate(SPLITS):
        rows[name] = (split_of == code).nonzero().view(-1)
        if fractions[code] == 0:
            continue
        if len(rows[name]) == 0:
            got = f"none: a fraction of {fractions[code]:.3g} of {len(labels)} sequences"
            raise DataError(
                f"{name} split: expected at least one sequence, got {got}, or too few groups"
            )
        missing = set(labels.tolist()) - set(labels[rows[name]].tolist())
        if missing and (stratify or name == "train"):
            label = min(missing) if class_names is None else class_names[min(missing)]
            got = f"no sequence of class {str(label)!r}: too few sequences or groups of it"
            raise DataError(
                f"{name} split: expected every class, got {got}; choose other fractions, or "
                "stratify false"
            )
    return rows


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
    unique_groups, group_codes = np.unique(groups, return_inverse=True)
    group_of = torch.from_numpy(group_codes)  # (N,)
    counts = torch.zeros(len(unique_groups), int(strata.max()) + 1, dtype=torch.float64)
    ones = torch.ones(len(strata), dtype=torch.float64)
    counts.index_put_((group_of, strata), ones, accumulate=True)  # (groups, K)
    share = torch.tensor(fractions, dtype=torch.float64)
    expected = share[:, None] * counts.sum(0)  # (splits, K)
    size = expected.sum(1).clamp(min=1e-9)
    assigned = torch.zeros_like(expected)
    split_of_group = torch.zeros(len(counts), dtype=torch.int64)
    order = torch.randperm(len(counts), generator=generator)
    order = order[counts[order].sum(1).argsort(descending=True, stable=True)]
    for group in order.tolist():
        gain = ((expected - assigned) * counts[group]).sum(1) / counts[group].sum()
        gain[share == 0] = -torch.inf
        split = int((gain / size).argmax())
        split_of_group[group] = split
        assigned[split] += counts[group]
    return split_of_group[group_of]


def check_ranks(splits: list[Sequences]) -> None:
    """Raise a DataError if not all ranks have the same sequences and random state."""
    if not is_distributed():
        return
    fingerprints = [sequences.fingerprint() for sequences in splits]
    gathered = gather_objects([torch.get_rng_state().tolist(), *fingerprints])
    others = [rank for rank, found in enumerate(gathered) if found != gathered[0]]
    if others:
        expected = "the sequences and random state of rank 0"
        raise DataError(f"ranks {others}: expected {expected}, got others")
