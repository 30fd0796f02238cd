"""The data modules: what the trainer asks for batches and the model for sizes, names and statistics."""

import hashlib
import os
from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_rnn.data.contents import FileContents, sort_classes
from lightning_rnn.data.files import read_file
from lightning_rnn.data.loading import EvalSampler, SequenceLoader, TrainSampler, seeded_generator
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.splitting import PARTS, split
from lightning_rnn.data.tasks import TASKS, TaskName
from lightning_rnn.errors import DataError, OptionError, require

PARTS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class Schema(NamedTuple):
    """What a model must know of its data.

    Attributes:
        num_features: F.
        class_names: K names in the order of the codes; of two classes the second is the positive one.
        feature_names: F names, or None where the files have none.
    """

    num_features: int
    class_names: list[str]
    feature_names: list[str] | None


class SequenceDataModule(LightningDataModule):
    """Loads the parts that a stage needs, proves them equal on all ranks, and makes the loaders.

    A subclass says what its parts are (`load_part`) and what they look like (`read_schema`).

    Attributes:
        pinned: Settings that a checkpoint's evaluation must share with its training.
        settings: The constructor's arguments, JSON values.
    """

    pinned: ClassVar[frozenset[str]] = frozenset({"seed"})

    def __init__(self, settings: dict[str, Any]) -> None:
        """Store the settings.

        Args:
            settings: The subclass's `locals()`.

        Raises:
            OptionError: A seed below 0 or a batch size below 1.
        """
        super().__init__()
        self.settings = {k: v for k, v in settings.items() if k not in ("self", "__class__")}
        self._parts: dict[str, Sequences | None] = {}
        self._schema: Schema | None = None
        seed, batch_size = self.settings["seed"], self.settings["batch_size"]
        require(seed >= 0, "--data.seed", seed, "an integer of at least 0")
        require(batch_size is None or batch_size >= 1, "--data.batch_size", batch_size, "an integer of at least 1")

    @abstractmethod
    def read_schema(self) -> Schema:
        """Return the schema of the training data."""

    @abstractmethod
    def load_part(self, name: str) -> Sequences | None:
        """Return the part (`train`, `val`, `test` or `predict`), or None where there is none."""

    @property
    def schema(self) -> Schema:
        """The schema: the trained model's where there is one, else that of the training data."""
        if self._schema is None:
            self._schema = self.read_schema()
        return self._schema

    def part(self, name: str) -> Sequences | None:
        """Return a part, loaded once."""
        if name not in self._parts:
            self._parts[name] = self.load_part(name)
        return self._parts[name]

    @cached_property
    def train_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (F,) of the training part."""
        return self._required("train").moments()

    @cached_property
    def train_class_counts(self) -> Tensor:
        """(K,) training sequences of each class."""
        labels = self._required("train").labels
        assert labels is not None
        return labels.bincount(minlength=len(self.schema.class_names))

    @property
    def batch_size(self) -> int:
        """Sequences in a training batch of one rank; unless set, an eighth of the part, from 8 to 64."""
        size = self.settings["batch_size"]
        if size is None:
            size = 1 << max(3, min(6, (len(self._required("train")) // 8).bit_length() - 1))
        return int(size)

    def load(self, stage: str, schema: Schema | None) -> list[Sequences]:
        """Load a stage's parts.

        Args:
            stage: fit, validate, test or predict.
            schema: What the trained model takes, or None to ask the training data.

        Returns:
            The parts; in fit without the validation part, where there is none.

        Raises:
            DataError: A part is missing or unusable, or does not fit the model.
        """
        if self._schema is None:
            self._schema = schema
        first, *others = PARTS_OF_STAGE[stage]
        parts = [self._required(first), *(part for part in map(self.part, others) if part is not None)]
        for part in parts:
            if part.num_features != self.schema.num_features:
                raise DataError(f"data: found {part.num_features} features, the model takes {self.schema.num_features}")
        return parts

    def setup(self, stage: str) -> None:
        """Load the stage's parts and compare them between the ranks.

        Raises:
            DataError: A part is missing or unusable, does not fit the model, or differs between ranks.
        """
        model = self.trainer.lightning_module if self.trainer is not None else None
        known = getattr(model, "schema", None)
        if self.trainer is not None and stage == "fit" and self.part("val") is None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty list
        parts = self.load(stage, known if stage != "fit" and isinstance(known, Schema) else None)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            random_state = hashlib.blake2b(torch.get_rng_state().numpy().tobytes()).hexdigest()
            self._compare_ranks(random_state + "".join(part.fingerprint() for part in parts))

    def train_dataloader(self) -> SequenceLoader:
        """Return the loader of shuffled training batches."""
        part = self._required("train")
        sampler = TrainSampler(
            part.lengths, batch_size=self.batch_size, seed=self.settings["seed"], **self._rank_and_world()
        )
        return SequenceLoader(self.train_epoch, sampler)

    def val_dataloader(self) -> SequenceLoader | list[Any]:
        """Return the loader of the validation part; an empty list where there is none."""
        return [] if self.part("val") is None else self._eval_loader("val")

    def test_dataloader(self) -> SequenceLoader:
        """Return the loader of the test part."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> SequenceLoader:
        """Return the loader of the sequences to predict."""
        return self._eval_loader("predict")

    def train_epoch(self, epoch: int) -> Sequences:
        """Return the training sequences of an epoch."""
        return self._required("train")

    def state_dict(self) -> dict[str, Any]:
        """Return settings and a hash of the data; they stand under the class's plain name, never a class path."""
        return {"settings": self.settings, "train": self._train_fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on training with other data; the command line has restored the settings before.

        Raises:
            DataError: The training sequences are not the checkpoint's.
        """
        fits = self.trainer is not None and self.trainer.state.fn == "fit"
        if fits and state_dict["train"] != self._train_fingerprint:
            raise DataError("the training sequences are not those of the checkpoint; accepted are the same to continue")

    @cached_property
    def _train_fingerprint(self) -> str:
        return self._required("train").fingerprint()

    def _required(self, name: str) -> Sequences:
        part = self.part(name)
        if part is None:
            raise DataError(f"there is no {name} part: {self.missing_hint(name)}")
        return part

    def missing_hint(self, name: str) -> str:
        """Say how a part would be given."""
        return "the data module has none"

    def _eval_loader(self, name: str) -> SequenceLoader:
        part = self._required(name)
        size = self.settings["batch_size"] or 1
        return SequenceLoader(lambda _: part, EvalSampler(part.lengths, batch_size=size, **self._rank_and_world()))

    def _rank_and_world(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _compare_ranks(self, fingerprint: str) -> None:
        mine = hashlib.blake2b(fingerprint.encode(), digest_size=16).hexdigest()
        found: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, mine)
        odd = [rank for rank, other in enumerate(found) if other != found[0]]
        if odd:
            raise DataError(f"ranks {odd} have other sequences, splits or random states than rank 0")


class SyntheticDataModule(SequenceDataModule):
    """Sequences made from a seed: the published experiment by default, and harder tests of memory."""

    pinned = frozenset({"task", "length", "min_length", "num_features", "num_train", "num_val", "seed", "fresh"})

    def __init__(
        self,
        *,
        task: TaskName = "sum_sign",
        length: int = 10,
        min_length: int | None = None,
        num_features: int | None = None,
        num_train: int = 1000,
        num_val: int = 1000,
        num_test: int = 10000,
        batch_size: int = 32,
        seed: int = 0,
        fresh: bool = False,
    ) -> None:
        """Set up; sequences are made when a stage needs them.

        Args:
            task: What the label depends on: sum_sign (sign of the sum), adding (two marked values), parity (of
                bits), delayed_recall (the first step), temporal_order (of X and Y; 4 classes), temporal_order_6b
                (8 classes).
            length: Time steps T, at least 1; delayed_recall adds one in front.
            min_length: For lengths drawn evenly from this one to `length`; all have `length` when not given.
            num_features: Features F per step; when not given, the task's own (1 where it has none).
            num_train: Training sequences, at least 1.
            num_val: Validation sequences; 0 for none.
            num_test: Test sequences, at least 1.
            batch_size: Sequences in a training batch of one process.
            seed: Seed of the sequences and of their order in training.
            fresh: Make new training sequences in every epoch.

        Raises:
            OptionError: A value outside its range, or one that the task cannot have.
        """
        super().__init__(dict(locals()))
        require(task in TASKS, "--data.task", task, f"one of {', '.join(TASKS)}")
        self.task = TASKS[task]
        shortest = length if min_length is None else min_length
        least = self.task.min_length
        require(length >= least, "--data.length", length, f"at least {least} for task {task}")
        require(least <= shortest <= length, "--data.min_length", min_length, f"from {least} to the length, {length}")
        fixed = self.task.num_features
        self.num_features = fixed or 1 if num_features is None else num_features
        wanted = f"{fixed} for task {task}" if fixed else "an integer of at least 1"
        require(self.num_features == (fixed or max(1, self.num_features)), "--data.num_features", num_features, wanted)
        require(num_train >= 1, "--data.num_train", num_train, "an integer of at least 1")
        require(num_val >= 0, "--data.num_val", num_val, "an integer of at least 0")
        require(num_test >= 1, "--data.num_test", num_test, "an integer of at least 1")
        self._fresh: tuple[int, Sequences] | None = None

    def read_schema(self) -> Schema:
        """Return the task's schema."""
        return Schema(self.num_features, list(self.task.class_names), None)

    def load_part(self, name: str) -> Sequences | None:
        """Make a part; `predict` is the test part."""
        name = "test" if name == "predict" else name
        return self._make(name, 0) if self.settings[f"num_{name}"] else None

    def train_epoch(self, epoch: int) -> Sequences:
        """Return the training part, or with `fresh` the epoch's own."""
        if not self.settings["fresh"] or epoch == 0:
            return self._required("train")
        if self._fresh is None or self._fresh[0] != epoch:
            self._fresh = (epoch, self._make("train", epoch))
        return self._fresh[1]

    def missing_hint(self, name: str) -> str:
        """Say how a part would be given."""
        return f"--data.num_{name} is 0"

    def _make(self, name: str, epoch: int) -> Sequences:
        count, length = self.settings[f"num_{name}"], self.settings["length"]
        # lengths have a stream of their own, the same in every epoch: the loader plans its batches by them
        lengths = torch.full((count,), length)
        if self.settings["min_length"] is not None:
            generator = seeded_generator(self.settings["seed"], PARTS.index(name), 0, 1)
            lengths = torch.randint(self.settings["min_length"], length + 1, (count,), generator=generator)
        lengths += self.task.extra_steps
        generator = seeded_generator(self.settings["seed"], PARTS.index(name), epoch)
        values, labels = self.task.generate(lengths, self.num_features, generator)
        return Sequences(values, lengths, labels)


class FileDataModule(SequenceDataModule):
    """A user's own sequences, from files of one of many formats."""

    pinned = frozenset({"val_fraction", "test_fraction", "stratify", "group_column", "seed", "positive_class"})
    paths: ClassVar[tuple[str, ...]] = ("train_path", "val_path", "test_path", "predict_path")

    def __init__(
        self,
        *,
        train_path: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        predict_path: str | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        stratify: bool = True,
        group_column: str | None = None,
        label_column: str = "label",
        id_column: str | None = None,
        time_column: str | None = None,
        feature_columns: list[str] | None = None,
        positive_class: str | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Set up; a file is opened when a stage needs it.

        Args:
            train_path: File of the training sequences: .ts, .tsv, .npz, .npy, .csv or .parquet (docs/data.md).
            val_path: File of the validation sequences; when not given, `val_fraction` of `train_path`.
            test_path: File of the test sequences; when not given, `test_fraction` of `train_path`.
            predict_path: File of sequences to predict, labels not needed; when not given, the test sequences.
            val_fraction: Share of `train_path` held out for validation, 0 for none. Unused with `val_path`.
            test_fraction: Share of `train_path` held out for testing, 0 for none. Unused with `test_path`.
            stratify: Hold out the same share of every class.
            group_column: Column whose values are never split between parts (one person's sequences, say).
            label_column: Column of the class, in CSV and Parquet.
            id_column: Column that tells sequences apart in CSV and Parquet with one row a time step; when not given,
                one row is one sequence.
            time_column: Column to order a sequence's rows by; when not given, their order in the file.
            feature_columns: Columns of the features; when not given, all the others.
            positive_class: Which of two classes is the positive one; when not given, the later in sorted order.
            batch_size: Sequences in a training batch of one process; when not given, an eighth of the training
                sequences, from 8 to 64.
            seed: Seed of the split and of the order in training.

        Raises:
            OptionError: A fraction outside [0, 1), or no training part left.
        """
        super().__init__(dict(locals()))
        for name in ("val_fraction", "test_fraction"):
            share = self.settings[name]
            require(0 <= share < 1, f"--data.{name}", share, "a number from 0 to below 1")
        total = self._shares["val_fraction"] + self._shares["test_fraction"]
        require(total < 1, "--data.val_fraction and --data.test_fraction", total, "a sum below 1")
        for name in self.paths:
            if self.settings[name] is not None:
                self.settings[name] = os.path.abspath(self.settings[name])

    @property
    def _shares(self) -> dict[str, float]:
        """The shares of `train_path` that are held out."""
        return {
            f"{part}_fraction": 0.0 if self.settings[f"{part}_path"] else self.settings[f"{part}_fraction"]
            for part in ("val", "test")
        }

    @cached_property
    def _train_file(self) -> FileContents:
        return self._read("train_path", None)

    @cached_property
    def _split(self) -> dict[str, Tensor]:
        try:
            return split(
                self._encode(self._train_file, "train_path"),
                class_names=self.schema.class_names,
                stratify=self.settings["stratify"],
                seed=self.settings["seed"],
                **self._shares,
            )
        except DataError as error:
            raise DataError(f"{self.settings['train_path']}: {error}") from None

    def read_schema(self) -> Schema:
        """Return the training file's schema.

        Raises:
            DataError: Fewer than two classes, or a positive class that is not there.
        """
        file = self._train_file
        assert file.labels is not None
        names, positive = sort_classes(set(file.labels.tolist())), self.settings["positive_class"]
        path = self.settings["train_path"]
        if len(names) < 2:
            raise DataError(f"{path}: found one class only, {names[0]!r}; accepted are two or more")
        if positive is not None:
            if positive not in names or len(names) != 2:
                raise DataError(f"{path}: found classes {', '.join(names)}; --data.positive_class {positive!r} names "
                                "one of two classes")  # fmt: skip
            names = [name for name in names if name != positive] + [positive]
        return Schema(file.sequences.num_features, names, file.feature_names)

    def load_part(self, name: str) -> Sequences | None:
        """Read or cut out a part."""
        if name == "predict":
            return self._unlabelled() if self.settings["predict_path"] else self.part("test")
        if name != "train" and self.settings[f"{name}_path"]:
            return self._encode(self._read(f"{name}_path", self.schema.feature_names), f"{name}_path")
        if name == "train" or self._shares[f"{name}_fraction"] > 0:
            return self._encode(self._train_file, "train_path").select(self._split[name])
        return None

    def missing_hint(self, name: str) -> str:
        """Say how a part would be given."""
        if name == "train":
            return "--data.train_path is not given"
        by_share = "" if name == "predict" else f" and --data.{name}_fraction is 0"
        return f"--data.{name}_path is not given{by_share}"

    def _read(self, option: str, feature_names: list[str] | None, require_labels: bool = True) -> FileContents:
        path = self.settings[option]
        if path is None:
            raise OptionError(f"--data.{option}: found nothing, accepted is a file")
        columns = {key: self.settings[key] for key in ("label_column", "id_column", "time_column", "group_column")}
        chosen = self.settings["feature_columns"]
        return read_file(
            path,
            **columns,
            feature_columns=chosen or feature_names,
            only_features=chosen is None,
            require_labels=require_labels,
        )

    def _unlabelled(self) -> Sequences:
        sequences = self._read("predict_path", self.schema.feature_names, require_labels=False).sequences
        self._check_width(sequences, "predict_path")
        return sequences

    def _encode(self, file: FileContents, option: str) -> Sequences:
        """Put the codes of the labels beside the sequences."""
        assert file.labels is not None
        self._check_width(file.sequences, option)
        code_of = {name: code for code, name in enumerate(self.schema.class_names)}
        codes = [code_of.get(name, -1) for name in file.labels.tolist()]
        if -1 in codes:
            at = codes.index(-1)
            assert file.sequences.ids is not None
            place = f"{self.settings[option]}: sequence {file.sequences.ids[at]!r}"
            known = ", ".join(self.schema.class_names)
            raise DataError(f"{place} has label {file.labels[at]!r}, unseen in training; accepted are {known}")
        labelled = file.sequences.select(torch.arange(len(codes)))
        labelled.labels = torch.tensor(codes)
        return labelled

    def _check_width(self, sequences: Sequences, option: str) -> None:
        if sequences.num_features != self.schema.num_features:
            raise DataError(
                f"{self.settings[option]}: found {sequences.num_features} features per step, accepted are "
                f"{self.schema.num_features} as in training"
            )


DATA_MODULES: dict[Literal["SyntheticDataModule", "FileDataModule"], type[SequenceDataModule]] = {
    "SyntheticDataModule": SyntheticDataModule,
    "FileDataModule": FileDataModule,
}
