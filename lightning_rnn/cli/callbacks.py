"""The callbacks of each command."""

from typing import Any

from lightning.pytorch import Callback

from lightning_rnn.cli.continued_run import ContinuedRun
from lightning_rnn.cli.request import Request
from lightning_rnn.training.calibrate import Calibrate
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.checkpoints import Checkpoints
from lightning_rnn.training.csv_history import CsvHistory
from lightning_rnn.training.interrupts import Interrupts
from lightning_rnn.training.outputs import Earliness, MetricsFile
from lightning_rnn.training.predictions_file import PredictionsFile
from lightning_rnn.training.random_states import RandomStates
from lightning_rnn.training.report import Report
from lightning_rnn.training.resumed_epoch import ResumedEpoch
from lightning_rnn.training.tensorboard import Figures, GradientFlowProbe, Throughput
from lightning_rnn.training.terminal import EpochLines, HyperParameters, NextCommands

CALLBACKS: dict[str, dict[str, type[Callback]]] = {  # those with options, by group
    "fit": {
        "checkpoint": Checkpoints,
        "figures": Figures,
        "gradient_flow": GradientFlowProbe,
        "calibrate": Calibrate,
    },
    "validate": {"calibrate": Calibrate},
}


def callbacks_of_fit(interrupts: Interrupts, continued: ContinuedRun | None) -> list[Callback]:
    """Return the callbacks of a new or a continued run."""
    lines: list[Callback] = [EpochLines(), Throughput(), HyperParameters(), NextCommands()]
    if continued is not None:
        lines.append(CsvHistory(continued.purge_step))
    return [RandomStates(), ResumedEpoch(), interrupts, *lines]


def callbacks_of_evaluation(
    request: Request, run: CheckpointFile, options: dict[str, Any]
) -> list[Callback]:
    """Return the callbacks that write the results of validate, test or predict."""
    folder = run.run_folder
    if request.command == "predict":
        names = ("output", "overwrite", "embeddings")
        return [PredictionsFile(folder, **{name: options[name] for name in names})]
    figures = Figures()
    if request.command == "validate":
        return [figures]
    figures.folder = folder / "figures"
    report = Report(run, figures, request.args)
    callbacks: list[Callback] = [MetricsFile(run), figures, report]
    if options["earliness"]:
        callbacks.append(Earliness(folder))
    return [*callbacks, HyperParameters()]
