"""The data modules with a plain Lightning Trainer, as Lightning's documentation uses one."""

import logging
import pickle
import subprocess
import sys
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, ModelCheckpoint
from lightning.pytorch.tuner import Tuner

from lightning_rnn import FileDataModule, SequenceDataModule, Sequences, SyntheticDataModule
from lightning_rnn.data.schema import Schema
from lightning_rnn.errors import DataError

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "Be aware that when using `ckpt_path`, callbacks",
        "The dirpath has changed from",
        "Checkpoint directory .* exists and is not empty",
        "The number of training batches .* is smaller than the logging interval",
    )
]
SMALL = {"num_train": 20, "num_val": 6, "num_test": 7, "batch_size": 4}
FILES = Path(__file__).parents[2] / "files"


class Recorder(LightningModule):
    """Records which sequences it sees."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.trained = []
        self.validated = []
        self.tested = []

    def training_step(self, batch, batch_idx):
        self.trained.append((self.trainer.current_epoch, batch_idx, batch.index.tolist()))
        return self.layer(batch.x).mean()

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.validated.append(batch.index.tolist())

    def test_step(self, batch, batch_idx):
        self.tested.append(batch.index.tolist())

    def predict_step(self, batch, batch_idx):
        return batch.index

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """Lightning writes into the current folder by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.ERROR)


def trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(**{"accelerator": "cpu", "max_epochs": 3} | quiet | options)


def fit(ckpt_path=None, data=None, **options):
    model = Recorder()
    data = SyntheticDataModule(**SMALL | (data or {}))
    trainer(**options).fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model, data


def test_defaults_of_the_trainer(tmp_path):
    model = Recorder()
    data = SyntheticDataModule(**SMALL)
    default = Trainer(accelerator="cpu", max_epochs=2)
    default.fit(model, datamodule=data)
    for epoch in (0, 1):
        rows = [index for at, _, index in model.trained if at == epoch]
        assert sorted(np.concatenate(rows)) == list(range(20))
    assert [sorted(rows) for rows in model.validated] == [list(range(6))] * 2
    default.test(model, datamodule=data)
    assert sorted(model.tested[0]) == list(range(7))
    (predicted,) = default.predict(model, datamodule=data)
    assert sorted(predicted.tolist()) == list(range(7))
    assert list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"limit_train_batches": 3},
        {"limit_train_batches": 0.5, "limit_val_batches": 0},
        {"val_check_interval": 2},
        {"overfit_batches": 2},
        {"reload_dataloaders_every_n_epochs": 1},
        {"data": {"fresh": True}},
        {"data": {"fresh": True}, "overfit_batches": 2},
        {"data": {"length": 9, "min_length": 2, "buckets": True}},
    ],
    ids=str,
)
def test_a_run_that_is_resumed_sees_what_an_uninterrupted_run_sees(options, tmp_path):
    every_step = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    every_epoch = ModelCheckpoint(
        tmp_path, filename="epoch-{step}", save_on_train_epoch_end=True, save_top_k=-1
    )
    whole, data = fit(callbacks=[every_step, every_epoch], **options)
    steps_per_epoch = len(whole.trained) // 3
    if "overfit_batches" in options:
        epochs = [whole.trained[start : start + 2] for start in (0, 2, 4)]
        rows = [[index for _, _, index in epoch] for epoch in epochs]
        assert rows[0] == rows[1] == rows[2]
    for step in {1, 2, steps_per_epoch, steps_per_epoch + 1}:
        for path in tmp_path.glob(f"*step={step}.ckpt"):
            torch.load(path, weights_only=True)
            resumed, resumed_data = fit(ckpt_path=path, **options)
            assert whole.trained[:step] + resumed.trained == whole.trained, path.name
            if "reload_dataloaders_every_n_epochs" not in options:
                assert resumed_data.state_dict()["loader"] == data.state_dict()["loader"]


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
def test_precision(precision):
    model, _ = fit(precision=precision, max_epochs=1)
    assert len(model.trained) == 5


def test_without_validation_data_the_trainer_stays_as_it_was():
    model = Recorder()
    bare = trainer(max_epochs=1)
    bare.fit(model, datamodule=SyntheticDataModule(**SMALL | {"num_val": 0}))
    assert model.validated == []
    bare.validate(model, datamodule=SyntheticDataModule(**SMALL), verbose=False)
    assert [sorted(rows) for rows in model.validated] == [list(range(6))]


