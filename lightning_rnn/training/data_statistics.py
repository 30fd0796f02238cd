"""What a model takes from its training data: sizes, names, moments and class frequencies."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import pad

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.errors import DataError, OptionError, check
from lightning_rnn.models.initialization import UNKNOWN_SPAN
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.padding import Padding

MAX_DIFFERENCE = 1e-3  # of features, from rounding


def sequence_data(trainer: Trainer) -> SequenceDataModule | None:
    """Return the data module of a run, if it is one of this package."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, SequenceDataModule) else None


def schema_of(trainer: Trainer, given: Mapping[str, Any]) -> Schema:
    """Return the sizes and names of a run's data, attributes of the data module.

    The arguments `given` to the model must agree with the data where they are not None.
    """
    data = getattr(trainer, "datamodule", None)
    found: dict[str, Any] = {"input_size": getattr(data, "num_features", None)}
    for name in ("num_classes", "class_names", "feature_names", "step_names", "categories"):
        found[name] = getattr(data, name, None)
    if None in (found["input_size"], found["num_classes"]):
        raise OptionError(
            "pass input_size and num_classes to SequenceClassifier: there is no data module with "
            "the attributes num_features and num_classes"
        )
    class_names = found["class_names"] or [str(code) for code in range(found["num_classes"])]
    found["class_names"] = list(class_names)
    for name, value in found.items():
        found[name] = value or given[name]
        is_same = given[name] in (None, found[name])
        check(is_same, name, given[name], f"{found[name]}, as the data have")
    return Schema(
        num_features=found["input_size"],
        class_names=found["class_names"],
        feature_names=found["feature_names"],
        step_names=found["step_names"],
        categories=found["categories"] or {},
    )


def prepare_for_data(model: Any, trainer: Trainer) -> None:
    """Give a model that is to be trained what it takes from the training data.

    Raises:
        OptionError: If the data module lacks class frequencies that are needed, there are weights
            for another number of sequences, or the model has no weights to be frozen.
    """
    data = sequence_data(trainer)
    network: SequenceNetwork = model.network
    if model.hparams["memory_span"] is None:
        train = None if data is None else data.split("train")
        span = UNKNOWN_SPAN if train is None else int(train.lengths.max())
        model.hparams["memory_span"] = span
        network.set_memory_span(span)
    if model.hparams["freeze"]:
        is_trained = network.preprocess.is_fitted or trainer.ckpt_path is not None
        check(is_trained, "freeze", True, "False for a model without trained weights")
        network.freeze()
    elif data is not None:
        network.preprocess.set_moments(*data.train_moments)
    if data is not None:
        if model.sequence_weights is not None:
            num_weights = len(model.sequence_weights)
            is_fitting = num_weights == len(data.split("train") or ())
            check(is_fitting, "sequence_weights", num_weights, "one for each training sequence")
        check_encoder(network, data)
        network.preprocess.missing_values = data.missing_values
        model.hparams["missing_values"] = data.missing_values
    if model.hparams["class_weights"] == "balanced":
        model.class_weight.copy_(balanced_class_weights(data))


def check_schema(schema: Schema, trainer: Trainer) -> None:
    """Check that a model has the sizes and names of its data, as far as they are known."""
    data = getattr(trainer, "datamodule", None)
    known = vars(schema) | {"num_classes": len(schema.class_names)}
    if schema.class_names == [str(code) for code in range(len(schema.class_names))]:
        del known["class_names"]  # the default, which stands for any names
    for attribute, value in known.items():
        expected = getattr(data, attribute, value)
        name = attribute.replace("num_features", "input_size")
        expected = list(expected) if isinstance(expected, tuple) else expected
        is_same = None in (value, expected) or value == expected
        check(is_same, name, value, f"{expected}, as the data have")


def balanced_class_weights(data: SequenceDataModule | None) -> Tensor:
    """Return (K,) weights that are inversely proportional to the class frequencies.

    Class k of n_k among N training sequences has weight N / (K n_k), as in scikit-learn.
    """
    if data is None:
        message = "balanced needs a data module that counts the classes; pass a list of weights"
        raise OptionError(message, name="class_weights")
    counts: Tensor = data.train_class_counts.float()
    weights: Tensor = counts.sum() / (len(counts) * counts.clamp(min=1))
    return weights.to(torch.float32)


@torch.no_grad()
def check_encoder(network: SequenceNetwork, data: SequenceDataModule) -> None:
    """Refuse an encoder whose output depends on padding or on other sequences of the batch."""
    sequences = data.split("train")
    if network.encoder is None or sequences is None:
        return
    batch = sequences.batch(torch.arange(min(4, len(sequences)))).to(network.head.weight.device)
    network.eval()
    features = network.embed(batch.x, batch.padding)
    shape = tuple(getattr(features, "shape", ()))
    is_right = len(shape) == 2 and (network.stem is not None or shape[1] == network.pooled_size)
    expected = f"a module with an output (B, output_size) = (B, {network.pooled_size})"
    check(is_right, "make_encoder", shape or type(features).__name__, expected)
    wider = pad(batch.x, (0, 0, 0, 3))
    alone = []
    for x, length in zip(wider, batch.lengths, strict=True):
        alone.append(network.embed(x[None], Padding(length[None])))
    network.train()
    difference = float((torch.cat(alone) - features).abs().max())
    if not difference < MAX_DIFFERENCE:
        expected = "a module whose output for a sequence depends neither on zeros appended to x"
        expected += " nor on the other sequences of the batch"
        message = f"expected {expected}, got a difference of {difference:.2g}"
        raise OptionError(message, name="make_encoder")


def check_batch(batch: object) -> None:
    """Refuse batches of other loaders, such as pairs (x, y)."""
    if not isinstance(batch, SequenceBatch):
        expected = "a SequenceBatch, as of Sequences.batch or the loaders of a SequenceDataModule"
        raise DataError(f"batch: expected {expected}, got {type(batch).__name__}")


def labels_of(batch: SequenceBatch) -> Tensor:
    """Return the labels (B,) of a batch."""
    check_batch(batch)
    if batch.y is None:
        raise DataError("expected labelled sequences for training and evaluation, got none")
    return batch.y
