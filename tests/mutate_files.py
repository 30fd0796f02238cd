"""Read thousands of mutated checkpoints, packed folders and ONNX files.

    python tests/mutate_files.py --cases 10000
    python tests/mutate_files.py --seed 3 --first 1234 --cases 1    # case 1234 of seed 3 again

Each case changes a good file: entries of a checkpoint, arrays of a packed folder, metadata or nodes
of an ONNX file, with valid checksums and digests, or bytes of any of them. Each file is read by
this package, in this process; what is accepted is then used, too, often by a command. A case is
refused (one message, exit code 1 or 2, no new and no changed file), equal (what was read is the
same), or used (the change is one that the file may have: what a command did with it has no
traceback, and its predictions are probabilities). Everything else is a fault: another error, a file
left behind, a change of bytes that was read, more than 1 GB of memory, more than two minutes.
"""

import argparse
import gc
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import polars as pl
import torch
from helpers import BEST, ERROR, LAST, LONG, TINY, TINY_DATA, long_table, run_here
from mutations import mutated, mutated_bytes, other_array

from lightning_rnn import OnnxClassifier, SequenceClassifier, StreamingClassifier, read_file
from lightning_rnn.data.readers import ReadOptions
from lightning_rnn.data.readers.checked_folders import mark_as_checked
from lightning_rnn.errors import LightningRNNError
from lightning_rnn.export.onnx_metadata import METADATA_KEY, with_digest
from lightning_rnn.training.checkpoint_file import CheckpointFile, load_checkpoint

MAX_BYTES = 10**9  # of memory, that of the interpreter and all libraries included
SECONDS = 120  # that a case may take
FILES_OF_RUNS = {
    "files": (
        *("--data.train_path", "train.csv", "--data.test_path", "train.csv", *LONG),
        *("--data.val_fraction", 0.2, "--model.bidirectional", "false", "--model.stem", "none"),
    ),
    "synthetic": TINY_DATA,
}
COMMANDS = {
    "predict": ("predict", "--output", "predictions.csv", "--ckpt_path", LAST),
    "resume": ("fit", "--trainer.max_epochs", 3, "--ckpt_path", LAST),
    "resume newest": ("fit", "--trainer.max_epochs", 3, "--ckpt_path", "last"),
    "warm start": ("fit", "--trainer.max_epochs", 1, "--init_from", LAST),
    "export": ("export", "--output", "model.onnx", "--ckpt_path", LAST),
    "validate": ("validate", "--ckpt_path", LAST),
    "test": ("test", "--ckpt_path", LAST),
}
WEIGHTS = (20, 12, 4, 4, 2, 1, 1)  # of the commands: the last ones take seconds
PART_RUN = 0.35  # part of the changed checkpoints with which a command is run
OFTEN = 0.15  # part of the cases in which bytes are changed


class Fault(Exception):
    """What must not happen."""


@dataclass(frozen=True)
class Originals:
    """Folders with good files."""

    root: Path

    def make(self) -> None:
        """Train two runs, pack a file, and export a network for sequences and for steps."""
        for name, data in FILES_OF_RUNS.items():
            folder = self.root / name
            folder.mkdir()
            with chdir(folder):
                long_table([f"s{i}" for i in range(30)]).write_csv("train.csv")
                _run("fit", *TINY, *data)
        packed = self.root / "packs"
        packed.mkdir()
        options = [str(word).replace("data.", "") for word in LONG]
        with chdir(packed):
            shutil.copy(self.root / "files/train.csv", "train.csv")
            _run("pack", "--input", "train.csv", "--output", "packed", *options)
        exported = self.root / "onnx"
        exported.mkdir()
        for name, flags in (("whole", ()), ("step", ("--streaming", "true"))):
            path = self.root / "files" / BEST
            _run("export", "--ckpt_path", path, "--output", exported / f"{name}.onnx", *flags)


def _run(*args: object) -> None:
    result = run_here(*args)
    if result.code != 0:
        raise RuntimeError(result.err)


