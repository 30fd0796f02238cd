"""The data module of a user's own files."""

import os
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from lightning_rnn.data.base_module import Schema, SequenceDataModule
from lightning_rnn.data.readers import FileContents, ReadOptions, read_file
from lightning_rnn.data.readers.class_names import sort_classes
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import split
from lightning_rnn.errors import DataError, OptionError, check


class FileDataModule(SequenceDataModule):
    """A user's own sequences, from files of one of many formats."""

    pinned = frozenset(
        {"val_fraction", "test_fraction", "stratify", "group_column", "seed", "positive_class"}
    )

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
        buckets: bool = False,
        on_device: bool | None = None,
        seed: int = 0,
    ) -> None:
        """Set up; a file is opened when a stage needs it.

        Args:
            train_path: File of the training sequences: .ts, .tsv, .npz, .npy, .csv or .parquet, or a folder made by
                `pack` (docs/data.md).
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
            buckets: Whether sequences of like length share a training batch, so that little is padded.
            on_device: Whether the sequences are kept on the accelerator; when not given, where they take at most a
                quarter of its free memory.
            seed: Seed of the split and of the order in training.

        Raises:
            OptionError: A fraction outside [0, 1), or no training part left.
        """
        super().__init__(dict(locals()))
        for name in ("val_fraction", "test_fraction"):
            share = self.settings[name]
            check(0 <= share < 1, f"{name}", share, "a number from 0 to below 1")
        total = self._shares["val_fraction"] + self._shares["test_fraction"]
        check(total < 1, "val_fraction and test_fraction", total, "a sum below 1")
        for name, value in self.settings.items():
            if name.endswith("_path") and value is not None:
                self.settings[name] = os.path.abspath(value)

    @property
    def _shares(self) -> dict[str, float]:
        """The shares of `train_path` that are held out."""
        return {
            f"{part}_fraction": 0.0
            if self.settings[f"{part}_path"]
            else self.settings[f"{part}_fraction"]
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
        if name != "train" and self.settings[f"{name}_path"]:
            file = self._read(
                f"{name}_path", self.schema.feature_names, require_labels=name != "predict"
            )
            return self._encode(file, f"{name}_path", labelled=name != "predict")
        if name == "predict":
            return self.part("test")
        if name == "train" or self._shares[f"{name}_fraction"] > 0:
            return self._encode(self._train_file, "train_path").select(self._split[name])
        return None

    def missing_hint(self, name: str) -> str:
        """Say how a part would be given."""
        if name == "train":
            return "train_path is not given"
        by_share = "" if name == "predict" else f" and {name}_fraction is 0"
        return f"{name}_path is not given{by_share}"

    def _read(
        self, option: str, feature_names: list[str] | None, require_labels: bool = True
    ) -> FileContents:
        path = self.settings[option]
        if path is None:
            raise OptionError(f"{option}: found nothing, accepted is a file")
        chosen, columns = (
            self.settings["feature_columns"],
            ("label_column", "id_column", "time_column", "group_column"),
        )
        wanted = ReadOptions(
            **{name: self.settings[name] for name in columns},
            feature_columns=chosen or feature_names,
        )
        return read_file(
            path, replace(wanted, only_features=chosen is None, require_labels=require_labels)
        )

    def _encode(self, file: FileContents, option: str, labelled: bool = True) -> Sequences:
        """Return the sequences, those that are labelled with the codes of the labels."""
        path = self.settings[option]
        found = file.sequences.num_features
        expected = self.schema.num_features
        names = self.schema.class_names
        if found != expected:
            raise DataError(
                f"{path}: expected {expected} features per step, as in training, got {found}"
            )
        if not labelled:
            return file.sequences
        assert file.labels is not None
        code_of = {name: code for code, name in enumerate(names)}
        codes = [code_of.get(name, -1) for name in file.labels.tolist()]
        if -1 in codes:
            at = codes.index(-1)
            assert file.sequences.ids is not None
            found_label = f"sequence {file.sequences.ids[at]!r} has label {file.labels[at]!r}, unseen in training"
            raise DataError(f"{path}: {found_label}; accepted are {', '.join(names)}")
        sequences = file.sequences.select(torch.arange(len(codes)))
        sequences.labels = torch.tensor(codes)
        return sequences
