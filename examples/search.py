"""Search hyperparameters with Optuna.

    python examples/search.py train.csv --trials 50

Each trial trains one model. It is pruned when its validation loss falls behind that of the other
trials. A trial that diverges fails and does not count. The study is stored in a database: the same
command continues it, and several processes can share it. SQLite serves processes on one machine or
on a file system with locks; any other URL that Optuna accepts can be given.
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


class PruningCallback(Callback):
    """Reports the validation loss to Optuna after each epoch and stops a pruned trial.

    Args:
        trial: The trial.

    Attributes:
        best_loss: Lowest validation loss so far.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.best_loss = math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the loss."""
        loss = float(trainer.callback_metrics["val/loss"])
        self.best_loss = min(self.best_loss, loss)
        self.trial.report(loss, trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def train(trial: optuna.Trial, path: str, max_epochs: int) -> float:
    """Train with the settings of a trial and return the lowest validation loss."""
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
    torch.manual_seed(0)
    model = SequenceClassifier(
        input_size=data.schema.num_features,
        num_classes=len(data.schema.class_names),
        class_names=data.schema.class_names,
        **settings,
    )
    callback = PruningCallback(trial)
    trainer = Trainer(
        max_epochs=max_epochs,
        gradient_clip_val=1.0,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(model, datamodule=data)
    return callback.best_loss


def main() -> None:
    """Run trials, then print the command that trains with the best settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train_path")
    parser.add_argument(
        "--trials",
        type=int,
        default=50,
        help="number of trials in the study, earlier ones included",
    )
    parser.add_argument("--max_epochs", type=int, default=30)
    parser.add_argument("--storage", default="sqlite:///search.db")
    parser.add_argument("--study", default="search")
    args = parser.parse_args()

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Lightning calls a function that torch deprecates
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # for small models, several processes are faster than several threads
    torch.set_num_threads(1)

    study = optuna.create_study(
        storage=args.storage,
        study_name=args.study,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(),
    )
    if len(study.get_trials(states=FINISHED)) < args.trials:
        study.optimize(
            lambda trial: train(trial, args.train_path, args.max_epochs),
            n_trials=args.trials,  # ends the search if every trial diverges
            catch=(NumericError,),
            callbacks=[MaxTrialsCallback(args.trials, states=FINISHED)],
        )
    if not study.get_trials(states=(TrialState.COMPLETE,)):
        raise SystemExit("no trial has been completed")
    num_trials = len(study.get_trials(states=FINISHED))
    print(f"{num_trials} trials, lowest validation loss {study.best_value:.4f}")
    command = "python -m lightning_rnn fit --preset tutorial"  # has the defaults of the trials
    command += f" --data.train_path {shlex.quote(args.train_path)}"
    for name, value in study.best_params.items():
        command += f" --model.{name} {value}"
    print(f"{command} --trainer.max_epochs {args.max_epochs}")


if __name__ == "__main__":
    main()
