"""Metadata of exported ONNX files, and the digest that shows whether a file was changed."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_rnn.categories import Categories

METADATA_KEY = "lightning_rnn"  # entry of the ONNX file's metadata that holds our JSON
DIGEST_KEY = b"lightning_rnn_sha256"  # the last entry


@dataclass(frozen=True)
class Metadata:
    """What an exported file says about itself; see `OnnxClassifier`."""

    version: str
    class_names: list[str]
    feature_names: list[str] | None
    categories: Categories
    num_features: int
    missing_values: list[float]
    temperature: float
    threshold: float
    streaming: bool

    def to_json(self) -> str:
        """Return the text of the entry `METADATA_KEY`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, *, num_features: int, num_classes: int) -> "Metadata":
        """Read the entry of a graph for so many features F and classes K.

        Raises:
            ValueError: If it is damaged or does not fit the graph.
        """
        content = json.loads(text)
        names = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or content.keys() != names:
            raise ValueError(f"metadata other than {sorted(names)}")
        metadata = cls(**content)
        accepted = {
            "version": isinstance(metadata.version, str),
            "class_names": _are_names(metadata.class_names, num_classes),
            "feature_names": metadata.feature_names is None
            or _are_names(metadata.feature_names, num_features),
            "categories": _are_categories(metadata.categories, metadata.feature_names),
            "num_features": metadata.num_features == num_features,
            "missing_values": isinstance(metadata.missing_values, list)
            and all(map(_is_number, metadata.missing_values)),
            "temperature": _is_number(metadata.temperature) and metadata.temperature > 0,
            "threshold": _is_number(metadata.threshold) and 0 <= metadata.threshold <= 1,
            "streaming": isinstance(metadata.streaming, bool),
        }
        for name, is_accepted in accepted.items():
            if not is_accepted:
                raise ValueError(f"the metadata {name} = {content[name]!r}"[:100])
        return metadata


def _are_names(value: Any, count: int) -> bool:
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return is_list and len(value) == count


def _are_categories(value: Any, feature_names: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= set(feature_names or ()):
        return False
    lists = [words for words in value.values() if isinstance(words, list) and words]
    return len(lists) == len(value) and all(_are_names(words, len(words)) for words in lists)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def with_digest(model: bytes) -> bytes:
    """Append an entry of the metadata, in the format of protobuf, with the SHA-256 of a model."""
    digest = hashlib.sha256(model).hexdigest().encode()
    entry = b"\x0a" + bytes([len(DIGEST_KEY)]) + DIGEST_KEY + b"\x12" + bytes([64]) + digest
    return model + b"\x72" + bytes([len(entry)]) + entry  # field 14: metadata_props


def has_valid_digest(content: bytes) -> bool:
    """Return whether a file ends with the digest of all that comes before it."""
    size = len(with_digest(b""))
    return with_digest(content[:-size]) == content
