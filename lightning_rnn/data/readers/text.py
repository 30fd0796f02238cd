"""Readers of .ts (sktime, aeon) and .tsv (UCR) files."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_rnn.data.readers.contents import (
    BOM,
    MISSING,
    NUMBER,
    NUMBERS_ACCEPTED,
    FileContents,
    ReadOptions,
    class_name,
    class_names,
    complete,
    listing,
    row_ids,
    show,
    sort_classes,
)
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

STAMPED = re.compile(
    r"((?:^|[,:])\s*)\([^()]*,([^(),]*)\)"
)  # .ts with time stamps: (2007-01-01 00:00:00,241.97)


class _Case(NamedTuple):
    line: int
    label: str
    row: np.ndarray  # (T, F)


def _lines(path: Path, comments: tuple[bytes, ...] = ()) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither blank nor a comment (which may be in any encoding)."""
    for number, line in enumerate(path.read_bytes().removeprefix(BOM).split(b"\n"), 1):
        if line.strip(b" \r") and not line.lstrip().startswith(comments):
            try:
                yield number, line.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"line {number}: found {show(error.object[:20])}, accepted is UTF-8 text"
                ) from error


def _numbers(cells: list[str], where: str) -> np.ndarray:
    """Return the cells as float32; `where` names their line and ends in the word for one cell."""
    cells = [cell.strip() for cell in cells]
    row = np.array([_number(cell) for cell in cells]).astype(np.float32)
    refused = np.flatnonzero(np.isinf(row))
    if len(refused):
        raise DataError(
            f"{where} {refused[0] + 1}: found {show(cells[refused[0]])}, {NUMBERS_ACCEPTED}"
        )
    return row


def _number(cell: str) -> float:
    if NUMBER.fullmatch(cell):  # float() alone would take "1_0" as well
        return float(cell)
    return math.nan if cell in MISSING or cell.lower() == "nan" else math.inf


def _from_lines(cases: list[_Case], wanted: ReadOptions) -> FileContents:
    if not cases:
        raise DataError("found no lines with values, accepted is at least one")
    rows = [case.row for case in cases]
    sequences = Sequences(np.concatenate(rows), [len(row) for row in rows], ids=row_ids(len(rows)))
    labels = class_names(
        np.array(["" if case.label.strip() == "?" else case.label for case in cases], dtype=object)
    )
    labels = complete(labels, "label", lambda i: f"line {cases[i].line}", wanted.require_labels)
    return FileContents(sequences, labels, None)


def read_tsv(path: Path, wanted: ReadOptions) -> FileContents:
    """UCR: no header, the label first, then the steps of one feature."""
    cases: list[_Case] = []
    for line, text in _lines(path):
        label, *cells = text.split("\t")
        if not cells or (cases and len(cells) != len(cases[0].row)):
            as_first = (
                f"{len(cases[0].row) + 1} as in line {cases[0].line}"
                if cases
                else "a label, a tab and a value"
            )
            raise DataError(
                f"line {line}: found {len(cells) + 1} cells between tabs, accepted is {as_first}"
            )
        cases.append(_Case(line, label, _numbers(cells, f"line {line}, value")[:, None]))
    return _from_lines(cases, wanted)


def read_ts(path: Path, wanted: ReadOptions) -> FileContents:
    """Sktime, aeon: a header, then a line a sequence: its channels and at last its label between colons."""
    lines = _lines(path, (b"#", b"%"))
    has_target, has_label, declared = _ts_header(lines)
    if wanted.require_labels and not has_label:
        raise DataError(
            "the header says that there are no class labels, accepted is @classLabel true and the classes"
        )
    cases: list[_Case] = []
    for line, text in lines:
        fields = (STAMPED.sub(r"\1\2", text.strip()) if "(" in text else text).split(":")
        label = fields.pop() if has_target else ""
        if not fields or (cases and len(fields) != cases[0].row.shape[1]):
            accepted = (
                f"{cases[0].row.shape[1]} as in line {cases[0].line}"
                if cases
                else "at least one, ':' and the label"
            )
            raise DataError(f"line {line}: found {len(fields)} channels, accepted is {accepted}")
        if has_label and declared and class_name(label) not in declared | {"", "?"}:
            accepted = listing(sort_classes(declared))
            raise DataError(
                f"line {line}: found label {show(label)}, accepted by @classLabel are {accepted}"
            )
        channels = [
            _numbers(f.split(","), f"line {line}, channel {i}, value")
            for i, f in enumerate(fields, 1)
        ]
        row = np.full((max(map(len, channels)), len(channels)), np.nan, dtype=np.float32)  # (T, F)
        for i, channel in enumerate(channels):
            row[: len(channel), i] = channel
        cases.append(_Case(line, label if has_label else "", row))
    return _from_lines(cases, wanted)


def _ts_header(lines: Iterator[tuple[int, str]]) -> tuple[bool, bool, set[str]]:
    """Read up to @data: is a line's last field no channel, is it a class, and which are listed?

    Without `@classLabel` it is a class, unless there is a `@targetLabel`: that one is a number to predict.
    """
    header: dict[str, tuple[bool, list[str]]] = {}
    for number, line in lines:
        key, *words = line.split() or [""]
        key = key.lower()
        if key == "@data":
            break
        if not key.startswith("@"):
            raise DataError(
                f"line {number}: found {show(line)} before @data, accepted are lines with @, # or %"
            )
        if key in ("@classlabel", "@targetlabel"):
            flag = words[0].lower() if words else "true"
            if flag not in ("true", "false"):
                raise DataError(
                    f"line {number}, {key}: found {show(words[0])}, accepted is true or false"
                )
            header[key] = flag == "true", words[1:]
    else:
        raise DataError(
            "found no line @data, accepted is a header, @data, and a line for each sequence"
        )
    is_target, _ = header.get("@targetlabel", (False, []))
    is_class, classes = header.get("@classlabel", ("@targetlabel" not in header, []))
    return is_class or is_target, is_class and not is_target, set(map(class_name, classes))
