"""How long does it take, and how much memory, until something happens?"""

import sys

from benchmarks.common import compare

COMMANDS = {
    "import lightning.pytorch.cli": ["-c", "import lightning.pytorch.cli"],
    "import torch": ["-c", "import torch"],
    "import lightning_rnn": ["-c", "import lightning_rnn"],
    "--version": ["-m", "lightning_rnn", "--version"],
    "fit --help": ["-m", "lightning_rnn", "fit", "--help"],
    "fit --print_config": ["-m", "lightning_rnn", "fit", "--print_config"],
}


def main(runs: int = 3) -> None:
    compare(
        {name: [sys.executable, *command] for name, command in COMMANDS.items()}, "start_up", runs
    )


if __name__ == "__main__":
    main()
