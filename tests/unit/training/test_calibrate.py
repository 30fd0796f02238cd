"""The callback that calibrates a checkpoint, on another rank than the first."""

from types import SimpleNamespace

import pytest
from evaluations import random_evaluation

from lightning_rnn.training.calibrate import Calibrate


@pytest.mark.parametrize("when", ["auto", "always"])
def test_other_ranks_accept_the_file_that_the_first_one_has_replaced(tmp_path, when):
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"validated")
    state = SimpleNamespace(fn="validate")
    trainer = SimpleNamespace(state=state, ckpt_path=path, is_global_zero=False)
    model = SimpleNamespace(evaluation=random_evaluation(2, 50, seed=0))
    callback = Calibrate(when=when)
    callback.on_validation_start(trainer, model)
    path.write_bytes(b"calibrated by the first rank")
    callback.on_validation_end(trainer, model)
    assert path.read_bytes() == b"calibrated by the first rank"
