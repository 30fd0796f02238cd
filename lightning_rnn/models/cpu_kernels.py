"""Recurrences of RNN and GRU for training on a CPU, with hand-written backward passes.

On a CPU, torch's own RNN and GRU run about ten small operations per step and record each of them
for autograd. The kernels run only what depends on the previous step in a loop, in place, and
everything else for all steps at once. A training step takes 1/1.9 to 1/1.5 (RNN) and 1/1.6 to 1/1.3
(GRU) of the time of torch's layers, which remain the reference.

The kernels are differentiable once, in backward mode. For double backward, forward-mode automatic
differentiation or `torch.func`, disable them with `use_kernels(False)`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_rnn.padding import is_tracing

# The GRU's backward pass handles this many values of a gate at once: they stay in the CPU's cache.
CHUNK_VALUES = 1 << 15

# whether layers may use hand-written backward passes, see `use_kernels`
kernels_enabled = ContextVar("kernels_enabled", default=True)


@contextmanager
def use_kernels(enabled: bool) -> Iterator[None]:
    """Enable or disable all hand-written backward passes of recurrent layers within a context.

    They are enabled by default. If disabled, layers are slower, but every kind of differentiation
    works: rnn and gru run as layers of torch, and mingru as a loop over the steps.

    Example:
        >>> layer = FastGRU(2, 4)
        >>> x = torch.ones(1, 3, 2, requires_grad=True)
        >>> with use_kernels(False):
        ...     output, _ = layer(x)
        >>> (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        >>> gradient.sum().backward()
        >>> x.grad.shape
        torch.Size([1, 3, 2])
    """
    token = kernels_enabled.set(enabled)
    try:
        yield
    finally:
        kernels_enabled.reset(token)


class _RNNFunction(torch.autograd.Function):
    """h_t = tanh(W x_t + b + U h_(t-1) + c), the equation of `torch.nn.RNN`.

    With G_t the gradient of output h_t, the gradient of the argument of tanh is
    d_t = (1 - h_t^2) (G_t + U^T d_(t+1)).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h_0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> Tensor:
        """Return h (B, T, H) from x (B, T, F), h_0 (B, H), W, U, b and c."""
        x = x.transpose(0, 1).contiguous()  # (T, B, F)
        h = torch.addmm(b_ih + b_hh, x.flatten(0, 1), w_ih.t())  # completed to h_t in the loop
        h = h.view(*x.shape[:2], -1)  # (T, B, H)
        w_hh_t = w_hh.t()
        previous = h_0
        for h_t in h:
            previous = h_t.addmm_(previous, w_hh_t).tanh_()
        ctx.save_for_backward(x, h_0, w_ih, w_hh, h)
        return h.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the arguments of `forward` from that of h (B, T, H)."""
        x, h_0, w_ih, w_hh, h = ctx.saved_tensors
        d = 1 - h.square()  # (T, B, H), completed to d_t in the loop
        d_next = torch.zeros_like(h_0)
        d_h = torch.empty_like(h_0)
        rows = zip(d, grad.unbind(1), strict=True)
        for d_t, grad_t in reversed(list(rows)):
            torch.addmm(grad_t, d_next, w_hh, out=d_h)
            d_next = d_t.mul_(d_h)
        flat = d.flatten(0, 1)  # (T B, H)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (flat @ w_ih).view_as(x).transpose(0, 1)
        d_w_ih = flat.t() @ x.flatten(0, 1)
        d_w_hh = d[1:].flatten(0, 1).t() @ h[:-1].flatten(0, 1)
        d_w_hh.addmm_(d[0].t(), h_0)
        d_b = flat.sum(0)
        return d_x, d_next @ w_hh, d_w_ih, d_w_hh, d_b, d_b


class _GRUFunction(torch.autograd.Function):
    """The equations of `torch.nn.GRU`, with the rows of W, U, b and c for r, z and n.

        r_t = sigmoid(W_r x_t + b_r + U_r h_(t-1) + c_r), u_t = U_n h_(t-1) + c_n,
        z_t = sigmoid(W_z x_t + b_z + U_z h_(t-1) + c_z), n_t = tanh(W_n x_t + b_n + r_t u_t),
        h_t = n_t + z_t (h_(t-1) - n_t).

    With G_t the gradient of output h_t and D_t that of state h_t, the gradient of U h_(t-1) + c is
    d_t = D_t [a_t r_t (1 - r_t) u_t, z_t (1 - z_t) (h_(t-1) - n_t), a_t r_t] for r, z and n, where
    a_t = (1 - z_t) (1 - n_t^2), and D_(t-1) = G_(t-1) + z_t D_t + U^T d_t. The gradient of
    W x_t + b is D_t a_t for n and the same for r and z.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h_0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> Tensor:
        """Return h (B, T, H) from x (B, T, F), h_0 (B, H), W, U, b and c."""
        x = x.transpose(0, 1).contiguous()  # (T, B, F)
        steps, batch, _ = x.shape
        size = h_0.shape[1]
        bias = torch.cat([b_ih[: 2 * size] + b_hh[: 2 * size], b_ih[2 * size :]])
        w_x = w_ih.view(3, size, -1).transpose(1, 2)  # (3, F, H)
        repeated = x.flatten(0, 1).expand(3, -1, -1)  # (3, T B, F)
        gates = torch.baddbmm(bias.view(3, 1, size), repeated, w_x).view(3, steps, batch, size)
        u = x.new_empty(steps, batch, size)
        h = x.new_empty(steps + 1, batch, size)  # begins with h_0
        h[0] = h_0
        w_r, w_z, w_n = w_hh.view(3, size, size).transpose(1, 2)
        b_n = b_hh[2 * size :]
        rows = zip(*gates, u, h[:-1], h[1:], strict=True)
        for r_t, z_t, n_t, u_t, previous, h_t in rows:
            r_t.addmm_(previous, w_r).sigmoid_()
            z_t.addmm_(previous, w_z).sigmoid_()
            torch.addmm(b_n, previous, w_n, out=u_t)
            n_t.addcmul_(r_t, u_t).tanh_()
            torch.lerp(n_t, previous, z_t, out=h_t)
        ctx.save_for_backward(x, w_ih, w_hh, gates, u, h)
        return h[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the arguments of `forward` from that of h (B, T, H)."""
        x, w_ih, w_hh, gates, u, h = ctx.saved_tensors
        steps, batch, size = u.shape
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        d_h = torch.zeros_like(h[0])
        d_w_ih = torch.zeros_like(w_ih)
        d_w_hh = torch.zeros_like(w_hh)
        d_b_ih = w_ih.new_zeros(3 * size)
        d_b_hh = w_ih.new_zeros(3 * size)
        chunk = max(1, CHUNK_VALUES // (batch * size))
        for stop in range(steps, 0, -chunk):
            at = slice(max(0, stop - chunk), stop)
            r, z, n = gates[:, at]
            d_n = (1 - z) * (1 - n.square())  # a_t, completed to D_t a_t in the loop
            d_z = z * (1 - z) * (h[at] - n)
            d_u = torch.stack([d_n * r * (1 - r) * u[at], d_z, d_n * r], dim=2)  # (K, B, 3, H)
            rows = zip(grad[:, at].unbind(1), z, d_n, d_u, strict=True)
            for grad_t, z_t, d_n_t, d_u_t in reversed(list(rows)):
                d_h = d_h + grad_t
                d_n_t.mul_(d_h)
                d_u_t.mul_(d_h.unsqueeze(1))  # completes d_t
                d_h = torch.addmm(d_h * z_t, d_u_t.flatten(1), w_hh)
            flat = d_u.view(-1, 3 * size)  # (K B, 3 H)
            d_w_hh.addmm_(flat.t(), h[at].flatten(0, 1))
            d_b_hh += flat.sum(0)
            d_u[:, :, 2] = d_n  # from the gradient of U h + c to that of W x + b
            d_w_ih.addmm_(flat.t(), x[at].flatten(0, 1))
            d_b_ih += flat.sum(0)
            if d_x is not None:
                torch.mm(flat, w_ih, out=d_x[at].flatten(0, 1))
        if d_x is not None:
            d_x = d_x.transpose(0, 1)
        return d_x, d_h, d_w_ih, d_w_hh, d_b_ih, d_b_hh


class _KernelLayer(nn.RNNBase):
    """One-layer, one-way, batch-first layer of torch that uses a kernel for training on a CPU."""

    kernel: ClassVar[type[torch.autograd.Function]]

    def __init__(self, input_size: int, hidden_size: int) -> None:
        options: dict[str, Any] = {"batch_first": True}
        super().__init__(input_size, hidden_size, **options)  # type: ignore[arg-type]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return the outputs (B, T, H) and the last state (1, B, H), as torch's layer does."""
        is_batch = isinstance(input, Tensor) and input.ndim == 3  # not a packed or single sequence
        can_train = kernels_enabled.get() and torch.is_grad_enabled() and not is_tracing()
        if not (is_batch and input.is_cpu and can_train):
            return super().forward(input, hx)
        h_0 = input.new_zeros(input.shape[0], self.hidden_size) if hx is None else hx[0]
        weights = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        output: Tensor = self.kernel.apply(input, h_0, *weights)  # type: ignore[no-untyped-call]
        return output, output[None, :, -1]


class FastRNN(_KernelLayer, nn.RNN):
    """A `torch.nn.RNN` with a kernel."""

    kernel = _RNNFunction


class FastGRU(_KernelLayer, nn.GRU):
    """A `torch.nn.GRU` with a kernel."""

    kernel = _GRUFunction
