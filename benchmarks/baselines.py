"""Plain PyTorch training loops, the baselines of the other benchmarks.

    python -m benchmarks.baselines published --cell rnn     # the published script
    python -m benchmarks.baselines best --cell lstm ...     # tensors in memory, one gather a batch
    python -m benchmarks.baselines packed FILE.npz ...      # variable length as in tutorials
    python -m benchmarks.baselines steps CONFIG FILE ...    # the training steps of `fit` alone

The last prints one line, the others a line per epoch. None writes logs or checkpoints; only `best`
validates.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, TensorDataset

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
LEARNING_RATE = 0.01


class LastStepClassifier(nn.Module):
    """A recurrent layer and a linear layer on its last step."""

    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        self.rnn = CELLS[cell](1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1) from (B, T, 1)."""
        output, _ = self.rnn(x)  # (B, T, H)
        return self.head(output[:, -1])


class PackedClassifier(nn.Module):
    """An LSTM over packed sequences and a linear layer on its last states."""

    def __init__(self, features: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.rnn = nn.LSTM(features, hidden, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(2 * hidden if bidirectional else hidden, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B,) from (B, T, F) and (B,)."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.rnn(packed)  # (D, B, H)
        return self.head(last.transpose(0, 1).flatten(1)).squeeze(1)


def train_published(cell: str, epochs: int) -> None:
    """Run the published script, with the shape of its labels corrected."""
    x = torch.randn(1000, 10, 1)
    y = (x.sum(1) > 0).float()  # (1000, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    model = LastStepClassifier(cell, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for epoch in range(epochs):
        for batch_x, batch_y in loader:
            optimizer.zero_grad()
            loss = binary_cross_entropy(torch.sigmoid(model(batch_x)), batch_y)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}/{epochs}  loss {loss.item():.4f}")


def train_best(
    cell: str, steps: int, sequences: int, hidden: int, batch: int, epochs: int, device: str
) -> None:
    """Train on sequences of one length with the fastest plain loop we know.

    A batch is one gather from tensors on the device, Adam is fused, gradients are clipped, and each
    epoch ends with a validation on a quarter as many sequences.
    """
    val = sequences // 4
    x = torch.randn(sequences + val, steps, 1, device=device)
    y = (x.sum(1) > 0).float()  # (N, 1)
    x_train, x_val = x.split([sequences, val])
    y_train, y_val = y.split([sequences, val])
    model = LastStepClassifier(cell, hidden).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    for epoch in range(epochs):
        for rows in torch.randperm(sequences, device=device).split(batch):
            loss = binary_cross_entropy_with_logits(model(x_train[rows]), y_train[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with torch.inference_mode():
            logits = torch.cat([model(part) for part in x_val.split(1024)])
            val_loss = binary_cross_entropy_with_logits(logits, y_val).item()
            accuracy = ((logits > 0) == y_val).float().mean().item()
        print(f"epoch {epoch + 1}/{epochs}  val/accuracy {accuracy:.4f}  val/loss {val_loss:.4f}")


def collate(pairs: list[tuple[Tensor, float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad sequences (T_i, F) to a batch (B, T, F); also return lengths (B,) and labels (B,)."""
    sequences = [sequence for sequence, _ in pairs]
    labels = [label for _, label in pairs]
    lengths = [len(sequence) for sequence in sequences]
    return pad_sequence(sequences, batch_first=True), torch.tensor(lengths), torch.tensor(labels)


def train_packed(path: str, hidden: int, batch: int, epochs: int, bidirectional: bool) -> None:
    """Train on sequences of different lengths (X, lengths and y of an .npz file), packed."""
    file = np.load(path)
    sequences = torch.from_numpy(file["X"]).split(file["lengths"].tolist())
    pairs = list(zip(sequences, file["y"].astype(np.float32).tolist(), strict=True))
    loader = DataLoader(pairs, batch_size=batch, shuffle=True, collate_fn=collate)
    model = PackedClassifier(file["X"].shape[1], hidden, bidirectional)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for epoch in range(epochs):
        for x, lengths, y in loader:
            optimizer.zero_grad()
            loss = binary_cross_entropy_with_logits(model(x, lengths), y)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}/{epochs}  loss {loss.item():.4f}")


def train_steps(config: str, path: str, steps: int) -> None:
    """Train the network of a config with the batches and threads of `fit`, and do nothing else."""
    # imported here, because the other loops do without
    from lightning_rnn import FileDataModule, SequenceClassifier
    from lightning_rnn.training.threads import choose_num_threads

    settings = yaml.safe_load(Path(config).read_text())["model"]
    data = FileDataModule(train_path=path)
    model = SequenceClassifier(
        input_size=data.num_features, num_classes=data.num_classes, **settings
    )
    torch.set_num_threads(choose_num_threads(model.options, data.batch_size))
    model.network.preprocess.set_moments(*data.train_moments)
    rate, decay = settings["lr"], settings["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=True)
    loader = data.train_dataloader()
    for step in range(steps):
        if step % len(loader) == 0:
            loader.batch_sampler.set_epoch(step // len(loader))
            batches = iter(loader)
        loss = model.training_step(next(batches), 0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    print(f"epoch {steps // len(loader)}  loss {loss.item():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    loops = parser.add_subparsers(required=True)
    published = loops.add_parser("published")
    published.set_defaults(train=train_published)
    best = loops.add_parser("best")
    best.set_defaults(train=train_best)
    best.add_argument("--steps", type=int, default=100)
    best.add_argument("--sequences", type=int, default=4096)
    best.add_argument("--device", default="cpu")
    packed = loops.add_parser("packed")
    packed.set_defaults(train=train_packed)
    packed.add_argument("path")
    packed.add_argument("--bidirectional", action="store_true")
    steps = loops.add_parser("steps")
    steps.set_defaults(train=train_steps)
    steps.add_argument("config")
    steps.add_argument("path")
    steps.add_argument("--steps", type=int, default=2000)
    for loop in (published, best, packed):
        loop.add_argument("--epochs", type=int, default=10)
    for loop in (published, best):
        loop.add_argument("--cell", choices=list(CELLS), default="rnn")
    for loop in (best, packed):
        loop.add_argument("--hidden", type=int, default=64)
        loop.add_argument("--batch", type=int, default=64)
    options = vars(parser.parse_args())
    train = options.pop("train")
    torch.manual_seed(0)
    train(**options)


if __name__ == "__main__":
    main()
