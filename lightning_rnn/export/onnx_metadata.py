"""Metadata of exported ONNX files, and the digest that shows whether a file was changed."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from lightning_rnn.categories import Categories
from lightning_rnn.errors import check_types

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
            ValueError or TypeError: If it is damaged or does not fit the graph.
        """
        metadata = cls(**json.loads(text))
        check_types(cls, vars(metadata))
        feature_names = metadata.feature_names
        accepted = {
            "class_names": _are_names(metadata.class_names, num_classes),
            "feature_names": feature_names is None or _are_names(feature_names, num_features),
            "categories": metadata.categories.keys() <= set(feature_names or ()),
            "num_features": metadata.num_features == num_features,
            "missing_values": all(map(math.isfinite, metadata.missing_values)),
            "temperature": 0 < metadata.temperature < math.inf,
            "threshold": 0 <= metadata.threshold <= 1,
        }
        for words in metadata.categories.values():
            accepted["categories"] &= bool(words) and _are_names(words, len(words))
        for name, is_accepted in accepted.items():
            if not is_accepted:
                raise ValueError(f"the metadata {name} = {getattr(metadata, name)!r}"[:100])
        return metadata


def _are_names(value: list[str], count: int) -> bool:
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return is_list and len(value) == count


def with_digest(model: bytes) -> bytes:
    """Append an entry of the metadata, in the format of protobuf, with the SHA-256 of a model."""
    digest = hashlib.sha256(model).hexdigest().encode()
    entry = b"\x0a" + bytes([len(DIGEST_KEY)]) + DIGEST_KEY + b"\x12" + bytes([64]) + digest
    return model + b"\x72" + bytes([len(entry)]) + entry  # field 14: metadata_props


def has_valid_digest(content: bytes) -> bool:
    """Return whether a file ends with the digest of all that comes before it."""
    size = len(with_digest(b""))
    return with_digest(content[:-size]) == content
