"""Columns of categories, Parquet columns of lists, and Excel files."""

import math
import re
import sys
import zipfile
from xml.sax.saxutils import escape

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer

from lightning_rnn import FileDataModule, ReadOptions, SequenceClassifier, read_file
from lightning_rnn.data import pack as pack_module
from lightning_rnn.data.pack import pack
from lightning_rnn.errors import DataError, OptionError

TABLE = """id,step,colour,code,x,label
a,1,red,7,0.5,up
a,0,blue,10,1,up
b,0, red ,,2,down
b,1,,7.0,3,down
"""
CATEGORIES = {"colour": ["blue", "red"], "code": ["7", "10"]}
OPTIONS = {"id_column": "id", "time_column": "step", "category_columns": ["colour", "code"]}
NAN = math.nan


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def values(contents):
    return contents.sequences.values.numpy()


def test_codes_by_hand(table):
    contents = read_file(table, ReadOptions(**OPTIONS))
    assert contents.categories == CATEGORIES  # numbers in numeric order
    assert contents.feature_names == ["colour", "code", "x"]
    expected = [[1, 2, 1], [2, 1, 0.5], [2, NAN, 2], [NAN, 1, 3]]
    np.testing.assert_array_equal(values(contents), expected)
    tokens = read_file(
        table, ReadOptions(id_column="id", token_column="colour", feature_columns=["colour"])
    )
    assert tokens.sequences.lengths.tolist() == [2, 1]  # no last step without a value
    np.testing.assert_array_equal(values(tokens)[:3, 0], [2, 1, 2])


def test_given_categories_and_unknown_ones(table):
    given = {"colour": ["red", "green"], "code": ["10"]}
    options = {"id_column": "id", "time_column": "step", "categories": given}
    with pytest.raises(DataError) as error:
        read_file(table, ReadOptions(**options))
    assert str(error.value) == (
        f"{table}: line 3, column 'colour': expected one of the categories 'red', 'green' "
        "(or unknown_categories=True), got 'blue'"
    )
    contents = read_file(table, ReadOptions(**options, unknown_categories=True))
    assert contents.categories == given
    expected = [[0, 1, 1], [1, 0, 0.5], [1, NAN, 2], [NAN, 0, 3]]
    np.testing.assert_array_equal(values(contents), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"id_column": "id"},
            "line 2, column 'colour': .* category_columns must name a column of .*, got",
        ),
        ({"category_columns": ["colour"]}, "id_column: expected a column, as there are"),
        (OPTIONS | {"token_column": "shape"}, "category_columns: expected some of .* got 'shape'"),
        (OPTIONS | {"token_column": "label"}, "category_columns: expected some of .* got 'label'"),
    ],
)
def test_errors(table, options, message):
    with pytest.raises(DataError, match=f"^{re.escape(str(table))}: {message}"):
        read_file(table, ReadOptions(**options))


def test_other_formats_and_codes_that_stand_for_missing_values_are_refused(table, tmp_path):
    np.savez(tmp_path / "x.npz", X=np.zeros((4, 2, 1)), y=[0, 1, 0, 1])
    for name, value in (("token_column", "a"), ("category_columns", ["a"]), ("categories", {})):
        with pytest.raises(DataError, match=f"{name}: expected None, because .npz files"):
            read_file(tmp_path / "x.npz", ReadOptions(**{name: value}))
    marks = OPTIONS | {"missing_values": [-1, 2]}
    packed = str(tmp_path / "packed")
    for read in (
        lambda: FileDataModule(train_path=str(table), **marks).schema,
        lambda: read_file(table, ReadOptions(**marks)),
        lambda: pack(input=str(table), output=packed, **marks),
    ):
        with pytest.raises(OptionError, match=r"^missing_values: expected numbers other than 0 "):
            read()
    pack(input=str(table), output=packed, **OPTIONS)
    with pytest.raises(OptionError, match=r"^missing_values: expected numbers other than 0 to 2"):
        read_file(packed, ReadOptions(missing_values=[2]))
    table.write_text("id,word,x,label\na,,1,up\na,NA,2,up\nb,?,1,down\n")
    empty = FileDataModule(train_path=str(table), id_column="id", token_column="word")
    with pytest.raises(DataError, match=r"column 'word': expected categories, got only missing"):
        empty.schema  # noqa: B018


