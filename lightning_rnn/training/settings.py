"""The settings of a run by name, those first that somebody has changed."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from lightning_rnn.training.classifier import SequenceClassifier

FROM_DATA = (
    *("input_size", "num_classes", "class_names", "feature_names", "step_names"),
    *("missing_values", "memory_span"),
)
LEFT_OUT = ("_instantiator", "categories", "data/categories")  # of which there may be thousands


def changed_first(
    model_settings: Mapping[str, Any], data_settings: Mapping[str, Any], data_class: Any
) -> tuple[dict[str, Any], int]:
    """Return settings that are not the default, then the others, then what the data determine.

    The number is that of settings which are not the default.
    """
    cell = model_settings.get("cell", "rnn")
    defaults = dict(SequenceClassifier(cell=cell).hparams) | {"cell": "rnn"}
    for name, parameter in signature(data_class.__init__).parameters.items():
        defaults[f"data/{name}"] = parameter.default
    settings = dict(model_settings)
    settings |= {f"data/{name}": value for name, value in data_settings.items()}

    def place(name: str) -> int:
        if name in FROM_DATA:
            return 2
        return int(repr(settings[name]) == repr(defaults.get(name)))  # arrays have no ==

    names = [name for name in sorted(settings, key=place) if name not in LEFT_OUT]
    return {name: settings[name] for name in names}, sum(place(name) == 0 for name in names)
