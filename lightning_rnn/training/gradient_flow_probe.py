"""How far back the network remembers, epoch by epoch."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.errors import check
from lightning_rnn.evaluation.gradient_flow import Memory, attribute, probe
from lightning_rnn.evaluation.plots import attribution, gradient_curves, gradient_heat_map, pixels
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.tensorboard import FIRST, can_draw, is_due, writer_of

PROBED, SHOWN = 32, 4  # sequences probed, and drawn with what their steps add
LONGEST = 2000  # steps up to which sequences are probed unasked


class GradientFlowProbe(Callback):
    """Shows how far back the network remembers; see `lightning_rnn.memory.probe`."""

    def __init__(self, *, every_n_epochs: int | None = None) -> None:
        """Set up.

        Args:
            every_n_epochs: Epochs from one look to the next. When not given, the epochs 1, 2, 4, 8 and so on and the
                last, drawn from 16 on, and not with sequences of more than 2,000 steps. A look takes about 0.5 ms a
                step and layer, and drawing it 1 s.

        Raises:
            OptionError: Less than one epoch.
        """
        wanted = "an integer of at least 1"
        check(
            every_n_epochs is None or every_n_epochs >= 1,
            "GradientFlowProbe.every_n_epochs",
            every_n_epochs,
            wanted,
        )
        self.every_n_epochs = every_n_epochs
        self.epochs: list[int] = []
        self.curves: dict[str, list[Tensor]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the network on the first sequences of the validation part, else of the training part."""
        data, epoch, writer = trainer.datamodule, trainer.current_epoch + 1, writer_of(trainer)  # type: ignore[attr-defined]  # set by fit
        due = is_due(epoch, self.every_n_epochs, last=trainer.max_epochs) and trainer.is_global_zero
        if not due or writer is None or not isinstance(data, SequenceDataModule):
            return
        sequences = data.split("val") or data.split("train")
        assert sequences is not None and isinstance(pl_module, SequenceClassifier)
        rows = list(range(min(PROBED, len(sequences))))
        batch = sequences.batch(torch.tensor(rows))
        if self.every_n_epochs is None and batch.x.shape[1] > LONGEST:
            return
        batch = batch.to(pl_module.device)
        memory = probe(pl_module.network, batch)
        self.epochs.append(epoch)
        for name, curve in memory.gradients.items():
            self.curves.setdefault(name, []).append(curve)
        step = max(0, trainer.global_step - 1)
        numbers = {f"horizon/{name}": float(value) for name, value in memory.horizons().items()}
        numbers |= {f"saturation/{name}": share for name, share in memory.saturation.items()}
        trainer.logger.log_metrics(
            {f"memory/{name}": value for name, value in numbers.items()}, step
        )  # type: ignore[union-attr]  # it has a writer
        if (self.every_n_epochs is not None or is_due(epoch, None, first=FIRST)) and can_draw():
            shown = sequences.batch(torch.tensor(rows[:SHOWN])).to(pl_module.device)
            drawn = attribution(attribute(pl_module.network, shown), sequences, rows[:SHOWN])
            self._draw(writer, memory, drawn, step)

    def _draw(self, writer: Any, memory: Memory, attributions: Any, step: int) -> None:
        table = {name: torch.stack(curves) for name, curves in self.curves.items()}
        for name, figure in (
            ("gradient", gradient_curves(memory)),
            ("gradient_by_epoch", gradient_heat_map(self.epochs, table)),
            ("attribution", attributions),
        ):
            writer.add_image(f"memory/{name}", pixels(figure), step, dataformats="HWC")

    def state_dict(self) -> dict[str, Any]:
        """Return what the heat map shows."""
        return {"epochs": self.epochs, "curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the heat map."""
        self.epochs, self.curves = (
            list(state_dict["epochs"]),
            {k: [*v] for k, v in state_dict["curves"].items()},
        )
