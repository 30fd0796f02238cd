"""Standard output whose reader may go away, and errors of threads that the main thread reports."""

import os
import sys
import threading
from typing import Any


class Output:
    """Text stream that discards everything once its reader has closed it, as `head` does.

    Training goes on without progress lines. Other errors, such as that of a full disk, are raised
    once; what is printed afterwards is discarded, too.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        self._call(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._call(self._stream.flush)

    def _call(self, method: Any, *args: Any) -> None:
        try:
            method(*args)
        except OSError as error:
            with open(os.devnull, "wb") as sink:
                os.dup2(sink.fileno(), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise


def protect_output() -> None:
    """Let this process survive a standard output or standard error that is or gets closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the process started
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open to the end
        setattr(sys, name, Output(stream))


def hide_errors_of_writers(hook_args: Any) -> None:
    """Hook for threads: leave an OSError to the main thread, which reports it in one line.

    The writer of TensorBoard's events raises it again at the next event.
    """
    if not issubclass(hook_args.exc_type, OSError):
        threading.__excepthook__(hook_args)
