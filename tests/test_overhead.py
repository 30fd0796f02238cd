"""What is left out of a step, and what must not be."""

from lightning.pytorch import Callback, Trainer

from lightning_rnn.callbacks.overhead import STEP_HOOKS, NoProfiler, drop_empty_hooks
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


def test_filled_hooks_are_called_and_empty_ones_are_not_looked_up(empty):
    counting, idle, model = Counting(), Callback(), Module(hidden_size=2)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=3, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, profiler=NoProfiler(), callbacks=[counting, idle],
        accelerator="cpu",
    )  # fmt: skip
    drop_empty_hooks(trainer, model)
    assert all(getattr(idle, hook) is None for hook in STEP_HOOKS)
    assert model.on_after_backward is None
    assert callable(model.on_train_batch_start)
    trainer.fit(model, SyntheticDataModule(num_train=96))
    assert counting.calls == ["backward", "end"] * 3
    assert model.zeroed == 3
