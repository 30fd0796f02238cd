"""On a CUDA device: the same numbers as on a CPU, data kept there, mixed precision, exact resume."""

import json
from pathlib import Path

import pytest
import torch

from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.evaluation.gradient_flow import attribute, measure_gradient_flow
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.models.recurrent import CELLS, RecurrentLayer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
RUN = Path("lightning_logs/version_0")
GPU = ("--trainer.accelerator", "gpu", "--trainer.devices", 1)
SMALL = (
    "--data.num_train",
    256,
    "--data.num_val",
    64,
    "--trainer.max_epochs",
    3,
    "--trainer.log_every_n_steps",
    1,
)


@pytest.mark.parametrize("cell", CELLS)
def test_values_and_gradients_equal_the_cpus(cell):
    torch.manual_seed(0)
    layer, x = RecurrentLayer(cell, 3, 16), torch.randn(4, 50, 3)
    results = []
    for device in ("cpu", "cuda"):
        layer = layer.to(device)
        output = layer(x.to(device))
        weights = [*layer.parameters()]
        gradients = torch.autograd.grad(output.sum(), weights)
        results.append([output.detach().cpu(), *(gradient.cpu() for gradient in gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-3, atol=1e-2)  # cuDNN uses TF32


@pytest.mark.parametrize("cell", CELLS)
def test_memory_equals_the_cpus(cell):
    torch.manual_seed(0)
    network = SequenceNetwork(input_size=3, num_classes=2, cell=cell, hidden_size=8)
    lengths, y = torch.tensor([20, 20, 7, 1]), torch.tensor([0, 1, 1, 0])
    batch = SequenceBatch(torch.randn(4, 20, 3), lengths, y, torch.arange(4))
    on_device = SequenceBatch._make(column.cuda() for column in batch)
    results = []
    for device, given in (("cpu", batch), ("cuda", on_device)):
        network = network.to(device)
        results.append(
            [measure_gradient_flow(network, given).gradients["layer0"], attribute(network, given)]
        )
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu)


def test_data_on_the_device_trains_the_same(run_ok, empty):
    for kept in ("true", "false"):
        run_ok(
            "fit",
            *SMALL,
            *GPU,
            "--data.on_device",
            kept,
            "--data.min_length",
            4,
            "--trainer.deterministic",
            "true",
        )
    states = [
        torch.load(f"lightning_logs/version_{i}/checkpoints/last.ckpt", weights_only=True)
        for i in (0, 1)
    ]
    for name, weight in states[0]["state_dict"].items():
        assert torch.equal(weight, states[1]["state_dict"][name]), name


@pytest.mark.parametrize(
    "options", [("--trainer.precision", "bf16-mixed"), ("--matmul_precision", "high")]
)
@pytest.mark.parametrize("cell", CELLS)
def test_less_precision_learns_too(run_ok, empty, cell, options):
    run_ok("fit", *GPU, "--model.cell", cell, *options)
    run_ok("test", *GPU)
    assert json.loads((RUN / "test_metrics.json").read_text())["test/accuracy"] > 0.9


def test_resume_is_exact(run_ok, empty):
    exact = (
        *SMALL,
        *GPU,
        "--trainer.deterministic",
        "true",
        "--model.cell",
        "lstm",
        "--model.dropout",
        0.3,
    )
    run_ok("fit", *exact)
    run_ok("fit", *exact, "--trainer.max_steps", 12, "--trainer.default_root_dir", "other")
    run_ok(
        "fit",
        "--ckpt_path",
        "last",
        "--trainer.default_root_dir",
        "other",
        "--trainer.max_steps",
        -1,
    )
    paths = (RUN / "checkpoints/last.ckpt", Path("other") / RUN / "checkpoints/last.ckpt")
    whole, resumed = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
