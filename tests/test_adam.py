"""The kernel alone, against torch's own optimisers."""

import pytest
import torch
from torch.optim import SGD, Adam, AdamW

from lightning_rnn.adam import lean_step


def weights_and_optimizer(kind, **options):
    torch.manual_seed(0)
    weights = [torch.randn(shape, requires_grad=True) for shape in ((3, 4), (4,), (1, 2, 3))]
    return weights, kind(weights, lr=0.05, **options)


def gradients(weights, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}], ids=["plain", "all"])
def test_equals_torchs_step_bit_by_bit(kind, options):
    (weights, optimizer), (others, torchs) = (weights_and_optimizer(kind, fused=True, **options) for _ in range(2))
    assert lean_step(optimizer) == optimizer.step  # there is no state yet
    for seed in range(6):
        gradients(weights, seed)
        gradients(others, seed)
        for group in (*optimizer.param_groups, *torchs.param_groups):
            group["lr"] = 0.05 / (seed + 1)
        step = lean_step(optimizer)
        assert (step == optimizer.step) is (seed == 0)
        step()
        torchs.step()
    for weight, other in zip(weights, others, strict=True):
        assert torch.equal(weight, other)
        assert weight.requires_grad
    states = [list(one.state_dict()["state"].values()) for one in (optimizer, torchs)]
    for ours, theirs in zip(*states, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_weight_without_gradient_stays():
    weights, optimizer = weights_and_optimizer(Adam, fused=True)
    gradients(weights, 0)
    optimizer.step()
    step, before = lean_step(optimizer), [weight.detach().clone() for weight in weights]
    gradients(weights, 1)
    weights[1].grad = None
    step()
    changed = [not torch.equal(weight, old) for weight, old in zip(weights, before, strict=True)]
    assert changed == [True, False, True]


class Mine(Adam):
    pass


@pytest.mark.parametrize(
    "kind, options",
    [(SGD, {}), (Mine, {"fused": True}), (Adam, {}), (Adam, {"fused": True, "amsgrad": True}),
     (Adam, {"fused": True, "maximize": True})],
)  # fmt: skip
def test_anything_else_is_torchs(kind, options):
    weights, optimizer = weights_and_optimizer(kind, **options)
    gradients(weights, 0)
    optimizer.step()
    assert lean_step(optimizer) == optimizer.step


def test_hooks_are_called():
    weights, optimizer = weights_and_optimizer(Adam, fused=True)
    gradients(weights, 0)
    optimizer.step()
    called = []
    hook = optimizer.register_step_post_hook(lambda *_: called.append(1))
    lean_step(optimizer)()
    assert called == [1]
    hook.remove()
    assert lean_step(optimizer) != optimizer.step
    torch.optim.lr_scheduler.ConstantLR(optimizer)  # counts steps
    assert lean_step(optimizer) == optimizer.step
