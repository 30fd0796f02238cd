"""Sequences of many lengths as tutorials have them: collated one by one and packed; a baseline of `training`.

`python -m benchmarks.plain_packed FILE.npz HIDDEN BATCH EPOCHS BIDIRECTIONAL(0|1)`, with X (steps, F), lengths and y
in the file. No validation, no logs.
"""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader

from benchmarks.turns import in_turns


class Packed(nn.Module):
    """An LSTM over packed sequences and a linear layer on its last states."""

    def __init__(self, features: int, hidden: int, bidirectional: bool) -> None:
        """Set up."""
        super().__init__()
        self.rnn = nn.LSTM(features, hidden, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(hidden * (1 + bidirectional), 1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) from (B, T, F)."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.rnn(packed)  # (directions, B, H)
        return self.head(last.transpose(0, 1).flatten(1)).squeeze(1)


def collate(
    pairs: list[tuple[torch.Tensor, float]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sequences, labels = zip(*pairs, strict=True)
    return (
        pad_sequence(sequences, batch_first=True),
        torch.tensor([len(s) for s in sequences]),
        torch.tensor(labels),
    )


def main(path: str, hidden: int, batch: int, epochs: int, bidirectional: int) -> None:
    torch.manual_seed(0)
    file = np.load(path)
    sequences = torch.from_numpy(file["X"]).split(file["lengths"].tolist())
    pairs = list(zip(sequences, file["y"].astype(np.float32).tolist(), strict=True))
    loader = DataLoader(pairs, batch_size=batch, shuffle=True, collate_fn=collate)
    model = Packed(file["X"].shape[1], hidden, bool(bidirectional))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in in_turns(epochs):
        for x, lengths, y in loader:
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(x, lengths), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]))
