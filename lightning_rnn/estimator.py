"""A scikit-learn classifier with the same data module, network and Trainer as the command line."""

from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_rnn.categories import join_classes
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError, as_array, check, check_types, import_extra
from lightning_rnn.models.initialization import Initialization
from lightning_rnn.models.network import Pooling, Stem
from lightning_rnn.models.recurrent import CellName
from lightning_rnn.training.arrays import (
    ArraysDataModule,
    History,
    as_arrays,
    as_weights,
    class_weights,
    isolated,
)
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.early_stopping import EarlyStopping
from lightning_rnn.training.optimizers import OptimizerName
from lightning_rnn.training.presets import read_preset
from lightning_rnn.training.schedules import Schedule
from lightning_rnn.training.validation_interval import ValidationInterval
from lightning_rnn.training.warm_start import take_weights

try:
    # scikit-learn ships no types
    from sklearn import utils  # type: ignore[import-untyped]
    from sklearn.base import BaseEstimator, ClassifierMixin  # type: ignore[import-untyped]
    from sklearn.utils import multiclass, validation  # type: ignore[import-untyped]
except ModuleNotFoundError:
    import_extra("sklearn", "sklearn")  # raises an error that names the extra to install
    raise


# defaults, which are those of the command line for files
FILES = read_preset("files")
MODEL: dict[str, Any] = FILES["model"]
TRAINER: dict[str, Any] = FILES["trainer"]
ACCEPTED_DATA_SETTINGS = signature(SequenceDataModule).parameters.keys()
DATA = {k: v for k, v in FILES["data"]["init_args"].items() if k in ACCEPTED_DATA_SETTINGS}


