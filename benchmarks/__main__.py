"""Run every benchmark at tiny sizes, to see that it works; writes to benchmarks/results/quick/."""

from benchmarks import (
    accuracy,
    cells,
    growth,
    inference,
    larger_than_memory,
    real,
    start_up,
    study,
    training,
)
from benchmarks.harness import ROOT

SHORT_FIT = ["--trainer.max_epochs=1", "--data.num_train=64", "--data.num_test=64"]

start_up.main(runs=1, quick=True)
training.main(runs=1, quick=True)
cells.main(runs=1, quick=True)
inference.main(runs=1, quick=True)
growth.main(["tsv", "temperature"], quick=True)
larger_than_memory.main(runs=1, quick=True)
accuracy.main("cells", "model.cell", "rnn", "gru", SHORT_FIT, runs=1, quick=True)
study.main(list(study.QUESTIONS), quick=True)
files = ROOT / "tests/files"
real.main(files, ["--trainer.max_steps=2"], seeds=1, quick=True)
