"""Readers: good files, broken files, agreement of formats, real files, and bytes at random."""

import gzip
import io
import os
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_rnn.categories import class_name
from lightning_rnn.data import pack as pack_module
from lightning_rnn.data.readers import FileContents, ReadOptions, hdf5, read_file
from lightning_rnn.data.readers import arrays as array_files
from lightning_rnn.data.readers.checked_folders import mark_as_checked
from lightning_rnn.data.readers.class_names import class_names, sort_classes
from lightning_rnn.data.readers.contents import FINITE_NUMBERS
from lightning_rnn.errors import DataError

FILES = Path(__file__).parents[3] / "files"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
NAN = float("nan")


@pytest.fixture
def refused(tmp_path, capfd, monkeypatch):
    """Write a file, read it, and return the message of its DataError.

    Tables are also packed in pieces of 8 bytes, which must fail with the same message.
    """

    def read(name, content, **options):
        path = tmp_path / name
        content(path) if callable(content) else path.write_bytes(
            content.encode() if isinstance(content, str) else content
        )
        with pytest.raises(DataError) as caught:
            read_file(path, ReadOptions(**options))
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        if path.suffix in (".csv", ".parquet") and "only_features" not in options:
            monkeypatch.setattr(
                pack_module, "CHUNK_BYTES", 8
            )  # read in many pieces, it is refused in the same words
            with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
                pack_module.pack(input=str(path), output=str(tmp_path / "packed"), **options)
            assert not list(tmp_path.glob("*packed*"))
        assert capfd.readouterr().err == ""
        return message.removeprefix(f"{path}: ").replace(FINITE_NUMBERS, "numbers")

    return read


@pytest.fixture
def accepted(tmp_path):
    def read(name, content, **options):
        path = tmp_path / name
        content(path) if callable(content) else path.write_bytes(
            content.encode() if isinstance(content, str) else content
        )
        return read_file(path, ReadOptions(**options))

    return read


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def npy(values, **siblings):
    def write(path):
        np.save(path, values)
        for role, array in siblings.items():
            np.save(path.with_stem(f"{path.stem}_{role}"), array)

    return write


def parquet(**columns):
    return lambda path: pl.DataFrame(columns).write_parquet(path)


def as_lists(contents):
    s = contents.sequences
    return [
        s.values[o : o + n].tolist()
        for o, n in zip(s.offsets.tolist(), s.lengths.tolist(), strict=True)
    ]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (1, "1"),
        (1.0, "1"),
        (-1.0, "-1"),
        (np.float32(2), "2"),
        (np.int8(-3), "-3"),
        (1.5, "1.5"),
        (np.float32(1.1), "1.1"),
        ("1.0000000e+00", "1"),
        ("-1.0", "-1"),
        ("1e2", "100"),
        ("01", "01"),
        ("+1", "1"),
        (" walk ", "walk"),
        ("NA", ""),
        ("None", ""),
        ("n/a", ""),
        ("-", "-"),
        ("-0", "0"),
        ("-07", "-07"),
        (".5", "0.5"),
        ("5e-1", "0.5"),
        ("TRUE", "true"),
        ("False", "false"),
        ("-0.0e3", "0"),
        ("+00", "00"),
        ("1.50", "1.5"),
        (True, "true"),
        (np.bool_(False), "false"),
        (b"x", "x"),
        ("1e400", "1e400"),
        (1e30, "1e+30"),
        (None, ""),
        (NAN, ""),
        ("NaN", ""),
        (" ", ""),
        ("-0.0", "0"),
        ("1_0.0", "1_0.0"),
    ],
)
def test_class_name(raw, name):
    assert class_name(raw) == name


