"""What is left out of a step, and what must not be."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.callbacks import overhead
from lightning_rnn.callbacks.overhead import STEP_HOOKS, DirectEpochLoop, NoProfiler, drop_overhead
from lightning_rnn.classifier import SequenceClassifier
from lightning_rnn.data.synthetic import SyntheticDataModule


class Counting(Callback):
    def __init__(self):
        self.calls = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.calls.append("end")

    def on_after_backward(self, trainer, pl_module):
        self.calls.append("backward")


class Module(SequenceClassifier):
    def on_before_zero_grad(self, optimizer):
        self.zeroed = getattr(self, "zeroed", 0) + 1


class Logging(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("loss_again", outputs["loss"], on_step=True, on_epoch=True)
        if trainer.global_step == 50:
            trainer.should_stop = True


class Skipping(SequenceClassifier):
    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        return -1 if batch_idx == 2 else None


def train(model, *callbacks, **options):
    torch.manual_seed(0)
    trainer = Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        profiler=NoProfiler(), callbacks=[*callbacks], accelerator="cpu", gradient_clip_val=0.5,
        **{"limit_val_batches": 0, "num_sanity_val_steps": 0, **options},
    )  # fmt: skip
    drop_overhead(trainer, model)
    trainer.fit(model, SyntheticDataModule(num_train=96))
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, DirectEpochLoop)
    return trainer, loop._listeners is not None


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_direct_steps_equal_lightnings(empty, cell):
    found = {}
    for callbacks in ((Logging(),), (Logging(), Counting())):  # one of them wants to know of each backward pass
        torch.manual_seed(1)
        model = SequenceClassifier(cell=cell, hidden_size=4, dropout=0.2)
        trainer, direct = train(model, *callbacks, max_epochs=30)
        found[direct] = (trainer, model)
    (ours, model), (lightnings, other) = found[True], found[False]
    assert ours.global_step == lightnings.global_step == 50
    assert {**ours.callback_metrics}.keys() == {**lightnings.callback_metrics}.keys() >= {"loss_again_epoch"}
    for name, value in ours.callback_metrics.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(lightnings.callback_metrics[name])), name
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    states = [trainer.fit_loop.state_dict() for trainer in (ours, lightnings)]
    assert states[0] == states[1]


class Watching(Callback):
    def __init__(self):
        self.validated = []

    def on_validation_end(self, trainer, pl_module):
        self.validated.append(trainer.global_step)


@pytest.mark.parametrize(
    "options",
    [{}, {"val_check_interval": 2}, {"val_check_interval": 2, "check_val_every_n_epoch": None},
     {"check_val_every_n_epoch": 2}, {"max_steps": 7}, {"limit_train_batches": 2}, {"max_time": "00:00:01:00"}],
    ids=str,
)  # fmt: skip
def test_validates_and_ends_when_lightning_would(empty, options):
    found, options = [], {"max_epochs": 4, "limit_val_batches": 1, **options}
    for others in ((), (Counting(),)):  # the second wants to know of each backward pass
        watching = Watching()
        trainer, direct = train(SequenceClassifier(hidden_size=2), watching, *others, **options)
        assert direct is not bool(others)
        found.append((watching.validated, trainer.global_step, trainer.fit_loop.state_dict()))
    assert found[0] == found[1]
    assert found[0][0]


@pytest.mark.parametrize(
    "options",
    [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}, {"precision": "64-true"}],
    ids=lambda options: next(iter(options)),
)
def test_what_is_more_than_a_step_is_lightnings(empty, options):
    model = SequenceClassifier(hidden_size=2)
    _, direct = train(model, max_epochs=1, **options)
    assert not direct


def test_a_model_may_end_the_epoch(empty):
    trainer, direct = train(Skipping(hidden_size=2), max_epochs=2)
    assert direct
    assert trainer.global_step == 4


def test_filled_hooks_are_called_and_empty_ones_are_not_looked_up(empty):
    counting, idle, model = Counting(), Callback(), Module(hidden_size=2)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=3, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, profiler=NoProfiler(), callbacks=[counting, idle],
        accelerator="cpu",
    )  # fmt: skip
    drop_overhead(trainer, model)
    assert all(getattr(idle, hook) is None for hook in STEP_HOOKS)
    assert model.on_after_backward is None
    assert callable(model.on_train_batch_start)
    trainer.fit(model, SyntheticDataModule(num_train=96))
    assert counting.calls == ["backward", "end"] * 3
    assert model.zeroed == 3


class Layer(LightningModule):
    def __init__(self, size):
        super().__init__()
        self.layer = torch.nn.Linear(size, size)

    def training_step(self, batch):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("strategy", "size", "few"),
    [("ddp", 8, True), ("ddp", 1024, False), ("ddp_find_unused_parameters_true", 8, False)],
)
def test_few_gradients_of_ranks_are_averaged_by_the_direct_loop(strategy, size, few, monkeypatch):
    """With many of them or with an option of DistributedDataParallel's, that one averages them."""
    monkeypatch.setattr(overhead, "share_gradients", lambda weights: weights)
    trainer, model = Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False), Layer(size)
    drop_overhead(trainer, model)
    trainer.strategy.connect(model)
    assert trainer.fit_loop.epoch_loop._shared == (list(model.parameters()) if few else None)