@pytest.mark.parametrize(
    "words", [["7.0"], ["True"], [" red"], ["red", "red"], ["NA"], [7], [True]]
)
def test_given_categories_are_spelt_as_they_are_read(words):
    with pytest.raises(OptionError, match=r"^categories: expected each name once, as read"):
        ReadOptions(categories={"colour": words})


def test_statistics_leave_codes_as_they_are(table):
    data = FileDataModule(train_path=str(table), val_fraction=0.0, **OPTIONS)
    mean, std = data.train_moments
    assert mean.tolist()[:2] == [0.0, 0.0]
    assert std.tolist()[:2] == [1.0, 1.0]
    assert mean[2] == pytest.approx(np.mean([0.5, 1, 2, 3]))
    assert data.schema.category_sizes == [2, 2, 0]
    assert data.categories == CATEGORIES


def test_a_model_with_other_categories_is_not_trained(table):
    data = FileDataModule(train_path=str(table), val_fraction=0.0, **OPTIONS)
    sizes = {"input_size": 3, "num_classes": 2, "feature_names": ["colour", "code", "x"]}
    others = {"colour": ["red", "blue"], "code": ["7", "10"]}
    model = SequenceClassifier(**sizes, class_names=["down", "up"], categories=others)
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(OptionError, match=r"^categories: expected .* as the data have, got"):
        trainer.fit(model, data)


def test_one_step_per_sequence_is_not_a_wide_table(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("id,colour,x,label\na,red,1,up\nb,blue,2,down\n")
    contents = read_file(path, ReadOptions(id_column="id", category_columns=["colour"]))
    np.testing.assert_array_equal(values(contents), [[2, 1], [1, 2]])


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pack_module, "CHUNK_BYTES", 64)


def test_packed_categories(table, tmp_path, small_pieces):
    folder = str(tmp_path / "packed")
    pack(input=str(table), output=folder, **OPTIONS)
    expected = read_file(table, ReadOptions(**OPTIONS))
    contents = read_file(folder)
    assert contents.categories == CATEGORIES
    np.testing.assert_array_equal(values(contents), values(expected))
    model = {"model_names": ["x", "colour"], "categories": {"colour": ["blue", "red"]}}
    chosen = read_file(folder, ReadOptions(**model))
    np.testing.assert_array_equal(values(chosen), values(expected)[:, [2, 0]])
    for wrong, got in (
        ({"model_names": ["x", "colour"]}, "'colour': expected the categories  .categories of"),
        ({"categories": {"colour": ["red", "blue"]}}, "'colour': expected .*'red', 'blue' .cat"),
        ({"category_columns": ["x"]}, "feature 'x': expected the categories"),
    ):
        with pytest.raises(DataError, match=got):
            read_file(folder, ReadOptions(**wrong))
    other = str(tmp_path / "other")
    pack(
        input=str(table),
        output=other,
        categories={"colour": ["red"], "code": ["7"]},
        unknown_categories=True,
        **OPTIONS,
    )
    np.testing.assert_array_equal(values(read_file(other))[:, 0], [0, 1, 1, NAN])


CELLS = st.one_of(st.none(), st.floats(-9, 9, width=32))
LISTS = st.lists(CELLS, min_size=1, max_size=4)


