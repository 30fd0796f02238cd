"""Run every benchmark that needs nothing but this package, short: to see that they run and about what they say."""

import os

from benchmarks import (
    accelerator,
    cells,
    inference,
    larger_than_memory,
    monitoring,
    ranks,
    sizes,
    start_up,
    step_parts,
    training,
    whole_command,
)
from benchmarks.common import BRIEF

os.environ[BRIEF] = "1"
whole_command.main(runs=2)
start_up.main(runs=2)
step_parts.main(runs=1)
training.main(runs=1)
cells.main(runs=2, quick=True)
ranks.main(runs=1)
sizes.main(runs=1, largest=100_000)
larger_than_memory.main(gigabytes=0.25, runs=1, batches=100)
inference.main(repeats=20)
monitoring.main(runs=1)
accelerator.main()