def test_class_names_and_their_order():
    assert class_names(np.array([1.0, NAN, 2.0])).tolist() == ["1", "", "2"]
    assert sort_classes(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert sort_classes(["10", "9", "a"]) == ["10", "9", "a"]
    assert sort_classes(["1", "01"]) == ["01", "1"]


# --- the file itself ------------------------------------------------------------------------------


def test_no_such_file_folder_extension_empty(refused, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        read_file(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="expected at least one file, got none"):
        read_file(tmp_path)
    assert (
        refused("a.txt", "x") == "expected one of the extensions .ts, .tsv, .npz,"
        " .npy, .h5, .hdf5, .csv, .csv.gz, .parquet, .xlsx (.tsv for UCR text files, with tabs "
        "between label and values), got '.txt'"
    )
    for name in ("a.ts", "a.tsv", "a.npz", "a.npy", "a.csv", "a.parquet"):
        assert refused(name, "") == "the file is empty"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        read_file(path)


@pytest.mark.parametrize("name", ["a.ts", "a.tsv", "a.npz", "a.npy"])
def test_formats_without_columns_refuse_column_options(refused, name):
    for option in ("id_column", "time_column"):
        assert f"{option}: expected None, because " in refused(name, "x", **{option: "c"})
    if "ts" in name:
        assert "group_column: expected None, because " in refused(name, "x", group_column="c")


# --- .ts ------------------------------------------------------------------------------------------

TS = "@problemName x\n@classLabel true 1 2\n@data\n"


def test_ts_channels_missing_values_comments_and_case(accepted):
    text = (
        "# one\r\n@CLASSLABEL TRUE a 1.0 b\r\n% two\r\n@Data\r\n\r\n1,"
        "?,3:4,5,NaN:a\r\n# three\r\n1,nan:2,?: 1 \r\n#N/A:3:b\r\n"
    )
    contents = accepted("A.TS", text)
    assert contents.labels.tolist() == ["a", "1", "b"]
    assert contents.feature_names is None
    expected = [[[1, 4], [NAN, 5], [3, NAN]], [[1, 2]], [[NAN, 3]]]
    np.testing.assert_equal(as_lists(contents), expected)
    assert contents.sequences.ids.tolist() == ["0", "1", "2"]


def test_ts_shorter_channels_are_padded(accepted):
    np.testing.assert_equal(
        as_lists(accepted("a.ts", TS + "1,2,3:4:1\n")), [[[1, 4], [2, NAN], [3, NAN]]]
    )


def test_ts_time_stamps(accepted):
    text = (
        "@timestamps true\n@data\n"
        "(2007-01-01 00:01:00,?),(2007-01-01 00:00:00,241.97),(2007-01-01 00:02:00,3):"
        "(2007-01-01 00:01:00,6), (2007-01-01 00:00:00,5), (2007-01-01 00:02:00,?):up\n"
    )
    contents = accepted("a.ts", text)
    expected = [[np.float32(241.97), 5], [NAN, 6], [3, NAN]]
    np.testing.assert_equal(as_lists(contents), [expected])
    assert contents.labels.tolist() == ["up"]
    assert contents.time_kind == "dates without an offset to UTC"
    contents = accepted("a.ts", TS + "(10,1),(9,2):1\n(0,3):2\n")
    assert (as_lists(contents), contents.time_kind) == ([[[2], [1]], [[3]]], "numbers")


def test_ts_without_labels(accepted, refused):
    for header in ("@classLabel false\n", "@targetlabel false\n"):
        assert as_lists(accepted("a.ts", header + "@data\n1,2:3,4\n", require_labels=False)) == [
            [[1, 3], [2, 4]]
        ]
        assert "expected @classLabel true" in refused("a.ts", header + "@data\n1,2:3,4\n")
    contents = accepted("a.ts", "@targetLabel true\n@data\n1,2:3.5\n", require_labels=False)
    assert (as_lists(contents), contents.labels) == ([[[1], [2]]], None)
    assert accepted("a.ts", TS + "1,2:?\n1,2:1\n", require_labels=False).labels.tolist() == [
        "",
        "1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "@timeStamps true\n@classLabel true 1 2\n@data\n(1,5),(2,6):1\n3,4:2\n",
            "line 5: expected values with time stamps, (time,value), got none",
        ),
        (TS + "1,x,2:1\n", "line 4, channel 1, value 2: expected numbers, got 'x'"),
        (TS + "1:1,inf:1\n", "line 4, channel 2, value 2: expected numbers, got 'inf'"),
        (TS + "1e39:1\n", "line 4, channel 1, value 1: expected numbers, got '1e39'"),
        (TS + "1_0:1\n", "line 4, channel 1, value 1: expected numbers, got '1_0'"),
        (TS + "1:2:1\n1:1\n", "line 5: expected 2 channels as in line 4, got 1"),
        (
            TS + "1,2,3\n",
            "line 4: expected at least one channel, a colon and the label, got no colon",
        ),
        (TS + "1:3\n", "line 4: expected a label of @classLabel ('1', '2'), got '3'"),
        (TS + "1:?\n", "line 4: expected a label, got a missing value"),
        (TS + "1: \n", "line 4: expected a label, got a missing value"),
        (TS, "expected at least one line with values, got none"),
        (
            "@classLabel true 1\n1,2:1\n",
            "line 2: expected a line that starts with @, # or %, got '1,2:1'",
        ),
        (
            "@classLabel true 1\n",
            "expected a header, a line @data, and a line per sequence, got no line @data",
        ),
        (
            "@classLabel maybe\n@data\n",
            "line 1, @classlabel: expected true or false, got 'maybe'",
        ),
        (
            "@classLabel true 1\r@data\r1:1\r",
            "line 1: expected lines that end in \\n or \\r\\n, got",
        ),
        (TS.encode() + b"1,\xff:1\n", "line 4: expected UTF-8 text (for another one in a CSV "),
        (TS + "(1,2:1\n", "line 4, channel 1: expected values with time stamps, (time,value)"),
        (TS + "(1,2),3:1\n", "line 4, channel 1: expected values with time stamps, (time,value)"),
        (TS + "(1,2),(1.0,3):1\n", "line 4: expected distinct time stamps"),
        (TS + "(1,2):(2,2):1\n", "line 4, channel 2: expected the time stamps of channel 1, got"),
        (TS + "(1,2):1\n3:1\n", "line 5: expected time stamps in all lines or in none"),
        (TS + "3:1\n(1,2):1\n", "line 5: expected time stamps in all lines or in none"),
        (TS + "(1,2):1\n(2020-01-01,2):1\n", "line 5, time stamp 1: expected numbers as in the"),
        (TS + "(x,2):1\n", "line 4, time stamp 1: expected a number, an ISO 8601 date"),
        (
            "@dimensions 3\n" + TS + "1:2:1\n",
            "line 5: expected 3 channels, as @dimensions says, got 2",
        ),
        (
            "@dimension 1\n@data\n1:2:1\n",
            "line 3: expected 1 channels, as @dimensions says, got 2",
        ),
        (
            "@equalLength true\n@seriesLength 2\n" + TS + "1,2:3,4:1\n1,2:3:1\n",
            "line 7, channel 2: expected 2 values, as @seriesLength or @equalLength says, got 1",
        ),
        (
            "@SERIESLENGTH 3\n" + TS + "1,2:1\n",
            "line 5, channel 1: expected 3 values, as @seriesLength or @equalLength says, got 2",
        ),
        (
            "@equallength true\n" + TS + "1,2:1\n1,2,?:1\n",
            "line 6, channel 1: expected 2 values, as @seriesLength or @equalLength says, got 3",
        ),
        ("@equallength ?\n" + TS + "1:1\n", "line 1, @equallength: expected true or false, got"),
        (TS + "(1,2),(NA,2):1\n", "line 4, time stamp 2: expected a time, got a missing value"),
    ],
)
def test_ts_broken(refused, text, message):
    assert message in refused("a.ts", text)


