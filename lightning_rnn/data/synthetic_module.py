"""The data module of the synthetic tasks."""

import torch

from lightning_rnn.data.base_module import Schema, SequenceDataModule
from lightning_rnn.data.loader import seeded_generator
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import PARTS
from lightning_rnn.data.synthetic_tasks import TASKS, TaskName
from lightning_rnn.errors import check


class SyntheticDataModule(SequenceDataModule):
    """Sequences made from a seed: the published experiment by default, and harder tests of memory."""

    pinned = frozenset(
        {"task", "length", "min_length", "num_features", "num_train", "num_val", "seed", "fresh"}
    )

    def __init__(
        self,
        *,
        task: TaskName = "sum_sign",
        length: int = 10,
        min_length: int | None = None,
        num_features: int | None = None,
        num_train: int = 1000,
        num_val: int = 1000,
        num_test: int = 10000,
        batch_size: int = 32,
        buckets: bool = False,
        on_device: bool | None = None,
        seed: int = 0,
        fresh: bool = False,
    ) -> None:
        """Set up; sequences are made when a stage needs them.

        Args:
            task: What the label depends on: sum_sign (sign of the sum), adding (two marked values), parity (of
                bits), delayed_recall (the first step), temporal_order (of X and Y; 4 classes), temporal_order_6b
                (8 classes).
            length: Time steps T, at least 1; delayed_recall adds one in front.
            min_length: For lengths drawn evenly from this one to `length`; all have `length` when not given.
            num_features: Features F per step; when not given, the task's own (1 where it has none).
            num_train: Training sequences, at least 1.
            num_val: Validation sequences; 0 for none.
            num_test: Test sequences, at least 1.
            batch_size: Sequences in a training batch of one process.
            buckets: Whether sequences of like length share a training batch, so that little is padded.
            on_device: Whether the sequences are kept on the accelerator; when not given, where they take at most a
                quarter of its free memory.
            seed: Seed of the sequences and of their order in training.
            fresh: Make new training sequences in every epoch.

        Raises:
            OptionError: A value outside its range, or one that the task cannot have.
        """
        super().__init__(dict(locals()))
        check(task in TASKS, "task", task, f"one of {', '.join(TASKS)}")
        self.task = TASKS[task]
        shortest = length if min_length is None else min_length
        least = self.task.min_length
        check(length >= least, "length", length, f"at least {least} for task {task}")
        check(
            least <= shortest <= length,
            "min_length",
            min_length,
            f"from {least} to the length, {length}",
        )
        fixed = self.task.num_features
        self.num_features = fixed or 1 if num_features is None else num_features
        wanted = f"{fixed} for task {task}" if fixed else "an integer of at least 1"
        check(
            self.num_features == (fixed or max(1, self.num_features)),
            "num_features",
            num_features,
            wanted,
        )
        check(num_train >= 1, "num_train", num_train, "an integer of at least 1")
        check(num_val >= 0, "num_val", num_val, "an integer of at least 0")
        check(num_test >= 1, "num_test", num_test, "an integer of at least 1")
        self._fresh: tuple[int, Sequences] | None = None

    def read_schema(self) -> Schema:
        """Return the task's schema."""
        return Schema(self.num_features, list(self.task.class_names), None)

    def load_part(self, name: str) -> Sequences | None:
        """Make a part; `predict` is the test part."""
        name = "test" if name == "predict" else name
        return self._make(name, 0) if self.settings[f"num_{name}"] else None

    def train_epoch(self, epoch: int) -> Sequences:
        """Return the training part, or with `fresh` the epoch's own."""
        if not self.settings["fresh"] or epoch == 0:
            return self._required("train")
        if self._fresh is None or self._fresh[0] != epoch:
            self._fresh = (epoch, self._make("train", epoch))
        return self._fresh[1]

    def missing_hint(self, name: str) -> str:
        """Say how a part would be given."""
        return f"num_{name} is 0"

    def _make(self, name: str, epoch: int) -> Sequences:
        count, length = self.settings[f"num_{name}"], self.settings["length"]
        # lengths have a stream of their own, the same in every epoch: the loader plans its batches by them
        lengths = torch.full((count,), length)
        if self.settings["min_length"] is not None:
            generator = seeded_generator(self.settings["seed"], PARTS.index(name), 0, 1)
            lengths = torch.randint(
                self.settings["min_length"], length + 1, (count,), generator=generator
            )
        lengths += self.task.extra_steps
        generator = seeded_generator(self.settings["seed"], PARTS.index(name), epoch)
        values, labels = self.task.generate(lengths, self.num_features, generator)
        return Sequences(values, lengths, labels)
