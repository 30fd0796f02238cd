"""Reading what `test` has written into a run folder."""

import json
from pathlib import Path
from typing import Any

from lightning_rnn.errors import DataError

NO_METRICS = ("_low", "_high", "/num_sequences")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return the content of `test_metrics.json`; a DataError if `test` has not written it."""
    path = folder / "test_metrics.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name in ("test/num_sequences", "test/accuracy", "test/log_loss"):
            float(content[name])
        content["classes"].items()
        content["origin"]["checkpoint"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(f"{path}: expected metrics as written by test") from None
    return content


def metric_texts(content: dict[str, Any]) -> dict[str, str]:
    """Return the value of each metric, with its interval if it has one, by name."""
    texts = {}
    for key in sorted(content):
        if key.startswith("test/") and not key.endswith(NO_METRICS):
            text = f"{content[key]:.4f}"
            if f"{key}_low" in content:
                text += f" ({content[f'{key}_low']:.4f}-{content[f'{key}_high']:.4f})"
            texts[key.removeprefix("test/")] = text
    return texts


def read_predictions(folder: Path) -> Any:
    """Return the polars frame in `test_predictions.csv`; a DataError if it is damaged."""
    import polars

    path = folder / "test_predictions.csv"
    try:
        frame = polars.read_csv(path, infer_schema=False).fill_null("")
        frame.select("id", "label", "true_label")
    except (OSError, polars.exceptions.PolarsError):
        raise DataError(f"{path}: expected predictions as written by test") from None
    return frame