def test_ts_sizes_as_archives_declare_them(accepted):
    lengths = "@equalLength false\n@seriesLength 182\n"  # of the longest sequence of both splits
    contents = accepted("a.ts", "@univariate true\n" + lengths + TS + "1,2,3:1\n1:2\n")
    assert contents.sequences.lengths.tolist() == [3, 1]
    equal = "@dimensions 2\n@equalLength true\n@seriesLength 3\n"
    contents = accepted("a.ts", equal + TS + "1,2,?:4,NaN,?:1\n1,2,3:4,5,6:2\n")
    assert contents.sequences.lengths.tolist() == [2, 3]
    unknown = accepted("a.ts", "@dimensions\n@seriesLength unknown\n" + TS + "1:2:1\n")
    assert as_lists(unknown) == [[[1, 2]]]


# --- .tsv -----------------------------------------------------------------------------------------


def test_tsv(accepted):
    contents = accepted("a.tsv", "1.0000000e+00\t1\t2\tNaN\r\n-1\tNaN\t2\t3\r\n")
    np.testing.assert_equal(as_lists(contents), [[[1], [2]], [[NAN], [2], [3]]])
    assert contents.labels.tolist() == ["1", "-1"]
    assert accepted("a.tsv", "NaN\t1\n", require_labels=False).labels is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1\t1\t2\n1\t1\n",
            "line 2: expected 3 cells separated by tabs, the label first, got 2",
        ),
        ("1\t1\r2\t1\r", "line 1: expected lines that end in \\n or \\r\\n, got \\r alone"),
        ("1 1 2\n", "line 1: expected 2 cells separated by tabs, the label first, got 1"),
        ("1\t1\n2\tx\n", "line 2, value 1: expected numbers, got 'x'"),
        ("1\t1\t-inf\n", "line 1, value 2: expected numbers, got '-inf'"),
        (
            "1\t1\n\t2\n",
            "line 2: expected a label, got a missing value",
        ),
        (
            "1\t1\n\t\n",
            "line 2: expected a label, got a missing value",
        ),
        ("\n\n", "expected at least one line with values, got none"),
    ],
)
def test_tsv_broken(refused, text, message):
    assert message in refused("a.tsv", text)


# --- .npz and .npy --------------------------------------------------------------------------------


def test_npz_shapes_dtypes_and_columns(accepted):
    x = np.arange(12, dtype=">i2").reshape(2, 3, 2)
    contents = accepted(
        "a.npz", npz(X=x, y=[1.0, -1.0], groups=[7, 8], ids=["a ", "b"]), group_column="any"
    )
    assert as_lists(contents) == x.tolist()
    assert contents.labels.tolist() == ["1", "-1"]
    assert contents.sequences.groups.tolist() == ["7", "8"]
    assert contents.sequences.ids.tolist() == ["a", "b"]
    ragged = accepted("a.npz", npz(X=x.reshape(6, 2), lengths=[1, 5], y=[True, False]))
    assert [len(s) for s in as_lists(ragged)] == [1, 5]
    assert ragged.labels.tolist() == ["true", "false"]
    assert ragged.sequences.groups is None
    assert as_lists(accepted("a.npz", npz(X=x[:, :, 0], y=[b"u", b"v"]))) == x[:, :, :1].tolist()
    assert accepted("a.npz", npz(X=x), require_labels=False).labels is None
    labels = accepted("a.npz", npz(X=x, y=[1.0, NAN]), require_labels=False).labels
    assert labels.tolist() == ["1", ""]
    assert accepted("a.npz", npz(X=x, y=[NAN, NAN]), require_labels=False).labels is None


