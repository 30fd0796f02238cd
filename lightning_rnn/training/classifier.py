"""The LightningModule: loss, metrics, optimizer and learning rate around a `SequenceNetwork`."""

from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.errors import check, check_types
from lightning_rnn.evaluation.metrics import evaluate_test
from lightning_rnn.evaluation.results import Evaluation, Predictions
from lightning_rnn.models.initialization import Initialization
from lightning_rnn.models.losses import class_weight, cross_entropies, training_loss
from lightning_rnn.models.network import NetworkOptions, Pooling, SequenceNetwork, Stem
from lightning_rnn.models.recurrent import CellName
from lightning_rnn.padding import Padding
from lightning_rnn.training.conditions import Conditions
from lightning_rnn.training.data_statistics import (
    check_batch,
    check_schema,
    labels_of,
    prepare_for_data,
    schema_of,
    sequence_data,
)
from lightning_rnn.training.inference import InferenceMixin
from lightning_rnn.training.logs import log_epoch, log_validation
from lightning_rnn.training.optimizers import (
    FUSED_DEVICES,
    OptimizerName,
    check_training,
    create_optimizer,
)
from lightning_rnn.training.schedules import LearningRateSchedule, Schedule
from lightning_rnn.training.threads import ThreadChoice
from lightning_rnn.training.train_metrics import StepMonitor, TrainMetrics


