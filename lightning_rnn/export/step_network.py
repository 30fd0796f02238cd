"""A network that takes one step of each sequence at a time and carries a state."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from lightning_rnn.errors import check
from lightning_rnn.models.inception import InceptionBlock, InceptionStem
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.models.stem import STRIDE, ConvStem, output_lengths

State = dict[str, Tensor]  # parts of the state of B sequences, (B, ...) each, by name

# The convolutional stem has two convolutions of kernel 9, stride 2 and padding 4. Position p of the
# second one sees positions 2p - 4 to 2p + 4 of the first one, and through them inputs 4p - 12 to
# 4p + 12.
REACH = 12  # inputs that position p sees on each side of input 4p
# After n steps there are ceil(n / 4) positions, at most 3 of them not completed. The step itself
# can complete one, so that a step changes up to 4 positions.
OPEN_POSITIONS = 4
WINDOW = 2 * REACH + 1 + STRIDE * (OPEN_POSITIONS - 1)  # inputs that 4 positions see together: 37
KEPT_INPUTS = 24  # of a window, those that can have arrived: see `completed_positions`


def completed_positions(steps: Tensor) -> Tensor:
    """Count the positions of the stem's output that no further step can change.

    Position p is completed when its last input, 4p + 12, has arrived, after n >= 4p + 13 steps. So
    floor((n - 9) / 4) positions are completed, or none if n < 9. The next position p then sees at
    most 24 of the inputs so far, from 4p - 12 to n - 1, since n <= 4p + 12. `steps` (B,) are the n.

    Example:
        >>> completed_positions(torch.tensor([1, 12, 13, 16, 17]))
        tensor([0, 0, 1, 1, 2])
    """
    return (steps - 9).clamp(min=0) // 4


class StepNetwork(nn.Module):
    """Computes after each step what a `SequenceNetwork` computes for the sequence so far.

    Without a stem, a step advances each recurrent layer once. With a stem, the state holds the
    layers' states after the last completed position. The positions behind it depend on where the
    sequence ends: each step computes them anew, advances the layers over them for its logits, and
    discards the result. The convolutional stem has up to 4 such positions. The inception stem is
    causal here and has at most one, an average over fewer than 4 steps.

    Raises:
        OptionError: If the network is bidirectional, which would require the end of the sequence,
            or has an encoder.
    """

    def __init__(self, network: SequenceNetwork) -> None:
        super().__init__()
        bidirectional = network.options.bidirectional
        check(not bidirectional, "bidirectional", bidirectional, "False for streaming")
        is_recurrent = network.encoder is None
        check(is_recurrent, "streaming", True, "False for a network with an encoder")
        self.network = network
        cell = network.options.cell
        # names of the parts of each layer's state, of which the first is its output
        self._layer_names: list[tuple[str, ...]] = []
        for i in range(network.options.num_layers):
            self._layer_names.append((f"h{i}", f"c{i}") if cell == "lstm" else (f"h{i}",))
        self._part_names = list(self.initial_state(0))

    def initial_state(self, batch_size: int) -> State:
        """Return the state of B sequences before their first step, all zero.

        Its parts are the number of steps, the last known value of each feature, the latest inputs
        of the stem, the state of each layer, and the sum or maximum of the top layer's outputs.
        """
        width = self.network.options.hidden_size
        num_inputs = self.network.preprocess.output_size
        state = {
            "steps": torch.zeros(batch_size, dtype=torch.int64),
            "last_values": torch.zeros(batch_size, self.network.input_size),
        }
        stem = self.network.stem
        if isinstance(stem, ConvStem):
            state["inputs"] = torch.zeros(batch_size, KEPT_INPUTS, num_inputs)
        elif stem is not None:
            num_channels = num_inputs
            for i, block in enumerate(_blocks(stem)):
                state[f"inputs{i}"] = torch.zeros(batch_size, num_channels, block.context[0])
                num_channels = block.output_size
            state["position_sum"] = torch.zeros(batch_size, num_channels)
            state["summary"] = torch.zeros(batch_size, num_channels, dtype=torch.float64)
        for names in self._layer_names:
            for name in names:
                state[name] = torch.zeros(batch_size, width)
        if self.network.options.pooling != "last":
            # a sum of thousands of float32 values would lose digits
            state["pooled"] = torch.zeros(batch_size, width, dtype=torch.float64)
        return state

    def forward(self, x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """Take one step.

        Args:
            x: (B, F) raw values, NaN where missing.
            parts: The state after the previous step, in the order of `initial_state`.

        Returns:
            Logits, as the network computes them for the sequence so far, and the new state.
        """
        state = dict(zip(self._part_names, parts, strict=True))
        x = self.network.preprocess.standardise(x)
        last_values = torch.where(x.isnan(), state["last_values"], x)
        x = self.network.preprocess.encode(last_values)
        steps = state["steps"] + 1
        stem = self.network.stem
        summary = x.new_zeros(x.shape[0], 0)
        if stem is None:
            current = self._advance(x, state, is_first=steps == 1)
            next_state = current
            num_positions = steps
        else:
            num_positions = output_lengths(steps)
            if isinstance(stem, ConvStem):
                current, next_state = self._through_conv_stem(stem, x, state, steps)
            else:
                current, next_state = self._through_inception_stem(stem, x, state, steps)
                summary = (next_state["summary"] / steps[:, None]).float()
        pooled = self._pooled(current, num_positions)
        next_state = next_state | {"steps": steps, "last_values": last_values}
        logits = self.network.logits(torch.cat([pooled, summary], dim=1))
        return logits, *[next_state[name] for name in state]

    def _pooled(self, state: State, num_positions: Tensor) -> Tensor:
        """Return pooled outputs (B, H) from a state after a number of positions (B,)."""
        pooling = self.network.options.pooling
        if pooling == "last":
            return state[self._layer_names[-1][0]]
        if pooling == "mean":
            return (state["pooled"] / num_positions[:, None]).float()
        return state["pooled"].float()

    def _advance(self, x: Tensor, state: State, *, is_first: Tensor) -> State:
        """Return the parts of the layers and the pooling after one more input (B, C)."""
        advanced: State = {}
        layers = self.network.recurrent.forward_layers
        for layer, names in zip(layers, self._layer_names, strict=True):
            before = tuple(state[name] for name in names)
            parts = layer.step(x, before)  # type: ignore[operator]  # ModuleList hides the type
            advanced.update(zip(names, parts, strict=True))
            x = parts[0]
        pooling = self.network.options.pooling
        if pooling == "mean":
            advanced["pooled"] = state["pooled"] + x
        elif pooling == "max":
            maximum = torch.maximum(state["pooled"], x.double())
            advanced["pooled"] = torch.where(is_first[:, None], x.double(), maximum)
        return advanced

    def _through_conv_stem(
        self, stem: ConvStem, x: Tensor, state: State, steps: Tensor
    ) -> tuple[State, State]:
        """Take one step, number `steps` (B,), with standardised values `x` (B, F).

        Returns the layers' states after the last position so far, for the logits; and the next
        state's latest inputs and layers' states after the last completed position.
        """
        first_open = completed_positions(steps - 1)  # first position not completed before this step
        window_start = STRIDE * first_open - REACH  # first input that this position sees
        is_completed = completed_positions(steps) > first_open

        # tracing would freeze len(x), but not x.shape[0]
        not_arrived = x.new_zeros(x.shape[0], WINDOW - KEPT_INPUTS, x.shape[1])
        window = torch.cat([state["inputs"], not_arrived], dim=1)  # (B, 37, F)
        is_new = torch.arange(WINDOW) == (steps - 1 - window_start)[:, None]
        window = torch.where(is_new[..., None], x[:, None], window)
        outputs, exists = _convolve(stem, window, first_open, steps)  # (B, C, 4), (B, 4)

        current = state
        committed = state
        for i in range(OPEN_POSITIONS):
            advanced = self._advance(outputs[:, :, i], current, is_first=first_open + i == 0)
            current = _choose(exists[:, i], advanced, current)
            if i == 0:
                committed = _choose(is_completed, advanced, committed)
        shifted = window[:, STRIDE : STRIDE + KEPT_INPUTS]  # where the next window starts
        kept = torch.where(is_completed[:, None, None], shifted, window[:, :KEPT_INPUTS])
        return current, {"inputs": kept, **committed}

    def _through_inception_stem(
        self, stem: InceptionStem, x: Tensor, state: State, steps: Tensor
    ) -> tuple[State, State]:
        """Take one step, as `_through_conv_stem` does; also returns the sums of the stem's outputs.

        These are the sum of the current position, from 0 to 3 steps, and of all steps.
        """
        mask = torch.ones_like(x[:, None, :1], dtype=torch.bool)  # (B, 1, 1)
        shortcut = stem.shortcut_norm(stem.shortcut(x[..., None]), mask)  # (B, C, 1)
        inputs = x[..., None]
        next_state: State = {}
        for i, block in enumerate(_blocks(stem)):
            window = torch.cat([state[f"inputs{i}"], inputs], dim=2)
            next_state[f"inputs{i}"] = window[:, :, 1:]
            inputs = block.norm(block.convolve(window), mask)
            if i == len(stem.blocks) - 1:
                inputs = inputs + shortcut
            inputs = inputs.relu()
        outputs = inputs[..., 0]  # (B, C)
        next_state["summary"] = state["summary"] + outputs

        position_sum = state["position_sum"] + outputs
        num_steps = (steps - 1) % STRIDE + 1  # of the current position
        average = position_sum / num_steps[:, None]
        current = self._advance(average, state, is_first=steps <= STRIDE)
        is_completed = num_steps == STRIDE
        next_state["position_sum"] = position_sum.masked_fill(is_completed[:, None], 0.0)
        committed = _choose(is_completed, current, state)
        return current, next_state | committed


def _blocks(stem: InceptionStem) -> list[InceptionBlock]:
    return list(stem.blocks)  # type: ignore[arg-type]  # ModuleList hides the type


def _convolve(
    stem: ConvStem, window: Tensor, first_open: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the four positions of the stem's output that see a window of inputs (B, 37, F).

    Outputs are (B, C, 4), and whether the positions exist after so many steps, (B, 4) bool.
    """
    x = window.transpose(1, 2)
    length = steps
    first_position = 2 * first_open - 4  # in the first convolution
    for conv, norm in zip(stem.convs, stem.norms, strict=True):
        # (B, C, 15), then (B, C, 4)
        x = conv1d(x, conv.weight, stride=2)  # type: ignore[arg-type]  # as above
        length = (length + 1) // 2
        position = first_position[:, None] + torch.arange(x.shape[2])
        exists = (position >= 0) & (position < length[:, None])
        x = norm(x, exists[:, None]).relu().masked_fill(~exists[:, None], 0.0)
        first_position = first_open  # in the second convolution
    return x, exists


def _choose(condition: Tensor, yes: State, no: State) -> State:
    """Choose the parts `yes`, or those of a state `no`, for each sequence by a condition (B,)."""
    return {name: torch.where(condition[:, None], yes[name], no[name]) for name in yes}