X = np.ones((2, 3, 1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "expected an array 'X', got the arrays 'x'"),
        ({"X": X}, "expected an array y of class labels, got none"),
        ({"X": X, "y": [1]}, "y: expected numbers or text of shape (2,), got int64 (1,)"),
        (
            {"X": np.ones((3, 2)), "y": [1, 2, 1], "ids": ["a", "b", "a"]},
            "sequence 2: expected an id that no other sequence has, got 'a'",
        ),
        ({"X": X, "y": [1, NAN]}, "sequence 1: expected a label, got a missing value"),
        (
            {"X": X, "y": np.char.encode(["x", "é"], "latin-1")},
            "y: expected UTF-8 text (for Latin-1 store np.char.decode(array, 'latin-1')), got",
        ),
        ({"X": X, "y": ["a", "\ud800"]}, "surrogates not allowed"),
        ({"X": X * 1j, "y": [1, 2]}, "X: expected real numbers, got dtype complex128"),
        ({"X": X.astype(str), "y": [1, 2]}, "X: expected real numbers, got dtype <U32"),
        (
            {"X": X.astype(object), "y": [1, 2]},
            "X: expected an array of plain numbers or text, got one that cannot "
            "be loaded (Object arrays cannot be loaded when allow_pickle=False)",
        ),
        (
            {"X": X, "y": np.array(["a", None])},
            "y: expected an array of plain numbers or text, got one that cannot "
            "be loaded (Object arrays cannot be loaded when allow_pickle=False)",
        ),
        (
            {"X": X * np.inf, "y": [1, 2]},
            "sequence 0, step 0, feature 0: expected a finite float32 number",
        ),
        (
            {"X": X * 1e300, "y": [1, 2]},
            "sequence 0, step 0, feature 0: expected a finite float32 number",
        ),
        (
            {"X": X[:, 0, 0], "y": [1, 2]},
            "X: expected shape (N, T, F) or (N, T), or (steps, F) with lengths, got (2,)",
        ),
        (
            {"X": X, "lengths": [1, 2]},
            "X: expected shape (N, T, F) or (N, T), or (steps, F) with lengths, got (2, 3, 1)",
        ),
        (
            {"X": X[0], "lengths": [1, 1], "y": [1, 2]},
            "lengths: expected a sum of 3, the number of rows of values, got a sum of 2",
        ),
        (
            {"X": X[0], "lengths": [3, 0], "y": [1, 2]},
            "lengths: expected at least 1, got 0 for sequence 1",
        ),
        (
            {"X": X[0], "lengths": [2**62] * 3, "y": [1, 2, 3]},
            "lengths: expected a sum of 3, the number of rows of values, got a sum of 138",
        ),
        (
            {"X": X[0], "lengths": [1.0, 2.0], "y": [1, 2]},
            "lengths: expected integers, got dtype float64",
        ),
        (
            {"X": np.ones((0, 3, 1))},
            "X: expected shape (N, T, F) or (N, T), or (steps, F) with lengths, got (0, 3, 1)",
        ),
    ],
)
def test_npz_broken(refused, arrays, message):
    assert message in refused("a.npz", npz(**arrays))


def test_npz_groups_are_needed_when_asked_for(refused):
    assert "group_column: expected None, because there is no array groups, got 'g'" in refused(
        "a.npz", npz(X=X, y=[1, 2]), group_column="g"
    )


def lying_npz(shape, size=None):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", header.getvalue() + bytes(64))
    raw = packed.getvalue()
    if size is not None:  # the size in the central directory, which is the one that is believed
        at = raw.rindex(b"PK\x01\x02") + 24
        raw = raw[:at] + size.to_bytes(4, "little") + raw[at + 4 :]
    return raw


def test_npz_bombs_are_not_unpacked(refused):
    assert (
        "X: expected an array of plain numbers or text, got one that cannot be loaded (Unable "
        "to allocate 3.64 TiB for an array with shape (1000000000000,) and data type float32)"
        in refused("a.npz", lying_npz((10**6, 10**6, 1)))
    )
    assert (
        "X: expected an array of plain numbers or text, got one that cannot "
        "be loaded (EOF: reading array data, expected 262144 bytes got 64)"
        in refused("a.npz", lying_npz((1000, 10**6), 4_000_000_128))
    )
    assert "damaged, or not a .npz file" in refused("a.npz", "PK no zip at all")


def test_npy_stays_memory_mapped(accepted, tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    values = accepted("x.npy", npy(x, labels=[0, 1, 0, 1])).sequences.values
    assert values.dtype == torch.float32
    assert values.tolist() == x.reshape(-1, 2).tolist()
    with (tmp_path / "x.npy").open(
        "r+b"
    ) as file:  # a private mapping shows the file's later bytes until it is written
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(99).tobytes())
    assert values[-1, -1] == 99


def test_npy_siblings(accepted, refused):
    x = np.arange(6).reshape(6, 1)
    write = npy(x, lengths=[2, 4], labels=["a", "b"], groups=["g", "h"], ids=[5, 6])
    contents = accepted("x.npy", write, group_column="any")
    assert as_lists(contents) == [x[:2].tolist(), x[2:].tolist()]
    assert contents.labels.tolist() == ["a", "b"]
    assert (contents.sequences.groups.tolist(), contents.sequences.ids.tolist()) == (
        ["g", "h"],
        ["5", "6"],
    )
    assert "lengths: expected a sum of 6, the number of rows of values, got a sum of 5" in refused(
        "x.npy", npy(x, lengths=[2, 3])
    )
    assert "lengths: expected a sum of 6, the number of rows of values, got a sum of 10" in refused(
        "x.npy", npy(x, lengths=[7, 3])
    )
    assert refused("y.npy", npy(X, labels=np.array(["a", None]))).startswith(
        "y_labels.npy: expected an array of plain numbers or text, got a file that"
    )
    assert "expected an array z_labels.npy of class labels, got none" in refused("z.npy", npy(X))
    assert (
        "w.npy: expected an array of plain numbers or text, got a file that cannot be"
        in refused("w.npy", lambda p: (np.save(p, X), p.write_bytes(p.read_bytes()[:-1])))
    )
    assert (
        "v.npy: expected an array of plain numbers or text, got a file that cannot be"
        in refused("v.npy", "PK\x03\x04")
    )


# --- .csv and .parquet ----------------------------------------------------------------------------

LONG = {"id_column": "id", "time_column": "t"}


