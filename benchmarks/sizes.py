"""What does a sequence cost in training, from a thousand to a million of them?

T = 10, H = 32; an epoch's time after the first, all of what `fit` does in it included, by the sequences in it. B = 256,
so that a million take seconds. Validation is on a tenth as many.
"""

import argparse
import statistics

from benchmarks.common import after_first, epoch_times, save


def main(runs: int = 3, largest: int = 1_000_000) -> None:
    found: dict[int, list[float]] = {
        n: [] for n in (1_000, 10_000, 100_000, 1_000_000) if n <= largest
    }
    for _ in range(runs):
        for n, costs in found.items():
            epochs = 2 if n >= 100_000 else 8
            options = {
                "--data.num_train": n, "--data.num_val": n // 10, "--data.batch_size": 256,
                "--trainer.max_epochs": epochs, "--trainer.accelerator": "cpu",
            }  # fmt: skip
            command = [
                "-m",
                "lightning_rnn",
                "fit",
                *(str(word) for pair in options.items() for word in pair),
            ]
            costs.append(after_first(epoch_times(command)) / ((epochs - 1) * n) * 1e6)
    save("sizes", [
        {
            "N": n, "us_per_sequence": f"{statistics.median(costs):.1f}",
            "ratio_to_10000": f"{statistics.median(a / b for a, b in zip(costs, found[10_000], strict=True)):.2f}",
            "runs": runs,
        }
        for n, costs in found.items()
    ])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--largest", type=int, default=1_000_000, choices=[10_000, 100_000, 1_000_000]
    )
    main(**vars(parser.parse_args()))
