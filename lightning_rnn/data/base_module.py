"""The data modules: what the trainer asks for batches and the model for sizes, names and statistics."""

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_rnn.data.loader import EvalSampler, SequenceLoader, TrainSampler
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.distributed import gather_objects, is_distributed
from lightning_rnn.errors import DataError, check

FREE_FOR_ONE = 4  # a part is kept on an accelerator whose free memory is so many times its size
PARTS_OF_STAGE = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


@dataclass(frozen=True)
class Schema:
    """What a model must know of its data.

    Attributes:
        num_features: F.
        class_names: K names in the order of the codes; of two classes the second is the positive one.
        feature_names: F names, or None where the files have none.
    """

    num_features: int
    class_names: list[str]
    feature_names: list[str] | None


class SequenceDataModule(LightningDataModule):
    """Loads the parts that a stage needs, proves them equal on all ranks, and makes the loaders.

    A subclass says what its parts are (`load_part`) and what they look like (`read_schema`).

    Attributes:
        pinned: Settings that a checkpoint's evaluation must share with its training.
        settings: The constructor's arguments, JSON values.
    """

    pinned: ClassVar[frozenset[str]] = frozenset({"seed"})

    def __init__(self, settings: dict[str, Any]) -> None:
        """Store the settings.

        Args:
            settings: The subclass's `locals()`.

        Raises:
            OptionError: A seed below 0 or a batch size below 1.
        """
        super().__init__()
        self.settings = {k: v for k, v in settings.items() if k not in ("self", "__class__")}
        self._parts: dict[str, Sequences | None] = {}
        self._schema: Schema | None = None
        self._train_loader: SequenceLoader | None = None
        self._placed: dict[
            str, tuple[Sequences, Sequences]
        ] = {}  # what `_place` was given, and what it made of it
        self._loader_state: dict[str, Any] | None = None
        seed, batch_size = self.settings["seed"], self.settings["batch_size"]
        check(seed >= 0, "seed", seed, "an integer of at least 0")
        check(
            batch_size is None or batch_size >= 1,
            "batch_size",
            batch_size,
            "an integer of at least 1",
        )

    @abstractmethod
    def read_schema(self) -> Schema:
        """Return the schema of the training data."""

    @abstractmethod
    def load_part(self, name: str) -> Sequences | None:
        """Return the part (`train`, `val`, `test` or `predict`), or None where there is none."""

    @property
    def schema(self) -> Schema:
        """The schema: the trained model's where there is one, else that of the training data."""
        if self._schema is None:
            self._schema = self.read_schema()
        return self._schema

    def part(self, name: str) -> Sequences | None:
        """Return a part, loaded once."""
        if name not in self._parts:
            self._parts[name] = self.load_part(name)
        return self._parts[name]

    @cached_property
    def train_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (F,) of the training part."""
        return self._required("train").moments()

    @cached_property
    def train_class_counts(self) -> Tensor:
        """(K,) training sequences of each class."""
        labels = self._required("train").labels
        assert labels is not None
        return labels.bincount(minlength=len(self.schema.class_names))

    @property
    def batch_size(self) -> int:
        """Sequences in a training batch of one rank; unless set, an eighth of the part, from 8 to 64."""
        size = self.settings["batch_size"]
        if size is None:
            size = 1 << max(3, min(6, (len(self._required("train")) // 8).bit_length() - 1))
        return int(size)

    def load(self, stage: str, schema: Schema | None) -> list[Sequences]:
        """Load a stage's parts.

        Args:
            stage: fit, validate, test or predict.
            schema: What the trained model takes, or None to ask the training data.

        Returns:
            The parts; in fit without the validation part, where there is none.

        Raises:
            DataError: A part is missing or unusable, or does not fit the model.
        """
        if self._schema is None:
            self._schema = schema
        first, *others = PARTS_OF_STAGE[stage]
        parts = [
            self._required(first),
            *(part for part in map(self.part, others) if part is not None),
        ]
        for part in parts:
            if part.num_features != self.schema.num_features:
                raise DataError(
                    f"data: found {part.num_features} features, the model takes {self.schema.num_features}"
                )
        return parts

    def setup(self, stage: str) -> None:
        """Load the stage's parts and compare them between the ranks.

        Raises:
            DataError: A part is missing or unusable, does not fit the model, or differs between ranks.
        """
        model = self.trainer.lightning_module if self.trainer is not None else None
        known = getattr(model, "schema", None)
        if self.trainer is not None and stage == "fit" and self.part("val") is None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty list
        parts = self.load(stage, known if stage != "fit" and isinstance(known, Schema) else None)
        if is_distributed():
            random_state = hashlib.blake2b(torch.get_rng_state().numpy().tobytes()).hexdigest()
            _compare_ranks(random_state + "".join(part.fingerprint() for part in parts))

    def train_dataloader(self) -> SequenceLoader:
        """Return the loader of shuffled training batches."""
        part = self._required("train")
        sampler = TrainSampler(
            part.lengths,
            batch_size=self.batch_size,
            seed=self.settings["seed"],
            fixed=getattr(self.trainer, "overfit_batches", 0) > 0,
            buckets=self.settings["buckets"],
            **self._rank_and_world(),
        )
        self._train_loader = SequenceLoader(
            lambda epoch: self._place("train", self.train_epoch(epoch)), sampler
        )
        if self._loader_state is not None:
            self._train_loader.load_state_dict(self._loader_state)
        return self._train_loader

    def val_dataloader(self) -> SequenceLoader | list[Any]:
        """Return the loader of the validation part; an empty list where there is none."""
        return [] if self.part("val") is None else self._eval_loader("val")

    def test_dataloader(self) -> SequenceLoader:
        """Return the loader of the test part."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> SequenceLoader:
        """Return the loader of the sequences to predict."""
        return self._eval_loader("predict")

    def train_epoch(self, epoch: int) -> Sequences:
        """Return the training sequences of an epoch."""
        return self._required("train")

    def state_dict(self) -> dict[str, Any]:
        """Return settings, hashes of the data and the loader's position, under the class's plain name."""
        loader = None if self._train_loader is None else self._train_loader.state_dict()
        return {"settings": self.settings, "parts": self._fingerprints, "loader": loader}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on training with other data; the command line has restored the settings before.

        Raises:
            DataError: The training or validation sequences are not the checkpoint's.
        """
        fits = self.trainer is not None and self.trainer.state.fn == "fit"
        if not fits:
            return
        for name, fingerprint in self._fingerprints.items():
            if state_dict["parts"].get(name) != fingerprint:
                raise DataError(
                    f"the {name} sequences are not those of the checkpoint; accepted are the same to continue"
                )
        # Lightning restores a loader only inside an epoch; the order's hash must survive the end of one, too
        self._loader_state = state_dict["loader"]

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        return {
            name: part.fingerprint()
            for name in PARTS_OF_STAGE["fit"]
            if (part := self.part(name)) is not None
        }

    def _required(self, name: str) -> Sequences:
        part = self.part(name)
        if part is None:
            raise DataError(f"there is no {name} part: {self.missing_hint(name)}")
        return part

    def missing_hint(self, name: str) -> str:
        """Say how a part would be given."""
        return "the data module has none"

    def _eval_loader(self, name: str) -> SequenceLoader:
        part = self._required(name)
        size = self.settings["batch_size"] or 1
        sampler = EvalSampler(part.lengths, batch_size=size, **self._rank_and_world())
        return SequenceLoader(lambda _: self._place(name, part), sampler)

    def _place(self, name: str, part: Sequences) -> Sequences:
        """Return the sequences where batches are made of them: on the accelerator if they fit or it is asked for."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        wanted = self.settings["on_device"]
        if device.type == "cpu" or wanted is False:
            return part
        if self._placed.get(name, (None, part))[0] is not part:
            size = int(part.lengths.sum()) * part.num_features * 4
            fits = (
                device.type == "cuda" and size * FREE_FOR_ONE <= torch.cuda.mem_get_info(device)[0]
            )
            self._placed[name] = (part, part.to(device) if wanted or fits else part)
        return self._placed[name][1]

    def _rank_and_world(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def _compare_ranks(fingerprint: str) -> None:
    found = gather_objects(hashlib.blake2b(fingerprint.encode(), digest_size=16).hexdigest())
    odd = [rank for rank, other in enumerate(found) if other != found[0]]
    if odd:
        raise DataError(f"ranks {odd} have other sequences, splits or random states than rank 0")
