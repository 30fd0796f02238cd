"""What does watching a run cost? `fit` on the LSTM config without, with default and with all monitoring.

Without: no TensorBoard, no figures, no memory probe, no decision. All: figures and probe in each of the ten epochs.

    python -m benchmarks.monitoring         # without and default
    python -m benchmarks.monitoring --all
"""

import argparse
import sys

from benchmarks.common import HERE, compare

FIT = [
    sys.executable,
    "-m",
    "lightning_rnn",
    "fit",
    "--config",
    str(HERE.parent / "configs" / "lstm.yaml"),
]
COMMANDS = {
    "without": [*FIT, "--trainer.logger", "false", "--calibrate.when", "never"],
    "default": FIT,
    "all": [*FIT, "--figures.every_n_epochs", "1", "--gradient_flow.every_n_epochs", "1"],
}


def main(runs: int = 8, everything: bool = False) -> None:
    chosen = {name: command for name, command in COMMANDS.items() if everything or name != "all"}
    compare(chosen, "monitoring_all" if everything else "monitoring", runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    main(args.runs, args.all)
