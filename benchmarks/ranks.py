"""How many sequences a second do two processes train, against one, each with one thread?

The mid size: T = 100, H = 64, B = 64 in each process; from the second epoch on, with all that `fit` does.
"""

import argparse
import statistics

from benchmarks.common import after_first, epoch_times, save

TRAIN, EPOCHS = 4096, 10  # as many as by default: in the first few most are looked into for gradients through time


def main(runs: int = 5, cell: str = "lstm", batch: int = 64) -> None:
    options = {
        "--model.cell": cell, "--model.hidden_size": 64, "--data.length": 100, "--data.num_train": TRAIN,
        "--data.num_val": TRAIN // 4, "--data.batch_size": batch, "--trainer.max_epochs": EPOCHS,
        "--trainer.accelerator": "cpu",
    }  # fmt: skip
    command = ["-m", "lightning_rnn", "fit", *(str(word) for pair in options.items() for word in pair)]
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(runs):
        for ranks, found in speeds.items():
            strategy = [] if ranks == 1 else ["--trainer.strategy", "ddp"]
            seconds = after_first(epoch_times([*command, "--trainer.devices", str(ranks), *strategy]))
            found.append(TRAIN * (EPOCHS - 1) / seconds)
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    save("ranks", [
        {
            "cell": cell, "B": batch, "ranks": ranks, "sequences_per_s": f"{statistics.median(found):.0f}",
            "ratio": f"{statistics.median(ratios) if ranks == 2 else 1:.2f}", "runs": runs,
        }
        for ranks, found in speeds.items()
    ])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--batch", type=int, default=64)
    main(**vars(parser.parse_args()))
