"""How do time and memory grow with the data, and how do they compare with a plain library call?

Each case runs at four sizes, each of them in a process of its own with one thread. `cpu_s` is the
processor time of our call, child processes included, `plain_s` that of the library call named in
`plain`, `ratio` their quotient; `peak_mib` is the memory that our call needs at its peak, beyond
what the process had before, and `input_mib` the size of the file or array that it gets. `exponent`
is the slope of log(cpu_s) over log(size). `target` and `met` concern the largest size.

    python -m benchmarks.growth                  # all cases
    python -m benchmarks.growth --only csv tsv   # some, the others stay in the table
    python -m benchmarks.growth --table          # the table of docs/performance.md
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import ROOT, append_rows, read_rows

MIN_SECONDS = 0.3  # of repetitions of short calls
ONE_THREAD = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
Call = Callable[[], object]


@dataclass(frozen=True)
class Sides:
    """Our call, the library call for the same work, and the size of their input in bytes."""

    ours: Call
    plain: Call
    input_bytes: int


@dataclass(frozen=True)
class Case:
    """One question.

    Attributes:
        make: Returns the sides for a size, whose files are in a folder.
        unit: What the size counts.
        sizes: Four sizes.
        plain: The library call.
        target: Upper limits of columns of the result at the largest size.
    """

    make: Callable[[int, Path], Sides]
    unit: str
    sizes: tuple[int, int, int, int]
    plain: str
    target: dict[str, float]


def random_logits(num_sequences: int, num_classes: int) -> Any:
    """Return an `Evaluation` of informative float32 logits."""
    import torch

    from lightning_rnn.evaluation.results import Evaluation
    from lightning_rnn.models.losses import cross_entropies

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_sequences) % num_classes
    if num_classes == 2:
        logits = torch.randn(num_sequences, generator=generator) + 2.0 * labels - 1
    else:
        logits = torch.randn(num_sequences, num_classes, generator=generator)
        logits[torch.arange(num_sequences), labels] += 2.0
    losses = cross_entropies(logits, labels)
    return Evaluation(torch.arange(num_sequences), logits, labels, losses)


def bytes_of(evaluation: Any) -> int:
    return sum(column.nbytes for column in vars(evaluation).values())


def validation(num_classes: int, folder: Path) -> Sides:
    """Metrics of a validation within `fit`, against an epoch of training with as many sequences."""
    import torch
    from torch.nn.functional import cross_entropy

    from lightning_rnn import SequenceNetwork
    from lightning_rnn.evaluation.metrics import EPOCH_METRICS, evaluate
    from lightning_rnn.models.decision import Decision
    from lightning_rnn.models.network import NetworkOptions
    from lightning_rnn.training.logs import MAX_SORTED_CLASSES

    evaluation = random_logits(10_000, num_classes)
    options = NetworkOptions(cell="lstm", hidden_size=32)
    network = SequenceNetwork(input_size=1, num_classes=num_classes, options=options)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    x = torch.randn(10_000, 10, 1)

    def train() -> None:
        for rows in torch.randperm(len(x)).split(64):
            logits = network(x[rows], torch.full((len(rows),), 10))
            loss = cross_entropy(logits, evaluation.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def ours() -> object:
        names = EPOCH_METRICS
        if num_classes > MAX_SORTED_CLASSES:
            names = [name for name in names if name != "auroc"]
        return evaluate(evaluation, Decision(), names)

    return Sides(ours, train, bytes_of(evaluation))


def intervals(num_sequences: int, folder: Path, num_classes: int = 100) -> Sides:
    """Confidence intervals, against scikit-learn's AUROC and average precision without any."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from lightning_rnn.evaluation.intervals import confidence_intervals
    from lightning_rnn.models.decision import Decision

    evaluation = random_logits(num_sequences, num_classes)
    labels = evaluation.labels.numpy()
    decision = Decision()

    def plain() -> object:
        scores = decision.probabilities(evaluation.logits).double().numpy()
        if num_classes > 2:
            scores /= scores.sum(1, keepdims=True)
        auroc = roc_auc_score(labels, scores, multi_class="ovr")
        return auroc, average_precision_score(labels, scores)

    return Sides(lambda: confidence_intervals(evaluation, decision), plain, bytes_of(evaluation))


