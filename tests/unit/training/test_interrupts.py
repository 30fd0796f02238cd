"""What is taken for the end of another rank, and what is not."""

from types import SimpleNamespace

import pytest
from torch.distributed import DistNetworkError

from lightning_rnn.errors import CheckpointError, LostRankError
from lightning_rnn.training import interrupts
from lightning_rnn.training.interrupts import Interrupts

LOOP = SimpleNamespace(epoch_loop=SimpleNamespace())
TRAINER = SimpleNamespace(checkpoint_callbacks=[], world_size=2, fit_loop=LOOP)


@pytest.fixture
def callback(monkeypatch):
    monkeypatch.setattr(interrupts, "SECONDS_TO_END", 0.0)
    monkeypatch.setattr(interrupts, "gather_objects", lambda own: [own, own])
    callback = Interrupts()
    monkeypatch.setattr(interrupts, "SIGNALS", ())
    monkeypatch.setattr(interrupts.torch.distributed, "get_backend", lambda: "gloo")
    callback.on_train_start(TRAINER, None)
    return callback


def test_a_closed_connection_is_a_lost_rank(callback):
    error = DistNetworkError("Connection closed by peer")
    with pytest.raises(LostRankError, match="has ended unexpectedly"):
        callback.on_exception(TRAINER, None, error)


@pytest.mark.parametrize("kind", [CheckpointError, FileNotFoundError])
def test_a_file_below_a_folder_store_is_none(callback, kind):
    """Which error ends the run is for its message to say."""
    callback.on_exception(TRAINER, None, kind("/store/run/checkpoints: no such folder"))
