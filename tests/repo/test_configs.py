"""Every config in `configs/`."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from helpers import BEST, load

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.iterdir())
QUICK = ("--config", CONFIGS / "debug.yaml")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_there_are_few_and_all_are_yaml():
    assert 1 <= len(NAMES) <= 9
    assert all(name.endswith(".yaml") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_config_begins_with_a_description_and_a_command(name, run_ok, monkeypatch):
    """The command parses in the root of the repository and uses the config."""
    text = (CONFIGS / name).read_text()
    comment = [line for line in text.splitlines() if line.startswith("#")]
    assert text.startswith("\n".join(comment))
    assert len(comment) >= 2
    command = shlex.split(comment[-1].removeprefix("#"))
    assert command[:3] == ["python", "-m", "lightning_rnn"]
    assert f"configs/{name}" in command
    monkeypatch.chdir(CONFIGS.parent)
    settings = yaml.safe_load(run_ok(*command[3:], "--print_config"))
    for section, values in yaml.safe_load(text).items():
        assert_contains(settings[section], values, f"{name}: {section}")


def assert_contains(actual, expected, where):
    """Compare nested settings, except paths, which the command sets, and modules of classes."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            if not key.endswith("_path") or key == "class_path":
                assert_contains(actual[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for i, value in enumerate(expected):
            assert_contains(actual[i], value, f"{where}.{i}")
    elif where.endswith("class_path"):
        assert actual.rpartition(".")[2] == expected.rpartition(".")[2]
    else:
        assert actual == expected, where


FAST = ("files.yaml", "quickstart.yaml")
SLOW = [name for name in NAMES if name not in (*FAST, "ddp.yaml", "gpu.yaml")]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_config_trains(name, empty, run_ok, files):
    paths = []
    if name == "files.yaml":
        paths.append(f"--data.train_path={files / 'ItalyPowerDemand_TRAIN.ts'}")
        paths.append(f"--data.test_path={files / 'ItalyPowerDemand_TEST.ts'}")
    out = run_ok("fit", "--config", CONFIGS / name, *QUICK, *paths)
    assert re.search(r"^epoch 1/1(, step \d+/\d+)?  train/loss", out, re.MULTILINE)
    content = load(BEST)
    assert content["global_step"] == 2
    model = yaml.safe_load((CONFIGS / name).read_text()).get("model", {})
    stored = content["hyper_parameters"]
    given = {name: value for name, value in model.items() if value is not None}
    assert given == {name: stored[name] for name in given}
    run_ok("test")


@NEEDS_GPU
def test_gpu_config_trains(empty, run_ok):
    run_ok("fit", "--config", CONFIGS / "gpu.yaml", *QUICK)
    assert load(BEST)["global_step"] == 2


@pytest.mark.slow
def test_ddp_trains_on_two_ranks(tmp_path, run_apart):
    configs = ("--config", CONFIGS / "quickstart.yaml", "--config", CONFIGS / "ddp.yaml", *QUICK)
    result = run_apart("fit", *configs, "--trainer.limit_train_batches", "1.0", cwd=tmp_path)
    assert result.code == 0, result
    assert result.out.count("epoch 1/1  train/loss") == 1
    content = load(tmp_path / BEST)
    assert content["global_step"] == 16  # 1000 sequences in global batches of 64; 32 for one rank


def test_quickstart_config_is_the_default(run_ok, empty):
    default = run_ok("fit", "--print_config")
    quickstart = run_ok("fit", "--config", CONFIGS / "quickstart.yaml", "--print_config")
    assert yaml.safe_load(default) == yaml.safe_load(quickstart)
