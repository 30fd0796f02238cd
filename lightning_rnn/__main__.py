"""`python -m lightning_rnn`, also installed as `lightning-rnn`."""

import sys

from lightning_rnn import __version__


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        args: Arguments; those of the process when not given.

    Returns:
        0 on success, 1 for data and files that cannot be used, 2 for options that cannot be, 130 after Ctrl-C, 128 and
        the signal's number after another signal that ends a run.

    Raises:
        SystemExit: With 0 after `--help`.
    """
    is_program, args = args is None, sys.argv[1:] if args is None else args
    if args == ["--version"]:
        print(f"lightning_rnn {__version__}")
        return 0
    from lightning_rnn.startup import import_torchmetrics, importing

    with importing("lightning_rnn.program", for_good=is_program):
        import_torchmetrics()  # before Lightning does
        from lightning_rnn.program import run  # only here: it imports torch and Lightning
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