def test_csv_long(accepted):
    text = (
        "\ufeffid,t,a,label,b,g\r\nB,10,1,x,?,1\r\nA,2,"
        "NA,y,5,2\r\nB,9,3,x,nan,1\r\n\r\nA,1,,y,6,2\r\n"
    )
    contents = accepted("a.csv", text, **LONG, group_column="g")
    np.testing.assert_equal(as_lists(contents), [[[3, NAN], [1, NAN]], [[NAN, 6], [NAN, 5]]])
    assert contents.labels.tolist() == ["x", "y"]
    assert contents.feature_names == ["a", "b"]
    assert (contents.sequences.ids.tolist(), contents.sequences.groups.tolist()) == (
        ["B", "A"],
        ["1", "2"],
    )
    chosen = accepted("a.csv", text, **LONG, group_column="g", feature_columns=["b", "a"])
    assert chosen.feature_names == ["b", "a"]
    assert as_lists(chosen)[1][0][0] == 6


def test_csv_time_as_text_and_in_file_order(accepted):
    text = "id,t,a,label\n1,2020-01-02,2,x\n1,2020-01-01,1,x\n"
    assert as_lists(accepted("a.csv", text, **LONG)) == [[[1], [2]]]
    text = "id,a,label\n1,2,x\n2,7,x\n1,1,x\n"
    assert as_lists(accepted("a.csv", text, id_column="id")) == [[[2], [1]], [[7]]]
    big = 2**53
    text = f"id,t,a,label\n1,{big + 1},2,x\n1,{big},1,x\n"
    assert as_lists(accepted("a.csv", text, **LONG)) == [[[1], [2]]]


def test_csv_wide(accepted):
    contents = accepted("a.csv", 'who,"s,0",s1,label\n1,1,2,"N.A."\n2,3,,1.0\n', group_column="who")
    assert as_lists(contents) == [[[1], [2]], [[3]]]
    assert contents.labels.tolist() == ["N.A.", "1"]
    assert (contents.feature_names, contents.step_names) == (None, ["s,0", "s1"])
    assert accepted("a.csv", "a,b\n1,2\n", require_labels=False).labels is None
    labels = accepted("a.csv", "a,label\n1,x\n2,\n", require_labels=False).labels
    assert labels.tolist() == ["x", ""]
    assert as_lists(accepted("a.csv", "\r\n x^2 ,label\n\n1,x\n")) == [[[1]]]
    quoted = accepted("a.csv", 'a,label\n"1","x,\n""y"""\n\n2,z')
    assert (as_lists(quoted), quoted.labels.tolist()) == ([[[1]], [[2]]], ['x,\n"y"', "z"])
    inches = accepted("a.csv", 'a,label\n1,5"\n2,6"\n')
    assert inches.labels.tolist() == ['5"', '6"']


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a,label\n1,x\n2\n",
            {},
            "line 3: expected 2 cells as in the header "
            "(for others set, for example, separator=';', encoding='latin-1' or "
            "decimal_comma=True), got 1",
        ),
        (
            "a,label\n1,x\n\n2,y,z\n",
            {},
            "line 4: expected 2 cells as in the header "
            "(for others set, for example, separator=';', encoding='latin-1' or "
            "decimal_comma=True), got 3",
        ),
        (
            'a,label\n1,"x\ny"\n2\n',
            {},
            "line 4: expected 2 cells as in the header "
            "(for others set, for example, separator=';', encoding='latin-1' or "
            "decimal_comma=True), got 1",
        ),
        (
            "a,b,label\n1,2,x\n1,abc,x\n",
            {},
            "line 3, column 'b': expected numbers; id_column, time_column, group_column "
            "or category_columns must name a column of ids, times, groups or categories, got 'abc'",
        ),
        (
            "a,b,label\n1,2,x\n\n1,1e999,x\n",
            {},
            "line 4, column 'b': expected numbers, got '1e999'",
        ),
        ("a,label\n-inf,x\n", {}, "line 2, column 'a': expected numbers, got '-inf'"),
        ("a,label\n1e39,x\n", {}, "line 2, column 'a': expected numbers, got '1e39'"),
        (
            "id,a,label\np,1,x\np,2,x\nq,1,y\n",
            {},
            "line 2, column 'id': expected numbers; id_column, time_column, group_column or "
            "category_columns must name a column of ids, times, groups or categories, got 'p'",
        ),
        (
            "a,b\n1,2\n",
            {},
            "label_column: expected one of the columns 'a', 'b' (or labels_path, or folder_name), "
            "got 'label'",
        ),
        ("a,label\n1,\n", {}, "line 2: expected a label in every row, got a missing value"),
        ("a,label\n", {}, "expected at least one row, got none"),
        (
            "label\nx\n",
            {},
            "expected at least one column of a feature, got only the columns 'label'",
        ),
        (
            "a,a,label\n1,2,x\n",
            {},
            "line 1: expected a different name for every column, got 2 columns 'a'",
        ),
        (
            ",a,label\n1,2,x\n",
            {},
            "line 1: expected a name for every column (pandas writes an index without one: "
            "index=False), got none for column 1",
        ),
        (
            b"a,label\n1,\xff\n",
            {},
            "line 2: expected UTF-8 text (for another one in a CSV file set, for example, "
            "encoding='latin-1'), "
            "got byte b'\\xff'",
        ),
        (
            "a,label\n1,x\n",
            {"group_column": "g"},
            "group_column: expected one of the columns 'a', 'label', got 'g'",
        ),
        (
            "a,label\n1,x\n",
            {"id_column": "i"},
            "id_column: expected one of the columns 'a', 'label', got 'i'",
        ),
        (
            "a,label\n1,x\n",
            {"time_column": "a"},
            "time_column: expected also an id_column (file_name if each file is a sequence)",
        ),
        (
            "id,t,a,label\n1,1,1,x\n1,2,1,y\n",
            LONG,
            "line 3: expected label 'x' as in line 2, which has the same id, got 'y'",
        ),
        (
            "id,t,a,label\n1,1,1,x\n2,1,1,x\n1,1.0,1,x\n",
            LONG,
            "line 4: expected one row for each id and time, got id '1' and time '1.0' as in line 2",
        ),
        ("id,t,a,label\n1,1,1,x\n,1,1,x\n", LONG, "line 3: expected an id, got a missing value"),
        (
            "id,t,a,label\n1,1,1,x\n1, ,1,x\n",
            LONG,
            "line 3, column 't': expected a time, got a missing value",
        ),
        (
            "id,t,a,label\n1,1.5,1,x\n1,nan,1,x\n",
            LONG,
            "line 3, column 't': expected a time, got a missing value",
        ),
        (
            "id,t,a,z,label\n1,1,1,1,x\n",
            LONG | {"feature_columns": ["a", "b"]},
            "expected the features 'a', 'b', got no feature 'b'",
        ),
        (
            "id,t,a,z,label\n1,1,1,1,x\n",
            LONG | {"feature_columns": ["a"], "only_features": True},
            "expected the features 'a', got also 'z'",
        ),
        (
            "a,label\n1,x\n",
            {"feature_columns": ["a", "a"]},
            "feature_columns: expected each feature once, got 'a' twice",
        ),
        ("\n\n", {}, "the file is empty"),
        (
            'a,label\n1,x\n1,"x\n2,y\n',
            {},
            "line 3: expected lines that end in \\n or \\r\\n, and double quotes around whole "
            "cells, got unexpected end of data",
        ),
        (b"\xef\xbb\xbf", {}, "the file is empty"),
        ('a,label\n1,"x"y\n', {}, "line 2: expected lines that end in"),
    ],
)
def test_csv_broken(refused, text, options, message):
    assert message in refused("a.csv", text, **options)


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_columns_that_may_be_classes_are_named(tmp_path, extension):
    rows = "id,t,a,kind,step,fine,none\n1,1,5,x,0,1.5,\n1,2,6,x,1,2.5,\n"
    rows += "2,1,6,y,0,1.5,\n2,2,5,y,1,2.5,\n"
    path = tmp_path / f"a.{extension}"
    table = pl.read_csv(io.StringIO(rows))
    getattr(table, f"write_{extension}")(path)
    for options, names in ((LONG, "'kind'"), ({}, "'id', 't', 'a', 'kind', 'step'")):
        with pytest.raises(DataError, match=f"folder_name[)], of which {names} may be classes"):
            read_file(path, ReadOptions(**options))


