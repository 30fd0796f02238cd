"""Recurrent layers, each with a form for whole sequences and one for single steps."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_rnn.models.cpu_kernels import (
    GRURecurrence,
    LinearRecurrence,
    TanhRecurrence,
    step_by_step,
)
from lightning_rnn.models.padding import flip_sequences, is_tracing, last_step
from lightning_rnn.models.time_slices import Ends, Parts, assemble, cut
from lightning_rnn.padding import Padding

CellName = Literal["rnn", "lstm", "gru", "mingru"]
State = tuple[Tensor, ...]  # (h,) or (h, c), each (B, H)


class MinGRU(nn.Module):
    """The minimal GRU (Feng et al. 2024, arXiv:2410.01201, section 3.1): its gate sees the input alone.

    z_t = sigmoid(W x_t + b), v_t = V x_t + c, h_t = (1 - z_t) h_{t-1} + z_t v_t. The state is linear in what came
    before, which makes it quick over long sequences (see `scan`); the price is that one layer cannot count, as parity
    asks.
    """

    def __init__(self, input_size: int, hidden_size: int, *, batch_first: bool = True) -> None:
        """Set up; the axes are always (B, T, F)."""
        super().__init__()
        self.linear = nn.Linear(input_size, 2 * hidden_size)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gate's argument and v, each (..., H), from inputs (..., F)."""
        weight, bias = self.linear.weight.view(2, -1, x.shape[-1]), self.linear.bias.view(2, 1, -1)
        flat = x.reshape(-1, x.shape[-1]).expand(2, -1, -1)
        both = torch.baddbmm(bias, flat, weight.transpose(1, 2)).view(2, *x.shape[:-1], -1)
        if both.dtype != torch.float64:
            both = both.float()  # over long sequences bfloat16 would lose the state
        return both[0], both[1]

    def forward(self, x: Tensor, h_0: Tensor | None = None) -> Tensor:
        """Return the states (B, T, H) of sequences (B, T, F), from zeros or from h_0 (B, H)."""
        gate, value = self.project(x.transpose(0, 1))  # (T, B, H)
        if is_tracing():
            states = torch.jit.script(step_by_step)(gate, value)
        else:
            states = LinearRecurrence.apply(gate, value, h_0)  # type: ignore[no-untyped-call]  # torch's has no types
        h: Tensor = states.transpose(0, 1)
        return h

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the next state (B, H) from an input (B, F)."""
        gate, value = self.project(x)
        return torch.lerp(h, value, gate.sigmoid())


_LAYERS: dict[str, type[nn.RNN] | type[nn.LSTM] | type[nn.GRU] | type[MinGRU]] = {
    "rnn": nn.RNN,
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "mingru": MinGRU,
}
_TRAINED_ON_CPU = {"rnn": TanhRecurrence, "gru": GRURecurrence}  # torch's lstm is quick there
CELLS = tuple(_LAYERS)


class RecurrentLayer(nn.Module):
    """One layer in one direction, from a state of zeros. Names and equations are those of torch's own layers."""

    def __init__(self, cell: CellName, input_size: int, hidden_size: int) -> None:
        """Set up."""
        super().__init__()
        self.cell, self.hidden_size = cell, hidden_size
        self.layer = _LAYERS[cell](input_size, hidden_size, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs h (B, T, H) of whole sequences (B, T, input size)."""
        return self.run(x, None)[0]

    def run(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Go on from a state of torch's layers, whose parts are (1, B, H); zeros where it is None.

        Returns:
            The outputs h (B, T, H) and the state after the last step.
        """
        if x.is_cpu and torch.is_autocast_enabled(
            "cpu"
        ):  # not every processor has torch's lstm in bfloat16
            with torch.autocast("cpu", enabled=False):
                return self.run(x.float(), state)
        if self.cell == "lstm":
            return self._run_lstm(x, state)
        h_0 = None if state is None else state[0][0]
        trains = torch.is_grad_enabled() and not is_tracing()
        by_hand = _TRAINED_ON_CPU.get(self.cell) if x.is_cpu and trains else None
        if by_hand is not None:
            output = by_hand.apply(x, h_0, *self.layer.all_weights[0])  # type: ignore[no-untyped-call, index]  # as above
        elif isinstance(self.layer, MinGRU):
            output = self.layer(x, h_0)
        else:
            output = self.layer(x, None if state is None else state[0])[0]
        return output, (output[None, :, -1],)

    def _run_lstm(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        if is_tracing():  # only whole layers can be exported
            output, after = self.layer(x, state)
            return output, after
        # without what the layer asks before it calls this, which costs a small one a good part of its time
        before = state or [part[None] for part in self.initial_state(x)]
        weights: Any = self.layer.all_weights[0]  # type: ignore[index]  # which mypy takes for a module
        output, *after = torch.lstm(x, before, weights, True, 1, 0.0, self.training, False, True)
        return output, tuple(after)

    def initial_state(self, x: Tensor) -> State:
        """Return the state of zeros for inputs like `x` (B, ...)."""
        zero = x.new_zeros(len(x), self.hidden_size)
        return (zero, zero) if self.cell == "lstm" else (zero,)

    def step(self, x: Tensor, state: State) -> State:
        """Advance one step.

        Args:
            x: (B, input size).
            state: (h,), or (h, c) for lstm.

        Returns:
            The next state; its first tensor is the output.
        """
        if isinstance(self.layer, MinGRU):
            return (self.layer.step(x, state[0]),)
        if is_tracing():  # only whole layers can be exported
            before = tuple(part[None] for part in state)
            after = self.layer(x[:, None], before if self.cell == "lstm" else before[0])[1]
            return tuple(part[0] for part in (after if self.cell == "lstm" else (after,)))
        weights = self.layer.all_weights[0]  # input to state, state to state, and a bias of each
        if self.cell == "lstm":
            return torch.lstm_cell(x, state, *weights)
        if self.cell == "gru":
            return (torch.gru_cell(x, state[0], *weights),)
        return (torch.rnn_tanh_cell(x, state[0], *weights),)


class LockedDropout(nn.Module):
    """Dropout with one mask for all time steps of a sequence (Gal and Ghahramani 2016, arXiv:1512.05287).

    The mask does not depend on how wide a batch is padded, so neither does training.
    """

    def __init__(self, p: float) -> None:
        """Set up."""
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole channels of (B, T, H)."""
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x[:, :1]).bernoulli_(1 - self.p)  # (B, 1, H)
        return x * (keep / (1 - self.p))


class RecurrentStack(nn.Module):
    """Layers one above the other, in one or both directions, with dropout between them."""

    def __init__(
        self,
        cell: CellName,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        """Set up; see `SequenceNetwork`."""
        super().__init__()
        self.hidden_size = hidden_size
        self.output_size = hidden_size * (2 if bidirectional else 1)
        sizes = [input_size] + [self.output_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(
            RecurrentLayer(cell, size, hidden_size) for size in sizes
        )
        backward = sizes if bidirectional else []
        self.backward_layers = nn.ModuleList(
            RecurrentLayer(cell, size, hidden_size) for size in backward
        )
        self.dropout = LockedDropout(dropout)

    def forward(self, x: Tensor, padding: Padding) -> list[Tensor]:
        """Return the top layer's outputs (B, T, H) of each direction, in the order in which it reads.

        Args:
            x: (B, T, F).
            padding: On a CPU best in descending order of length, see `cut`.
        """
        parts, outputs = self._run(x, padding)
        return [assemble(pieces, parts, x.shape[:2]) for pieces in outputs]

    def last(self, x: Tensor, padding: Padding) -> list[Tensor]:
        """Return what `forward` has at each sequence's last step, (B, H) of each direction."""
        parts, outputs = self._run(x, padding)
        if parts is None:
            return [last_step(whole, padding) for (whole,) in outputs]
        return [Ends.apply(padding.lengths, parts, *pieces) for pieces in outputs]  # type: ignore[no-untyped-call]  # torch's has no types

    def _run(self, x: Tensor, padding: Padding) -> tuple[Parts | None, list[list[Tensor]]]:
        """Return how the batch has been cut, and the top layer's outputs of each direction, part by part."""
        parts = cut(padding, x.shape[1], self.hidden_size)
        outputs: list[list[Tensor]] = []
        for i, layer in enumerate(self.forward_layers):
            if i > 0:
                below = [assemble(pieces, parts, x.shape[:2]) for pieces in outputs]
                x = self.dropout(side_by_side(below, padding))
            outputs = [_in_parts(layer, x, parts)]
            if self.backward_layers:
                outputs.append(
                    _in_parts(self.backward_layers[i], flip_sequences(x, padding), parts)
                )
        return parts, outputs


def side_by_side(outputs: list[Tensor], padding: Padding) -> Tensor:
    """Return (B, T, D H) in the order of time from outputs (B, T, H) of D directions in that of their reading."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    return torch.cat([forward, flip_sequences(backward, padding)], dim=2)


def _in_parts(layer: nn.Module, x: Tensor, parts: Parts | None) -> list[Tensor]:
    """Return the outputs of each part, (B, T, H) of it."""
    assert isinstance(layer, RecurrentLayer)
    if parts is None:
        return [layer(x)]
    outputs, state = [], None
    for start, stop, count in parts:
        state = state and tuple(part[:, :count] for part in state)
        output, state = layer.run(x[:count, start:stop], state)
        outputs.append(output)
    return outputs
