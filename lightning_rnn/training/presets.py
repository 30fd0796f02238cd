"""Presets: configs of this package whose settings apply where the user has given none."""

from pathlib import Path
from typing import Any, Literal

import yaml

PresetName = Literal["files", "tutorial"]
CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG_OF = {"files": CONFIGS / "files.yaml", "tutorial": CONFIGS / "quickstart.yaml"}


def read_preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset by group: trainer, model, data and so on."""
    return dict(yaml.safe_load(CONFIG_OF[name].read_text(encoding="utf-8")))


def data_of_preset(preset: dict[str, Any], class_name: str) -> dict[str, Any]:
    """Return a data module and its settings; none if the preset has another data module."""
    data = preset["data"]
    settings = data["init_args"] if data["class_path"] == class_name else {}
    return {"class_path": class_name, "init_args": settings}
