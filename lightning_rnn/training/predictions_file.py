"""The file of predictions that `predict` writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.errors import OptionError, check, counted
from lightning_rnn.evaluation.results import Predictions
from lightning_rnn.training.data_statistics import sequence_data


class PredictionsFile(Callback):
    """Writes one row for each sequence, in the order of the data.

    The columns are id, group (if the data have groups), the probability of each class
    (`probability_up`), the predicted class (label), the class in the file (true_label, if the file
    has classes), and with `embeddings` the pooled states (`embedding_0`).

    Args:
        folder: Folder of `predictions.csv`, or of `predictions-2.csv` and so on if it exists.
        output: A .csv or .parquet file to write instead.
        overwrite: Whether an existing file may be replaced.
        embeddings: Whether to write the pooled states.

    Raises:
        OptionError: If `output` has another suffix, or exists and must not be replaced.
    """

    def __init__(
        self, folder: Path, *, output: str | None, overwrite: bool, embeddings: bool
    ) -> None:
        self._path = folder / "predictions.csv" if output is None else Path(output).expanduser()
        is_known = self._path.suffix in (".csv", ".parquet")
        check(is_known, "output", output, "a file name ending in .csv or .parquet")
        self._is_numbered = output is None
        self._overwrite = overwrite
        self._embeddings = embeddings
        self._batches: list[Predictions] = []
        self._new_path()  # refuses an existing file before anything is computed

    def _new_path(self) -> Path:
        path = self._path
        if self._overwrite or not path.exists():
            return path
        if not self._is_numbered:
            message = f"expected a new file unless overwrite is true, but {path} exists"
            raise OptionError(message, name="output")
        number = 2
        while path.exists():
            path = self._path.with_stem(f"predictions-{number}")
            number += 1
        return path

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Collect a batch."""
        if not self._embeddings:
            outputs = replace(outputs, embeddings=outputs.embeddings[:, :0])
        self._batches.append(outputs)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Gather the predictions of all ranks and write the file."""
        import polars

        predictions = Predictions.gather(self._batches)  # a collective call
        self._batches = []
        if not trainer.is_global_zero:
            return
        data = sequence_data(trainer)
        columns = prediction_columns(predictions.cpu(), data, pl_module.class_names, "predict")
        frame = polars.DataFrame(columns)
        path = self._new_path()  # another process may have written one meanwhile
        with atomic_write(path) as temporary:
            if path.suffix == ".csv":
                frame.write_csv(temporary)
            else:
                frame.write_parquet(temporary)
        print(f"{counted(len(frame), 'prediction')} written to {path}")


def prediction_columns(
    predictions: Predictions, data: SequenceDataModule | None, class_names: list[str], split: str
) -> dict[str, Any]:
    """Return the columns of a file of predictions, with a row for each sequence of a split."""
    index = predictions.index.numpy()
    columns: dict[str, Any] = {"id": index}
    sequences = None if data is None else data.split(split)
    if sequences is not None and sequences.ids is not None:
        columns["id"] = sequences.ids[index].tolist()
    if sequences is not None and sequences.groups is not None:
        columns["group"] = sequences.groups[index].tolist()
    probabilities = predictions.probabilities
    if probabilities.ndim == 1:
        probabilities = torch.stack([1 - probabilities, probabilities], dim=1)
    for k, name in enumerate(class_names):
        columns[f"probability_{name}"] = probabilities[:, k].numpy()
    columns["label"] = [class_names[code] for code in predictions.labels.tolist()]
    true_labels = None if data is None else data.true_labels(split)
    if true_labels is not None:
        columns["true_label"] = [true_labels[row] for row in index]
    for i, states in enumerate(predictions.embeddings.T):
        columns[f"embedding_{i}"] = states.numpy()
    return columns
