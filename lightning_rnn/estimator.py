"""A scikit-learn classifier around the same data module, network and Trainer as the command line's."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer

from lightning_rnn.data.base_module import Schema, SequenceDataModule
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError, as_array, check, import_extra
from lightning_rnn.models.network import Pooling, Stem
from lightning_rnn.models.recurrent import CellName
from lightning_rnn.training.classifier import ARCHITECTURE, SMALL, SequenceClassifier
from lightning_rnn.training.schedules import Schedule

import_extra("sklearn", "sklearn")
from sklearn.base import BaseEstimator, ClassifierMixin  # type: ignore[import-untyped]  # noqa: E402
from sklearn.utils import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)  # type: ignore[import-untyped]  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # type: ignore[import-untyped]  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # type: ignore[import-untyped]  # noqa: E402

OPTIMISATION = (
    "optimizer",
    "lr",
    "weight_decay",
    "schedule",
)  # settings that are the model's, as its architecture


class _ArraysDataModule(SequenceDataModule):
    """Training sequences that are in memory already."""

    def __init__(
        self, sequences: Sequences, class_names: list[str], *, batch_size: int | None, seed: int
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self._sequences, self._class_names = sequences, class_names

    def read_schema(self) -> Schema:
        return Schema(self._sequences.num_features, self._class_names, None)

    def load_split(self, name: str) -> Sequences | None:
        return self._sequences if name == "train" else None


class RecurrentClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Recurrent classifier of sequences in memory, with scikit-learn's interface.

    X is an (N, T, F) array, an (N, T) array of one feature, or a list of N arrays, (T_i, F) or (T_i,), whose lengths
    may differ; NaN is a missing value. Nothing is printed or written unless asked for.

    Attributes:
        classes_: (K,) labels in the order of the columns of `predict_proba`.
        n_features_in_: F, not the number of columns of an (N, T) array.
        model_: The trained `SequenceClassifier`, which `export_onnx` and `StreamingClassifier` take the network of.
    """

    def __init__(
        self,
        *,
        cell: CellName = "rnn",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: Pooling = "last",
        stem: Stem = "none",
        class_weight: Literal["balanced"] | dict[Any, float] | None = None,
        optimizer: Literal["adam", "adamw"] = "adam",
        lr: float = 0.01,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        max_epochs: int = 10,
        batch_size: int | None = None,
        gradient_clip_val: float | None = 1.0,
        axis_order: Literal["ntf", "nft"] = "ntf",
        accelerator: str = "auto",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        """Set up.

        Args:
            cell: See `SequenceClassifier`, as for all that follow up to `stem`.
            hidden_size: Width of the state.
            num_layers: Recurrent layers.
            bidirectional: Read each sequence backwards as well.
            dropout: Probability of dropping an input of a higher layer or of the head.
            pooling: last, mean or max.
            stem: none or conv.
            class_weight: Weight of each class in the loss by its label, 1 where none is given; balanced weighs
                against the frequency.
            optimizer: adam or adamw.
            lr: Learning rate.
            weight_decay: L2 penalty for adam, decoupled decay for adamw.
            schedule: constant, cosine or onecycle.
            max_epochs: Passes through the training data.
            batch_size: Sequences in a batch; when not given, an eighth of them, from 8 to 64.
            gradient_clip_val: Norm to which gradients are clipped.
            axis_order: What the axes of arrays are: ntf (sequences, steps, features), or nft, which sktime and aeon
                use; the arrays of a list have the last two. It is never guessed.
            accelerator: What Lightning's Trainer calls so: auto, cpu, gpu.
            random_state: Seed, or generator of one, for weights, order and dropout.
            verbose: Show a progress bar.
        """
        self.cell, self.hidden_size, self.num_layers = cell, hidden_size, num_layers
        self.bidirectional, self.dropout, self.pooling, self.stem = (
            bidirectional,
            dropout,
            pooling,
            stem,
        )
        self.class_weight, self.optimizer, self.lr, self.weight_decay = (
            class_weight,
            optimizer,
            lr,
            weight_decay,
        )
        self.schedule, self.max_epochs, self.batch_size = schedule, max_epochs, batch_size
        self.gradient_clip_val, self.axis_order, self.accelerator = (
            gradient_clip_val,
            axis_order,
            accelerator,
        )
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any) -> "RecurrentClassifier":
        """Train.

        Args:
            X: N sequences.
            y: (N,) labels of at least two classes.

        Raises:
            DataError: X cannot be used, or y is of one class.
            OptionError: A setting outside its range, or a weight of a label that y does not have.
            NumericError: The training left the finite numbers.
        """
        arrays = self._arrays(X)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        check_consistent_length(arrays, codes)
        if len(self.classes_) < 2:
            raise DataError(
                f"y: found one class, {self.classes_.tolist()[0]!r}; accepted are two or more"
            )
        sequences = Sequences.from_arrays(arrays, codes)
        names = [str(label) for label in self.classes_]
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        data = _ArraysDataModule(sequences, names, batch_size=self.batch_size, seed=seed)
        with _quietly(self.hidden_size, self.accelerator, seed):
            model = self._new_model(sequences.num_features, names)
            trainer = Trainer(
                max_epochs=self.max_epochs, gradient_clip_val=self.gradient_clip_val, accelerator=self.accelerator,
                devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
                enable_progress_bar=self.verbose, use_distributed_sampler=False, num_sanity_val_steps=0,
            )  # fmt: skip
            trainer.fit(model, datamodule=data)
        model.trainer = None
        self.model_, self.n_features_in_ = model.cpu().eval(), sequences.num_features
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return (N, K) float32 probabilities, a column for each of `classes_`.

        Raises:
            NotFittedError: `fit` comes first.
            DataError: X cannot be used, or has other features than in `fit`.
        """
        check_is_fitted(self)
        p = self.model_.predict_proba(self._arrays(X))
        return p if p.ndim == 2 else np.stack([1 - p, p], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Return the (N,) most probable labels; see `predict_proba`."""
        codes = self.predict_proba(X).argmax(
            1
        )  # before `classes_`: it refuses where `fit` has not been called
        labels: np.ndarray = self.classes_[codes]
        return labels

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what is accepted."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        return tags

    def _arrays(self, x: Any) -> Any:
        """Return an (N, T, F) array or a list of (T_i, F) arrays."""
        check(self.axis_order in ("ntf", "nft"), "axis_order", self.axis_order, "ntf or nft")
        flips = self.axis_order == "nft"
        if isinstance(x, list | tuple):
            parts = [as_array(part, f"x[{i}]") for i, part in enumerate(x)]
            return [part.T if flips and part.ndim == 2 else part for part in parts]
        array = check_array(x, dtype=np.float32, allow_nd=True, ensure_all_finite="allow-nan")
        return (
            array[:, :, None] if array.ndim == 2 else array.transpose(0, 2, 1) if flips else array
        )

    def _new_model(self, num_features: int, names: list[str]) -> SequenceClassifier:
        weights: Any = self.class_weight
        if isinstance(weights, dict):
            labels = self.classes_.tolist()
            unknown = [np.asarray(label).tolist() for label in weights if label not in labels]
            all_named = all(label in weights for label in labels)  # a fold may lack a class
            check(not unknown or all_named, "class_weight", unknown, f"any of {labels}")
            weights = [float(weights.get(label, 1.0)) for label in labels]
        same: dict[str, Any] = {
            name: getattr(self, name) for name in (*ARCHITECTURE, *OPTIMISATION)
        }
        return SequenceClassifier(
            input_size=num_features,
            num_classes=len(names),
            class_names=names,
            class_weights=weights,
            **same,
        )


@contextmanager
def _quietly(hidden_size: int, accelerator: str, seed: int) -> Iterator[None]:
    """Keep Lightning from talking; seed, and give threads and random states back as they were."""
    logger, threads = logging.getLogger("lightning.pytorch"), torch.get_num_threads()
    level = logger.level
    logger.setLevel(logging.ERROR)
    if hidden_size <= SMALL:
        torch.set_num_threads(1)
    devices = [] if accelerator == "cpu" else list(range(torch.cuda.device_count()))
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices):
            torch.default_generator.manual_seed(
                seed
            )  # torch.manual_seed would reach devices that are not used here
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            # Lightning's own call of a deprecated function
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated"
            )
            yield
    except SystemExit as stop:  # what Lightning makes of Ctrl-C
        raise stop.__context__ or stop from None
    finally:
        logger.setLevel(level)
        torch.set_num_threads(threads)
