"""The settings of a run by name; those that are not the default come first."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from lightning_rnn.data import DATA_MODULES
from lightning_rnn.training.checkpoint_file import SIZES_AND_NAMES
from lightning_rnn.training.classifier import SequenceClassifier

FROM_DATA = (*SIZES_AND_NAMES, "memory_span")
LEFT_OUT = ("_instantiator", "categories", "data/categories")  # of which there may be thousands


def changed_first(
    model_settings: Mapping[str, Any], data_settings: Mapping[str, Any], data_class: Any
) -> tuple[dict[str, Any], int]:
    """Return the settings in order, and how many of them are not the default.

    Those that are not the default come first, those that the data determine last.
    """
    cell = model_settings.get("cell", "rnn")
    defaults = dict(SequenceClassifier(cell=cell).hparams) | {"cell": "rnn"}
    for name, parameter in signature(data_class.__init__).parameters.items():
        defaults[f"data/{name}"] = parameter.default
    settings = dict(model_settings)
    settings |= {f"data/{name}": value for name, value in data_settings.items()}
    changed: dict[str, Any] = {}
    unchanged: dict[str, Any] = {}
    from_data: dict[str, Any] = {}
    for name, value in settings.items():
        if name in LEFT_OUT:
            continue
        if name in FROM_DATA:
            from_data[name] = value
        elif repr(value) != repr(defaults.get(name)):  # arrays have no ==
            changed[name] = value
        else:
            unchanged[name] = value
    return changed | unchanged | from_data, len(changed)


def own_classes(model: Any, data: Any) -> str:
    """Return the options that name classes of the user's own, each after a space."""
    text = ""
    if type(model) is not SequenceClassifier:
        text += f" --model {type(model).__module__}.{type(model).__name__}"
    if data is not None and type(data) not in DATA_MODULES.values():
        text += f" --data {type(data).__module__}.{type(data).__name__}"
    return text
