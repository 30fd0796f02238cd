"""The installed package, far from the repository."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from helpers import RUN, TIME_LIMIT, process_environment

ROOT = Path(__file__).parents[2]
SCRIPT = """
import numpy as np
from lightning_rnn import RecurrentClassifier
model = RecurrentClassifier(max_steps=1).fit(np.random.rand(20, 6), [0, 1] * 10)
print(model.model_.hparams["stem"])
"""


def test_the_package_contains_the_configs():
    names = {path.name for path in (ROOT / "lightning_rnn/configs").glob("*.yaml")}
    assert names == {path.name for path in (ROOT / "configs").glob("*.yaml")}


def succeed(*command, cwd):
    environment = process_environment()
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_needs_no_config(tmp_path, files):
    """In an environment of its own, which has only the other packages from that of the tests."""
    build = ("build", "--wheel", "--no-isolation", "--outdir", tmp_path)
    succeed(sys.executable, "-m", *build, ROOT, cwd=tmp_path)
    succeed(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    [packages] = tmp_path.glob("venv/lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    python = tmp_path / "venv/bin/python"
    [wheel] = tmp_path.glob("*.whl")
    succeed(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    folder = tmp_path / "empty"
    folder.mkdir()
    train_path = f"--data.train_path={files / 'ItalyPowerDemand_TRAIN.ts'}"
    fit = ("-m", "lightning_rnn", "fit", train_path, "--trainer.max_steps=2")
    out = succeed(python, *fit, cwd=folder)
    installed = packages / "lightning_rnn/configs/files.yaml"
    assert out.startswith(f"preset: files, defaults from {installed} (")
    found = yaml.safe_load((folder / RUN / "config.yaml").read_text())["model"]
    config = yaml.safe_load((ROOT / "configs/files.yaml").read_text())
    assert config["model"].items() <= found.items()
    assert succeed(python, "-c", SCRIPT, cwd=folder) == f"{found['stem']}\n"