@given(rows=st.lists(LISTS, min_size=2, max_size=5), has_id=st.booleans())
@settings(max_examples=8)
def test_lists_are_sequences(rows, has_id, tmp_path_factory):
    """A Parquet file of lists is read like a CSV file with a row for each of their values."""
    folder = tmp_path_factory.mktemp("lists")
    ids = [f"s{i}" for i in range(len(rows))]
    frame = pl.DataFrame(
        {
            "id": ids,
            "word": [["ab"[j % 2] for j in range(len(row))] for row in rows],
            "x": rows,
            "age": list(range(len(rows))),
            "label": ["up", "down"] * (len(rows) // 2) + ["up"] * (len(rows) % 2),
        },
        schema_overrides={"word": pl.List(pl.String), "x": pl.List(pl.Float64)},
    )
    lines = []
    for row in frame.rows(named=True):
        for word, x in zip(row["word"], row["x"], strict=True):
            cell = "" if x is None else repr(x)
            lines.append(f"{row['id']},{word},{cell},{row['age']},{row['label']}\n")
    (folder / "long.csv").write_text("id,word,x,age,label\n" + "".join(lines))
    options = {"category_columns": ["word"], "categories": {"word": ["a", "b"]}}
    expected = read_file(folder / "long.csv", ReadOptions(**options, id_column="id"))
    if has_id:
        options["id_column"] = "id"
    else:
        frame = frame.drop("id")
    frame.write_parquet(folder / "lists.parquet")
    contents = read_file(folder / "lists.parquet", ReadOptions(**options))
    np.testing.assert_array_equal(values(contents), values(expected))
    assert contents.sequences.lengths.tolist() == expected.sequences.lengths.tolist()
    assert contents.labels.tolist() == expected.labels.tolist()
    names = ids if has_id else [str(i) for i in range(len(rows))]
    assert contents.sequences.ids.tolist() == names


def test_lists_of_several_files_are_packed(tmp_path, small_pieces):
    for i in range(2):
        words = [["a", "b"], ["c"] * (i + 1)]
        frame = pl.DataFrame({"word": words, "x": [0.5, 2.0], "label": ["up", "down"]})
        frame.write_parquet(tmp_path / f"{i}.parquet")
    pattern = str(tmp_path / "*.parquet")
    pack(input=pattern, output=str(tmp_path / "packed"), token_column="word")
    expected = read_file(pattern, ReadOptions(token_column="word"))
    contents = read_file(tmp_path / "packed")
    assert contents.categories == expected.categories == {"word": ["a", "b", "c"]}
    np.testing.assert_array_equal(values(contents), values(expected))
    assert expected.sequences.ids.tolist() == ["0", "1", "2", "3"]


def test_lists_of_different_lengths_are_an_error(tmp_path):
    path = tmp_path / "lists.parquet"
    pl.DataFrame({"x": [[1.0, 2.0], [3.0]], "y": [[1, 2], [3, 4]], "label": "a"}).write_parquet(
        path
    )
    message = r"row 1, column 'y': expected lists of 1 value as in column 'x', got 2$"
    with pytest.raises(DataError, match=message):
        read_file(path)
    for empty in ([], None):
        pl.DataFrame({"x": [[1.0], empty], "label": "a"}).write_parquet(path)
        with pytest.raises(DataError, match=r"row 1, column 'x': expected lists of 1 value .* 0$"):
            read_file(path)
    arrays = pl.DataFrame({"x": np.arange(6.0).reshape(2, 3), "label": ["a", "b"]})
    assert isinstance(arrays["x"].dtype, pl.Array)
    arrays.write_parquet(path)
    assert read_file(path).sequences.values[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def write_xlsx(path, rows):
    """Write a minimal Excel file: numbers, booleans, text, and attributes and content of cells.

    None leaves a cell out.
    """
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = []
        for column, value in zip("ABCDEF", row, strict=False):
            place = f'r="{column}{number}"'
            if isinstance(value, bool):
                cells.append(f'<c {place} t="b"><v>{int(value)}</v></c>')
            elif isinstance(value, tuple):
                cells.append(f"<c {place}{value[0]}>{value[1]}</c>")
            elif isinstance(value, str):
                cells.append(f'<c {place} t="inlineStr"><is><t>{escape(value)}</t></is></c>')
            elif value is not None:
                cells.append(f"<c {place}><v>{value!r}</v></c>")
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/>'
        "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/>'
        "</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="data" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>'
        f"{''.join(lines)}</sheetData></worksheet>",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)


def test_excel(tmp_path):
    """Numbers keep all digits, text stays text, and errors name the line."""
    pytest.importorskip("fastexcel")
    path = tmp_path / "table.XLSX"
    header = ["id", "x", "word", "y", "label"]
    rows = [
        header,
        ["1.10", 1e-12, "red", 1 / 3, True],
        [],
        ["1.10", -3.4e38, "red", None, True],
        ["1.1", 16777217.5, 7, 5, False],
        ["1.1", 2, "blue", 0.25, False],
    ]
    write_xlsx(path, rows)
    options = ReadOptions(id_column="id", category_columns=["word"])
    contents = read_file(path, options)
    assert contents.sequences.ids.tolist() == ["1.10", "1.1"]
    assert contents.labels.tolist() == ["true", "false"]
    assert contents.categories == {"word": ["7", "blue", "red"]}
    expected = [[1e-12, 3, 1 / 3], [-3.4e38, 3, NAN], [16777217.5, 1, 5], [2, 2, 0.25]]
    np.testing.assert_array_equal(values(contents), np.array(expected, np.float32))
    write_xlsx(path, [*rows, ["c", "low", "red", 1, True]])
    with pytest.raises(DataError, match=r"line 7, column 'x': expected .*, got 'low'$"):
        read_file(path, options)
    write_xlsx(path, [["id", None, "label"], ["a", 1, "up"]])
    with pytest.raises(DataError, match=r"line 1: expected a name for every column"):
        read_file(path, options)
    write_xlsx(path, [])
    with pytest.raises(DataError, match=r"the first sheet is empty$"):
        read_file(path, options)
    path.write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"damaged, or not a .XLSX file"):
        read_file(path, options)


