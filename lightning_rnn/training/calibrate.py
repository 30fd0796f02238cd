"""Calibrating the best checkpoint on the validation split."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer

from lightning_rnn.atomic_files import sha256
from lightning_rnn.errors import check
from lightning_rnn.evaluation.calibration import Objective, calibrate, shortage
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision
from lightning_rnn.training.checkpoint_archive import check_unchanged
from lightning_rnn.training.checkpoints import AtomicCheckpointIO
from lightning_rnn.training.data_statistics import sequence_data


class Calibrate(Callback):
    """Fits temperature and threshold on the validation split and stores them in the checkpoint.

    After training, the best checkpoint is calibrated; after a validation of a checkpoint, that one.

    Args:
        objective: What the threshold between two classes optimises: accuracy, f1, youden (the sum
            of both recalls), precision>=P or recall>=R (for example recall>=0.9). Without one, only
            the temperature is fitted and the threshold is 0.5.
        when: auto requires 100 validation sequences and 20 of each class; always calibrates with
            fewer; never leaves temperature 1 and threshold 0.5 unless there is an objective.

    Raises:
        OptionError: If the objective is not one of these, or given for more than two classes.
        CheckpointError: If the checkpoint has been replaced while it was validated.
    """

    def __init__(
        self,
        *,
        objective: str | None = None,
        when: Literal["auto", "always", "never"] = "auto",
    ) -> None:
        self.objective = None if objective is None else Objective.parse(objective)
        self.when = when
        self.is_active = when != "never" or objective is not None

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Look up the run folder, a collective call, and check that a threshold is needed."""
        self._run_folder = trainer.log_dir
        if self.objective is not None:
            num_classes = len(pl_module.class_names)
            expected = f"none with {num_classes} classes, which have no threshold"
            check(num_classes == 2, "Calibrate.objective", self.objective.name, expected)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Evaluate the best checkpoint on the validation split and calibrate it."""
        trainer.strategy.barrier("best.ckpt")  # rank 0 may not have finished writing it
        if not self.is_active or self._run_folder is None:
            return
        path = Path(self._run_folder) / "checkpoints" / "best.ckpt"
        data = sequence_data(trainer)
        if not path.is_file():
            return
        if not trainer.limit_val_batches or data is None:
            _report(trainer, "none, as there is no validation split")
            return
        with torch.random.fork_rng(devices=[]):
            best = type(pl_module).load_from_checkpoint(path, "cpu", weights_only=True)
        best.to(pl_module.network.head.bias).eval()
        batches = []
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            for batch in data.val_dataloader():
                batch = trainer.precision_plugin.convert_input(batch)
                batch = trainer.strategy.batch_to_device(batch, pl_module.device)
                batches.append(best.evaluate_batch(batch))
        self._calibrate(trainer, Evaluation.gather(batches), path)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Note which file is validated."""
        if trainer.state.fn != "validate" or trainer.ckpt_path is None:
            return
        if trainer.is_global_zero:
            self._checksum = sha256(Path(trainer.ckpt_path))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Calibrate the checkpoint that was validated."""
        if self.is_active and trainer.state.fn == "validate" and trainer.ckpt_path is not None:
            path = Path(trainer.ckpt_path)
            if trainer.is_global_zero:  # which replaces the file: others could find the new one
                check_unchanged(path, self._checksum)
            self._calibrate(trainer, pl_module.evaluation, path)
            if trainer.is_global_zero:
                print("metrics before this calibration:", flush=True)

    def _calibrate(self, trainer: Trainer, evaluation: Evaluation, path: Path) -> None:
        evaluation = evaluation.cpu()
        decision = Decision()
        num_classes = decision.class_probabilities(evaluation.logits).shape[1]
        missing = shortage(evaluation.labels, num_classes)
        values = ""
        if missing is None or self.when == "always":
            calibration = calibrate(evaluation, self.objective)
            calibration.apply(decision)
            text = calibration.describe()
        else:
            text = f"none, as {missing} (when=always calibrates with fewer)"
            values = "temperature 1, threshold 0.5 "
        if trainer.is_global_zero:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            for name, value in decision.state_dict().items():
                checkpoint["state_dict"][f"network.decision.{name}"] = value
            # a new file is written: last.ckpt may be a hard link to the old one
            AtomicCheckpointIO().save_checkpoint(checkpoint, path)
        _report(trainer, text)
        if trainer.state.fn == "validate":
            _report(trainer, f"{values}written to {path}")


def _report(trainer: Trainer, text: str) -> None:
    if trainer.is_global_zero:
        print(f"calibration: {text}", flush=True)
