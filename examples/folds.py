"""Out-of-fold predictions of a stratified k-fold cross-validation.

    python examples/folds.py train.csv --id_column patient --group_column ward

Writes `folds.csv` with the fold, the label and the class probabilities of each sequence, predicted
by a model that was not trained on it. With a group column, a group lies in one fold.
"""

import argparse

import numpy as np
import polars as pl
import torch
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from lightning_rnn import ReadOptions, RecurrentClassifier, Sequences, read_file


def to_arrays(sequences: Sequences) -> list[np.ndarray]:
    """Return the sequences as a list of arrays (T_i, F)."""
    arrays = []
    for row in range(len(sequences)):
        batch = sequences.batch(torch.tensor([row]))
        arrays.append(batch.x[0].numpy())
    return arrays


def main() -> None:
    """Train a model for each fold and write its predictions of the sequences in the fold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path")
    parser.add_argument("--id_column")
    parser.add_argument("--time_column")
    parser.add_argument("--group_column")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--max_epochs", type=int, help="default: the number of steps of a fit")
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--output", default="folds.csv")
    args = parser.parse_args()

    options = ReadOptions(
        id_column=args.id_column, time_column=args.time_column, group_column=args.group_column
    )
    contents = read_file(args.path, options)
    sequences = contents.sequences
    arrays = to_arrays(sequences)
    labels = np.asarray(contents.labels, dtype=str)

    splitter = StratifiedKFold if sequences.groups is None else StratifiedGroupKFold
    folds = splitter(args.folds, shuffle=True, random_state=0)
    splits = list(folds.split(arrays, labels, sequences.groups))
    fold_of = np.zeros(len(arrays), dtype=int)
    for fold, (_, held_out) in enumerate(splits):
        fold_of[held_out] = fold

    model = RecurrentClassifier(cell=args.cell, max_epochs=args.max_epochs, random_state=0)
    probabilities = cross_val_predict(model, arrays, labels, cv=splits, method="predict_proba")
    class_names = np.unique(labels)  # in the order of the columns
    predicted = class_names[probabilities.argmax(axis=1)]
    for fold in range(args.folds):
        in_fold = fold_of == fold
        print(f"fold {fold}: accuracy {accuracy_score(labels[in_fold], predicted[in_fold]):.4f}")
    print(f"all: accuracy {accuracy_score(labels, predicted):.4f}")

    table = {"id": sequences.ids, "fold": fold_of, "label": labels}
    for code, name in enumerate(class_names):
        table[f"probability_{name}"] = probabilities[:, code]
    pl.DataFrame(table, strict=False).write_csv(args.output)


if __name__ == "__main__":
    main()
