"""What a data set is like, and what about it is suspicious, before anything is trained on it."""

import hashlib
from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from lightning_rnn.data.base_module import Schema, SequenceDataModule
from lightning_rnn.data.sequences import Sequences

BARS = 8  # of the histogram of lengths
WIDTH = 40  # characters of its longest bar
LOOKED = 5000  # sequences in which missing values are counted
RARE = 20  # sequences of a class below which its figures say little


def inspect(*, data: SequenceDataModule) -> None:
    """Print a report on a data set.

    Args:
        data: FileDataModule or SyntheticDataModule, with its options behind it as --data.train_path and so on.

    Raises:
        DataError: A part that cannot be used.
    """
    parts = {
        name: part for name in ("train", "val", "test") if (part := data.part(name)) is not None
    }
    schema, names = data.schema, data.schema.class_names
    print(f"features: {schema.num_features} {' '.join(schema.feature_names or [])}".rstrip())
    for name, part in parts.items():
        print(
            f"{name}: {len(part)} sequences; {span(part.lengths)} steps; {missing(part)}; {balance(part, names)}"
        )
    print("lengths of all parts:")
    print("\n".join(length_histogram(torch.cat([part.lengths for part in parts.values()]))))
    found = [
        line for name, part in parts.items() for line in suspicions(name, part, schema)
    ] + overlaps(parts)
    print("suspicious:" if found else "nothing suspicious")
    print("".join(f"- {line}\n" for line in found), end="")


def span(lengths: Tensor) -> str:
    """Say between which of the lengths (N,) the others are."""
    return " to ".join(str(length) for length in sorted({int(lengths.min()), int(lengths.max())}))


def missing(part: Sequences) -> str:
    """Say which share of the values is missing; of some sequences, where there are very many."""
    step = max(1, len(part) // LOOKED)
    found = [values.isnan().sum() for values in each(part, step)]
    share = float(sum(found)) / (int(part.lengths[::step].sum()) * part.num_features)
    where = f" in every {step}th sequence" if step > 1 else ""
    return (f"{100 * share:.3g} % of values missing" if share else "no missing values") + where


def each(part: Sequences, step: int = 1) -> Iterator[Tensor]:
    """Yield the values (T_i, F) of every `step`-th sequence."""
    for start, length in zip(
        part.offsets[::step].tolist(), part.lengths[::step].tolist(), strict=True
    ):
        yield part.values[start : start + length]


def balance(part: Sequences, class_names: list[str]) -> str:
    """Say how many sequences each class has."""
    if part.labels is None:
        return "no labels"
    counts = part.labels.bincount(minlength=len(class_names)).tolist()
    return ", ".join(f"{name} {count}" for name, count in zip(class_names, counts, strict=True))


def length_histogram(lengths: Tensor) -> list[str]:
    """Return a line for each of at most eight ranges of lengths (N,)."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // BARS)
    counts = ((lengths - low) // width).bincount().tolist()
    ranges = [(low + i * width, min(high, low + (i + 1) * width - 1)) for i in range(len(counts))]
    labels = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges]
    pad = max(map(len, labels))
    return [
        f"  {label:>{pad}}  {'#' * round(WIDTH * count / max(counts)):{WIDTH}}  {count}"
        for label, count in zip(labels, counts, strict=True)
    ]


def suspicions(name: str, part: Sequences, schema: Schema) -> list[str]:
    """Return what is odd about one part: features that say nothing, classes too rare, sequences that recur."""
    lines, names = [], schema.feature_names or [str(i) for i in range(schema.num_features)]
    ranges = [
        (v.nan_to_num(torch.inf).amin(0), v.nan_to_num(-torch.inf).amax(0)) for v in part.chunks()
    ]
    lowest, highest = (
        torch.stack([low for low, _ in ranges]).amin(0),
        torch.stack([high for _, high in ranges]).amax(0),
    )
    for i in (lowest >= highest).nonzero().view(-1).tolist():
        what = (
            "has no value at all" if lowest[i] > highest[i] else f"is always {float(lowest[i]):g}"
        )
        lines.append(f"{name}: feature {names[i]} {what}")
    if part.labels is not None:
        counts = part.labels.bincount(minlength=len(schema.class_names)).tolist()
        rare = [f"{c} {n}" for c, n in zip(schema.class_names, counts, strict=True) if n < RARE]
        if rare:
            lines.append(f"{name}: classes of fewer than {RARE} sequences: {', '.join(rare)}")
    first, again, otherwise = dict[bytes, int](), 0, 0
    for i, digest in enumerate(digests(part)):
        at = first.setdefault(digest, i)
        again += at != i
        otherwise += part.labels is not None and int(part.labels[at]) != int(part.labels[i])
    if again:
        contrary = f", {otherwise} of them labelled otherwise" if otherwise else ""
        lines.append(f"{name}: {again} sequences repeat an earlier one{contrary}")
    return lines


def overlaps(parts: dict[str, Sequences]) -> list[str]:
    """Return how many sequences, and which groups, two parts share."""
    lines, hashes = [], {name: digests(part) for name, part in parts.items()}
    for name, other in combinations(parts, 2):
        known = set(hashes[name])
        if shared := sum(digest in known for digest in hashes[other]):
            lines.append(f"{shared} sequences of {other} are in {name}, too")
        ours, theirs = parts[name].groups, parts[other].groups
        if (
            ours is not None
            and theirs is not None
            and (common := sorted({*map(str, ours)} & {*map(str, theirs)}))
        ):
            lines.append(
                f"{len(common)} groups are in both {name} and {other} ({', '.join(common[:5])})"
            )
    return lines


def digests(part: Sequences) -> list[bytes]:
    """Return a hash of each sequence's values."""
    return [
        hashlib.blake2b(values.numpy().tobytes(), digest_size=16).digest() for values in each(part)
    ]
