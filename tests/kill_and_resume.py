"""Kill `fit` processes at random times, resume them, and compare with an undisturbed run.

    python tests/kill_and_resume.py --kills 20

Everything is switched on that could make a difference: a convolutional stem with batch statistics,
dropout, new sequences in every epoch, a cosine schedule, two validations an epoch, checkpoints
every few steps. `finished_runs.outcome` lists what is compared.
"""

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from finished_runs import outcome
from helpers import TIME_LIMIT, TWO_RANKS, process_environment

MODEL = """
    --model.stem conv --model.cell lstm --model.hidden_size 8 --model.dropout 0.3
    --model.bidirectional true
"""
DATA = """
    --data.fresh true --data.length 24 --data.min_length 5 --data.num_train 500 --data.num_val 100
    --data.seed 3
"""
TRAINING = """
    --trainer.max_epochs 12 --trainer.log_every_n_steps 2 --trainer.val_check_interval 0.5
    --checkpoint.every_n_steps 3 --trainer.enable_progress_bar false
"""
ARGS = [*MODEL.split(), *DATA.split(), *TRAINING.split()]


def start(folder: Path, ranks: int, *extra: str) -> subprocess.Popen:
    """Start `fit` in a session of its own, so that all its ranks can be killed together."""
    command = [sys.executable, "-m", "lightning_rnn", "fit", *ARGS]
    if ranks == 2:
        command += [str(word) for word in TWO_RANKS]
    command += extra
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=process_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a run to end without an error."""
    if process.wait(timeout=TIME_LIMIT) != 0:
        raise RuntimeError(f"fit ended with {process.returncode}:\n{(folder / 'log').read_text()}")


def wait_for_run_folder(process: subprocess.Popen, folder: Path) -> None:
    """Wait until a run has a run folder, or has ended."""
    while process.poll() is None and not list(folder.glob("lightning_logs/*/config.yaml")):
        time.sleep(0.01)


def kill(process: subprocess.Popen, folder: Path, delay: float, *, in_save: bool) -> bool:
    """Kill all ranks of a run.

    Args:
        process: The process of rank 0.
        folder: Its working folder.
        delay: Seconds after the run folder appears.
        in_save: Whether to wait for the next save after that.

    Returns:
        Whether the run was still alive.
    """
    wait_for_run_folder(process, folder)
    deadline = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    if in_save:
        while process.poll() is None and not unfinished_saves(folder):
            pass
    is_alive = process.poll() is None
    if is_alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return is_alive


def unfinished_saves(folder: Path) -> list[Path]:
    return list(folder.glob("lightning_logs/version_*/checkpoints/.last*"))


def killed_run(root: Path, ranks: int, delay: float, *, in_save: bool) -> tuple[Path, float]:
    """Kill a run; a run that ends before its time is repeated with a shorter delay.

    Returns:
        Its working folder, and the seconds it has lived with a run folder.
    """
    while True:
        folder = Path(tempfile.mkdtemp(dir=root))
        if kill(start(folder, ranks), folder, delay, in_save=in_save):
            return folder, delay
        delay *= 0.6


def resumed_step(folder: Path) -> str:
    """Return the step at which the last run of a folder was resumed, according to its log."""
    step = "0"
    for line in (folder / "log").read_text().splitlines():
        if line.startswith("continuing from "):
            step = line.rpartition(" step ")[2]
    return step


def undisturbed_run(root: Path, ranks: int) -> tuple[dict[str, str], float]:
    """Return the outcome of a run and the seconds it has lived with a run folder."""
    folder = Path(tempfile.mkdtemp(dir=root))
    process = start(folder, ranks)
    wait_for_run_folder(process, folder)
    begin = time.monotonic()
    finish(process, folder)
    return outcome(folder), time.monotonic() - begin


def campaign(ranks: int, kills: int, seed: int) -> int:
    """Kill and resume runs of so many ranks, print a row for each, return how many are equal."""
    rng = random.Random(seed)
    num_equal = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        expected, seconds = undisturbed_run(root, ranks)
        weights = expected["weights"][:12]
        print(
            f"{ranks} rank(s): undisturbed {seconds:.1f} s of training, weights {weights}",
            flush=True,
        )
        for number in range(kills):
            in_save = number % 4 == 0
            longest = 0.5 if in_save else 0.8
            delay = rng.uniform(0, longest * seconds)
            folder, delay = killed_run(root, ranks, delay, in_save=in_save)
            where = "inside a save" if unfinished_saves(folder) else "killed"
            finish(start(folder, ranks, "--ckpt_path", "auto"), folder)
            got = outcome(folder)
            different = [key for key, value in expected.items() if got[key] != value]
            verdict = f"DIFFERS in {', '.join(different)}" if different else "equal"
            if not different:
                num_equal += 1
            step = resumed_step(folder)
            row = f"{number + 1:2}  after {delay:5.2f} s  {where:15}  resumed at step {step:>4}"
            print(f"  {row}  {verdict}", flush=True)
    print(f"{ranks} rank(s): {num_equal} of {kills} equal", flush=True)
    return num_equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of events of killed runs
    num_equal = 0
    for ranks in options.ranks:
        num_equal += campaign(ranks, options.kills, options.seed)
    return 0 if num_equal == options.kills * len(options.ranks) else 1


if __name__ == "__main__":
    sys.exit(main())