def test_whole_numbers_as_ids_have_one_spelling(accepted):
    text = "id,t,a,g,label\n7,1,1,3,x\n7.0,2,2,3.0,x\n07,1,5,3.10,y\n7.00,3,3,3,x\n7.5,1,4,v1.0,y\n"
    contents = accepted("a.csv", text, **LONG, group_column="g")
    assert contents.sequences.ids.tolist() == ["7", "07", "7.5"]
    assert contents.sequences.groups.tolist() == ["3", "3.10", "v1.0"]
    assert as_lists(contents) == [[[1], [2], [3]], [[5]], [[4]]]
    text = "id;t;a;g;label\n7;1;1;3,0;x\n7,0;2;2;3;x\n7.0;1;3;3;y\n"
    contents = accepted("b.csv", text, **LONG, group_column="g", decimal_comma=True)
    assert contents.sequences.groups.tolist() == ["3", "3"]
    assert contents.sequences.ids.tolist() == ["7", "7.0"]
    arrays = npz(X=np.ones((3, 1)), y=[0, 1, 0], ids=["7.0", "07", "7.5"], groups=["3.0", "3", "v"])
    contents = accepted("a.npz", arrays, group_column="g")
    assert contents.sequences.ids.tolist() == ["7", "07", "7.5"]
    assert contents.sequences.groups.tolist() == ["3", "3", "v"]


def test_any_row_of_a_sequence_to_predict_may_have_the_label(accepted, refused):
    options = {"id_column": "id", "require_labels": False}
    text = "id,a,label\np,1,\nq,2,down\np,3,up\nq,4,\nr,5,NA\n"
    contents = accepted("a.csv", text, **options)
    assert contents.sequences.ids.tolist() == ["p", "q", "r"]
    assert contents.labels.tolist() == ["up", "down", ""]
    message = refused("a.csv", text + "p,6,\np,7,down\n", **options)
    assert message.startswith("line 8: expected label 'up' as in line 4, which has the same id")


def test_the_index_of_pandas_is_no_feature(accepted):
    columns = {"a": [1.0, 2.0], "label": ["x", "y"], "__index_level_0__": [7, 3]}
    assert accepted("a.parquet", parquet(**columns)).step_names == ["a"]


def test_csv_groups(refused):
    text = "id,t,a,g,label\n1,1,1,u,x\n1,2,1,v,x\n"
    assert "line 3: expected group 'u' as in line 2, which has the same id, got 'v'" in refused(
        "a.csv", text, **LONG, group_column="g"
    )
    assert "line 3: expected a group, got a missing value" in refused(
        "a.csv", "a,g,label\n1,u,x\n1,,x\n", group_column="g"
    )


