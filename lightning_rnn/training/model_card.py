"""The model card of an exported model (Mitchell et al. 2019, arXiv:1810.03993)."""

import re
from pathlib import Path
from typing import Any

import yaml

from lightning_rnn.atomic_files import sha256, write_and_keep
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.evaluation.saved_metrics import metric_texts, read_metrics
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.report import render, versions
from lightning_rnn.training.settings import FROM_DATA, changed_first


def metrics_of(run: CheckpointFile) -> dict[str, Any] | None:
    """Return the content of `test_metrics.json` if the metrics are those of the checkpoint.

    Raises:
        DataError: If the file is damaged.
    """
    if not (run.run_folder / "test_metrics.json").is_file():
        return None
    saved = read_metrics(run.run_folder)
    return saved if saved["origin"]["checkpoint"] == run.checksum else None


def write_model_card(
    run: CheckpointFile, model: SequenceClassifier, exported: Path, saved: dict[str, Any] | None
) -> Path:
    """Write `model_card.md` beside an exported file, and return its path.

    An earlier card that differs, which may have been filled in, is kept as `model_card-1.md` and so
    on. The card contains no paths of data files.
    """
    data_class = DATA_MODULES.get(str(run.data_class), object)
    settings, _ = changed_first(run.hyper_parameters, run.data_settings, data_class)
    shown = {}
    for name, value in settings.items():
        if name not in FROM_DATA and not name.endswith("_path"):
            shown[name] = value
    content = {
        "run": run,
        "model": model,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "checksums": {exported.name: sha256(exported), run.path.name: run.checksum},
        "saved": saved,
        "metrics": metric_texts(saved or {}),
        "settings": yaml.safe_dump(shown, sort_keys=False, allow_unicode=True),
        "versions": versions(),
    }
    path = exported.with_name("model_card.md")
    write_and_keep(path, render(path.name, content, finalize=escape_markdown) + "\n")
    return path


def escape_markdown(value: Any) -> Any:
    """Return a value as text that Markdown shows as it is, unless a template says it is safe."""
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    if isinstance(value, list):
        value = ", ".join(value)
    text = " ".join(str(value).split())
    return Markup(re.sub(r"([\\`*_\[\]<>|&#$~])", r"\\\1", text))
