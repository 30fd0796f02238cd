"""Settings of runs for which the user has chosen none."""

import re
from pathlib import Path

import pytest
import yaml
from helpers import BEST, RUN, load

from lightning_rnn.training import presets

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = yaml.safe_load((CONFIGS / "files.yaml").read_text())
TUTORIAL = yaml.safe_load((CONFIGS / "quickstart.yaml").read_text())


@pytest.fixture
def train_path(files):
    return f"--data.train_path={files / 'ItalyPowerDemand_TRAIN.ts'}"


def settings(run_ok, *args):
    return yaml.safe_load(run_ok("fit", *args, "--print_config"))


@pytest.mark.slow
def test_a_file_is_enough(tmp_path, run_apart, train_path, files):
    """From any folder and in processes of their own: fit, test, resume, predict, inspect."""
    test_path = f"--data.test_path={files / 'ItalyPowerDemand_TEST.ts'}"
    result = run_apart("fit", train_path, test_path, "--trainer.max_steps=3", cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    first = result.out.splitlines()[0]
    assert first.startswith("preset: files, defaults from ")
    assert first.endswith("files.yaml (--preset tutorial uses those of the tutorial)")
    assert result.out.count("preset: ") == 1
    model = {name: value for name, value in FILES["model"].items() if value is not None}
    assert model.items() <= load(tmp_path / BEST)["hyper_parameters"].items()
    config = yaml.safe_load((tmp_path / RUN / "config.yaml").read_text())
    assert FILES["trainer"] | {"max_steps": 3} == {
        k: config["trainer"][k] for k in FILES["trainer"]
    }
    result = run_apart("fit", "--ckpt_path=last", "--trainer.max_steps=5", cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    assert "preset: " not in result.out
    assert load(tmp_path / BEST)["global_step"] == 5
    for command, expected in (("test", "accuracy"), ("predict", "1029 predictions written")):
        result = run_apart(command, cwd=tmp_path)
        assert (result.code, result.err) == (0, "")
        assert expected in result.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["predict --data.predict_path FILE"]),
        (["--data.val_fraction=0.5"], ["validate"]),
        (["--data.predict_path=new.ts"], ["predict"]),
        (["--data.test_fraction=0.5"], ["test", "predict"]),
    ],
)
def test_the_next_commands_have_their_data(empty, run_ok, train_path, options, expected):
    Path("new.ts").write_bytes(Path(train_path.partition("=")[2]).read_bytes())
    out = run_ok("fit", train_path, *options, "--trainer.max_steps=1")
    assert re.findall(r"python -m lightning_rnn (.*) --ckpt_path", out) == expected
    for command in expected:
        run_ok(*command.replace("FILE", "new.ts").split())


def test_files_have_the_settings_of_the_config(empty, run_ok, train_path):
    expected = settings(run_ok, "--config", CONFIGS / "files.yaml", train_path)
    assert settings(run_ok, train_path) == expected
    assert settings(run_ok, "--data", "FileDataModule", train_path) == expected
    assert settings(run_ok, "--data.val_path", "x.csv")["preset"] == "files"
    assert expected["preset"] == "files"
    assert FILES["model"].items() <= expected["model"].items()


def test_options_and_configs_override_them(empty, run_ok, train_path):
    Path("own.yaml").write_text("model: {cell: gru}\ndata: {init_args: {val_fraction: 0.5}}\n")
    found = settings(run_ok, "--config", "own.yaml", train_path, "--model.hidden_size=3")
    changed = {"cell": "gru", "hidden_size": 3}
    assert (FILES["model"] | changed).items() <= found["model"].items()
    assert found["data"]["init_args"]["val_fraction"] == 0.5
    Path("file.yaml").write_text("data: {init_args: {train_path: x.csv}}\n")
    found = settings(run_ok, "--config", "file.yaml")
    assert found["data"]["class_path"] == "lightning_rnn.FileDataModule"
    assert FILES["model"].items() <= found["model"].items()


def test_a_number_of_epochs_replaces_the_number_of_steps(empty, run_ok, train_path):
    Path("epochs.yaml").write_text("trainer: {max_epochs: 7}\n")
    for words in (["--trainer.max_epochs=7"], ["--config", "epochs.yaml"]):
        trainer = settings(run_ok, *words, train_path)["trainer"]
        assert (trainer["max_epochs"], trainer["max_steps"]) == (7, -1)
    trainer = settings(run_ok, "--trainer.max_steps=7", train_path)["trainer"]
    assert (trainer["max_epochs"], trainer["max_steps"]) == (-1, 7)


def test_the_tutorial_can_be_chosen_for_files(empty, run_ok, train_path):
    found = settings(run_ok, "--preset=tutorial", train_path)
    assert TUTORIAL["model"].items() <= found["model"].items()
    assert TUTORIAL["trainer"].items() <= found["trainer"].items()
    assert found["data"]["class_path"] == "lightning_rnn.FileDataModule"
    Path("preset.yaml").write_text("preset: tutorial\n")
    assert settings(run_ok, "--config", "preset.yaml", train_path) == found


def test_synthetic_data_are_the_tutorial(empty, run_ok):
    found = settings(run_ok, "--data.num_train=8")
    assert found["preset"] == "tutorial"
    assert TUTORIAL["model"].items() <= found["model"].items()
    found = settings(run_ok, "--preset=files")
    assert FILES["model"].items() <= found["model"].items()
    assert found["data"]["class_path"] == "lightning_rnn.SyntheticDataModule"


OWN_DATA = """
from lightning_rnn import SequenceDataModule
class OwnData(SequenceDataModule):
    def __init__(self, *, train_path: str = "") -> None:
        super().__init__()
"""


def test_data_modules_of_the_user_are_real_data(empty, run_ok, monkeypatch):
    Path("data_of_a_user.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(empty)
    found = settings(run_ok, "--data=data_of_a_user.OwnData", "--data.train_path=x")
    assert found["data"] == {
        "class_path": "data_of_a_user.OwnData",
        "init_args": {"train_path": "x"},
    }
    assert FILES["model"].items() <= found["model"].items()


def test_a_checkpoint_keeps_its_own_settings(trained_on_files, run_ok):
    """Also where its config.yaml is missing: those of the preset are only for the Trainer."""
    BEST.rename("moved.ckpt")
    found = settings(run_ok, "--ckpt_path=moved.ckpt")
    assert found["model"]["hidden_size"] == 8
    assert found["data"]["init_args"]["id_column"] == "id"
    assert found["trainer"]["max_steps"] == FILES["trainer"]["max_steps"]


def test_a_new_key_of_the_config_is_enough(empty, run_ok, train_path, monkeypatch):
    content = FILES | {"checkpoint": {"every_n_steps": 3}, "matmul_precision": "high"}
    content["model"] = FILES["model"] | {"pos_weight": 2.0}
    Path("files.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setitem(presets.CONFIG_OF, "files", empty / "files.yaml")
    found = settings(run_ok, train_path)
    assert found["checkpoint"]["every_n_steps"] == 3
    assert found["matmul_precision"] == "high"
    assert found["model"]["pos_weight"] == 2.0