def checkpoint_case(folder: Path, rng: random.Random) -> tuple[str, Callable[[], str]]:
    """Change a checkpoint; return how, and a function that reads it."""
    path = folder / LAST
    original = path.read_bytes()
    expected = repr(torch.load(path, weights_only=True))
    is_bytes = rng.random() < OFTEN
    if is_bytes:
        content, text = mutated_bytes(original, rng)
        path.write_bytes(content)
    elif rng.random() < 0.15:
        text = _change_archive(path, rng)
    else:
        changed, text = mutated(torch.load(path, weights_only=True), rng)
        torch.save(changed, path)
    command = rng.choices(list(COMMANDS), WEIGHTS)[0]
    is_run = rng.random() < PART_RUN

    def read() -> str:
        try:
            got = repr(load_checkpoint(path))
        except LightningRNNError as error:
            _check_message(str(error))
            if rng.random() < 0.9:  # a command begins by reading, which takes longer
                return "refused"
            got = ""
        if got == expected:
            return "equal"
        if is_bytes and got:
            raise Fault("changed bytes were read")
        if is_run:
            return _use(folder, *COMMANDS[command])
        return _predict(path)

    return f"{command if is_run else 'read'}: {text}", read


def _predict(path: Path) -> str:
    """Build the network of a checkpoint, load its weights and predict, as commands do."""
    try:
        checkpoint = CheckpointFile.read(path)
        model = SequenceClassifier(**checkpoint.hyper_parameters)
        checkpoint.restore(model)
        x = torch.linspace(-1, 1, 6 * model.hparams["input_size"]).reshape(2, 3, -1)
        model.predict_proba(x.numpy())
    except LightningRNNError as error:
        _check_message(str(error))
        return "refused"
    return "used"


