"""Two processes on the CPU: the same metrics, the same predictions, the same data."""

import json
import multiprocessing
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
from helpers import BEST, CPU, LAST, RUN, TINY_DATA, TWO_RANKS, load

from lightning_rnn.data.synthetic_module import SyntheticDataModule
from lightning_rnn.errors import DataError

ODD = 2051  # three batches of at most 1024: one rank has two of them, the other the short one


def assert_success(result):
    assert result.code == 0, result
    assert "Traceback" not in result.err


@pytest.mark.slow
@pytest.mark.parametrize("size", [ODD, 1])
def test_test_agrees_with_one_process(trained, run_ok, run_apart, size):
    args = ("test", "--ckpt_path", BEST, "--data.num_test", size)
    run_ok(*args)
    path = RUN / "test_metrics.json"
    alone = json.loads(path.read_text())
    path.unlink()
    assert_success(run_apart(*args, *TWO_RANKS, cwd=trained))
    together = json.loads(path.read_text())
    assert ("test/auroc" in alone) == (size > 1)
    for name in ("classes", "origin"):
        assert together.pop(name) == alone.pop(name)
    assert together == pytest.approx(alone, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [ODD, 1])
def test_predict_agrees_with_one_process(trained, run_ok, run_apart, size):
    args = ("predict", "--ckpt_path", BEST, "--data.num_test", size, "--output")
    run_ok(*args, "alone.csv")
    result = run_apart(*args, "together.csv", *TWO_RANKS, cwd=trained)
    assert_success(result)
    assert result.out.count(" written to together.csv") == 1
    alone, together = pl.read_csv("alone.csv"), pl.read_csv("together.csv")
    assert together["id"].to_list() == list(range(size))
    assert together["probability_positive"].to_list() == pytest.approx(
        alone["probability_positive"].to_list(), abs=1e-6
    )
    assert together["label"].to_list() == alone["label"].to_list()


@pytest.mark.slow
def test_fit_trains_one_model(tmp_path, run_apart):
    args = ("fit", "--trainer.max_epochs", 3, "--data.num_val", 301)
    result = run_apart(*args, *TWO_RANKS, cwd=tmp_path)
    assert_success(result)
    lines = [line.split() for line in result.out.splitlines() if line.startswith("epoch ")]
    assert [line[1] for line in lines] == ["1/3", "2/3", "3/3"]  # printed by rank 0 alone
    assert float(lines[-1][3]) < float(lines[0][3])
    content = load(tmp_path / LAST)
    assert content["global_step"] == 3 * 16  # 1000 sequences in global batches of 64
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_unused_parameters_can_be_searched_for(tmp_path, run_apart):
    """Another option of DistributedDataParallel gives the same weights."""
    weights = []
    for strategy in ("ddp", "ddp_find_unused_parameters_true"):
        folder = tmp_path / strategy
        folder.mkdir()
        devices = (*CPU, "--trainer.devices", 2, "--trainer.strategy", strategy)
        args = ("fit", "--model.cell", "lstm", "--trainer.max_epochs", 2, *devices)
        assert_success(run_apart(*args, cwd=folder))
        weights.append(load(folder / LAST)["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


SHOW_THREADS_OF_GLOO = """
import os
import sys
from pathlib import Path

from lightning_rnn.__main__ import main

code = main()
names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
threads = sorted(name for name in names if "gloo" in name)
Path(f"threads.{os.environ.get('LOCAL_RANK', 0)}").write_text(f"{threads}")
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the threads in /proc")
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "diverging fit"])
def test_no_thread_of_gloo_is_left_at_exit(trained, run_apart, command):
    """Such a thread aborts the process now and then, with exit code -6."""
    (trained / "program.py").write_text(SHOW_THREADS_OF_GLOO)
    args = [command, "--ckpt_path", BEST]
    if "fit" in command:
        args = ["fit", "--trainer.max_epochs", 3, *TINY_DATA]
    if command == "diverging fit":
        args += ["--model.lr", 1e30, "--model.optimizer", "adamw", "--model.weight_decay", 0.9]
    result = run_apart("program.py", *args, *TWO_RANKS, cwd=trained, module=None)
    assert result.code == int(command == "diverging fit"), result
    for rank in range(2):
        assert (trained / f"threads.{rank}").read_text() == "[]"


@pytest.mark.slow
def test_fit_without_validation(tmp_path, run_apart):
    args = ("fit", "--trainer.max_epochs", 1, "--data.num_val", 0)
    assert_success(run_apart(*args, *TWO_RANKS, cwd=tmp_path))
    assert (tmp_path / BEST).read_bytes() == (tmp_path / LAST).read_bytes()


@pytest.mark.slow
def test_bad_data_ends_all_ranks(tmp_path, run_apart, files):
    """The validation file has an unknown label, which every rank finds out by itself."""
    (tmp_path / "val.tsv").write_text("7\t" + "\t".join(["1.0"] * 24) + "\n")
    train_path = files / "ItalyPowerDemand_TRAIN.ts"
    paths = ("--data.train_path", train_path, "--data.val_path", "val.tsv")
    result = run_apart("fit", "--data", "FileDataModule", *paths, *TWO_RANKS, cwd=tmp_path)
    assert result.code == 1
    assert "val.tsv" in result.err
    assert "'7'" in result.err
    assert "Traceback" not in result.err


def in_ranks(function, ranks, folder):
    """Call a function with the rank in each of a group of processes; return the results by rank."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = []
    for rank in range(ranks):
        args = (rank, ranks, folder / "meeting", function, answers)
        processes.append(context.Process(target=as_rank, args=args))
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
    torch.distributed.barrier()  # if a rank leaves early, the others may wait for ever
    torch.distributed.destroy_process_group()


def data_error(seeds, rank):
    """Return the error of a data module whose seed depends on the rank; None if there is none."""
    torch.manual_seed(0)  # random states are compared as well
    data = SyntheticDataModule(num_train=20, num_val=20, seed=seeds[rank])
    try:
        data.setup("fit")
    except DataError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_equal_data_on_all_ranks_are_accepted(tmp_path):
    assert in_ranks(partial(data_error, (3, 3)), 2, tmp_path) == [None, None]


@pytest.mark.slow
def test_different_data_on_the_ranks_are_refused(tmp_path):
    message = "ranks [1]: expected the sequences and random state of rank 0, got others"
    assert in_ranks(partial(data_error, (3, 4)), 2, tmp_path) == [message] * 2
