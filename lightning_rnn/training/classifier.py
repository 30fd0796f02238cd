"""The LightningModule: loss, metrics, optimiser and learning rate around a network."""

import math
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_rnn.data.base_module import Schema, SequenceDataModule
from lightning_rnn.data.loader import EvalSampler, SequenceLoader
from lightning_rnn.data.sequences import SequenceBatch, Sequences
from lightning_rnn.distributed import gather_objects
from lightning_rnn.errors import DataError, NumericError, check
from lightning_rnn.evaluation.metrics import evaluate
from lightning_rnn.evaluation.results import Evaluation, Predictions, gather_evaluations
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import class_weight, cross_entropies
from lightning_rnn.models.network import NetworkOptions, Pooling, SequenceNetwork, Stem
from lightning_rnn.models.recurrent import CellName
from lightning_rnn.padding import Padding
from lightning_rnn.training.schedules import Schedule, learning_rate

ARCHITECTURE = tuple(field.name for field in fields(NetworkOptions))
COUNT_EVERY = 256  # steps after which the training metrics are brought up to date: looking stops an accelerator
SMALL = 128  # hidden size up to which a second thread costs more than it brings, and far more on a busy machine
FUSED_ON = ("cpu", "cuda")  # where Adam in one kernel is known to be right


class SequenceClassifier(LightningModule):
    """Trains and applies a `SequenceNetwork`.

    Everything a checkpoint needs to be used alone is in it: the standardisation's moments are buffers of the
    network, sizes and names are hyper-parameters.
    """

    class_weight: Tensor

    def __init__(
        self,
        *,
        input_size: int = 1,
        num_classes: int = 2,
        class_names: list[str] | None = None,
        feature_names: list[str] | None = None,
        cell: CellName = "rnn",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: Pooling = "last",
        stem: Stem = "none",
        pos_weight: float | None = None,
        class_weights: Literal["balanced"] | list[float] | None = None,
        optimizer: Literal["adam", "adamw"] = "adam",
        lr: float = 0.01,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
    ) -> None:
        """Set up.

        Args:
            input_size: Features F per step; `fit` takes it from the data.
            num_classes: Classes K; `fit` takes it from the data.
            class_names: K names in the order of the codes; `fit` takes them from the data.
            feature_names: F names, or none; `fit` takes them from the data.
            cell: Recurrent cell: rnn (tanh), lstm, gru, or mingru, which is quick over thousands of steps.
            hidden_size: Width H of the state, per layer and direction.
            num_layers: Recurrent layers.
            bidirectional: Read each sequence backwards as well.
            dropout: Probability of dropping an input of a higher layer (one mask for all time steps) or of the head.
            pooling: What the head sees of the states: the last one, their mean or their maximum.
            stem: conv puts two strided convolutions (64 channels, kernel 9) in front of the cells.
            pos_weight: Weight in the loss of the second of two classes, the first having 1.
            class_weights: Weight in the loss of each class, in the order of their names; balanced weighs classes
                against their frequency in the training data.
            optimizer: adam or adamw.
            lr: Learning rate; the highest, where a schedule changes it.
            weight_decay: L2 penalty for adam, decoupled decay for adamw.
            schedule: How the learning rate changes from step to step: constant, cosine (from lr to 0) or onecycle
                (up to lr and down to nearly 0).

        Raises:
            OptionError: A value outside its range, or weights that do not fit the classes.
        """
        super().__init__()
        self.save_hyperparameters()
        names = [str(code) for code in range(num_classes)] if class_names is None else class_names
        check(len(names) == num_classes, "class_names", class_names, f"{num_classes} names")
        check(0 < lr <= 1e30, "lr", lr, "a number above 0, at most 1e30")
        check(weight_decay >= 0, "weight_decay", weight_decay, "a number of at least 0")
        check(optimizer in ("adam", "adamw"), "optimizer", optimizer, "adam or adamw")
        check(
            schedule in ("constant", "cosine", "onecycle"), "schedule", schedule, "a known schedule"
        )
        self.schema = Schema(input_size, names, feature_names)
        options = NetworkOptions(
            cell=cell,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            pooling=pooling,
            stem=stem,
        )
        self.network = SequenceNetwork(
            input_size=input_size, num_classes=num_classes, options=options
        )
        self.lr, self.schedule = lr, schedule
        self.register_buffer("class_weight", class_weight(num_classes, pos_weight, class_weights))
        self._weighs = pos_weight is not None or class_weights is not None
        self._evaluated: list[Evaluation] = []
        self._train_sums = [0.0, 0.0, 0.0]  # loss, correct, count of the epoch so far,
        self._uncounted: list[
            tuple[Tensor, Tensor, Tensor]
        ] = []  # and logits, labels, loss of steps not yet in it
        self.outcome: Evaluation | None = (
            None  # of the last evaluation, on all ranks: callbacks look closer
        )
        self._norm: Tensor | None = None  # of the last step's gradients
        self.stored_metrics: dict[str, float] = {}  # the newest ones when the checkpoint was saved
        self.stored_step = 0  # optimiser steps by then

    def forward(self, x: Tensor, lengths: Tensor | Padding) -> Tensor:
        """Return logits (B,) or (B, K) from raw values (B, T, F); see `SequenceNetwork.forward`."""
        logits: Tensor = self.network(x, lengths)
        return logits

    def setup(self, stage: str) -> None:
        """Take the moments and the balanced class weights from the training data.

        Raises:
            OptionError: Balanced weights without a data module that counts classes.
        """
        if stage != "fit":
            return
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, SequenceDataModule):
            check(self.hparams["class_weights"] != "balanced", "class_weights", "balanced", "weights, as no data "
                    "module of this package counts the classes")  # fmt: skip
            return
        self.network.preprocess.set_moments(*data.train_moments)
        if self.hparams["class_weights"] == "balanced":
            counts = data.train_class_counts.float()
            self.class_weight.copy_(counts.sum() / (len(counts) * counts.clamp(min=1)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam or AdamW, in one kernel but where a gradient scaler must look at gradients before it."""
        kind = torch.optim.Adam if self.hparams["optimizer"] == "adam" else torch.optim.AdamW
        fused = (
            self._trainer is not None
            and self.trainer.precision != "16-mixed"
            and self.device.type in FUSED_ON
        )
        return kind(
            self.parameters(),
            lr=self.lr,
            weight_decay=self.hparams["weight_decay"],
            fused=fused or None,
        )

    def on_train_start(self) -> None:
        """Fix the number of steps that the schedule spans.

        Raises:
            OptionError: A schedule that needs an end in a run without one.
        """
        self.network.decision.set()  # a fitted one belongs to the weights it was fitted on
        self._scaled = self.trainer.precision == "16-mixed"  # its scaler skips steps that overflow
        self._interval = self.trainer.log_every_n_steps or math.inf  # type: ignore[attr-defined]  # not declared there
        self._total_steps = float(self.trainer.estimated_stepping_batches)
        if math.isinf(self._total_steps):
            check(
                self.schedule == "constant",
                "schedule",
                self.schedule,
                "constant in a run without end",
            )

    def on_train_epoch_start(self) -> None:
        """Start counting anew."""
        self._train_sums, self._uncounted = [0.0, 0.0, 0.0], []

    def on_train_batch_start(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Set the step's learning rate."""
        step = self.trainer.global_step
        self._batch, self._logs = (
            batch,
            (step + 1) % self._interval == 0,
        )  # a log costs more than a small step
        rate = learning_rate(self.schedule, self.lr, step, self._total_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
            group["weight_decay"] = self.hparams[
                "weight_decay"
            ]  # a resumed optimiser has the checkpoint's

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch, each sequence's weighted by its class."""
        logits, y = self.network(batch.x, batch.padding), self._labels(batch)
        loss = (
            self._losses(logits, y).mean()
            if self._weighs
            else cross_entropies(logits, y, reduction="mean")
        )
        self._loss = loss.detach()
        self._uncounted.append((logits.detach(), y, self._loss))
        if len(self._uncounted) == COUNT_EVERY:
            self._count()
        return loss

    def _count(self) -> None:
        """Add the latest steps to the epoch's sums, one by one, so that it does not matter when this is done."""
        if not self._uncounted:
            return
        logits, y, losses = zip(*self._uncounted, strict=True)
        self._uncounted = []
        self._train_sums[1] += int(
            (self.network.decision.predict(torch.cat(logits)) == torch.cat(y)).sum()
        )
        for loss, size in zip(torch.stack(losses).tolist(), map(len, y), strict=True):
            self._train_sums[0] += loss * size
            self._train_sums[2] += size

    def _gather_sums(self) -> Tensor:
        """Return (ranks, 3) sums of the epoch so far; a collective call."""
        self._count()
        return torch.tensor(gather_objects(self._train_sums), dtype=torch.float64)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, stop at a gradient or loss that is not finite, and log the step.

        The gradients are the same on all ranks by now, so all stop at the same step.

        Raises:
            NumericError: The loss or the gradients' norm is not finite.
        """
        gradients = [
            weight.grad for weight in self.parameters() if weight.grad is not None
        ]  # of one kind, on one device
        self._norm = norm = torch.linalg.vector_norm(
            torch.cat([gradient.flatten() for gradient in gradients])
        )
        # reading a number stops an accelerator: there the check waits for the next log
        reads = self._logs or not norm.is_cuda
        known = float(norm) if reads else math.nan
        if reads and not math.isfinite(known) and not self._scaled:
            self._refuse_step()
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val and not known <= gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, "norm")
        if self._logs:
            self.trainer.callback_metrics["train/loss_step"] = self._loss
            if self.trainer.progress_bar_callback is not None:
                self.log("train/loss_step", self._loss, prog_bar=True, logger=False)
            rate = optimizer.param_groups[0]["lr"]
            self._write(
                {"train/loss_step": self._loss, "train/grad_norm": norm, "train/lr": rate}, 0
            )

    def _refuse_step(self) -> None:
        batch, step = self._batch, self.trainer.global_step
        assert self._norm is not None
        size = batch.x.nan_to_num(0.0).abs().amax((1, 2))
        largest = (float(size.max()), int(batch.index[size.argmax()]))
        value, row = max(gather_objects(largest))
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        raise NumericError(
            f"training stopped: step {step} has loss {float(self._loss):.4g} and gradient norm "
            f"{float(self._norm):.4g}, at learning rate {rate:.4g}; the largest input of its batch is {value:.4g}, "
            f"in training sequence {row}. A lower --model.lr or a smaller --trainer.gradient_clip_val may help."
        )

    def _write(self, values: dict[str, Any], back: int) -> None:
        """Write scalars to the loggers at once: a checkpoint that follows promises that they are there.

        Lightning counts steps for its loggers apart from the optimiser's, and once too often after some resumes.
        """
        step = max(0, self.trainer.global_step - back)
        for logger in self.trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in values.items()}, step)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and accuracy, over all ranks."""
        sums = self._gather_sums().sum(0)
        values = {"train/loss": sums[0] / sums[2], "train/accuracy": sums[1] / sums[2]}
        self.trainer.callback_metrics.update(values)
        self._write(values, 1)

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Collect the outcome of a batch."""
        self._collect(batch)

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Collect the outcome of a batch."""
        self._collect(batch)

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted evaluation left."""
        self._evaluated = []

    def on_test_epoch_start(self) -> None:
        """Forget what an interrupted evaluation left."""
        self._evaluated = []

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation part."""
        self._log_metrics("val", full=False)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test part."""
        self._log_metrics("test", full=True)

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> Predictions:
        """Return index, probability and label code of each sequence."""
        logits, decision = self(batch.x, batch.padding), self.network.decision
        return Predictions(batch.index, decision.probabilities(logits), decision.predict(logits))

    @torch.inference_mode()
    def predict_proba(self, x: Any) -> np.ndarray:
        """Classify raw values, on whatever device the model is.

        Args:
            x: (N, T, F) array, (T, F) array for one sequence, or a list of (T_i, F) arrays; NaN where missing.

        Returns:
            (N,) float32 probabilities of the second class, or (N, K).

        Raises:
            DataError: A wrong shape, dtype or number of features, or an infinite value.
        """
        sequences = Sequences.from_arrays(x)
        if sequences.num_features != self.schema.num_features:
            raise DataError(
                f"x: found {sequences.num_features} features, accepted are {self.schema.num_features}"
            )
        training = self.training
        self.eval()
        rows, probabilities = [], []
        for batch in SequenceLoader(
            lambda _: sequences, EvalSampler(sequences.lengths, batch_size=1)
        ):
            logits = self(batch.x.to(self.class_weight), batch.lengths.to(self.device))
            rows.append(batch.index)
            probabilities.append(self.network.decision.probabilities(logits).cpu())
        self.train(training)
        order = torch.cat(rows).argsort()
        return torch.cat(probabilities)[order].numpy()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what names code; add the newest metrics and the epoch's sums of all ranks."""
        checkpoint["hyper_parameters"].pop("_instantiator", None)
        if self._norm is not None and not self._scaled and not math.isfinite(float(self._norm)):
            self._refuse_step()
        checkpoint["metrics"] = {
            name: float(value) for name, value in self.trainer.callback_metrics.items()
        }
        checkpoint["train_sums"] = self._gather_sums()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the epoch's sums; where the number of ranks has changed, rank 0 has them all."""
        self.stored_metrics, self.stored_step = (
            dict(checkpoint.get("metrics", {})),
            int(checkpoint["global_step"]),
        )
        sums = checkpoint.get("train_sums")
        if sums is None or self._trainer is None:
            return
        rank, world = self.trainer.global_rank, self.trainer.world_size
        self._train_sums = (
            sums[rank] if len(sums) == world else sums.sum(0) * (rank == 0)
        ).tolist()

    def _collect(self, batch: SequenceBatch) -> None:
        logits, y = self(batch.x, batch.padding).float(), self._labels(batch)
        self._evaluated.append(Evaluation(batch.index, logits, y, self._losses(logits, y)))

    def _log_metrics(self, prefix: str, *, full: bool) -> None:
        self.outcome = gather_evaluations(self._evaluated)
        metrics = evaluate(self.outcome, self.network.decision, full=full)
        if full and self.network.decision.is_fitted:
            before = evaluate(self.outcome, Decision(), full=full)
            changed = ("accuracy", "f1", "balanced_accuracy", "brier", "log_loss", "ece")
            metrics |= {f"{name}_uncalibrated": before[name] for name in changed if name in before}
        self._evaluated = []
        values = {
            f"{prefix}/{name}": value for name, value in metrics.items()
        }  # equal on all ranks
        if self.trainer.state.fn != "fit":
            self.log_dict(values, sync_dist=True)
        elif not self.trainer.sanity_checking:
            self.trainer.callback_metrics.update(
                values
            )  # as logging would, which takes as long as a step for each
            self._write(values, 1)
            if self.trainer.progress_bar_callback is not None:
                self.log(
                    f"{prefix}/accuracy",
                    metrics["accuracy"],
                    prog_bar=True,
                    logger=False,
                    sync_dist=True,
                )

    def _losses(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = cross_entropies(logits, y)
        return losses * self.class_weight[y] if self._weighs else losses

    @staticmethod
    def _labels(batch: SequenceBatch) -> Tensor:
        if batch.y is None:
            raise DataError(
                "the sequences have no labels; accepted for training and evaluation are labelled ones"
            )
        return batch.y
