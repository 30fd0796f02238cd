"""Checking that all ranks of a distributed run have the same data."""

import torch

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.distributed import gather_objects, is_distributed
from lightning_rnn.errors import DataError


def check_ranks(splits: list[Sequences]) -> None:
    """Raise a DataError if not all ranks have the same sequences and random state."""
    if not is_distributed():
        return
    fingerprints = [sequences.fingerprint() for sequences in splits]
    gathered = gather_objects([torch.get_rng_state().tolist(), *fingerprints])
    others = [rank for rank, found in enumerate(gathered) if found != gathered[0]]
    if others:
        expected = "the sequences and random state of rank 0"
        raise DataError(f"ranks {others}: expected {expected}, got others")
