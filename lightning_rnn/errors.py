"""Errors that a user can cause, and the checks that raise them.

The command line prints the message of a `LightningRNNError`, without a traceback, and exits with
its code.
"""

import sysconfig
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

MAX_MESSAGE = 900  # characters
INSTALLED = {"site-packages", "dist-packages"}  # folders of packages
PYTHON = sysconfig.get_path("stdlib")
PACKAGE = Path(__file__).parent
WARM_START = "init_from in place of ckpt_path starts from its weights"


class LightningRNNError(Exception):
    """Base class of all errors raised on purpose by this package."""

    exit_code: ClassVar[int] = 1


class DataError(LightningRNNError, ValueError):
    """Raised for a data file or array that cannot be used."""


class CheckpointError(LightningRNNError, ValueError):
    """Raised for a checkpoint that is missing, damaged or does not match the request."""


class NumericError(LightningRNNError, ArithmeticError):
    """Raised when the loss or the gradients are no longer finite."""


class LostRankError(LightningRNNError, RuntimeError):
    """Raised when the process of another rank has ended."""


class ExportError(LightningRNNError, RuntimeError):
    """Raised when an exported file does not reproduce the output of the network."""


class OptionError(LightningRNNError, ValueError):
    """Raised for an argument that is out of range or conflicts with another argument.

    Attributes:
        name: Name of the argument as in the signature (`cell`), qualified by its class where
            several have one of that name (`Figures.every_n_epochs`); None if the error concerns no
            single argument.
        message: What was expected and what was given, without the name.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message if name is None else f"{name}: {message}")
        self.name = name
        self.message = message


def one_line(error: Exception) -> str:
    """Return the message of an error in one line, without the middle of a very long one."""
    text = " ".join(str(error).split())
    if len(text) <= MAX_MESSAGE:
        return text
    half = MAX_MESSAGE // 2
    return f"{text[:half]} ... {text[-half:]}"  # what was expected comes first, hints last


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, which is in the plural unless the number is 1.

    Example:
        >>> counted(1, "feature"), counted(0, "feature")
        ('1 feature', '0 features')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def user_error(error: BaseException) -> LightningRNNError | None:
    """Describe an error by the innermost line of the user's code; None if it comes from elsewhere.

    Code of the user is neither that of this package nor that of Python or an installed package. An
    error in this package that the user's code has called comes from elsewhere, too.
    """
    found = None
    for frame, line in walk_tb(error.__traceback__):
        code = frame.f_code
        path = Path(code.co_filename)
        is_installed = bool(INSTALLED & set(path.parts)) or path.is_relative_to(PYTHON)
        if path.is_relative_to(PACKAGE):
            found = None
        elif path.is_file() and not is_installed:
            place = f"{path}, line {line}, in {code.co_qualname}"
            found = LightningRNNError(f"{place}: {type(error).__name__}: {error}")
    return found


def check(condition: bool, name: str, got: object, expected: str) -> None:
    """Raise an `OptionError` for the argument `name` with the value `got` if a condition is false.

    Example:
        >>> check(0.5 > 0, "lr", 0.5, "a number above 0")
        >>> check(-1 > 0, "lr", -1, "a number above 0")
        Traceback (most recent call last):
        lightning_rnn.errors.OptionError: lr: expected a number above 0, got -1
    """
    if not condition:
        raise OptionError(f"expected {expected}, got {got!r}", name=name)


def check_types(owner: type, arguments: Mapping[str, Any]) -> None:
    """Raise an `OptionError` for an argument that has not the type in the constructor of a class.

    What lists and dictionaries contain is not checked. Arguments that the constructor lacks are
    ignored.

    Example:
        >>> from lightning_rnn import SequenceClassifier
        >>> check_types(SequenceClassifier, {"hidden_size": 32, "class_weights": [1, 2]})
        >>> check_types(SequenceClassifier, {"hidden_size": "32"})
        Traceback (most recent call last):
        lightning_rnn.errors.OptionError: hidden_size: expected int, got '32'
    """
    hints = get_type_hints(owner.__init__)  # type: ignore[misc]  # of the class itself
    for name in [name for name in arguments if name in hints]:
        value = arguments[name]
        is_union = get_origin(hints[name]) in (Union, UnionType)
        kinds = get_args(hints[name]) if is_union else (hints[name],)
        is_accepted = any(_is_of_kind(value, kind) for kind in kinds)
        check(is_accepted, name, value, " or ".join(map(_in_words, kinds)))


def _is_of_kind(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    kind = object if kind is Any else get_origin(kind) or kind
    if isinstance(value, bool | np.generic):  # checkpoints hold plain values
        return kind in (type(value), object)
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        words = get_args(kind)
        return " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"
    if kind is NoneType:
        return "None"
    return str(getattr(get_origin(kind) or kind, "__name__", kind))


def import_extra(module: str, extra: str) -> Any:
    """Import a module that an extra of this package installs; an OptionError says which one."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0].replace("sklearn", "scikit-learn")
        message = f"{package} is not installed; run: pip install 'lightning_rnn[{extra}]'"
        raise OptionError(message) from None


def as_array(x: Any, name: str) -> np.ndarray:
    """Convert `x`, called `name` in errors, to an array, without copying if it is one already."""
    if isinstance(x, np.ma.MaskedArray):  # NumPy would show the values behind the mask
        raise DataError(f"{name}: expected no masked array; use NaN where a value is missing")
    try:
        return np.asarray(x)
    except ValueError:
        message = f"{name}: expected a rectangular array, got nested lists of different lengths"
        raise DataError(message) from None
