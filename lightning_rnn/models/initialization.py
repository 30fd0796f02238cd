"""Starting weights of the recurrent layers, which decide how far back training can look.

`torch` draws all weights from U(-1/sqrt(H), 1/sqrt(H)): the gates of LSTM and GRU start half
closed, and the gradient of an early step halves with each further step. `chrono` has

- orthogonal recurrent matrices, which neither shrink nor amplify the gradient: those of LSTM and
  GRU are drawn for each gate (Saxe et al. 2014, arXiv:1312.6120), that of rnn rotates pairs of
  units by angles from U(0, pi/2) (Helfrich et al. 2018, arXiv:1707.09520): slow rotations add up
  their inputs, and different ones tell steps apart,
- input matrices from Glorot and Bengio 2010 ("Xavier") for each gate, and for the head; that of
  rnn is multiplied by 0.3, as tanh would be saturated by the sum of many inputs,
- zero biases, except those of the gates that decide how long a unit remembers.

A unit whose gate keeps the share k of the state at each step remembers about 1 / (1 - k) steps. The
biases b = log(t - 1) with k = sigmoid(b) are chosen such that these times t are spread evenly from
2 to T_max steps (Tallec and Ollivier 2018, arXiv:1804.11188, "chrono initialization", which draws b
from log U(1, T_max - 1) where we take evenly spaced quantiles). b is the bias of

- the forget gate of an LSTM, whose input gate has -b,
- the update gate of a GRU, which keeps the state in torch's convention,
- the gate of mingru with the opposite sign, as this gate replaces the state.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_rnn.models.recurrent import CellName, RecurrentLayer, RecurrentStack

Initialization = Literal["chrono", "torch"]
UNKNOWN_SPAN = 100  # steps, where nothing is known of the training sequences
RNN_INPUT_SCALE = 0.3
NUM_GATES: dict[CellName, int] = {"rnn": 1, "lstm": 4, "gru": 3, "mingru": 2}


@torch.no_grad()
def initialize(stack: RecurrentStack, head: nn.Linear, span: float) -> None:
    """Draw the weights of all layers and directions, from torch's global generator.

    The head above them gets Xavier weights and zero biases. `span` is T_max, the number of steps
    that the layers should be able to remember.
    """
    for layer in _layers(stack):
        for name, parameter in layer.layer.named_parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
                continue
            is_recurrent = name.startswith("weight_hh")
            for matrix in parameter.chunk(NUM_GATES[layer.cell]):
                if is_recurrent and layer.cell == "rnn":
                    rotate_pairs_(matrix)
                elif is_recurrent:
                    nn.init.orthogonal_(matrix)
                else:
                    nn.init.xavier_uniform_(matrix)
        if layer.cell == "rnn":
            layer.layer.weight_ih_l0.mul_(RNN_INPUT_SCALE)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)
    spread_gates(stack, span)


@torch.no_grad()
def spread_gates(stack: RecurrentStack, span: float) -> None:
    """Set the biases of the gates for another span; see `initialize`."""
    for layer in _layers(stack):
        bias = _gate_bias(layer)
        bias.copy_(start_bias(layer.cell, layer.hidden_size, span))


def are_gates_spread(stack: RecurrentStack, span: float) -> bool:
    """Return whether the biases of the gates still are those that `spread_gates` has set."""
    for layer in _layers(stack):
        bias = _gate_bias(layer)
        expected = start_bias(layer.cell, layer.hidden_size, span).to(bias)
        if not torch.equal(bias, expected):
            return False
    return True


def start_bias(cell: CellName, hidden_size: int, span: float) -> Tensor:
    """Return the biases of all gates of a layer, in the order of its rows.

    Example:
        >>> biases = start_bias("gru", 2, span=10).view(3, 2)
        >>> biases.exp().round().tolist()  # reset gate, update gate, candidate
        [[1.0, 1.0], [3.0, 7.0], [1.0, 1.0]]
    """
    quantiles = (torch.arange(hidden_size) + 0.5) / hidden_size
    b = torch.log(1 + quantiles * max(span - 2, 0))
    zero = torch.zeros_like(b)
    if cell == "lstm":
        return torch.cat([-b, b, zero, zero])
    if cell == "gru":
        return torch.cat([zero, b, zero])
    if cell == "mingru":
        return torch.cat([-b, zero])
    return zero


@torch.no_grad()
def rotate_pairs_(matrix: Tensor) -> None:
    """Fill an (H, H) matrix that rotates units 0 and 1, 2 and 3, ... by angles from U(0, pi/2).

    The last one of an odd number of units stays as it is.
    """
    first = torch.arange(0, len(matrix) - 1, 2)
    second = first + 1
    angles = torch.rand(len(first)).to(matrix) * (math.pi / 2)
    nn.init.eye_(matrix)
    matrix[first, first] = angles.cos()
    matrix[second, second] = angles.cos()
    matrix[first, second] = -angles.sin()
    matrix[second, first] = angles.sin()


def _layers(stack: RecurrentStack) -> list[RecurrentLayer]:
    """Return the layers of all directions."""
    return [*stack.forward_layers, *stack.backward_layers]


def _gate_bias(layer: RecurrentLayer) -> Tensor:
    """Return the bias that is added to the input; torch's layers have a second one."""
    bias: Tensor = layer.layer.linear.bias if layer.cell == "mingru" else layer.layer.bias_ih_l0
    return bias