def test_parquet(accepted):
    columns = {
        "id": [2, 2, 1],
        "t": [1.5, 0.5, 0.0],
        "a": [1, None, 3],
        "b": [True, False, None],
        "label": [1.0, 1.0, 2.0],
    }
    contents = accepted("a.parquet", parquet(**columns), **LONG)
    np.testing.assert_equal(as_lists(contents), [[[NAN, 0], [1, 1]], [[3, NAN]]])
    assert contents.labels.tolist() == ["1", "2"]
    assert (contents.sequences.ids.tolist(), contents.feature_names) == (["2", "1"], ["a", "b"])
    assert as_lists(accepted("[1].parquet", parquet(a=[1.0], b=[2.0], label=[True]))) == [
        [[1], [2]]
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": ["1"], "label": ["x"]},
            "column 'a': expected numbers or booleans; id_column, time_column, group_column "
            "or category_columns must name a column of ids, times, groups or categories, "
            "got String",
        ),
        (
            {"a": [[[1.0]]], "label": ["x"]},
            "column 'a': expected numbers or booleans, got List(Float64)",
        ),
        (
            {"a": [1.0], "label": [[["x"]]]},
            "column 'label': expected text or numbers, got List(String)",
        ),
        (
            {"a": [1.0, np.inf], "label": ["x", "y"]},
            "row 1, column 'a': expected numbers, got 'inf'",
        ),
        (
            {"a": [1.0, 1e300], "label": ["x", "y"]},
            "row 1, column 'a': expected numbers, got '1e+300'",
        ),
        (
            {"a": [1.0, 2.0], "label": ["x", None]},
            "row 1: expected a label in every row, got a missing value",
        ),
        (
            {"a": [1.0]},
            "label_column: expected one of the columns 'a' (or labels_path, or folder_name), "
            "got 'label'",
        ),
        (
            {"a": pl.Series([], dtype=pl.Float64), "label": []},
            "expected at least one row, got none",
        ),
    ],
)
def test_parquet_broken(refused, columns, message):
    assert message in refused("a.parquet", parquet(**columns))


def test_parquet_damaged(refused):
    assert "expected a Parquet file, got a file that does not start with PAR1" in refused(
        "a.parquet", "not parquet"
    )
    assert "damaged, or not a .parquet file" in refused("a.parquet", "PAR1 and then nothing PAR1")


# --- agreement and real files ---------------------------------------------------------------------


def test_formats_agree(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4)).astype(np.float32), ["1", "2", "1", "2", "2"]
    x[1, 2:], x[3, 1] = np.nan, np.nan
    cells = [[str(v) for v in row] for row in x]
    lines = [",".join(row) + f":{label}" for row, label in zip(cells, y, strict=True)]
    (tmp_path / "a.ts").write_text("@classLabel true 1 2\n@data\n" + "\n".join(lines))
    (tmp_path / "a.tsv").write_text(
        "\n".join(f"{label}.0\t" + "\t".join(row) for row, label in zip(cells, y, strict=True))
    )
    np.savez(tmp_path / "a.npz", X=x, y=np.array(y, dtype=int))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = x
        file["y"] = y
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "a_labels.npy", np.array(y, dtype=float))
    wide = pl.DataFrame({f"s{i}": x[:, i] for i in range(4)} | {"label": y})
    wide.write_csv(tmp_path / "wide.csv")
    wide.write_parquet(tmp_path / "wide.parquet")
    long = {
        "id": np.repeat(range(5), 4),
        "t": np.tile(range(4), 5),
        "v": x.ravel(),
        "label": np.repeat(y, 4),
    }
    pl.DataFrame(long).write_csv(tmp_path / "long.csv")
    pl.DataFrame(long).write_parquet(tmp_path / "long.parquet")
    first, *others = [
        read_file(path, ReadOptions(**(LONG if path.stem == "long" else {})))
        for path in sorted(tmp_path.iterdir())
        if path.stem != "a_labels"
    ]
    assert len(others) == 8
    assert first.sequences.lengths.tolist() == [4, 2, 4, 4, 4]
    for other in others:
        np.testing.assert_equal(as_lists(other), as_lists(first))
        assert other.labels.tolist() == first.labels.tolist() == y
        assert other.sequences.ids.tolist() == first.sequences.ids.tolist()
        assert all(
            type(name) is str for name in other.labels.tolist() + other.sequences.ids.tolist()
        )


@pytest.mark.parametrize(
    ("name", "n", "shortest", "longest", "features", "classes"),
    [
        ("ItalyPowerDemand_TRAIN.ts", 67, 24, 24, 1, 2),
        ("ItalyPowerDemand_TEST.ts", 1029, 24, 24, 1, 2),
        ("GunPoint_slice_TRAIN.tsv", 20, 150, 150, 1, 2),
        ("GunPoint_slice_TEST.tsv", 20, 150, 150, 1, 2),
        ("JapaneseVowels_slice_TRAIN.ts", 45, 10, 26, 12, 9),
        ("JapaneseVowels_slice_TEST.ts", 45, 9, 24, 12, 9),
    ],
)
def test_real_files(name, n, shortest, longest, features, classes):
    contents = read_file(FILES / name)
    lengths = contents.sequences.lengths
    assert (len(contents.sequences), contents.sequences.num_features) == (n, features)
    assert (int(lengths.min()), int(lengths.max())) == (shortest, longest)
    assert sort_classes(contents.labels) == [str(k + 1) for k in range(classes)]


