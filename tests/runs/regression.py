"""A record of what training computes, and its comparison with what the present code computes.

`python tests/runs/regression.py --record` trains every case in `CASES` and writes `regression.json`
beside this file. `python tests/runs/regression.py` trains them again, prints each difference and
exits with code 1 if there is any.

A case is a small model, trained with a bare `Trainer` for three epochs and then tested. Its record
holds hashes of the final weights, of the optimizer's state and of the order of the samples, the
logged scalars by step, and the metrics of the test. Hashes of weights hold only on the machine and
with the torch version of the record; the default comparison therefore uses tolerances, and
`--exact` compares the hashes.

The tolerances allow for another order of additions. They do not allow for a processor without the
instructions in `INSTRUCTIONS`, on which torch draws weights that differ in their last bits.
"""

import argparse
import hashlib
import json
import logging
import math
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from torch import Tensor

import lightning_rnn
from lightning_rnn import SequenceClassifier, SyntheticDataModule

RECORD = Path(__file__).with_name("regression.json")

INSTRUCTIONS = ("AVX2", "AVX512")  # of `torch.backends.cpu.get_cpu_capability()`
SEED = 1
EPOCHS = 3
SCALAR_DIGITS = 9  # significant digits of a recorded scalar
PARAMETER_DIGITS = 12  # and of the sum and the norm of a parameter

# Relative tolerances of the default comparison.
PARAMETER_TOLERANCE = 1e-8  # sums and norms of parameters after training in float64
SCALAR_TOLERANCE = {
    "32-true": 5e-4,  # on other processors, rounding alone has made a difference of 2e-4
    "64-true": 1e-5,  # metrics are computed in float32, whatever the model is trained in
}
ABSOLUTE_TOLERANCE = 1e-7  # of scalars close to zero

HASHES = {
    "order": "order of the training samples",
    "parameters": "bytes of the parameters",
    "bytes": "bytes of the state_dict",
    "names": "names and bytes of the state_dict",
    "optimizer": "bytes of the optimizer's state",
}


@dataclass(frozen=True)
class Variant:
    """Options that differ from those of the plain case.

    Attributes:
        model: Arguments of `SequenceClassifier`.
        data: Arguments of `SyntheticDataModule`.
        trainer: Arguments of `Trainer`.
    """

    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "plain": Variant(),
    "deep": Variant(
        model={"num_layers": 2, "bidirectional": True},
    ),
    # Masks of dropout differ between builds of torch with MKL and those without.
    "dropout": Variant(
        model={"num_layers": 2, "bidirectional": True, "dropout": 0.1},
    ),
    "sum_sign": Variant(
        model={"input_size": 1},
        data={"task": "sum_sign"},
    ),
    "classes": Variant(
        model={"input_size": 8, "num_classes": 4},
        data={"task": "temporal_order"},
    ),
    # Long enough that the network cuts ragged batches into parts along time.
    "long": Variant(
        model={"hidden_size": 32, "num_layers": 2, "bidirectional": True},
        data={"length": 160, "min_length": 10, "num_train": 64},
    ),
    "mean": Variant(
        model={"pooling": "mean", "optimizer": "adamw", "weight_decay": 0.1},
    ),
    "max": Variant(
        model={"pooling": "max", "schedule": "onecycle"},
    ),
    "weights": Variant(
        model={"input_size": 8, "num_classes": 4, "class_weights": "balanced"},
        data={"task": "temporal_order"},
    ),
    "positive": Variant(
        model={"pos_weight": 2.0, "schedule": "constant"},
    ),
    "buckets": Variant(
        data={"buckets": True, "batch_size": 8},
    ),
    "fresh": Variant(
        data={"fresh": True},
    ),
    # A bound of 1.0 on the norm of the gradients is seldom reached; this one always is.
    "clip": Variant(
        trainer={"gradient_clip_val": 0.1},
    ),
    "clip_value": Variant(
        trainer={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    ),
    "accumulate": Variant(
        trainer={"accumulate_grad_batches": 2, "log_every_n_steps": 2},
    ),
    # The last batch is smaller than the others, and cannot be shared out evenly.
    "odd": Variant(
        data={"num_train": 91, "num_val": 37, "num_test": 33},
    ),
}


