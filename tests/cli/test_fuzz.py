"""Any arguments and any files: a message of one line and an exit code, never a traceback.

`FUZZ_EXAMPLES` (200 by default) is the number of checkpoints to try; a tenth of it that of command
lines and config files, which take longer.
"""

import os
import warnings
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from helpers import BEST
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lightning_rnn.cli.command_line import CommandLine
from lightning_rnn.cli.request import COMMANDS
from lightning_rnn.errors import CheckpointError
from lightning_rnn.training.checkpoint_file import load_checkpoint

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
SMALL = ("--data.num_train", 5, "--data.num_val", 4)
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

MODEL_OPTIONS = """cell hidden_size num_layers bidirectional dropout pooling stem pos_weight
    class_weights optimizer lr weight_decay schedule"""
DATA_OPTIONS = """task length min_length num_features num_train num_val num_test batch_size seed
    fresh class_path init_args train_path val_fraction stratify"""
CHECKPOINT_OPTIONS = "monitor every_n_steps every_n_minutes"
TRAINER_OPTIONS = """max_epochs max_steps gradient_clip_val log_every_n_steps val_check_interval
    accumulate_grad_batches limit_train_batches max_time deterministic"""
OTHER_OPTIONS = """--model --data --checkpoint --trainer --seed_everything --ckpt_path --config
    --output --overwrite --allow_data_change --model.input_size --no.such.option -- -x fit"""
OPTIONS = [
    *(f"--model.{name}" for name in MODEL_OPTIONS.split()),
    *(f"--data.{name}" for name in DATA_OPTIONS.split()),
    *(f"--checkpoint.{name}" for name in CHECKPOINT_OPTIONS.split()),
    *(f"--trainer.{name}" for name in TRAINER_OPTIONS.split()),
    *OTHER_OPTIONS.split(),
]
YAML_WORDS = """null ~ true no nan .nan inf -.inf -1 0 1 2 7 1e3 1e400 -0.0 0x10 1_0 0.5 [ ] [] {} {
    !!python/name:os"""
VALUE_WORDS = """rnn lstm conv mean cosine balanced parity val/auroc min FileDataModule
    SyntheticDataModule os.system builtins.open / . /dev/null ${HOME} %s {0}"""
WORDS = [*YAML_WORDS.split(), *VALUE_WORDS.split()]
WORDS += ["", " ", "[1, 2]", "{a: 1}", "a: b: c", "&a [*a]", "- 1"]
WORDS += ["\ufffd", "\N{GREEK SMALL LETTER PI}", "\u202e", "\N{PILE OF POO}"]
HUGE = [str(2**31), str(2**63), str(2**64), str(-(2**63) - 1), "9" * 400, "1" + "0" * 5000]
# between 1000 and HUGE lie sizes that would really be allocated
NUMBERS = st.one_of(st.integers(-100, 100), st.floats(-100, 100), st.floats(0, 1)).map(str)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(st.sampled_from(WORDS), NUMBERS, TEXTS)
UNSIZED_OPTIONS = """--model.lr --model.weight_decay --model.dropout --model.pos_weight --data.seed
    --seed_everything --trainer.max_epochs --trainer.max_steps --model.cell
    --checkpoint.every_n_steps --checkpoint.every_n_minutes"""
