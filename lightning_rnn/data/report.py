"""Description of a data set and of what is suspicious about it."""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.categories import quoted
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.readers.contents import join_names
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import SPLITS
from lightning_rnn.errors import DataError, counted

HISTOGRAM_BINS = 8
BAR_WIDTH = 40  # characters
MAX_SEQUENCES_READ = 5000  # to count missing values
MIN_OTHER_VALUES = 10  # distinct values besides a number that may stand for missing ones
MIN_CLASS_SIZE = 20  # number of sequences below which the metrics of a class are unreliable


def describe(data: SequenceDataModule) -> str:
    """Return sizes, lengths, missing values, classes, and suspicious findings of a data set."""
    found = {name: data.split(name) for name in SPLITS}
    splits = {name: split for name, split in found.items() if split is not None}
    lines = [f"features: {data.num_features}"]
    if data.feature_names is not None:
        lines[0] += f" ({', '.join(data.feature_names)})"
    for name, words in data.categories.items():
        lines.append(f"{len(words)} categories of {name}: {join_names(words)}")
    if data.step_names is not None:
        lines.append(f"steps: columns {join_names(data.step_names)}")
    findings = data.findings()
    digests = {name: digests_of(sequences) for name, sequences in splits.items()}
    for name, sequences in splits.items():
        size = counted(len(sequences), "sequence")
        steps = f"steps: {length_range(sequences.lengths)}"
        classes = class_counts(sequences, data.class_names)
        lines.append(f"{name}: {size}; {steps}; {missing_values(sequences)}; {classes}")
        findings += suspicions(name, sequences, digests[name], data.schema)
    try:
        data.train_moments  # noqa: B018  # raises the error
    except DataError as error:
        findings.append(str(error))
    lines.append("lengths of all splits:")
    lines += length_histogram(torch.cat([split.lengths for split in splits.values()]))
    findings += overlaps(splits, digests)
    lines.append("suspicious:" if findings else "nothing suspicious")
    lines += [f"- {finding}" for finding in findings]
    return "\n".join(lines)


def length_range(lengths: Tensor) -> str:
    """Return the shortest and longest of the lengths (N,) as text."""
    return _range(int(lengths.min()), int(lengths.max()), " to ")


def _range(first: int, last: int, separator: str) -> str:
    return str(first) if first == last else f"{first}{separator}{last}"


