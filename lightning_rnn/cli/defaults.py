"""Defaults of the options: those of a preset, and of the checkpoint that a command uses."""

from collections.abc import Set

from lightning.pytorch.cli import LightningArgumentParser

from lightning_rnn.cli.request import Request
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.training.checkpoint_file import SIZES_AND_NAMES, CheckpointFile
from lightning_rnn.training.presets import CONFIG_OF, Preset
from lightning_rnn.training.warm_start import ARCHITECTURE

DEFAULT_DATA = "SyntheticDataModule"


def set_defaults(
    parser: LightningArgumentParser,
    request: Request,
    run: CheckpointFile | None,
    initial: CheckpointFile | None,
) -> Preset | None:
    """Set defaults of the options of model, data and Trainer; return the preset, for fit.

    `run` is the checkpoint to evaluate or to continue, `initial` that whose weights a run starts
    with.
    """
    preset = None
    if request.command == "fit":
        preset = Preset.read(_preset_name(request, run or initial))
        _set_defaults_of_preset(parser, request, preset)
    elif request.data_class in (None, *DATA_MODULES):
        parser.set_defaults({"data": {"class_path": request.data_class or DEFAULT_DATA}})
    if run is not None:
        names = set(run.hyper_parameters)
        if request.command == "fit":
            names -= set(SIZES_AND_NAMES)  # it takes them from the data module
        _set_defaults_of_model(parser, run, names)
        if request.data_class in (None, run.data_class):
            _set_defaults_of_data(parser, run)
    if initial is not None:
        _set_defaults_of_model(parser, initial, ARCHITECTURE & initial.hyper_parameters.keys())
        if request.data_class is None:
            _set_defaults_of_data(parser, initial)
    return preset


def _preset_name(request: Request, checkpoint: CheckpointFile | None) -> str:
    if request.preset in CONFIG_OF:
        return str(request.preset)
    data_class = request.data_class
    if data_class is None and checkpoint is not None:
        data_class = checkpoint.data_class
    return "tutorial" if data_class in (None, DEFAULT_DATA) else "files"


def _set_defaults_of_preset(
    parser: LightningArgumentParser, request: Request, preset: Preset
) -> None:
    options = preset.options()
    if request.has_max_epochs:  # the user has chosen how long to train
        options.pop("trainer.max_steps", None)
    parser.set_defaults(options | {"preset": preset.name})
    data_class = request.data_class or DEFAULT_DATA
    if data_class in DATA_MODULES:
        parser.set_defaults({"data": preset.data(data_class)})


def _set_defaults_of_model(
    parser: LightningArgumentParser, checkpoint: CheckpointFile, names: Set[str]
) -> None:
    for name in names:
        parser.set_defaults({f"model.{name}": checkpoint.hyper_parameters[name]})


def _set_defaults_of_data(parser: LightningArgumentParser, checkpoint: CheckpointFile) -> None:
    if checkpoint.data_class is not None:
        settings = {"class_path": checkpoint.data_class, "init_args": checkpoint.data_settings}
        parser.set_defaults({"data": settings})