@dataclass(frozen=True)
class Case:
    """One training run.

    Attributes:
        cell: Recurrent cell.
        stem: What comes before the cells.
        ragged: Whether the lengths of the sequences differ.
        precision: Precision of the `Trainer`.
        variant: Key in `VARIANTS`.
        ranks: Number of processes.
    """

    cell: str
    stem: str
    ragged: bool
    precision: str
    variant: str
    ranks: int = 1

    @property
    def name(self) -> str:
        """Key of the case in the record."""
        lengths = "ragged" if self.ragged else "fixed"
        parts = [self.cell, self.stem, lengths, self.variant, self.precision, f"{self.ranks}rank"]
        return " ".join(parts)

    @property
    def model_options(self) -> dict[str, Any]:
        """Arguments of `SequenceClassifier`."""
        options = {"cell": self.cell, "stem": self.stem, "hidden_size": 8, "input_size": 2}
        # the record is older than the other starting weights and numbers of layers
        options |= {"initialization": "torch", "num_layers": 1}
        return {**options, **VARIANTS[self.variant].model}

    @property
    def data_options(self) -> dict[str, Any]:
        """Arguments of `SyntheticDataModule`."""
        options: dict[str, Any] = {
            "task": "adding",
            "length": 12,
            "num_train": 96,
            "num_val": 40,
            "num_test": 40,
            "batch_size": 16,
            "seed": 0,
        }
        changes = VARIANTS[self.variant].data
        if self.ragged:
            shortest = 10 if changes.get("task") == "temporal_order" else 4
            options["min_length"] = shortest
        return {**options, **changes}

    @property
    def trainer_options(self) -> dict[str, Any]:
        """Arguments of `Trainer`."""
        options = {
            "devices": self.ranks,
            "strategy": "ddp" if self.ranks > 1 else "auto",
            "precision": self.precision,
            "gradient_clip_val": 1.0,
            "log_every_n_steps": 5 if self.ranks == 1 else 2,
        }
        return {**options, **VARIANTS[self.variant].trainer}


CELLS = ("rnn", "lstm", "gru", "mingru")
STEMS = ("none", "conv")
PRECISIONS = ("32-true", "64-true")
GRU_VARIANTS = (
    "sum_sign",
    "mean",
    "max",
    "weights",
    "positive",
    "buckets",
    "fresh",
    "clip",
    "clip_value",
    "accumulate",
    "odd",
)


def make_cases() -> list[Case]:
    """Return all cases, those of one rank first."""
    cases = []
    for precision in PRECISIONS:
        for cell in CELLS:
            for stem in STEMS:
                for ragged in (False, True):
                    for variant in ("plain", "deep", "classes"):
                        cases.append(Case(cell, stem, ragged, precision, variant))
                cases.append(Case(cell, stem, True, precision, "dropout"))
            cases.append(Case(cell, "none", True, precision, "long"))
        for variant in GRU_VARIANTS:
            cases.append(Case("gru", "none", True, precision, variant))
    for precision in PRECISIONS:
        for cell in CELLS:
            for stem in STEMS:
                cases.append(Case(cell, stem, True, precision, "dropout", ranks=2))
        cases.append(Case("lstm", "none", False, precision, "classes", ranks=2))
        cases.append(Case("rnn", "none", True, precision, "clip", ranks=2))
        cases.append(Case("gru", "conv", True, precision, "odd", ranks=2))
    return cases


CASES = make_cases()


class MemoryLogger(Logger):
    """Keeps the logged scalars.

    Attributes:
        scalars: Values by name and step.
    """

    def __init__(self) -> None:
        """Start with nothing logged."""
        super().__init__()
        self.scalars: dict[str, dict[int, float]] = {}

    @property
    def name(self) -> str:
        """Name that Lightning asks for."""
        return "memory"

    @property
    def version(self) -> int:
        """Version that Lightning asks for."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Ignore the hyperparameters."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep the scalars of a step."""
        for name, value in metrics.items():
            if name != "epoch":  # which Lightning adds
                self.scalars.setdefault(name, {})[int(step or 0)] = float(value)


