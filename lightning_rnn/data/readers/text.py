"""Readers of .ts files (sktime, aeon) and .tsv files (UCR)."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightning_rnn.categories import NUMBER, class_name, is_missing
from lightning_rnn.data.readers.class_names import class_names, sort_classes
from lightning_rnn.data.readers.contents import (
    FINITE_NUMBERS,
    FLOAT32_OVERFLOW,
    FileContents,
    ReadOptions,
    complete,
    join_names,
    quote,
    unexpected,
)
from lightning_rnn.data.readers.limits import bounded_lines, utf8_lines
from lightning_rnn.data.readers.table_rows import plain_frame
from lightning_rnn.data.readers.times import time_keys
from lightning_rnn.data.sequences import Sequences

# a value with a time stamp: (2007-01-01 00:00:00,241.97)
STAMPED_VALUE = re.compile(r"\(([^()]*),([^(),]*)\)")
EXACT_INTEGERS = 2**53  # float64 holds all integers below
NUMBER_BYTES = b"0123456789+-.eE "  # of which float() takes only what `NUMBER` matches
OUTSIDE_PARENTHESES = r"(?![^(]*\))"


@dataclass(frozen=True)
class _Line:
    """A sequence with its label as written, (T, F) values, and T time stamps or none."""

    number: int
    label: str
    values: np.ndarray
    stamps: list[str]


@dataclass(frozen=True)
class _Header:
    """What a .ts file announces; the target is a class or a number to predict."""

    has_target: bool
    has_label: bool
    classes: set[str]  # empty if not declared
    has_stamps: bool
    has_equal_lengths: bool
    num_channels: int | None  # None if not declared
    num_steps: int | None  # None if not declared, or if lengths differ


def read_tsv(path: Path, options: ReadOptions) -> FileContents:
    """Read lines of a label and the steps of one feature, separated by tabs, without a header."""
    contents = _read_plain_tsv(path, options)
    if contents is not None:
        return contents
    lines: list[_Line] = []
    for number, text in _text_lines(path, options):
        label, *cells = text.split("\t")
        width = len(lines[0].values) if lines else max(1, len(cells))
        if len(cells) != width:
            expected = f"{width + 1} cells separated by tabs, the label first"
            raise unexpected(f"line {number}", expected, str(len(cells) + 1))
        values = _parse_numbers(cells, f"line {number}")
        lines.append(_Line(number, label, values[:, None], stamps=[]))
    return _contents(lines, options)


def _read_plain_tsv(path: Path, options: ReadOptions) -> FileContents | None:
    """Read lines of a label and numbers at once, None if any has something else or is wrong."""
    import polars as pl

    with path.open("rb") as file:
        num_tabs = next(bounded_lines(file, options)).count(b"\t")
    schema = {"label": pl.String} | {str(i): pl.Float64 for i in range(num_tabs)}
    frame = plain_frame(path.read_bytes(), schema, separator="\t")
    if frame is None:
        return None
    values = frame[:, 1:].to_numpy()  # (N, T), NaN where a cell is empty or missing
    # NaN and large numbers are read line by line, which says what is wrong with them
    if not (values.min() > -EXACT_INTEGERS and values.max() < EXACT_INTEGERS):
        return None
    num_lines = len(values)
    labels = frame["label"].fill_null("").to_numpy()
    lengths = np.full(num_lines, num_tabs)
    return _labelled(values.reshape(-1, 1), lengths, labels, range(1, num_lines + 1), options)


def read_ts(path: Path, options: ReadOptions) -> FileContents:
    """Read a header, then lines of channels and a label separated by colons.

    If values have time stamps, the same in all channels of a line, these order the steps.
    """
    text_lines = _text_lines(path, options, comments=(b"#", b"%"))
    header = _read_header(text_lines)
    if options.require_labels and not header.has_label and not options.has_labels_elsewhere:
        raise unexpected("", "@classLabel true and the classes", "a header without class labels")
    lines: list[_Line] = []
    for number, text in text_lines:
        line = _parse_line(number, text, header)
        lines.append(line)
        first = lines[0]
        if header.has_equal_lengths and header.num_steps is None:
            header = replace(header, num_steps=len(line.values))
        if line.values.shape[1] != first.values.shape[1]:
            expected = f"{first.values.shape[1]} channels as in line {first.number}"
            raise unexpected(f"line {number}", expected, str(line.values.shape[1]))
        if bool(line.stamps) != bool(first.stamps):
            expected = f"time stamps in all lines or in none, as in line {first.number}"
            raise unexpected(f"line {number}", expected, quote(text))
    return _contents(lines, options)


def _text_lines(
    path: Path, options: ReadOptions, comments: tuple[bytes, ...] = ()
) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither blank nor a comment."""
    with path.open("rb") as file:
        for number, line in utf8_lines(bounded_lines(file, options), comments):
            text = line.rstrip("\r\n")
            if "\r" in text:
                raise unexpected(f"line {number}", "lines that end in \\n or \\r\\n", "\\r alone")
            if text.strip(" "):
                yield number, text


