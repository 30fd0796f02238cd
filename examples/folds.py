"""Out-of-fold predictions: `python examples/folds.py train.csv --id_column patient --group_column ward`.

Stratified k-fold; where there are groups, none is in training and judged in the same fold. Writes `folds.csv` with the
fold, the label and the probabilities of each sequence, from a model that has not seen it.
"""

import argparse

import numpy as np
import polars as pl
import torch
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from lightning_rnn import RecurrentClassifier
from lightning_rnn.data.readers import ReadOptions, read_file


def main() -> None:
    """Train k models and write what each says of the sequences it has not seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path")
    for name in ("id_column", "time_column", "group_column"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--max_epochs", type=int, default=30)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--output", default="folds.csv")
    args = parser.parse_args()
    columns = {name: getattr(args, name) for name in ("id_column", "time_column", "group_column")}
    contents = read_file(args.path, ReadOptions(**columns))
    sequences, labels = contents.sequences, np.asarray(contents.labels, dtype=str)
    arrays = [sequences.batch(torch.tensor([i])).x[0].numpy() for i in range(len(sequences))]
    kind = StratifiedKFold if sequences.groups is None else StratifiedGroupKFold
    splits = list(
        kind(args.folds, shuffle=True, random_state=0).split(arrays, labels, sequences.groups)
    )
    fold = np.zeros(len(arrays), int)
    for number, (_, held_out) in enumerate(splits):
        fold[held_out] = number
    model = RecurrentClassifier(cell=args.cell, max_epochs=args.max_epochs, random_state=0)
    p = cross_val_predict(model, arrays, labels, cv=splits, method="predict_proba")
    names = np.unique(labels)  # the order of the columns
    decided = names[p.argmax(1)]
    for number in range(args.folds):
        print(
            f"fold {number}: accuracy {accuracy_score(labels[fold == number], decided[fold == number]):.4f}"
        )
    print(f"all: accuracy {accuracy_score(labels, decided):.4f}")
    table = {"id": sequences.ids, "fold": fold, "label": labels}
    table |= {f"probability_{name}": p[:, k] for k, name in enumerate(names)}
    pl.DataFrame(table, strict=False).write_csv(args.output)


if __name__ == "__main__":
    main()
