"""Typos and help, answered without torch."""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers import process_environment
from option_table import PATH, option_table, written

from lightning_rnn.cli.quick_answers import SYNONYMS, OptionTable, answer
from lightning_rnn.cli.short_help import SHORT_HELP
from lightning_rnn.errors import OptionError

ROOT = Path(__file__).parents[2]
TABLE = OptionTable.read()
HIDDEN = "--model.hiden_size: unknown option; did you mean --model.hidden_size?"
TYPOS = {
    "fit --model.hiden_size 3": HIDDEN,
    "fit --model.hiden_size=3": HIDDEN,
    "fit --trainer.epochs 3": "--trainer.epochs: unknown option; did you mean "
    "--trainer.max_epochs?",
    "fit --trainer.max_epoch 3": "--trainer.max_epoch: unknown option; did you mean "
    "--trainer.max_epochs?",
    "test --trainer.gpus 2": "--trainer.gpus: unknown option; did you mean --trainer.devices?",
    "fit --data.batchsize 3": "--data.batchsize: unknown option; did you mean --data.batch_size?",
    "fit --data.init_args.batchsize 3": "--data.batchsize: unknown option; did you mean "
    "--data.batch_size?",
    "fit --batch-size 3": "--batch-size: unknown option; did you mean --data.batch_size?",
    "fit --lr 3": "--lr: unknown option; did you mean --model.lr?",
    "fit --learning_rate 3": "--learning_rate: unknown option; did you mean --model.lr?",
    "fit --modle.cell gru": "--modle.cell: unknown option; did you mean --model.cell?",
    "fit --calibrate.objectiv f1": "--calibrate.objectiv: unknown option; did you mean "
    "--calibrate.objective?",
    "compare --cell gru": "--cell: unknown option; did you mean --cells?",
    "inspect x.csv --data.label y": "--data.label: unknown option; did you mean --data.",
    "export --stream true": "--stream: unknown option; did you mean --streaming?",
    "fit --output p.csv": "--output: unknown option; it is an option of predict, pack, export",
    "fit --model.bogus 1": "--model.bogus: unknown option; lightning_rnn fit --help all lists ",
    "pack --bogus 1": "--bogus: unknown option; lightning_rnn pack --help lists the options",
    "fit --model.cell LSTM": "--model.cell: expected one of rnn, lstm, gru, mingru, got 'LSTM'; "
    "did you mean lstm?",
    "fit --early_stopping.patiance 3": "--early_stopping.patiance: unknown option; did you mean "
    "--trainer.callbacks?",
    "fit --data x.csv": "--data: expected a class, got 'x.csv'; give --data.train_path x.csv",
    "fit --data x.ts": "--data: expected a class, got 'x.ts'; give --data.train_path x.ts",
    "fit --data x.h5": "--data: expected a class, got 'x.h5'; give --data.train_path x.h5",
    "inspect": "expected a file, got nothing",
    "trian": "command: expected one of fit, validate, test, predict, compare, pack, inspect, "
    "export, got 'trian'; did you mean fit?",
    "predcit": "command: expected one of fit, validate, test, predict, compare, pack, inspect, "
    "export, got 'predcit'; did you mean predict?",
}
CONFIGS = {
    "model: {hiden_size: 3}": "model.hiden_size: unknown option; did you mean model.hidden_size?",
    "data: {batchsize: 3}": "data.batchsize: unknown option; did you mean data.batch_size?",
    "data: {class_path: FileDataModule, init_args: {batchsize: 3}}": "data.batchsize: unknown ",
    "model: {cell: GRU}": "model.cell: expected one of rnn, lstm, gru, mingru, got 'GRU'; did you "
    "mean gru?",
    "trainer.epochs: 3": "trainer.epochs: unknown option; did you mean trainer.max_epochs?",
}
LEFT_TO_THE_PARSER = (
    "fit --data my.Module --data.bogus 3",
    "fit --ckpt_path last --data.bogus 3",
    "fit --trainer.callbacks+=Timer --trainer.callbacks.bogus 3",
    "fit --model.class_weights.ill 3 --trainer.logger.save_dir x",
    "fit --trainer.callbacks.help Timer --data.help FileDataModule --print_config",
    "fit --model.cell null --model.hidden_size ten --model.input_size 3",
    "inspect x.csv --data.id_column id",
)
WITHOUT_TORCH = """
import sys
from lightning_rnn.__main__ import main
main(sys.argv[1:])
assert not {"torch", "lightning", "polars"} & sys.modules.keys()
"""


