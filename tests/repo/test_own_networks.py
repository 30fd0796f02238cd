"""The scripts and commands of docs/own_networks.md."""

import functools
import importlib
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from finished_runs import history
from helpers import LAST, RUN, TINY, TINY_DATA, load
from lightning.pytorch import Trainer, seed_everything

from lightning_rnn import OnnxClassifier, SequenceClassifier, SequenceNetwork, SyntheticDataModule
from lightning_rnn.errors import OptionError

PAGE = Path(__file__).parents[2] / "docs/own_networks.md"
SCRIPT, DATA_SCRIPT = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
NAME = "own_network.ConvClassifier"
SEQUENCES = [np.array([[0.1], [0.5], [-0.2]]), np.array([[-0.3]])]


def assert_equal_weights(checkpoint, other):
    weights, other_weights = checkpoint["state_dict"], other["state_dict"]
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, other_weights[name]), name


@pytest.fixture
def own_trainer():
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(max_epochs=1, accelerator="cpu", **quiet)


@pytest.fixture
def own_network(empty, monkeypatch):
    Path("own_network.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(empty))


@pytest.mark.filterwarnings("ignore")  # those of a Trainer with its own defaults
def test_the_script_trains_exports_and_resumes(own_network):
    assert len(SCRIPT.splitlines()) <= 30
    names = runpy.run_path("own_network.py", run_name="__main__")
    [first] = Path("lightning_logs/version_0").rglob("*.ckpt")
    [second] = Path("lightning_logs/version_1").rglob("*.ckpt")
    assert load(second)["global_step"] == load(first)["global_step"] * 3 // 2
    assert not [name for name in load(first)["state_dict"] if "recurrent" in name]
    trained = names["ConvClassifier"].load_from_checkpoint(first)
    onnx = OnnxClassifier("model.onnx")
    expected = trained.predict_proba(SEQUENCES)
    np.testing.assert_allclose(onnx.predict_proba(SEQUENCES), expected, atol=1e-5)
    assert repr(trained) == "ConvClassifier(input_size=1, class_names=['negative', 'positive'])"


@pytest.mark.filterwarnings("ignore")  # as above
def test_the_data_module_trains(empty):
    names = {}
    seed_everything(0, verbose=False)
    exec(DATA_SCRIPT, names)
    assert names["trainer"].callback_metrics["val/accuracy"] > 0.85


def test_on_the_command_line(own_network, run, run_ok):
    small = (*TINY, *TINY_DATA, "--model.schedule", "constant")
    out = run_ok("fit", "--model", NAME, "--model.channels", 4, *small)
    assert f"--model {NAME}" in out
    run_ok("fit", "--model", NAME, "--ckpt_path", "last", "--trainer.max_epochs", 3)
    whole = ("--trainer.max_epochs", 3, "--trainer.default_root_dir", "whole")
    run_ok("fit", "--model", NAME, "--model.channels", 4, *small, *whole)
    assert_equal_weights(load(LAST), load("whole" / LAST))
    for command in ("test", "predict", "export"):
        run_ok(command, "--model", NAME)
    for args, message in (
        (["test"], "--model: expected the class 'ConvClassifier', with which"),
        (["test", "--model", NAME, "--model.channels", 5], "--model.channels: expected 4 as in"),
        (["export", "--model", f"{NAME}s"], "--model: expected the path of a class"),
        (["export", "--model", "own_network.ConvEncoder"], "--model: expected a subclass of"),
        (["export", "--model", NAME, "--streaming", "true"], "--streaming: expected False"),
        (["compare", "--model", NAME], "--model: expected none in a comparison"),
    ):
        refused = run(*args)
        assert refused.code == 2, refused
        assert message in refused.err


class Mean(torch.nn.Module):
    output_size = 1

    def forward(self, x, lengths):
        return x.mean(1)


def test_an_encoder_that_depends_on_padding_is_refused(own_trainer):
    class MeanClassifier(SequenceClassifier):
        def make_encoder(self, input_size):
            return Mean()

    with pytest.raises(OptionError, match=r"make_encoder: .* zeros appended"):
        own_trainer.fit(MeanClassifier(), datamodule=SyntheticDataModule(num_train=64, num_val=8))


def test_an_encoder_without_a_size_is_refused():
    class FlatClassifier(SequenceClassifier):
        def make_encoder(self, input_size):
            return torch.nn.Flatten()

    with pytest.raises(OptionError, match="expected a module whose attribute output_size"):
        FlatClassifier(input_size=1, num_classes=2)


def test_optimizer_and_scheduler_of_the_user(empty, run, run_ok):
    """A resumed run ends like an undisturbed one."""
    sgd = ("--optimizer", "SGD", "--optimizer.lr", 0.5, "--optimizer.momentum", 0.9)
    step = ("--lr_scheduler", "StepLR", "--lr_scheduler.step_size", 1)
    constant = ("--model.schedule", "constant")
    small = (*TINY, *TINY_DATA)
    run_ok("fit", *small, *sgd, *step, *constant)
    run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    whole = ("--trainer.max_epochs", 3, "--trainer.default_root_dir", "whole")
    run_ok("fit", *small, *sgd, *step, *constant, *whole)
    resumed = load(LAST)
    assert_equal_weights(resumed, load("whole" / LAST))
    [group] = resumed["optimizer_states"][0]["param_groups"]
    assert group["momentum"] == 0.9
    assert group["lr"] == pytest.approx(0.5 * 0.1**3)
    for option in ("--optimizer.lr", "--lr_scheduler.gamma"):
        config = ("--config", RUN / "config.yaml")  # which makes it trusted
        refused = run("fit", *config, "--ckpt_path", "last", option, 0.2)
        assert refused.code == 2
        assert f"{option.partition('.')[0]}: expected {{'class_path': 'torch.optim." in refused.err
    for args, message in (
        ((*sgd, *step), "--model.schedule: expected constant with --lr_scheduler, got 'cosine'"),
        ((*step, *constant), "--lr_scheduler: expected an optimizer, too, got none"),
    ):
        refused = run("fit", *small, *args)
        assert (refused.code, refused.err) == (2, f"lightning_rnn: error: {message}\n")


def test_the_schedule_applies_to_an_optimizer_of_the_user(empty, run_ok):
    sgd = ("--optimizer", "torch.optim.SGD", "--optimizer.lr", 0.5, "--model.schedule", "cosine")
    run_ok("fit", *TINY, *TINY_DATA, *sgd)
    last = [value for tag, _, value in history(RUN) if tag == "train/lr"][-1]
    assert 0 < last < 0.5


@pytest.mark.slow
def test_a_network_with_an_encoder_compiles_to_one_graph(own_network):
    make = importlib.import_module("own_network").ConvClassifier.make_encoder
    settings = SimpleNamespace(hparams=SimpleNamespace(channels=4))
    encoder = functools.partial(make, settings)
    network = SequenceNetwork(input_size=2, num_classes=3, make_encoder=encoder)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 9, 2)
    for lengths in ([9, 4, 1], [9, 9, 9]):
        expected = network(x, torch.tensor(lengths))
        torch.testing.assert_close(compiled(x, torch.tensor(lengths)), expected)


