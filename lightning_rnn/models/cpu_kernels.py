"""Recurrences over whole sequences with backward passes written by hand, for training on a CPU.

torch's own RNN and GRU run up to a dozen small operations a step there and record each for autograd. These run the few
that must wait for the step before, in place, and everything else for many steps at once. A step going back, for
instance, is one product with a matrix that was prepared for a chunk of steps, and one with the weights.

They start from a state h_0, zeros where it is None, work on time-major memory and are once differentiable. The minimal
GRU's is a linear recurrence, which needs no walk through all steps; that one serves every device.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = (
    1 << 15
)  # values of one gate prepared together going back: they stay in the processor's cache


class TanhRecurrence(torch.autograd.Function):
    """h_t = tanh(W x_t + b + U h_{t-1} + c), the equation of `torch.nn.RNN`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h_0: Tensor | None,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
    ) -> Tensor:
        """Return h (B, T, H) from x (B, T, F), h_0 (B, H) and the weights of a layer."""
        x = x.transpose(0, 1).contiguous()  # (T, B, F)
        h = torch.addmm(b_ih + b_hh, x.flatten(0, 1), w_ih.t()).view(*x.shape[:2], -1)  # (T, B, H)
        each, u = h.unbind(0), w_hh.t()
        (each[0] if h_0 is None else each[0].addmm_(h_0, u)).tanh_()
        for before, now in pairwise(each):
            now.addmm_(before, u).tanh_()
        ctx.save_for_backward(x, h_0, w_ih, w_hh, h)
        return h.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, h_0 and the weights."""
        x, h_0, w_ih, w_hh, h = ctx.saved_tensors
        d = 1 - h.square()  # tanh's derivative, then that of what it is taken of
        each, given = d.unbind(0), grad.unbind(1)
        later, through = each[-1].mul_(given[-1]), torch.empty_like(each[0])
        for now, given_now in zip(each[-2::-1], given[-2::-1], strict=True):
            later = now.mul_(torch.addmm(given_now, later, w_hh, out=through))
        flat = d.flatten(0, 1)  # (T B, H)
        d_hh = d[1:].flatten(0, 1).t() @ h[:-1].flatten(0, 1)
        if h_0 is not None:
            d_hh.addmm_(d[0].t(), h_0)
        d_x = (flat @ w_ih).view_as(x).transpose(0, 1) if ctx.needs_input_grad[0] else None
        d_h_0 = d[0] @ w_hh if ctx.needs_input_grad[1] else None
        bias = flat.sum(0)
        return d_x, d_h_0, flat.t() @ x.flatten(0, 1), d_hh, bias, bias


class GRURecurrence(torch.autograd.Function):
    """The equations of `torch.nn.GRU`.

    r, z = sigmoid(W x_t + b + U h_{t-1} + c), n = tanh(W x_t + b + r u) with u = U h_{t-1} + c, and
    h_t = n + z (h_{t-1} - n).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h_0: Tensor | None,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
    ) -> Tensor:
        """Return h (B, T, H) from x (B, T, F), h_0 (B, H) and the weights of a layer."""
        x, size = x.transpose(0, 1).contiguous(), w_hh.shape[1]  # (T, B, F)
        bias = torch.cat([b_ih[: 2 * size] + b_hh[: 2 * size], b_ih[2 * size :]]).view(3, 1, size)
        w_x = w_ih.view(3, size, -1).transpose(1, 2)
        gates = torch.baddbmm(bias, x.flatten(0, 1).expand(3, -1, -1), w_x).view(
            3, *x.shape[:2], size
        )
        u = x.new_empty(*x.shape[:2], size)  # (T, B, H)
        h = x.new_empty(len(x) + 1, x.shape[1], size)
        h[0] = 0 if h_0 is None else h_0
        u_r, u_z, u_n = (part.t() for part in w_hh.chunk(3))
        columns = (part.unbind(0) for part in (*gates, u, h[:-1], h[1:]))
        for r, z, n, u_t, before, now in zip(*columns, strict=True):
            r.addmm_(before, u_r).sigmoid_()
            z.addmm_(before, u_z).sigmoid_()
            torch.addmm(b_hh[2 * size :], before, u_n, out=u_t)
            n.addcmul_(r, u_t).tanh_()
            torch.lerp(n, before, z, out=now)
        ctx.save_for_backward(x, w_ih, w_hh, gates, u, h)
        return h[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, h_0 and the weights."""
        x, w_ih, w_hh, gates, u, h = ctx.saved_tensors
        steps, batch, size = u.shape
        chunk = min(steps, max(1, CHUNK // (batch * size)))
        # scratch of (K, B, ...) for K steps: gradients of h, of n's argument for one of h, of what U h + c gives
        d, d_n, work, d_u = (
            u.new_empty(chunk, batch, width) for width in (size, size, size, 3 * size)
        )
        d_ih, d_hh, db_ih, db_hh = (
            torch.zeros_like(like) for like in (w_ih, w_hh, w_ih[:, 0], w_ih[:, 0])
        )
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        later = u.new_zeros(
            batch, size
        )  # gradient of the state after the chunk, through the recurrence
        for end in range(steps, 0, -chunk):
            at = slice(max(0, end - chunk), end)
            d, d_n, work, d_u = (scratch[: at.stop - at.start] for scratch in (d, d_n, work, d_u))
            _gru_factors(gates[:, at], u[at], h[at], d_n, work, d_u)
            d.copy_(grad[:, at].transpose(0, 1))
            later = _gru_steps(d, d_u, gates[1, at], w_hh, later)
            flat = d_u.flatten(0, 1)  # (K B, 3 H)
            d_hh.addmm_(flat.t(), h[at].flatten(0, 1))
            db_hh += flat.sum(0)
            torch.mul(d, d_n, out=d_u[..., 2 * size :])  # of W x + b, n's part lacks the factor r
            d_ih.addmm_(flat.t(), x[at].flatten(0, 1))
            db_ih += flat.sum(0)
            if d_x is not None:
                torch.mm(flat, w_ih, out=d_x[at].flatten(0, 1))
        d_h_0 = later if ctx.needs_input_grad[1] else None
        return None if d_x is None else d_x.transpose(0, 1), d_h_0, d_ih, d_hh, db_ih, db_hh


def _gru_factors(
    gates: Tensor, u: Tensor, before: Tensor, d_n: Tensor, work: Tensor, d_u: Tensor
) -> None:
    """Fill in, for K steps at once, what a step's gradients are for a gradient of 1 in its h.

    Args:
        gates: (3, K, B, H) r, z and n.
        u: (K, B, H).
        before: (K, B, H) the states before each step.
        d_n: (K, B, H) to fill, of the argument of n's tanh.
        work: (K, B, H) scratch.
        d_u: (K, B, 3 H) to fill, of U h + c.
    """
    r, z, n = gates
    of_r, of_z, of_n = d_u.chunk(3, dim=2)
    torch.mul(n, n, out=d_n).sub_(1)
    torch.addcmul(d_n, d_n, z, value=-1, out=d_n).neg_()  # (1 - z) (1 - n²)
    torch.mul(d_n, r, out=of_n)
    torch.addcmul(r, r, r, value=-1, out=work)  # r (1 - r)
    torch.mul(work.mul_(d_n), u, out=of_r)
    torch.addcmul(z, z, z, value=-1, out=work)
    torch.mul(work, before, out=of_z).addcmul_(work, n, value=-1)


def _gru_steps(d: Tensor, d_u: Tensor, z: Tensor, w_hh: Tensor, later: Tensor) -> Tensor:
    """Go back through K steps: complete the gradients `d` of the states and `d_u` of U h + c.

    Returns:
        (B, H), the gradient of the state before the first of them, as far as it comes through them.
    """
    of_gates = d_u.view(*d.shape[:2], 3, -1).unbind(0)
    for d_t, gates_t, d_u_t, z_t in reversed(
        [*zip(d.unbind(0), of_gates, d_u.unbind(0), z.unbind(0), strict=True)]
    ):
        d_t += later
        gates_t *= d_t.unsqueeze(1)
        later = torch.addmm(d_t * z_t, d_u_t, w_hh)
    return later


class LinearRecurrence(torch.autograd.Function):
    """h_t = (1 - z_t) h_{t-1} + z_t v_t with z = sigmoid(gate): the minimal GRU, in about 3 √T steps; see `scan`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor, h_0: Tensor | None) -> Tensor:
        """Return h from gate and v, all (T, B, H), and h_0 (B, H)."""
        z = gate.sigmoid()
        h = scan(1 - z, z * value, torch.zeros_like(value[0]) if h_0 is None else h_0)
        ctx.save_for_backward(z, value, h, h_0)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of gate, v and h_0: that of h is the same recurrence in reverse."""
        z, value, h, h_0 = ctx.saved_tensors
        a = 1 - z
        d = torch.cat([scan(a[1:], grad[:-1], grad[-1], reverse=True), grad[-1:]])
        d_h_0 = a[0] * d[0] if ctx.needs_input_grad[2] else None
        d_gate = a.mul_(z).mul_(d)
        d_gate[0] *= value[0] if h_0 is None else value[0] - h_0
        d_gate[1:] *= value[1:] - h[:-1]
        return d_gate, d.mul_(z), d_h_0


def scan(a: Tensor, b: Tensor, state: Tensor, *, reverse: bool = False) -> Tensor:
    """Compute h_t = a_t h_{t-1} + b_t, or h_t = a_t h_{t+1} + b_t in reverse, as exactly as step by step.

    The steps are cut into about √T chunks. A walk through all of them side by side tells how much each keeps of a
    state and what it makes of none; a walk from chunk to chunk gives each its first state; a second walk side by side
    gives all states.

    Args:
        a: (T, ...).
        b: (T, ...).
        state: (...), before the first step.
        reverse: Whether the last step is the first.

    Returns:
        h (T, ...).
    """
    h, length = torch.empty_like(b), max(1, math.isqrt(len(a)))
    odd = slice(len(a) // length * length, None)  # steps that fill no chunk
    if reverse:
        state = _walk(a[odd], b[odd], state, h[odd], reverse)
    if odd.start > 0:
        # (steps of a chunk, chunks, ...)
        a_c, b_c, h_c = (
            x[: odd.start].view(-1, length, *state.shape).transpose(0, 1) for x in (a, b, h)
        )
        keeps, makes = torch.ones_like(b_c[0]), torch.zeros_like(b_c[0])
        for a_t, b_t in _in_order(reverse, a_c, b_c):
            keeps *= a_t
            torch.addcmul(b_t, a_t, makes, out=makes)
        first = torch.empty_like(makes)
        for keep, make, before in _in_order(reverse, keeps, makes, first):
            before.copy_(state)
            state = torch.addcmul(make, keep, state)
        _walk(a_c, b_c, first, h_c, reverse)
    if not reverse:
        _walk(a[odd], b[odd], state, h[odd], reverse)
    return h


def _walk(a: Tensor, b: Tensor, state: Tensor, h: Tensor, reverse: bool) -> Tensor:
    """Fill in h step by step; return its last."""
    for a_t, b_t, h_t in _in_order(reverse, a, b, h):
        state = torch.addcmul(b_t, a_t, state, out=h_t)
    return state


def _in_order(reverse: bool, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    rows = [*zip(*(column.unbind(0) for column in columns), strict=True)]
    return reversed(rows) if reverse else iter(rows)


def step_by_step(gate: Tensor, value: Tensor) -> Tensor:
    """Compute `LinearRecurrence` in a plain loop, which unlike the chunks can be exported for any T.

    Args:
        gate: (T, B, H).
        value: (T, B, H).

    Returns:
        h (T, B, H).
    """
    z = gate.sigmoid()
    state = torch.zeros_like(value[0])
    states: list[Tensor] = []
    for t in range(value.shape[0]):
        state = torch.lerp(state, value[t], z[t])
        states.append(state)
    return torch.stack(states)
