"""Run folders and the checkpoints in them."""

from pathlib import Path
from typing import Any

import torch

from lightning_rnn.data.modules import DATA_MODULES
from lightning_rnn.errors import CheckpointError


class StoredRun:
    """A checkpoint's settings and the run folder it belongs to.

    Attributes:
        path: The checkpoint.
        folder: The run folder, or the checkpoint's own where it lies in none.
        model: The model's hyper-parameters.
        data_name: `SyntheticDataModule`, `FileDataModule`, or None for a user's own class.
        data: The data module's settings.
    """

    def __init__(self, path: Path) -> None:
        """Read a checkpoint's settings.

        Raises:
            CheckpointError: The file is missing or no checkpoint of this package.
        """
        self.path = path.absolute()
        inside = self.path.parent.name == "checkpoints"
        self.folder = self.path.parent.parent if inside else self.path.parent
        content = load_checkpoint(path)
        self.model: dict[str, Any] = content["hyper_parameters"]
        self.data_name = next((name for name in DATA_MODULES if name in content), None)
        self.data: dict[str, Any] = content[self.data_name]["settings"] if self.data_name else {}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint, executing nothing in it.

    Args:
        path: The file.

    Returns:
        Its content, with hyper-parameters and weights in it.

    Raises:
        CheckpointError: The file is missing, damaged, or no checkpoint of this package.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path}: found {found}, accepted is a checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken part does
        raise CheckpointError(f"{path}: not a readable checkpoint ({type(error).__name__})") from None
    keys = ("hyper_parameters", "state_dict")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in keys):
        raise CheckpointError(f"{path}: found no model of this package in it")
    return content


def newest_run(root: Path) -> Path:
    """Return the best checkpoint of the newest run under `root`/lightning_logs.

    Raises:
        CheckpointError: There is none.
    """
    runs = (root / "lightning_logs").glob("version_*/checkpoints/best.ckpt")
    numbered = [(int(path.parts[-3][8:]), path) for path in runs if path.parts[-3][8:].isdigit()]
    if not numbered:
        raise CheckpointError(
            f"no run with a best checkpoint under {root / 'lightning_logs'}; accepted is --ckpt_path FILE"
        )
    return max(numbered)[1]
