"""How long does it take, and how much memory, until something happens?"""

import argparse
import statistics
import sys

from benchmarks.common import save
from benchmarks.whole_command import once

COMMANDS = {
    "import lightning_rnn": ["-c", "import lightning_rnn"],
    "--version": ["-m", "lightning_rnn", "--version"],
    "import torch": ["-c", "import torch"],
    "import lightning.pytorch.cli": ["-c", "import lightning.pytorch.cli"],
    "fit --help": ["-m", "lightning_rnn", "fit", "--help"],
    "fit --print_config": ["-m", "lightning_rnn", "fit", "--print_config"],
}


def main(runs: int = 5) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for number in range(runs + 1):
        for name, command in COMMANDS.items():
            result = once([sys.executable, *command])
            if number > 0:  # the first warms the file cache
                found[name].append(result)
    rows = []
    for name, results in found.items():
        wall, peak = (statistics.median(column) for column in zip(*results, strict=True))
        rows.append({"what": name, "wall_s": f"{wall:.2f}", "peak_mib": f"{peak:.0f}", "runs": runs})
    save("start_up", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    main(**vars(parser.parse_args()))
