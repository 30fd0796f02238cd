"""Data module of the synthetic tasks."""

import torch

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.loader import seeded_generator
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.data.split import SPLITS
from lightning_rnn.data.synthetic_tasks import TASKS, TaskName
from lightning_rnn.errors import DataError, check

MAX_VALUES = 1 << 28  # of a split
MAX_EVALUATED = 300_000  # sequences; metrics need about 1.5 kB for each


class SyntheticDataModule(SequenceDataModule):
    """Synthetic sequences: by default the published experiment, and harder tests of memory.

    Args:
        task: What the class depends on: sum_sign (sign of the sum), adding (two marked values),
            parity (of bits), delayed_recall (the first step), temporal_order (order of two
            symbols), temporal_order_6b (of three symbols).
        length: Number of time steps T, at least 1; delayed_recall adds one at the start.
        min_length: Lengths are drawn uniformly from `min_length` to `length`; None for `length`.
        num_features: Number of features F per step; None for the least that the task allows.
        num_train: Number of training sequences, at least 1.
        num_val: Number of validation sequences, at most 300,000; 0 for none.
        num_test: Number of test sequences, from 1 to 300,000.
        batch_size: Number of sequences per training batch of one process.
        buckets: Whether training batches contain sequences of similar length, to reduce padding.
        on_device: Whether the sequences are stored on the accelerator; None to store them there if
            they need at most a quarter of the free memory of the GPU.
        seed: Seed of the sequences and of their order in training.
        fresh: Whether each epoch has new training sequences.

    Raises:
        OptionError: If an argument is out of range or does not suit the task.

    Example:
        >>> from lightning_rnn import SyntheticDataModule
        >>> data = SyntheticDataModule(task="adding", length=20, num_train=100)
        >>> data.num_features, data.class_names
        (2, ['at most 1', 'above 1'])
        >>> data.split("train").values.shape
        torch.Size([2000, 2])
    """

    identity_settings = frozenset(
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
        super().__init__(batch_size=batch_size, buckets=buckets, on_device=on_device, seed=seed)
        self.settings |= {
            "task": task,
            "length": length,
            "min_length": min_length,
            "num_features": num_features,
            "num_train": num_train,
            "num_val": num_val,
            "num_test": num_test,
            "fresh": fresh,
        }
        check(task in TASKS, "task", task, f"one of {', '.join(TASKS)}")
        self.task = TASKS[task]
        shortest = self.task.min_length
        check(length >= shortest, "length", length, f"at least {shortest} for task {task}")
        if min_length is not None:
            expected = f"at least {shortest} and at most the length, {length}"
            check(shortest <= min_length <= length, "min_length", min_length, expected)
        if num_features is not None:
            check(num_features >= 1, "num_features", num_features, "an integer of at least 1")
            number = self.task.num_features or num_features
            expected = f"{number} for task {task}"
            check(num_features == number, "num_features", num_features, expected)
        for name, least in (("num_train", 1), ("num_val", 0), ("num_test", 1)):
            number = self.settings[name]
            check(number >= least, name, number, f"an integer of at least {least}")
            num_values = number * length * (num_features or 1)
            expected = f"at most {MAX_VALUES:,} values (1 GB) in all sequences"
            check(num_values <= MAX_VALUES, name, number, expected)
            if name != "num_train":
                check(number <= MAX_EVALUATED, name, number, f"at most {MAX_EVALUATED:,}")
        self._fresh: tuple[int, Sequences] | None = None  # epoch and its sequences

    def read_schema(self) -> Schema:
        """Return the schema of the task."""
        num_features = self.settings["num_features"] or self.task.num_features or 1
        return Schema(num_features, list(self.task.class_names))

    def load_split(self, name: str) -> Sequences | None:
        """Generate a split; `predict` is the test split."""
        if name == "predict":
            return self.split("test")
        if self.settings[f"num_{name}"] == 0:
            return None
        names = list(self.task.class_names)
        codes = [str(code) for code in range(len(names))]  # of a model without names
        if self.class_names not in (names, codes):
            expected = f"a task with the classes {', '.join(self.class_names)}, as in training"
            raise DataError(f"{name} data: expected {expected}, got {self.settings['task']}")
        return self._generate(name, epoch=0)

    def train_epoch(self, epoch: int) -> Sequences:
        """Return the training split, or with `fresh` new sequences for each epoch."""
        if not self.settings["fresh"] or epoch == 0:
            return self._required("train")
        if self._fresh is None or self._fresh[0] != epoch:
            self._fresh = (epoch, self._generate("train", epoch))
        return self._fresh[1]

    def missing_hint(self, name: str) -> str:
        """Return the reason why there is no split of this name."""
        return f"num_{name} is 0"

    def _generate(self, name: str, epoch: int) -> Sequences:
        """Draw lengths and values from separate random streams.

        The lengths are the same in each epoch, since the loader plans its batches by them.
        """
        key = (self.settings["seed"], SPLITS.index(name))
        count = self.settings[f"num_{name}"]
        length = self.settings["length"]
        min_length = self.settings["min_length"]
        if min_length is None:
            lengths = torch.full((count,), length)
        else:
            generator = seeded_generator(*key, 0, 1)
            lengths = torch.randint(min_length, length + 1, (count,), generator=generator)
        lengths += self.task.extra_steps
        generator = seeded_generator(*key, epoch)
        values, labels = self.task.generate(lengths, self.read_schema().num_features, generator)
        return Sequences(values, lengths, labels)
