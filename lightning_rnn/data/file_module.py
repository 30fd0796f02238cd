"""Data module of sequence files."""

from dataclasses import fields, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.column_findings import column_findings
from lightning_rnn.data.readers import FileContents, ReadOptions, read_contents
from lightning_rnn.data.readers.class_names import order_classes
from lightning_rnn.data.readers.contents import join_names, unexpected
from lightning_rnn.data.readers.sources import (
    Paths,
    absolute,
    are_same_files,
    data_errors_with_title,
    title_of,
)
from lightning_rnn.data.schema import Schema, encode
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import split_rows
from lightning_rnn.distributed import print_once
from lightning_rnn.errors import OptionError, check, check_types

PATHS = ("train_path", "val_path", "test_path", "predict_path", "labels_path")


class FileDataModule(SequenceDataModule):
    """Sequences from files of any supported format (docs/data.md).

    Files are opened when a stage needs them.

    Args:
        train_path: File of the training sequences: .ts, .tsv, .npz, .npy, .h5, .hdf5, .csv,
            .csv.gz, .xlsx or .parquet, or a folder made by `pack`. Several files of one kind are a
            folder, a pattern such as walks/*.csv, or a list [a.csv,b.csv]; the same holds for the
            other paths.
        val_path: File of the validation sequences; None for `val_fraction` of `train_path`.
        test_path: File of the test sequences; None for `test_fraction` of `train_path`.
        predict_path: File of sequences to predict, labelled or not; None for the test sequences.
        val_fraction: Fraction of `train_path` for validation, in [0, 1), without `val_path`.
        test_fraction: Fraction of `train_path` for testing, in [0, 1), without `test_path`.
        num_folds: Number of folds to divide `train_path` into, for cross-validation (see
            examples/folds.py); None for none. Each has the same proportions of the classes.
        fold: Fold that is tested, in place of `test_fraction`; the first one is 0.
        stratify: Whether each split has the same proportions of the classes.
        group_column: Column of groups, such as persons; sequences of a group are in one split.
        labels_path: Table with the class of each id, in the columns `id_column` or `id` and
            `label_column`; None if the files contain the classes.
        label_column: Column of the class (CSV, Parquet), or folder_name: the folder of the file.
        id_column: Column that identifies the sequence; None if there is none and each row is a
            sequence. If no id is repeated and there is no `time_column`, each row is a sequence.
            With file_name each file is a sequence.
        time_column: Column that orders the steps of a sequence; None for the order in the file.
        feature_columns: Columns of the features; None for all other columns. A trained model reads
            its own.
        category_columns: Features that are categories, not numbers (CSV, Parquet, with an
            `id_column`): text, or integers without an order.
        token_column: Feature that is a token, such as a word or a symbol: a further one of the
            `category_columns`.
        categories: Categories of a column, by its name; None for those in the training file.
        unknown_categories: Whether a category that is not in the training file is read as unknown,
            a vector of zeros, rather than being an error.
        time_format: Format of `time_column` as for polars' `strptime`, such as %m/%d/%Y; None for
            numbers, ISO 8601, and clock or elapsed times H:MM[:SS[.f]].
        separator: Character between two cells (CSV); None to detect comma, semicolon and tab.
        decimal_comma: Whether numbers have a decimal comma (CSV).
        encoding: Encoding of the file (CSV); None for UTF-8.
        missing_values: Numbers that stand for missing values, such as [-9999].
        window_length: Number of steps of the windows to cut each sequence into, which remain in
            one split; None for none. The class may then differ from row to row (CSV, Parquet).
        window_stride: Number of steps from one window to the next; None for `window_length`.
        window_label: Class of a window: that of its last step, that of the majority of its steps,
            or `positive_class` if any step has it.
        positive_class: Name of the positive one of two classes; None for the last in sorted order.
        max_cells: Number of cells above which a file is refused, see `ReadOptions`.
        batch_size: Number of sequences per training batch of one process; None for a sixteenth of
            the training sequences, from 8 to 64.
        buckets: Whether training batches contain sequences of similar length, to reduce padding.
        on_device: Whether the sequences are stored on the accelerator; None to store them there if
            they need at most a quarter of the free memory of the GPU.
        seed: Seed of the splits and of the order in training.

    Raises:
        OptionError: If a fraction is not in [0, 1), or nothing is left to train on.

    Example:
        >>> import numpy as np
        >>> from tempfile import TemporaryDirectory
        >>> from lightning_rnn import FileDataModule
        >>> with TemporaryDirectory() as folder:
        ...     path = f"{folder}/waves.npz"
        ...     np.savez(path, X=np.zeros((40, 25, 3)), y=["slow", "fast"] * 20)
        ...     data = FileDataModule(train_path=path, val_fraction=0.25)
        ...     len(data.split("train")), len(data.split("val")), data.class_names
        (30, 10, ['fast', 'slow'])
    """

    identity_settings = frozenset(
        {"val_fraction", "test_fraction", "num_folds", "fold", "stratify", "group_column", "seed"}
        | {"positive_class", "missing_values", "window_length", "window_stride", "window_label"}
    )
    _has_checked_files = False  # those of test and predict
    _time_kind: str | None = None  # of the training file, once it has been read

    def __init__(
        self,
        *,
        train_path: list[str] | str | None = None,
        val_path: list[str] | str | None = None,
        test_path: list[str] | str | None = None,
        predict_path: list[str] | str | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        num_folds: int | None = None,
        fold: int = 0,
        stratify: bool = True,
        group_column: str | None = None,
        labels_path: str | None = None,
        label_column: str = "label",
        id_column: str | None = None,
        time_column: str | None = None,
        feature_columns: list[str] | None = None,
        category_columns: list[str] | None = None,
        token_column: str | None = None,
        categories: dict[str, list[str]] | None = None,
        unknown_categories: bool = False,
        time_format: str | None = None,
        separator: str | None = None,
        decimal_comma: bool = False,
        encoding: str | None = None,
        missing_values: list[float] | None = None,
        window_length: int | None = None,
        window_stride: int | None = None,
        window_label: Literal["last", "majority", "any"] = "last",
        positive_class: str | None = None,
        max_cells: int = 200_000_000,
        batch_size: int | None = None,
        buckets: bool = False,
        on_device: bool | None = None,
        seed: int = 0,
    ) -> None:
        arguments = dict(locals())
        del arguments["self"], arguments["__class__"]
        super().__init__(batch_size=batch_size, buckets=buckets, on_device=on_device, seed=seed)
        self.settings |= arguments
        for name in PATHS:
            self.settings[name] = absolute(self.settings[name])
        self._options = self._check_settings()
        self.missing_values = missing_values or []

    def _check_settings(self) -> ReadOptions:
        """Return the options of reading; raise an OptionError if a setting cannot be used."""
        check_types(FileDataModule, self.settings)
        num_folds, fold = self.settings["num_folds"], self.settings["fold"]
        if num_folds is not None:
            check(num_folds >= 2, "num_folds", num_folds, "an integer of at least 2")
            check(0 <= fold < num_folds, "fold", fold, f"an integer from 0 to {num_folds - 1}")
            for name, none in (("test_path", None), ("test_fraction", 0)):
                got = self.settings[name]
                check(got == none, name, got, f"{none}, as a fold is tested")
        for name in ("val_fraction", "test_fraction"):
            fraction = self.settings[name]
            check(0 <= fraction < 1, name, fraction, "a number from 0 to below 1")
        held_out = self._fraction("val") + self._fraction("test")
        check(held_out < 1, "val_fraction and test_fraction", held_out, "a sum below 1")
        names = {field.name for field in fields(ReadOptions)} & self.settings.keys()
        return ReadOptions(**{name: self.settings[name] for name in names})

    def _fraction(self, name: str) -> float:
        """Return the fraction of the training file that is a split."""
        if self.settings[f"{name}_path"] is not None:
            return 0.0
        if name == "test" and self.settings["num_folds"] is not None:
            return float(1 / self.settings["num_folds"])
        return float(self.settings[f"{name}_fraction"])

    @cached_property
    def _train_file(self) -> FileContents:
        path = self.settings["train_path"]
        if path is None:
            raise OptionError("expected a file, got None", name="train_path")
        file = self._read(path, self._schema)
        self._time_kind = file.time_kind
        if file.step_names is not None and self.settings["id_column"] is not None:
            rows = f"no id is repeated: each row is a sequence of {len(file.step_names)} time steps"
            print_once(f"{title_of(path)}: {rows}")
        return file

    @cached_property
    def _train_sequences(self) -> Sequences:
        return encode(self._train_file, self.schema, self.settings["train_path"])

    @cached_property
    def _rows(self) -> dict[str, Tensor]:
        """Positions in the training file of the sequences of each split."""
        with data_errors_with_title(self.settings["train_path"]):
            return split_rows(
                self._train_sequences,
                val_fraction=self._fraction("val"),
                test_fraction=self._fraction("test"),
                num_folds=self.settings["num_folds"],
                fold=self.settings["fold"],
                stratify=self.settings["stratify"],
                seed=self.settings["seed"],
                class_names=self.class_names,
            )

    def load(self, stage: str, schema: object) -> list[Sequences]:
        """Return the splits of a stage; see `SequenceDataModule.load`.

        For fit, the files of test and predict are read, too, and released again, so that errors in
        them are reported before training.
        """
        splits = super().load(stage, schema)
        if stage == "fit" and not self._has_checked_files:
            for name in ("test", "predict"):
                if self.settings[f"{name}_path"] is not None:
                    self.load_split(name)
            self._has_checked_files = True
        return splits

    def read_schema(self) -> Schema:
        """Return the schema of the training file; its labels must be at least two classes."""
        file = self._train_file
        assert file.labels is not None  # required in a training file
        with data_errors_with_title(self.settings["train_path"]):
            names = order_classes(file.labels, self.settings["positive_class"])
        num_features = file.sequences.num_features
        return Schema(num_features, names, file.feature_names, file.step_names, file.categories)

    def findings(self) -> list[str]:
        """Return what is suspicious about the columns of the training file."""
        return column_findings(self._train_file, self.settings["id_column"])

    def load_split(self, name: str) -> Sequences | None:
        """Read a split from its own file or select it from the training file."""
        if name == "train":
            return self._train_sequences.select(self._rows[name])
        path = self.settings[f"{name}_path"]
        if path is not None:
            file = self._read(path, self.schema, require_labels=name != "predict")
            self._print_notices(name, path, file)
            if self._time_kind is not None and file.time_kind not in (None, self._time_kind):
                place = f"{title_of(path)}: time_column"
                raise unexpected(place, f"{self._time_kind} as in train_path", file.time_kind)
            if name == "predict" and file.labels is not None:
                self._label_names[name] = [label or None for label in file.labels]
            return encode(file, self.schema, path, has_labels=name != "predict")
        if name == "predict":
            return self.split("test")
        if self._fraction(name) > 0:
            return self._train_sequences.select(self._rows[name])
        return None

    def missing_hint(self, name: str) -> str:
        """Return the reason why there is no split of this name."""
        reason = "there is no test data" if name == "predict" else f"{name}_fraction is 0"
        return f"{name}_path is not given and {reason}"

    def _read(
        self, path: Paths, schema: Schema | None, *, require_labels: bool = True
    ) -> FileContents:
        """Read a file; from any but the training file, the columns that the schema names."""
        options: dict[str, Any] = {"require_labels": require_labels}
        options["only_features"] = self.settings["feature_columns"] is None
        if schema is not None:
            options |= {"category_columns": None, "token_column": None}
            options |= {"categories": schema.categories or None}
        if schema is not None and schema.feature_names is not None:
            options["model_names"] = schema.feature_names
            options["one_row_per_sequence"] = False
            options["only_features"] &= require_labels
        elif schema is not None and schema.step_names is not None:
            options["model_names"] = schema.step_names
            options["one_row_per_sequence"] = True
        return read_contents(path, replace(self._options, **options))

    def _print_notices(self, name: str, path: Paths, file: FileContents) -> None:
        """Print what a user should know about the file of a split."""
        chosen = self.settings["feature_columns"]
        known = self.feature_names or self.step_names or []
        if chosen is not None and known not in ([], chosen):
            print_once(f"feature_columns is ignored: the model has {join_names(known)}")
        if name == "predict" and file.ignored:
            print_once(f"{title_of(path)}: ignored columns: {join_names(file.ignored)}")
        if name != "predict" and are_same_files(path, self.settings["train_path"]):
            print_once(f"{title_of(path)}: the same sequences as in train_path")
