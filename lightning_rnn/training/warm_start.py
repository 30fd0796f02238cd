"""Starting to train from the weights of another model."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_rnn.data.readers.contents import join_names
from lightning_rnn.errors import OptionError
from lightning_rnn.models.network import HEADS


def take_weights(
    model: Any, weights: Mapping[str, Tensor], settings: Mapping[str, Any], source: str
) -> list[str]:
    """Copy weights and statistics into a model with the same architecture.

    The temperature and the threshold stay those of a new model, and so do the heads if the classes
    are others. The statistics of the features are replaced when training starts, unless the model
    is frozen.

    Args:
        model: A `SequenceClassifier` of known sizes.
        weights: State of the other model.
        settings: Hyper-parameters of the other model.
        source: Where the weights come from, for error messages.

    Returns:
        The classes of the other model if they are not those of the model; else an empty list.

    Raises:
        OptionError: If the features or the time steps are others.
    """
    _check_same("features", model.schema.num_features, settings["input_size"], source)
    for words, attribute in (("features", "feature_names"), ("time steps", "step_names")):
        _check_same(words, getattr(model.schema, attribute), settings.get(attribute), source)
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


def _check_same(words: str, of_data: Any, of_weights: Any, source: str) -> None:
    """Compare numbers or names; those that one side does not know are accepted."""
    if None in (of_data, of_weights) or of_data == of_weights:
        return
    if isinstance(of_data, int):
        message = f"expected weights for {of_data} {words}, as the data have"
        raise OptionError(f"{message}, got {source} for {of_weights}", name="init_from")
    message = f"expected weights for the {words} {join_names(of_data)} of the data"
    message += f", got {source} for {join_names(of_weights)}"
    if sorted(of_data) == sorted(of_weights):
        message += "; feature_columns chooses the order"
    raise OptionError(message, name="init_from")
