"""Training on sequences in memory, with the history and the best weights kept in memory, too."""

import copy
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import split_rows
from lightning_rnn.errors import as_array, check
from lightning_rnn.training.logs import SHOWN_METRICS


class ArraysDataModule(SequenceDataModule):
    """Labelled sequences that are in memory already, of which a fraction is for validation.

    `options` are other arguments of `SequenceDataModule`; `rows` has the positions of each split.
    """

    def __init__(
        self,
        sequences: Sequences,
        class_names: list[str],
        *,
        val_fraction: float,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(seed=seed, **options)
        self._sequences = sequences
        self._class_names = class_names
        self.rows = split_rows(
            sequences,
            val_fraction=val_fraction,
            test_fraction=0.0,
            stratify=True,
            seed=seed,
            class_names=class_names,
        )

    def read_schema(self) -> Schema:
        """Return the schema of the sequences, whose features have no names."""
        return Schema(self._sequences.num_features, self._class_names)

    def load_split(self, name: str) -> Sequences | None:
        """Return a split, or None if there is none."""
        if len(self.rows[name]) == 0:
            return None
        return self._sequences.select(self.rows[name])


class History(Callback):
    """Collects the metrics of each epoch, and restores the best weights when training ends.

    The best weights are those with the lowest validation loss; without validation, the last.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []  # metrics by name, and the step at its end
        self._step = 0  # at the end of the last epoch
        self._validation_step = 0
        self._loss = math.inf
        self._weights: dict[str, Any] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        if trainer.sanity_checking:
            return
        self._validation_step = trainer.global_step
        loss = float(trainer.callback_metrics["val/loss"])
        if loss < self._loss:
            self._loss = loss
            self._weights = copy.deepcopy(pl_module.state_dict())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch before, all of whose metrics are known now."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        row: dict[str, float] = {"step": self._step}
        for name in SHOWN_METRICS:
            is_measured = name.startswith("train/") or self._validation_step == self._step
            if is_measured and name in trainer.callback_metrics:
                row[name] = float(trainer.callback_metrics[name])
        self.epochs.append(row)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the last epoch, and restore the best weights."""
        self.on_train_epoch_start(trainer, pl_module)
        if self._weights is not None:
            pl_module.load_state_dict(self._weights)


def as_arrays(x: Any, axis_order: str) -> Any:
    """Return an (N, T, F) array, or a list of (T_i, F) or (T_i,) arrays."""
    from sklearn import utils  # type: ignore[import-untyped]

    features_first = axis_order == "nft"
    if isinstance(x, np.ndarray):
        x = as_array(x, "x")
        if x.dtype == object and x.ndim == 1:
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


def as_weights(weights: Any, num_sequences: int) -> Tensor:
    """Return `sample_weight` as (N,) float64; 1 if it is None."""
    from sklearn import utils

    if weights is None:
        return torch.ones(num_sequences, dtype=torch.float64)
    array = utils.check_array(
        weights, dtype=np.float64, ensure_2d=False, copy=True, input_name="sample_weight"
    )
    is_fitting = array.shape == (num_sequences,)
    check(is_fitting, "sample_weight", array.shape, f"the shape ({num_sequences},)")
    is_valid = array.min() >= 0 and array.any()
    expected = "weights of at least 0, not all of them zero"
    check(is_valid, "sample_weight", float(array.min()), expected)
    return torch.from_numpy(array)


def class_weights(chosen: Any, labels: list[Any]) -> Any:
    """Return `class_weight` as weights in the order of the labels, "balanced" or None."""
    if not isinstance(chosen, dict):
        return chosen
    unknown = [np.asarray(label).tolist() for label in chosen if label not in labels]
    # unknown labels are accepted beside all known ones, as a fold may lack a class
    all_known = set(labels).issubset(chosen)
    check(all_known or not unknown, "class_weight", unknown, f"any of {labels}")
    return [float(chosen.get(label, 1.0)) for label in labels]


@contextmanager
def isolated(seed: int) -> Iterator[None]:
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
