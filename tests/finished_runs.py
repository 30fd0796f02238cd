"""What a finished run has left, in a form that can be compared with that of another run."""

import csv
import hashlib
from pathlib import Path

import torch
from helpers import load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def newest(folder: Path) -> Path:
    """Return the newest run folder."""
    run_folders = (folder / "lightning_logs").glob("version_*")
    return max(run_folders, key=lambda path: int(path.name.removeprefix("version_")))


def digest(value: object) -> str:
    """Return the SHA-256 of nested values; of tensors, dtype, shape and bytes count."""
    sha = hashlib.sha256()
    _update(sha, value)
    return sha.hexdigest()


def _update(sha: "hashlib._Hash", value: object) -> None:
    if isinstance(value, torch.Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            sha.update(str(key).encode())
            _update(sha, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _update(sha, item)
    else:
        sha.update(repr(value).encode())


def history(run_folder: Path) -> list[tuple[str, int, float]]:
    """Return (tag, step, value) of all scalars that TensorBoard shows, except measured times."""
    events = EventAccumulator(str(run_folder), size_guidance={"scalars": 0}).Reload()
    rows = []
    for tag in events.Tags()["scalars"]:
        if not tag.endswith("per_second"):
            rows += [(tag, event.step, event.value) for event in events.Scalars(tag)]
    for path in run_folder.glob("metrics*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        for row in table:
            step = int(row.pop("step"))
            for tag, value in row.items():
                if value and not tag.endswith("per_second"):
                    rows.append((f"{path.name} {tag}", step, float(value)))
    return sorted(set(rows))  # the same again is not seen


def outcome(folder: Path) -> dict[str, str]:
    """Return digests of all that the newest run below a folder has left."""
    run_folder = newest(folder)
    last = load(run_folder / "checkpoints/last.ckpt")
    best = load(run_folder / "checkpoints/best.ckpt")
    return {
        "weights": digest(last["state_dict"]),
        "best": digest([best[name] for name in ("state_dict", "global_step", "epoch", "metrics")]),
        "optimiser": digest([last["optimizer_states"], last["lr_schedulers"]]),
        "order": digest(last["loops"]["fit_loop"]["state_dict"]["combined_loader"]),
        "callbacks": digest(without_places(last["callbacks"], run_folder)),
        "training metrics": digest([last["train_sums"], last["metrics"]]),
        "progress": digest([last["global_step"], last["epoch"]]),
        "history": digest(history(run_folder)),
        "files": digest(sorted(path.name for path in run_folder.rglob("*") if is_compared(path))),
    }


def is_compared(path: Path) -> bool:
    """Return whether a file has the same name in each run."""
    return path.is_file() and not path.name.startswith("events.")


# of callbacks: a measured time, and a number that Lightning stores and does not restore
NOT_COMPARED = ("time_elapsed", "current_score")


def without_places(value: object, run_folder: Path) -> object:
    """Return nested values without what differs between equal runs."""
    if isinstance(value, dict):
        kept = {}
        for key, inner in value.items():
            if key not in NOT_COMPARED:
                kept[without_places(str(key), run_folder)] = without_places(inner, run_folder)
        return kept
    if isinstance(value, list | tuple):
        return [without_places(inner, run_folder) for inner in value]
    if isinstance(value, str):
        return value.replace(str(run_folder.parent.parent), "").replace(run_folder.name, "")
    return value
