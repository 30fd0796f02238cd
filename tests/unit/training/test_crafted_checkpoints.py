"""A crafted checkpoint executes and imports nothing, and is refused in one line."""

import io
import os
import pickle
import random
import struct
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from helpers import BEST, LAST, assert_one_line_error

from lightning_rnn import SequenceClassifier
from lightning_rnn.errors import CheckpointError
from lightning_rnn.training.checkpoint_file import load_checkpoint

CRAFTED = Path("crafted.ckpt")
MARKER = Path("evil-was-here")
EVIL_MODULE = """open('evil-was-here', 'w').close()
class Evil:
    def __init__(self, *args, **kwargs): pass
"""


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {MARKER}",)


class Made:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(MARKER),)


class Imported:
    """Imports a module when it is unpickled."""

    def __reduce__(self):
        return __import__, ("evilpkg",)


def good():
    return torch.load(BEST, weights_only=True)


def save(content):
    torch.save(content, CRAFTED)


def with_hyper_parameters(**values):
    content = good()
    content["hyper_parameters"].update(values)
    save(content)


def with_data(**values):
    content = good()
    content["SyntheticDataModule"]["settings"].update(values)
    save(content)


def with_key(key, value):
    save({**good(), key: value})


def with_weights(change):
    content = good()
    change(content["state_dict"])
    save(content)


def zip_with_pickle(payload):
    """A torch archive whose pickle is the payload's."""
    save(good())
    with zipfile.ZipFile(CRAFTED) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(CRAFTED, "w") as archive:
        for name, value in parts.items():
            archive.writestr(
                name, pickle.dumps(payload, protocol=2) if name.endswith("data.pkl") else value
            )


def legacy():
    """Torch's format before 1.6: pickles one after another, here all of them evil."""
    content = io.BytesIO()
    torch.save(good(), content, _use_new_zipfile_serialization=False)
    CRAFTED.write_bytes(content.getvalue() + pickle.dumps(Payload()))


def claims_size():
    """An archive whose directory says of an entry that it is enormous."""
    save(good())
    content = bytearray(CRAFTED.read_bytes())
    at = content.find(b"PK\x01\x02")  # the first entry of the directory, data.pkl
    struct.pack_into("<II", content, at + 20, 0xFFFFFF00, 0xFFFFFF00)  # compressed and plain size
    CRAFTED.write_bytes(content)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


