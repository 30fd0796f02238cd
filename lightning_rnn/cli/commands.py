"""The commands `export` and `inspect`."""

from pathlib import Path

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.report import describe
from lightning_rnn.errors import OptionError
from lightning_rnn.export.onnx_export import TOLERANCE, comparison_table, export_onnx
from lightning_rnn.training.checkpoint_file import StoredRun, newest_run
from lightning_rnn.training.classifier import SequenceClassifier


def export(
    *,
    ckpt_path: str | None = None,
    output: str | None = None,
    streaming: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint to an ONNX file, which is compared with PyTorch before it is put in place.

    Args:
        ckpt_path: Checkpoint; when not given, the best of the newest run.
        output: File to write; when not given, model.onnx in the run folder, or step.onnx with streaming.
        streaming: Whether the file takes one step at a time and a state, instead of whole sequences.
        overwrite: Whether an existing file is replaced.

    Raises:
        CheckpointError: No checkpoint, or a damaged one.
        ExportError: The file would compute something else than the network.
        OptionError: A two-way model with streaming, a file that is there already, or a package that is missing.
    """
    stored = StoredRun(Path(ckpt_path)) if ckpt_path else newest_run(Path("."), ("best.ckpt",))
    path = Path(output) if output else stored.folder / ("step.onnx" if streaming else "model.onnx")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OptionError(f"--output: {path} exists; accepted is another name, or --overwrite true")
    model = SequenceClassifier(**stored.model)
    stored.restore(model)
    schema = model.schema
    print(f"exporting {stored.path}; differences from PyTorch, at most {TOLERANCE:g} accepted:")
    rows = export_onnx(
        model.network,
        path,
        class_names=schema.class_names,
        feature_names=schema.feature_names,
        streaming=streaming,
    )
    print(comparison_table(rows))
    print(f"written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


def inspect(*, data: SequenceDataModule) -> None:
    """Print a description of a data set.

    Args:
        data: FileDataModule or SyntheticDataModule, with its arguments as --data.train_path etc.

    Raises:
        DataError: If a split cannot be read.
    """
    print(describe(data))