@pytest.mark.slow
def test_batch_size_finder_and_tuner_set_the_batch_size():
    finder = BatchSizeFinder(steps_per_trial=1)
    model, data = fit(data={"batch_size": 3}, max_epochs=1, callbacks=[finder])
    assert data.batch_size == data.settings["batch_size"] == 32  # stops at the size of the data
    assert len(model.trained[-1][2]) == 20
    model = Recorder()
    data = FileDataModule(train_path=str(FILES / "ItalyPowerDemand_TRAIN.ts"))
    bare = trainer(max_epochs=1)
    Tuner(bare).scale_batch_size(model, datamodule=data, max_trials=2, steps_per_trial=1)
    assert data.batch_size == 4
    bare.fit(model, datamodule=data)
    assert [len(index) for _, _, index in model.trained[-14:]] == [4] * 13 + [1]


class Arrays(SequenceDataModule):
    """Data of one's own; train and validation only."""

    def read_schema(self):
        return Schema(num_features=1, class_names=["even", "odd"])

    def load_split(self, name):
        if name not in ("train", "val"):
            return None
        return Sequences.from_arrays(np.arange(12.0).reshape(4, 3, 1), labels=[0, 1, 0, 1])


def test_a_data_module_of_ones_own(tmp_path):
    model = Recorder()
    data = Arrays()
    bare = trainer(max_epochs=1)
    bare.fit(model, datamodule=data)
    assert (data.num_features, data.num_classes, data.batch_size) == (1, 2, 8)
    assert (data.class_names, data.feature_names) == (["even", "odd"], None)
    assert "Arrays" in str(data)
    assert data.settings == {"batch_size": None, "buckets": False, "on_device": None, "seed": 0}
    (path,) = tmp_path.rglob("*.ckpt")
    stored = torch.load(path, weights_only=True)["Arrays"]
    assert stored["settings"] == data.settings
    with pytest.raises(
        DataError, match=r"^test data: expected sequences, got none: load_split returned None$"
    ):
        bare.test(model, datamodule=data)


TWO_RANKS = """
import sys
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning_rnn import SyntheticDataModule

class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = {"train": [], "val": []}
    def training_step(self, batch, batch_idx):
        self.seen["train"] += batch.index.tolist()
        return self.layer(batch.x).mean()
    def validation_step(self, batch, batch_idx):
        self.seen["val"] += batch.index.tolist()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)
    def on_train_end(self):
        torch.save(self.seen, f"{sys.argv[1]}/{self.global_rank}.pt")

if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=1, num_sanity_val_steps=0,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
    )
    data = SyntheticDataModule(num_train=21, num_val=7, num_test=1, batch_size=4)
    trainer.fit(Recorder(), datamodule=data)
"""


@pytest.mark.slow
def test_two_ranks_share_the_data_with_lightnings_own_sampler_switched_on(tmp_path):
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    trained = [rank["train"] for rank in ranks]
    assert [len(rows) for rows in trained] == [10, 10]  # of 21, one is left out of the epoch
    assert len({*trained[0], *trained[1]}) == 20
    assert sorted(ranks[0]["val"] + ranks[1]["val"]) == list(range(7))


def test_copies_on_the_accelerator_are_made_once():
    sequences = Sequences.from_arrays(np.zeros((2, 3, 1)))
    others = sequences.select(torch.tensor([0]))
    meta = torch.device("meta")  # stands for any accelerator
    cpu = torch.device("cpu")

    def placed(on_device, device, *splits):
        data = SyntheticDataModule(on_device=on_device)
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device))
        data.train_epoch = lambda epoch: splits[epoch]
        return [data._place("train", epoch) for epoch in range(len(splits))]

    assert placed(True, cpu, sequences) == [sequences]
    copies = placed(True, meta, sequences, sequences, others)
    assert copies[0].device == meta
    assert [first is second for first, second in pairwise(copies)] == [True, False]
    assert placed(False, meta, sequences) == [sequences]
    assert placed(None, meta, sequences) == [sequences]  # no GPU


def test_copies_of_a_data_module_in_use():
    data = SyntheticDataModule(**SMALL)
    trainer(max_epochs=1).fit(Recorder(), data)
    expected = [batch.index.tolist() for batch in data.train_dataloader()]
    for copied in (deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert [batch.index.tolist() for batch in copied.train_dataloader()] == expected
        assert copied.split("train") is not data.split("train")
