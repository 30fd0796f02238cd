"""From the arguments of the program to its exit code."""

import logging
import re
import sys
import threading
import traceback
import warnings
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed import DistError

from lightning_rnn.cli.command_line import CommandLine
from lightning_rnn.cli.commands import EXTRA_COMMANDS, run_extra_command
from lightning_rnn.cli.compare import run_compare
from lightning_rnn.cli.output import hide_errors_of_writers
from lightning_rnn.cli.parser import expected_error, with_flags
from lightning_rnn.cli.quick_answers import PROGRAM
from lightning_rnn.cli.request import Request, find_initial_weights, find_run
from lightning_rnn.distributed import leave_process_group, process_rank
from lightning_rnn.errors import LostRankError, one_line
from lightning_rnn.training.interrupts import Interrupts

SILENCED_WARNINGS = (
    # Lightning calls a function that torch has deprecated
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # log_every_n_steps counts on over the end of an epoch
    r"The number of training batches \(\d+\) is smaller than the logging",
    # the loaders repeat the same batches, as overfit_batches needs
    "You requested to overfit but enabled",
    # the network exists before the callback is set up, and is small
    "You're using the WeightAveraging callback with a model that overrides",
    # a resumed run goes on in its folder, and CsvHistory writes its rows again
    r"Checkpoint directory .* exists and is not empty",
    "Experiment logs directory",
    # the user has chosen an optimizer
    r"`\w+\.configure_optimizers` will be overridden by",
    # an evaluation needs none of the callbacks of the training
    "Be aware that when using `ckpt_path`, callbacks used to create",
)
SILENCED_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.fabric.strategies.launchers.subprocess_script",
)
SILENCED_MESSAGES = re.compile(  # the lines that this package prints say the same
    r"💡 Tip|TPU available|GPU available: False|Restor|Loaded model|`Trainer.fit` stopped"
    r"|Seed set|\[rank:|Found current_model_state"
)


def run(args: list[str]) -> int:
    """Run a command; see `lightning_rnn.__main__.main`, which has checked its name."""
    for message in SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in SILENCED_LOGGERS:
        logging.getLogger(name).addFilter(_is_news)
    threading.excepthook = hide_errors_of_writers
    interrupts = Interrupts()
    try:
        with interrupts.outside_training():
            _run_command(args, interrupts)
    except SIGTERMException:
        return 128 + interrupts.signum
    except KeyboardInterrupt:
        return 130
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):  # Lightning exits after Ctrl-C
            return 130
        raise
    except Exception as error:
        own_error = expected_error(error)
        if own_error is None and isinstance(error, DistError):
            reason = str(error).partition("\n")[0][:100]
            own_error = LostRankError(f"a rank has ended before training started ({reason})")
        if own_error is not None:
            _print_error(with_flags(own_error, {}))
            return own_error.exit_code
        if not _is_refusal(error):
            raise
        _print_error(error)
        return 1
    finally:
        leave_process_group()
    return 0


def _print_error(error: Exception) -> None:
    rank = process_rank()
    source = f" (rank {rank})" if rank > 0 else ""
    print(f"{PROGRAM}: error{source}: {one_line(error)}", file=sys.stderr)


def _is_news(record: logging.LogRecord) -> bool:
    return SILENCED_MESSAGES.search(record.getMessage()) is None


def _run_command(args: list[str], interrupts: Interrupts) -> None:
    name = args[0]
    if name in EXTRA_COMMANDS:
        run_extra_command(name, args[1:])
    elif name == "compare":
        run_compare(args[1:])
    else:
        request = Request.from_args(args)
        run = find_run(request)
        initial = find_initial_weights(request, run)
        if run is not None and name == "fit":
            request = request.with_config_of(run)
        CommandLine(request, run, initial, interrupts)


def _is_refusal(error: Exception) -> bool:
    """Return whether an error is of the system, a missing package, or a refusal of Lightning."""
    if isinstance(error, MisconfigurationException | ModuleNotFoundError | OSError):
        return True
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return isinstance(error, ValueError | RuntimeError) and "/lightning/" in raised_in.as_posix()
