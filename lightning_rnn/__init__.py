"""Recurrent sequence classifiers with PyTorch Lightning: trained, watched, judged and shipped.

Dimension letters, used throughout: `B` batch, `T` time steps, `F` features per step, `H` hidden size, `K` classes,
`N` sequences in a data set, `D` directions (1 or 2).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_rnn.data.base_module import SequenceDataModule
    from lightning_rnn.data.file_module import FileDataModule
    from lightning_rnn.data.readers import ReadOptions, read_file
    from lightning_rnn.data.sequences import SequenceBatch, Sequences
    from lightning_rnn.data.synthetic_module import SyntheticDataModule
    from lightning_rnn.estimator import RecurrentClassifier
    from lightning_rnn.export.onnx_classifier import OnnxClassifier
    from lightning_rnn.export.onnx_export import export_onnx
    from lightning_rnn.export.streaming import StreamingClassifier
    from lightning_rnn.models.network import SequenceNetwork
    from lightning_rnn.training.classifier import SequenceClassifier
    from lightning_rnn.training.early_stopping import EarlyStopping

__version__ = "0.2.0"
__all__ = [
    "EarlyStopping",
    "FileDataModule",
    "OnnxClassifier",
    "ReadOptions",
    "RecurrentClassifier",
    "SequenceBatch",
    "SequenceClassifier",
    "SequenceDataModule",
    "SequenceNetwork",
    "Sequences",
    "StreamingClassifier",
    "SyntheticDataModule",
    "export_onnx",
    "read_file",
]

_MODULE_OF = {
    "EarlyStopping": "training.early_stopping",
    "FileDataModule": "data.file_module",
    "OnnxClassifier": "export.onnx_classifier",
    "ReadOptions": "data.readers",
    "RecurrentClassifier": "estimator",
    "SequenceBatch": "data.sequences",
    "SequenceClassifier": "training.classifier",
    "SequenceDataModule": "data.base_module",
    "SequenceNetwork": "models.network",
    "Sequences": "data.sequences",
    "StreamingClassifier": "export.streaming",
    "SyntheticDataModule": "data.synthetic_module",
    "export_onnx": "export.onnx_export",
    "read_file": "data.readers",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that importing the package alone needs no torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
