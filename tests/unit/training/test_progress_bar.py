"""The progress bar in a process that shows none, as every rank but one does."""

import pytest
from lightning.pytorch import Trainer

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.training.progress_bar import RunProgressBar


def fit(bar):
    trainer = Trainer(
        max_epochs=2,
        callbacks=[bar],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    data = SyntheticDataModule(num_train=12, num_val=4, batch_size=4)
    trainer.fit(SequenceClassifier(hidden_size=2), datamodule=data)


def test_it_counts_the_steps_of_the_run(capsys):
    fit(RunProgressBar(refresh_rate=1))
    out = capsys.readouterr().out
    assert "epoch 2/2: 100%" in out
    assert "6/6" in out
    assert "Validation" not in out


def test_an_error_before_training_is_not_hidden(monkeypatch):
    def no_data(data):
        raise OSError("no data")

    monkeypatch.setattr(SyntheticDataModule, "prepare_data", no_data)
    with pytest.raises(OSError, match="no data"):
        fit(RunProgressBar(refresh_rate=1))


def test_a_disabled_one_shows_nothing(capsys):
    bar = RunProgressBar(refresh_rate=1)
    bar.disable()
    fit(bar)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""
