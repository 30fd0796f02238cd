"""Entry point of `python -m lightning_rnn`, also installed as the command `lightning-rnn`."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_rnn import __version__


def main(args: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Command-line arguments; by default those of the process.

    Returns:
        Exit code: 0 on success, 1 for data or files that cannot be used, 2 for invalid options, 130
        after Ctrl-C, and 128 plus the signal number after another signal that ends a run.

    Raises:
        SystemExit: With code 0 after `--help`.
    """
    if args is None:
        args = sys.argv[1:]
    if args == ["--version"]:
        print(f"lightning_rnn {__version__}")
        return 0
    with _garbage_collection_paused():
        from lightning_rnn.cli.main import run  # imports torch and Lightning, which takes seconds
    return run(args)


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pause garbage collection while importing: it would scan half a million objects that stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


if __name__ == "__main__":
    sys.exit(main())
