"""Small files as people have them, in tests/files/cases, each with its right answer."""

from pathlib import Path

import pytest

from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.data.readers.class_names import check_not_continuous
from lightning_rnn.errors import DataError

CASES = Path(__file__).parents[3] / "files" / "cases"
TIMES = {"id_column": "id", "time_column": "time"}


def values_of_first_sequence(name, **options):
    sequences = read_file(CASES / name, ReadOptions(**TIMES, **options)).sequences
    return sequences.values[: sequences.lengths[0]].flatten().tolist()


@pytest.mark.parametrize(
    ("name", "options", "values"),
    [
        ("time_clock_hours.csv", {}, [1, 2, 3]),
        ("time_us_dates.csv", {"time_format": "%m/%d/%Y"}, [1, 2, 3]),
        ("time_zones.csv", {}, [1, 2]),
        ("time_fraction.csv", {}, [1, 2]),
        ("semicolon_decimal_comma.csv", {"decimal_comma": True}, [3.5, 4.25]),
        ("semicolon_decimal_comma.csv", {"separator": ";", "decimal_comma": True}, [3.5, 4.25]),
        ("tabs.csv", {}, [3.5]),
        ("tabs.csv", {"separator": "\t"}, [3.5]),
        ("tabs.csv", {"separator": r"\t"}, [3.5]),
    ],
)
def test_values(name, options, values):
    assert values_of_first_sequence(name, **options) == values


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "time_us_dates.csv",
            {},
            "line 2, column 'time': expected .* time_format, got '9/30/2023'",
        ),
        ("time_names.csv", {}, "line 2, column 'time': expected .* time_format, got 't1'"),
        ("time_one_missing.csv", {}, "line 5, column 'time': expected a time, got a missing value"),
        ("label_na.csv", {}, "line 3: expected a label in every row, got a missing value"),
        ("label_null.csv", {}, "line 3: expected a label in every row, got a missing value"),
        ("first_label_only.csv", {}, "line 3: expected a label in every row, got a missing value"),
        ("id_na.csv", {}, "line 3: expected an id, got a missing value"),
        ("semicolon_decimal_comma.csv", {}, "line 2, column 'v': .* decimal_comma=True, got '3,5'"),
        (
            "semicolon_decimal_comma.csv",
            {"separator": ","},
            "line 2: expected 1 cells .* separator",
        ),
        ("value_epoch_seconds.csv", {}, "feature 'v': .* float32 tells apart .* up to 59$"),
        ("tabs.csv", {"separator": ";"}, "one of the columns .*separator.*, got 'id'"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(DataError, match=message):
        read_file(CASES / name, ReadOptions(**TIMES, **options))


def test_one_class_has_one_name():
    assert read_file(CASES / "label_half.csv", ReadOptions(**TIMES)).labels.tolist() == [
        "0.5",
        "0.5",
        "1.5",
    ]
    booleans = read_file(CASES / "label_bool.csv", ReadOptions(**TIMES))
    assert booleans.labels.tolist() == ["true", "false"]


def test_a_continuous_target_is_refused():
    contents = read_file(CASES / "continuous_target.csv", ReadOptions(id_column="id"))
    with pytest.raises(DataError, match="12 different numbers in 12 sequences, which look like"):
        check_not_continuous(contents.labels)
