"""Random combinations of settings of the Trainer do what Lightning documents."""

import math
import random

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_rnn import SequenceClassifier, SyntheticDataModule

NUM_BATCHES = 5
VALUES = {
    "profiler": [None, "simple"],
    "precision": ["32-true", "bf16-mixed", "64-true"],
    "accumulate_grad_batches": [1, 2, 3],
    "fast_dev_run": [False, False, True, 2],
    "overfit_batches": [0.0, 2],
    "num_sanity_val_steps": [0, 2],
    "use_distributed_sampler": [True, False],
    "gradient_clip_val": [None, 1.0],
    "max_epochs": [1, 2],
}


def expected_steps(options):
    """Number of optimizer steps by Lightning's documentation."""
    num_batches = NUM_BATCHES
    num_epochs = options["max_epochs"]
    if options["overfit_batches"] > 0:
        num_batches = 2
    if options["fast_dev_run"]:
        num_batches = min(num_batches, int(options["fast_dev_run"]))
        num_epochs = 1
    return num_epochs * math.ceil(num_batches / options["accumulate_grad_batches"])


@pytest.mark.filterwarnings(
    "ignore:The number of training batches", "ignore:You requested to overfit", "ignore:.*profil"
)
@pytest.mark.parametrize("seed", range(8))
def test_settings_in_combination(seed, tmp_path):
    draw = random.Random(seed)
    options = {name: draw.choice(values) for name, values in VALUES.items()}
    data = SyntheticDataModule(num_train=40, num_val=16, batch_size=8)
    model = SequenceClassifier(cell="gru", hidden_size=4)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet, **options)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == expected_steps(options)
    # a development run ends before the second of two batches, and so before the validation
    ends_early = options["fast_dev_run"] is True and options["overfit_batches"] > 0
    assert ("val/loss" in trainer.callback_metrics) == (not ends_early)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert (options["profiler"] is not None) == ("run_training_epoch" in trainer.profiler.summary())
    checkpoint = trainer.checkpoint_callback
    if not options["fast_dev_run"]:
        saved = torch.load(checkpoint.best_model_path, weights_only=True)
        assert saved["global_step"] == trainer.global_step