EVIL = {"class_path": "evilpkg.Evil", "init_args": {}}
CASES = {
    "bare pickle": lambda: CRAFTED.write_bytes(pickle.dumps(Payload())),
    "bare pickle of a checkpoint": lambda: CRAFTED.write_bytes(
        pickle.dumps({**good(), "x": Payload()})
    ),
    "legacy": legacy,
    "payload as data.pkl": lambda: zip_with_pickle(Payload()),
    "mkdir as data.pkl": lambda: zip_with_pickle(Made()),
    "payload beside the weights": lambda: with_key("extra", Payload()),
    "payload in hyper_parameters": lambda: with_hyper_parameters(lr=Payload()),
    "import in hyper_parameters": lambda: with_hyper_parameters(lr=Imported()),
    "_instantiator": lambda: with_hyper_parameters(_instantiator="evilpkg.Evil"),
    "_instantiator of Lightning": lambda: with_hyper_parameters(
        _instantiator="lightning.pytorch.cli.instantiate_module", _class_path="evilpkg.Evil"
    ),
    "_class_path": lambda: with_hyper_parameters(_class_path="evilpkg.Evil"),
    "class path as cell": lambda: with_hyper_parameters(cell="evilpkg.Evil"),
    "class path as optimizer": lambda: with_hyper_parameters(optimizer="evilpkg.Evil"),
    "class as optimizer": lambda: with_hyper_parameters(optimizer=EVIL),
    "class as lr": lambda: with_hyper_parameters(lr=EVIL),
    "class in class_names": lambda: with_hyper_parameters(class_names=[EVIL, EVIL]),
    "class path in the data settings": lambda: with_data(task="evilpkg.Evil"),
    "class in the data settings": lambda: with_data(task=EVIL),
    "class_path among the data settings": lambda: with_data(class_path="evilpkg.Evil"),
    "class as data": lambda: with_key("SyntheticDataModule", EVIL),
    "class as settings": lambda: with_key("SyntheticDataModule", {"settings": EVIL}),
    "class as settings of files": lambda: with_key("FileDataModule", {"settings": EVIL}),
    "text as settings": lambda: with_key("SyntheticDataModule", {"settings": "evilpkg.Evil"}),
    "unknown argument": lambda: with_hyper_parameters(attention=True),
    "unknown data setting": lambda: with_data(noise=0.1),
    "number as name of an argument": lambda: with_hyper_parameters(**{"0": 1}),
    "text as hidden_size": lambda: with_hyper_parameters(hidden_size="wide"),
    "config file as lr": lambda: with_hyper_parameters(lr="/etc/passwd"),
    "flag as lr": lambda: with_hyper_parameters(lr=[True]),
    "list of dicts": lambda: with_hyper_parameters(class_weights=[{"a": 1.0}, {"b": 2.0}]),
    "tensor": lambda: with_hyper_parameters(lr=torch.tensor(0.1)),
    "tensors": lambda: with_hyper_parameters(class_names=[torch.ones(2), torch.ones(2)]),
    "nested deeply": lambda: with_hyper_parameters(class_names=deep(400)),
    "nested too deeply to save": lambda: with_data(seed=deep(400)),
    "hidden_size below 1": lambda: with_hyper_parameters(hidden_size=-4),
    "hidden_size that fills the memory": lambda: with_hyper_parameters(hidden_size=10**9),  # 4 EB
    "hidden_size beyond integers": lambda: with_hyper_parameters(hidden_size=10**30),
    "num_layers beyond the weights": lambda: with_hyper_parameters(num_layers=100),
    "text as num_layers": lambda: with_hyper_parameters(num_layers="2"),
    "nan as lr": lambda: with_hyper_parameters(lr=float("nan")),
    "nan as class name": lambda: with_hyper_parameters(class_names=[float("nan"), "b"]),
    "one class name": lambda: with_hyper_parameters(class_names=["a"]),
    "other shape": lambda: with_weights(
        lambda weights: weights.update({"network.head.weight": torch.zeros(3, 99)})
    ),
    "no head": lambda: with_weights(lambda weights: weights.pop("network.head.weight")),
    "no weights": lambda: with_weights(lambda weights: weights.clear()),
    "more weights": lambda: with_weights(
        lambda weights: weights.update({"network.more": torch.zeros(2)})
    ),
    "text as weight": lambda: with_weights(
        lambda weights: weights.update({"network.head.weight": "evilpkg.Evil"})
    ),
    "number as name of a weight": lambda: with_weights(
        lambda weights: weights.update({3: torch.zeros(2)})
    ),
    "no state_dict": lambda: save(
        {key: value for key, value in good().items() if key != "state_dict"}
    ),
    "complex weights": lambda: with_key(
        "state_dict",
        {name: value.to(torch.complex64) for name, value in good()["state_dict"].items()},
    ),
    "list as state_dict": lambda: with_key("state_dict", [torch.zeros(2)]),
    "no version": lambda: save(
        {key: value for key, value in good().items() if not key.endswith("version")}
    ),
    "sums without values": lambda: with_key("train_sums", torch.zeros(1, 3, device="meta")),
    "sparse sums": lambda: with_key("train_sums", torch.zeros(1, 3).to_sparse()),
    "test sequences for which metrics have no memory": lambda: with_data(num_test=10**6),
    "text as global_step": lambda: with_key("global_step", "evilpkg.Evil"),
    "step below 0": lambda: with_key("global_step", -1),
    "step beyond integers": lambda: with_key("global_step", 10**40),
    "truncated": lambda: CRAFTED.write_bytes(BEST.read_bytes()[:-700]),
    "head alone": lambda: CRAFTED.write_bytes(BEST.read_bytes()[:64]),
    "no zip": lambda: CRAFTED.write_text("words\n" * 1000),
    "empty": lambda: CRAFTED.write_bytes(b""),
    "folder": CRAFTED.mkdir,
    "claims an enormous entry": claims_size,
    "claims an enormous tensor": lambda: with_weights(
        lambda weights: weights.update({"network.head.weight": torch.zeros(1).expand(10**14)})
    ),
}
LOOPS = ("loops", "fit_loop")
STEPS = (*LOOPS, "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total")
OPTIMIZER = ("optimizer_states", 0)
RANK = ("callbacks", "RandomStates", "ranks", 0)
ABSENT = object()
STATES = [  # an entry, and a value with which the run cannot be continued
    (("loops",), {}),
    (("loops",), "text"),
    ((*LOOPS, "epoch_progress"), ABSENT),
    ((*LOOPS, "epoch_progress", "current", "ready"), -1),
    ((*STEPS, "completed"), 7),
    (("callbacks",), []),
    (("callbacks",), {}),
    (("callbacks", "RandomStates", "ranks"), []),
    ((*RANK, "torch"), torch.zeros(3, dtype=torch.uint8)),
    ((*RANK, "python"), [3]),
    (("callbacks", "GradientFlowProbe", "curves"), [1]),
    (("optimizer_states",), {}),
    ((*OPTIMIZER, "state", 0, "exp_avg"), torch.zeros(1)),
    ((*OPTIMIZER, "state", 0, "exp_avg_sq"), ABSENT),
    ((*OPTIMIZER, "state", 99), {}),
    ((*OPTIMIZER, "param_groups", 0, "betas"), "text"),
    ((*OPTIMIZER, "param_groups", 0, "lr"), -1.0),
    ((*OPTIMIZER, "param_groups", 0, "maximize"), True),
    (("lr_schedulers",), "text"),
    (("conditions", "threads"), 10**9),
    (("metrics",), {"val/loss": "text"}),
    (("train_sums",), torch.zeros(1, 2, dtype=torch.float64)),
    (("metrics",), {7: 0.5}),
    (("pytorch-lightning_version",), "text"),
    (("pytorch-lightning_version",), "2.6.6x"),
    (("pytorch-lightning_version",), "1"),
    (("epoch",), "text"),
    (("SyntheticDataModule", "loader", "position"), -1),
    (("SyntheticDataModule", "settings", "num_train"), 10**12),
]


