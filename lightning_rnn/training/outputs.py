"""What `test` and `predict` leave in the run folder."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.errors import OptionError
from lightning_rnn.evaluation.intervals import intervals
from lightning_rnn.evaluation.results import Predictions, gather_predictions
from lightning_rnn.training.classifier import SequenceClassifier


class TestMetricsFile(Callback):
    """Writes the test metrics to `test_metrics.json`, flat: `test/accuracy`, its interval's `_low` and `_high`."""

    def __init__(self, folder: Path) -> None:
        """Set up; the file goes into `folder`."""
        self.path = folder / "test_metrics.json"

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, show what is in it and say where it is."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SequenceClassifier) and pl_module.outcome is not None
        data = trainer.datamodule  # type: ignore[attr-defined]
        part = data.split("test") if isinstance(data, SequenceDataModule) else None
        groups = (
            None
            if part is None or part.groups is None
            else part.groups[pl_module.outcome.index.cpu().numpy()]
        )
        bounds = intervals(pl_module.outcome, pl_module.network.decision, groups)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print(
            f"{'test':20}{'':>10}  95 % interval"
            + "    uncalibrated" * pl_module.network.decision.is_fitted
        )
        for name in sorted(bounds):
            low, high = bounds[name]
            before = metrics.get(f"test/{name}_uncalibrated")
            uncalibrated = "" if before is None else f"  {before:14.4f}"
            print(f"{name:20}{metrics[f'test/{name}']:10.4f}  {low:.4f}-{high:.4f}{uncalibrated}")
            metrics |= {f"test/{name}_low": low, f"test/{name}_high": high}
        with atomic_write(self.path) as draft:
            draft.write_text(
                json.dumps(dict(sorted(metrics.items())), indent=2) + "\n", encoding="utf-8"
            )
        print(f"metrics written to {self.path}")


class PredictionsFile(Callback):
    """Writes one row a sequence, in the order of the data: id, probability or one column a class, label."""

    def __init__(self, folder: Path, output: str | None, overwrite: bool) -> None:
        """Set up.

        Args:
            folder: Where `predictions.csv` goes, or `predictions-2.csv` and so on where it exists.
            output: A .csv or .parquet file instead.
            overwrite: Whether an existing file may be replaced.

        Raises:
            OptionError: `output` of another kind, or there already and not to be overwritten.
        """
        self.path = Path(output) if output else folder / "predictions.csv"
        if self.path.suffix not in (".csv", ".parquet"):
            raise OptionError(
                f"--output: found {str(self.path)!r}, accepted is a name ending in .csv or .parquet"
            )
        if self.path.exists() and not overwrite:
            if output:
                raise OptionError(
                    f"--output: {self.path} exists; accepted is another name, or --overwrite true"
                )
            self.path = next(
                free for n in count(2) if not (free := folder / f"predictions-{n}.csv").exists()
            )
        self._parts: list[Predictions] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect a batch."""
        assert isinstance(outputs, Predictions)
        self._parts.append(outputs)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather all ranks' predictions and write the file."""
        outcome = gather_predictions(self._parts)  # a collective call
        self._parts = []
        if trainer.is_global_zero:
            data = trainer.datamodule  # type: ignore[attr-defined]
            assert isinstance(pl_module, SequenceClassifier) and isinstance(
                data, SequenceDataModule
            )
            sequences = data.split("predict")
            assert sequences is not None
            self._write(outcome.cpu(), sequences.ids, pl_module.schema.class_names)
            print(f"{len(outcome.index)} predictions written to {self.path}")

    def _write(self, outcome: Predictions, ids: np.ndarray | None, class_names: list[str]) -> None:
        import polars

        index, probability, labels = outcome.index, outcome.probabilities, outcome.labels
        columns: dict[str, Any] = {
            "id": index.numpy() if ids is None else ids[index.numpy()].tolist()
        }
        if probability.ndim == 1:
            columns["probability"] = probability.numpy()
        else:
            columns |= {
                f"probability_{name}": probability[:, k].numpy()
                for k, name in enumerate(class_names)
            }
        columns["label"] = [class_names[code] for code in labels.tolist()]
        frame = polars.DataFrame(columns)
        with atomic_write(self.path) as beside:
            (frame.write_csv if self.path.suffix == ".csv" else frame.write_parquet)(beside)