@pytest.mark.skipif(
    version("lightning") != TABLE.lightning_version, reason="options of another Lightning"
)
def test_the_table_is_that_of_the_parsers():
    table = option_table()
    text = PATH.read_text(encoding="utf-8")
    assert text == written(table), "run: make options"
    assert OptionTable(**table) == TABLE


@pytest.mark.parametrize("args", TYPOS)
def test_typos(empty, refused, args):
    assert refused(*args.split(), code=2).startswith(TYPOS[args])


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("option", ["-c", "--config"])
def test_typos_in_configs(empty, refused, config, option):
    Path("c.yaml").write_text(config)
    message = refused("fit", option, "c.yaml", code=2)
    assert message.startswith(f"c.yaml: {CONFIGS[config]}")


@pytest.mark.parametrize("name", [name for name in TABLE.options if len(name) > 5])
def test_each_option_is_suggested_when_two_letters_are_swapped(name):
    group, dot, last = name.rpartition(".")
    typo = f"{group}{dot}{last[0]}{last[2:1:-1]}{last[1:2]}{last[3:]}"
    if typo == name:
        return
    command = TABLE.options[name][0]
    with pytest.raises(OptionError, match=rf"; did you mean --{name}\?"):
        answer([command, f"--{typo}", "1"])


@pytest.mark.parametrize("args", LEFT_TO_THE_PARSER)
def test_what_the_parser_has_to_answer(args):
    assert answer(args.split()) is None


def test_every_option_of_the_parsers_is_accepted():
    for name, commands in TABLE.options.items():
        for command in commands:
            if name != "config":  # which is read
                assert answer([command, f"--{name}", "1"]) is None
    for name, words in TABLE.choices.items():
        for word in (*words, "null"):
            assert answer([TABLE.options[name][0], f"--{name}={word}"]) is None
    for config in (ROOT / "configs").glob("*.yaml"):
        assert answer(["fit", "--config", str(config)]) is None


def test_options_of_another_version_of_lightning_are_left_to_the_parser(monkeypatch):
    other = replace(TABLE, lightning_version="2.6.0")
    monkeypatch.setattr(OptionTable, "read", lambda: other)
    assert answer(["fit", "--trainer.epochs", "3"]) is None
    with pytest.raises(OptionError, match=r"--model\.hidden_size"):
        answer(["fit", "--model.hiden_size", "3"])


def test_the_parser_takes_no_abbreviations_either(empty, refused, monkeypatch):
    monkeypatch.setattr("lightning_rnn.__main__.answer", lambda args: None)
    expected = "--trainer.max_epoch: unknown option; did you mean --trainer.max_epochs?"
    assert refused("fit", "--trainer.max_epoch", 1, code=2) == expected


def test_synonyms_are_of_options_and_commands():
    assert set(SYNONYMS.values()) <= TABLE.options.keys() | TABLE.commands.keys()


@pytest.mark.parametrize("args", ["trian", "fit --model.hiden_size 3", "--help", "fit --help"])
def test_answers_import_no_torch(tmp_path, args):
    command = [sys.executable, "-c", WITHOUT_TORCH, *args.split()]
    subprocess.run(command, cwd=tmp_path, env=process_environment(), check=True, timeout=60)


@pytest.mark.parametrize("command", SHORT_HELP)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_the_options_used_most(run_ok, command, flag):
    out = run_ok(command, flag)
    assert out.startswith(f"usage: lightning_rnn {command} [options]\n\n")
    assert out.count("\n") < 45
    assert max(map(len, out.splitlines())) <= 100
    assert f"lightning_rnn {command} --help all " in out
    for texts in SHORT_HELP[command].values():
        for name in texts:
            assert command in TABLE.options[name]
            assert f"  --{name} " in out


def test_help_of_fit_has_twenty_options(run_ok):
    assert run_ok("fit", "--help").count("\n  --") == 20


def test_help_of_the_program_names_all_commands(run_ok):
    usage, *lines = run_ok("--help").splitlines()
    assert run_ok("help").splitlines() == [usage, *lines]
    assert usage == f"usage: lightning_rnn {{{','.join(TABLE.commands)}}} [options]"
    for command, text in TABLE.commands.items():
        assert f"  {command:10}{text}" in lines
