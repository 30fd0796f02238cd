"""A small network, to be exported and to be run step by step."""

import torch

from lightning_rnn import SequenceNetwork


def network(*, num_classes=3, **options):
    """Its buffers are not those of a new one."""
    torch.manual_seed(len(str(options)))
    net = SequenceNetwork(
        **{"input_size": 2, "num_classes": num_classes, "hidden_size": 4} | options
    )
    net.preprocess.set_moments(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.7]))
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    net.decision.set(1.7, 0.3)
    return net
