"""How many sequences a second do two processes train, against one, each with one thread?

The mid size: T = 100, H = 64, B = 64 in each process; from the second epoch on, with all that `fit` does. Two runs that
know nothing of each other, at the same time, show what the machine itself allows.
"""

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor

from benchmarks.common import after_first, epoch_times, save

TRAIN, EPOCHS = 4096, 10  # as many as by default: in the first few most are looked into for gradients through time


def main(runs: int = 5, cell: str = "lstm", batch: int = 64) -> None:
    options = {
        "--model.cell": cell, "--model.hidden_size": 64, "--data.length": 100, "--data.num_train": TRAIN,
        "--data.num_val": TRAIN // 4, "--data.batch_size": batch, "--trainer.max_epochs": EPOCHS,
        "--trainer.accelerator": "cpu",
    }  # fmt: skip
    command = ["-m", "lightning_rnn", "fit", *(str(word) for pair in options.items() for word in pair)]

    def speed(*more: str) -> float:
        return TRAIN * (EPOCHS - 1) / after_first(epoch_times([*command, *more]))

    def apart() -> float:
        with ThreadPoolExecutor() as both:
            return sum(both.map(lambda _: speed(), range(2)))

    ways = {
        "1 rank": speed,
        "2 ranks": lambda: speed("--trainer.devices", "2", "--trainer.strategy", "ddp"),
        "2 runs apart": apart,
    }
    speeds = [{what: way() for what, way in ways.items()} for _ in range(runs)]
    rows = []
    for what in ways:
        ratios = [found[what] / found["1 rank"] for found in speeds]
        rows.append({
            "cell": cell, "B": batch, "what": what,
            "sequences_per_s": f"{statistics.median(found[what] for found in speeds):.0f}",
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
