"""Recurrent sequence classifiers with PyTorch Lightning.

Dimension letters in all docstrings: `B` sequences in a batch, `T` time steps, `F` features per
step, `H` hidden size, `K` classes, `N` sequences in a data set, `D` directions (1 or 2).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_rnn.data.base_module import SequenceDataModule as SequenceDataModule
    from lightning_rnn.data.file_module import FileDataModule as FileDataModule
    from lightning_rnn.data.readers import ReadOptions as ReadOptions
    from lightning_rnn.data.readers import read_file as read_file
    from lightning_rnn.data.sequences import SequenceBatch as SequenceBatch
    from lightning_rnn.data.sequences import Sequences as Sequences
    from lightning_rnn.data.synthetic_module import SyntheticDataModule as SyntheticDataModule
    from lightning_rnn.estimator import RecurrentClassifier as RecurrentClassifier
    from lightning_rnn.export.onnx_classifier import OnnxClassifier as OnnxClassifier
    from lightning_rnn.export.onnx_export import export_onnx as export_onnx
    from lightning_rnn.export.streaming import StreamingClassifier as StreamingClassifier
    from lightning_rnn.models.network import SequenceNetwork as SequenceNetwork
    from lightning_rnn.training.classifier import SequenceClassifier as SequenceClassifier
    from lightning_rnn.training.early_stopping import EarlyStopping as EarlyStopping

__version__ = "0.2.0"

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
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import on first use, so that importing the package alone needs no torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
