"""The model card of an exported model (Mitchell et al. 2019, arXiv:1810.03993)."""

import re
from pathlib import Path
from typing import Any

import yaml

from lightning_rnn.atomic_files import sha256, write_and_keep
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.evaluation.saved_metrics import SavedMetrics
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.report import render, versions
from lightning_rnn.training.settings import FROM_DATA, changed_first

FILE_NAME = "model_card.md"


def metrics_of(run: CheckpointFile) -> SavedMetrics | None:
    """Return the metrics in the run folder if they are those of the checkpoint.

    Raises:
        DataError: If the file is damaged.
    """
    path = run.run_folder / "test_metrics.json"
    if not path.is_file():
        return None
    metrics = SavedMetrics.read(path)
    is_own = metrics.origin.get("checkpoint") == sha256(run.path)
    return metrics if is_own else None


def write_model_card(
    run: CheckpointFile, model: SequenceClassifier, exported: Path, metrics: SavedMetrics | None
) -> Path:
    """Write `model_card.md` beside an exported file, and return its path.

    An earlier card that differs, which may have been filled in, is kept as `model_card-1.md` and so
    on. Of paths of data, only the names of the files are told.
    """
    data = {key: file_names(value) for key, value in run.data_settings.items()}
    settings = changed_first(run.hyper_parameters, data, DATA_MODULES.get(str(run.data_class)))
    settings = {name: value for name, value in settings.items() if name not in FROM_DATA}
    of_data = {"class": run.data_class, "fingerprints": run.fingerprints}
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    options = model.options
    content = {
        "run": run,
        "schema": model.schema,
        "network": f"{options.cell} of size {options.hidden_size}, {num_parameters} parameters",
        "checksums": {exported.name: sha256(exported), run.path.name: sha256(run.path)},
        "data": as_yaml(of_data),
        "metrics": metrics,
        "settings": as_yaml(settings),
        "versions": versions(),
    }
    path = exported.with_name(FILE_NAME)
    write_and_keep(path, render(FILE_NAME, content, finalize=escape_markdown) + "\n")
    return path


def as_yaml(value: Any) -> str:
    """Return settings as YAML without a line break at the end."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.rstrip()


def file_names(value: Any) -> Any:
    """Return the name of a file for its absolute path, also within a list."""
    if isinstance(value, list):
        return [file_names(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def escape_markdown(value: Any) -> Any:
    """Return a value as text that Markdown shows as it is; templates mark what is safe already."""
    if hasattr(value, "__html__"):
        return value
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if isinstance(value, float):
        value = f"{value:.4f}"
    from markupsafe import Markup

    text = " ".join(str(value).split())
    return Markup(re.sub(r"([\\`*_\[\]<>|&#$~])", r"\\\1", text))
