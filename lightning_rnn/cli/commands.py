"""Commands that are no method of the Trainer: functions whose arguments are the options."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from lightning_rnn.cli.parser import Parser, own_errors_with_flags
from lightning_rnn.cli.quick_answers import PROGRAM
from lightning_rnn.cli.request import Request, find_checkpoint, find_model_class
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.pack import pack as pack_file
from lightning_rnn.data.report import describe
from lightning_rnn.errors import OptionError, counted
from lightning_rnn.export.onnx_export import TOLERANCE, export_onnx
from lightning_rnn.training.model_card import metrics_of, write_model_card
from lightning_rnn.training.presets import data_of_preset, read_preset


@wraps(pack_file)
def pack(**options: Any) -> None:
    """Pack a file; arguments and documentation are those of the function of the data module."""
    sequences = pack_file(**options)
    size = counted(len(sequences), "sequence")
    num_features = counted(sequences.num_features, "feature")
    print(f"{size} of {num_features} written to {options['output']}")


def inspect(*, data: SequenceDataModule) -> None:
    """Report sizes, classes, missing values and suspicious features of a data set.

    Args:
        data: Data module, followed by its own options. For a file, `inspect FILE` is enough, and
            options such as --data.id_column may follow.

    Raises:
        DataError: If the data cannot be used.
    """
    print(describe(data))


def export(
    *,
    ckpt_path: str | None = None,
    model: str | None = None,
    output: str | None = None,
    streaming: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint to an ONNX file that is verified against PyTorch, and its model card.

    Args:
        ckpt_path: Checkpoint file, or best or last: that of the newest run. If not given, best.
        model: Path of the class of the model, such as module.Class, if it is one of your own.
        output: File to write; if not given, model.onnx or step.onnx (streaming) in the run folder.
        streaming: Whether the file takes one time step and a state instead of whole sequences.
        overwrite: Whether to replace an existing file.

    Raises:
        LightningRNNError: If the checkpoint cannot be used, or the file exists or is not written.
    """
    model_class = find_model_class(model)
    run = find_checkpoint(ckpt_path, Path("."), model_class)
    file_name = "step.onnx" if streaming else "model.onnx"
    path = Path(output or run.run_folder / file_name).expanduser()
    if path.is_dir() or (path.exists() and not overwrite):
        message = f"expected a new file, or overwrite=True, got {path}, which exists"
        raise OptionError(message, name="output")
    classifier = model_class(**run.hyper_parameters)
    run.restore(classifier)
    metrics = metrics_of(run)
    difference = export_onnx(
        classifier.network,
        path,
        class_names=classifier.schema.class_names,
        feature_names=classifier.schema.feature_names,
        categories=classifier.schema.categories,
        streaming=streaming,
    )
    print(f"largest difference from PyTorch: {difference:.1e} (allowed: {TOLERANCE:g})")
    print(f"written to {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"model card: {write_model_card(run, classifier, path, metrics)}")


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
    if command is inspect:
        if not args:
            raise OptionError("expected a file, got nothing")
        if not args[0].startswith("-"):
            args = [f"--data.train_path={args[0]}", *args[1:]]
        data_class = Request.from_args([name, *args]).data_class
        if data_class == "FileDataModule":  # as fit reads them
            parser.set_defaults({"data": data_of_preset(read_preset("files"), data_class)})
    config = parser.parse_args(args)
    with own_errors_with_flags(config.as_dict()):
        command(**vars(parser.instantiate_classes(config)))
