"""Files that are written as a whole or not at all."""

import errno
from pathlib import Path

import pytest

from lightning_rnn.atomic_files import write_and_keep


def test_an_earlier_file_is_kept_if_it_differs(tmp_path):
    path = tmp_path / "metrics.json"
    for text in ("first", "first", "second", "third"):
        write_and_keep(path, text)
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert texts == {"metrics.json": "third", "metrics-1.json": "first", "metrics-2.json": "second"}


def test_a_full_disk_leaves_the_earlier_file_in_place(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_and_keep(path, "first")

    def write_nothing(self, text, encoding):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_nothing)
    with pytest.raises(OSError, match="No space left"):
        write_and_keep(path, "second")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "first")]
