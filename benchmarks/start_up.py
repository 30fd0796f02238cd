"""How long does it take until something happens, and how long does the whole command take?

`fit` trains the published experiment, validates after each epoch, and writes TensorBoard events and
checkpoints; the published script only trains.
"""

from benchmarks.harness import Side, compare, options_of, save

IMPORTS = [
    Side("import lightning.pytorch.cli", ["-c", "import lightning.pytorch.cli"]),
    Side("import torch", ["-c", "import torch"]),
    Side("import lightning_rnn", ["-c", "import lightning_rnn"]),
    Side("--version", ["-m", "lightning_rnn", "--version"]),
    Side("fit --help", ["-m", "lightning_rnn", "fit", "--help"]),
    Side("fit --print_config", ["-m", "lightning_rnn", "fit", "--print_config"]),
]
WHOLE_COMMAND = [
    Side("published script", ["-m", "benchmarks.baselines", "published"], sequences=1000),
    Side("fit", ["-m", "lightning_rnn", "fit"], sequences=1000),
]


def main(runs: int = 5, quick: bool = False) -> None:
    warm_up = 0 if quick else 1
    rows = compare("start-up", IMPORTS, runs, warm_up)
    rows += compare("whole command", WHOLE_COMMAND, runs, warm_up)
    save("start_up", rows, quick=quick)


if __name__ == "__main__":
    main(**vars(options_of(__doc__, runs=5).parse_args()))
