"""What Lightning documents works as documented: callbacks of users, its own, and settings."""

import csv

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    RichProgressBar,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.errors import DataError, OptionError

BATCHES = 7  # in an epoch


def fit(folder, *callbacks, model=None, data=None, **options):
    """Train a small model with a Trainer of its own; returns the Trainer and the model."""
    seed_everything(1, verbose=False)
    model = model or SequenceClassifier(cell="gru", hidden_size=8, schedule="constant")
    data = data or SyntheticDataModule(num_train=200, num_val=100)
    defaults = {
        "max_epochs": 3,
        "default_root_dir": folder,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "log_every_n_steps": 1,
        "accelerator": "cpu",
    }
    trainer = Trainer(callbacks=list(callbacks), **(defaults | options))
    trainer.fit(model, datamodule=data)
    return trainer, model


class WeightsByEpoch(Callback):
    """Copies of all weights at the start of training and at the end of each epoch."""

    def __init__(self):
        self.copies = []

    def on_train_start(self, trainer, pl_module):
        self.copies.append({n: p.detach().clone() for n, p in pl_module.named_parameters()})

    def on_train_epoch_end(self, trainer, pl_module):
        self.on_train_start(trainer, pl_module)

    def has_changed(self, name, epoch):
        return not torch.equal(self.copies[epoch][name], self.copies[epoch + 1][name])


RECURRENT = "network.recurrent.forward_layers.0.layer.weight_hh_l0"
HEAD = "network.head.weight"


def test_layers_are_frozen_and_unfrozen_between_epochs(tmp_path):
    class Unfreeze(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.network.recurrent.requires_grad_(trainer.current_epoch == 1)

    weights = WeightsByEpoch()
    fit(tmp_path, Unfreeze(), weights)
    assert [weights.has_changed(RECURRENT, epoch) for epoch in range(3)] == [False, True, False]
    assert [weights.has_changed(HEAD, epoch) for epoch in range(3)] == [True] * 3


class Finetuning(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.network.recurrent)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network.recurrent, optimizer, lr=1e-4)


def test_an_added_parameter_group_keeps_its_rate(tmp_path):
    class HeadOnly(SequenceClassifier):
        def configure_optimizers(self):
            trained = [p for p in self.parameters() if p.requires_grad]
            return torch.optim.Adam(trained, lr=self.lr)

    weights = WeightsByEpoch()
    model = HeadOnly(cell="gru", hidden_size=8, schedule="constant")
    trainer, _ = fit(tmp_path, Finetuning(), weights, model=model)
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.01, 1e-4]
    assert [weights.has_changed(RECURRENT, epoch) for epoch in range(3)] == [False, True, True]


def test_a_schedule_scales_the_rate_of_each_group(tmp_path):
    class TwoRates(SequenceClassifier):
        def configure_optimizers(self):
            groups = [
                {"params": self.network.head.parameters(), "lr": 0.02},
                {"params": self.network.recurrent.parameters(), "lr": 0.002},
            ]
            return torch.optim.AdamW(groups)

    rates = []

    class Record(Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    fit(tmp_path, Record(), model=TwoRates(hidden_size=8, schedule="cosine"))
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=3 * BATCHES)
    for head, recurrent in rates:
        expected = reference.param_groups[0]["lr"]
        assert (head, recurrent) == pytest.approx((0.02 * expected, 0.002 * expected))
        reference.step()
        schedule.step()


def test_a_replaced_optimizer_trains(tmp_path):
    class Replace(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.optimizers = [torch.optim.SGD(pl_module.parameters(), lr=0.0)]
            if trainer.current_epoch == 2:
                trainer.optimizers = [torch.optim.SGD(pl_module.parameters(), lr=0.1)]

    weights = WeightsByEpoch()
    fit(tmp_path, Replace(), weights)
    assert [weights.has_changed(HEAD, epoch) for epoch in range(3)] == [True, False, True]


def test_amsgrad_can_be_switched_on(tmp_path):
    class Amsgrad(SequenceClassifier):
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=self.lr, amsgrad=True)

    trainer, _ = fit(tmp_path, model=Amsgrad(hidden_size=8))
    assert all("max_exp_avg_sq" in state for state in trainer.optimizers[0].state.values())


def test_every_hook_of_a_step_is_called(tmp_path):
    calls = []

    class Hooks(Callback):
        def on_before_zero_grad(self, *_):
            calls.append("on_before_zero_grad")

        def on_before_backward(self, *_):
            calls.append("on_before_backward")

        def on_after_backward(self, *_):
            calls.append("on_after_backward")

        def on_before_optimizer_step(self, *_):
            calls.append("on_before_optimizer_step")

    fit(tmp_path, Hooks())
    assert all(calls.count(name) == 3 * BATCHES for name in set(calls))
    assert len(set(calls)) == 4


