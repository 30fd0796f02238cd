"""How far back a network remembers: gradients of its states, gates, and what each step adds to a decision."""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.models.losses import cross_entropies
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.models.padding import flip_sequences, last_step, valid_steps
from lightning_rnn.models.recurrent import RecurrentLayer, RecurrentStack, State, side_by_side
from lightning_rnn.padding import Padding

FADED = 0.01  # share of the largest gradient below which a step counts as forgotten
GATES = {
    "lstm": ("input", "forget", None, "output"),
    "gru": ("reset", "update", None),
}  # None: no gate
CLOSED = 0.1  # a gate within this of 0 or 1 is saturated


class Memory(NamedTuple):
    """What `probe` has found.

    Attributes:
        gradients: (T,) by layer and direction: norm of the loss's gradient with respect to the full state, k input
            steps before the end (in the backward direction, after the start), mean over the sequences that long.
        saturation: Share of gate values below 0.1 or above 0.9, by layer and direction and gate.
    """

    gradients: dict[str, Tensor]
    saturation: dict[str, float]

    def horizons(self) -> dict[str, int]:
        """Return the memory horizon of each layer and direction; see `horizon`."""
        return {name: horizon(curve) for name, curve in self.gradients.items()}


def probe(network: SequenceNetwork, batch: SequenceBatch) -> Memory:
    """Look into a network, which stays as it is.

    A copy in evaluation mode and double precision runs by its cells' one-step forms, so that every state can be
    differentiated. The head sees the last states whatever the pooling: the direct paths of a mean would hide the
    recurrence.

    Args:
        network: On the device of the batch.
        batch: With labels.
    """
    assert batch.y is not None
    network = copy.deepcopy(network).double().eval()
    x = network.preprocess(batch.x.double(), batch.padding)  # (B, T, F)
    inputs, padding = (x, batch.padding) if network.stem is None else network.stem(x, batch.padding)
    lengths = padding.lengths
    stride = 1 if network.stem is None else 4
    outputs, runs = unroll(network.recurrent, inputs, padding)
    logits = network.head(
        torch.cat([last_step(states, padding) for states in outputs], dim=1)
    ).squeeze(1)
    loss = cross_entropies(logits, batch.y).sum()  # of each sequence alone: none sees another
    flat = [tensor for run in runs.values() for state in run.states for tensor in state]
    found = torch.stack(torch.autograd.grad(loss, flat)).view(
        len(runs), inputs.shape[1], -1, *flat[0].shape
    )
    norms = torch.linalg.vector_norm(found, dim=(2, 4))  # (runs, T, B), of (h, c) together
    gradients, saturation = {}, {}
    for (name, run), norm in zip(runs.items(), norms, strict=True):
        gradients[name] = from_the_end(norm.t(), lengths).repeat_interleave(stride).cpu()
        for gate, share in saturations(run, lengths).items():
            saturation[f"{name}/{gate}"] = share
    return Memory(gradients, saturation)


def attribute(network: SequenceNetwork, batch: SequenceBatch) -> Tensor:
    """Tell what each step adds to the decision of a network, which stays as it is.

    Args:
        network: On the device of the batch.
        batch: B sequences.

    Returns:
        (B, T) gradient times input, summed over the features, of what speaks for the decided class against the rest;
        zero after each sequence's end.
    """
    network = copy.deepcopy(network).double().eval()
    x = network.preprocess(batch.x.double(), batch.padding).requires_grad_()  # (B, T, F)
    network.preprocess.set_moments(torch.tensor(0.0), torch.tensor(1.0))  # is done
    with torch.backends.cudnn.flags(enabled=False):  # its layers cannot go back in evaluation mode
        logits = network(x, batch.padding)
        decided = (
            logits * network.decision.predict(logits).mul(2).sub(1)
            if logits.ndim == 1
            else logits.amax(1)
        )
        (slope,) = torch.autograd.grad(decided.sum(), x)
    added: Tensor = (slope * x).sum(2).detach().cpu()
    return added


def horizon(curve: Tensor) -> int:
    """Return how many steps back a gradient norm (T,) falls below 1 % of its maximum; T where it never does."""
    top = int(curve.argmax())
    faded = (curve[top:] < FADED * curve[top]).nonzero()
    return top + int(faded[0]) if len(faded) else len(curve)


class Run(NamedTuple):
    """A layer's way through a batch, in the order in which it reads."""

    layer: RecurrentLayer
    inputs: Tensor  # (B, T, input size)
    states: list[State]  # T of them


def unroll(
    stack: RecurrentStack, x: Tensor, padding: Padding
) -> tuple[list[Tensor], dict[str, Run]]:
    """Run all layers step by step, without dropout.

    Args:
        stack: The layers.
        x: (B, T, F).
        padding: Number of steps of each sequence.

    Returns:
        The top layer's outputs (B, T, H) of each direction, in the order in which it reads, and the runs by layer and
        direction.
    """
    runs: dict[str, Run] = {}
    outputs = [x]
    for i, forward in enumerate(stack.forward_layers):
        x = side_by_side(outputs, padding) if i > 0 else x
        outputs = []
        for name in ("", "_backward") if stack.backward_layers else ("",):
            layer = stack.backward_layers[i] if name else forward
            assert isinstance(layer, RecurrentLayer)
            reads = flip_sequences(x, padding) if name else x
            states = [layer.initial_state(reads)]
            for x_t in reads.unbind(1):
                states.append(layer.step(x_t, states[-1]))
            runs[f"layer{i}{name}"] = Run(layer, reads, states[1:])
            outputs.append(torch.stack([state[0] for state in states[1:]], dim=1))  # (B, T, H)
    return outputs, runs


def from_the_end(values: Tensor, lengths: Tensor) -> Tensor:
    """Return (T,), the mean of values (B, T) so many steps before each sequence's end, over those that long."""
    values = flip_sequences(values[..., None], Padding(lengths))[..., 0]
    valid = valid_steps(lengths, values.shape[1])
    return values.masked_fill(~valid, 0.0).sum(0) / valid.sum(0)


@torch.no_grad()
def saturations(run: Run, lengths: Tensor) -> dict[str, float]:
    """Return the share of saturated values of each gate of an lstm or gru layer; nothing for other cells."""
    names = GATES.get(run.layer.cell)
    if names is None:
        return {}
    assert isinstance(run.layer.layer, torch.nn.LSTM | torch.nn.GRU)
    w_ih, w_hh, b_ih, b_hh = (weight.float() for weight in run.layer.layer.parameters())
    valid = valid_steps(lengths, len(run.states))
    before = torch.stack(
        [run.layer.initial_state(run.inputs)[0], *(state[0] for state in run.states[:-1])], dim=1
    )
    x, h = (
        values[valid].float() for values in (run.inputs, before)
    )  # (steps of all sequences, F and H)
    gates = (b_ih + b_hh).addmm(x, w_ih.t()).addmm_(h, w_hh.t())
    closed = gates.abs_() > math.log(1 / CLOSED - 1)  # sigmoid's argument is far from 0
    shares = (closed.sum(0).view(len(names), -1).double().mean(1) / len(closed)).tolist()
    return {name: share for name, share in zip(names, shares, strict=True) if name}
