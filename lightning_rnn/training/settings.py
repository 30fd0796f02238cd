"""The settings of a run by name, those first that somebody has changed."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.training.classifier import SequenceClassifier

FROM_DATA = (
    *("input_size", "num_classes", "class_names", "feature_names", "step_names"),
    *("missing_values", "memory_span"),
)
LEFT_OUT = ("categories", "data/categories")  # may be thousands


def settings_of(classifier: Any, data: SequenceDataModule | None) -> dict[str, Any]:
    """Return the settings of a model and its data (`data/...`) in the order of `changed_first`."""
    model_settings = {k: v for k, v in classifier.hparams.items() if not k.startswith("_")}
    if data is None:
        return changed_first(model_settings, {}, None)
    return changed_first(model_settings, data.settings, type(data))


def changed_first(
    model_settings: Mapping[str, Any], data_settings: Mapping[str, Any], data_class: type | None
) -> dict[str, Any]:
    """Return settings that are not the default, then the others, then what the data determine."""
    cell = model_settings.get("cell", "rnn")
    defaults = dict(SequenceClassifier(cell=cell).hparams) | {"cell": "rnn"}
    if data_class is not None:
        for name, parameter in signature(data_class).parameters.items():
            defaults[f"data/{name}"] = parameter.default
    settings = dict(model_settings)
    settings |= {f"data/{name}": value for name, value in data_settings.items()}

    def place(name: str) -> int:
        if name in FROM_DATA:
            return 2
        return int(settings[name] == defaults.get(name))

    return {name: settings[name] for name in sorted(settings, key=place) if name not in LEFT_OUT}
