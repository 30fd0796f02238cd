"""What is suspicious about the columns that were read as features or as time steps."""

import re
from itertools import pairwise

import numpy as np
import torch

from lightning_rnn.data.checks import CHUNK_VALUES
from lightning_rnn.data.readers.contents import FileContents, quote

MAX_SEQUENCES = 5000  # that are looked at
SUSPICIOUS_NAME = re.compile(r"unnamed.*|index|idx|(.*[ _])?id|time|timestamp|date|datetime", re.I)


def column_findings(contents: FileContents, id_column: str | None) -> list[str]:
    """Return a line for each suspicious finding about the columns of a training file."""
    sequences = contents.sequences
    longest = int(sequences.lengths.max())
    findings = ["all sequences have one step"] if longest == 1 else []
    size = min(MAX_SEQUENCES, max(1, CHUNK_VALUES // (longest * sequences.num_features)))
    sample = sequences.select(torch.arange(min(size, len(sequences))))
    x = sample.batch(torch.arange(len(sample))).x.numpy()  # (N, T, F)
    is_step = np.arange(x.shape[1]) < sample.lengths.numpy()[:, None]  # (N, T)
    if contents.step_names is not None:
        columns = np.where(is_step, x[..., 0], np.nan).T  # (T, N)
        findings += _unordered(contents.step_names)
        for name, column in zip(contents.step_names, columns, strict=False):  # T may be shorter
            findings += _about_column(name, column, "a time step")
            if id_column is None and _looks_like_ids(column, contents.labels):
                findings.append(
                    f"column {quote(name)} looks like ids of sequences with a row for each step: "
                    "set id_column"
                )
    for i, name in enumerate(contents.feature_names or []):
        if name in contents.categories:
            continue
        findings += _about_column(name, x[is_step, i], "a feature")
        differences = np.diff(x[..., i], axis=1)[is_step[:, 1:]]
        if len(differences) >= 3 and (differences == 1).all():
            findings.append(f"column {quote(name)} counts the steps of each sequence")
    return findings


def _about_column(name: str, values: np.ndarray, role: str) -> list[str]:
    """Return findings about the name and the values of a column."""
    findings: list[str] = []
    if SUSPICIOUS_NAME.fullmatch(name):
        findings.append(f"column {quote(name)} is read as {role}")
    if len(values) >= 3 and (np.diff(np.sort(values)) == 1).all():
        findings.append(f"column {quote(name)} numbers the rows")
    return findings


def _unordered(names: list[str]) -> list[str]:
    """Return a finding if the numbers at the end of names do not ascend, as in t1, t10, t2."""
    for name, following in pairwise(names):
        first = re.fullmatch("(.*?)([0-9]+)", name)
        second = re.fullmatch("(.*?)([0-9]+)", following)
        if first is None or second is None or first[1] != second[1]:
            continue
        if int(first[2]) > int(second[2]):
            return [f"column {quote(name)} is the time step before {quote(following)}"]
    return []


def _looks_like_ids(values: np.ndarray, labels: np.ndarray | None) -> bool:
    """Return whether values of rows (N,) repeat, and rows of the same value have one label."""
    if labels is None or np.isnan(values).any():
        return False
    labels = labels[: len(values)]
    num_values = len(np.unique(values))
    num_runs = 1 + int(np.count_nonzero(np.diff(values)))
    is_repeated = 2 <= num_values <= len(values) / 2
    has_one_label = len(set(zip(values.tolist(), labels, strict=True))) == num_values
    is_many = num_values > len(set(labels)) or num_runs == num_values
    return is_repeated and has_one_label and is_many
