"""A network that takes one step of each sequence at a time and keeps what it must remember in a state."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from lightning_rnn.errors import check
from lightning_rnn.models.network import SequenceNetwork

Memory = tuple[Tensor, ...]  # the layers' states from below, then what pooling has gathered

# A position of the stem's output sees 25 inputs; a step completes one position at most and changes three behind it.
SEEN = 24  # inputs kept, those that incomplete positions see
SPAN = 37  # inputs that four positions of the second convolution see


class StepNetwork(nn.Module):
    """Computes after each step what a `SequenceNetwork` computes of the sequence so far, in constant memory.

    Without a stem a step advances each layer once. With one, the stem's outputs whose 25 inputs have all come are
    committed to the layers' states; the up to three behind them, which see beyond the sequence's end so far, are run
    anew at each step and forgotten.

    Attributes:
        num_features: F.
        state: Shape and dtype of each part of the state of one sequence, by name. At the beginning all are zero.
    """

    def __init__(self, network: SequenceNetwork) -> None:
        """Set up with the weights of `network`.

        Raises:
            OptionError: A two-way network, which would need the sequence's end first.
        """
        super().__init__()
        two_way = len(network.recurrent.backward_layers) > 0
        check(not two_way, "bidirectional", True, "false for streaming")
        self.network = network
        self.num_features = num_features = len(network.preprocess.mean)
        self.state: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "steps": ((), torch.int64),
            "last_values": ((num_features,), torch.float32),
        }
        if network.stem is not None:
            self.state["inputs"] = ((SEEN, num_features), torch.float32)
        for i, layer in enumerate(network.recurrent.forward_layers):
            for part in ("h", "c") if layer.cell == "lstm" else ("h",):
                self.state[f"{part}{i}"] = ((network.recurrent.output_size,), torch.float32)
        self._pooled = (
            -1 if network.options.pooling != "last" or "c0" not in self.state else -2
        )  # in the memory
        if (
            network.options.pooling != "last"
        ):  # double: a sum over thousands of steps must lose nothing
            self.state["pooled"] = ((network.recurrent.output_size,), torch.float64)

    def initial_state(self, batch: int) -> list[Tensor]:
        """Return the state before the first step of `batch` sequences."""
        return [torch.zeros(batch, *shape, dtype=dtype) for shape, dtype in self.state.values()]

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Take one step.

        Args:
            x: (B, F) raw values, NaN where missing.
            state: The parts named in `self.state`, each (B, ...).

        Returns:
            Logits as from the network, then the state's parts.
        """
        net, (steps, last_values, *memory) = self.network, state
        extra: Memory = ()
        x = (x - net.preprocess.mean) / net.preprocess.std
        last_values = torch.where(x.isnan(), last_values, x)
        steps = steps + 1
        if net.stem is None:
            kept = ahead = self._advance(last_values, tuple(memory), steps == 1)
            count = steps
        else:
            kept, ahead, count, extra = self._through_stem(
                last_values, memory[0], tuple(memory[1:]), steps
            )
        pooled = ahead[self._pooled]
        if net.options.pooling == "mean":
            pooled = pooled / count[:, None]
        logits: Tensor = net.head(pooled.to(x.dtype))
        return (
            logits.squeeze(1) if net.num_classes == 2 else logits,
            steps,
            last_values,
            *extra,
            *kept,
        )

    def _advance(self, x: Tensor, memory: Memory, is_first: Tensor) -> Memory:
        """Return the memory after one more input (B, C) of the layers."""
        after: list[Tensor] = []
        for layer in self.network.recurrent.forward_layers:
            width = 2 if layer.cell == "lstm" else 1
            after += layer.step(x, memory[len(after) : len(after) + width])  # type: ignore[operator]
            x = after[-width]
        if self.network.options.pooling == "mean":
            after.append(memory[-1] + x)
        elif self.network.options.pooling == "max":
            after.append(
                torch.where(is_first[:, None], x.double(), torch.maximum(memory[-1], x.double()))
            )
        return tuple(after)

    def _through_stem(
        self, x: Tensor, inputs: Tensor, memory: Memory, steps: Tensor
    ) -> tuple[Memory, Memory, Tensor, Memory]:
        """Return the committed memory, that at the end, the number of positions and the inputs to keep."""
        assert self.network.stem is not None
        lengths = [
            steps,
            (steps + 1) // 2,
            (steps + 3) // 4,
        ]  # of the sequence and behind each convolution
        complete, before = (
            ((length + 1) // 2 - 5).clamp(min=0) // 2 for length in (steps, steps - 1)
        )
        # `inputs` begins at 4 * before - 12, the first input that position `before` sees
        inputs = torch.cat(
            [inputs, inputs.new_zeros(x.shape[0], SPAN - SEEN, x.shape[1])], dim=1
        )  # (B, 37, F)
        at = steps - 1 - 4 * before + 12
        inputs = torch.where((torch.arange(SPAN) == at[:, None])[..., None], x[:, None], inputs)
        y = inputs.transpose(1, 2)
        first = 2 * before - 4
        for conv, norm, length in zip(
            self.network.stem.convs, self.network.stem.norms, lengths[1:], strict=True
        ):
            y = conv1d(y, conv.weight, stride=2)  # type: ignore[arg-type]  # (B, C, 15), then (B, C, 4)
            position = first[:, None] + torch.arange(y.shape[2])
            valid = (position >= 0) & (position < length[:, None])
            y = norm(y, valid[:, None]).relu().masked_fill(~valid[:, None], 0.0)
            first = before
        commits = complete > before
        kept = ahead = memory
        for i in range(4):
            after = self._advance(y[:, :, i], ahead, before + i == 0)
            ahead = _choose(valid[:, i], after, ahead)
            kept = _choose(commits, after, kept) if i == 0 else kept
        return (
            kept,
            ahead,
            lengths[2],
            (torch.where(commits[:, None, None], inputs[:, 4:28], inputs[:, :SEEN]),),
        )


def _choose(condition: Tensor, yes: Memory, no: Memory) -> Memory:
    return tuple(torch.where(condition[:, None], a, b) for a, b in zip(yes, no, strict=True))
