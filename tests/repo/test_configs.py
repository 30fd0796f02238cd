"""Every config that is shipped."""

import shlex
from pathlib import Path

import pytest
import torch
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.iterdir())
QUICK = ("--config", CONFIGS / "debug.yaml")
BEST = Path("lightning_logs/version_0/checkpoints/best.ckpt")


def test_there_are_few_and_all_are_yaml():
    assert 1 <= len(NAMES) <= 8
    assert all(name.endswith(".yaml") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_begins_with_what_it_does(name, run_ok, monkeypatch):
    """The comment ends with a command, which parses where it is meant to be typed and uses this config."""
    comment = [line for line in (CONFIGS / name).read_text().splitlines() if line.startswith("#")]
    assert (CONFIGS / name).read_text().startswith(comment[0])
    assert len(comment) >= 2
    command = shlex.split(comment[-1].removeprefix("#"))
    assert command[:3] == ["python", "-m", "lightning_rnn"]
    assert f"configs/{name}" in command
    monkeypatch.chdir(CONFIGS.parent)
    settings = yaml.safe_load(run_ok(*command[3:], "--print_config"))
    for section, values in yaml.safe_load((CONFIGS / name).read_text()).items():
        assert_within(values, settings[section], f"{name}: {section}")


def assert_within(part, whole, where):
    """Every setting of the file has arrived; a class is named shortly in the file, and paths are typed over it."""
    if isinstance(part, dict):
        for key, value in part.items():
            if not key.endswith("_path") or key == "class_path":
                assert_within(value, whole[key], f"{where}.{key}")
    elif isinstance(part, list):
        for i, (value, whole_value) in enumerate(zip(part, whole, strict=True)):
            assert_within(value, whole_value, f"{where}.{i}")
    elif where.endswith("class_path"):
        assert whole.rsplit(".", 1)[-1] == part.rsplit(".", 1)[-1]
    else:
        assert whole == part, where


NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[NEEDS_A_GPU] if name == "gpu.yaml" else [])
        for name in NAMES
        if name != "ddp.yaml"
    ],
)
def test_each_trains(name, empty, run_ok, files):
    paths = [
        f"--data.{part}_path={files / f'ItalyPowerDemand_{part.upper()}.ts'}"
        for part in ("train", "test")
    ]
    out = run_ok(
        "fit", "--config", CONFIGS / name, *QUICK, *(paths if name == "files.yaml" else [])
    )
    assert "epoch 1/1  train/loss" in out
    content = torch.load(BEST, weights_only=True)
    assert content["global_step"] == 2
    model = yaml.safe_load((CONFIGS / name).read_text()).get("model", {})
    assert model.items() <= content["hyper_parameters"].items()
    run_ok("test")


@pytest.mark.slow
def test_ddp_trains_on_two_ranks(tmp_path, run_apart):
    configs = ("--config", CONFIGS / "seed.yaml", "--config", CONFIGS / "ddp.yaml", *QUICK)
    result = run_apart("fit", *configs, "--trainer.limit_train_batches", "1.0", cwd=tmp_path)
    assert result.code == 0, result
    assert result.out.count("epoch 1/1  train/loss") == 1
    content = torch.load(tmp_path / BEST, weights_only=True)
    assert (
        content["global_step"] == 16
    )  # 1000 sequences in global batches of 64; one rank alone would need 32


def test_seed_config_is_the_defaults(run_ok, empty):
    printed = [
        yaml.safe_load(run_ok("fit", *config, "--print_config"))
        for config in ((), ("--config", CONFIGS / "seed.yaml"))
    ]
    assert printed[0] == printed[1]
