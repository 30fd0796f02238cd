"""Starting to train from the weights of another model."""

from collections.abc import Mapping, Set
from dataclasses import fields
from inspect import signature
from typing import Any

from torch import Tensor

from lightning_rnn.data.readers.contents import join_names
from lightning_rnn.errors import OptionError, check, counted
from lightning_rnn.models.network import HEADS, NetworkOptions
from lightning_rnn.training.classifier import SequenceClassifier

# arguments that decide which weights there are, and what they do
ARCHITECTURE = {field.name for field in fields(NetworkOptions)}
ARCHITECTURE -= {"dropout", "initialization", "memory_span"}


def architecture(settings: Mapping[str, Any]) -> Set[str]:
    """Return the settings that belong to the weights; all those of a subclass's own do."""
    own = settings.keys() - signature(SequenceClassifier).parameters.keys()
    return own | (ARCHITECTURE & settings.keys())


def take_weights(
    model: Any,
    weights: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    *,
    option: str,
    source: str,
) -> list[str]:
    """Copy weights and statistics into a model with the same architecture.

    The temperature and the threshold stay those of a new model, and so do the heads if the classes
    are others. The statistics of the features are replaced when training starts, unless the model
    is frozen.

    Args:
        model: A `SequenceClassifier` of known sizes.
        weights: State of the other model.
        settings: Hyper-parameters of the other model, whose architecture and features must match.
        option: Argument that asks for the weights, for error messages.
        source: Where they come from, for error messages.

    Returns:
        The classes of the other model if they are not those of the model; else an empty list.
    """
    for name in sorted(architecture(settings)):
        is_same = model.hparams[name] == settings[name]
        check(is_same, name, model.hparams[name], f"{settings[name]!r} as in {source}")
    num_features = model.schema.num_features
    if num_features != settings["input_size"]:
        message = f"expected weights for {counted(num_features, 'feature')}, as the data have"
        raise OptionError(f"{message}, got {source} for {settings['input_size']}", name=option)
    for words, attribute in (("features", "feature_names"), ("time steps", "step_names")):
        of_data: Any = getattr(model.schema, attribute)
        of_weights: Any = settings.get(attribute)
        if None not in (of_data, of_weights) and of_data != of_weights:
            message = f"expected weights for the {words} {join_names(of_data)} of the data"
            message += f", got {source} for {join_names(of_weights)}"
            if sorted(of_data) == sorted(of_weights):
                message += "; feature_columns chooses the order"
            raise OptionError(message, name=option)
    known = settings.get("categories") or {}
    for feature in known | model.schema.categories:
        words = model.schema.categories.get(feature, [])
        if words != known.get(feature, []):
            message = f"expected weights for the categories ({join_names(words)}) of {feature!r}"
            message += f", got {source} for ({join_names(known.get(feature, []))})"
            raise OptionError(message, name=option)
    classes: list[str] = settings.get("class_names") or []
    other_parts = ["decision"]
    if classes != model.class_names:
        other_parts += HEADS
    taken = {}
    for name, value in weights.items():
        owner, _, rest = name.partition(".")
        if owner == "network" and rest.partition(".")[0] not in other_parts:
            taken[name] = value
    model.load_state_dict(taken, strict=False)
    if classes == model.class_names:
        return []
    return classes