UNSIZED = st.sampled_from(UNSIZED_OPTIONS.split())
TYPED = st.one_of(
    st.tuples(st.sampled_from(OPTIONS), VALUES),
    st.tuples(UNSIZED, st.sampled_from(HUGE)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, original_run):
    """A folder with a whole checkpoint, `good.ckpt`."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "good.ckpt").write_bytes((original_run / BEST).read_bytes())
    return folder


def nothing_runs():
    """Parse, build and open everything, but train and evaluate nothing."""
    return patch.object(CommandLine, "execute", lambda self: None)


def assert_short_message(result):
    assert result.code in (0, 1, 2), result
    if result.code == 0:
        assert result.err == "", result
    else:
        assert result.err.startswith("lightning_rnn: error: "), result
        assert result.err.count("\n") == 1, result
    assert "Traceback" not in result.out + result.err


@settings(max_examples=max(10, EXAMPLES // 10), **QUIET)
@given(
    command=st.sampled_from(list(COMMANDS)),
    typed=st.lists(TYPED, min_size=1, max_size=3),
    glued=st.booleans(),
)
@example(command="fit", typed=[("--seed_everything", str(2**32))], glued=True)
@example(command="test", typed=[("--model.lr", "9" * 400)], glued=True)
def test_options(folder, run, command, typed, glued):
    """All is parsed, built and opened; nothing is trained."""
    words = [f"{name}={value}" if glued else (name, value) for name, value in typed]
    args = [word for item in words for word in ((item,) if isinstance(item, str) else item)]
    start = SMALL if command == "fit" else ("--ckpt_path", "good.ckpt", "--data.num_test", 3)
    with chdir(folder), nothing_runs():
        assert_short_message(run(command, *start, *args))


KEYS = [
    "model",
    "data",
    "trainer",
    "class_path",
    "init_args",
    "lr",
    "seed",
    "fit",
    "ckpt_path",
    "default_root_dir",
]
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10), st.floats(), TEXTS, st.sampled_from(WORDS)
)
YAML = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=max(10, EXAMPLES // 10), **QUIET)
@given(
    content=st.one_of(
        st.binary(max_size=60), YAML.map(lambda value: yaml.safe_dump(value).encode())
    )
)
@example(content=b"trainer: null")
@example(content=b"trainer: {default_root_dir: 5}")
@example(content=b"ckpt_path: [1]")
@example(content=b"trainer: 7.5")
@example(content=b"model: []")
def test_config_files(folder, run, content):
    """A config of any content."""
    with chdir(folder), nothing_runs():
        Path("any.yaml").write_bytes(content)
        assert_short_message(run("fit", "--config", "any.yaml", *SMALL))


def assert_loads_or_refuses(folder, content):
    path = folder / "any.ckpt"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of odd files
        try:
            content = load_checkpoint(path)
        except CheckpointError as error:
            message = str(error)
        else:
            assert isinstance(content["state_dict"], dict)
            assert isinstance(content["hyper_parameters"], dict)
            return
    assert str(path) in message
    assert "\n" not in message


@settings(max_examples=EXAMPLES, **QUIET)
@given(
    content=st.binary(max_size=400),
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00."]),
)
def test_random_bytes_as_checkpoint(folder, content, start):
    assert_loads_or_refuses(folder, start + content)


@settings(max_examples=EXAMPLES, **QUIET)
@given(data=st.data())
def test_mutated_checkpoints(folder, data):
    """A few bytes changed, most of them where the pickle and the directory lie."""
    content = bytearray((folder / "good.ckpt").read_bytes())
    pickle = (content.find(b"data.pkl"), content.find(b"PK\x03\x04", 10))
    directory = (content.find(b"PK\x01\x02"), len(content))
    for _ in range(data.draw(st.integers(1, 8))):
        first, end = data.draw(st.sampled_from([pickle, directory, (0, len(content))]))
        content[data.draw(st.integers(first, end - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    assert_loads_or_refuses(folder, bytes(content[:cut]))


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXTS,
    st.binary(max_size=5),
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
PARTS = (
    "hyper_parameters",
    "state_dict",
    "global_step",
    "SyntheticDataModule",
    "FileDataModule",
    "epoch",
    "loops",
)


@settings(max_examples=EXAMPLES, **QUIET)
@given(key=st.sampled_from(PARTS), value=NESTED)
def test_checkpoints_of_any_content(folder, key, value):
    content = torch.load(folder / "good.ckpt", weights_only=True)
    if isinstance(value, dict) and isinstance(content.get(key), dict):
        content[key] = {**content[key], **value}
    else:
        content[key] = value
    torch.save(content, folder / "built.ckpt")
    assert_loads_or_refuses(folder, (folder / "built.ckpt").read_bytes())


@settings(max_examples=max(10, EXAMPLES // 10), **QUIET)
@given(
    name=st.sampled_from([*MODEL_OPTIONS.split(), "class_names", "input_size", "feature_names"]),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-9, 300),
        st.floats(),
        TEXTS,
        st.lists(st.one_of(st.integers(0, 9), TEXTS), max_size=3),
    ),
)
@pytest.mark.parametrize("command", ["fit", "test"])
def test_hyper_parameters_of_any_content(folder, run, command, name, value):
    """What the loader lets through reaches the model: that must refuse it in our words, too."""
    with chdir(folder), nothing_runs():
        content = torch.load("good.ckpt", weights_only=True)
        content["hyper_parameters"][name] = value
        torch.save(content, "built.ckpt")
        assert_short_message(run(command, "--ckpt_path", "built.ckpt"))
