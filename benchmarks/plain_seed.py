"""The published experiment as a plain script, its label's shape mended: no validation, no logging.

`python -m benchmarks.plain_seed [rnn|lstm] [epochs]`; the baseline of `training` and of `whole_command`.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.turns import in_turns


class PlainRNN(nn.Module):
    """A recurrent layer, a linear one on its last step, a sigmoid."""

    def __init__(self, cell: str) -> None:
        """Set up at the published sizes."""
        super().__init__()
        self.rnn = {"rnn": nn.RNN, "lstm": nn.LSTM}[cell](1, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return probabilities (B, 1) from (B, T, 1)."""
        return torch.sigmoid(self.head(self.rnn(x)[0][:, -1]))


def main(cell: str = "rnn", epochs: str = "10") -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, 10, 1)
    y = (x.sum(1) > 0).float()  # (1000, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    model = PlainRNN(cell)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in in_turns(int(epochs)):
        for batch, target in loader:
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy(model(batch), target)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
