"""Times order the steps as slow, exact references do."""

import datetime as dt
import itertools
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data.readers import ReadOptions, read_file, times
from lightning_rnn.errors import DataError, OptionError

NO_OPTIONS = ReadOptions()


def keys_of(cells, options=NO_OPTIONS):
    column = pl.Series("t", cells)
    return times.time_keys(column, None, options, "row {}".format)


def assert_same_order(keys, references):
    """Compare every pair, also for equality."""
    pairs = list(zip(keys.tolist(), references, strict=True))
    for (key, reference), (other_key, other) in itertools.combinations(pairs, 2):
        assert (key < other_key, key == other_key) == (reference < other, reference == other)


@st.composite
def numbers(draw):
    digits = draw(st.integers(-(10**25), 10**25) | st.integers(-20, 20))
    shift = draw(st.integers(0, 12))
    text = f"{digits}" if shift == 0 else f"{digits / 10**shift:.{shift}f}"
    exponent = draw(st.sampled_from(["", "", "", "e3", "E-5", "e+0"]))
    return draw(st.sampled_from(["", " "])) + text + exponent


@given(st.lists(numbers(), min_size=2, max_size=8))
def test_numbers_of_any_width(cells):
    keys, kind = keys_of(cells)
    assert kind == times.NUMBERS
    assert_same_order(keys, [Fraction(cell.strip()) for cell in cells])


def test_nanoseconds_since_1970_keep_all_digits():
    keys, _ = keys_of(["1700000000000000001", "1700000000000000000", "17000000000000000005.5"])
    assert np.argsort(keys).tolist() == [1, 0, 2]
    keys, _ = keys_of(["1700000000.123456789", "1700000000.123456788"])
    assert keys[0] > keys[1]


@st.composite
def instants(draw):
    """Text and exact nanoseconds of a time in ISO 8601 with an offset."""
    moment = draw(
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2262, 1, 1)).map(
            lambda moment: moment.replace(microsecond=0)
        )
        | st.integers(0, 90).map(lambda s: dt.datetime(2024, 10, 27) + dt.timedelta(seconds=60 * s))
    )
    nanoseconds = draw(st.sampled_from([0, 500_000_000, 50_000_000, 123_456_789, 1]))
    fraction = f"{nanoseconds:09}".rstrip("0")
    text = moment.strftime(draw(st.sampled_from(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])))
    text += draw(st.sampled_from([".", ","])) + fraction if fraction else ""
    minutes = draw(st.integers(-12 * 60, 14 * 60) | st.sampled_from([0, 60, 120, -300]))
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    spellings = [f"{sign}{hours:02}:{rest:02}", f"{sign}{hours:02}{rest:02}"]
    if minutes == 0:
        spellings += ["Z", " UTC"]
    if rest == 0:
        spellings.append(f"{sign}{hours:02}")
    text += draw(st.sampled_from(spellings))
    seconds = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(seconds=1) - 60 * minutes
    return text, seconds * 10**9 + nanoseconds


@given(st.lists(instants(), min_size=2, max_size=8))
def test_dates_with_an_offset_are_instants(drawn):
    keys, kind = keys_of([text for text, _ in drawn])
    assert kind == times.INSTANTS
    assert_same_order(keys, [reference for _, reference in drawn])


@given(st.lists(st.datetimes(dt.datetime(1, 1, 1)), min_size=2, max_size=8), st.data())
def test_dates_without_an_offset(moments, data):
    cells = []
    references = []
    for moment in moments:
        precision = data.draw(st.sampled_from(["day", "minutes", "seconds", "microseconds"]))
        if precision == "day":
            cells.append(moment.date().isoformat())
            references.append(dt.datetime.combine(moment.date(), dt.time()))
        else:
            cells.append(moment.isoformat(data.draw(st.sampled_from("T ")), precision))
            references.append(dt.datetime.fromisoformat(cells[-1]))
    keys, kind = keys_of(cells)
    assert kind == times.DATES
    assert_same_order(keys, references)


@given(st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=8), st.data())
def test_clock_and_elapsed_times(milliseconds, data):
    cells = []
    for value in milliseconds:
        seconds, rest = divmod(abs(value), 1000)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        fraction = f".{rest:03}" if rest else data.draw(st.sampled_from(["", ".0", ".000"]))
        width = data.draw(st.sampled_from([1, 2]))
        cells.append(
            f"{'-' if value < 0 else ''}{hours:0{width}}:{minutes:02}:{seconds:02}{fraction}"
        )
    keys, kind = keys_of(cells)
    assert kind == times.CLOCK_TIMES
    assert_same_order(keys, milliseconds)


