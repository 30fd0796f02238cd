"""Errors of users: one line that names the cause, an exit code, and no file left behind."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from helpers import BEST, TINY_DATA

from lightning_rnn.cli.parser import missing_package, parse_error, with_flags
from lightning_rnn.errors import DataError, OptionError

COMMANDS = ("fit", "validate", "test", "predict")
FORMATS = (".ts", ".tsv", ".npz", ".npy", ".csv", ".parquet")


def assert_tells(message, *parts):
    missing = [part for part in parts if str(part) not in message]
    assert not missing, f"{missing} not in {message!r}"


# options


ONE_OF = "expected SyntheticDataModule or FileDataModule"
PARSE_ERRORS = {
    "x.csv": "expected options such as --name value, got 'x.csv'",
    "--config": "--config: expected a value, got nothing",
    "--bogus 7": "--bogus: unknown option; lightning_rnn fit --help all",
    "--model.bogus 7": "--model.bogus: unknown option",
    "--data.bogus 7": "--data.bogus: unknown option; --data.help",
    "--model.hidden_size ten": "--model.hidden_size: expected int, got 'ten'",
    "--model.cell elman": "--model.cell: expected one of rnn, lstm, gru, mingru, got 'elman'",
    "--model.class_weights x": "--model.class_weights: expected balanced or list or dict, got 'x'",
    "--model.input_size 3": "--model.input_size: comes from the data and cannot be given",
    "--model.class_names [1]": "--model.class_names: comes from the data and cannot be given",
    "--model 5": "--model: expected the path of a class, such as module.Class, got '5'",
    "--trainer.max_epochs soon": "--trainer.max_epochs: expected int, got 'soon'",
    "--data FileDataModul": f"--data: {ONE_OF}, got 'FileDataModul'; did you mean FileDataModule?",
    "--trainer.callbacks EarlyStoping": "--trainer.callbacks: expected list or the name of a "
    "class, got 'EarlyStoping'; did you mean EarlyStopping?",
    "--trainer.callbacks Foo": "--trainer.callbacks: expected list or the name of a class, got",
    "--trainer.callbacks+=Timer --trainer.callbacks.x 3": "--trainer.callbacks.x: unknown for this",
    "--data.num_test 1.5": "--data.num_test: expected int, got '1.5'",
    "--data.task sorting": "--data.task: expected one of sum_sign, adding, parity, delayed_recall",
    "--data TableDataModule": f"--data: {ONE_OF}, got 'TableDataModule'",
    "--data builtins.open": "--data: expected a subclass of SequenceDataModule, got 'builtins.",
    "--checkpoint.monitor x": "--checkpoint.monitor: expected one of val/loss, val/accuracy",
    "--seed_everything x": "--seed_everything: expected int, got 'x'",
    "--seed_everything -1": "--seed_everything: expected an integer from 0 to 4294967295, got -1",
    "--ckpt_path": "--ckpt_path: expected a value, got nothing",
    "--trainer.barebones true": "--trainer.barebones: expected False, as every run is saved",
}


@pytest.mark.parametrize("args", PARSE_ERRORS)
def test_options_that_cannot_be_parsed(empty, refused, args):
    assert refused("fit", *args.split(), code=2).startswith(PARSE_ERRORS[args])


def test_an_option_of_two_types(empty, refused):
    """Their order depends on which of two equal unions Python has seen first."""
    message = refused("fit", "--trainer.limit_val_batches", "x", code=2)
    start = "--trainer.limit_val_batches: expected"
    assert message in (f"{start} int or float, got 'x'", f"{start} float or int, got 'x'")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("--model.cell elman", "--model.cell: expected one of rnn, lstm, gru, mingru, got 'elman'"),
        ("--data.num_test 1.5", "--data.num_test: expected int, got '1.5'"),
    ],
)
def test_every_command_reports_them(trained, refused, command, args, expected):
    assert refused(command, "--ckpt_path", BEST, *args.split(), code=2) == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("predict --overwrite maybe", "--overwrite: expected bool, got 'maybe'"),
        ("pack", "--input: expected a value, got nothing"),
        ("pack --input x", "--output: expected a value, got nothing"),
        ("inspect", "expected a file, got nothing"),
        ("inspect --data Foo", f"--data: {ONE_OF}, got 'Foo'"),
        (
            "inspect --data SyntheticDataModule --data.seed -1",
            "--data.seed: expected an integer of",
        ),
        ("export --streaming maybe", "--streaming: expected bool, got 'maybe'"),
    ],
)
def test_options_of_single_commands(trained, refused, args, expected):
    assert refused(*args.split(), code=2).startswith(expected)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Requirement 'psutil' not met. HINT: Try running `pip install -U 'psutil'`",
            "psutil is not installed; run: pip install psutil",
        ),
        (
            "`RichProgressBar` requires `rich` >= 10.2.2. Install it by running `pip install -U "
            "rich`.",
            "rich is not installed; run: pip install rich",
        ),
        ("No module named 'mine'", None),
    ],
)
def test_a_missing_package(message, expected):
    error = ValueError("a problem with a class")
    error.__cause__ = ModuleNotFoundError(message)
    found = missing_package(error)
    assert (None if found is None else str(found)) == expected


def test_a_message_of_an_unknown_kind_stays():
    assert str(parse_error("something else", {})) == "something else"
    message = 'Parser key "data":\n  Errors:\n    - Problem with x\n  Given value: 3'
    assert str(parse_error(message, {})) == "--data: Problem with x"


OPTIONS = {
    "output": None,
    "model": {"cell": "rnn", "lr": 0.1},
    "data": {"class_path": "FileDataModule", "init_args": {"train_path": None, "batch_size": 3}},
    "trainer": {"gradient_clip_val": 1.0},
    "figures": {"every_n_epochs": 1},
}


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("cell", "--model.cell"),
        ("batch_size", "--data.batch_size"),
        ("gradient_clip_val", "--trainer.gradient_clip_val"),
        ("output", "--output"),
        ("data", "--data"),
        ("Figures.every_n_epochs", "--figures.every_n_epochs"),
        ("Checkpoints.every_n_steps", "--checkpoint.every_n_steps"),
        ("GradientFlowProbe.every_n_epochs", "--gradient_flow.every_n_epochs"),
        ("Calibrate.objective", "--calibrate.objective"),
        ("EarlyStopping.monitor", "--trainer.callbacks.monitor"),
        ("--model.cell", "--model.cell"),
        ("of_no_option", "of_no_option"),
    ],
)
def test_names_of_arguments_become_flags(name, flag):
    error = with_flags(OptionError("expected 1, got 2", name=name), OPTIONS)
    assert str(error) == f"{flag}: expected 1, got 2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train_path is not given", "--data.train_path is not given"),
        ("give another, or overwrite=True.", "give another, or --overwrite true."),
        ("a.yaml: config=runs/a.yaml trusts it", "a.yaml: --config runs/a.yaml trusts it"),
        ("a lower lr or gradient_clip_val", "a lower lr or --trainer.gradient_clip_val"),
        ("data/train_path.csv, 'train_path'", "data/train_path.csv, 'train_path'"),
        ("--data.train_path is not given", "--data.train_path is not given"),
    ],
)
def test_names_in_messages_become_flags(text, expected):
    error = with_flags(DataError(text), OPTIONS)
    assert (type(error), str(error)) == (DataError, expected)


@pytest.mark.parametrize(
    ("option", "value", "tells"),
    [
        ("model.hidden_size", 0, "1"),
        ("model.num_layers", 0, "1"),
        ("model.dropout", 1.5, "0"),
        ("model.dropout", -0.1, "0"),
        ("model.lr", 0.0, "above 0"),
        ("model.lr", ".nan", "at most 1e+30"),
        ("model.weight_decay", -1.0, "at least 0"),
        ("model.pos_weight", -1.0, "above 0"),
        ("model.class_weights", "[1.0, 2.0, 3.0]", "2 finite numbers above 0"),
        ("data.seed", -1, "at least 0"),
        ("data.batch_size", 0, "at least 1"),
        ("data.length", 0, "at least 1"),
        ("data.min_length", 11, "10"),
        ("data.num_features", 0, "at least 1"),
        ("data.num_train", 0, "at least 1"),
        ("data.num_val", -1, "at least 0"),
        ("data.num_test", 0, "at least 1"),
    ],
)
def test_values_out_of_range(empty, refused, option, value, tells):
    got = str(value).lstrip(".")  # YAML writes .nan
    message = refused("fit", f"--{option}", value, code=2)
    assert message.startswith(f"--{option}: expected ")
    assert_tells(message, tells, f", got {got}")


@pytest.mark.parametrize("fractions", [{"val_fraction": 1.5}, {"test_fraction": -0.5}])
def test_fractions_out_of_range(empty, refused, files, fractions):
    [(name, value)] = fractions.items()
    options = ("--data", "FileDataModule", "--data.train_path", files / "ItalyPowerDemand_TRAIN.ts")
    message = refused("fit", *options, f"--data.{name}", value, code=2)
    assert_tells(message, f"--data.{name}: expected a number", f", got {value}")


def test_fractions_that_leave_no_training_part(empty, refused, files):
    options = ("--data", "FileDataModule", "--data.train_path", files / "ItalyPowerDemand_TRAIN.ts")
    shares = ("--data.val_fraction", 0.5, "--data.test_fraction", 0.5)
    assert_tells(
        refused("fit", *options, *shares, code=2),
        "--data.val_fraction",
        "--data.test_fraction",
        "1.0",
    )


def test_dropout_is_part_of_the_architecture(trained, refused):
    message = refused("test", "--ckpt_path", best(trained), "--model.dropout", 0.3, code=2)
    assert message == f"--model.dropout: expected 0.0 as in {best(trained)}, got 0.3"


def test_pinned_shape_of_the_data(trained, refused):
    assert_tells(
        refused("test", "--data.num_features", 3, code=2),
        "--data.num_features: expected None as in ",
    )


def test_no_command_of_ours(empty, refused):
    assert_tells(refused("train", code=2), "train", "fit", "predict")


@pytest.mark.parametrize("args", [[], ["--data", "FileDataModule"]])
def test_a_file_before_its_class(empty, refused, args):
    message = refused("fit", "--data.train_path", "x.csv", *args, code=1)
    assert message == f"{Path('x.csv').absolute()}: no such file"


@pytest.mark.parametrize("command", ["fit", "inspect"])
@pytest.mark.parametrize("args", [[], ["--data", "FileDataModule"]])
def test_a_misspelt_option_of_files(good, refused, command, args):
    path = good("data.csv")
    typed = (command, *args, "--data.train_path", path, "--data.id_colum", "id")
    expected = "--data.id_colum: unknown option; did you mean --data.id_column?"
    assert refused(*typed, code=2) == expected


def test_an_option_of_another_data_module(good, refused):
    typed = ("fit", "--data", "FileDataModule", "--data.train_path", good("data.csv"))
    message = refused(*typed, "--data.task", "adding", code=2)
    assert message.startswith("--data.task: unknown for this class; --data.help NAME lists ")


@pytest.mark.parametrize(
    ("args", "place", "hint"),
    [
        ("trainer.callbacks+=Timer trainer.callbacks.duratoin=1", "callbacks.dura", "duration"),
        ("trainer.strategy=DDPStrategy trainer.strategy.timeot=1", "strategy.time", "timeout"),
        ("optimizer=SGD optimizer.momentun=1", "optimizer.momentun", "momentum"),
        ("config=c.yaml", "trainer.callbacks.patiense", "patience"),
    ],
)
def test_a_misspelt_option_of_a_class(empty, refused, args, place, hint):
    callback = {"class_path": "lightning_rnn.EarlyStopping", "init_args": {"patiense": 3}}
    Path("c.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    message = refused("fit", *[f"--{arg}" for arg in args.split()], code=2)
    assert place in message
    name, _, hint_found = message.partition(": unknown option; did you mean ")
    assert hint_found == f"{name.rpartition('.')[0]}.{hint}?"


def test_an_option_without_a_class(empty, refused):
    message = refused("fit", "--trainer.callbacks.patience", 3, code=2)
    assert message == "--trainer.callbacks.patience: unknown for this class; " + (
        "--trainer.callbacks.help NAME lists the options of a class"
    )


@pytest.mark.parametrize(
    "args", ["export --streaming", "fit --trainer.fast_dev_run", "fit --model.bidirectional"]
)
def test_a_switch_needs_a_value(empty, refused, args):
    command, flag = args.split()
    assert refused(command, flag, code=2) == f"{flag}: expected true or false, got nothing"


@pytest.mark.parametrize("option", ["test_path", "predict_path"])
def test_files_of_later_commands_are_read_before_training(good, refused, option):
    path = good("train.csv")
    bad = Path("bad.csv").absolute()
    message = refused(*fit_on(path, f"--data.{option}", bad), code=1)
    assert message == f"{bad}: no such file"
    pl.read_csv(path).rename({"label": "class"}).write_csv(bad)
    assert_tells(refused(*fit_on(path, f"--data.{option}", bad), code=1), bad)


def test_file_data_without_a_file(empty, refused):
    message = refused("fit", "--data", "FileDataModule", code=2)
    assert message == "--data.train_path: expected a file, got None"


# config files


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.yaml", None, "--config: missing.yaml: No such file or directory"),
        ("broken.yaml", "model: [1, 2", "--config: broken.yaml: expected YAML, got "),
        ("list.yaml", "- 1\n- 2\n", "--config: list.yaml: expected settings by name, got list"),
        ("text.yaml", "just words", "--config: text.yaml: expected settings by name, got str"),
        ("a.yaml", "", "--config: a.yaml: expected settings by name, got nothing"),
        ("a.yaml", "trainer:", "--config: a.yaml: trainer: expected settings by name, got nothing"),
        ("binary.yaml", bytes(range(256)), "--config: binary.yaml: expected YAML, got "),
        ("unknown.yaml", "model:\n  hidden: 3\n", "unknown.yaml: model.hidden: unknown option"),
        (
            "nested.yaml",
            "checkpoint:\n  hidden: 3\n",
            "nested.yaml: checkpoint.hidden: unknown option",
        ),
        ("top.yaml", "hidden: 3\n", "top.yaml: hidden: unknown option"),
        (
            "type.yaml",
            "model:\n  hidden_size: ten\n",
            "--model.hidden_size: expected int, got 'ten'",
        ),
        ("path.yaml", "ckpt_path: [1]\n", "--ckpt_path: expected str, got"),
        (
            "root.yaml",
            "trainer: {default_root_dir: [1]}\n",
            "--trainer.default_root_dir: expected str",
        ),
    ],
)
def test_config_files(empty, refused, name, content, expected):
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused("fit", "--config", name, code=2).startswith(expected)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_config_files(trained, refused, command):
    message = refused(command, "--ckpt_path", BEST, "--config", "missing.yaml", code=2)
    assert message == "--config: missing.yaml: No such file or directory"


# data files


def write(path, values, labels):
    """Write (N, T) values and their labels in the format that the extension names."""
    rows = [",".join(f"{value:.6f}" for value in row) for row in values]
    match path.suffix:
        case ".ts":
            lines = [f"{row}:{label}" for row, label in zip(rows, labels, strict=True)]
            path.write_text("@classLabel true a b\n@data\n" + "\n".join(lines) + "\n")
        case ".tsv":
            lines = [
                "\t".join([label, *row.split(",")]) for row, label in zip(rows, labels, strict=True)
            ]
            path.write_text("\n".join(lines) + "\n")
        case ".npz":
            np.savez(path, X=values, y=np.array(labels))
        case ".npy":
            np.save(path, values)
            np.save(path.with_stem(f"{path.stem}_labels"), np.array(labels))
        case _:
            frame = pl.DataFrame(values, schema=[f"t{t}" for t in range(values.shape[1])])
            frame = frame.with_columns(label=pl.Series(labels))
            frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)


@pytest.fixture
def good(empty):
    """Write a good file under a name, into a folder beside the working folder."""

    def make(name, features=1, labels="ab" * 10):
        path = empty.parent / "data" / name
        path.parent.mkdir(exist_ok=True)
        write(path, np.random.default_rng(0).normal(size=(len(labels), 5 * features)), list(labels))
        return path

    return make


def is_text(path):
    return path.suffix in (".ts", ".tsv", ".csv")


def fit_on(path, *args):
    return (
        "fit",
        "--trainer.max_epochs",
        1,
        "--data",
        "FileDataModule",
        "--data.train_path",
        path,
        *args,
    )


@pytest.mark.parametrize("extension", FORMATS)
def test_good_files_are_accepted(empty, good, run_ok, extension):
    """Without this, the tests below could fail for another reason than theirs."""
    run_ok(*fit_on(good(f"good{extension}"), "--trainer.log_every_n_steps", 1))


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("damage", ["missing", "empty", "folder", "random", "truncated"])
def test_damaged_files(good, refused, extension, damage):
    path = good(f"data{extension}")
    whole = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "random":
            path.write_bytes(np.random.default_rng(0).bytes(3000))
        case "truncated":
            middle = len(whole) // 2
            path.write_bytes(
                whole[: whole.find(b"\n", middle) + 5 if is_text(path) else middle]
            )  # inside a value
    message = refused(*fit_on(path), code=1)
    assert_tells(message, path)
    assert_tells(
        message,
        *{"missing": ["no such file"], "empty": ["empty"], "folder": ["folder"]}.get(damage, []),
    )


def test_unknown_extension(good, refused):
    path = good("data.csv").rename("data.xls")
    try:
        assert_tells(refused(*fit_on(path), code=1), path, ".xls", *FORMATS)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("content", "tells"),
    [
        ("t0,t1,label\n1,2,a\n1,2,3,b\n", ["line 3", "expected 3 cells as in the header", "got 4"]),
        ("t0,t1,label\n1,2,a\n1,b\n", ["line 3", "expected 3 cells as in the header", "got 2"]),
        ("t0,t1,label\n1,2,a\nten,2,b\n", ["line 3", "'t0'", "'ten'", "finite"]),
        ("t0,t1,label\n1,2,a\n1,inf,b\n", ["line 3", "'t1'", "'inf'", "finite"]),
        ("t0,t1,label\n1,2,a\n1,1e300,b\n", ["line 3", "'t1'", "1e300", "finite"]),
        ("t0,t1,class\n1,2,3\n1,2,4\n", ["label_column", "'label'", "'class'"]),
        ("t0,t1,label\n1,2,a\n1,2,\n", ["line 3", "expected a label"]),
        ("t0,t1,label\n1,2,a\n1,2,a\n", ["expected at least two classes, got only 'a'"]),
        ("t0,t1,label\n", ["expected at least one row, got none"]),
        ("t0,t0,label\n1,2,a\n1,2,b\n", ["'t0'", "2 columns"]),
    ],
)
def test_tables_that_cannot_train(good, refused, content, tells):
    path = good("data.csv")
    path.write_text(content)
    assert_tells(refused(*fit_on(path), code=1), path, *tells)


@pytest.mark.parametrize("extension", FORMATS)
def test_infinity_in_every_format(good, refused, extension):
    path = good(f"data{extension}")
    values = np.ones((4, 5))
    values[2, 3] = np.inf
    write(path, values, ["a", "b", "a", "b"])
    assert_tells(refused(*fit_on(path), code=1), path, "inf", "finite")


@pytest.mark.parametrize("option", ["id_column", "time_column", "group_column", "feature_columns"])
def test_columns_that_are_not_there(good, refused, make_long, option):
    path = good("long.csv")
    make_long([f"s{i}" for i in range(20)]).write_csv(path)
    columns = {
        "id_column": "id",
        "time_column": "time",
        "group_column": "group",
        "feature_columns": '["a"]',
    }
    columns |= {option: '["nowhere"]' if option == "feature_columns" else "nowhere"}
    words = [word for name, value in columns.items() for word in (f"--data.{name}", value)]
    assert_tells(refused(*fit_on(path, *words), code=1), path, "'nowhere'")


@pytest.mark.parametrize(
    ("labels", "options", "tells"),
    [
        (
            "a" * 10 + "b",
            ["--data.val_fraction", 0.2],
            ["train split", "expected every class, got no sequence of class 'b'"],
        ),
        (
            "ab",
            ["--data.val_fraction", 0.1, "--data.stratify", "false", "--data.test_fraction", 0.1],
            ["train split", "expected at least one sequence, got none"],
        ),
    ],
)
def test_splits_that_leave_too_little(good, refused, labels, options, tells):
    path = good("data.csv", labels=labels)
    assert_tells(refused(*fit_on(path, *options), code=1), path, *tells)


@pytest.mark.parametrize("command", ["validate", "fit"])
def test_no_validation_part(empty, run, run_ok, refused, tiny, command):
    run_ok("fit", *tiny, "--data.num_train", 64, "--data.num_val", 0)
    if command == "validate":
        assert_tells(
            refused("validate", code=1),
            "val data: expected sequences, got none: --data.num_val is 0",
        )
    else:  # early stopping and the like need it, training does not
        run_ok("fit", *tiny, "--data.num_train", 64, "--data.num_val", 0)


def test_a_single_group_cannot_be_split(good, refused, make_long):
    columns = ("--data.id_column", "id", "--data.group_column", "group")
    path = good("long.csv")
    make_long([f"s{i}" for i in range(20)]).with_columns(group=pl.lit("only")).write_csv(path)
    message = refused(*fit_on(path, *columns, "--data.val_fraction", 0.2), code=1)
    assert_tells(message, path, "val split: expected at least one sequence, got none")


def test_positive_class_that_is_not_there(good, refused):
    path = good("data.csv")
    assert_tells(
        refused(*fit_on(path, "--data.positive_class", "c"), code=1),
        path,
        "a, b",
        "--data.positive_class 'c'",
    )


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_unseen_label(good, refused, run_ok, part, monkeypatch):
    path, other = good("train.csv"), good("other.csv", labels="abac")
    if part == "val":
        message = refused(*fit_on(path, "--data.val_path", other), code=1)
    else:
        run_ok(*fit_on(path, "--trainer.log_every_n_steps", 1))
        message = refused("test", "--data.test_path", other, code=1)
    assert_tells(message, other, "'3'", "'c'", "a, b")


@pytest.mark.parametrize("part", ["val", "test", "predict"])
@pytest.mark.parametrize("change", ["renamed", "more", "fewer"])
def test_features_that_differ(trained_on_files, run_ok, refused, make_long, part, change):
    frame = make_long([f"s{i}" for i in range(10)])
    changed = {
        "renamed": frame.rename({"a": "z"}),
        "more": frame.with_columns(z=pl.lit(1.0)),
        "fewer": frame.drop("a"),
    }[change]
    changed.write_csv("other.csv")
    command = {"val": "validate"}.get(part, part)
    if (part, change) == ("predict", "more"):
        out = run_ok(command, "--data.predict_path", "other.csv")
        assert "other.csv: ignored columns: 'z'" in out
        return
    message = refused(command, f"--data.{part}_path", "other.csv", code=1)
    assert_tells(
        message,
        Path("other.csv").absolute(),
        "expected the features 'a', 'b', got",
        "also 'z'" if change == "more" else "no feature 'a'",
    )


@pytest.mark.parametrize("option", ["val_path", "test_path", "predict_path"])
def test_a_second_file_that_is_missing(trained_on_files, refused, option):
    command = {"val_path": "validate", "test_path": "test", "predict_path": "predict"}[option]
    assert_tells(
        refused(command, f"--data.{option}", "no.csv", code=1),
        Path("no.csv").absolute(),
        "no such file",
    )


def test_a_validation_file_that_is_missing(good, refused):
    message = refused(*fit_on(good("train.csv"), "--data.val_path", "no.csv"), code=1)
    assert_tells(message, Path("no.csv").absolute(), "no such file")


def test_no_test_part(good, run_ok, refused):
    run_ok(*fit_on(good("train.csv"), "--trainer.log_every_n_steps", 1))
    for command in ("test", "predict"):
        assert_tells(
            refused(command, code=1),
            f"{command} data: expected sequences, got none",
            f"--data.{command}_path",
        )


def test_another_width_than_the_model_takes(trained, refused, files):
    path = files / "JapaneseVowels_slice_TEST.ts"
    for command, option in (("predict", "predict_path"), ("test", "test_path")):
        message = refused(command, "--data", "FileDataModule", f"--data.{option}", path, code=1)
        assert_tells(message, path, "expected 1 feature per step, as in training", "got 12")


# checkpoints


def best(folder):
    return folder / "lightning_logs/version_0/checkpoints/best.ckpt"


def damage_checkpoint(path, damage):
    match damage:
        case "folder":
            path.unlink()
            path.mkdir()
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "random":
            path.write_bytes(np.random.default_rng(0).bytes(3000))
        case "list":
            torch.save([torch.ones(3)], path)
        case "weights alone":
            torch.save(torch.load(path, weights_only=True)["state_dict"], path)
        case "pickle":
            torch.save({"hyper_parameters": {}, "state_dict": {}, "code": Path("x")}, path)
        case "no hyper-parameters":
            content = torch.load(path, weights_only=True)
            del content["hyper_parameters"]
            torch.save(content, path)
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("data.txt", "words")


DAMAGES = (
    "folder",
    "missing",
    "empty",
    "truncated",
    "random",
    "list",
    "weights alone",
    "pickle",
    "zip",
    "no hyper-parameters",
)


@pytest.mark.parametrize(
    ("command", "damage"),
    [*(("test", damage) for damage in DAMAGES), *((name, "truncated") for name in COMMANDS)],
)
def test_damaged_checkpoints(trained, refused, command, damage):
    path = trained / "model.ckpt"
    path.write_bytes(best(trained).read_bytes())
    damage_checkpoint(path, damage)
    assert_tells(refused(command, "--ckpt_path", "model.ckpt", code=1), "model.ckpt")


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize("change", ["missing weight", "other shape", "other model", "other data"])
def test_checkpoints_that_contradict_themselves(trained, refused, command, change):
    content = torch.load(best(trained), weights_only=True)
    name = "network.head.weight"
    match change:
        case "missing weight":
            del content["state_dict"][name]
        case "other shape":
            content["state_dict"][name] = torch.zeros(1, 99)
        case "other model":
            content["hyper_parameters"]["attention"] = True
        case "other data":
            content["SyntheticDataModule"]["settings"]["noise"] = 0.1
    torch.save(content, "model.ckpt")
    message = refused(command, "--ckpt_path", "model.ckpt", code=1)
    assert_tells(
        message, "model.ckpt", {"other model": "attention", "other data": "noise"}.get(change, name)
    )


def test_other_words_of_lightning_are_files_to_us(trained, refused):
    message = refused("test", "--ckpt_path", "registry", code=1)
    assert message == "registry: expected a checkpoint file, got no such file"


def test_a_damaged_newest_run_is_named(trained, refused):
    damage_checkpoint(best(trained), "truncated")
    assert_tells(
        refused("test", code=1), "version_0/checkpoints/best.ckpt", "not a readable checkpoint"
    )


# what cannot be written


def test_a_run_folder_below_a_file(empty, refused):
    Path("file").touch()
    message = refused(
        "fit", "--data.num_test", 8, "--trainer.default_root_dir", "file/runs", code=1
    )
    assert_tells(message, "file/runs")


def test_a_predictions_file_below_a_file(trained, refused):
    Path("file").touch()
    assert_tells(refused("predict", "--output", "file/x.csv", code=1), "file")


@pytest.mark.parametrize("name", ["x.txt", "x", "x.CSV.gz"])
def test_predictions_of_an_unknown_kind(trained, refused, name):
    assert_tells(refused("predict", "--output", name, code=2), "--output", name, ".csv or .parquet")


def test_a_metrics_file_that_cannot_be_written(trained, run):
    folder = best(trained).parents[1]
    (folder / "test_metrics.json").mkdir()
    code, _, err = run("test")
    assert (code, err.count("\n")) == (1, 1)
    assert_tells(err, "lightning_rnn: error: ", "test_metrics.json")
    assert not list(folder.glob(".*"))  # what it wrote beside is gone


# the process


def test_the_process_exits_with_the_code(tmp_path, run_apart):
    code, out, err = run_apart("fit", "--model.hidden_size", 0, cwd=tmp_path)
    assert (code, out) == (2, "")
    expected = "--model.hidden_size: expected an integer of at least 1, got 0"
    assert err == f"lightning_rnn: error: {expected}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--data.task", "--trainer.precision"])
def test_a_message_is_no_longer_than_a_screen(option, empty, run):
    result = run("fit", option, "x" * 5000)
    assert result.code != 0
    assert_tells(result.err, f"lightning_rnn: error: {option}: ")
    assert len(result.err) < 1000


# code of the user

OWN_CODE = """
from lightning_rnn import SequenceClassifier, SyntheticDataModule


