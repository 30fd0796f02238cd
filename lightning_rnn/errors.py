"""Errors a user can cause; the command line prints their message alone and exits with their code."""

from importlib import import_module
from typing import Any, ClassVar


class LightningRNNError(Exception):
    """Base of the errors that need no traceback to be understood."""

    exit_code: ClassVar[int] = 1


class DataError(LightningRNNError, ValueError):
    """A data file or array that cannot be used: names the file, row or column, what was found and what is accepted."""


class CheckpointError(LightningRNNError, ValueError):
    """A checkpoint that is missing, damaged or does not fit what was asked."""


class NumericError(LightningRNNError, ArithmeticError):
    """Training that has left the finite numbers."""


class ExportError(LightningRNNError, RuntimeError):
    """An exported file that does not compute what the network computes."""


class OptionError(LightningRNNError, ValueError):
    """A setting outside its range or at odds with another: names the option, what was found and what is accepted."""

    exit_code: ClassVar[int] = 2


def require(condition: bool, option: str, found: object, accepted: str) -> None:
    """Check one setting.

    Args:
        condition: Whether the value is accepted.
        option: Name of the setting, as typed on the command line.
        found: The value.
        accepted: What would have been accepted, in words.

    Raises:
        OptionError: The condition does not hold.
    """
    if not condition:
        raise OptionError(f"{option}: found {found!r}, accepted is {accepted}")


def optional(module: str, extra: str) -> Any:
    """Import a module of a package that is not always installed.

    Args:
        module: The module.
        extra: The extra of this package that brings it.

    Raises:
        OptionError: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0].replace("sklearn", "scikit-learn")
        raise OptionError(f"{package} is not installed; pip install 'lightning_rnn[{extra}]' brings it") from None
