"""Two processes on the CPU: the same metrics, the same predictions, the same data."""

import json
import multiprocessing
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch

from lightning_rnn.data.synthetic_module import SyntheticDataModule
from lightning_rnn.errors import DataError

TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp")
RUN = Path("lightning_logs/version_0")
BEST = RUN / "checkpoints/best.ckpt"
ODD = 2051  # three batches of at most 1024: one rank has two of them, the other the short one


def assert_success(result):
    assert result.code == 0, result
    assert "Traceback" not in result.err


@pytest.mark.parametrize("size", [ODD, pytest.param(1, marks=pytest.mark.slow)])
def test_test_agrees_with_one_process(trained, run_ok, run_apart, size):
    args = ("test", "--ckpt_path", BEST, "--data.num_test", size)
    run_ok(*args)
    path = RUN / "test_metrics.json"
    alone = json.loads(path.read_text())
    path.unlink()
    assert_success(run_apart(*args, *TWO, cwd=trained))
    together = json.loads(path.read_text())
    assert ("test/auroc" in alone) == (size > 1)
    assert together == pytest.approx(alone, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [ODD, 1])
def test_predict_agrees_with_one_process(trained, run_ok, run_apart, size):
    args = ("predict", "--ckpt_path", BEST, "--data.num_test", size, "--output")
    run_ok(*args, "alone.csv")
    result = run_apart(*args, "together.csv", *TWO, cwd=trained)
    assert_success(result)
    assert result.out.count("predictions written to") == 1
    alone, together = pl.read_csv("alone.csv"), pl.read_csv("together.csv")
    assert together["id"].to_list() == list(range(size))
    assert together["probability"].to_list() == pytest.approx(
        alone["probability"].to_list(), abs=1e-6
    )
    assert together["label"].to_list() == alone["label"].to_list()


@pytest.mark.slow
def test_fit_trains_one_model(tmp_path, run_apart):
    result = run_apart("fit", "--trainer.max_epochs", 3, "--data.num_val", 301, *TWO, cwd=tmp_path)
    assert_success(result)
    lines = [line.split() for line in result.out.splitlines() if line.startswith("epoch ")]
    assert [line[1] for line in lines] == ["1/3", "2/3", "3/3"]  # rank 0 alone speaks
    assert float(lines[-1][3]) < float(lines[0][3])
    content = torch.load(tmp_path / RUN / "checkpoints/last.ckpt", weights_only=True)
    assert content["global_step"] == 3 * 16  # 1000 sequences in global batches of 64
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_gradients_are_averaged_as_torch_does(tmp_path, run_apart):
    """With an option of DistributedDataParallel's, that one averages them."""
    found = []
    for strategy in ("ddp", "ddp_find_unused_parameters_true"):
        folder = tmp_path / strategy
        folder.mkdir()
        options = (
            "--model.cell",
            "lstm",
            "--trainer.max_epochs",
            2,
            "--trainer.accelerator",
            "cpu",
        )
        assert_success(
            run_apart(
                "fit", *options, "--trainer.devices", 2, "--trainer.strategy", strategy, cwd=folder
            )
        )
        found.append(
            torch.load(folder / RUN / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        )
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.slow
def test_fit_without_validation(tmp_path, run_apart):
    result = run_apart("fit", "--trainer.max_epochs", 1, "--data.num_val", 0, *TWO, cwd=tmp_path)
    assert_success(result)
    assert (tmp_path / BEST).read_bytes() == (tmp_path / RUN / "checkpoints/last.ckpt").read_bytes()


@pytest.mark.slow
def test_bad_data_ends_all_ranks(tmp_path, run_apart, files):
    """The labels of the validation file are unknown, which every rank finds out by itself."""
    options = (
        "--data.train_path",
        files / "ItalyPowerDemand_TRAIN.ts",
        "--data.val_path",
        "val.tsv",
    )
    (tmp_path / "val.tsv").write_text("7\t" + "\t".join(["1.0"] * 24) + "\n")
    code, _, err = run_apart("fit", "--data", "FileDataModule", *options, *TWO, cwd=tmp_path)
    assert code == 1
    assert "val.tsv: sequence '0' has label '7', unseen in training" in err
    assert "Traceback" not in err


def in_ranks(function, ranks, folder):
    """Return what a function returns for each rank of a group of processes."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=as_rank, args=(rank, ranks, folder / "meeting", function, answers))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return [found[rank] for rank in range(ranks)]


def as_rank(rank, ranks, meeting, function, answers):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks
    )
    answers.put((rank, function(rank)))
    torch.distributed.barrier()  # who leaves first can keep the others waiting for ever
    torch.distributed.destroy_process_group()


def compare(seeds, rank):
    """Say whether the data module finds that the ranks have different data."""
    torch.manual_seed(0)  # random states are compared as well
    try:
        SyntheticDataModule(num_train=20, num_val=20, seed=seeds[rank]).setup("fit")
    except DataError as error:
        return str(error)
    return "same"


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(3, 3), (3, 4)])
def test_ranks_compare_their_data(tmp_path, seeds):
    same = seeds[0] == seeds[1]
    message = (
        "same"
        if same
        else "ranks [1]: expected the sequences and random state of rank 0, got others"
    )
    assert in_ranks(partial(compare, seeds), 2, tmp_path) == [message] * 2