def binary_intervals(num_sequences: int, folder: Path) -> Sides:
    return intervals(num_sequences, folder, num_classes=2)


def temperature(num_sequences: int, folder: Path) -> Sides:
    """Fitting the temperature, against SciPy's minimizer of the mean cross entropy."""
    from scipy.optimize import minimize_scalar
    from torch.nn.functional import cross_entropy

    from lightning_rnn.evaluation.calibration import fit_temperature

    evaluation = random_logits(num_sequences, 100)
    logits, labels = evaluation.logits, evaluation.labels

    def plain() -> object:
        def loss(log_temperature: float) -> float:
            return float(cross_entropy(logits * math.exp(-log_temperature), labels))

        return minimize_scalar(loss, bounds=(-5, 5), method="bounded")

    return Sides(lambda: fit_temperature(logits, labels), plain, bytes_of(evaluation))


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def random_texts(num_sequences: int, num_steps: int, separator: str) -> list[str]:
    values = np.random.default_rng(0).standard_normal((num_sequences, num_steps))
    return [separator.join(f"{value:.6f}" for value in row) for row in values]


def tsv(num_sequences: int, folder: Path) -> Sides:
    import polars as pl

    from lightning_rnn import read_file

    texts = random_texts(num_sequences, 100, "\t")
    path = written(folder / "a.tsv", [f"{i % 5}\t{text}" for i, text in enumerate(texts)])

    def plain() -> object:
        return pl.read_csv(path, separator="\t", has_header=False).to_numpy()

    return Sides(lambda: read_file(path), plain, path.stat().st_size)


def ts(num_sequences: int, folder: Path) -> Sides:
    from lightning_rnn import read_file

    header = ["@classLabel true a b c d e", "@data"]
    texts = random_texts(num_sequences, 100, ",")
    lines = [f"{text}:{'abcde'[i % 5]}" for i, text in enumerate(texts)]
    path = written(folder / "a.ts", [*header, *lines])

    def plain() -> object:
        arrays = []
        for line in path.read_text().splitlines()[2:]:
            arrays.append(np.fromstring(line.rpartition(":")[0], sep=","))
        return np.concatenate(arrays)

    return Sides(lambda: read_file(path), plain, path.stat().st_size)


