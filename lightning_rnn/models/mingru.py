"""The minimal GRU and its scan over long sequences."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from lightning_rnn.models.cpu_kernels import kernels_enabled
from lightning_rnn.padding import is_tracing


class MinGRU(nn.Module):
    """Minimal GRU (Feng et al. 2024, arXiv:2410.01201, section 3.1).

    z_t = sigmoid(W x_t + b), v_t = V x_t + c and h_t = (1 - z_t) h_(t-1) + z_t v_t. The gate does
    not depend on the state, so that long sequences are fast, see `scan`. A single layer cannot
    count, so it cannot learn parity.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, 2 * hidden_size)  # W above V, b before c

    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the states (B, T, H) and the last one (1, B, H) of sequences (B, T, F).

        `hx` (1, B, H) is the state before the first step; zeros by default.
        """
        gate, value = self._project(x.transpose(0, 1))  # (T, B, H)
        h_0 = torch.zeros_like(value[0]) if hx is None else hx[0]
        if is_tracing():
            states = torch.jit.script(step_by_step)(gate, value, h_0)  # a loop in the graph
        elif kernels_enabled.get():
            states = Scan.apply(gate, value, h_0)  # type: ignore[no-untyped-call]  # untyped
        else:
            states = step_by_step(gate, value, h_0)
        output = states.transpose(0, 1)
        # the states of half-precision weights have float32
        return output.to(self.linear.weight.dtype), output[None, :, -1]

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the next state (B, H) from an input (B, F) and a state (B, H)."""
        gate, value = self._project(x)
        return torch.lerp(h, value, gate.sigmoid())

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return W x + b and V x + c, each (..., H) and contiguous, from x (..., F)."""
        w_gate, w_value = self.linear.weight.chunk(2)
        b_gate, b_value = self.linear.bias.chunk(2)
        x = x.contiguous()
        gate = linear(x, w_gate, b_gate)
        value = linear(x, w_value, b_value)
        if gate.dtype == torch.float64:
            return gate, value
        return gate.float(), value.float()  # bfloat16 loses the state of a long sequence


class Scan(torch.autograd.Function):
    """h_t = (1 - z_t) h_(t-1) + z_t v_t with z = sigmoid(gate), in about 3 sqrt(T) operations.

    The gradient of state h_t is D_t = G_t + (1 - z_(t+1)) D_(t+1), with G_t that of output h_t: the
    same recurrence backwards. Differentiable once, see `use_kernels`.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor, h_0: Tensor) -> Tensor:
        """Return h (T, B, H) from gate and value v (T, B, H) and the first state h_0 (B, H)."""
        z = gate.sigmoid()
        h = scan(1 - z, z * value, h_0)
        ctx.save_for_backward(z, value, h, h_0)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of gate, value and h_0, from that of h (T, B, H)."""
        z, value, h, h_0 = ctx.saved_tensors
        a = 1 - z
        d_h = torch.cat([scan(a[1:].flip(0), grad[:-1].flip(0), grad[-1]).flip(0), grad[-1:]])
        d_h_0 = a[0] * d_h[0]
        d_gate = a.mul_(z).mul_(d_h)  # z (1 - z) D, times v_t - h_(t-1)
        d_gate[0] *= value[0] - h_0
        d_gate[1:] *= value[1:] - h[:-1]
        return d_gate, d_h.mul_(z), d_h_0


def step_by_step(gate: Tensor, value: Tensor, h_0: Tensor) -> Tensor:
    """Compute `Scan` by its definition, with the same arguments; used for export."""
    z = gate.sigmoid()
    state = h_0
    states: list[Tensor] = []
    for t in range(value.shape[0]):
        state = torch.lerp(state, value[t], z[t])
        states.append(state)
    return torch.stack(states)


def scan(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """Return all h_t = a_t h_(t-1) + b_t, with rounding errors as small as those of a plain loop.

    The T steps are divided into chunks of K = floor(sqrt(T)) steps; the remaining steps are
    computed one by one. A chunk changes the state h before it to A h + B, where

        A = a_K ... a_2 a_1 and B = b_K + a_K (b_(K-1) + a_(K-1) (... + a_2 b_1)).

    1. Compute A and B of all chunks at once, in K steps.
    2. Compute the state before each chunk from A and B, in one step per chunk.
    3. Compute the states in all chunks at once, in K steps.

    `a`, `b` and h are (T, ...); `state` (...) is the state before the first step.
    """
    h = torch.empty_like(b)
    steps_per_chunk = max(1, math.isqrt(len(a)))
    num_chunks = len(a) // steps_per_chunk
    stop = num_chunks * steps_per_chunk
    if num_chunks > 0:
        shape = (num_chunks, steps_per_chunk, *state.shape)
        a_chunks = a[:stop].view(shape).transpose(0, 1)  # (K, chunks, ...)
        b_chunks = b[:stop].view(shape).transpose(0, 1)
        product = torch.ones_like(a_chunks[0])  # A
        offset = torch.zeros_like(product)  # B
        for a_t, b_t in zip(a_chunks, b_chunks, strict=True):
            product *= a_t
            torch.addcmul(b_t, a_t, offset, out=offset)
        after = torch.empty_like(product)  # the state after each chunk
        last = _fill_states(product, offset, state, after)
        before = torch.cat([state[None], after[:-1]])
        _fill_states(a_chunks, b_chunks, before, h[:stop].view(shape).transpose(0, 1))
        state = last
    _fill_states(a[stop:], b[stop:], state, h[stop:])
    return h


def _fill_states(a: Tensor, b: Tensor, state: Tensor, h: Tensor) -> Tensor:
    """Fill in h step by step; return the last state."""
    for a_t, b_t, h_t in zip(a, b, h, strict=True):
        state = torch.addcmul(b_t, a_t, state, out=h_t)
    return state
