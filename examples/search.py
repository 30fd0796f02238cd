"""Search hyper-parameters with Optuna: `python examples/search.py train.csv --trials 50`.

Each trial trains once and is pruned when its validation loss falls behind the other trials'; one that diverges has
failed and does not count. The study is in a database: started again with the same one the search goes on, started on
several machines they share it. SQLite will do for processes on one machine or a file system with locks; any other URL
that Optuna takes may be given.
"""

import argparse
import logging
import math
import shlex
import warnings

import optuna
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from lightning_rnn import FileDataModule, SequenceClassifier
from lightning_rnn.errors import NumericError

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Report(Callback):
    """Tells Optuna the validation loss after each epoch and ends what it prunes."""

    def __init__(self, trial: optuna.Trial) -> None:
        """Set up."""
        self.trial, self.best = trial, math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report."""
        loss = float(trainer.callback_metrics["val/loss"])
        self.best = min(self.best, loss)
        self.trial.report(loss, trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def train(trial: optuna.Trial, path: str, max_epochs: int) -> float:
    """Train with the trial's settings and return the lowest validation loss."""
    settings = {
        "cell": trial.suggest_categorical("cell", ["rnn", "lstm", "gru", "mingru"]),
        "hidden_size": trial.suggest_int("hidden_size", 8, 128, log=True),
        "num_layers": trial.suggest_int("num_layers", 1, 2),
        "pooling": trial.suggest_categorical("pooling", ["last", "mean", "max"]),
        "stem": trial.suggest_categorical("stem", ["none", "conv"]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "lr": trial.suggest_float("lr", 1e-3, 3e-2, log=True),
    }
    data = FileDataModule(train_path=path)
    names = data.schema.class_names
    torch.manual_seed(0)
    model = SequenceClassifier(
        input_size=data.schema.num_features, num_classes=len(names), class_names=names, **settings
    )
    report = Report(trial)
    trainer = Trainer(
        max_epochs=max_epochs, gradient_clip_val=1.0, callbacks=[report], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    return report.best


def main() -> None:
    """Search until the study has so many trials, then print the command that trains with the best settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train_path")
    parser.add_argument(
        "--trials", type=int, default=50, help="of the whole study, those done before included"
    )
    parser.add_argument("--max_epochs", type=int, default=30)
    parser.add_argument("--storage", default="sqlite:///search.db")
    parser.add_argument("--study", default="search")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Lightning's own call of a deprecated function
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    torch.set_num_threads(
        1
    )  # small models; several processes search faster than one with several threads
    study = optuna.create_study(
        storage=args.storage,
        study_name=args.study,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(),
    )
    if len(study.get_trials(states=FINISHED)) < args.trials:
        enough = MaxTrialsCallback(args.trials, states=FINISHED)
        study.optimize(
            lambda trial: train(trial, args.train_path, args.max_epochs),
            n_trials=args.trials,  # ends the search if all diverge
            catch=(NumericError,),
            callbacks=[enough],
        )
    if not study.get_trials(states=(TrialState.COMPLETE,)):
        raise SystemExit("no trial has been completed")
    best = [f"--model.{name} {value}" for name, value in study.best_params.items()]
    best.append(f"--trainer.max_epochs {args.max_epochs}")
    print(
        f"{len(study.get_trials(states=FINISHED))} trials, lowest validation loss {study.best_value:.4f}"
    )
    print(
        f"python -m lightning_rnn fit --data FileDataModule --data.train_path {shlex.quote(args.train_path)}",
        *best,
    )


if __name__ == "__main__":
    main()
