"""A run with another logger holds the scalars of a run with TensorBoard, and its figures."""

import csv

import pytest
from finished_runs import newest
from helpers import LAST, RUN, TINY, TINY_DATA, load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# a short run with all figures
SMALL = (*TINY, *TINY_DATA, "--figures.every_n_epochs", 2, "--gradient_flow.every_n_epochs", 2)
FIGURES = {"val/confusion", "val/reliability", "gradient_flow/attribution"}


@pytest.fixture(scope="module")
def from_tensorboard(tmp_path_factory, run_ok):
    """Last value of each scalar of a run with TensorBoard."""
    folder = tmp_path_factory.mktemp("tensorboard")
    run_ok("fit", *SMALL, "--trainer.default_root_dir", folder)
    events = EventAccumulator(str(newest(folder)), size_guidance={"scalars": 0}).Reload()
    assert set(events.Tags()["images"]) >= FIGURES
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


def assert_same_scalars(scalars, expected):
    """Compare names and values; a rate is measured anew in each run."""
    scalars = {name: value for name, value in scalars.items() if "/" in name}
    scalars.pop("trainer/global_step", None)
    assert scalars.keys() == expected.keys()
    for name, value in expected.items():
        if not name.endswith("per_second"):
            assert scalars[name] == pytest.approx(value, rel=1e-5), name


def test_csv(empty, run_ok, from_tensorboard):
    run_ok("fit", *SMALL, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", ".")
    scalars = {}
    with (RUN / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            scalars |= {name: float(value) for name, value in row.items() if value}
    assert_same_scalars(scalars, from_tensorboard)
    assert load(LAST)["epoch"] == 1


@pytest.mark.filterwarnings("ignore")  # of the library
def test_weights_and_biases_offline(empty, run, from_tensorboard, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = run("fit", *SMALL, "--trainer.logger", "WandbLogger", "--trainer.logger.save_dir=.")
    assert result.code == 0, result
    scalars = {}
    images = set()
    for name, value in dict(wandb.run.summary).items():
        if isinstance(value, int | float):
            scalars[name] = value
        else:
            images.add(name)
    wandb.finish()
    assert_same_scalars(scalars, from_tensorboard)
    assert images >= FIGURES


@pytest.mark.filterwarnings("ignore")  # of the library
def test_mlflow_local(empty, run, from_tensorboard):
    mlflow = pytest.importorskip("mlflow")
    uri = "sqlite:///mlflow.db"
    logger = ("--trainer.logger", "MLFlowLogger", f"--trainer.logger.tracking_uri={uri}")
    result = run("fit", *SMALL, *logger)
    assert result.code == 0, result
    client = mlflow.MlflowClient(uri)
    [experiment] = client.search_experiments(filter_string="name = 'lightning_logs'")
    [found] = client.search_runs([experiment.experiment_id])
    assert_same_scalars(found.data.metrics, from_tensorboard)
    images = [file.path for file in client.list_artifacts(found.info.run_id, "images")]
    assert len(images) >= len(FIGURES)
