"""Defaults of the options: those of a preset, and of the checkpoint that a command uses."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lightning_rnn.cli.quick_answers import OptionTable, flatten
from lightning_rnn.cli.request import Request, find_model_class
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.errors import OptionError
from lightning_rnn.training.checkpoint_file import SIZES_AND_NAMES, CheckpointFile
from lightning_rnn.training.presets import CONFIG_OF, data_of_preset, read_preset
from lightning_rnn.training.warm_start import architecture

TRAINER_DEFAULTS: dict[str, Any] = {
    "log_every_n_steps": 10,
    "enable_model_summary": False,  # EpochLines prints the number of parameters
    "enable_autolog_hparams": False,  # HyperParameters logs them together with the metrics
    "check_val_every_n_epoch": None,  # ValidationInterval chooses
    "num_sanity_val_steps": 0,  # the first validation comes soon enough
    "use_distributed_sampler": False,  # the loaders know their rank
}
DEFAULT_DATA = "SyntheticDataModule"


def set_defaults(
    parser: LightningArgumentParser,
    request: Request,
    run: CheckpointFile | None,
    initial: CheckpointFile | None,
) -> str | None:
    """Set defaults of options of model, data and Trainer; return the name of the preset, for fit.

    `run` is the checkpoint to evaluate or to continue, `initial` that whose weights a run starts
    with.
    """
    defaults = {f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()}
    parser.set_defaults(defaults)
    model: dict[str, Any] = {}
    preset_name = None
    if request.command == "fit":
        preset_name = _preset_name(request, run or initial)
        preset = read_preset(preset_name)
        parser.set_defaults({"preset": preset_name})
        _set_defaults_of_preset(parser, request, preset)
        model = preset["model"]
    elif request.data_class in (None, *DATA_MODULES):
        parser.set_defaults({"data": {"class_path": request.data_class or DEFAULT_DATA}})
    if run is not None:
        names = set(run.hyper_parameters)
        if request.command == "fit":
            names -= set(SIZES_AND_NAMES)  # it takes them from the data module
        model |= {name: run.hyper_parameters[name] for name in names}
        if request.data_class in (None, run.data_class):
            _set_defaults_of_data(parser, run)
    if initial is not None:
        settings = initial.hyper_parameters
        model |= {name: settings[name] for name in architecture(settings)}
        if request.data_class is None:
            _set_defaults_of_data(parser, initial)
    if request.model_class is None:
        parser.set_defaults({f"model.{name}": value for name, value in model.items()})
    else:
        find_model_class(request.model_class)  # refuses what is none
        parser.set_defaults({"model": {"class_path": request.model_class, "init_args": model}})
    return preset_name


def _preset_name(request: Request, checkpoint: CheckpointFile | None) -> str:
    if request.preset in CONFIG_OF:
        return str(request.preset)
    data_class = request.data_class
    if data_class is None and checkpoint is not None:
        data_class = checkpoint.data_class
    return "tutorial" if data_class in (None, DEFAULT_DATA) else "files"


def _set_defaults_of_preset(
    parser: LightningArgumentParser, request: Request, preset: dict[str, Any]
) -> None:
    """Set all defaults of a preset but those of the model."""
    defaults: dict[str, Any] = {}
    for name, value in flatten(preset, OptionTable.read()):
        if name.partition(".")[0] not in ("model", "data"):
            defaults[name] = value
    if request.has_max_epochs:  # the user has chosen how long to train
        defaults.pop("trainer.max_steps", None)
    data_class = request.data_class or DEFAULT_DATA
    if data_class in DATA_MODULES:
        defaults["data"] = data_of_preset(preset, data_class)
    parser.set_defaults(defaults)


def _set_defaults_of_data(parser: LightningArgumentParser, checkpoint: CheckpointFile) -> None:
    if checkpoint.data_class is None:
        message = f"expected the data module, as that of {checkpoint.path} is a class of your own"
        raise OptionError(f"{message}, got none", name="--data")
    settings = {"class_path": checkpoint.data_class, "init_args": checkpoint.data_settings}
    parser.set_defaults({"data": settings})
