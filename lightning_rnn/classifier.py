"""The LightningModule: loss, metrics, optimiser and learning rate around a network."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_rnn.data.loading import EvalSampler, SequenceLoader
from lightning_rnn.data.modules import Schema, SequenceDataModule
from lightning_rnn.data.sequences import SequenceBatch, Sequences
from lightning_rnn.errors import DataError, NumericError, require
from lightning_rnn.metrics import Outcome, cross_entropies, evaluate, gather_outcomes, gather_rows
from lightning_rnn.models.cells import CellName
from lightning_rnn.models.network import Pooling, SequenceNetwork, Stem

Schedule = Literal["constant", "cosine", "onecycle"]
ARCHITECTURE = ("cell", "hidden_size", "num_layers", "bidirectional", "dropout", "pooling", "stem")
WARM_UP = 0.3  # share of the steps in which onecycle rises


class Prediction(NamedTuple):
    """What `predict_step` returns for a batch.

    Attributes:
        index: (B,) int64, row in the data set; -1 for a row that only fills an empty rank.
        probability: (B,) of the second class, or (B, K).
        label: (B,) int64, code of the decided class.
    """

    index: Tensor  # type: ignore[assignment]  # not the tuple's method, which nobody needs
    probability: Tensor
    label: Tensor


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
        require(len(names) == num_classes, "class_names", class_names, f"{num_classes} names")
        require(0 < lr <= 1e30, "--model.lr", lr, "a number above 0, at most 1e30")
        require(weight_decay >= 0, "--model.weight_decay", weight_decay, "a number of at least 0")
        require(optimizer in ("adam", "adamw"), "--model.optimizer", optimizer, "adam or adamw")
        require(schedule in ("constant", "cosine", "onecycle"), "--model.schedule", schedule, "a known schedule")
        self.schema = Schema(input_size, names, feature_names)
        self.network = SequenceNetwork(
            input_size=input_size,
            num_classes=num_classes,
            cell=cell,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            pooling=pooling,
            stem=stem,
        )
        self.lr, self.schedule = lr, schedule
        self.register_buffer("class_weight", _class_weight(num_classes, pos_weight, class_weights))
        self._evaluated: list[Outcome] = []
        self._train_sums: Tensor | None = None  # loss, correct, count of the epoch so far
        self._norm: Tensor | None = None  # of the last step's gradients
        self.stored_metrics: dict[str, float] = {}  # the newest ones when the checkpoint was saved

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
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
            require(self.hparams["class_weights"] != "balanced", "class_weights", "balanced", "weights, as no data "
                    "module of this package counts the classes")  # fmt: skip
            return
        self.network.preprocess.set_moments(*data.train_moments)
        if self.hparams["class_weights"] == "balanced":
            counts = data.train_class_counts.float()
            self.class_weight.copy_(counts.sum() / (len(counts) * counts.clamp(min=1)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam or AdamW."""
        kind = torch.optim.Adam if self.hparams["optimizer"] == "adam" else torch.optim.AdamW
        return kind(self.parameters(), lr=self.lr, weight_decay=self.hparams["weight_decay"])

    def learning_rate(self, step: int, total: float) -> float:
        """Return the rate of an optimiser step: a pure function, so that a resumed run does what its user asked.

        Args:
            step: Steps done before.
            total: Steps of the whole run.

        Returns:
            The rate. Cosine: Loshchilov and Hutter 2017 (arXiv:1608.03983) without restarts. One cycle: Smith and
            Topin 2019 (arXiv:1708.07120), cosines from lr / 25 to lr and on to lr / 250,000.
        """
        done = min(step / max(1.0, total), 1.0)
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        low, at = (1 / 25, done / WARM_UP) if done < WARM_UP else (1 / 250_000, (1 - done) / (1 - WARM_UP))
        return self.lr * (low + (1 - low) * 0.5 * (1 - math.cos(math.pi * at)))

    def on_train_start(self) -> None:
        """Fix the number of steps that the schedule spans.

        Raises:
            OptionError: A schedule that needs an end in a run without one.
        """
        self.network.decision.set()  # a fitted one belongs to the weights it was fitted on
        self._train_sums = None if self._train_sums is None else self._train_sums.to(self.device)
        self._total_steps = float(self.trainer.estimated_stepping_batches)
        if math.isinf(self._total_steps):
            require(self.schedule == "constant", "--model.schedule", self.schedule, "constant in a run without end")

    def on_train_epoch_start(self) -> None:
        """Start counting anew."""
        self._train_sums = torch.zeros(3, device=self.device)

    def on_train_batch_start(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Set the step's learning rate."""
        self._batch = batch
        rate = self.learning_rate(self.trainer.global_step, self._total_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
            group["weight_decay"] = self.hparams["weight_decay"]  # a resumed optimiser has the checkpoint's

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch, each sequence's weighted by its class."""
        logits = self(batch.x, batch.lengths)
        y = self._labels(batch)
        loss = self._losses(logits, y).mean()
        with torch.no_grad():
            correct = (_decide(logits) == y).sum()
            sums = torch.stack([loss.detach().float() * len(y), correct.float(), correct.new_tensor(len(y)).float()])
            self._train_sums = sums if self._train_sums is None else self._train_sums + sums
        self._loss = loss.detach()
        return loss

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
        self._norm = norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        logs = (self.trainer.global_step + 1) % interval == 0  # a log costs more than a small step
        scaled = self.trainer.precision == "16-mixed"  # its scaler skips steps that overflow
        # reading a number stops an accelerator: there the check waits for the next log
        if (logs or not norm.is_cuda) and not scaled and not math.isfinite(float(norm)):
            self._refuse_step()
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(self.parameters(), float(gradient_clip_val), norm)
        if logs:
            self.log("train/loss_step", self._loss, prog_bar=True, logger=False)
            rate = optimizer.param_groups[0]["lr"]
            self._write({"train/loss_step": self._loss, "train/grad_norm": norm, "train/lr": rate}, 0)

    def _refuse_step(self) -> None:
        batch, step = self._batch, self.trainer.global_step
        assert self._norm is not None
        size = batch.x.nan_to_num(0.0).abs().amax((1, 2))
        largest = (float(size.max()), int(batch.index[size.argmax()]))
        found: list[Any] = [largest]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            found = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(found, largest)
        value, row = max(found)
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
        assert self._train_sums is not None
        sums = self.trainer.strategy.reduce(self._train_sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        values = {"train/loss": sums[0] / sums[2], "train/accuracy": sums[1] / sums[2]}
        self.log_dict(values, sync_dist=True, logger=False)
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

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> Prediction:
        """Return index, probability and label code of each sequence."""
        logits, decision = self(batch.x, batch.lengths), self.network.decision
        return Prediction(batch.index, decision.probabilities(logits), decision.decide(logits))

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
            raise DataError(f"x: found {sequences.num_features} features, accepted are {self.schema.num_features}")
        training = self.training
        self.eval()
        parts = []
        for batch in SequenceLoader(lambda _: sequences, EvalSampler(sequences.lengths, batch_size=1)):
            logits = self(batch.x.to(self.class_weight), batch.lengths.to(self.device))
            parts.append(Outcome(batch.index, self.network.decision.probabilities(logits).cpu(), None, None))
        self.train(training)
        order = torch.cat([part.index for part in parts]).argsort()
        return torch.cat([part.logits for part in parts])[order].numpy()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what names code; add the newest metrics and the epoch's sums of all ranks."""
        checkpoint["hyper_parameters"].pop("_instantiator", None)
        if self._norm is not None and self.trainer.precision != "16-mixed" and not math.isfinite(float(self._norm)):
            self._refuse_step()
        checkpoint["metrics"] = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if self._train_sums is not None:
            checkpoint["train_sums"] = gather_rows(self._train_sums[None])  # (ranks, 3)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the epoch's sums; where the number of ranks has changed, rank 0 has them all."""
        self.stored_metrics = dict(checkpoint.get("metrics", {}))
        sums = checkpoint.get("train_sums")
        if sums is None or self._trainer is None:
            return
        rank, world = self.trainer.global_rank, self.trainer.world_size
        self._train_sums = sums[rank] if len(sums) == world else sums.sum(0) * (rank == 0)

    def _collect(self, batch: SequenceBatch) -> None:
        logits, y = self(batch.x, batch.lengths).float(), self._labels(batch)
        self._evaluated.append(Outcome(batch.index, logits, y, self._losses(logits, y)))

    def _log_metrics(self, prefix: str, *, full: bool) -> None:
        metrics = evaluate(gather_outcomes(self._evaluated), self.network.decision, full=full)
        self._evaluated = []
        fits = self.trainer.state.fn == "fit"
        for name, value in metrics.items():  # equal on all ranks; sync_dist says so
            logger = False if fits else None  # None: where there is one
            self.log(f"{prefix}/{name}", value, prog_bar=name == "accuracy", sync_dist=True, logger=logger)
        if fits and not self.trainer.sanity_checking:
            self._write({f"{prefix}/{name}": value for name, value in metrics.items()}, 1)

    def _losses(self, logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropies(logits, y) * self.class_weight[y]

    @staticmethod
    def _labels(batch: SequenceBatch) -> Tensor:
        if batch.y is None:
            raise DataError("the sequences have no labels; accepted for training and evaluation are labelled ones")
        return batch.y


def _decide(logits: Tensor) -> Tensor:
    """Return the class codes (B,) as an unfitted `Decision` does; cheaper, and training fits none."""
    return (logits > 0).long() if logits.ndim == 1 else logits.argmax(1)


def _class_weight(
    num_classes: int, pos_weight: float | None, class_weights: Literal["balanced"] | list[float] | None
) -> Tensor:
    """Return (K,) weights; for balanced ones, ones until the data is known."""
    if pos_weight is not None:
        require(num_classes == 2, "--model.pos_weight", pos_weight, f"none with {num_classes} classes")
        require(class_weights is None, "--model.pos_weight", pos_weight, "none together with class_weights")
        require(0 < pos_weight < math.inf, "--model.pos_weight", pos_weight, "a finite number above 0")
        return torch.tensor([1.0, pos_weight])
    if isinstance(class_weights, list):
        fits = len(class_weights) == num_classes and all(0 < w < math.inf for w in class_weights)
        require(fits, "--model.class_weights", class_weights, f"{num_classes} numbers above 0")
        return torch.tensor(class_weights, dtype=torch.float32)
    require(class_weights in (None, "balanced"), "--model.class_weights", class_weights, "balanced or numbers")
    return torch.ones(num_classes)
