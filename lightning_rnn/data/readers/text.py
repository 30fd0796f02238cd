"""Readers of .ts files (sktime, aeon) and .tsv files (UCR)."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_rnn.data.readers.class_names import (
    NUMBER,
    class_name,
    class_names,
    is_missing,
    sort_classes,
)
from lightning_rnn.data.readers.contents import (
    BOM,
    FileContents,
    ReadOptions,
    complete_labels,
    row_ids,
)
from lightning_rnn.data.readers.messages import FINITE_NUMBERS, join_names, quote, unexpected
from lightning_rnn.data.readers.times import find_time_kind, time_keys
from lightning_rnn.data.sequences import Sequences

# a value with a time stamp: (2007-01-01 00:00:00,241.97)
STAMPED_VALUE = re.compile(r"\(([^()]*),([^(),]*)\)")
OUTSIDE_PARENTHESES = r"(?![^(]*\))"


@dataclass(frozen=True)
class _Line:
    """One sequence.

    Attributes:
        number: Line number.
        label: Label as written, "" if it has none.
        values: (T, F) values.
        time_kind: Kind of the time stamps, None without them.
    """

    number: int
    label: str
    values: np.ndarray
    time_kind: str | None = None


@dataclass(frozen=True)
class _Header:
    """Header of a .ts file.

    Attributes:
        has_target: Whether the last field of a line is a class or a number to predict.
        has_label: Whether it is a class.
        classes: Names of the declared classes, empty if none are declared.
    """

    has_target: bool
    has_label: bool
    classes: set[str]


def read_tsv(path: Path, options: ReadOptions) -> FileContents:
    """Read lines of a label and the steps of one feature, separated by tabs, without a header."""
    lines: list[_Line] = []
    for number, text in _text_lines(path):
        label, *cells = text.split("\t")
        expected = "a label, a tab and at least one value"
        if lines:
            width = len(lines[0].values)
            expected = f"{width + 1} cells separated by tabs, as in line {lines[0].number}"
        if not cells or (lines and len(cells) != width):
            raise unexpected(f"line {number}", expected, f"{len(cells) + 1} cells")
        values = _parse_numbers(cells, f"line {number}")
        lines.append(_Line(number, label, values[:, None]))
    return _contents(lines, options)


def read_ts(path: Path, options: ReadOptions) -> FileContents:
    """Read a header, then lines of channels and a label separated by colons.

    If values have time stamps, these order the steps and align the channels; a channel without a
    value at a time of another one has a missing value there.
    """
    text_lines = _text_lines(path, comments=(b"#", b"%"))
    header = _read_header(text_lines)
    if options.require_labels and not header.has_label:
        raise unexpected("", "@classLabel true and the classes", "a header without class labels")
    lines: list[_Line] = []
    time_kind: str | None = None
    for number, text in text_lines:
        line = _parse_line(number, text, header, options, time_kind)
        if lines and line.time_kind != time_kind:
            expected = f"time stamps in all lines or in none, as in line {lines[0].number}"
            raise unexpected(f"line {number}", expected, line.time_kind or "none")
        time_kind = line.time_kind
        if lines and line.values.shape[1] != lines[0].values.shape[1]:
            expected = f"{lines[0].values.shape[1]} channels as in line {lines[0].number}"
            raise unexpected(f"line {number}", expected, str(line.values.shape[1]))
        lines.append(line)
    return _contents(lines, options)


def _text_lines(path: Path, comments: tuple[bytes, ...] = ()) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither blank nor a comment.

    Comments may be in any encoding.
    """
    content = path.read_bytes().removeprefix(BOM)
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip(b" \r") or line.lstrip().startswith(comments):
            continue
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise unexpected(f"line {number}", "UTF-8 text", repr(line[:20])) from error
        yield number, text


def _read_header(lines: Iterator[tuple[int, str]]) -> _Header:
    """Read the lines up to @data.

    Without `@classLabel` the last field of a line is a class, unless there is a `@targetLabel`,
    which announces a number to predict.
    """
    flags: dict[str, bool] = {}
    classes: list[str] = []
    for number, line in lines:
        key, *words = line.split() or [""]
        key = key.lower()
        if key == "@data":
            break
        if not key.startswith("@"):
            raise unexpected(f"line {number}", "a line that starts with @, # or %", quote(line))
        if key in ("@classlabel", "@targetlabel"):
            flag = words[0].lower() if words else "true"
            if flag not in ("true", "false"):
                raise unexpected(f"line {number}, {key}", "true or false", quote(words[0]))
            flags[key] = flag == "true"
        if key == "@classlabel":
            classes = words[1:]
    else:
        raise unexpected("", "a header, a line @data, and a line per sequence", "no line @data")
    is_number = flags.get("@targetlabel", False)
    is_class = flags.get("@classlabel", "@targetlabel" not in flags)
    return _Header(
        has_target=is_class or is_number,
        has_label=is_class and not is_number,
        classes={class_name(name) for name in classes},
    )