def test_data_of_the_user_are_not_replaced_by_a_synthetic_task(empty, monkeypatch, run, run_ok):
    definitions = DATA_SCRIPT.partition("\n\ntrainer = ")[0]
    Path("my_module.py").write_text(definitions)
    monkeypatch.syspath_prepend(empty)
    data = ("--data", "my_module.Waves")
    out = run_ok("fit", *data, "--model.hidden_size", 2, "--trainer.max_steps", 2)
    assert "--data my_module.Waves" in out
    for args in (["test"], ["validate"], ["fit", "--init_from", RUN / "checkpoints/best.ckpt"]):
        result = run(*args)
        assert result.code == 2
        assert "--data: expected the data module" in result.err
    result = run("test", "--data", "SyntheticDataModule")
    assert result.code == 1
    assert "a task with the classes slow, fast" in result.err
    assert "100 sequences" in run_ok("test", *data)
    for option in ("--data", "--optimizer"):
        result = run("fit", option, "my_module.Missing")
        assert "no attribute 'Missing'" in result.err


class Mixing(torch.nn.Module):
    """Depends on the other sequences of a batch, as TransformerEncoder without batch_first does."""

    output_size = 1

    def forward(self, x, lengths):
        total = x.sum(1)
        return total - total.mean(0)


class TooNarrow(Mixing):
    output_size = 2

    def forward(self, x, lengths):
        return x.sum(1)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [(Mixing(), "the other sequences of the batch"), (TooNarrow(), r"= \(B, 2\), got \(4, 1\)")],
)
def test_an_unsuitable_encoder_is_refused(own_trainer, encoder, words):
    class Own(SequenceClassifier):
        def make_encoder(self, input_size):
            return encoder

    with pytest.raises(OptionError, match=words):
        own_trainer.fit(Own(), datamodule=SyntheticDataModule(num_train=64, num_val=64))