def test_real_values():
    contents = read_file(FILES / "ItalyPowerDemand_TRAIN.ts")
    assert contents.sequences.values[:2, 0].tolist() == pytest.approx([-0.71051757, -1.1833204])
    assert contents.labels[:4].tolist() == ["1", "1", "2", "2"]


# --- bytes at random ------------------------------------------------------------------------------


def good_bytes(write):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good"
        write(path)
        return next(Path(folder).iterdir()).read_bytes()


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["X"] = np.arange(8.0).reshape(4, 2)
        file.create_dataset("lengths", data=[1, 3], chunks=(1,), compression="gzip")
        file["y"] = ["a", "b"]
        file["ids"] = [b"u", b"v"]


GOOD = {
    ".ts": b"# c\n@timeStamps false\n@classLabel true 1 2\n@data\n1.5,?,3:4,5,6:1\n1,2:3,4:2\n"
    b"3,4:7,8:1\n",
    ".TS": b"@classLabel true 1 2\n@data\n(2007-01-01 "
    b"00:00:00,24),(2007-01-02,3):(2007-01-01 00:00:00,2),(2007-01-02,2):1\n",
    ".tsv": b"1\t1.5\t2\tNaN\n2.0e+00\t-3\tNaN\t4\n",
    ".npz": good_bytes(
        lambda p: np.savez_compressed(
            p, X=np.ones((4, 2)), lengths=[1, 3], y=["a", "b"], ids=[1, 2]
        )
    ),
    ".npy": good_bytes(
        lambda p: np.save(p.with_suffix(".npy"), np.ones((2, 3, 2), dtype=np.float32))
    ),
    ".h5": good_bytes(write_hdf5),
    ".csv": b'\xef\xbb\xbfid,t,"a b",label\r\n1,1,2.5,x\r\n\r\n2,'
    b'1,,"y,z"\r\n1,0,NA,x\r\n2,2.5,3,"y,z"\r\n',
    ".CSV": b"id;t;v;label\n1;2020-01-01T00:00:00.5Z;2;x\n1;2019-01-01 00:00:00+02:00;2;x\n",
    ".csv.gz": gzip.compress(b"id\tt\tv\tlabel\n1\t9:30\t2\tx\n1\t48:00:30\t1\tx\n"),
    ".parquet": good_bytes(
        parquet(id=[1, 1, 2], t=[0, 1, 0], a=[1.0, None, 3.0], label=["x", "x", "y"]),
    ),
}


@st.composite
def damaged(draw, good):
    raw = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        change = draw(st.sampled_from(["flip", "insert", "delete", "repeat", "truncate"]))
        if change == "flip":
            raw[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "insert":
            raw[at:at] = draw(
                st.sampled_from([b"\n", b",", b":", b'"', b"\t", b"(", b"nan", b"1e999"])
                | st.binary(max_size=4)
            )
        elif change == "repeat":
            raw[at:at] = raw[at : at + draw(st.integers(1, 40))]
        else:
            del raw[at : None if change == "truncate" else at + draw(st.integers(1, 8))]
    return bytes(raw)


def try_to_read(path, **options):
    try:
        contents = read_file(path, ReadOptions(**options))
    except DataError as error:
        message = str(error)
    else:
        message = None
        assert isinstance(contents, FileContents)
        assert contents.sequences.ids.shape == (len(contents.sequences),)
        assert not (options.get("require_labels", True) and contents.labels is None)
    if message is not None:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


@pytest.mark.parametrize("extension", GOOD)
def test_any_bytes_are_read_or_refused(extension, tmp_path, capfd, monkeypatch):
    path = tmp_path / f"fuzz{extension}"
    options = st.sampled_from(
        [{}, LONG] if ".c" in extension.lower() or extension == ".parquet" else [{}]
    )
    examples = EXAMPLES
    if extension in (".parquet", ".h5"):  # every file costs a child process
        examples = max(1, EXAMPLES // 10)
    monkeypatch.setattr(hdf5, "SECONDS", 2)

    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=200) | damaged(GOOD[extension]), options, st.booleans())
    def attempt(raw, options, require_labels):
        path.write_bytes(raw)
        try_to_read(path, require_labels=require_labels, **options)

    attempt()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["X", "lengths", "y", "features"])
def test_any_array_is_read_or_refused(name, tmp_path, capfd, monkeypatch):
    """As above, in an archive, beside a .npy file, and in a folder marked as checked."""
    arrays = {
        "X": np.ones((4, 2), dtype=np.float32),
        "lengths": np.array([1, 3]),
        "y": np.array(["a", "b"]),
    }
    arrays["features"] = np.array(["u", "v"])
    good = {
        key: good_bytes(lambda p, a=array: np.save(p.with_suffix(".npy"), a))
        for key, array in arrays.items()
    }
    files = {"X": "a.npy", "lengths": "a_lengths.npy", "y": "a_labels.npy", "features": "unused"}
    names = {
        "X": "values.npy",
        "lengths": "lengths.npy",
        "y": "labels.npy",
        "features": "features.npy",
    }
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(array_files, "MAX_BYTES_IN_MEMORY", 20)

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(good[name]))
    def attempt(raw):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for key, content in (good | {name: raw}).items():
                archive.writestr(f"{key}.npy", content)
                (tmp_path / files[key]).write_bytes(content)
                (tmp_path / "folder" / names[key]).write_bytes(content)
        mark_as_checked(tmp_path / "folder")
        try_to_read(tmp_path / "a.npz")
        try_to_read(tmp_path / "a.npy")
        try_to_read(tmp_path / "folder")

    attempt()
    assert capfd.readouterr().err == ""
