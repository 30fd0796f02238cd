"""The best plain loop we can write for what `fit` does on sequences of one length; a baseline of `training`.

`python -m benchmarks.plain_best CELL STEPS TRAIN VAL HIDDEN BATCH EPOCHS [DEVICE]`. Whole tensors on the device,
batches by one gather, Adam in one kernel, gradients clipped, validation with loss and accuracy after each epoch; no
logs, no checkpoints, no progress.
"""

import sys

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.turns import in_turns


class Plain(nn.Module):
    """A recurrent layer and a linear one on its last step."""

    def __init__(self, cell: str, hidden: int) -> None:
        """Set up."""
        super().__init__()
        self.rnn = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell](
            1, hidden, batch_first=True
        )
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B,) from (B, T, 1)."""
        return self.head(self.rnn(x)[0][:, -1]).squeeze(1)


def main(
    cell: str, steps: int, train: int, val: int, hidden: int, batch: int, epochs: int, device: str
) -> None:
    torch.manual_seed(0)
    x = torch.randn(train + val, steps, 1, device=device)
    y = (x.sum((1, 2)) > 0).float()
    (x, x_val), (y, y_val) = x.split([train, val]), y.split([train, val])
    model = Plain(cell, hidden).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    for _ in in_turns(epochs):
        for rows in torch.randperm(train, device=device).split(batch):
            loss = binary_cross_entropy_with_logits(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with torch.inference_mode():
            logits = torch.cat([model(part) for part in x_val.split(1024)])
            (
                binary_cross_entropy_with_logits(logits, y_val).item(),
                ((logits > 0) == y_val).float().mean().item(),
            )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:8]), *(sys.argv[8:] or ["cpu"]))
