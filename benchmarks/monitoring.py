"""What does watching a run cost? `fit` on the LSTM config without, with default and with all monitoring.

Without: no TensorBoard, no figures, no memory probe, no decision. All: figures and probe in each of the ten epochs.

    python -m benchmarks.monitoring
"""

import sys

from benchmarks.common import HERE, compare

FIT = [sys.executable, "-m", "lightning_rnn", "fit", "--config", str(HERE.parent / "configs" / "lstm.yaml")]
COMMANDS = {
    "without": [*FIT, "--trainer.logger", "false", "--decide.when", "never"],
    "default": FIT,
    "all": [*FIT, "--figures.every_n_epochs", "1", "--memory.every_n_epochs", "1"],
}


def main(runs: int = 5) -> None:
    compare(COMMANDS, "monitoring", runs)


if __name__ == "__main__":
    main()
