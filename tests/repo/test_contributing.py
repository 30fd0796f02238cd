"""What CONTRIBUTING.md shows works, and the files for GitHub agree with the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from lightning_rnn import SyntheticDataModule, read_file
from lightning_rnn.data.readers import READERS
from lightning_rnn.data.synthetic_tasks import TASKS
from lightning_rnn.errors import DataError

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def example(heading):
    """Return the Python code under a heading."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    [code] = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return code


def release_notes(tag):
    command = [sys.executable, ROOT / ".ci/release_notes.py", tag]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_new_task(monkeypatch):
    monkeypatch.setitem(TASKS, "first_is_largest", None)  # removed after the test
    exec(example("Adding a task"), {})
    data = SyntheticDataModule(task="first_is_largest", length=3, num_train=200)
    train = data.split("train")
    largest = train.values.view(200, 3).max(dim=1).values
    assert torch.equal(train.labels == 1, largest == train.values.view(200, 3)[:, 0])
    assert data.class_names == ["no", "yes"]


def test_a_new_reader(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, ".jsonl", None)
    exec(example("Adding a reader"), {})
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"label": "up", "values": [[1, 2], [3, 4]]}\n{"label": "2.0", "values": [[5, 6]]}\n'
    )
    contents = read_file(path)
    assert contents.sequences.lengths.tolist() == [2, 1]
    assert contents.sequences.values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert contents.labels.tolist() == ["up", "2"]
    path.write_text('{"values": [[1]]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: line 1: expected a label, got"):
        read_file(path)
    path.write_text('{"values": [1]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: line 1: expected values \(T, F\), got shape"):
        read_file(path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"damaged, or not a \.jsonl file"):
        read_file(path)


def test_files_that_it_names_exist():
    for name in re.findall(r"`((?:models|data|cli|tests|docs|lightning_rnn)/[\w/.]+)`", TEXT):
        if "NAME" not in name:
            found = (ROOT / name).exists() or (ROOT / "lightning_rnn" / name).exists()
            assert found, name


def test_workflows_run_what_exists():
    makefile = (ROOT / "Makefile").read_text()
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text())["jobs"]
        for job in jobs.values():
            assert job["timeout-minutes"] <= 60
            script = "\n".join(step.get("run", "") for step in job["steps"])
            for name in re.findall(r"(?:^|python )(\.ci/\S+)", script, re.MULTILINE):
                assert (ROOT / name).is_file()
            for target in re.findall(r"^make (\S+)", script, re.MULTILINE):
                assert f"\n{target}: " in makefile
    assert len(WORKFLOWS) == 2


def test_workflows_test_the_supported_versions_of_python():
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    versions = ci["jobs"]["checks"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_forms_are_complete():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys()
        assert all(item["attributes"]["label"] for item in form["body"])


def test_citation_is_of_the_released_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = f"## [{citation['version']}] - {citation['date-released']}"
    assert released in (ROOT / "CHANGELOG.md").read_text()
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def test_release_notes_are_the_section_of_the_tag():
    done = release_notes(f"v{PROJECT['version']}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stdout.strip() in (ROOT / "CHANGELOG.md").read_text()
    assert "\n## " not in done.stdout


def test_a_wrong_tag_is_refused():
    done = release_notes("v9.9.9")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"expected the tag v{PROJECT['version']}" in done.stderr


def test_the_image_copies_what_exists():
    dockerfile = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored
