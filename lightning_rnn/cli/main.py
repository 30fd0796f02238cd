"""The program: from a command line to an exit code."""

import logging
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_rnn.cli.command_line import CommandLine
from lightning_rnn.cli.launchers import process_rank
from lightning_rnn.cli.parser import EXTRA_COMMANDS, PROGRAM, run_extra
from lightning_rnn.errors import LightningRNNError
from lightning_rnn.training.interrupts import Interrupts

SILENCED = (  # warnings of what a user can do nothing about
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own call of a deprecated function
    r"The number of training batches \(\d+\) is smaller than the logging",  # the interval runs on over epochs
    "You requested to overfit but enabled",  # our loaders repeat their batches as asked
    "Be aware that when using `ckpt_path`, callbacks used to create",  # evaluation needs none of those that trained
)
NOISE = {  # messages by logger: our own lines say the same, or nobody asks
    "lightning.pytorch.utilities.rank_zero": (
        "💡 Tip", "TPU available", "GPU available: False", "Restor", "Loaded model", "`Trainer.fit` stopped",
    ),
    "lightning.fabric.utilities.seed": ("Seed set", "[rank:"),
}  # fmt: skip


def _cause(error: BaseException) -> LightningRNNError | None:
    """Return our error behind one that a library has wrapped around it."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, LightningRNNError):
        link = link.__cause__ or link.__context__
    return link


def _is_refusal(error: Exception) -> bool:
    """Tell whether Lightning itself, not something beneath it, refuses a value."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return isinstance(error, ValueError | RuntimeError) and "/lightning/" in raised_in.as_posix()


def _tells(noise: tuple[str, ...], record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in noise)


def run(args: list[str]) -> int:
    """Run the command line; see `lightning_rnn.__main__.main`."""
    for message in SILENCED:
        warnings.filterwarnings("ignore", message=message)
    for name, noise in NOISE.items():
        logging.getLogger(name).addFilter(partial(_tells, noise))
    interrupts = Interrupts()
    try:
        with interrupts.outside_training():
            if args and args[0] in EXTRA_COMMANDS:
                run_extra(args[0], args[1:])
            else:
                CommandLine(args, interrupts)
    except SIGTERMException:
        return 128 + interrupts.signum
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # Lightning turns Ctrl-C into one
        if isinstance(stop.__context__, KeyboardInterrupt):
            return 130
        raise
    except Exception as error:
        ours = _cause(error)
        if (
            ours is None
            and not isinstance(error, MisconfigurationException | OSError)
            and not _is_refusal(error)
        ):
            raise
        where = f" (rank {process_rank()})" if process_rank() else ""
        print(f"{PROGRAM}: error{where}: {' '.join(str(ours or error).split())}", file=sys.stderr)
        return ours.exit_code if ours else 1
    return 0
