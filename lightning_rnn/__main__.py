"""Entry point of `python -m lightning_rnn`, also installed as the command `lightning-rnn`."""

import atexit
import gc
import sys

from lightning_rnn import __version__
from lightning_rnn.cli.output import protect_output
from lightning_rnn.cli.quick_answers import PROGRAM, answer
from lightning_rnn.errors import OptionError, one_line


def main(args: list[str] | None = None) -> int:
    """Run the command line with `args`, by default those of the process; return the exit code.

    The code is 0 on success, 1 for data or files that cannot be used, 2 for invalid options, 130
    after Ctrl-C, and 128 plus the signal number after another signal that ends a run. The help of
    all options raises a SystemExit with code 0.
    """
    is_program = args is None
    if args is None:
        protect_output()
        args = sys.argv[1:]
    if args == ["--version"]:
        print(f"{PROGRAM} {__version__}")
        return 0
    try:
        text = answer(args)
    except OptionError as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    if text is not None:
        print(text)
        return 0
    gc.disable()  # it would scan the half a million objects of the imports, which all stay
    try:
        from lightning_rnn.cli.main import run  # imports torch and Lightning, which takes seconds
    except KeyboardInterrupt:
        return 130
    finally:
        if is_program:
            gc.freeze()  # nor scan them later
            if "triton" in sys.modules:
                atexit.register(gc.unfreeze)  # triton would report frozen objects as leaks
        gc.enable()
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