@pytest.mark.parametrize(
    ("cells", "options", "order"),
    [
        (["48:00", "9:00", "10:00"], {}, [1, 2, 0]),
        (["10:00", "9:00:30", "9:00"], {}, [2, 1, 0]),
        (["10,5", "9,25"], {"decimal_comma": True}, [1, 0]),
        (["1/10/2023 5:00 PM", "1/10/2023 11:00 AM"], {"time_format": "%d/%m/%Y %I:%M %p"}, [1, 0]),
        (["10.5", "10.25"], {"time_format": "%S%.f"}, None),
        (["1:00:10.5", "1:00:10.25"], {"time_format": "%H:%M:%S%.f"}, [1, 0]),
        (["9999-01-01 9:00", "1600-01-02 9:00"], {"time_format": "%Y-%m-%d %H:%M"}, [1, 0]),
        (
            ["2024-01-01 12:00 +0100", "2024-01-01 12:30 +0200"],
            {"time_format": "%Y-%m-%d %H:%M %z"},
            [1, 0],
        ),
    ],
)
def test_order(cells, options, order):
    if order is None:
        with pytest.raises(DataError, match="row 0: expected a time as"):
            keys_of(cells, ReadOptions(**options))
    else:
        keys, _ = keys_of(cells, ReadOptions(**options))
        assert np.argsort(keys).tolist() == order


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["t1", "t2"], "row 0: expected a number, an ISO 8601 date, .* set time_format, got 't1'"),
        (["1", "x"], "row 1: expected numbers as in the first row .* set time_format.*, got 'x'"),
        (["1", "NA"], "row 1: expected a time, got a missing value"),
        ([None, "1"], "row 0: expected a time, got a missing value"),
        (["2024-01-01", "2024-01-01T00:00Z"], "row 1: expected dates without an offset to UTC as"),
        (["2024-01-01T00:00Z", "2024-01-01T00:00"], "row 1: expected dates with an offset to UTC"),
        (["2024-01-01", "2023-02-30"], "row 1: expected a day of the calendar, got '2023-02-30'"),
        (["2024-01-01", "2024-01-01T25:00"], "row 1: expected dates without an offset"),
        (["2024-01-01T00:00:00.1234567891"], "row 0: expected a number, an ISO 8601 date"),
        (["9:00", "9:60"], "row 1: expected clock or elapsed times as in the first row"),
        (["0:59:30", "59:30"], "row 1: expected H:MM:SS as in other rows, got '59:30'"),
        (["9:00 AM"], "row 0: .* set time_format, got '9:00 AM'"),
        (["1", "inf"], "row 1: expected numbers"),
        (["1", "1_0"], "row 1: expected numbers"),
        (["1", "1e9999"], "row 1: expected numbers"),
        (["٣", "1"], "row 0: expected a number"),
    ],
)
def test_refused(cells, message):
    with pytest.raises(DataError, match=message):
        keys_of(cells)


def test_a_format_that_polars_refuses():
    with pytest.raises(DataError, match="time_format: expected a format of polars, got '%Y %H' "):
        keys_of(["2024 1"], ReadOptions(time_format="%Y %H"))


@pytest.mark.parametrize("time_format", ["%H:%M:%S.%f", "%m/%d", "day %d", "%b %d %H:%M", "%Y %Z"])
def test_formats_that_would_be_read_wrongly(time_format):
    with pytest.raises(OptionError, match="time_format: expected"):
        ReadOptions(time_format=time_format)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (pl.Int16, times.NUMBERS),
        (pl.Float32, times.NUMBERS),
        (pl.Date, times.DATES),
        (pl.Datetime("ms"), times.DATES),
        (pl.Datetime("us", "Europe/Berlin"), times.INSTANTS),
        (pl.Duration, times.CLOCK_TIMES),
        (pl.Time, times.CLOCK_TIMES),
    ],
)
def test_times_stored_by_parquet(tmp_path, dtype, kind):
    frame = pl.DataFrame({"id": [1, 1, 1], "t": [30, 2, 10], "v": [3.0, 1.0, 2.0], "label": "x"})
    frame.with_columns(pl.col("t").cast(pl.Int64).cast(dtype)).write_parquet(tmp_path / "a.parquet")
    contents = read_file(tmp_path / "a.parquet", ReadOptions(id_column="id", time_column="t"))
    assert contents.sequences.values.flatten().tolist() == [1, 2, 3]
    assert contents.time_kind == kind


def test_times_stored_as_categories(tmp_path):
    frame = pl.DataFrame({"id": [1, 1], "t": ["10:00", "9:00"], "v": [2.0, 1.0], "label": "x"})
    frame.with_columns(pl.col("t").cast(pl.Categorical)).write_parquet(tmp_path / "a.parquet")
    contents = read_file(tmp_path / "a.parquet", ReadOptions(id_column="id", time_column="t"))
    assert contents.sequences.values.flatten().tolist() == [1, 2]


@settings(max_examples=50)
@given(stamps=st.lists(st.integers(-50, 50), min_size=1, max_size=6, unique=True))
def test_time_stamps_order_the_steps_of_ts_files(tmp_path_factory, stamps):
    path = tmp_path_factory.mktemp("stamps") / "a.ts"
    channels = [",".join(f"({t},{i}{abs(t)})" for t in stamps) for i in (1, 2)]
    path.write_text("@data\n" + ":".join([*channels, "x"]) + "\n")
    expected = [[float(f"1{abs(t)}"), float(f"2{abs(t)}")] for t in sorted(stamps)]
    assert read_file(path).sequences.values.tolist() == expected
