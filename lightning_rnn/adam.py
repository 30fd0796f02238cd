"""Adam's kernel, called without what torch's `step` does around it: beside a small network that takes far longer."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

KERNELS = {Adam: "_fused_adam_", AdamW: "_fused_adamw_"}  # what torch's own steps call


def lean_step(optimizer: Optimizer) -> Callable[[], Any]:
    """Return a function that does what `optimizer.step` does, bit by bit.

    Where one group of weights of one kind belongs to a fused Adam that has made a step, and nobody hooks in, it is the
    kernel with lists that torch's own step puts together anew each time; anywhere else, that step. The lists hold until
    the optimiser is given another state.
    """
    kernel: Any = getattr(torch, KERNELS.get(type(optimizer), ""), None)
    group = optimizer.param_groups[0]
    weights = [weight for weight in group["params"] if weight.requires_grad]
    states: list[Any] = [optimizer.state.get(weight) for weight in weights]
    if kernel is None or not all(states) or not _is_plain(optimizer):
        return optimizer.step
    means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))

    @torch.no_grad()
    def step() -> None:
        gradients = [weight.grad for weight in weights]
        if any(gradient is None for gradient in gradients):
            optimizer.step()
            return
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, 1)
        kernel(
            weights, gradients, means, squares, [], steps,
            lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False, grad_scale=None, found_inf=None,
        )  # fmt: skip

    return step


def _is_plain(optimizer: Optimizer) -> bool:
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks,
             _global_optimizer_pre_hooks, _global_optimizer_post_hooks)  # fmt: skip
    group = optimizer.param_groups[0]
    return (
        len(optimizer.param_groups) == 1
        and group["fused"]
        and not (group["amsgrad"] or group["maximize"])
        and len({(weight.dtype, weight.device) for weight in group["params"]}) == 1
        and not any(hooks)
        and "step" not in vars(optimizer)  # torch's schedulers put theirs there
    )