class SampleOrder(Callback):
    """Hashes the rows of all training batches, rank by rank.

    Attributes:
        digest: The hash; known when training has ended.
    """

    def __init__(self) -> None:
        """Start with no batches."""
        self._rows: list[list[int]] = []
        self.digest = ""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the rows of a batch."""
        self._rows.append(batch.index.tolist())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hash the rows of all ranks."""
        rows: list[Any] = [self._rows]
        if trainer.world_size > 1:
            rows = [None] * trainer.world_size
            torch.distributed.all_gather_object(rows, self._rows)
        self.digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def run_case(case: Case) -> dict[str, Any]:
    """Train and test a model, and return the record of it.

    Args:
        case: What to train. With several ranks, the calling process is one of them.

    Returns:
        A dictionary that can be written as JSON.
    """
    torch.set_num_threads(1)
    seed_everything(SEED, verbose=False)
    model = SequenceClassifier(**case.model_options)
    data = SyntheticDataModule(**case.data_options)
    scalars = MemoryLogger()
    order = SampleOrder()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        trainer = Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            logger=scalars,
            callbacks=[order],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            deterministic=True,
            **case.trainer_options,
        )
        trainer.fit(model, datamodule=data)
        record = {
            "hashes": {"order": order.digest, **hash_state(model, trainer.optimizers[0])},
            "logged": rounded_scalars(scalars.scalars),
            "final": rounded(trainer.callback_metrics, "train/", "val/"),
        }
        if case.precision == "64-true":
            record["parameters"] = summarize_parameters(model)
        trainer.test(model, datamodule=data, verbose=False)
        record["test"] = rounded(trainer.callback_metrics, "test/")
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    return record


