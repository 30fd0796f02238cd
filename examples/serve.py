"""Classify steps sent over HTTP: MODEL=step.onnx uvicorn --app-dir examples serve:app."""

import os

from fastapi import FastAPI, HTTPException

from lightning_rnn import StreamingClassifier
from lightning_rnn.errors import DataError

app = FastAPI()
stream = StreamingClassifier(os.environ["MODEL"])  # written by: export --streaming true


@app.post("/sequences/{name}")
async def update(name: str, step: list[float | None]) -> dict[str, float]:
    """Take the next step of a sequence, null where a value is missing."""
    try:
        found = stream.update([name], [[float("nan") if x is None else x for x in step]])[0]
    except DataError as error:
        raise HTTPException(422, str(error)) from error
    of_all = [1 - found, found] if found.ndim == 0 else found
    return {label: float(p) for label, p in zip(stream.class_names, of_all, strict=True)}


@app.delete("/sequences/{name}")
async def end(name: str) -> None:
    """End a sequence."""
    try:
        stream.forget([name])
    except DataError as error:
        raise HTTPException(404, str(error)) from error
