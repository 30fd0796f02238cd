"""The wording of the readers' error messages.

Lines are counted from 1, as in editors; rows, sequences and steps from 0, as in NumPy.
"""

from collections.abc import Iterable

from lightning_rnn.errors import DataError

MISSING_VALUE = "a missing value (empty, ?, NA, N/A, #N/A, <NA>, NaN, null or None)"
FINITE_NUMBERS = "finite float32 numbers or a missing value (empty, NaN, NA, null or ?)"
MAX_NAMES = 20  # names that a message lists
MAX_CHARACTERS = 60  # of a quoted value


def unexpected(where: str, expected: str, got: str) -> DataError:
    """Return the error `<where>: expected <expected>, got <got>`.

    Args:
        where: Place in the file, such as `line 3, column 'x'`; empty for the file as a whole.
        expected: Description of what is accepted there.
        got: Description of what the file has there.
    """
    message = f"expected {expected}, got {got}"
    return DataError(f"{where}: {message}" if where else message)


def quote(value: object) -> str:
    """Return a value in quotes, shortened if it is long."""
    text = repr(str(value))
    if len(text) <= MAX_CHARACTERS:
        return text
    return text[: MAX_CHARACTERS - 3] + "..."


def join_names(names: Iterable[object]) -> str:
    """Return quoted names separated by commas, at most 20 of them."""
    quoted = [quote(name) for name in names]
    text = ", ".join(quoted[:MAX_NAMES])
    if len(quoted) > MAX_NAMES:
        text += f" and {len(quoted) - MAX_NAMES} more"
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message."""
    lines = str(error).splitlines()
    if not lines or not lines[0]:
        return type(error).__name__
    return lines[0][:200]
