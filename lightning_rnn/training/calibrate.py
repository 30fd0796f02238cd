"""Calibrating the best checkpoint on the validation split."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.evaluation.calibration import Objective, calibrate, shortage
from lightning_rnn.evaluation.results import Evaluation, gather_evaluations
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.training.checkpoints import AtomicCheckpointIO
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.data_statistics import sequence_data

NETWORK_PREFIX = "network."


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
        OptionError: If the objective is not one of these.
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look up the run folder, a collective call."""
        self._run_folder = trainer.log_dir

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the best checkpoint on the validation split and calibrate it."""
        trainer.strategy.barrier("best.ckpt")  # rank 0 may not have finished writing it
        if not self.is_active or self._run_folder is None:
            return
        path = Path(self._run_folder) / "checkpoints" / "best.ckpt"
        data = sequence_data(trainer)
        if not path.is_file():
            return
        if not trainer.limit_val_batches or data is None:
            _report(trainer, "temperature 1, threshold 0.5: no validation split to fit them on")
            return
        assert isinstance(pl_module, SequenceClassifier)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        network = _load_network(pl_module.network, checkpoint)
        batches = []
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            for batch in data.val_dataloader():
                batch = trainer.strategy.batch_to_device(batch, pl_module.device)
                batches.append(_evaluate_batch(network, batch))
        self._calibrate(trainer, gather_evaluations(batches), path, checkpoint)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate the checkpoint that was validated."""
        if not self.is_active or trainer.state.fn != "validate" or trainer.ckpt_path is None:
            return
        assert isinstance(pl_module, SequenceClassifier)
        assert pl_module.evaluation is not None
        path = Path(trainer.ckpt_path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        self._calibrate(trainer, pl_module.evaluation, path, checkpoint)

    def _calibrate(
        self,
        trainer: Trainer,
        evaluation: Evaluation,
        path: Path,
        checkpoint: dict[str, Any],
    ) -> None:
        evaluation = evaluation.cpu()
        decision = Decision()
        num_classes = decision.class_probabilities(evaluation.logits).shape[1]
        missing = shortage(evaluation.labels, num_classes)
        if missing is None or self.when == "always":
            calibration = calibrate(evaluation, self.objective)
            calibration.apply(decision)
            text = calibration.describe()
        else:
            text = f"temperature 1, threshold 0.5: {missing} (when=always calibrates with fewer)"
        if trainer.is_global_zero:
            for name, value in decision.state_dict().items():
                checkpoint["state_dict"][f"{NETWORK_PREFIX}decision.{name}"] = value
            # a new file is written: last.ckpt may be a hard link to the old one
            AtomicCheckpointIO().save_checkpoint(checkpoint, path)
        _report(trainer, text)


def _load_network(like: SequenceNetwork, checkpoint: dict[str, Any]) -> SequenceNetwork:
    """Return a network with the weights of a checkpoint and the architecture of another one.

    The other network is not copied: it may be pruned, and pruned modules cannot be copied.
    """
    with torch.random.fork_rng(devices=[]):
        network = SequenceNetwork(
            input_size=like.preprocess.mean.numel(),
            num_classes=like.num_classes,
            options=like.options,
        )
    state = {}
    for name, value in checkpoint["state_dict"].items():
        if name.startswith(NETWORK_PREFIX):
            state[name.removeprefix(NETWORK_PREFIX)] = value
    network.load_state_dict(state)
    return network.to(like.head.bias).eval()


def _evaluate_batch(network: SequenceNetwork, batch: Any) -> Evaluation:
    logits = network(batch.x, batch.padding).float()
    losses = cross_entropies(logits, batch.y)
    return Evaluation(batch.index, logits, batch.y, losses)


def _report(trainer: Trainer, text: str) -> None:
    if trainer.is_global_zero:
        print(f"calibration: {text}", flush=True)