class SequenceClassifier(InferenceMixin, LightningModule):
    """Trains, evaluates and applies a `SequenceNetwork`.

    A checkpoint contains all that is needed to use the model: sizes and names are hyper-parameters,
    the mean and standard deviation of the training data are buffers of the network.

    Args:
        input_size: Number of features F per step; taken from the data if not given.
        num_classes: Number of classes K; taken from the data if not given.
        class_names: K names in the order of the class codes; taken from the data if not given.
        feature_names: F names; taken from the data if not given.
        step_names: Names of the time steps of a wide table; taken from the data if not given.
        missing_values: Numbers that stand for missing values; training takes them from the data.
        categories: Categories of features that are no numbers; taken from the data if not given.
        cell: Recurrent cell: rnn (tanh), lstm, gru, or mingru, which is fast over thousands of
            steps.
        hidden_size: Width H of the state, per layer and direction.
        num_layers: Number of recurrent layers; null for 2 with mingru, a single layer of which
            cannot tell early steps from late ones, and for 1 with the other cells.
        bidirectional: Whether each sequence is also read backwards.
        dropout: Probability of dropping an input of a higher layer (with one mask for all time
            steps) or of the head.
        pooling: What the head receives: the last state, or the mean or maximum of the states.
        stem: conv puts two strided convolutions (64 channels, kernel size 9) in front of the cells;
            inception three blocks of convolutions of sizes 9, 19 and 39, whose mean over all steps
            is classified, too.
        initialization: Starting weights of the cells: chrono, which lets the state and its gradient
            last for `memory_span` steps, or torch, where they last for a few steps.
        memory_span: Number of time steps that the network should be able to remember when training
            starts; null for the length of the longest training sequence, or for 100 steps if the
            data module is none of this package.
        embedding_size: Number of categories up to which a feature of categories is one-hot encoded;
            more categories are embedded, each as so many trained numbers.
        pos_weight: Weight of the second of two classes in the loss; the first has weight 1.
        class_weights: Weight of each class in the loss: by name, such as {ill: 3}, and 1 for other
            classes, or a list in the order of the class names; balanced weights each class
            inversely to its frequency in the training data.
        label_smoothing: Share of the target that is spread evenly over all classes in training.
        optimizer: adam or adamw.
        lr: Learning rate; the highest one if a schedule changes it.
        weight_decay: L2 penalty for adam, decoupled weight decay for adamw.
        schedule: How the learning rate changes from step to step: constant, cosine (from lr to 0)
            or onecycle (up to lr, then down to almost 0).
        freeze: Whether to train the head only. All other weights, and the mean and standard
            deviation of the features, stay those of the checkpoint that training starts from.

    Attributes:
        network: The `SequenceNetwork`, once the sizes are known.
        schema: Sizes and names, once they are known.
        evaluation: Evaluation of the last validation or test, on all ranks; None before the first.
        step_loss (Tensor): () mean loss of the last training batch, without label smoothing.
        step_correct (Tensor): () number of correct predictions in the last training batch.
        sequence_weights: (N,) weight of each training sequence in the loss, or None if all are 1.
            It may be set before training; a checkpoint does not contain it.

    Raises:
        OptionError: If a value is out of range, or weights do not match the classes.

    Example:
        >>> from lightning_rnn import SequenceClassifier
        >>> model = SequenceClassifier(cell="gru", input_size=2, num_classes=3)
        >>> model.predict_proba([[[0.1, 0.5], [1.2, 0.0]], [[-0.4, 0.3]]]).shape
        (2, 3)
    """

    class_weight: Tensor
    sequence_weights: Tensor | None

    def __init__(
        self,
        *,
        input_size: int | None = None,
        num_classes: int | None = None,
        class_names: list[str] | None = None,
        feature_names: list[str] | None = None,
        step_names: list[str] | None = None,
        missing_values: list[float] | None = None,
        categories: dict[str, list[str]] | None = None,
        cell: CellName = "rnn",
        hidden_size: int = 32,
        num_layers: int | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: Pooling = "last",
        stem: Stem = "none",
        initialization: Initialization = "chrono",
        memory_span: int | None = None,
        embedding_size: int = 32,
        pos_weight: float | None = None,
        class_weights: Literal["balanced"] | list[float] | dict[str, float] | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerName = "adam",
        lr: float = 0.01,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        freeze: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_types(SequenceClassifier, self.hparams)
        if num_layers is None:
            self.hparams["num_layers"] = 2 if cell == "mingru" else 1
        check_training(self.hparams)
        self.lr = lr
        self.schedule = schedule
        self.options = NetworkOptions.select(self.hparams)
        self.evaluation: Evaluation | None = None
        self._batches: list[Evaluation] = []  # of the current validation or test
        self.checkpoint_metrics: dict[str, float] = {}  # of the loaded checkpoint
        self.checkpoint_step = 0
        self.register_buffer("sequence_weights", None, persistent=False)
        if input_size is not None and num_classes is not None:
            names = class_names or [str(code) for code in range(num_classes)]
            check(len(names) == num_classes, "class_names", class_names, f"{num_classes} names")
            self._build(Schema(input_size, names, feature_names, step_names, categories or {}))

    def _build(self, schema: Schema) -> None:
        """Create the network for data of known sizes."""
        sizes = {"input_size": schema.num_features, "num_classes": len(schema.class_names)}
        self.hparams.update(sizes)
        for name in ("class_names", "feature_names", "step_names", "categories"):
            self.hparams[name] = getattr(schema, name)
        self.schema = schema
        self.network = SequenceNetwork(
            **sizes,
            options=self.options,
            category_sizes=schema.category_sizes,
            make_encoder=self.make_encoder,
        )
        self.network.preprocess.missing_values = self.hparams["missing_values"] or []
        weights = (self.hparams["pos_weight"], self.hparams["class_weights"])
        self.register_buffer("class_weight", class_weight(schema.class_names, *weights))
        if isinstance(weights[1], dict):  # checkpoints hold plain values
            self.hparams["class_weights"] = self.class_weight.tolist()

    def make_encoder(self, input_size: int) -> nn.Module | None:
        """Return the module that replaces the recurrent layers; None for those of the options.

        A subclass may override this method. `SequenceClassifier.__init__` may call it: settings
        are in `self.hparams`. Options of the layers, such as `cell`, have no effect of their own.

        Args:
            input_size: Number of inputs C per step, after preprocessing and stem.

        Returns:
            A module from x (B, T, C), zero in padding, and lengths (B,) to (B, `output_size`).
        """

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks that training needs with any Trainer."""
        if not hasattr(self, "network") and sequence_data(self.trainer) is not None:
            # the callbacks of the user may freeze or prune layers in their setup
            self._build(schema_of(self.trainer, self.hparams))
        existing: list[Callback] = getattr(self.trainer, "callbacks", [])
        attached = {type(callback) for callback in existing}  # by an earlier run of the Trainer
        needed = (ThreadChoice, Conditions, LearningRateSchedule, StepMonitor, TrainMetrics)
        return [callback() for callback in needed if callback not in attached]

    def configure_model(self) -> None:
        """Create the network if necessary, and take the statistics of the training data.

        Raises:
            OptionError: If the data module lacks sizes or class frequencies that are needed, or has
                other sizes or names than the model.
        """
        if not hasattr(self, "network"):
            self._build(schema_of(self.trainer, self.hparams))
        try:
            trainer = self.trainer
        except RuntimeError:  # load_from_checkpoint has none
            return
        check_schema(self.schema, trainer)
        if trainer.state.fn != "fit":
            return
        prepare_for_data(self, trainer)
        trainer.precision_plugin.convert_module(self)  # before weights of a checkpoint are copied

    def configure_optimizers(self) -> Optimizer:
        """Return Adam or AdamW; not fused in mixed precision, where Lightning could not clip."""
        is_mixed = str(self.trainer.precision).endswith("mixed")
        fused = self.device.type in FUSED_DEVICES and not is_mixed
        return create_optimizer(self, fused=fused)

    def forward(self, x: Tensor, lengths: Tensor | Padding) -> Tensor:
        """Return logits (B,) or (B, K) from raw values (B, T, F); see `SequenceNetwork.forward`."""
        logits: Tensor = self.network(x, lengths)
        return logits

    def on_train_start(self) -> None:
        """Reset the decision: calibrated values belong to the weights of another training."""
        self.network.decision.set()
        if self.network.is_frozen:
            self.network.train()  # only now, as Lightning warns of modules in evaluation mode

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch, over the heads of the network."""
        labels = labels_of(batch)
        head_logits = self.network.head_logits(self.network.embed(batch.x, batch.padding))
        weights = self.class_weight[labels]
        if self.sequence_weights is not None:
            weights = weights * self.sequence_weights[batch.index]
        smoothing = self.hparams["label_smoothing"]
        loss = training_loss(head_logits, labels, weights, label_smoothing=smoothing)
        logits = head_logits.detach().mean(0)
        self.step_loss = loss.detach()
        if smoothing > 0 or len(head_logits) > 1:  # not as in validation
            self.step_loss = (cross_entropies(logits, labels) * weights).mean()
        self.step_correct = (self.network.decision.predict(logits) == labels).sum()
        return loss

    def on_validation_epoch_start(self) -> None:
        """Discard the batches of the last evaluation."""
        self._batches = []

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Evaluate a batch."""
        self._batches.append(self.evaluate_batch(batch))

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation split."""
        self.evaluation = Evaluation.gather(self._batches)
        log_validation(self)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split, also without the temperature and the threshold."""
        self.evaluation = Evaluation.gather(self._batches)
        log_epoch(self, "test", evaluate_test(self.evaluation, self.network.decision))

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> Predictions:
        """Return row, probabilities, predicted class and embedding of each sequence."""
        check_batch(batch)
        states = self.network.embed(batch.x, batch.padding)
        logits = self.network.logits(states)
        probabilities = self.network.decision.probabilities(logits)
        predicted = self.network.decision.predict(logits)
        return Predictions(batch.index, probabilities, predicted, states.float())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the latest metrics."""
        for name in ("_instantiator", "_class_path"):  # they name code
            checkpoint["hyper_parameters"].pop(name, None)
        checkpoint["model_class"] = type(self).__name__
        metrics = self.trainer.callback_metrics
        checkpoint["metrics"] = {name: float(value) for name, value in metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics."""
        self.checkpoint_metrics = dict(checkpoint.get("metrics", {}))
        self.checkpoint_step = int(checkpoint["global_step"])

    def evaluate_batch(self, batch: SequenceBatch) -> Evaluation:
        """Evaluate a labelled batch."""
        labels = labels_of(batch)
        logits = self(batch.x, batch.padding).float()
        losses = cross_entropies(logits, labels) * self.class_weight[labels]
        return Evaluation(batch.index, logits, labels, losses)
