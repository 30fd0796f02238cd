"""Deterministic splits of one data set into training, validation and test parts."""

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

PARTS = ("train", "val", "test")


def split(
    sequences: Sequences,
    *,
    val_fraction: float,
    test_fraction: float,
    stratify: bool,
    seed: int,
    class_names: list[str] | None = None,
) -> dict[str, Tensor]:
    """Divide the rows of a data set.

    Stratified, every part gets its share of each class, at least one sequence. Where `sequences.groups` is there,
    no group is in two parts; groups are dealt out, the largest first, to the part that lacks their classes most.

    Args:
        sequences: The data set, labelled.
        val_fraction: Share of the validation part, 0 for none.
        test_fraction: Share of the test part, 0 for none.
        stratify: Keep the class proportions.
        seed: Seed of the shuffling.
        class_names: Names of the classes, for errors.

    Returns:
        For each of `PARTS` the rows, ascending; disjoint, together all of them.

    Raises:
        DataError: A part that was asked for is empty; a class is missing from training, or from any part when
            stratified.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = sequences.labels
    assert labels is not None
    classes = labels if stratify else torch.zeros_like(labels)
    shares = torch.tensor(
        [1.0 - val_fraction - test_fraction, val_fraction, test_fraction], dtype=torch.float64
    )
    if sequences.groups is None:
        part = _deal_rows(classes, shares, generator)
    else:
        part = _deal_groups(classes, sequences.groups, shares, generator)
    rows = {name: (part == i).nonzero().view(-1) for i, name in enumerate(PARTS)}
    _check(rows, labels, class_names, shares, stratify)
    return rows


def _deal_rows(classes: Tensor, shares: Tensor, generator: Generator) -> Tensor:
    part = torch.zeros_like(classes)
    for code in torch.unique(classes):
        rows = (classes == code).nonzero().view(-1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        counts = [max(1, int(float(s) * len(rows) + 0.5)) if s > 0 else 0 for s in shares[1:]]
        part[rows[: counts[0]]] = 1
        part[rows[counts[0] : sum(counts)]] = 2
    return part


def _deal_groups(
    classes: Tensor, groups: np.ndarray, shares: Tensor, generator: Generator
) -> Tensor:
    _, codes = np.unique(groups, return_inverse=True)
    owner = torch.from_numpy(codes)
    counts = torch.zeros(
        int(owner.max()) + 1, int(classes.max()) + 1, dtype=torch.float64
    )  # (groups, K)
    counts.index_put_(
        (owner, classes), torch.ones(len(classes), dtype=torch.float64), accumulate=True
    )
    wanted = shares[:, None] * counts.sum(0)  # (parts, K)
    dealt = torch.zeros_like(wanted)
    choice = torch.zeros(len(counts), dtype=torch.int64)
    order = torch.randperm(len(counts), generator=generator)
    order = order[counts[order].sum(1).argsort(descending=True, stable=True)]
    for group in order.tolist():
        gain = ((wanted - dealt) * counts[group]).sum(1) / counts[group].sum()
        gain[shares == 0] = -torch.inf
        choice[group] = part = int((gain / wanted.sum(1).clamp(min=1e-9)).argmax())
        dealt[part] += counts[group]
    return choice[owner]


def _check(
    rows: dict[str, Tensor],
    labels: Tensor,
    class_names: list[str] | None,
    shares: Tensor,
    stratify: bool,
) -> None:
    present = torch.unique(labels)
    for name, share in zip(PARTS, shares, strict=True):
        if share > 0 and len(rows[name]) == 0:
            raise DataError(
                f"the {name} part of the split is empty: {float(share):.3g} of {len(labels)} sequences; accepted are "
                "fractions (and groups) that leave every part at least one sequence"
            )
        missing = set(present.tolist()) - set(labels[rows[name]].tolist())
        if share > 0 and missing and (stratify or name == "train"):
            lacking = str(min(missing)) if class_names is None else class_names[min(missing)]
            raise DataError(
                f"the {name} part of the split has no sequence of class {lacking!r}: too few sequences or groups of "
                "it; accepted are fractions that leave every class in every part, or stratify false"
            )
