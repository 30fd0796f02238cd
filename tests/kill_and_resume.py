"""Kill real `fit` processes at random moments, resume them, and compare with a run that was never disturbed.

    python tests/kill_and_resume.py --kills 20

Everything that could differ is on: convolutional stem with its statistics, dropout, new sequences in every epoch,
cosine schedule, two validations an epoch, checkpoints every few steps. Compared by SHA-256: weights and buffers,
optimiser state, order of samples, random states, and the history of (tag, step, value) in the TensorBoard events.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ARGS = [
    "--model.stem",
    "conv",
    "--model.cell",
    "lstm",
    "--model.hidden_size",
    "8",
    "--model.dropout",
    "0.3",
    "--model.bidirectional",
    "true",
    "--data.fresh",
    "true",
    "--data.length",
    "24",
    "--data.min_length",
    "5",
    "--data.num_train",
    "500",
    "--data.num_val",
    "100",
    "--data.seed",
    "3",
    "--trainer.max_epochs",
    "12",
    "--trainer.log_every_n_steps",
    "2",
    "--trainer.val_check_interval",
    "0.5",
    "--checkpoint.every_n_steps",
    "3",
    "--trainer.enable_progress_bar",
    "false",
]
DDP = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def start(folder: Path, ranks: int, *extra: str) -> subprocess.Popen:
    """Start a `fit` in a session of its own, so that all its ranks can be killed together."""
    command = [
        sys.executable,
        "-m",
        "lightning_rnn",
        "fit",
        *ARGS,
        *(DDP if ranks == 2 else []),
        *extra,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env.pop("MASTER_PORT", None)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a run to end well."""
    if process.wait(timeout=300) != 0:
        raise RuntimeError(f"fit ended with {process.returncode}:\n{(folder / 'log').read_text()}")


def newest(folder: Path) -> Path:
    """Return the newest run folder."""
    return max((folder / "lightning_logs").glob("version_*"), key=lambda path: int(path.name[8:]))


def sha(value: object) -> str:
    """Hash nested values, tensors by their bytes."""
    digest = hashlib.sha256()

    def feed(item: object) -> None:
        if isinstance(item, torch.Tensor):
            digest.update(
                f"{item.dtype}{tuple(item.shape)}".encode() + item.contiguous().numpy().tobytes()
            )
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                digest.update(str(key).encode())
                feed(item[key])
        elif isinstance(item, list | tuple):
            for inner in item:
                feed(inner)
        else:
            digest.update(repr(item).encode())

    feed(value)
    return digest.hexdigest()


def history(run: Path) -> list[tuple[str, int, float]]:
    """Return the scalars as TensorBoard shows them, but for what was timed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.endswith("per_second")]
    return sorted((tag, e.step, e.value) for tag in tags for e in events.Scalars(tag))


def outcome(folder: Path) -> dict[str, str]:
    """Return the hashes of what a finished run has left."""
    run = newest(folder)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    return {
        "weights": sha(last["state_dict"]),
        "best": sha([best["state_dict"], best["global_step"]]),
        "optimiser": sha(last["optimizer_states"]),
        "order": sha(last["loops"]["fit_loop"]["state_dict"]["combined_loader"]),
        "random": sha(last["callbacks"]),
        "history": sha(history(run)),
    }


def kill(process: subprocess.Popen, folder: Path, delay: float, in_save: bool) -> bool:
    """Kill all ranks, `delay` seconds after the run folder appears, or at the next save after that."""
    checkpoints = None
    while process.poll() is None and checkpoints is None:
        found = list(folder.glob("lightning_logs/version_*/config.yaml"))
        checkpoints = found[0].parent / "checkpoints" if found else None
        time.sleep(0.01)
    deadline = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    while in_save and process.poll() is None:
        if (
            checkpoints
            and checkpoints.is_dir()
            and any(n.startswith(".last") for n in os.listdir(checkpoints))
        ):
            break
    alive = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL) if alive else None
    process.wait()
    return alive


def campaign(ranks: int, kills: int, seed: int) -> int:
    """Run the experiment for one number of ranks, print a row a kill, return how many came out equal."""
    rng, equal = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as root:
        whole = Path(root) / "whole"
        whole.mkdir()
        process, begin = start(whole, ranks), time.monotonic()
        while not list(whole.glob("lightning_logs/version_*/config.yaml")):
            time.sleep(0.01)
        ready = time.monotonic() - begin
        finish(process, whole)
        span = time.monotonic() - begin - ready
        wanted = outcome(whole)
        print(
            f"{ranks} rank(s): undisturbed {span:.1f} s of training, weights {wanted['weights'][:12]}",
            flush=True,
        )
        for number in range(kills):
            in_save = number % 4 == 0
            delay, killed = rng.uniform(0, span * (0.5 if in_save else 0.8)), False
            while (
                not killed
            ):  # a run that was over before its time came says nothing: a new one, killed earlier
                folder = Path(tempfile.mkdtemp(dir=root))
                killed = kill(start(folder, ranks), folder, delay, in_save)
                delay *= 1 if killed else 0.6
            left = list(folder.glob("lightning_logs/version_*/checkpoints/.last*"))
            finish(start(folder, ranks, "--ckpt_path", "auto"), folder)
            resumed = [
                line
                for line in (folder / "log").read_text().splitlines()
                if line.startswith(("contin", "noth"))
            ]
            found = outcome(folder)
            differ = [name for name in wanted if found[name] != wanted[name]]
            equal += not differ
            where = "inside a save" if left else "killed"
            verdict = f"DIFFERS in {', '.join(differ)}" if differ else "equal"
            step = resumed[-1].rsplit(" ", 1)[-1] if resumed and "step" in resumed[-1] else "0"
            print(
                f"  {number + 1:2}  after {delay:5.2f} s  {where:15}  resumed at step {step:>4}  {verdict}",
                flush=True,
            )
    print(f"{ranks} rank(s): {equal} of {kills} equal", flush=True)
    return equal


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    sys.exit(
        sum(campaign(r, options.kills, options.seed) for r in options.ranks)
        != options.kills * len(options.ranks)
    )