def test_training_mode_set_by_a_callback_is_kept(tmp_path):
    modes = []

    class Evaluate(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            pl_module.network.recurrent.eval()
            modes.append(pl_module.network.recurrent.training)

    fit(tmp_path, Evaluate())
    assert modes == [False] * (3 * BATCHES)


def test_accumulation_scheduler(tmp_path):
    trainer, _ = fit(tmp_path, GradientAccumulationScheduler({1: 2}))
    assert trainer.global_step == 7 + 4 + 4


def test_learning_rate_monitor(tmp_path):
    logger = CSVLogger(tmp_path)
    fit(tmp_path, LearningRateMonitor("step"), logger=logger)
    with open(f"{logger.log_dir}/metrics.csv") as file:
        rates = [row["lr-Adam"] for row in csv.DictReader(file) if row.get("lr-Adam")]
    assert [float(rate) for rate in rates] == [0.01] * (3 * BATCHES)


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_learning_rate_finder_tries_its_rates_and_sets_one(tmp_path, schedule):
    finder = LearningRateFinder(min_lr=1e-5, max_lr=1.0, num_training_steps=30)
    model = SequenceClassifier(hidden_size=8, schedule=schedule)
    _, model = fit(tmp_path, finder, model=model)
    losses = finder.optimal_lr.results["loss"]
    assert len(set(losses)) > 20
    assert model.lr == finder.optimal_lr.suggestion() == model.hparams["lr"]


def test_batch_size_finder_changes_the_loader(tmp_path):
    data = SyntheticDataModule(num_train=200, num_val=100)
    finder = BatchSizeFinder(steps_per_trial=2, init_val=4, max_trials=3)
    trainer, _ = fit(tmp_path, finder, data=data)
    assert data.batch_size == finder.optimal_batch_size == 16
    assert trainer.num_training_batches == 13


def test_timer_ends_a_run(tmp_path):
    trainer, _ = fit(tmp_path, Timer(duration={"seconds": 1}), max_epochs=-1)
    assert trainer.global_step > 0


@pytest.mark.parametrize(
    "callback",
    [
        StochasticWeightAveraging(swa_lrs=0.01),
        ModelPruning("l1_unstructured", amount=0.5),
        RichProgressBar(),
        ModelCheckpoint(monitor="val/accuracy", mode="max"),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_callbacks_of_lightning(tmp_path, callback):
    shows_bar = isinstance(callback, RichProgressBar)
    trainer, _ = fit(tmp_path, callback, enable_progress_bar=shows_bar)
    assert trainer.global_step == 3 * BATCHES
    assert {"train/loss", "val/loss"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"reload_dataloaders_every_n_epochs": 1}, 21),
        ({"profiler": "simple"}, 21),
        ({"accumulate_grad_batches": 3}, 9),
        ({"overfit_batches": 2}, 6),
        ({"limit_train_batches": 3}, 9),
        ({"max_steps": 9}, 9),
        ({"val_check_interval": 3}, 21),
        ({"num_sanity_val_steps": 2}, 21),
        ({"precision": "64-true"}, 21),
        ({"precision": "bf16-mixed"}, 21),
        ({"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}, 21),
        ({"detect_anomaly": True}, 21),
        ({"fast_dev_run": True}, 1),
    ],
    ids=str,
)
@pytest.mark.filterwarnings(
    "ignore:The number of training batches", "ignore:You requested to overfit"
)
def test_settings_of_the_trainer(tmp_path, options, steps):
    trainer, model = fit(tmp_path, **options)
    assert trainer.global_step == steps
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_two_loggers_get_the_same_scalars(tmp_path):
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tensorboard")]
    fit(tmp_path, logger=loggers)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(loggers[1].log_dir)
    events.Reload()
    with open(f"{loggers[0].log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for name in (
        "train/loss",
        "train/accuracy",
        "train/loss_step",
        "train/lr",
        "val/loss",
        "val/f1",
    ):
        from_csv = {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
        from_events = {event.step: event.value for event in events.Scalars(name)}
        assert from_csv == pytest.approx(from_events)


def test_trainer_with_its_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = SequenceClassifier(cell="lstm")
    trainer = Trainer(max_epochs=1, accelerator="cpu", log_every_n_steps=1)
    trainer.fit(model, datamodule=SyntheticDataModule(num_train=64, num_val=64, num_features=3))
    assert model.hparams["input_size"] == 3
    assert model.class_names == ["negative", "positive"]
    restored = SequenceClassifier.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    x = torch.randn(5, 4, 3).numpy()
    assert restored.predict_proba(x).tolist() == model.predict_proba(x).tolist()
    assert set(restored.predict(x)) <= {"negative", "positive"}


@pytest.fixture
def plain_trainer():
    return Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
    )


def test_a_loader_without_sizes_needs_them_as_arguments(plain_trainer):
    data = SyntheticDataModule(num_train=64, num_val=32)
    loaders = (data.train_dataloader(), data.val_dataloader())
    with pytest.raises(OptionError, match="pass input_size and num_classes"):
        plain_trainer.fit(SequenceClassifier(), *loaders)
    plain_trainer.fit(SequenceClassifier(input_size=1, num_classes=2), *loaders)
    assert plain_trainer.global_step == 2


def test_a_loader_of_pairs_is_refused(plain_trainer):
    pairs = torch.utils.data.TensorDataset(torch.randn(8, 5, 1), torch.zeros(8))
    loader = torch.utils.data.DataLoader(pairs, batch_size=4)
    model = SequenceClassifier(input_size=1, num_classes=2)
    with pytest.raises(DataError, match=r"batch: expected a SequenceBatch, as of .*, got list"):
        plain_trainer.fit(model, loader, loader)