def table(num_rows: int) -> Any:
    """Return a polars frame of sequences of 100 rows with eight features."""
    import polars as pl

    values = np.random.default_rng(0).standard_normal((num_rows, 8)).round(6)
    step = np.arange(num_rows)
    columns = {"id": step // 100, "time": step % 100, "label": step // 100 % 5}
    return pl.DataFrame(columns | {f"x{i}": column for i, column in enumerate(values.T)})


def table_sides(path: Path, read: Callable[[Path], Any]) -> Sides:
    """Sequences of a table, against polars: read, sort by id and time, count, take the numbers."""
    from lightning_rnn import ReadOptions, read_file

    options = ReadOptions(id_column="id", time_column="time")

    def plain() -> object:
        frame = read(path).sort("id", "time")
        lengths = frame.group_by("id", maintain_order=True).len()
        labels = frame.group_by("id", maintain_order=True).first()["label"]
        values = frame.drop("id", "time", "label").to_numpy().astype(np.float32)
        return values, lengths, labels

    return Sides(lambda: read_file(path, options), plain, path.stat().st_size)


def csv(num_rows: int, folder: Path) -> Sides:
    import polars as pl

    path = folder / "a.csv"
    table(num_rows).write_csv(path)
    return table_sides(path, pl.read_csv)


def parquet(num_rows: int, folder: Path) -> Sides:
    import polars as pl

    path = folder / "a.parquet"
    table(num_rows).write_parquet(path)
    return table_sides(path, pl.read_parquet)


def exported(folder: Path, *, streaming: bool) -> tuple[Path, Any]:
    """Return an exported network of one feature and H = 32, and its onnxruntime session."""
    import onnxruntime

    from lightning_rnn import SequenceNetwork, export_onnx
    from lightning_rnn.models.network import NetworkOptions

    options = NetworkOptions(cell="gru", hidden_size=32)
    network = SequenceNetwork(input_size=1, num_classes=2, options=options).eval()
    path = folder / "model.onnx"
    export_onnx(network, path, class_names=["a", "b"], streaming=streaming)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    return path, onnxruntime.InferenceSession(path, session_options)


def onnx(num_sequences: int, folder: Path) -> Sides:
    """Sequences of 5 to 10 steps, against onnxruntime alone on the same padded batches."""
    from lightning_rnn import OnnxClassifier
    from lightning_rnn.export.onnx_classifier import MAX_BATCH_STEPS

    path, session = exported(folder, streaming=False)
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.integers(5, 11, num_sequences))
    sequences = [rng.standard_normal((length, 1)).astype(np.float32) for length in lengths]
    batches = []
    for start in range(0, num_sequences, MAX_BATCH_STEPS // 10):
        part = sequences[start : start + MAX_BATCH_STEPS // 10]
        part_lengths = np.array([len(sequence) for sequence in part])
        padded = np.zeros((len(part), part_lengths.max(), 1), np.float32)
        for i, sequence in enumerate(part):
            padded[i, : len(sequence)] = sequence
        batches.append({"x": padded, "lengths": part_lengths})
    classifier = OnnxClassifier(path)

    def plain() -> object:
        return [session.run(["probability"], batch) for batch in batches]

    return Sides(lambda: classifier.predict_proba(sequences), plain, int(lengths.sum()) * 4)


def streaming(num_ids: int, folder: Path) -> Sides:
    """A step of each sequence, against onnxruntime alone on the state of all."""
    from lightning_rnn import StreamingClassifier

    path, session = exported(folder, streaming=True)
    stream = StreamingClassifier(path)
    ids = [f"sensor {i}" for i in range(num_ids)]
    x = np.random.default_rng(0).standard_normal((num_ids, 1)).astype(np.float32)
    inputs = {"x": x}
    for part in session.get_inputs()[1:]:
        dtype = np.int64 if part.type == "tensor(int64)" else np.float32
        inputs[part.name] = np.zeros((num_ids, *part.shape[1:]), dtype)
    return Sides(lambda: stream.update(ids, x), lambda: session.run(None, inputs), x.nbytes)


def figures(num_epochs: int, folder: Path) -> Sides:
    """`fit` with epochs of three steps, against the same without figures."""
    from lightning_rnn.__main__ import main

    os.chdir(folder)
    arguments = ["fit", "--data.num_train=192", "--data.batch_size=64", "--model.cell=lstm"]
    arguments += [f"--trainer.max_epochs={num_epochs}", "--trainer.enable_progress_bar=false"]
    without = [f"--{name}.every_n_epochs=1000000" for name in ("figures", "gradient_flow")]
    return Sides(lambda: main(arguments), lambda: main(arguments + without), 0)


def random_sequences(num_sequences: int, **columns: Any) -> Any:
    from lightning_rnn import Sequences

    values = np.random.default_rng(0).standard_normal((100 * num_sequences, 1), dtype=np.float32)
    labels = np.arange(num_sequences) % 100
    return Sequences(values, np.full(num_sequences, 100), labels, **columns)


def group_split(num_groups: int, folder: Path) -> Sides:
    """Groups of three sequences of 100 classes."""
    from sklearn.model_selection import StratifiedGroupKFold

    from lightning_rnn.data.split import split_rows

    groups = np.random.default_rng(0).integers(num_groups, size=3 * num_groups).astype(str)
    sequences = random_sequences(3 * num_groups, groups=groups)

    def ours() -> object:
        options = {"val_fraction": 0.2, "test_fraction": 0.2, "stratify": False, "seed": 0}
        return split_rows(sequences, **options)

    def plain() -> object:
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        return next(folds.split(groups, sequences.labels.numpy(), groups))

    return Sides(ours, plain, groups.nbytes)


def inspect(num_sequences: int, folder: Path) -> Sides:
    """The command `inspect`, against reading the file and NumPy's search for equal sequences."""
    from lightning_rnn.__main__ import main

    path = folder / "a.npz"
    values = np.random.default_rng(0).standard_normal((num_sequences, 20, 1), dtype=np.float32)
    np.savez(path, X=values, y=np.arange(num_sequences) % 5)

    def plain() -> object:
        loaded = np.load(path)["X"]
        return np.unique(loaded.reshape(num_sequences, -1), axis=0)

    return Sides(lambda: main(["inspect", f"--data.train_path={path}"]), plain, values.nbytes)


def trailing_nan(num_sequences: int, folder: Path) -> Sides:
    """Padding with NaN, half of 200 steps on average, is cut; against NumPy's plain form."""
    from lightning_rnn import Sequences

    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_sequences, 200, 1), dtype=np.float32)
    x[np.arange(200) >= rng.integers(1, 201, num_sequences)[:, None]] = np.nan

    def plain() -> object:
        has_value = ~np.isnan(x).all(2)
        return np.isinf(x).any(), 200 - has_value[:, ::-1].argmax(1)

    return Sides(lambda: Sequences.from_arrays(x), plain, x.nbytes)


