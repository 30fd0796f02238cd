"""After training, validation sets the best weights' temperature and threshold."""

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.evaluation.calibration import Aim, fit_decision, too_few
from lightning_rnn.evaluation.results import Evaluation, gather_evaluations
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies
from lightning_rnn.training.checkpoints import AtomicCheckpointIO
from lightning_rnn.training.classifier import SequenceClassifier


class Calibrate(Callback):
    """Fits temperature and threshold on the validation part and stores them in the checkpoint."""

    def __init__(
        self, *, aim: str | None = None, when: Literal["auto", "always", "never"] = "auto"
    ) -> None:
        """Set up.

        Args:
            aim: What the threshold between two classes is chosen for: accuracy, f1, youden (recall of both classes),
                precision>=P or recall>=R (0.9, say). When not given, probabilities are calibrated and the threshold
                is 0.5; to pick the most accurate one of many by validation costs more than it brings.
            when: auto needs 100 validation sequences and 20 of each class, always does with fewer, never leaves
                temperature 1 and threshold 0.5 unless an aim is given.

        Raises:
            OptionError: Another aim.
        """
        self.aim = None if aim is None else Aim.parse(aim)
        self.when, self._acts = when, when != "never" or aim is not None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask all ranks for the run folder."""
        self._log_dir = trainer.log_dir  # a collective call

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the best weights on the validation part, then fit and store."""
        trainer.strategy.barrier(
            "best.ckpt"
        )  # the first rank may still be putting the last epoch's in place
        path = Path(self._log_dir or "") / "checkpoints" / "best.ckpt"
        if not self._acts or self._log_dir is None or not path.is_file():
            return
        assert isinstance(pl_module, SequenceClassifier)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.limit_val_batches or data is None:
            _say(trainer, "temperature 1, threshold 0.5: there is no validation part to set them")
            return
        content = torch.load(path, map_location="cpu", weights_only=True)
        network = copy.deepcopy(
            pl_module.network
        ).eval()  # training may go on with the last weights
        prefix = "network."
        network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if prefix in k}
        )
        parts = []
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            for batch in data.val_dataloader():
                batch = trainer.strategy.batch_to_device(batch, pl_module.device)
                logits = network(batch.x, batch.padding).float()
                losses = cross_entropies(logits, batch.y)
                parts.append(Evaluation(batch.index, logits, batch.y, losses))
        self._fit(trainer, gather_evaluations(parts), path, content)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where `validate` has judged a checkpoint, fit and store."""
        if not self._acts or trainer.state.fn != "validate" or trainer.ckpt_path is None:
            return
        assert isinstance(pl_module, SequenceClassifier) and pl_module.outcome is not None
        path = Path(trainer.ckpt_path)
        self._fit(
            trainer,
            pl_module.outcome,
            path,
            torch.load(path, map_location="cpu", weights_only=True),
        )

    def _fit(
        self, trainer: Trainer, outcome: Evaluation, path: Path, content: dict[str, Any]
    ) -> None:
        outcome, decision = outcome.cpu(), Decision()
        missing = too_few(outcome.labels, decision.class_probabilities(outcome.logits).shape[1])
        if missing is None or self.when == "always":
            text = fit_decision(decision, outcome, self.aim)
        else:
            text = f"temperature 1, threshold 0.5: found {missing}, or --calibrate.when always"
        if trainer.is_global_zero:  # a new file: last.ckpt may be another name of the old one
            content["state_dict"] |= {
                f"network.decision.{k}": v for k, v in decision.state_dict().items()
            }
            AtomicCheckpointIO().save_checkpoint(content, path)
        _say(trainer, text)


def _say(trainer: Trainer, text: str) -> None:
    if trainer.is_global_zero:
        print(f"decision: {text}", flush=True)
