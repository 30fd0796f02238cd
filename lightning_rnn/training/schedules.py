"""Learning rates from step to step."""

import math
from typing import Literal

Schedule = Literal["constant", "cosine", "onecycle"]
WARM_UP = 0.3  # share of the steps in which onecycle rises


def learning_rate(schedule: Schedule, highest: float, step: int, total: float) -> float:
    """Return the rate of an optimiser step: a pure function, so that a resumed run does what its user asked.

    Args:
        schedule: constant; cosine, from the highest to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without
            restarts); onecycle, cosines from a 25th of the highest up to it and on to a 250,000th (Smith and Topin
            2019, arXiv:1708.07120).
        highest: The highest rate.
        step: Steps done before.
        total: Steps of the whole run.
    """
    done = min(step / max(1.0, total), 1.0)
    if schedule == "constant":
        return highest
    if schedule == "cosine":
        return highest * 0.5 * (1 + math.cos(math.pi * done))
    low, at = (
        (1 / 25, done / WARM_UP) if done < WARM_UP else (1 / 250_000, (1 - done) / (1 - WARM_UP))
    )
    return highest * (low + (1 - low) * 0.5 * (1 - math.cos(math.pi * at)))