def streaming_export(hidden_size: int, folder: Path) -> Sides:
    """Export for single steps, against torch.onnx.export of torch's own LSTM cell and a layer."""
    import torch

    from lightning_rnn import SequenceNetwork, export_onnx
    from lightning_rnn.models.network import NetworkOptions

    options = NetworkOptions(cell="lstm", hidden_size=hidden_size)
    network = SequenceNetwork(input_size=8, num_classes=2, options=options).eval()
    cell = torch.nn.LSTMCell(8, hidden_size).eval()
    inputs = (torch.zeros(2, 8), (torch.zeros(2, hidden_size), torch.zeros(2, hidden_size)))
    path = folder / "model.onnx"

    def ours() -> object:
        return export_onnx(network, path, class_names=["a", "b"], streaming=True)

    def plain() -> object:
        return torch.onnx.export(cell, inputs, folder / "plain.onnx", dynamo=False)

    num_bytes = sum(parameter.nbytes for parameter in network.parameters())
    return Sides(ours, plain, num_bytes)


SEQUENCES = (10_000, 30_000, 100_000, 300_000)
LINES = (1_000, 3_000, 10_000, 30_000)
GROUPED = "polars, sorted and grouped"
ROWS = (10_000, 30_000, 100_000, 300_000)
CASES = {
    "validation": Case(
        validation, "classes", (10, 30, 100, 1000), "an epoch of training", {"ratio": 0.1}
    ),
    "intervals": Case(
        intervals, "sequences of 100 classes", SEQUENCES, "scikit-learn, metrics only",
        {"cpu_s": 3, "peak_mib": 300},
    ),
    "binary_intervals": Case(
        binary_intervals, "sequences", SEQUENCES, "scikit-learn, metrics only",
        {"cpu_s": 3, "peak_mib": 300},
    ),
    "temperature": Case(
        temperature, "sequences of 100 classes", SEQUENCES, "SciPy's minimize_scalar",
        {"cpu_s": 3},
    ),
    "tsv": Case(tsv, "lines of 100 values", LINES, "polars", {"ratio": 2}),
    "ts": Case(ts, "lines of 100 values", LINES, "NumPy", {"ratio": 2}),
    "csv": Case(csv, "rows of 8 features", ROWS, GROUPED, {"peak_per_input": 4}),
    "parquet": Case(parquet, "rows of 8 features", ROWS, GROUPED, {}),
    "onnx": Case(
        onnx, "sequences of 5 to 10 steps", (100, 1_000, 10_000, 30_000), "onnxruntime",
        {"ratio": 1.3},
    ),
    "streaming": Case(
        streaming, "sequences, a step of each", (10, 100, 300, 1_000), "onnxruntime",
        {"ratio": 2},
    ),
    "figures": Case(
        figures, "epochs of 3 steps", (10, 30, 100, 300), "without figures", {"ratio": 1.1}
    ),
    "group_split": Case(group_split, "groups", LINES, "scikit-learn", {"ratio": 1}),
    "inspect": Case(inspect, "sequences of 20 steps", SEQUENCES, "NumPy", {}),
    "trailing_nan": Case(trailing_nan, "sequences of 200 steps", SEQUENCES, "NumPy", {}),
    "streaming_export": Case(
        streaming_export, "hidden size", (64, 128, 256, 512), "torch.onnx.export", {}
    ),
}  # fmt: skip


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def timed(call: Call) -> float:
    """Return the median processor time of a call, of one that is long the time of a single run."""
    seconds: list[float] = []
    while not seconds or (sum(seconds) < MIN_SECONDS and len(seconds) < 1000):
        start = cpu_seconds()
        call()
        seconds.append(cpu_seconds() - start)
    return statistics.median(seconds[1:] or seconds)


