"""A scikit-learn classifier with the same data module, network and Trainer as the command line."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError, as_array, check, import_extra
from lightning_rnn.models.initialization import Initialization
from lightning_rnn.models.network import Pooling, Stem
from lightning_rnn.models.recurrent import CellName
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.optimizers import OptimizerName
from lightning_rnn.training.presets import Preset
from lightning_rnn.training.schedules import Schedule

try:
    # scikit-learn ships no types
    from sklearn import utils  # type: ignore[import-untyped]
    from sklearn.base import BaseEstimator, ClassifierMixin  # type: ignore[import-untyped]
    from sklearn.utils import multiclass, validation  # type: ignore[import-untyped]
except ModuleNotFoundError:
    import_extra("sklearn", "sklearn")  # raises an error that names the extra to install
    raise


# what the command line, too, takes where nothing else is given
FILES = Preset.read("files").settings
MODEL: dict[str, Any] = FILES["model"]
TRAINER: dict[str, Any] = FILES["trainer"]
ACCEPTED_DATA_SETTINGS = signature(SequenceDataModule).parameters.keys()
DATA = {k: v for k, v in FILES["data"]["init_args"].items() if k in ACCEPTED_DATA_SETTINGS}


class _ArraysDataModule(SequenceDataModule):
    """Training sequences that are in memory already."""

    def __init__(self, sequences: Sequences, class_names: list[str], **options: Any) -> None:
        super().__init__(**options)
        self._sequences = sequences
        self._class_names = class_names

    def read_schema(self) -> Schema:
        return Schema(self._sequences.num_features, self._class_names, None)

    def load_split(self, name: str) -> Sequences | None:
        return self._sequences if name == "train" else None


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
        stem: conv puts two strided convolutions in front of the recurrent layers; or none.
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
        max_steps: Largest number of optimizer steps; by default 2,000, or unlimited if `max_epochs`
            is given.
        batch_size: Sequences per batch; by default a sixteenth of all, within 8 and 64.
        gradient_clip_val: Norm to which gradients are clipped, or None.
        axis_order: Order of the axes of `X`: ntf (sequences, steps, features), or nft as in sktime.
        accelerator: Accelerator of Lightning's Trainer: auto, cpu, gpu, ...
        random_state: Seed or generator for weights, order and dropout.
        verbose: Whether to show a progress bar.

    Attributes:
        classes_: (K,) labels in the order of the columns of `predict_proba`.
        n_features_in_: Number of features F, not the number of columns of an (N, T) array.
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

    def __init__(
        self,
        *,
        cell: CellName = MODEL["cell"],
        hidden_size: int = MODEL["hidden_size"],
        num_layers: int | None = MODEL["num_layers"],
        bidirectional: bool = MODEL["bidirectional"],
        dropout: float = MODEL["dropout"],
        pooling: Pooling = MODEL["pooling"],
        stem: Stem = MODEL["stem"],
        initialization: Initialization = MODEL["initialization"],
        memory_span: int | None = MODEL["memory_span"],
        class_weight: Literal["balanced"] | dict[Any, float] | None = MODEL["class_weights"],
        optimizer: OptimizerName = MODEL["optimizer"],
        lr: float = MODEL["lr"],
        weight_decay: float = MODEL["weight_decay"],
        schedule: Schedule = MODEL["schedule"],
        max_epochs: int | None = None,
        max_steps: int | None = None,
        batch_size: int | None = DATA["batch_size"],
        gradient_clip_val: float | None = TRAINER["gradient_clip_val"],
        axis_order: Literal["ntf", "nft"] = "ntf",
        accelerator: str = "auto",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.pooling = pooling
        self.stem = stem
        self.initialization = initialization
        self.memory_span = memory_span
        self.class_weight = class_weight
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.gradient_clip_val = gradient_clip_val
        self.axis_order = axis_order
        self.accelerator = accelerator
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "RecurrentClassifier":
        """Train on N sequences and their labels `y` (N,), of at least two classes.

        Raises:
            DataError: If `X` cannot be used, or `y` has one class.
            OptionError: If a setting is out of range, or `class_weight` has an unknown label.
            NumericError: If the loss or the gradients are not finite.
        """
        if y is None:
            raise ValueError("fit requires y to be passed, but the target y is None")
        arrays = self._to_arrays(X)
        y = utils.column_or_1d(y, warn=True)
        utils.assert_all_finite(y, input_name="y")
        multiclass.check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        utils.check_consistent_length(arrays, codes)
        labels = self.classes_.tolist()
        if len(labels) < 2:
            raise DataError(f"y: expected at least two classes, got one class, {labels[0]!r}")
        sequences = Sequences.from_arrays(arrays, codes)
        names = list(map(str, labels))
        seed = int(utils.check_random_state(self.random_state).randint(2**31 - 1))
        data_settings = DATA | {"batch_size": self.batch_size, "seed": seed}
        data = _ArraysDataModule(sequences, names, **data_settings)
        with _isolated(seed):
            model = SequenceClassifier(
                input_size=sequences.num_features,
                num_classes=len(names),
                class_names=names,
                **self._model_settings(),
            )
            trainer = Trainer(**self._trainer_settings())
            trainer.fit(model, datamodule=data)
        model.trainer = None
        self.model_ = model.cpu().eval()
        self.n_features_in_ = sequences.num_features
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of N sequences, (N, K) float32 in the order of `classes_`.

        Raises:
            NotFittedError: If `fit` has not been called.
            DataError: If `X` cannot be used, or has not as many features as in `fit`.
        """
        validation.check_is_fitted(self)
        probabilities = self.model_.predict_proba(self._to_arrays(X))
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
        return self.model_.embed(self._to_arrays(X))

    def __sklearn_tags__(self) -> Any:
        """Describe the accepted input to scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def _to_arrays(self, x: Any) -> Any:
        """Return an (N, T, F) array, or a list of (T_i, F) or (T_i,) arrays."""
        check(self.axis_order in ("ntf", "nft"), "axis_order", self.axis_order, "ntf or nft")
        features_first = self.axis_order == "nft"
        if isinstance(x, np.ndarray) and x.dtype == object and x.ndim == 1:
            x = list(x)
        if isinstance(x, list | tuple):
            arrays = []
            for i, sequence in enumerate(x):
                array = as_array(sequence, f"x[{i}]")
                arrays.append(array.T if features_first else array)
            return arrays
        x = utils.check_array(x, allow_nd=True, ensure_all_finite="allow-nan")
        if x.ndim == 2:
            return x[:, :, None]
        return x.transpose(0, 2, 1) if features_first else x

    def _model_settings(self) -> dict[str, Any]:
        """Return the arguments of `SequenceClassifier`, but for sizes and names."""
        accepted = signature(SequenceClassifier).parameters
        given = {k: v for k, v in self.get_params(deep=False).items() if k in accepted}
        return MODEL | given | {"class_weights": self._class_weights()}

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

    def _class_weights(self) -> Any:
        """Return the weights in the order of `classes_`, "balanced" or None."""
        if not isinstance(self.class_weight, dict):
            return self.class_weight
        labels = self.classes_.tolist()
        unknown = [np.asarray(label).tolist() for label in self.class_weight if label not in labels]
        # unknown labels are accepted beside all known ones, as a fold may lack a class
        all_known = set(labels).issubset(self.class_weight)
        check(all_known or not unknown, "class_weight", unknown, f"any of {labels}")
        return [float(self.class_weight.get(label, 1.0)) for label in labels]


@contextmanager
def _isolated(seed: int) -> Iterator[None]:
    """Seed torch and restore its random state; silence Lightning; let Ctrl-C raise."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(range(torch.cuda.device_count())),
        ):
            torch.manual_seed(seed)
            # Lightning calls a function that torch has deprecated
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            yield
    except SystemExit as exit_:  # Lightning exits after KeyboardInterrupt
        raise exit_.__context__ or exit_ from None
    finally:
        logger.setLevel(level)
