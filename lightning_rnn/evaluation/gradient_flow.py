"""Gradient flow through time, saturation of gates, and attribution of a decision to time steps."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.models.losses import cross_entropies
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.models.padding import flip_sequences, last_step, valid_steps
from lightning_rnn.models.preprocess import Preprocess
from lightning_rnn.models.recurrent import RecurrentLayer, RecurrentStack, State, side_by_side
from lightning_rnn.models.stem import STRIDE
from lightning_rnn.padding import Padding

VANISHED = 0.01  # share of the largest gradient norm
SATURATED = 0.1  # distance of a gate from 0 or 1
GATES = {"lstm": ("input", "forget", "cell", "output"), "gru": ("reset", "update", "new")}
CANDIDATES = ("cell", "new")  # in the weights beside the gates, but with tanh


@dataclass(frozen=True)
class GradientFlow:
    """Measurements of `measure_gradient_flow`, by layer and direction.

    The `gradients` (T,) are norms of the gradient of the loss with respect to the state k input
    steps before the end (after the start in the backward direction), each the mean over the
    sequences that are long enough.
    """

    gradients: dict[str, Tensor]
    saturation: dict[str, float]  # share of values below 0.1 or above 0.9, also by gate


@dataclass(frozen=True)
class LayerRun:
    """Inputs and states of a layer for a batch, in the order in which it reads the steps."""

    layer: RecurrentLayer
    inputs: Tensor  # (B, T, input size)
    states: list[State]  # T of them

    def outputs(self) -> Tensor:
        """Return the outputs (B, T, H)."""
        return torch.stack([state[0] for state in self.states], dim=1)


def measure_gradient_flow(network: SequenceNetwork, batch: SequenceBatch) -> GradientFlow:
    """Measure how far back the gradient of the loss of a labelled batch reaches.

    A copy of the network in evaluation mode and double precision runs step by step, so that the
    loss can be differentiated with respect to every state. The head receives the last states
    whatever the pooling: the direct paths of a mean or maximum would hide the recurrence.
    """
    assert batch.y is not None
    network = copy.deepcopy(network).double().eval().requires_grad_()
    inputs = network.preprocess(batch.x.double(), batch.padding)  # (B, T, F)
    padding = batch.padding
    stride = 1
    if network.stem is not None:
        output = network.stem(inputs, padding)
        inputs, padding = output.x, output.padding
        stride = STRIDE
    runs, last_outputs = _run_step_by_step(network.recurrent, inputs, padding)
    logits = network.head(last_outputs).squeeze(1)
    loss = cross_entropies(logits, batch.y).sum()  # each state belongs to one sequence only

    is_valid = valid_steps(padding.lengths, inputs.shape[1])
    gradients = {}
    saturation = {}
    for name, norms in _state_gradients(loss, runs).items():
        before_end = flip_sequences(norms[..., None], padding)[..., 0]  # (B, T)
        curve = before_end.masked_fill(~is_valid, 0.0).sum(0) / is_valid.sum(0)
        gradients[name] = curve.repeat_interleave(stride).cpu()
        for gate, share in _gate_saturation(runs[name], is_valid).items():
            saturation[f"{name}/{gate}"] = share
    return GradientFlow(gradients, saturation)


def attribute(network: SequenceNetwork, batch: SequenceBatch) -> Tensor:
    """Attribute the decision of a network to time steps by gradient times input.

    Source: Shrikumar et al. 2016, arXiv:1605.01713.

    Returns:
        (B, T) contributions to the logit of the predicted class, summed over the features; 0 after
        the end of a sequence.
    """
    network = copy.deepcopy(network).double().eval()
    x = network.preprocess(batch.x.double(), batch.padding).requires_grad_()  # (B, T, F)
    network.preprocess = Preprocess(x.shape[2]).to(x)  # changes nothing, as x is standardised
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no backward in evaluation mode
        logits = network(x, batch.padding)
        if logits.ndim == 1:
            sign = 2 * network.decision.predict(logits) - 1
            predicted = logits * sign
        else:
            predicted = logits.amax(1)
        (gradient,) = torch.autograd.grad(predicted.sum(), x)
    contributions: Tensor = (gradient * x).sum(2).detach().cpu()
    return contributions


def horizon(curve: Tensor) -> int:
    """Return how many steps back a gradient norm (T,) falls to 1 % of its maximum, or T.

    It is 0 for a gradient that is 0 everywhere.

    Example:
        >>> horizon(torch.tensor([1.0, 0.5, 0.02, 0.009]))
        3
    """
    maximum = int(curve.argmax())
    vanished = (curve[maximum:] <= VANISHED * curve[maximum]).nonzero()
    if len(vanished) == 0:
        return len(curve)
    return maximum + int(vanished[0])


def _run_step_by_step(
    stack: RecurrentStack, x: Tensor, padding: Padding
) -> tuple[dict[str, LayerRun], Tensor]:
    """Run all layers over x (B, T, F) one step at a time, without dropout.

    Returns the runs by layer and direction, and the last outputs (B, D H) of the top layer.
    """
    runs: dict[str, LayerRun] = {}
    outputs: list[Tensor] = []
    for i, forward_layer in enumerate(stack.forward_layers):
        directions = {f"layer{i}": _run_layer(forward_layer, x)}
        if stack.backward_layers:
            backward = _run_layer(stack.backward_layers[i], flip_sequences(x, padding))
            directions[f"layer{i}_backward"] = backward
        outputs = [run.outputs() for run in directions.values()]
        x = side_by_side(outputs, padding)
        runs |= directions
    return runs, torch.cat([last_step(output, padding) for output in outputs], dim=1)


@torch.no_grad()
def _gate_saturation(run: LayerRun, is_valid: Tensor) -> dict[str, float]:
    """Return the share of saturated values of each gate in the steps of a mask (B, T)."""
    names = GATES.get(run.layer.cell)
    if names is None:
        return {}
    weights = {name: weight.float() for name, weight in run.layer.layer.named_parameters()}
    hidden = [run.layer.initial_state(run.inputs)[0]]
    for state in run.states[:-1]:
        hidden.append(state[0])
    x = run.inputs[is_valid].float()  # (S, input size), the S steps of all sequences
    h = torch.stack(hidden, dim=1)[is_valid].float()  # (S, H), the state before each step
    bias = weights["bias_ih_l0"] + weights["bias_hh_l0"]
    arguments = bias.addmm(x, weights["weight_ih_l0"].t())  # (S, gates * H)
    arguments.addmm_(h, weights["weight_hh_l0"].t())
    bound = math.log(1 / SATURATED - 1)  # sigmoid(bound) = 0.9
    is_saturated = arguments.abs_() > bound
    shares = is_saturated.sum(0).view(len(names), -1).double().mean(1) / len(x)
    saturation = dict(zip(names, shares.tolist(), strict=True))
    return {name: saturation[name] for name in names if name not in CANDIDATES}


def _run_layer(layer: torch.nn.Module, x: Tensor) -> LayerRun:
    assert isinstance(layer, RecurrentLayer)
    state = layer.initial_state(x)
    states = []
    for x_t in x.unbind(1):
        state = layer.step(x_t, state)
        states.append(state)
    return LayerRun(layer, x, states)


def _state_gradients(loss: Tensor, runs: dict[str, LayerRun]) -> dict[str, Tensor]:
    """Return (B, T) norms of the gradients with respect to the states, h and c together."""
    states: list[Tensor] = []
    for run in runs.values():
        for state in run.states:
            states.extend(state)
    gradients = torch.stack(torch.autograd.grad(loss, states))  # (runs * T * parts, B, H)
    num_steps = len(next(iter(runs.values())).states)
    gradients = gradients.view(len(runs), num_steps, -1, *states[0].shape)
    norms = torch.linalg.vector_norm(gradients, dim=(2, 4))  # (runs, T, B)
    return {name: norm.t() for name, norm in zip(runs, norms, strict=True)}
