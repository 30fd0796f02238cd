"""Start several `fit` processes at once in one folder and compare each run with its options.

    python tests/start_together.py --rounds 20

Each process has a hidden size of its own. Every one must end with exit code 0, and its run folder
must hold its own settings, weights and history, and nothing else.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from helpers import CPU, TIME_LIMIT, TINY_DATA, load, process_environment

ARGS = (*TINY_DATA, *CPU, "--trainer.max_epochs", 2)
FILES = {"best.ckpt", "last.ckpt", "previous.ckpt", "config.yaml", "finished.txt", "hparams.yaml"}


def start(folder: Path, hidden_size: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lightning_rnn", "fit", *map(str, ARGS)]
    return subprocess.Popen(
        [*command, "--model.hidden_size", str(hidden_size)],
        cwd=folder,
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def hidden_size_of(run_folder: Path) -> int:
    """Return the hidden size that all files of a run agree on."""
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    size: int = config["model"]["hidden_size"]
    names = {path.name for path in run_folder.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.")}
    assert len(events) == 1, sorted(names)
    assert names - events == FILES, sorted(names)
    for path in run_folder.glob("checkpoints/*.ckpt"):
        content = load(path)
        assert content["hyper_parameters"]["hidden_size"] == size, path
        assert content["state_dict"]["network.head.weight"].shape == (1, size), path
    return size


def start_together(folder: Path, count: int) -> None:
    """Raise an AssertionError if `count` processes that start at once disturb each other."""
    sizes = list(range(2, 2 + count))
    processes = [start(folder, size) for size in sizes]
    for process in processes:
        output, _ = process.communicate(timeout=TIME_LIMIT)
        assert process.returncode == 0, output
    run_folders = sorted((folder / "lightning_logs").iterdir())
    assert sorted(map(hidden_size_of, run_folders)) == sizes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory() as name:
            start_together(Path(name), options.processes)
        print(f"round {number}: {options.processes} runs, each in a folder of its own", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