class InEncoder(SequenceClassifier):
    def make_encoder(self, input_size):
        return self.hparams.channels


class InInit(SequenceClassifier):
    def __init__(self, **options):
        super().__init__(**options)
        self.share = 1 / 0


class InStep(SequenceClassifier):
    def training_step(self, batch, batch_idx):
        return batch.values


class InSplit(SyntheticDataModule):
    def load_split(self, name):
        return open(name)


class WithoutOptions(SequenceClassifier):
    def __init__(self, channels: int = 3):
        super().__init__()


class WithFixedOption(SequenceClassifier):
    def __init__(self, **options):
        super().__init__(cell="gru", **options)


class CallsPackage(SequenceClassifier):
    def training_step(self, batch, batch_idx):
        return self.network.embed(None, batch.padding)
"""


@pytest.fixture
def own_code(empty, monkeypatch):
    Path("own_code.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(str(empty))
    monkeypatch.delitem(sys.modules, "own_code", raising=False)


@pytest.mark.parametrize(
    ("name", "place", "error"),
    [
        ("InEncoder", "line 7, in InEncoder.make_encoder", "AttributeError: 'AttributeDict'"),
        ("InInit", "line 13, in InInit.__init__", "ZeroDivisionError: division by zero"),
        ("InStep", "line 18, in InStep.training_step", "AttributeError: 'SequenceBatch' object"),
        ("InSplit", "line 23, in InSplit.load_split", "FileNotFoundError: [Errno 2] No such"),
    ],
)
def test_an_error_in_code_of_the_user(own_code, run, tiny, name, place, error):
    option = "--data" if name == "InSplit" else "--model"
    result = run("fit", *tiny, option, f"own_code.{name}")
    assert result.code == 1
    path = Path("own_code.py").absolute()
    assert result.err.startswith(f"lightning_rnn: error: {path}, {place}: {error}")
    assert result.err.count("\n") == 1
    assert not Path("lightning_logs").exists()


def test_an_error_in_the_package_keeps_its_traceback(own_code, run, tiny):
    with pytest.raises(AttributeError, match="no attribute 'shape'"):
        run("fit", *tiny, "--model", "own_code.CallsPackage")


def test_the_code_that_reads_a_checkpoint_is_that_of_the_user_too(own_code, run_ok, run, tiny):
    Path("own_code.py").write_text(OWN_CODE.replace("1 / 0", "1"))
    run_ok("fit", *tiny, *TINY_DATA, "--model", "own_code.InInit")
    Path("own_code.py").write_text(OWN_CODE + "\n")
    del sys.modules["own_code"]
    result = run("test", "--model", "own_code.InInit")
    assert_tells(result.err, "line 13, in InInit.__init__: ZeroDivisionError")


@pytest.mark.parametrize(
    ("name", "missing"), [("WithoutOptions", "input_size"), ("WithFixedOption", "cell")]
)
def test_a_class_that_does_not_accept_all_options(own_code, run, name, missing):
    result = run("fit", "--model", f"own_code.{name}")
    assert result.code == 2
    expected = "takes **options and calls super().__init__(**options)"
    assert_tells(result.err, "--model: expected a class", expected, f"not accept {missing}")
