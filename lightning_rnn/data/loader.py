"""Which sequences make up which batch, on which rank, in which order; and the loader that assembles them.

There are no worker processes: one gather from tensors in memory costs less than handing a batch between processes.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from lightning_rnn.data.sequences import SequenceBatch, Sequences
from lightning_rnn.errors import DataError

EVAL_STEPS = (
    1 << 18
)  # B * T of an evaluation batch: large enough to be fast, small enough for any machine
EVAL_BATCH = 1024
POOL, POOLS = (
    50,
    4,
)  # global batches that are sorted by length together, at most; pools in an epoch, at least
BLOCK = (
    1 << 17
)  # values gathered together for several batches: gathering costs by the call, not by the value


def seeded_generator(*key: int) -> Generator:
    """Return a generator that is a function of the key alone, its streams independent of each other's."""
    # the length in front: a SeedSequence takes (0,) and (0, 0) for the same
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFF_FFFF_FFFF_FFFF)


class Sampler(Protocol):
    """The rows of each batch of one epoch, on this rank."""

    epoch: int

    def __len__(self) -> int:
        """Return the number of batches."""

    def batches(self, skip: int) -> Iterator[Tensor]:
        """Yield (B,) int64 rows, leaving out the first `skip` batches."""

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch whose batches come next; Lightning calls it."""


class TrainSampler:
    """Shuffled batches, their order a function of (seed, epoch).

    A global batch is `world_size` times `batch_size` sequences, shared out to the ranks. The last global batch of an
    epoch is shared out as far as equal parts go; what is left over (fewer sequences than ranks) waits for another
    epoch's order.

    Where lengths differ, `buckets` sorts pools of global batches by length before they are cut, then shuffles batches:
    sequences of like length meet, on all ranks, and little is padded. There are at least `POOLS` pools in an epoch, so
    that who meets whom changes from one epoch to the next.
    """

    def __init__(
        self,
        lengths: Tensor,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        fixed: bool = False,
        buckets: bool = False,
    ) -> None:
        """Set up.

        Args:
            lengths: (N,) time steps of each sequence.
            batch_size: Sequences in a batch of one rank.
            seed: Seed of the order.
            rank: This process among `world_size`.
            world_size: Number of processes.
            fixed: Repeat the first epoch's order, to see whether a few batches can be learned by heart.
            buckets: Whether sequences of like length share a batch.
        """
        self.fixed, self.lengths = fixed, lengths
        self.buckets = buckets and bool((lengths != lengths[0]).any())
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same on every rank."""
        whole, rest = divmod(
            max(len(self.lengths), self.world_size), self.batch_size * self.world_size
        )
        return whole + (rest >= self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch whose order comes next."""
        self.epoch = 0 if self.fixed else epoch

    def batches(self, skip: int) -> Iterator[Tensor]:
        """Yield this rank's rows of each batch, leaving out the first `skip` batches."""
        for rows in self._global_batches()[skip:]:
            share = len(rows) // self.world_size
            yield rows[self.rank : share * self.world_size : self.world_size]

    def padding(self) -> float:
        """Return the share of an epoch's steps that are padding, with all ranks' batches taken as one."""
        if bool((self.lengths == self.lengths[0]).all()):
            return 0.0
        batches = [self.lengths[rows] for rows in self._global_batches()]
        return 1 - sum(int(batch.sum()) for batch in batches) / sum(
            int(batch.max()) * len(batch) for batch in batches
        )

    def _global_batches(self) -> list[Tensor]:
        generator = seeded_generator(self.seed, self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        if len(order) < self.world_size:  # every rank needs a row to take part in the step
            order = order.repeat(-(-self.world_size // len(order)))[: self.world_size]
        size = self.batch_size * self.world_size
        batches = list(torch.split(order, size))[: len(self)]
        if not self.buckets:
            return batches
        whole = (
            len(self.lengths) // size
        )  # a last batch that is smaller, or filled up for the ranks, stays as it is
        pools = torch.split(order[: whole * size], size * max(1, min(POOL, whole // POOLS)))
        like = [
            batch
            for pool in pools
            for batch in torch.split(pool[self.lengths[pool].argsort(stable=True)], size)
        ]
        return [like[i] for i in torch.randperm(whole, generator=generator).tolist()] + batches[
            whole:
        ]


class EvalSampler:
    """Every sequence once: large batches of like lengths, rank r taking batches r, r + W, ...

    A rank without a batch gets one row of `FILLER`; its outcome is discarded by the -1 in its index.
    """

    epoch = 0

    def __init__(
        self, lengths: Tensor, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        """Set up; see `TrainSampler`. `batch_size` is raised to what a machine can take with ease."""
        size = max(batch_size, min(EVAL_BATCH, EVAL_STEPS // int(lengths.max())))
        size = min(size, -(-len(lengths) // world_size))  # no rank is idle while another has all
        self.chunks = list(torch.split(lengths.argsort(stable=True), size)[rank::world_size]) or [
            torch.tensor([-1])
        ]

    def __len__(self) -> int:
        """Return the number of batches on this rank, at least 1."""
        return len(self.chunks)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is the same in every epoch."""

    def batches(self, skip: int) -> Iterator[Tensor]:
        """Yield the rows of each batch."""
        yield from self.chunks[skip:]


class SequenceLoader:
    """Iterates over batches; its position travels in the checkpoint, so that a resumed epoch goes on where it was.

    Not a `DataLoader`: Lightning would put a sampler of its own into that.
    """

    batch_sampler = None  # Lightning looks for it wherever it finds a `sampler`

    def __init__(self, source: Callable[[int], Sequences], sampler: Sampler) -> None:
        """Set up.

        Args:
            source: The data set for an epoch.
            sampler: The rows of each batch; Lightning calls its `set_epoch`.
        """
        self.source, self.sampler = source, sampler
        self.position = 0  # batches of the epoch handed out so far
        self.count = 0  # sequences handed out since the last beginning, which a resume is too
        self._order, self._unhashed = (
            "",
            list[Tensor](),
        )  # the rows of the latest batches are not in it yet
        self._resumed = False

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.sampler)

    @property
    def order(self) -> str:
        """Hash of all rows handed out so far: two runs with equal hashes saw the same sequences."""
        for rows in self._unhashed:
            content = self._order.encode() + rows.numpy().tobytes()
            self._order = hashlib.blake2b(content, digest_size=16).hexdigest()
        self._unhashed = []
        return self._order

    def __iter__(self) -> Iterator[SequenceBatch]:
        """Yield the epoch's batches, from the stored position in the first epoch after a resume."""
        sequences = self.source(self.sampler.epoch)
        self.position, self._resumed, self.count = self.position if self._resumed else 0, False, 0
        self._order = (
            self.order
        )  # all of an epoch at once is quicker; nobody else asks for an evaluation's
        rows = self.sampler.batches(self.position)
        together = 1
        while block := list(islice(rows, together)):
            for batch, of_batch in zip(
                sequences.batches([of.clamp(min=0) for of in block]), block, strict=True
            ):
                self.position += 1
                self.count += len(of_batch)
                self._unhashed.append(of_batch)
                yield replace(batch, index=of_batch)
            together = max(1, BLOCK // batch.x.numel()) if sequences.fixed_length else 1

    def state_dict(self) -> dict[str, Any]:
        """Return position and order so far, for the checkpoint."""
        return {"position": self.position, "batches": len(self), "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored position; at an epoch's end that is the next one's beginning.

        Raises:
            DataError: The position is inside an epoch of another number of batches.
        """
        position, batches = int(state["position"]), int(state["batches"])
        self.position, self._resumed = position % batches, True
        self._order, self._unhashed = str(state["order"]), []
        if self.position and batches != len(self):
            raise DataError(
                f"the checkpoint is inside an epoch of {batches} batches on each rank, this run has {len(self)}; "
                "accepted is the same batch size and number of processes"
            )