@pytest.mark.parametrize(("place", "value"), STATES, ids=[str(place)[:40] for place, _ in STATES])
def test_a_run_is_not_continued_from_a_crafted_state(trained, run, place, value):
    content = torch.load(LAST, weights_only=True)
    entry = content
    for name in place[:-1]:
        entry = entry[name]
    if value is ABSENT:
        del entry[place[-1]]
    else:
        entry[place[-1]] = value
    LAST.unlink()
    torch.save(content, LAST)
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    result = run("fit", "--ckpt_path", LAST, "--trainer.max_epochs", 3)
    assert_one_line_error(result)
    after = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    if place != ("callbacks", "GradientFlowProbe", "curves"):  # found when events are written
        assert after == before


def test_no_flipped_bit_is_read(trained):
    """Of those that change what a checkpoint contains; many belong to padding."""
    content = BEST.read_bytes()
    expected = repr(torch.load(BEST, weights_only=True))
    rng = random.Random(0)
    num_refused = 0
    for _ in range(60):
        flipped = bytearray(content)
        bit = rng.randrange(8 * len(content))
        flipped[bit // 8] ^= 1 << bit % 8
        CRAFTED.write_bytes(flipped)
        try:
            assert repr(load_checkpoint(CRAFTED)) == expected
        except CheckpointError:
            num_refused += 1
    assert num_refused > 20


TAKEN_FROM_THE_DATA = {"nan as class name", "one class name"}  # by fit


def test_there_are_many_cases():
    assert len(CASES) >= 14


@pytest.fixture
def evil(trained, monkeypatch):
    """A module that leaves a trace when it is imported, within reach."""
    (trained / "evilpkg.py").write_text(EVIL_MODULE)
    monkeypatch.syspath_prepend(trained)
    yield trained
    sys.modules.pop("evilpkg", None)


def assert_harmless():
    assert "evilpkg" not in sys.modules
    assert not MARKER.exists()


def test_the_trap_works(evil):
    """Without protection, importing the module or loading the payload leaves a file."""
    __import__("evilpkg")
    assert MARKER.exists()
    MARKER.unlink()
    zip_with_pickle(Payload())
    torch.load(CRAFTED, weights_only=False)
    assert MARKER.exists()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["test", "fit"])
def test_crafted_checkpoints_are_refused(evil, run, command, case):
    CASES[case]()
    if command == "fit" and case in TAKEN_FROM_THE_DATA:
        assert run("fit", "--ckpt_path", CRAFTED).code in (0, 1)
        assert_harmless()
        return
    before = sorted(evil.rglob("*"))
    result = run(command, "--ckpt_path", CRAFTED)
    assert_harmless()
    assert result.code in (1, 2), result
    assert result.err.startswith("lightning_rnn: error: "), result
    assert result.err.count("\n") == 1, result
    assert len(result.err) < 1000, result
    assert "Traceback" not in result.out + result.err
    assert sorted(evil.rglob("*")) == before


@pytest.mark.parametrize("case", CASES)
def test_crafted_checkpoints_do_nothing_to_a_program(evil, case):
    """Lightning's own way to load may accept the file, but executes and imports nothing."""
    CASES[case]()
    with suppress(Exception):
        SequenceClassifier.load_from_checkpoint(CRAFTED)
    assert_harmless()


@pytest.mark.parametrize("case", CASES)
def test_the_loader_returns_plain_settings_or_refuses(evil, case):
    CASES[case]()
    try:
        content = load_checkpoint(CRAFTED)
    except CheckpointError as error:
        message = str(error)
    else:
        message = None
        assert content["hyper_parameters"].keys() <= good()["hyper_parameters"].keys()
    if message is not None:
        assert str(CRAFTED) in message
        assert "\n" not in message
    assert_harmless()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/best.ckpt", "https://localhost/best.ckpt", "s3://bucket/best.ckpt"]
)
@pytest.mark.parametrize("command", ["test", "fit"])
def test_addresses_are_not_fetched(evil, run, monkeypatch, command, url):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    result = run(command, "--ckpt_path", url)
    assert result.code == 1
    assert result.err.startswith("lightning_rnn: error: "), result
    assert result.err.count("\n") == 1, result
    assert "expected a checkpoint file, got no such file" in result.err