def _change_archive(path: Path, rng: random.Random) -> str:
    """Change entries of the ZIP archive of a checkpoint, with valid checksums."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name, other = rng.sample(sorted(entries), 2)
    kind = rng.choice(("remove", "swap", "bytes", "pickle", "name"))
    if kind == "remove":
        del entries[name]
    elif kind == "swap":
        entries[name], entries[other] = entries[other], entries[name]
    elif kind == "name":
        entries[name + "x"] = entries.pop(name)
    else:
        if kind == "pickle":
            name = next(each for each in entries if each.endswith("data.pkl"))
        if entries[name]:
            entries[name], _ = mutated_bytes(entries[name], rng)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    return f"archive: {kind} {name}"


def pack_case(folder: Path, rng: random.Random) -> tuple[str, Callable[[], str]]:
    """Change a packed folder; return how, and a function that reads it."""
    packed = folder / "packed"
    expected = _content(packed)
    names = sorted(path.name for path in packed.iterdir())
    name = rng.choice(names)
    path = packed / name
    kind = rng.choice(("bytes", "array", "array", "array", "remove", "swap", "json"))
    text = f"{kind} {name}"
    if kind == "bytes":
        changed, text = mutated_bytes(path.read_bytes(), rng)
        text = f"{name}: {text}"
        path.write_bytes(changed)
    elif kind == "remove":
        path.unlink()
    elif kind == "swap":
        other = packed / rng.choice(names)
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif kind == "json":
        path = packed / rng.choice(("checked", "categories.json"))
        stored = json.loads(path.read_text()) if path.exists() else {"a": ["x", "y"]}
        changed, text = mutated(stored, rng)
        path.write_text(json.dumps(changed, default=str))
    else:
        path = packed / rng.choice([each for each in names if each.endswith(".npy")])
        array = other_array(np.load(path), rng)
        np.save(path, array)
        text = f"{path.name}: {array.dtype} {array.shape} {array.reshape(-1)[:2]!r}"
    digest = rng.choice(("as it was", "valid", "none"))
    if digest == "valid" and kind != "json":
        mark_as_checked(packed)
    elif digest == "none":
        (packed / "checked").unlink(missing_ok=True)
    has_digest = digest == "as it was"
    command = rng.choice((None, None, None, "inspect", "fit"))

    def read() -> str:
        try:
            got = _content(packed)
        except LightningRNNError as error:
            _check_message(str(error))
            return "refused"
        if got == expected:
            return "equal"
        if has_digest:
            raise Fault("changed files were read")
        if command is None:
            return "used"
        return _use(folder, command, "--data.train_path", packed, *_options_of(command))

    return f"{text}; digest: {digest}", read


def _options_of(command: str) -> tuple[object, ...]:
    return (*TINY, "--data.val_fraction", 0.3) if command == "fit" else ()


def _content(packed: Path) -> str:
    contents = read_file(packed, ReadOptions(require_labels=True))
    sequences = contents.sequences
    batch = sequences.batch(torch.arange(len(sequences)))
    return repr((batch.x.tolist(), batch.lengths.tolist(), list(contents.labels), sequences.ids))


def onnx_case(folder: Path, rng: random.Random) -> tuple[str, Callable[[], str]]:
    """Change an ONNX file; return how, and a function that reads it."""
    name = rng.choice(("whole", "step"))
    path = folder / f"{name}.onnx"
    original = path.read_bytes()
    expected = _predictions(path)
    model = onnx.load_from_string(original)
    kind = rng.choice(
        ("metadata", "metadata", "metadata", "text", "graph", "signed bytes", "bytes")
    )
    stored = next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    text = kind
    if kind == "metadata":
        changed, text = mutated({METADATA_KEY: json.loads(stored)}, rng)
        value = json.dumps(changed.get(METADATA_KEY), default=str)
        onnx.helper.set_model_props(model, {METADATA_KEY: value})
    elif kind == "text":
        value = rng.choice(("[]", "null", "x", "", "{}", "3", stored[:-1], stored * 2, "[" * 9999))
        onnx.helper.set_model_props(model, {METADATA_KEY: value})
    elif kind == "graph":
        text = _change_graph(model.graph, rng)
    content = with_digest(model.SerializeToString())
    if kind == "signed bytes":
        content, text = mutated_bytes(original[: -len(with_digest(b""))], rng)
        content = with_digest(content)
    elif kind == "bytes":
        content, text = mutated_bytes(original, rng)
    path.write_bytes(content)

    def read() -> str:
        try:
            got = _predictions(path)
        except LightningRNNError as error:
            _check_message(str(error))
            return "refused"
        if got == expected:
            return "equal"
        if kind == "bytes" and content != original:
            raise Fault("changed bytes were read")
        return "used"

    return f"{name}: {kind}: {text}", read


def _change_graph(graph: Any, rng: random.Random) -> str:
    kind = rng.choice(("initializer", "dims", "node", "no node", "output", "operator"))
    if kind == "initializer":
        tensor = rng.choice(graph.initializer)
        array = other_array(onnx.numpy_helper.to_array(tensor), rng)
        if array.dtype.kind in "iuf":
            native = array.astype(array.dtype.newbyteorder("="))
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(native), tensor.name))
        return f"initializer {tensor.name}: {array.dtype} {array.shape}"
    if kind == "dims":
        tensor = rng.choice(graph.initializer)
        tensor.dims.append(rng.choice((0, 2, 10**9)))
    elif kind == "node":
        node = rng.choice(graph.node)
        node.input[:] = rng.sample(list(node.input), len(node.input))
    elif kind == "no node":
        graph.node.remove(rng.choice(graph.node))
    elif kind == "operator":
        rng.choice(graph.node).op_type = rng.choice(("Add", "Exp", "Unknown", "Reshape"))
    else:
        rng.choice(graph.output).name = "other"
    return kind


def _predictions(path: Path) -> str:
    rows = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 2, 2)  # two sequences (T, F)
    if path.stem == "whole":
        classifier = OnnxClassifier(path)
        return repr((classifier.predict_proba(rows).tolist(), classifier.predict(rows).tolist()))
    stream = StreamingClassifier(path)
    return repr([stream.update(["a", "b"], rows[:, step]).tolist() for step in range(2)])


def _use(folder: Path, *args: object) -> str:
    """Run a command in a folder; a Fault if it does not end as it should."""
    before = _files(folder)
    with chdir(folder):
        result = run_here(*args)
    if "Traceback" in result.out + result.err:
        raise Fault(f"traceback: {result.err[-300:]}")
    if result.code != 0:
        if result.code not in (1, 2) or not result.err.startswith(ERROR):
            raise Fault(f"exit code {result.code}: {result.err[:300]}")
        _check_message(result.err.removesuffix("\n"))
        changed = {path for path, state in _files(folder).items() if before.get(path) != state}
        if "fit" not in args and changed:
            raise Fault(f"left behind: {changed}")
        drafts = [path for path in changed if re.search(r"\.tmp|\.draft|~$", path.name)]
        if drafts:
            raise Fault(f"left behind: {drafts}")
        return "refused"
    predictions = folder / "predictions.csv"
    if predictions.exists():
        for column in pl.read_csv(predictions).select("^probability.*$"):
            if not column.is_between(0, 1).all() or column.is_nan().any():
                raise Fault(f"{column.name} is not from 0 to 1")
    return "used"


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    states = {}
    for path in folder.rglob("*"):
        status = path.stat()
        states[path] = (status.st_mtime_ns, status.st_ino)
    return states


def _check_message(message: str) -> None:
    if "\n" in message or not message:
        raise Fault(f"a message of several lines: {message[:300]!r}")
    if len(message) > 1000:
        raise Fault(f"a message of {len(message)} characters: {message[:200]!r}")


def _peak_memory() -> int:
    """Return the most bytes that this process has had since the last call, and begin anew."""
    text = Path("/proc/self/status").read_text()
    peak = int(re.findall(r"VmHWM:\s*(\d+)", text)[0]) * 1024
    Path("/proc/self/clear_refs").write_text("5")
    return peak


KINDS = {"files": checkpoint_case, "synthetic": checkpoint_case, "packs": pack_case}
KINDS["onnx"] = onnx_case


def examine(number: int, seed: int, originals: Path) -> tuple[str, str, str]:
    """Run a case; return the kind of its file, its verdict and its description."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choices(list(KINDS), (2, 2, 3, 3))[0]
    text = ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "case"
        shutil.copytree(originals / kind, folder)
        _peak_memory()
        signal.alarm(SECONDS)
        try:
            text, read = KINDS[kind](folder, rng)
            gc.collect(0)
            verdict = read()
        except Fault as fault:
            verdict = f"FAULT: {fault}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            verdict = f"FAULT: {type(error).__name__} in {where}: {str(error)[:300]}"
        finally:
            signal.alarm(0)
    peak = _peak_memory()
    if peak > MAX_BYTES:
        verdict = f"FAULT: {peak / 1e6:.0f} MB of memory ({verdict})"
    return kind, verdict, text


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise Fault(f"takes more than {SECONDS} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    end = time.monotonic() + 60 * options.minutes
    verdicts: Counter[tuple[str, str]] = Counter()
    num_faults = 0
    with tempfile.TemporaryDirectory() as name:
        originals = Originals(Path(name))
        originals.make()
        os.environ["COLUMNS"] = "200"
        for number in range(options.first, options.first + options.cases):
            if time.monotonic() > end:
                break
            kind, verdict, text = examine(number, options.seed, originals.root)
            is_fault = verdict.startswith("FAULT")
            verdicts[kind, "fault" if is_fault else verdict] += 1
            if is_fault or options.cases == 1:
                num_faults += is_fault
                print(f"{number:5}  {kind}: {verdict}\n       {text[:300]!r}", flush=True)
    for (kind, verdict), count in sorted(verdicts.items()):
        print(f"{kind}: {verdict} {count}")
    print(f"seed {options.seed}: {sum(verdicts.values())} cases, {num_faults} faults")
    return int(num_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
