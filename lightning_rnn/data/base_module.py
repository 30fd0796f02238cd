"""Base class of the data modules, which provide batches for a Trainer and sizes for a model."""

from abc import abstractmethod
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_rnn.categories import Categories
from lightning_rnn.data.loader import EvalSampler, SequenceLoader, TrainSampler, fits_on_gpu
from lightning_rnn.data.rank_agreement import check_ranks
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import SPLITS_OF_STAGE
from lightning_rnn.errors import WARM_START, DataError, check, check_types


class SequenceDataModule(LightningDataModule):
    """Data module of labelled sequences; a subclass implements `read_schema` and `load_split`.

    Args:
        batch_size: Number of sequences per training batch of one process; None for a sixteenth of
            the training sequences, rounded down to a power of two from 8 to 64.
        buckets: Whether training batches contain sequences of similar length, to reduce padding.
        on_device: Whether the sequences are stored on the accelerator; None to store them there if
            they need at most a quarter of the free memory of the GPU.
        seed: Seed of the order of the training sequences, and of whatever a subclass draws.

    Attributes:
        settings: Arguments of the constructor as JSON values. A checkpoint stores them.
        identity_settings: Names of the settings that must be the same in training and evaluation.

    Example:
        >>> import numpy as np
        >>> from lightning_rnn import SequenceDataModule, Sequences
        >>> from lightning_rnn.data.schema import Schema
        >>> class ArrayDataModule(SequenceDataModule):
        ...     def __init__(self, x, y, batch_size=32):
        ...         super().__init__(batch_size=batch_size)
        ...         self.sequences = Sequences.from_arrays(x, y)
        ...     def read_schema(self):
        ...         return Schema(self.sequences.num_features, class_names=["slow", "fast"])
        ...     def load_split(self, name):
        ...         return self.sequences if name == "train" else None
        >>> data = ArrayDataModule(np.zeros((40, 50, 3)), [0, 1] * 20, batch_size=8)
        >>> next(iter(data.train_dataloader())).x.shape
        torch.Size([8, 50, 3])
    """

    identity_settings: ClassVar[frozenset[str]] = frozenset({"seed"})
    __str__ = object.__repr__  # that of Lightning fails if a loader is no DataLoader

    def __init__(
        self,
        *,
        batch_size: int | None = None,
        buckets: bool = False,
        on_device: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"batch_size": batch_size, "buckets": buckets}
        self.settings |= {"on_device": on_device, "seed": seed}
        check_types(SequenceDataModule, self.settings)
        check(seed >= 0, "seed", seed, "an integer of at least 0")
        if batch_size is not None:
            self.batch_size = batch_size  # checks it
        self.missing_values: list[float] = []  # numbers that stand for missing values
        self._label_names: dict[str, list[str | None]] = {}  # of splits without codes
        self._splits: dict[str, Sequences | None] = {}
        self._device_copies: dict[str, tuple[Sequences, Sequences]] = {}  # original and copy
        self._schema: Schema | None = None
        self._train_loader: SequenceLoader | None = None
        self._loader_state: dict[str, Any] | None = None
        self._limit_val_batches: int | float | None = None

    @abstractmethod
    def read_schema(self) -> Schema:
        """Return the schema of the training data."""

    @abstractmethod
    def load_split(self, name: str) -> Sequences | None:
        """Return the split `train`, `val`, `test` or `predict`, or None."""

    def missing_hint(self, name: str) -> str:
        """Return the reason why there is no split of this name, for the error message."""
        return "load_split returned None"

    def findings(self) -> list[str]:
        """Return a line for each suspicious finding about the training data."""
        return []

    def true_labels(self, name: str) -> list[str | None] | None:
        """Return the (N,) names of the classes of a split as far as they are known."""
        labels = self._required(name).labels
        names = labels if labels is None else [self.class_names[code] for code in labels.tolist()]
        return self._label_names.get(name, names)

    def train_epoch(self, epoch: int) -> Sequences:
        """Return the training sequences of an epoch; by default the same in each."""
        return self._required("train")

    @property
    def schema(self) -> Schema:
        """Schema of the model that is evaluated, or else of the training data."""
        if self._schema is None:
            self._schema = self.read_schema()
        return self._schema

    @property
    def num_features(self) -> int:
        """Number of features F."""
        return self.schema.num_features

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.schema.class_names)

    @property
    def class_names(self) -> list[str]:
        """Names of the K classes in the order of their codes."""
        return self.schema.class_names

    @property
    def feature_names(self) -> list[str] | None:
        """Names of the F features, or None."""
        return self.schema.feature_names

    @property
    def step_names(self) -> list[str] | None:
        """Names of the columns that hold the time steps of a wide table, or None."""
        return self.schema.step_names

    @property
    def categories(self) -> Categories:
        """Categories of the features that are no numbers, in the order of their codes."""
        return self.schema.categories

    def split(self, name: str) -> Sequences | None:
        """Return a split, or None if there is none; it is loaded once."""
        if name not in self._splits:
            self._splits[name] = self.load_split(name)
        return self._splits[name]

    @cached_property
    def train_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training sequences, (F,) each; 0 and 1 of codes."""
        mean, std = self._required("train").moments(self.feature_names)
        is_code = torch.tensor(self.schema.category_sizes) > 0
        return mean.masked_fill(is_code, 0.0), std.masked_fill(is_code, 1.0)

    @cached_property
    def train_class_counts(self) -> Tensor:
        """Number of training sequences of each class, (K,) int64."""
        return self._required("train").required_labels.bincount(minlength=self.num_classes)

    @property
    def batch_size(self) -> int:
        """Number of sequences per training batch of one process; may be set before training."""
        if self.settings["batch_size"] is not None:
            return int(self.settings["batch_size"])
        sixteenth = len(self._required("train")) // 16
        return 1 << min(max(sixteenth.bit_length() - 1, 3), 6)

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        check(size >= 1, "batch_size", size, "an integer of at least 1")
        self.settings["batch_size"] = size

    def load(self, stage: str, schema: object) -> list[Sequences]:
        """Return the splits of a stage; for fit without validation data only the training split.

        Args:
            stage: fit, validate, test or predict.
            schema: Schema of the trained model; if it is none, that of the training data is used.

        Raises:
            DataError: If a split is missing or unusable, or does not fit the model.
        """
        if self._schema is None and isinstance(schema, Schema):
            self._schema = schema
        splits: list[Sequences] = []
        for name in SPLITS_OF_STAGE[stage]:
            if stage == "fit" and name == "val" and self.split(name) is None:
                continue
            sequences = self._required(name)
            splits.append(sequences)
            got = sequences.num_features
            if got != self.num_features:
                raise DataError(f"data: features: expected {self.num_features}, got {got}")
        return splits

    def setup(self, stage: str) -> None:
        """Load the splits of a stage and check that all ranks have the same."""
        schema = None
        if self.trainer is not None and stage != "fit":
            schema = getattr(self.trainer.lightning_module, "schema", None)
        splits = self.load(stage, schema)
        if self.trainer is not None and stage == "fit" and len(splits) == 1:
            self._limit_val_batches = self.trainer.limit_val_batches
            self.trainer.limit_val_batches = 0  # Lightning warns of an empty list of loaders
        check_ranks(splits)

    def teardown(self, stage: str) -> None:
        """Undo what `setup` changed in the Trainer."""
        if self.trainer is not None and self._limit_val_batches is not None:
            self.trainer.limit_val_batches = self._limit_val_batches
            self._limit_val_batches = None

    def train_dataloader(self) -> SequenceLoader:
        """Return the loader of shuffled training batches."""
        sequences = self._required("train")
        sampler = TrainSampler(
            sequences.lengths,
            batch_size=self.batch_size,
            seed=self.settings["seed"],
            same_every_epoch=getattr(self.trainer, "overfit_batches", 0) > 0,
            buckets=self.settings["buckets"],
            **self._rank_and_world_size(),
        )
        order = getattr(self._train_loader, "order", "")
        epochs = partial(self._place, "train")
        self._train_loader = SequenceLoader(sequences, sampler, epochs, order)
        if self._loader_state is not None:
            self._train_loader.load_state_dict(self._loader_state)
            self._loader_state = None  # a loader that replaces this one starts at its epoch's start
        return self._train_loader

    def val_dataloader(self) -> SequenceLoader | list[Any]:
        """Return the loader of the validation split, or an empty list if there is none."""
        return [] if self.split("val") is None else self._eval_loader("val")

    def test_dataloader(self) -> SequenceLoader:
        """Return the loader of the test split."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> SequenceLoader:
        """Return the loader of the sequences to predict."""
        return self._eval_loader("predict")

    def state_dict(self) -> dict[str, Any]:
        """Return the settings, hashes of the data, and the position of the training loader."""
        loader = None if self._train_loader is None else self._train_loader.state_dict()
        return {"settings": self.settings, "fingerprints": self._fingerprints, "loader": loader}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the loader's position; raise a DataError if the data differ from before."""
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        self.check_same_data(state_dict["fingerprints"])
        # Lightning restores loaders only within an epoch, but the hash of the order spans epochs
        self._loader_state = state_dict["loader"]

    def check_same_data(self, fingerprints: dict[str, str]) -> None:
        """Raise a DataError if the hashes of a checkpoint are not those of the data."""
        for name, fingerprint in self._fingerprints.items():
            if fingerprints.get(name) != fingerprint:
                expected = "the sequences that the checkpoint was trained with, got others"
                raise DataError(f"{name} data: expected {expected}; {WARM_START}")

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        splits = {name: self.split(name) for name in SPLITS_OF_STAGE["fit"]}
        return {name: split.fingerprint() for name, split in splits.items() if split is not None}

    def _required(self, name: str) -> Sequences:
        sequences = self.split(name)
        if sequences is None:
            raise DataError(f"{name} data: expected sequences, got none: {self.missing_hint(name)}")
        return sequences

    def _eval_loader(self, name: str) -> SequenceLoader:
        sequences = self._required(name)
        size = self.settings["batch_size"] or 1
        sampler = EvalSampler(sequences.lengths, batch_size=size, **self._rank_and_world_size())
        return SequenceLoader(sequences, sampler, partial(self._place, name))

    def _rank_and_world_size(self) -> dict[str, int]:
        rank = getattr(self.trainer, "global_rank", 0)
        return {"rank": rank, "world_size": getattr(self.trainer, "world_size", 1)}

    def _place(self, name: str, epoch: int) -> Sequences:
        """Return the copy of an epoch's sequences on the device of the model, or themselves."""
        sequences = self.train_epoch(epoch) if name == "train" else self._required(name)
        on_device = self.settings["on_device"]
        if self.trainer is None or on_device is False:
            return sequences
        device = self.trainer.strategy.root_device
        if device.type == "cpu":
            return sequences
        original, copy = self._device_copies.get(name, (None, sequences))
        if original is not sequences:
            copy = sequences
            if on_device or fits_on_gpu(sequences, device):
                copy = sequences.to(device)
            self._device_copies[name] = (sequences, copy)
        return copy