@dataclass(kw_only=True, eq=False, repr=False)
class RecurrentClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Recurrent classifier of sequences in memory, with scikit-learn's interface.

    `X` is an (N, T, F) array, an (N, T) array of one feature, or a list of N arrays (T_i, F) or
    (T_i,). NaN is a missing value. `fit` prints and writes nothing, unless `verbose` is true.

    The defaults, and settings that are no argument, are those of `configs/files.yaml`.

    Args:
        cell: Recurrent cell: rnn, lstm, gru or mingru; see `SequenceClassifier`.
        hidden_size: Width H of the state, per layer and direction.
        num_layers: Number of recurrent layers; by default 2 with mingru, 1 with the other cells.
        bidirectional: Whether each sequence is also read backwards.
        dropout: Probability of dropping an input of a higher layer or of the head.
        pooling: last, mean or max of the top layer's states over time.
        stem: Convolutions in front of the recurrent layers: inception, conv or none.
        initialization: Starting weights of the recurrent layers: chrono or torch.
        memory_span: Number of steps that the network should be able to remember when training
            starts; by default the length of the longest sequence.
        class_weight: Weight of each class in the loss, by label and 1 where not given; balanced
            weighs classes inversely to their frequency.
        optimizer: adam or adamw.
        lr: Highest learning rate.
        weight_decay: L2 penalty for adam, decoupled decay for adamw.
        schedule: Learning rate schedule: constant, cosine or onecycle.
        max_epochs: Largest number of passes through the training data; by default unlimited.
        max_steps: Largest number of optimizer steps; by default 1,200, or unlimited if `max_epochs`
            is given.
        batch_size: Sequences per batch; by default a sixteenth of all, within 8 and 64.
        gradient_clip_val: Norm to which gradients are clipped, or None.
        early_stopping: Whether to hold out `validation_fraction` of the sequences, to end training
            when their loss no longer improves, and to keep the weights with the lowest one.
        validation_fraction: Fraction of the sequences of each class, with `early_stopping`.
        n_iter_no_change: Number of validations in a row without improvement that end training.
            Short epochs share a validation, so that there is one after about 50 steps.
        tol: Smallest decrease of the validation loss that is an improvement.
        warm_start: Whether another `fit` starts with the weights of the last one, rather than with
            random ones. Mean and deviation of the features are those of the new sequences.
        axis_order: Order of the axes of `X`: ntf (sequences, steps, features), or nft as in sktime.
        accelerator: Accelerator of Lightning's Trainer: auto, cpu, gpu, ...
        random_state: Seed or generator for weights, order and dropout.
        verbose: Whether to show a progress bar.

    Attributes:
        classes_: (K,) labels in the order of the columns of `predict_proba`.
        n_features_in_: Number of features F, not the number of columns of an (N, T) array.
        history_: Metrics of each epoch by name, such as train/loss, and the `step` at its end.
        model_: The trained `SequenceClassifier`, whose `network` can be exported and streamed.

    Example:
        >>> import numpy as np
        >>> from lightning_rnn import RecurrentClassifier
        >>> X = np.random.default_rng(0).normal(size=(200, 10))  # 200 sequences of 10 steps
        >>> y = np.where(X.sum(axis=1) > 0, "up", "down")
        >>> model = RecurrentClassifier(max_steps=50, random_state=0).fit(X, y)
        >>> bool(model.score(X, y) > 0.8)
        True
    """

    cell: CellName = MODEL["cell"]
    hidden_size: int = MODEL["hidden_size"]
    num_layers: int | None = MODEL["num_layers"]
    bidirectional: bool = MODEL["bidirectional"]
    dropout: float = MODEL["dropout"]
    pooling: Pooling = MODEL["pooling"]
    stem: Stem = MODEL["stem"]
    initialization: Initialization = MODEL["initialization"]
    memory_span: int | None = MODEL["memory_span"]
    class_weight: Literal["balanced"] | dict[Any, float] | None = MODEL["class_weights"]
    optimizer: OptimizerName = MODEL["optimizer"]
    lr: float = MODEL["lr"]
    weight_decay: float = MODEL["weight_decay"]
    schedule: Schedule = MODEL["schedule"]
    max_epochs: int | None = None
    max_steps: int | None = None
    batch_size: int | None = DATA["batch_size"]
    gradient_clip_val: float | None = TRAINER["gradient_clip_val"]
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    tol: float = 1e-4
    warm_start: bool = False
    axis_order: Literal["ntf", "nft"] = "ntf"
    accelerator: str = "auto"
    random_state: Any = None
    verbose: bool = False

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "RecurrentClassifier":
        """Train on N sequences and their labels `y` (N,), of at least two classes.

        Args:
            X: Sequences.
            y: Labels.
            sample_weight: (N,) weights in the training loss, not in other metrics; 0 leaves a
                sequence out.

        Raises:
            DataError: If `X` cannot be used, or `y` has one class, or too few sequences of one.
            OptionError: If a setting or weight cannot be used, or `warm_start` with this model.
            NumericError: If the loss or the gradients are not finite.
        """
        check_types(RecurrentClassifier, self._plain_params())
        fraction = self.validation_fraction
        check(0 < fraction < 1, "validation_fraction", fraction, "a number between 0 and 1")
        patience = self.n_iter_no_change
        check(patience >= 1, "n_iter_no_change", patience, "an integer of at least 1")
        if y is None:
            raise ValueError("fit requires y to be passed, but the target y is None")
        arrays = as_arrays(X, self.axis_order)
        for name, values in (("y", y), ("sample_weight", sample_weight)):
            as_array(values, name)  # refuses masked arrays, whose mask scikit-learn ignores
        y = utils.column_or_1d(y, warn=True)
        utils.assert_all_finite(y, input_name="y")
        multiclass.check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        utils.check_consistent_length(arrays, codes)
        weights = as_weights(sample_weight, len(codes))
        used = weights.nonzero().view(-1)
        labels = classes[np.unique(codes[used])].tolist()
        if len(labels) < 2:
            raise DataError(f"y: expected at least two classes, got one class, {labels[0]!r}")
        sequences = Sequences.from_arrays(arrays, codes).select(used)
        self.model_, self.history_ = self._train(classes.tolist(), sequences, weights[used])
        self.classes_ = classes
        self.n_features_in_ = sequences.num_features
        return self

    def _train(
        self, labels: list[Any], sequences: Sequences, weights: Tensor
    ) -> tuple[SequenceClassifier, list[dict[str, float]]]:
        """Return a model that is trained on weighted sequences, and its history."""
        seed = int(utils.check_random_state(self.random_state).randint(2**31 - 1))
        settings = DATA | {"batch_size": self.batch_size, "seed": seed, "val_fraction": 0.0}
        history = History()
        callbacks: list[Callback] = [history]
        if self.early_stopping:
            settings["val_fraction"] = self.validation_fraction
            patience = self.n_iter_no_change
            callbacks += [ValidationInterval(), EarlyStopping("val/loss", self.tol, patience)]
        data = ArraysDataModule(sequences, list(map(str, labels)), **settings)
        with isolated(seed):
            model = SequenceClassifier(
                input_size=data.num_features,
                num_classes=data.num_classes,
                class_names=data.class_names,
                **self._model_settings(labels),
            )
            if self.warm_start and hasattr(self, "model_"):
                self._continue(model)
            weights = weights[data.rows["train"]]
            model.sequence_weights = (weights / weights.mean()).float()
            trainer = Trainer(callbacks=callbacks, **self._trainer_settings())
            trainer.fit(model, datamodule=data)
        model.trainer = None
        model.sequence_weights = None
        return model.cpu().eval(), history.epochs

    def _continue(self, model: SequenceClassifier) -> None:
        """Start a model with the weights of the last fit."""
        last = self.model_
        others = take_weights(
            model, last.state_dict(), last.hparams, option="warm_start", source="the last fit"
        )
        classes = join_classes(model.class_names)
        check(
            not others, "y", f"the classes {classes}", f"{join_classes(others)} as in the last fit"
        )

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of N sequences, (N, K) float32 in the order of `classes_`.

        Raises:
            NotFittedError: If `fit` has not been called.
            DataError: If `X` cannot be used, or has not as many features as in `fit`.
        """
        validation.check_is_fitted(self)
        probabilities = self.model_.predict_proba(as_arrays(X, self.axis_order))
        if probabilities.ndim == 2:
            return probabilities
        return np.stack([1 - probabilities, probabilities], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the (N,) most probable labels; see `predict_proba`."""
        codes = self.predict_proba(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[codes]
        return labels

    def embed(self, X: Any) -> np.ndarray:
        """Return the pooled states of the network, (N, D H) float32; see `predict_proba`."""
        validation.check_is_fitted(self)
        return self.model_.embed(as_arrays(X, self.axis_order))

    def __sklearn_tags__(self) -> Any:
        """Describe the accepted input to scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def _plain_params(self) -> dict[str, Any]:
        """Return the arguments, those of NumPy's types as Python's."""
        params: dict[str, Any] = self.get_params(deep=False)
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}

    def _model_settings(self, labels: list[Any]) -> dict[str, Any]:
        """Return the arguments of `SequenceClassifier`, but for sizes and names."""
        accepted = signature(SequenceClassifier).parameters
        given = {k: v for k, v in self._plain_params().items() if k in accepted}
        return MODEL | given | {"class_weights": class_weights(self.class_weight, labels)}

    def _trainer_settings(self) -> dict[str, Any]:
        settings = TRAINER | {
            "gradient_clip_val": self.gradient_clip_val,
            "accelerator": self.accelerator,
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": self.verbose,
        }
        if self.max_epochs is not None:
            settings |= {"max_epochs": self.max_epochs, "max_steps": -1}
        if self.max_steps is not None:
            settings["max_steps"] = self.max_steps
        return settings