def _parse_line(
    number: int, text: str, header: _Header, options: ReadOptions, time_kind: str | None
) -> _Line:
    where = f"line {number}"
    has_stamps = "(" in text
    fields = re.split(":" + OUTSIDE_PARENTHESES, text) if has_stamps else text.split(":")
    label = fields.pop() if header.has_target else ""
    if not fields:
        raise unexpected(where, "at least one channel, a colon and the label", "no colon")
    if not header.has_label:
        label = ""
    elif header.classes and class_name(label) not in header.classes | {""}:
        expected = f"a label of @classLabel ({join_names(sort_classes(header.classes))})"
        raise unexpected(where, expected, quote(label))
    if has_stamps:
        values, time_kind = _stamped_values(fields, where, options, time_kind)
        return _Line(number, label, values, time_kind)
    channels = []
    for i, field in enumerate(fields, start=1):
        channels.append(_parse_numbers(field.split(","), f"{where}, channel {i}"))
    num_steps = max(len(channel) for channel in channels)
    values = np.full((num_steps, len(channels)), np.nan, dtype=np.float32)  # (T, F)
    for i, channel in enumerate(channels):
        values[: len(channel), i] = channel
    return _Line(number, label, values)


def _stamped_values(
    fields: list[str], where: str, options: ReadOptions, time_kind: str | None
) -> tuple[np.ndarray, str | None]:
    """Return (T, F) values in the order of their time stamps, and the kind of these."""
    import polars as pl

    stamps: list[str] = []
    values: list[np.ndarray] = []
    for i, field in enumerate(fields, start=1):
        numbers: list[str] = []
        for cell in re.split("," + OUTSIDE_PARENTHESES, field):
            match = STAMPED_VALUE.fullmatch(cell.strip())
            if match is None:
                expected = "values with time stamps, (time,value)"
                raise unexpected(f"{where}, channel {i}", expected, quote(cell.strip()))
            stamps.append(match[1])
            numbers.append(match[2])
        values.append(_parse_numbers(numbers, f"{where}, channel {i}"))
    column = pl.Series("time", stamps)
    time_kind = time_kind or find_time_kind(column, options)
    keys = time_keys(column, time_kind, options, lambda i: f"{where}, time stamp {i + 1}")
    times, steps = np.unique(keys, return_inverse=True)
    aligned = np.full((len(times), len(fields)), np.nan, dtype=np.float32)  # (T, F)
    start = 0
    for i, channel in enumerate(values):
        channel_steps = steps[start : start + len(channel)]
        start += len(channel)
        if len(np.unique(channel_steps)) < len(channel):
            raise unexpected(f"{where}, channel {i + 1}", "distinct time stamps", "equal ones")
        aligned[channel_steps, i] = channel
    return aligned, time_kind


def _parse_numbers(cells: list[str], where: str) -> np.ndarray:
    """Return the cells as float32, NaN for missing values."""
    values = np.array([_parse_number(cell.strip()) for cell in cells]).astype(np.float32)
    refused = np.flatnonzero(np.isinf(values))
    if len(refused):
        at = int(refused[0])
        raise unexpected(f"{where}, value {at + 1}", FINITE_NUMBERS, quote(cells[at].strip()))
    return values


def _parse_number(cell: str) -> float:
    """Return the number, NaN for a missing value, or infinity for anything else."""
    if NUMBER.fullmatch(cell):  # float() alone would also accept "1_0"
        return float(cell)
    if is_missing(cell):
        return math.nan
    return math.inf


def _contents(lines: list[_Line], options: ReadOptions) -> FileContents:
    if not lines:
        raise unexpected("", "at least one line with values", "none")
    lengths = [len(line.values) for line in lines]
    values = np.concatenate([line.values for line in lines])
    sequences = Sequences(values, lengths, ids=row_ids(len(lines)))
    labels = class_names(np.array([line.label for line in lines], dtype=object))
    labels = complete_labels(labels, lambda i: f"line {lines[i].number}", options)
    return FileContents(sequences, labels, None, lines[0].time_kind)
