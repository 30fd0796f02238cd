"""Commands that are no method of the Trainer: functions whose arguments are the options."""

from collections.abc import Callable
from pathlib import Path

from lightning_rnn.cli.parser import PROGRAM, Parser, own_error_behind, with_flags
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.report import describe
from lightning_rnn.errors import OptionError
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.run_folder import newest_checkpoint


def pack(
    *,
    input: str,
    output: str,
    label_column: str = "label",
    id_column: str | None = None,
    time_column: str | None = None,
    group_column: str | None = None,
    feature_columns: list[str] | None = None,
    require_labels: bool = True,
    overwrite: bool = False,
) -> None:
    """Convert a data file of any size to a folder that training reads batch by batch from disk.

    Args:
        input: File of sequences, of any format that training reads.
        output: Folder to write.
        label_column: Column of the class, in CSV and Parquet files.
        id_column: Column that identifies the sequence, in files with one row per time step; if not
            given, each row is a sequence.
        time_column: Column by which the rows of a sequence are sorted; if not given, the rows keep
            their order.
        group_column: Column of groups that a split keeps together.
        feature_columns: Columns of the features; if not given, all other columns.
        require_labels: Whether a missing label is an error; if false, the folder has no labels.
        overwrite: Whether to replace a folder that pack has written.

    Raises:
        DataError: If the file cannot be used.
        OptionError: If the output exists and may not be replaced.
    """
    from lightning_rnn.data.pack import pack as pack_file

    sequences = pack_file(
        input=input,
        output=output,
        label_column=label_column,
        id_column=id_column,
        time_column=time_column,
        group_column=group_column,
        feature_columns=feature_columns,
        require_labels=require_labels,
        overwrite=overwrite,
    )
    print(f"{len(sequences)} sequences of {sequences.num_features} features written to {output}")


def inspect(*, data: SequenceDataModule) -> None:
    """Report sizes, classes, missing values and suspicious features of a data set.

    Args:
        data: Data module, followed by its own options such as --data.train_path.

    Raises:
        DataError: If the data cannot be used.
    """
    print(describe(data))


def export(
    *,
    ckpt_path: str | None = None,
    output: str | None = None,
    streaming: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint to an ONNX file that is verified against PyTorch.

    Args:
        ckpt_path: Checkpoint file; if not given, the best checkpoint of the newest run.
        output: File to write; if not given, model.onnx or step.onnx (streaming) in the run folder.
        streaming: Whether the file takes one time step and a state instead of whole sequences.
        overwrite: Whether to replace an existing file.

    Raises:
        CheckpointError: If there is no checkpoint or it is damaged.
        ExportError: If the file does not reproduce the output of the network.
        OptionError: If the output exists, the model is bidirectional and streaming is set, or a
            package is missing.
    """
    from lightning_rnn.export.onnx_export import TOLERANCE, export_onnx, comparison_table

    if ckpt_path is None:
        run = newest_checkpoint(Path("."), ("best.ckpt",))
    else:
        run = CheckpointFile.read(Path(ckpt_path))
    path = run.run_folder / ("step.onnx" if streaming else "model.onnx")
    if output is not None:
        path = Path(output)
    if path.is_dir() or (path.exists() and not overwrite):
        message = f"expected a new file, or overwrite=True, got {path}, which exists"
        raise OptionError(message, name="output")
    model = SequenceClassifier(**run.hyper_parameters)
    run.restore(model)
    print(f"exporting {run.path}; largest differences from PyTorch, allowed are {TOLERANCE:g}:")
    comparisons = export_onnx(
        model.network,
        path,
        class_names=model.schema.class_names,
        feature_names=model.schema.feature_names,
        streaming=streaming,
    )
    print(comparison_table(comparisons))
    print(f"written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


EXTRA_COMMANDS: dict[str, Callable[..., None]] = {
    "pack": pack,
    "inspect": inspect,
    "export": export,
}


def summary(command: Callable[..., None]) -> str:
    """Return the first line of a command's docstring."""
    return str(command.__doc__).partition("\n")[0]


def run_extra_command(name: str, args: list[str]) -> None:
    """Parse the options of one of `EXTRA_COMMANDS` and run it."""
    command = EXTRA_COMMANDS[name]
    parser = Parser(prog=f"{PROGRAM} {name}", description=summary(command))
    parser.add_function_arguments(command, as_group=False)
    config = parser.parse_args(args)
    try:
        command(**vars(parser.instantiate_classes(config)))
    except Exception as error:
        own_error = own_error_behind(error)
        if own_error is None:
            raise
        raise with_flags(own_error, config.as_dict()) from error
