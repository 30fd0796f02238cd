"""`python -m lightning_rnn`, also installed as `lightning-rnn`."""

import sys

from lightning_rnn import __version__


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        args: Arguments; those of the process when not given.

    Returns:
        0 on success, 1 for data and files that cannot be used.

    Raises:
        SystemExit: With 0 after `--help`, with 2 for options that cannot be used.
    """
    args = sys.argv[1:] if args is None else args
    if args == ["--version"]:
        print(f"lightning_rnn {__version__}")
        return 0
    from lightning_rnn.startup import import_torchmetrics, importing

    with importing("lightning_rnn.program"):
        import_torchmetrics()  # before Lightning does
        from lightning_rnn.program import run  # only here: it imports torch and Lightning
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
