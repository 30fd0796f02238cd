"""A small network for tests of export and of streaming."""

import torch

from lightning_rnn import SequenceNetwork
from lightning_rnn.models.network import NetworkOptions


def network(*, input_size=2, num_classes=3, **options):
    """Return a network in training mode whose buffers differ from those of a new one.

    Args:
        input_size: Number of features, 1 or 2.
        num_classes: Number of classes.
        options: Fields of `NetworkOptions`; the hidden size is 4 unless given.
    """
    torch.manual_seed(len(str(options)))
    net = SequenceNetwork(
        input_size=input_size,
        num_classes=num_classes,
        options=NetworkOptions(**{"hidden_size": 4} | options),
    )
    mean = torch.tensor([0.5, -1.0])
    std = torch.tensor([2.0, 0.7])
    net.preprocess.set_moments(mean[:input_size], std[:input_size])
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.2 * torch.rand_like(buffer) - 0.1)  # larger ones would silence the stem
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    net.decision.set(1.7, 0.3)
    return net
