"""How long does a whole `fit` take, and how much memory, against the same experiment as a plain script?

Runs both in turn, as processes; ours with validation in each epoch, TensorBoard, checkpoints and default output.
"""

import sys

from benchmarks.common import compare

COMMANDS = {
    "plain": [sys.executable, "-m", "benchmarks.plain_seed"],
    "fit": [sys.executable, "-m", "lightning_rnn", "fit"],
}


def main(runs: int = 5) -> None:
    compare(COMMANDS, "whole_command", runs)


if __name__ == "__main__":
    main()
