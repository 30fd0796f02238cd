"""How many sequences a second do two processes train, against one, each with one thread?

The mid size: T = 100, H = 64, B = 64 in each process; from the second epoch on, with all that `fit` does. Two runs that
know nothing of each other, at the same time, show what the machine itself allows. The ways take turns of a few epochs,
the others waiting meanwhile: a shared machine is seldom as quick for a whole run as it was for the one before. A turn's
first epoch does not count, see `turns`.
"""

import argparse
import statistics

from benchmarks.common import save
from benchmarks.turns import counted, taking_turns

TRAIN, EPOCHS = (
    4096,
    10,
)  # as many as by default: in the first few most are looked into for gradients through time
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
WAYS = {"1 rank": [()], "2 ranks": [TWO], "2 runs apart": [(), ()]}  # what is run at the same time


def main(runs: int = 5, cell: str = "lstm", batch: int = 64) -> None:
    options = {
        "--model.cell": cell, "--model.hidden_size": 64, "--data.length": 100, "--data.num_train": TRAIN,
        "--data.num_val": TRAIN // 4, "--data.batch_size": batch, "--trainer.max_epochs": EPOCHS,
        "--trainer.accelerator": "cpu", "--trainer.callbacks+": "benchmarks.clock.InTurns",
    }  # fmt: skip
    command = [
        "-m",
        "lightning_rnn",
        "fit",
        *(f"{name}={value}" for name, value in options.items()),
    ]

    ways = {
        what: ([[*command, *more] for more in ways], 1 if what == "1 rank" else 2)
        for what, ways in WAYS.items()
    }
    trained = TRAIN * counted(EPOCHS)

    def speeds() -> dict[str, float]:
        seconds = taking_turns(ways, EPOCHS)
        together = trained / max(seconds["2 ranks"])  # which share the sequences
        return {what: sum(trained / s for s in found) for what, found in seconds.items()} | {
            "2 ranks": together
        }

    found = [speeds() for _ in range(runs)]
    rows = []
    for what in WAYS:
        ratios = [one[what] / one["1 rank"] for one in found]
        rows.append({
            "cell": cell, "B": batch, "what": what,
            "sequences_per_s": f"{statistics.median(one[what] for one in found):.0f}",
            "ratio": f"{statistics.median(ratios):.2f}", "lowest_ratio": f"{min(ratios):.2f}",
            "highest_ratio": f"{max(ratios):.2f}", "runs": runs,
        })  # fmt: skip
    save("ranks", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--batch", type=int, default=64)
    main(**vars(parser.parse_args()))