@pytest.mark.parametrize(
    "content", ["<f>A2*2</f><v></v>", "<f>A2*2</f><v/>", "<f>A2*2</f>", '<f t="shared" si="0"/>']
)
def test_excel_formulas_without_values_are_refused(tmp_path, content):
    """Programs that only write files leave the value out; it is not a missing value."""
    pytest.importorskip("fastexcel")
    path = tmp_path / "a.xlsx"
    rows = [["x", "y", "label"], [1, ("", "<f>A2*2</f><v>2</v>"), "u"]]
    write_xlsx(path, [*rows, [2, (' t="str"', '<f>""</f><v></v>'), "v"]])
    found = read_file(path).sequences
    assert (found.values[:, 0].tolist()[:3], found.lengths.tolist()) == ([1, 2, 2], [2, 1])
    write_xlsx(path, [*rows, [2, ("", content), "v"]])
    with pytest.raises(DataError, match=r"cell B3: expected a value, got a formula without one"):
        read_file(path)


def test_excel_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    write_xlsx(tmp_path / "table.xlsx", [["x", "label"], [1, "up"]])
    message = r"^fastexcel is not installed; run: pip install 'lightning_rnn\[excel\]'$"
    with pytest.raises(OptionError, match=message):
        read_file(tmp_path / "table.xlsx")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"id_column": "label"}, "id_column and label_column"),
        ({"time_column": "label"}, "time_column and label_column"),
        ({"id_column": "x", "time_column": "x"}, "time_column and id_column"),
        ({"group_column": "x", "time_column": "x"}, "time_column and group_column"),
    ],
)
def test_a_column_has_one_role(options, names):
    with pytest.raises(OptionError, match=f"^{names}: expected different columns, got '"):
        ReadOptions(**options)


def test_each_sequence_may_be_a_group(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("id,x,label\na,1,up\na,2,up\nb,3,down\n")
    contents = read_file(path, ReadOptions(id_column="id", group_column="id"))
    assert contents.sequences.groups.tolist() == ["a", "b"]
