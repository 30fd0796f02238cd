"""Windows of recordings."""

from dataclasses import replace

import numpy as np
import torch

from lightning_rnn.categories import join_classes
from lightning_rnn.data import checks
from lightning_rnn.data.readers.class_names import sort_classes
from lightning_rnn.data.readers.contents import FileContents, ReadOptions, unexpected


def cut_windows(contents: FileContents, options: ReadOptions) -> tuple[FileContents, np.ndarray]:
    """Cut sequences into windows, which share the values.

    Windows start at the steps 0, `window_stride`, ... that leave room for a whole window; a shorter
    sequence is one window. The id of a window is that of its sequence, a colon and its first step;
    its group, unless the file has groups, is the id of its sequence. Returns the windows, and the
    (windows,) positions of their sequences.
    """
    recordings = contents.sequences
    assert options.window_length is not None
    assert recordings.ids is not None
    length = options.window_length
    stride = options.window_stride or length
    lengths = recordings.lengths.numpy()
    counts = 1 + np.maximum(lengths - length, 0) // stride  # (N,)
    owners = np.repeat(np.arange(len(counts)), counts)  # (windows,)
    positions = np.arange(len(owners)) - np.repeat(counts.cumsum() - counts, counts)
    first_steps = positions * stride
    starts = recordings.offsets.numpy()[owners] + first_steps
    sizes = np.minimum(length, lengths[owners])
    names = recordings.ids[owners]
    ids = np.array([f"{name}:{step}" for name, step in zip(names, first_steps, strict=True)])
    groups = names if recordings.groups is None else recordings.groups[owners]
    offsets = torch.from_numpy(starts)
    values = recordings.values
    windows = recordings.replaced(
        lengths=checks.lengths_without_trailing_nan(values, offsets, torch.from_numpy(sizes)),
        groups=groups,
        ids=ids.astype(object),
        offsets=offsets,
    )
    labels = contents.labels
    if contents.step_labels is not None:
        labels = _labels_of_windows(contents.step_labels, starts, starts + sizes, options)
    elif labels is not None:
        labels = labels[owners]
    found = replace(contents, sequences=windows, labels=labels, step_labels=None, has_windows=True)
    return found, owners


def _labels_of_windows(
    step_labels: np.ndarray, starts: np.ndarray, stops: np.ndarray, options: ReadOptions
) -> np.ndarray:
    """Return the (windows,) names of the classes; see `ReadOptions.window_label`.

    Of classes that are equally frequent in a window, it has the first in sorted order.
    """
    if options.window_label == "last":
        last: np.ndarray = step_labels[stops - 1]
        return last
    labels = np.full(len(starts), "", dtype=object)
    highest = np.zeros(len(starts), dtype=np.int64)
    names = sort_classes(set(step_labels) - {""})
    classes = {*names, options.positive_class}  # windows of a file may all be negative
    if options.window_label == "any" and options.require_labels and len(classes) > 2:
        expected = f"two classes, one of them the positive_class {options.positive_class!r}"
        raise unexpected("", expected, join_classes(names))
    for name in names:
        totals = np.append(0, np.cumsum(step_labels == name))
        counts = totals[stops] - totals[starts]
        if options.window_label == "any" and name == options.positive_class:
            counts[counts > 0] = len(step_labels) + 1  # more than any other class
        labels[counts > highest] = name
        highest = np.maximum(highest, counts)
    return labels
