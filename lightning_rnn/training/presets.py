"""Presets: configs of this package whose settings apply where the user has given none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

PresetName = Literal["files", "tutorial"]
CONFIG_OF: dict[str, str] = {"files": "files.yaml", "tutorial": "quickstart.yaml"}
CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Preset:
    """The settings of a config, by group: trainer, model, data and so on."""

    name: str
    path: Path
    settings: dict[str, Any]

    @classmethod
    def read(cls, name: str) -> "Preset":
        """Read the config of a preset, files or tutorial."""
        path = CONFIGS / CONFIG_OF[name]
        return cls(name, path, yaml.safe_load(path.read_text(encoding="utf-8")))

    def options(self) -> dict[str, Any]:
        """Return all settings but those of the data, by option, such as model.cell."""
        options: dict[str, Any] = {}
        for group, settings in self.settings.items():
            if group == "data":
                continue
            if isinstance(settings, dict):
                options |= {f"{group}.{name}": value for name, value in settings.items()}
            else:
                options[group] = settings
        return options

    def data(self, class_name: str) -> dict[str, Any]:
        """Return a data module and its settings; none if the config has another data module."""
        data = self.settings["data"]
        settings = data["init_args"] if data["class_path"] == class_name else {}
        return {"class_path": class_name, "init_args": settings}
