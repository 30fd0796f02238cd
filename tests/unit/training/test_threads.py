"""The number of threads: chosen from the work and the free cores, stored, and restored."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.models.network import NetworkOptions
from lightning_rnn.training import threads
from lightning_rnn.training.threads import choose_num_threads, num_free_cores

SMALL = {"num_train": 64, "num_val": 32, "length": 4, "batch_size": 32}


@pytest.fixture
def four_free_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "num_free_cores", lambda: 4)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("hidden_size", "batch_size", "stem", "expected"),
    [
        (32, 32, "none", 1),
        (64, 32, "conv", 1),
        (64, 64, "none", 2),
        (128, 32, "none", 4),
        (128, 64, "none", 4),
        (512, 256, "none", 4),
        (32, 8, "inception", 4),
        (32, 3, "inception", 3),
        (32, 1, "inception", 1),
    ],
)
def test_more_work_takes_more_threads_up_to_the_free_cores(
    four_free_cores, hidden_size, batch_size, stem, expected
):
    options = NetworkOptions(hidden_size=hidden_size, stem=stem)
    assert choose_num_threads(options, batch_size) == expected


@pytest.mark.parametrize(("free", "expected"), [(0, 1), (1, 1), (2, 2), (16, 8)])
def test_a_busy_machine_gets_fewer_threads(monkeypatch, four_free_cores, free, expected):
    monkeypatch.setattr(threads, "num_free_cores", lambda: free)
    assert choose_num_threads(NetworkOptions(hidden_size=128), 64) == expected


def test_the_environment_overrules(monkeypatch, four_free_cores):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = NetworkOptions(hidden_size=512)
    assert choose_num_threads(options, 256) == torch.get_num_threads() == 1


def test_free_cores_are_a_sensible_number():
    assert 0 <= num_free_cores() <= threads.os.cpu_count()


@pytest.mark.parametrize("load", [None, 0.0])
def test_free_cores_of_other_systems(monkeypatch, load):
    """Windows has no load average."""
    monkeypatch.setattr(threads.Path, "exists", lambda path: False)
    if load is None:
        monkeypatch.delattr(threads.os, "getloadavg")
    else:
        monkeypatch.setattr(threads.os, "getloadavg", lambda: (load, load, load))
    assert num_free_cores() >= 1


QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def fit(folder, *, ckpt_path=None, max_epochs=1, error=None):
    """Train; return the number of threads in training and the path of the checkpoint."""
    seen = []

    class Record(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(torch.get_num_threads())
            if error is not None:
                raise error

    trainer = Trainer(default_root_dir=folder, max_epochs=max_epochs, callbacks=Record(), **QUIET)
    model = SequenceClassifier(hidden_size=128)
    trainer.fit(model, datamodule=SyntheticDataModule(**SMALL), ckpt_path=ckpt_path)
    return seen, trainer.checkpoint_callback.best_model_path


def test_threads_are_restored_after_training(tmp_path, four_free_cores):
    seen, _ = fit(tmp_path)
    assert (seen, torch.get_num_threads()) == ([4], 1)


def test_threads_are_restored_after_an_error(tmp_path, four_free_cores):
    with pytest.raises(ValueError, match="of the test"):
        fit(tmp_path, error=ValueError("of the test"))
    assert torch.get_num_threads() == 1


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_run_has_the_threads_of_its_checkpoint(tmp_path, monkeypatch, four_free_cores):
    _, path = fit(tmp_path / "first")
    assert torch.load(path, weights_only=True)["conditions"]["threads"] == 4
    monkeypatch.setattr(threads, "num_free_cores", lambda: 0)
    seen, _ = fit(tmp_path / "second", ckpt_path=path, max_epochs=2)
    assert seen == [4]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.warns(UserWarning, match="trained with threads 4, this run has 1 "):
        seen, _ = fit(tmp_path / "third", ckpt_path=path, max_epochs=2)
    assert seen == [1]


def test_only_training_depends_on_the_threads(tmp_path, four_free_cores):
    _, path = fit(tmp_path)
    assert torch.get_num_threads() == 1
    data = SyntheticDataModule(**SMALL)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(**QUIET).test(SequenceClassifier(hidden_size=128), data, ckpt_path=path)
    assert not [each for each in caught if "trained with" in str(each.message)]
