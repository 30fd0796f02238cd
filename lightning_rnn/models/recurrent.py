"""Recurrent layers and stacks of them, for whole sequences and for single steps."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from lightning_rnn.models.cpu_kernels import FastGRU, FastRNN
from lightning_rnn.models.mingru import MinGRU
from lightning_rnn.models.padding import Segment, cut, flip_sequences
from lightning_rnn.padding import Padding

CellName = Literal["rnn", "lstm", "gru", "mingru"]
CELLS = get_args(CellName)
State = tuple[Tensor, ...]  # (h,), or (h, c) for lstm, each (B, H)

_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "rnn": FastRNN,
    "lstm": partial(nn.LSTM, batch_first=True),
    "gru": FastGRU,
    "mingru": MinGRU,
}


class RecurrentLayer(nn.Module):
    """One recurrent layer in one direction, with the weights and equations of torch's layers."""

    def __init__(self, cell: CellName, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.hidden_size = hidden_size
        self.layer: Any = _LAYERS[cell](input_size, hidden_size)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the outputs h (B, T, H) of sequences (B, T, F), and the state after the last step.

        `state` is the state before the first step; zeros by default.
        """
        if x.is_cpu and torch.is_autocast_enabled("cpu"):
            # torch's LSTM supports bfloat16 on some CPUs only
            with torch.autocast("cpu", enabled=False):
                return self.forward(x.float(), state)
        if state is None:
            output, after = self.layer(x)
        elif self.cell == "lstm":  # torch's states are (1, B, H)
            output, after = self.layer(x, (state[0][None], state[1][None]))
        else:
            output, after = self.layer(x, state[0][None])
        if self.cell == "lstm":
            return output, (after[0][0], after[1][0])
        return output, (after[0],)

    def initial_state(self, x: Tensor) -> State:
        """Return the state of zeros for inputs (B, ...) of the same device and dtype as `x`."""
        zeros = x.new_zeros(x.shape[0], self.hidden_size)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)

    def step(self, x: Tensor, state: State) -> State:
        """Return the state after one more input (B, F); its first tensor is the output.

        The equations are those in the documentation of torch's layers.
        """
        if self.cell == "mingru":
            return (self.layer.step(x, state[0]),)
        layer = self.layer
        from_input = linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
        from_state = linear(state[0], layer.weight_hh_l0, layer.bias_hh_l0)
        if self.cell == "rnn":
            return (torch.tanh(from_input + from_state),)
        if self.cell == "gru":
            return (_gru_step(from_input, from_state, state[0]),)
        return _lstm_step(from_input + from_state, state[1])


def _gru_step(from_input: Tensor, from_state: Tensor, h: Tensor) -> Tensor:
    """Return the next h (B, H) of a GRU, from W x + b and U h + c (B, 3 H), and h (B, H)."""
    input_r, input_z, input_n = from_input.chunk(3, dim=1)
    state_r, state_z, state_n = from_state.chunk(3, dim=1)
    r = torch.sigmoid(input_r + state_r)
    z = torch.sigmoid(input_z + state_z)
    n = torch.tanh(input_n + r * state_n)
    return n + z * (h - n)


def _lstm_step(gates: Tensor, c: Tensor) -> State:
    """Return the next (h, c) of an LSTM, from the arguments of its gates (B, 4 H) and c (B, H)."""
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class LockedDropout(nn.Dropout1d):
    """Dropout with one mask for all steps (Gal and Ghahramani 2016, arXiv:1512.05287).

    The mask does not depend on the width of a padded batch, so neither do the results of training.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop channels of sequences (B, T, H) in training mode."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class RecurrentStack(nn.Module):
    """Recurrent layers in D directions, with dropout between them; see `NetworkOptions`."""

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
        super().__init__()
        self.hidden_size = hidden_size
        self.output_size = 2 * hidden_size if bidirectional else hidden_size  # D H
        self.forward_layers = nn.ModuleList()
        self.backward_layers = nn.ModuleList()
        input_sizes = [input_size, *[self.output_size] * num_layers][:num_layers]
        for size in input_sizes:
            self.forward_layers.append(RecurrentLayer(cell, size, hidden_size))
        if bidirectional:
            for size in input_sizes:
                self.backward_layers.append(RecurrentLayer(cell, size, hidden_size))
        self.dropout = LockedDropout(dropout)

    def forward(self, x: Tensor, padding: Padding) -> list[Tensor]:
        """Return the outputs (B, T, H) of the top layer for each direction, in the order it reads.

        On a CPU, `x` (B, T, F) is best in descending order of length, see `cut`.
        """
        segments = cut(padding, x.shape[1], self.hidden_size)
        outputs: list[Tensor] = []
        for i, layer in enumerate(self.forward_layers):
            if i > 0:
                x = self.dropout(side_by_side(outputs, padding))
            outputs = [_run_segments(layer, x, segments)]
            if self.backward_layers:
                flipped = flip_sequences(x, padding)
                outputs.append(_run_segments(self.backward_layers[i], flipped, segments))
        return outputs


def side_by_side(outputs: list[Tensor], padding: Padding) -> Tensor:
    """Concatenate what `RecurrentStack.forward` returns to (B, T, D H), in the order of time."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    return torch.cat([forward, flip_sequences(backward, padding)], dim=2)


def _run_segments(layer: Any, x: Tensor, segments: list[Segment]) -> Tensor:
    """Return the outputs (B, T, H) of a layer, zero where no segment has a value."""
    if len(segments) == 1:
        return layer(x)[0]  # type: ignore[no-any-return]  # nn.Module returns Any
    outputs = []
    state = None
    for segment in segments:
        if state is not None:
            state = tuple(part[: segment.count] for part in state)
        output, state = layer(x[: segment.count, segment.start : segment.stop], state)
        outputs.append(pad(output, (0, 0, 0, 0, 0, len(x) - segment.count)))
    joined = torch.cat(outputs, dim=1)
    return pad(joined, (0, 0, 0, x.shape[1] - segments[-1].stop))
