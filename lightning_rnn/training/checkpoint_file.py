"""Reading and checking one checkpoint file, which may come from anywhere."""

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_rnn.atomic_files import sha256
from lightning_rnn.categories import join_classes
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.errors import WARM_START, CheckpointError, OptionError, user_error
from lightning_rnn.models.network import NetworkOptions
from lightning_rnn.training.checkpoint_archive import check_archive
from lightning_rnn.training.checkpoint_schema import check_entries, check_loops, check_resumable
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.warm_start import architecture, take_weights

SIZES_AND_NAMES = (
    "input_size",
    "num_classes",
    "class_names",
    "feature_names",
    "step_names",
    "missing_values",
    "categories",
)
WORDS = {  # what has to be the same in the data, in messages and in the order of comparison
    "class_names": "classes",
    "feature_names": "features",
    "step_names": "time steps",
    "categories": "categories",
    "input_size": "number of features",
}
MAX_TEXT = 1000  # characters of a list of names in a message
REQUIRED_ENTRIES = {
    "pytorch-lightning_version": str,
    "hyper_parameters": dict,
    "state_dict": dict,
    "global_step": int,
    "model_class": str,
}
ModelClass = type[SequenceClassifier]


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint that has been read and checked."""

    path: Path
    content: dict[str, Any]  # see `load_checkpoint`
    data_class: str | None  # a name in `DATA_MODULES`; None for a class of the user's own
    checksum: str  # SHA-256 of the file; a run that goes on may replace the file

    @classmethod
    def read(cls, path: Path, model_class: ModelClass = SequenceClassifier) -> "CheckpointFile":
        """Read a checkpoint; see `load_checkpoint`."""
        path = path.expanduser()
        checksum = sha256(path) if path.is_file() else ""
        content = load_checkpoint(path, model_class)
        data_class = next((name for name in DATA_MODULES if name in content), None)
        return cls(path.absolute(), content, data_class, checksum)

    @property
    def step(self) -> int:
        """Number of optimizer steps that the run had done."""
        return int(self.content["global_step"])

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Arguments of the `SequenceClassifier`."""
        return dict(self.content["hyper_parameters"])

    @property
    def data_settings(self) -> dict[str, Any]:
        """Arguments of the data module; empty for a class of the user's own."""
        return dict(self._data_state.get("settings", {}))

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the splits of the data module; empty for a class of the user's own."""
        return dict(self._data_state.get("fingerprints", {}))

    @property
    def _data_state(self) -> dict[str, Any]:
        return dict(self.content.get(str(self.data_class), {}))

    @property
    def is_in_run_folder(self) -> bool:
        """Whether the file lies in the `checkpoints` folder of a run."""
        return self.path.parent.name == "checkpoints"

    @property
    def run_folder(self) -> Path:
        """Folder of the run; the folder of the file if it belongs to no run."""
        return self.path.parent.parent if self.is_in_run_folder else self.path.parent

    def restore(self, model: SequenceClassifier) -> None:
        """Load the weights into a model; a CheckpointError if they do not fit."""
        for name, words in WORDS.items():
            stored = self.hyper_parameters.get(name)
            got = model.hparams[name]
            if None not in (stored, got) and stored != got:
                difference = f"{str(stored)[:MAX_TEXT]}, got {str(got)[:MAX_TEXT]}"
                message = f"expected data with the {words} {difference}; {WARM_START}"
                raise CheckpointError(f"{self.path}: {message}")
        try:
            own_weights = model.state_dict()
            for name, value in self.content["state_dict"].items():
                own = own_weights.get(name, value)
                if value.is_floating_point() != own.is_floating_point():  # torch would convert it
                    raise TypeError(f"{name}: {value.dtype}")
            model.load_state_dict(self.content["state_dict"])
        except Exception as error:  # depends on what is in the file
            reason = str(error).strip().rpartition("\n")[2].strip()
            message = f"{self.path}: expected weights of this model, got others ({reason[:200]})"
            raise CheckpointError(message) from None

    def check_state(self, trainer: Trainer, model: SequenceClassifier, *, resumes: bool) -> None:
        """Raise a CheckpointError if a Trainer could not restore its state.

        An OptionError is raised for an option that the restored state would override.
        """
        check_loops(self.path, self.content, trainer)
        names = {"class_weights", "pos_weight"}
        if resumes:
            check_resumable(self.path, self.content, model)
            names.add("optimizer")
        self._compare(names, dict(model.hparams), self.hyper_parameters)

    def start(self, model: SequenceClassifier) -> str:
        """Load the weights into a model for other data, and describe what has been taken."""
        others = take_weights(
            model,
            self.content["state_dict"],
            self.hyper_parameters,
            option="init_from",
            source=str(self.path),
        )
        text = f"initial weights: {self.path}, step {self.step}"
        if others:
            classes = join_classes(model.class_names)
            text += f"; new head for the classes {classes} (checkpoint: {join_classes(others)})"
        return text

    def check_model(self, settings: dict[str, Any]) -> None:
        """Raise an OptionError if arguments for `SequenceClassifier` describe another network."""
        names = {*SIZES_AND_NAMES, *(field.name for field in fields(NetworkOptions))}
        names |= architecture(self.hyper_parameters)
        chosen = {name: value for name, value in settings.items() if value is not None}
        self._compare(names, chosen, self.hyper_parameters)

    def check_data(self, class_name: str, settings: dict[str, Any], *, resumes: bool) -> None:
        """Raise an OptionError if a data module with these settings has other data.

        To continue training (`resumes`), the data must be the same; an evaluation needs only the
        same split, and may use another class. The content of files is compared when they are read.
        """
        if resumes:
            if class_name not in self.content:
                stored = self.data_class or "the class that it was trained with"
                hint = f"; {WARM_START}"
                self._compare({"data"}, {"data": class_name}, {"data": stored}, hint)
            free = ("_path", "on_device", "max_cells")
            names = {name for name in self.data_settings if not name.endswith(free)}
            self._compare(names, settings, self.data_settings, f"; {WARM_START}")
        elif class_name == self.data_class:
            names = set(DATA_MODULES[class_name].identity_settings)
            hint = "; allow_data_change=True accepts the difference"
            self._compare(names, settings, self.data_settings, hint)

    def _compare(
        self, names: set[str], settings: dict[str, Any], stored: dict[str, Any], hint: str = ""
    ) -> None:
        for name in sorted(names & settings.keys() & stored.keys()):
            if settings[name] != stored[name]:
                message = f"expected {stored[name]!r} as in {self.path}, got {settings[name]!r}"
                raise OptionError(message + hint, name=name)


