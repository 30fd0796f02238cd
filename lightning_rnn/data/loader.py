"""Samplers, which choose the sequences of each batch, and the loader that assembles the batches.

Worker processes would only cost time: a batch of tensors in memory is assembled faster than sent.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_rnn.data.sequences import SequenceBatch, Sequences
from lightning_rnn.errors import DataError

MAX_EVAL_STEPS = 1 << 18  # B * T of an evaluation batch: fast, and small enough for any machine
MAX_EVAL_BATCH = 1024
MAX_POOL_BATCHES = 50  # global batches that are sorted by length together
MIN_POOLS = 4  # per epoch, so that batches mix differently in each
BYTES_PER_VALUE = 4
MIN_FREE_RATIO = 4  # free memory of a GPU, relative to sequences that are copied to it by default


def seeded_generator(*key: int) -> Generator:
    """Return a generator whose stream depends on the whole key and on nothing else."""
    # with the length in front, since a SeedSequence is the same for (0,) and (0, 0)
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFF_FFFF_FFFF_FFFF)


def fits_on_gpu(sequences: Sequences, device: torch.device) -> bool:
    """Return whether the device is a GPU whose free memory is four times that of the sequences."""
    if device.type != "cuda":
        return False
    size = int(sequences.lengths.sum()) * sequences.num_features * BYTES_PER_VALUE
    free, _ = torch.cuda.mem_get_info(device)
    return size * MIN_FREE_RATIO <= free


class TrainSampler:
    """Shuffled training batches, whose order is a function of seed and epoch.

    In each step the W ranks share a global batch of W * `batch_size` sequences. The last global
    batch of an epoch is smaller; it is cut to a multiple of W, or left out if it has less than W.

    With `buckets`, the shuffled sequences are divided into pools of up to 50 global batches (at
    least 4 pools), each pool is sorted by length and cut into batches, and these are shuffled.

    With `same_every_epoch`, each epoch has the order of the first one. `lengths` (N,) are the
    numbers of steps of the sequences.
    """

    def __init__(
        self,
        lengths: Tensor,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        same_every_epoch: bool = False,
        buckets: bool = False,
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.same_every_epoch = same_every_epoch
        self.has_fixed_length = bool((lengths == lengths[0]).all())
        self.buckets = buckets and not self.has_fixed_length
        self.epoch = 0

    @property
    def sampler(self) -> "TrainSampler":
        """This sampler; Lightning calls `set_epoch` of `loader.batch_sampler.sampler`."""
        return self

    def __len__(self) -> int:
        """Return the number of batches in an epoch on each rank."""
        num_sequences = max(len(self.lengths), self.world_size)
        num_full, rest = divmod(num_sequences, self.batch_size * self.world_size)
        return num_full + int(rest >= self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = epoch

    @property
    def data_epoch(self) -> int:
        """Epoch that determines the order and the data: always 0 with `same_every_epoch`."""
        return 0 if self.same_every_epoch else self.epoch

    def batches(self, skip: int) -> Iterator[Tensor]:
        """Yield this rank's share of each global batch, (B,) int64, without the first `skip`."""
        for positions in self._global_batches()[skip:]:
            share = len(positions) // self.world_size
            yield positions[self.rank : share * self.world_size : self.world_size]

    def padding(self) -> float:
        """Return the fraction of padding in an epoch's batches, as if one rank had them all."""
        if self.has_fixed_length:
            return 0.0
        batches = [self.lengths[positions] for positions in self._global_batches()]
        num_padded_steps = sum(int(lengths.max()) * len(lengths) for lengths in batches)
        return 1 - int(torch.cat(batches).sum()) / num_padded_steps

    def _global_batches(self) -> list[Tensor]:
        """Return the batches of all ranks together, in order."""
        generator = seeded_generator(self.seed, self.data_epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        if len(order) < self.world_size:  # repeat sequences, so that every rank has one
            order = order.repeat(self.world_size)[: self.world_size]
        size = self.batch_size * self.world_size
        batches = list(torch.split(order, size))[: len(self)]
        if not self.buckets:
            return batches
        num_full = len(self.lengths) // size  # a smaller last batch keeps its place and sequences
        pool_size = size * max(1, min(MAX_POOL_BATCHES, num_full // MIN_POOLS))
        sorted_batches: list[Tensor] = []
        for pool in torch.split(order[: num_full * size], pool_size):
            by_length = pool[self.lengths[pool].argsort(stable=True)]
            sorted_batches.extend(torch.split(by_length, size))
        shuffled = torch.randperm(num_full, generator=generator).tolist()
        return [sorted_batches[i] for i in shuffled] + batches[num_full:]


class EvalSampler:
    """Large evaluation batches of similar length that contain every sequence once.

    Rank r has batches r, r + W, ... A rank without a batch gets one of a single sequence, position
    -1, whose result is discarded. Batches have at least `batch_size` sequences, and up to 1024 if
    these have at most 2^18 steps. Other arguments are those of `TrainSampler`.
    """

    epoch = 0
    data_epoch = 0

    def __init__(
        self, lengths: Tensor, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        size = max(batch_size, min(MAX_EVAL_BATCH, MAX_EVAL_STEPS // int(lengths.max())))
        per_rank = -(-len(lengths) // world_size)  # rounded up; no rank is idle while one has all
        batches = torch.split(lengths.argsort(stable=True), min(size, per_rank))
        self.chunks = list(batches[rank::world_size]) or [torch.tensor([-1])]

    def __len__(self) -> int:
        """Return the number of batches on this rank, at least 1."""
        return len(self.chunks)

    def batches(self, skip: int) -> Iterator[Tensor]:
        """Yield the positions of each batch, (B,) int64, without the first `skip` batches."""
        yield from self.chunks[skip:]


class SequenceLoader:
    """Iterates over batches like a DataLoader, and can be resumed within an epoch.

    It is no DataLoader, so that Lightning does not replace the sampler, which knows its rank. An
    epoch has the sequences that `sequences_of` returns for it; by default `dataset`.
    """

    def __init__(
        self,
        dataset: Sequences,
        batch_sampler: TrainSampler | EvalSampler,
        sequences_of: Callable[[int], Sequences] | None = None,
        order: str = "",
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        self.position = 0  # batches of the epoch that were yielded so far
        self.count = 0  # sequences that were yielded since the epoch started or was resumed
        self.order = order  # hash of the positions that were yielded, over all epochs and loaders
        self._sequences_of = sequences_of
        self._epoch = 0  # that `position` belongs to
        self._is_resumed = False

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[SequenceBatch]:
        """Yield the batches of the epoch, or the remaining ones after `load_state_dict`."""
        epoch = self.batch_sampler.epoch
        if not self._is_resumed or epoch != self._epoch:
            self.position = 0
        self._is_resumed = False
        self._epoch = epoch
        self.count = 0
        sequences = self.dataset
        if self._sequences_of is not None:
            sequences = self._sequences_of(self.batch_sampler.data_epoch)
        for positions in self.batch_sampler.batches(self.position):
            batch = sequences.batch(positions.clamp(min=0))
            self.position += 1
            self.count += len(positions)
            content = self.order.encode() + positions.numpy().tobytes()
            self.order = hashlib.blake2b(content, digest_size=16).hexdigest()
            yield replace(batch, index=positions)

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the order so far, for a checkpoint."""
        return {
            "epoch": self._epoch,
            "position": self.position,
            "batches": len(self),
            "order": self.order,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a stored position; at the end of an epoch the next one starts."""
        num_batches = int(state_dict["batches"])
        self._epoch = int(state_dict["epoch"])
        self.position = int(state_dict["position"]) % num_batches
        self.order = str(state_dict["order"])
        self._is_resumed = True
        if self.position > 0 and num_batches != len(self):
            expected = "those of the checkpoint, which was saved within an epoch of"
            raise DataError(
                f"batch size and number of processes: expected {expected} {num_batches} batches "
                f"per rank, got {len(self)} batches"
            )
