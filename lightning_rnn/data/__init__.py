"""Sequence storage, synthetic tasks, file readers, batching and the data modules."""

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.file_module import FileDataModule
from lightning_rnn.data.synthetic_module import SyntheticDataModule

# the names by which checkpoints speak of a data module: never a class path
DATA_MODULES: dict[str, type[SequenceDataModule]] = {
    "SyntheticDataModule": SyntheticDataModule,
    "FileDataModule": FileDataModule,
}
