"""What a finished run has left, in a form that can be compared with that of another run."""

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
        sha.update(value.contiguous().numpy().tobytes())
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
    return sorted(rows)


def outcome(folder: Path) -> dict[str, str]:
    """Return digests of all that the newest run below a folder has left."""
    run_folder = newest(folder)
    last = load(run_folder / "checkpoints/last.ckpt")
    best = load(run_folder / "checkpoints/best.ckpt")
    return {
        "weights": digest(last["state_dict"]),
        "best": digest([best["state_dict"], best["global_step"]]),
        "optimiser": digest(last["optimizer_states"]),
        "order": digest(last["loops"]["fit_loop"]["state_dict"]["combined_loader"]),
        "callbacks": digest(last["callbacks"]),
        "training metrics": digest([last["train_sums"], last["metrics"]]),
        "history": digest(history(run_folder)),
    }
