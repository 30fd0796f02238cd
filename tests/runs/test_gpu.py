"""On a CUDA device: the numbers of a CPU, data kept there, mixed precision, exact resume."""

import json
from pathlib import Path

import pytest
import torch
from helpers import LAST, RUN, load

from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.evaluation.gradient_flow import attribute, measure_gradient_flow
from lightning_rnn.models.network import NetworkOptions, SequenceNetwork
from lightning_rnn.models.recurrent import CELLS, RecurrentLayer
from lightning_rnn.padding import Padding

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = ("--trainer.accelerator", "gpu", "--trainer.devices", 1)
DATA = ("--data.num_train", 256, "--data.num_val", 64)
SMALL = (*DATA, "--trainer.max_epochs", 3, "--trainer.log_every_n_steps", 1)
EXACT = ("--trainer.deterministic", "true")
DEVICES = (torch.device("cpu"), torch.device("cuda"))


def assert_equal_weights(path, other_path):
    weights = load(path)["state_dict"]
    other_weights = load(other_path)["state_dict"]
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, other_weights[name]), name


@pytest.mark.parametrize("cell", CELLS)
def test_values_and_gradients_equal_the_cpus(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 3, 16)
    x = torch.randn(4, 50, 3)
    results = []
    for device in DEVICES:
        layer = layer.to(device)
        output = layer(x.to(device))
        gradients = torch.autograd.grad(output.sum(), list(layer.parameters()))
        results.append([output.detach().cpu(), *(gradient.cpu() for gradient in gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-3, atol=1e-2)  # cuDNN uses TF32


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_flow_and_attribution_equal_the_cpus(cell):
    torch.manual_seed(0)
    options = NetworkOptions(cell=cell, hidden_size=8)
    network = SequenceNetwork(input_size=3, num_classes=2, options=options)
    padding = Padding.of(torch.tensor([20, 20, 7, 1]), width=20)
    labels = torch.tensor([0, 1, 1, 0])
    batch = SequenceBatch(torch.randn(4, 20, 3), padding, labels, torch.arange(4))
    gradients = []
    contributions = []
    for device in DEVICES:
        network = network.to(device)
        gradients.append(measure_gradient_flow(network, batch.to(device)).gradients["layer0"])
        contributions.append(attribute(network, batch.to(device)).cpu())
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(contributions[1], contributions[0])


def test_data_on_the_device_train_the_same(run_ok, empty):
    for on_device in ("true", "false"):
        data = ("--data.on_device", on_device, "--data.min_length", 4)
        run_ok("fit", *SMALL, *GPU, *data, *EXACT)
    assert_equal_weights(LAST, "lightning_logs/version_1/checkpoints/last.ckpt")


@pytest.mark.parametrize(
    "options", [("--trainer.precision", "bf16-mixed"), ("--matmul_precision", "high")]
)
@pytest.mark.parametrize("cell", CELLS)
def test_less_precision_learns_too(run_ok, empty, cell, options):
    run_ok("fit", *GPU, "--model.cell", cell, *options)
    run_ok("test", *GPU)
    assert json.loads((RUN / "test_metrics.json").read_text())["test/accuracy"] > 0.9


def test_resume_is_exact(run_ok, empty):
    model = ("--model.cell", "lstm", "--model.dropout", 0.3, "--model.schedule", "constant")
    args = ("fit", *SMALL, *GPU, *EXACT, *model)
    run_ok(*args)
    run_ok(*args, "--trainer.max_steps", 12, "--trainer.default_root_dir", "other")
    other = ("--trainer.default_root_dir", "other")
    run_ok("fit", "--ckpt_path", "last", *other, "--trainer.max_steps", -1)
    assert_equal_weights(LAST, Path("other") / LAST)