def hash_state(model: LightningModule, optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Return hashes of a model's and an optimizer's state; see `HASHES`."""
    state = model.state_dict()
    moments = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            of_parameter = optimizer.state[parameter]
            for name in sorted(of_parameter):
                moments.append(torch.as_tensor(of_parameter[name]))
    return {
        "parameters": hash_tensors(model.parameters()),
        "bytes": hash_tensors(state.values()),
        "names": hash_tensors(state.values(), names=list(state)),
        "optimizer": hash_tensors(moments),
    }


def hash_tensors(tensors: Iterable[Tensor], names: Sequence[str] = ()) -> str:
    """Return the SHA-256 of names and of the tensors' bytes."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def summarize_parameters(model: LightningModule) -> list[list[Any]]:
    """Return name, sum and norm of each parameter."""
    summaries = []
    for name, parameter in model.named_parameters():
        values = parameter.detach().double()
        total = round_number(values.sum(), PARAMETER_DIGITS)
        norm = round_number(values.norm(), PARAMETER_DIGITS)
        summaries.append([name, total, norm])
    return summaries


def rounded(metrics: dict[str, Tensor], *prefixes: str) -> dict[str, float]:
    """Return the metrics whose names begin with one of the prefixes, without those of a step."""
    chosen = {}
    for name in sorted(metrics):
        if name.startswith(prefixes) and not name.endswith("_step"):
            chosen[name] = round_number(metrics[name], SCALAR_DIGITS)
    return chosen


def rounded_scalars(scalars: dict[str, dict[int, float]]) -> dict[str, dict[str, float]]:
    """Return logged scalars as JSON has them, with steps as strings."""
    series: dict[str, dict[str, float]] = {}
    for name in sorted(scalars):
        series[name] = {}
        for step in sorted(scalars[name]):
            series[name][str(step)] = round_number(scalars[name][step], SCALAR_DIGITS)
    return series


def round_number(value: float | Tensor, digits: int) -> float:
    """Return a number rounded to a number of significant digits."""
    return float(f"{float(value):.{digits}g}")


def run_cases(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """Run cases, those of several ranks in processes of their own.

    Returns:
        The records by the names of the cases. A case that fails has only an `error`.
    """
    records = {}
    together: dict[int, list[Case]] = {}
    for case in cases:
        if case.ranks == 1:
            records[case.name] = run_or_fail(case)
        else:
            together.setdefault(case.ranks, []).append(case)
    for ranks, of_ranks in together.items():
        records.update(run_in_ranks(of_ranks, ranks))
    return records


def run_or_fail(case: Case) -> dict[str, Any]:
    """Run a case; what it raises becomes its record, so that the other cases still run."""
    try:
        return run_case(case)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def run_in_ranks(cases: Sequence[Case], ranks: int) -> dict[str, dict[str, Any]]:
    """Run cases in one group of processes, as torchrun starts it."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "cases.json"
        results = Path(folder) / "results.json"
        names.write_text(json.dumps([case.name for case in cases]))
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={ranks}",
            str(Path(__file__).resolve()),
            "--as-rank",
            str(names),
            str(results),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            last_lines = "\n".join(done.stderr.splitlines()[-40:])
            return {case.name: {"error": f"the ranks failed:\n{last_lines}"} for case in cases}
        records: dict[str, dict[str, Any]] = json.loads(results.read_text())
    return records


def run_as_rank(names: Path, results: Path) -> None:
    """Run cases as one process of a group; rank 0 writes their records.

    Args:
        names: JSON file with the names of the cases.
        results: JSON file to write.
    """
    by_name = {case.name: case for case in CASES}
    records = {}
    for name in json.loads(names.read_text()):
        # An error is not caught: it ends all ranks, so that none waits for another.
        records[name] = run_case(by_name[name])
    if torch.distributed.get_rank() == 0:
        results.write_text(json.dumps(records))
    torch.distributed.destroy_process_group()


def compare(cases: Sequence[Case], *, exact: bool = False, renamed: bool = False) -> list[str]:
    """Run cases and compare them with the record.

    Args:
        cases: Cases from `CASES`.
        exact: Compare the hashes of weights and optimizer state as well.
        renamed: Let the names in the state_dict differ from the record.

    Returns:
        One line for each difference.
    """
    recorded = json.loads(RECORD.read_text())["cases"]
    found = run_cases(cases)
    differences = []
    for case in cases:
        if case.name not in recorded:
            differences.append(f"{case.name}: not in {RECORD.name}")
            continue
        if "error" in found[case.name]:
            differences.append(f"{case.name}: {found[case.name]['error']}")
            continue
        lines = compare_hashes(recorded[case.name], found[case.name], exact, renamed)
        lines += compare_numbers(recorded[case.name], found[case.name], case.precision)
        differences += [f"{case.name}: {line}" for line in lines]
    return differences


def compare_hashes(
    recorded: dict[str, Any], found: dict[str, Any], exact: bool, renamed: bool
) -> list[str]:
    """Return a line for each hash that differs: that of the order, with `exact` all of them."""
    names = list(HASHES) if exact else ["order"]
    if renamed and exact:
        names.remove("names")
    lines = []
    for name in names:
        if recorded["hashes"][name] != found["hashes"][name]:
            lines.append(f"another {HASHES[name]}")
    return lines


def compare_numbers(recorded: dict[str, Any], found: dict[str, Any], precision: str) -> list[str]:
    """Return a line for each number that differs by more than its tolerance.

    Scalars that the record does not have are ignored.
    """
    tolerance = SCALAR_TOLERANCE[precision]
    lines = []
    for name, series in recorded["logged"].items():
        found_series = found["logged"].get(name, {})
        lines += compare_scalars(f"logged {name}, step", series, found_series, tolerance)
    lines += compare_scalars("after fit", recorded["final"], found["final"], tolerance)
    lines += compare_scalars("after test", recorded["test"], found["test"], tolerance)
    if "parameters" in recorded:
        lines += compare_parameters(recorded["parameters"], found["parameters"])
    return lines


def compare_scalars(
    where: str, recorded: dict[str, float], found: dict[str, float], tolerance: float
) -> list[str]:
    """Return a line for each recorded scalar that is missing or differs.

    Args:
        where: What the lines begin with.
        recorded: Scalars of the record, by name or step.
        found: Scalars of the present code.
        tolerance: Relative tolerance.
    """
    lines = []
    for key, expected in recorded.items():
        if key not in found:
            lines.append(f"{where} {key}: recorded {expected}, found nothing")
            continue
        value = found[key]
        if not math.isclose(value, expected, rel_tol=tolerance, abs_tol=ABSOLUTE_TOLERANCE):
            lines.append(f"{where} {key}: recorded {expected}, found {value}")
    return lines


def compare_parameters(recorded: list[list[Any]], found: list[list[Any]]) -> list[str]:
    """Return a line for each parameter whose sum or norm differs.

    Parameters are compared in their order, whatever their names are.
    """
    if len(recorded) != len(found):
        return [f"parameters: recorded {len(recorded)}, found {len(found)}"]
    lines = []
    for (name, *expected), (found_name, *values) in zip(recorded, found, strict=True):
        where = name if name == found_name else f"{name}, now {found_name}"
        # Relative to the norm, as a sum may cancel out.
        tolerance = PARAMETER_TOLERANCE * expected[1]
        for what, number, value in zip(("sum", "norm"), expected, values, strict=True):
            if not math.isclose(value, number, rel_tol=0.0, abs_tol=tolerance):
                lines.append(f"{what} of {where}: recorded {number}, found {value}")
    return lines


def describe_machine() -> dict[str, str]:
    """Return what the hashes of weights depend on."""
    processor = platform.processor()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        for line in cpu_info.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def write_record(cases: Sequence[Case]) -> None:
    """Run cases and write the record, one line for each field of a case.

    Raises:
        RuntimeError: A case failed.
    """
    records = run_cases(cases)
    blocks = []
    for case in cases:
        record = records[case.name]
        if "error" in record:
            raise RuntimeError(f"{case.name}: {record['error']}")
        fields = [f"   {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
        blocks.append(f"  {json.dumps(case.name)}: {{\n" + ",\n".join(fields) + "\n  }")
    machine = json.dumps(describe_machine())
    text = f'{{\n "machine": {machine},\n "cases": {{\n' + ",\n".join(blocks) + "\n }\n}\n"
    RECORD.write_text(text)


def main() -> int:
    """Record or compare, as the command line says.

    Returns:
        The exit code: 1 if there are differences.
    """
    parser = argparse.ArgumentParser(description="Compare what training computes with a record.")
    parser.add_argument("--record", action="store_true", help="write the record")
    parser.add_argument("--exact", action="store_true", help="compare the hashes of weights, too")
    parser.add_argument("--renamed", action="store_true", help="let names of weights differ")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains it")
    parser.add_argument("--as-rank", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.as_rank:
        run_as_rank(*options.as_rank)
        return 0
    start = time.monotonic()
    print(f"lightning_rnn: {Path(lightning_rnn.__file__).parent}")
    if options.record:
        write_record(CASES)
        print(f"{len(CASES)} cases recorded in {time.monotonic() - start:.0f} s: {RECORD}")
        return 0
    cases = [case for case in CASES if options.only in case.name]
    machine = json.loads(RECORD.read_text())["machine"]
    if torch.backends.cpu.get_cpu_capability() not in INSTRUCTIONS:
        print(f"weights may differ: this processor has none of {', '.join(INSTRUCTIONS)}")
    if options.exact and machine != describe_machine():
        print(f"hashes may differ: they were recorded with {machine}")
    differences = compare(cases, exact=options.exact, renamed=options.renamed)
    for line in differences:
        print(line)
    seconds = time.monotonic() - start
    print(f"{len(cases)} cases compared in {seconds:.0f} s: {len(differences)} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
