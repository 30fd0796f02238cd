"""Copies of data splits on the accelerator."""

import torch

from lightning_rnn.data.sequences import Sequences

BYTES_PER_VALUE = 4
MIN_FREE_RATIO = 4  # free memory of a GPU, relative to a split that is copied to it unasked


class DeviceCache:
    """Copies each split of a data module to the accelerator once.

    Args:
        on_device: Whether to copy; None to copy to a GPU with at least four times the memory free.
    """

    def __init__(self, on_device: bool | None) -> None:
        self.on_device = on_device
        self._copies: dict[str, tuple[Sequences, Sequences]] = {}  # original and copy

    def place(self, name: str, sequences: Sequences, device: torch.device) -> Sequences:
        """Return the copy on the device, or the original if it is not to be copied.

        Args:
            name: Name of the split; its previous copy is dropped if the sequences are others.
            sequences: The split.
            device: Device of the model.
        """
        if device.type == "cpu" or self.on_device is False:
            return sequences
        original, copy = self._copies.get(name, (None, sequences))
        if original is not sequences:
            copy = sequences
            if self.on_device or _fits(sequences, device):
                copy = sequences.to(device)
            self._copies[name] = (sequences, copy)
        return copy


def _fits(sequences: Sequences, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    size = int(sequences.lengths.sum()) * sequences.num_features * BYTES_PER_VALUE
    free, _ = torch.cuda.mem_get_info(device)
    return size * MIN_FREE_RATIO <= free