def load_checkpoint(path: Path, model_class: ModelClass = SequenceClassifier) -> dict[str, Any]:
    """Load a checkpoint of a class without executing or importing anything that it contains.

    Hyper-parameters and data settings are arguments of classes of this package, with values that
    JSON can hold.

    Raises:
        CheckpointError: If the file is missing, damaged, or no checkpoint of this package.
        OptionError: If the model is of another class.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        if path.is_symlink() and not path.exists():
            got = "a broken link"
        raise CheckpointError(f"{path}: expected a checkpoint file, got {got}")
    try:
        check_archive(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, depending on the damage
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:80]}"
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason})") from None
    for name, kind in REQUIRED_ENTRIES.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            raise CheckpointError(f"{path}: expected a checkpoint of this package, got no {name}")
    check_entries(path, content)
    stored = content["model_class"][:60]
    if stored != model_class.__name__:
        message = f"expected the class {stored!r}, with which {path} was trained"
        raise OptionError(f"{message}, got {model_class.__name__}", name="model")
    _check_arguments(path, "hyper_parameters", content["hyper_parameters"], model_class)
    _check_weights(path, content["hyper_parameters"], content["state_dict"], model_class)
    for name, data_class in DATA_MODULES.items():
        if name in content:
            entry = content[name]
            settings = entry.get("settings") if isinstance(entry, dict) else None
            _check_arguments(path, name, settings, data_class)
    return dict(content)


def _check_arguments(path: Path, entry: str, settings: Any, owner: type) -> None:
    """Refuse anything but plain values by argument name: nothing else may reach the parser."""
    where = f"{path}: {entry}"
    if not isinstance(settings, dict):
        got = type(settings).__name__
        raise CheckpointError(f"{where}: expected settings by name, got {got}")
    accepted: set[str] = set()
    for base in inspect.getmro(owner):  # arguments of a subclass may be passed on as **options
        if issubclass(base, SequenceClassifier | SequenceDataModule):
            accepted |= inspect.signature(base).parameters.keys()
    for name, value in settings.items():
        if name not in accepted:
            message = f"{where}: expected arguments of {owner.__name__}, got {name!r}"
            raise CheckpointError(message)
        items = value if isinstance(value, list) else [value]
        if name == "categories" and isinstance(value, dict):
            items = list(value)
            for words in value.values():
                items += words if isinstance(words, list) else [words]
        for item in items:
            if item is not None and type(item) not in (bool, int, float, str):
                got = type(item).__name__
                raise CheckpointError(f"{where}.{name}: expected a plain value, got {got}")


def _check_weights(
    path: Path, settings: dict[str, Any], state_dict: dict[str, Any], model_class: ModelClass
) -> None:
    """Compare the weights with those of the model, without allocating memory for the model."""
    layers = settings.get("num_layers", 1)
    if isinstance(layers, int) and layers > len(state_dict):  # building them could take forever
        raise CheckpointError(f"{path}: expected weights of {layers} layers, got fewer")
    try:
        with torch.device("meta"):
            model = model_class(**settings)
        expected = {name: value.shape for name, value in model.state_dict().items()}
        got = {name: value.shape for name, value in state_dict.items()}
    except Exception as error:  # depends on what is in the file
        message = f"{path}: its hyper_parameters describe no model ({str(error)[:120]!r})"
        raise user_error(error) or CheckpointError(message) from None
    different = [key for key in {*expected, *got} if expected.get(key) != got.get(key)]
    if different:
        first = min(map(str, different))
        raise CheckpointError(f"{path}: expected weights of this model, got others ({first})")