def _read_header(lines: Iterator[tuple[int, str]]) -> _Header:
    """Read the lines up to @data.

    Without `@classLabel` the last field of a line is a class, unless there is a `@targetLabel`,
    which announces a number to predict.
    """
    flags: dict[str, bool] = {}
    sizes: dict[str, int] = {}
    classes: list[str] = []
    for number, line in lines:
        key, *words = line.split() or [""]
        key = key.lower()
        if key == "@data":
            break
        if not key.startswith("@"):
            raise unexpected(f"line {number}", "a line that starts with @, # or %", quote(line))
        if key in ("@dimension", "@dimensions", "@serieslength") and " ".join(words).isdecimal():
            sizes[key.removesuffix("s")] = int(words[0])
        if key in ("@classlabel", "@targetlabel", "@timestamps", "@equallength"):
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
    if not flags.get("@equallength", True):
        sizes.pop("@serieslength", None)  # in the archives, the length of the longest sequence
    return _Header(
        has_target=is_class or is_number,
        has_label=is_class and not is_number,
        classes={class_name(name) for name in classes},
        has_stamps=flags.get("@timestamps", False),
        has_equal_lengths=flags.get("@equallength", False),
        num_channels=sizes.get("@dimension"),
        num_steps=sizes.get("@serieslength"),
    )


def _parse_line(number: int, text: str, header: _Header) -> _Line:
    where = f"line {number}"
    if header.has_stamps and "(" not in text:
        raise unexpected(where, "values with time stamps, (time,value)", "none")
    fields = re.split(":" + OUTSIDE_PARENTHESES, text) if "(" in text else text.split(":")
    label = fields.pop() if header.has_target else ""
    if not fields:
        raise unexpected(where, "at least one channel, a colon and the label", "no colon")
    if not header.has_label:
        label = ""
    elif header.classes and class_name(label) not in header.classes | {""}:
        expected = f"a label of @classLabel ({join_names(sort_classes(header.classes))})"
        raise unexpected(where, expected, quote(label))
    if header.num_channels not in (None, len(fields)):
        expected = f"{header.num_channels} channels, as @dimensions says"
        raise unexpected(where, expected, str(len(fields)))
    channels: list[np.ndarray] = []
    stamps: list[str] = []
    for i, field in enumerate(fields, start=1):
        place = f"{where}, channel {i}"
        cells = field.split(",")
        if "(" in text:
            cells, channel_stamps = _split_stamps(field, place)
            stamps = stamps or channel_stamps
            if channel_stamps != stamps:
                raise unexpected(place, "the time stamps of channel 1", "others")
        if header.num_steps not in (None, len(cells)):
            expected = f"{header.num_steps} values, as @seriesLength or @equalLength says"
            raise unexpected(place, expected, str(len(cells)))
        channels.append(_parse_numbers(cells, place))
    num_steps = max(len(channel) for channel in channels)
    values = np.full((num_steps, len(channels)), np.nan)  # (T, F)
    for i, channel in enumerate(channels):
        values[: len(channel), i] = channel
    return _Line(number, label, values, stamps)


def _split_stamps(field: str, place: str) -> tuple[list[str], list[str]]:
    """Return values and time stamps of a channel."""
    values: list[str] = []
    stamps: list[str] = []
    for cell in re.split("," + OUTSIDE_PARENTHESES, field):
        match = STAMPED_VALUE.fullmatch(cell.strip())
        if match is None:
            raise unexpected(place, "values with time stamps, (time,value)", quote(cell.strip()))
        stamps.append(match[1].strip())
        values.append(match[2])
    return values, stamps


def _parse_numbers(cells: list[str], place: str) -> np.ndarray:
    """Return the cells as numbers, NaN for missing values."""
    if not "".join(cells).encode().translate(None, NUMBER_BYTES):
        with suppress(ValueError):  # found below
            array = np.array(list(map(float, cells)))
            if np.abs(array).max() < EXACT_INTEGERS:
                return array
    numbers: list[float] = []
    for i, cell in enumerate(cells, start=1):
        text = cell.strip()
        number = math.inf
        if NUMBER.fullmatch(text):  # float() alone would also accept "1_0"
            number = float(text)
        elif is_missing(text):
            number = math.nan
        if abs(number) >= FLOAT32_OVERFLOW:
            raise unexpected(f"{place}, value {i}", FINITE_NUMBERS, quote(text))
        is_integer = abs(number) >= EXACT_INTEGERS and text.lstrip("+-").isdecimal()
        if is_integer and int(text) != int(number):
            raise unexpected(f"{place}, value {i}", "a number that float64 holds", quote(text))
        numbers.append(number)
    return np.array(numbers)


def _contents(lines: list[_Line], options: ReadOptions) -> FileContents:
    if not lines:
        raise unexpected("", "at least one line with values", "none")
    time_kind: str | None = None
    values = []
    for line in lines:
        order = np.arange(len(line.values))
        if line.stamps:
            order, time_kind = _order_by_time(line, time_kind, options)
        values.append(line.values[order])
    lengths = np.array([len(steps) for steps in values])
    labels = np.array([line.label for line in lines], dtype=object)
    numbers = [line.number for line in lines]
    contents = _labelled(np.concatenate(values), lengths, labels, numbers, options)
    return replace(contents, time_kind=time_kind)


def _labelled(
    values: np.ndarray,
    lengths: np.ndarray,
    raw_labels: np.ndarray,
    numbers: Sequence[int],
    options: ReadOptions,
) -> FileContents:
    """Return the sequences of the lines with these numbers, with their labels as written."""
    sequences = Sequences(values, lengths, missing_values=options.missing_values)
    labels = complete(class_names(raw_labels), "a label", lambda i: f"line {numbers[i]}", options)
    return FileContents(sequences, labels, None)


def _order_by_time(
    line: _Line, time_kind: str | None, options: ReadOptions
) -> tuple[np.ndarray, str]:
    """Return the order of the steps and the kind of their time stamps."""
    import polars as pl

    where = f"line {line.number}"
    stamps = pl.Series(line.stamps)
    keys, kind = time_keys(stamps, time_kind, options, lambda i: f"{where}, time stamp {i + 1}")
    if len(np.unique(keys)) < len(keys):
        raise unexpected(where, "distinct time stamps", "equal ones")
    return np.argsort(keys), kind