def memory(name: str) -> float:
    """Return VmRSS or VmHWM of this process in MiB, see proc(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) / 1024
    return math.nan


def measure(name: str, size: int) -> dict[str, float]:
    """Measure a case at one size, in this process."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "first").mkdir()
        warm_up = case.make(case.sizes[0] if size > case.sizes[0] else size, Path(folder) / "first")
        warm_up.ours()
        warm_up.plain()
        del warm_up
        sides = case.make(size, Path(folder))
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS
        sides.ours()
        peak = memory("VmHWM") - before
        cpu_s = timed(sides.ours)
        plain_s = timed(sides.plain)
    input_mib = sides.input_bytes / 2**20
    return {
        "cpu_s": cpu_s,
        "plain_s": plain_s,
        "ratio": cpu_s / plain_s,
        "peak_mib": peak,
        "input_mib": input_mib,
        "peak_per_input": peak / input_mib if input_mib else math.nan,
    }


def rows_of(name: str, sizes: tuple[int, ...]) -> list[dict[str, object]]:
    """Measure a case at its sizes, each in a process of its own."""
    case = CASES[name]
    results = []
    for size in sizes:
        command = [sys.executable, "-m", "benchmarks.growth", "--only", name, f"--size={size}"]
        environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{command} failed: {done.stderr[-2000:]}")
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(name, size, results[-1], flush=True)
    logs = np.log([result["cpu_s"] for result in results])
    exponent = np.polyfit(np.log(sizes), logs, 1)[0]
    is_met = all(results[-1][column] <= limit for column, limit in case.target.items())
    rows = []
    for size, result in zip(sizes, results, strict=True):
        row: dict[str, object] = {"case": name, "unit": case.unit, "size": size}
        row |= {column: f"{value:.4g}" for column, value in result.items()}
        row |= {"exponent": f"{exponent:.2f}", "plain": case.plain}
        row["target"] = ", ".join(f"{column} <= {limit}" for column, limit in case.target.items())
        row["met"] = is_met if case.target else ""
        rows.append(row)
    return rows


def print_table(path: Path) -> None:
    """Print the largest size of each case as a table in Markdown."""
    largest = {row["case"]: row for row in read_rows(path)}
    print(
        "| case, largest size | CPU time, s | exponent | compared with | ratio | peak, MiB | goal |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in largest.items():
        goal = row["target"].replace("<=", "≤")
        if row["met"] == "False":
            goal += ": missed"
        cells = [f"{name}, {int(row['size']):,} {row['unit']}", row["cpu_s"], row["exponent"]]
        cells += [row["plain"], f"{float(row['ratio']):.2f}", f"{float(row['peak_mib']):.0f}", goal]
        print(f"| {' | '.join(cells)} |")


def main(only: list[str] | None = None, quick: bool = False) -> None:
    """Measure cases, and write the results of each one when it is done."""
    path = (harness.RESULTS / "quick" if quick else harness.RESULTS) / "growth.csv"
    for name in only or CASES:
        rows = rows_of(name, CASES[name].sizes[:2] if quick else CASES[name].sizes)
        kept = [row for row in read_rows(path) if row["case"] != name]
        path.unlink(missing_ok=True)
        append_rows(path, [*kept, *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES)
    parser.add_argument("--size", type=int, help="print the measurement of one size")
    parser.add_argument("--table", action="store_true", help="print the table of the results")
    options = parser.parse_args()
    if options.table:
        print_table(harness.RESULTS / "growth.csv")
    elif options.size is not None:
        print(json.dumps(measure(options.only[0], options.size)))
    else:
        main(options.only)