def missing_values(sequences: Sequences) -> str:
    """Return the share of missing values as text; of a large split from a sample."""
    step = max(1, len(sequences) // MAX_SEQUENCES_READ)
    sample = sequences.select(torch.arange(0, len(sequences), step))
    num_missing = sum(int(values.isnan().sum()) for values in sample.chunks())
    where = f" in a sample of {len(sample)} sequences" if step > 1 else ""
    if num_missing == 0:
        return f"no missing values{where}"
    share = num_missing / (int(sample.lengths.sum()) * sequences.num_features)
    return f"{100 * share:.3g} % of values missing{where}"


def class_counts(sequences: Sequences, class_names: list[str]) -> str:
    """Return the number of sequences of each class as text."""
    if sequences.labels is None:
        return "no labels"
    counts = sequences.labels.bincount(minlength=len(class_names)).tolist()
    return ", ".join(
        f"{quoted(name)} {count}" for name, count in zip(class_names, counts, strict=True)
    )


def length_histogram(lengths: Tensor) -> list[str]:
    """Return a line for each of at most eight ranges of the lengths (N,)."""
    low = int(lengths.min())
    high = int(lengths.max())
    width = -(-(high - low + 1) // HISTOGRAM_BINS)  # rounded up
    counts = ((lengths - low) // width).bincount().tolist()
    firsts = range(low, high + 1, width)
    labels = [_range(first, min(high, first + width - 1), "-") for first in firsts]
    label_width = max(len(label) for label in labels)
    lines: list[str] = []
    for label, count in zip(labels, counts, strict=True):
        bar = "#" * round(BAR_WIDTH * count / max(counts))
        lines.append(f"  {label:>{label_width}}  {bar:{BAR_WIDTH}}  {count}")
    return lines


def suspicions(name: str, sequences: Sequences, digests: np.ndarray, schema: Schema) -> list[str]:
    """Return findings about one split: strange features, rare classes, repeated sequences."""
    findings = _constant_features(sequences, schema) + _missing_marks(sequences, schema)
    if sequences.labels is not None:
        counts = sequences.labels.bincount(minlength=len(schema.class_names)).tolist()
        classes = zip(schema.class_names, counts, strict=True)
        rare = [f"{quoted(label)} {count}" for label, count in classes if count < MIN_CLASS_SIZE]
        if rare:
            text = ", ".join(rare)
            findings.append(f"classes of fewer than {MIN_CLASS_SIZE} sequences: {text}")
    _, first, same = np.unique(digests, return_index=True, return_inverse=True)
    num_repeated = len(sequences) - len(first)
    if num_repeated:
        finding = f"sequences that repeat an earlier one: {num_repeated}"
        if sequences.labels is not None:
            num_contradictions = int((sequences.labels[first[same]] != sequences.labels).sum())
            if num_contradictions:
                finding += f", {num_contradictions} of them with another label"
        findings.append(finding)
    return [f"{name}: {finding}" for finding in findings]


def _constant_features(sequences: Sequences, schema: Schema) -> list[str]:
    lowest = torch.full((schema.num_features,), torch.inf)
    highest = -lowest
    for values in sequences.chunks():
        lowest = torch.minimum(lowest, values.nan_to_num(torch.inf).amin(0))
        highest = torch.maximum(highest, values.nan_to_num(-torch.inf).amax(0))
    names = schema.feature_names or [str(i) for i in range(schema.num_features)]
    findings: list[str] = []
    for name, low, high in zip(names, lowest.tolist(), highest.tolist(), strict=True):
        if name in schema.categories:
            continue
        if low > high:
            findings.append(f"feature {name} has no values")
        elif low == high:
            findings.append(f"feature {name} is always {low:g}")
    return findings


def _missing_marks(sequences: Sequences, schema: Schema) -> list[str]:
    """Find numbers that recur and are farther from all others than these from each other.

    Of large data, only the first 4 million values are read.
    """
    findings: list[str] = []
    values = next(sequences.chunks()).double()
    names = schema.feature_names or [str(i) for i in range(schema.num_features)]
    for name, column in zip(names, values.T, strict=True):
        if name in schema.categories:
            continue
        known = column[~column.isnan()]
        if len(known) <= MIN_OTHER_VALUES or not _has_repeated_end(known):
            continue
        numbers, counts = known.unique(return_counts=True)
        for sign in (1, -1):
            while len(numbers) > MIN_OTHER_VALUES and counts[0] > 1:
                if numbers[1] - numbers[0] <= numbers[-1] - numbers[1]:
                    break
                mark = sign * float(numbers[0])
                finding = f"feature {name} is {mark:.9g} {counts[0]} times, far from other values"
                findings.append(f"{finding}; if missing, set missing_values to [{mark:.9g}]")
                numbers, counts = numbers[1:], counts[1:]
            numbers, counts = -numbers.flip(0), counts.flip(0)
    return findings


def _has_repeated_end(numbers: Tensor) -> bool:
    """Return whether the lowest or the highest number is there more than once."""
    return any(int((numbers == end).sum()) > 1 for end in numbers.aminmax())


def overlaps(splits: dict[str, Sequences], digests: dict[str, np.ndarray]) -> list[str]:
    """Return findings about sequences and groups that two splits have in common."""
    findings: list[str] = []
    for name, other in combinations(splits, 2):
        num_shared = int(np.isin(digests[other], digests[name]).sum())
        if num_shared:
            findings.append(f"sequences of {other} that are also in {name}: {num_shared}")
        groups = splits[name].groups
        other_groups = splits[other].groups
        if groups is None or other_groups is None:
            continue
        common = np.intersect1d(groups.astype(str), other_groups.astype(str))
        if len(common):
            examples = ", ".join(common[:5])
            findings.append(f"groups in both {name} and {other}: {len(common)} ({examples})")
    return findings


def digests_of(sequences: Sequences) -> np.ndarray:
    """Return (N,) int64 hashes of the values of each sequence, the same within a process."""
    digests: list[int] = []
    sizes = (4 * sequences.num_features * sequences.lengths).tolist()  # in bytes
    for values in sequences.chunks():  # of whole sequences
        content = values.numpy().tobytes()
        start = 0
        while start < len(content):
            end = start + sizes[len(digests)]
            digests.append(hash(content[start:end]))
            start = end
    return np.array(digests)
