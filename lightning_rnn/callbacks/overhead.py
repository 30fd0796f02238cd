"""What Lightning does at each step for nobody, left out: beside a small network it would be most of the time."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lightning_rnn.adam import lean_step
from lightning_rnn.data.modules import SequenceDataModule
from lightning_rnn.ranks import FEW, SharedGradients, share_gradients

OUTER_HOOKS = ("on_train_batch_start", "on_train_batch_end")
INNER_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
STEP_HOOKS = (*OUTER_HOOKS, *INNER_HOOKS)
METHODS = ("backward", "optimizer_step")  # which a model may have in place of Lightning's
TRANSFERS = ("on_before_batch_transfer", "on_after_batch_transfer")
BUFFERS = "forward_sync_buffers"  # DistributedDataParallel's option, and what it was called in torch 2.11
if BUFFERS not in inspect.signature(DistributedDataParallel).parameters:
    BUFFERS = "broadcast_buffers"
_NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for each of a step's sixty sections."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return _NOTHING


class DirectEpochLoop(_TrainingEpochLoop):
    """Lightning's training epoch, whose step calls forward, backward and optimiser one after the other.

    Lightning nests them in closures with a hook between any two. Wherever somebody uses such a hook, or a step is more
    than this (accumulated gradients, mixed precision, another strategy), Lightning's own step runs.
    """

    _listeners: list[Callback] | None = None  # whom to call before and after a step; None for Lightning's own step
    _forward: Callable[..., Any]  # what a direct step calls for the loss
    _optimize: Callable[[], Any]  # and for the weights
    _in_a_row: float = 0  # steps of an epoch up to the first after which there may be more to do than the next one

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Look who listens and what is due when: an epoch's steps are alike."""
        super().on_run_start(data_fetcher)
        trainer, model = self.trainer, self.trainer.lightning_module
        data: Any = trainer.datamodule
        callbacks: list[Callback] = trainer.callbacks
        direct = (
            isinstance(trainer.profiler, NoProfiler)
            and type(trainer.precision_plugin) is Precision
            and type(trainer.strategy) in (DDPStrategy, SingleDeviceStrategy)
            and trainer.accumulate_grad_batches == 1
            and model.automatic_optimization
            and not trainer.lr_scheduler_configs
            and not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
            and _keeps(model, LightningModule, (*INNER_HOOKS, *METHODS, *TRANSFERS))
            and isinstance(data, SequenceDataModule)
            and _keeps(data, LightningDataModule, TRANSFERS)
            and all(_keeps(callback, Callback, INNER_HOOKS) for callback in callbacks)
        )
        self._listeners, self._in_a_row = None, 0
        if not direct:
            return
        self._listeners = [c for c in callbacks if not _keeps(c, Callback, OUTER_HOOKS)]
        if trainer.val_check_batch is not None and trainer.check_val_every_n_epoch is not None and self.max_steps == -1:
            self._in_a_row = min(trainer.num_training_batches, trainer.val_check_batch)
        by_itself = trainer.strategy.model is model or self._shared is not None
        self._forward = model.training_step if by_itself else trainer.strategy.training_step
        self._optimize = lean_step(trainer.optimizers[0])

    @cached_property
    def _shared(self) -> SharedGradients | None:
        """What averages gradients quicker than DistributedDataParallel: few of them, on CPUs of one machine."""
        strategy, model = self.trainer.strategy, self.trainer.lightning_module
        if not isinstance(strategy, DDPStrategy) or strategy.root_device.type != "cpu":
            return None
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        few = strategy.world_size * sum(weight.nbytes for weight in weights) <= FEW
        alike = len({weight.dtype for weight in weights}) == 1
        return share_gradients(weights) if few and alike and strategy._ddp_kwargs == {BUFFERS: False} else None

    @property
    def done(self) -> bool:
        """Whether the epoch is over."""
        return not self._goes_on() and super().done

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Validate, stop and flush loggers where that is due."""
        if self._goes_on():
            self._batches_that_stepped += 1
        else:
            super().on_advance_end(data_fetcher)

    def _goes_on(self) -> bool:
        """Tell whether nothing but the next step can come now."""
        progress, trainer = self.batch_progress, self.trainer
        in_a_row = progress.current.ready < self._in_a_row and not progress.is_last_batch
        return in_a_row and not trainer.should_stop and not trainer.received_sigterm

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Do a step."""
        if self._listeners is None or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, progress = self.trainer, self.batch_progress
        if trainer.world_size > 1:
            self._broadcast_sigterm_tensor()
        batch, batch_idx = next(data_fetcher)[0], self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = trainer.datamodule.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
        progress.increment_ready()
        connector = trainer._logger_connector
        connector._first_loop_iter = connector._first_loop_iter is None
        self._results.batch, self._results.batch_size, self._results.dataloader_idx = batch, None, None
        if self._tell("on_train_batch_start", batch, batch_idx) == -1:  # the model's way to end the epoch
            progress.increment_by(0, is_last_batch=True)
            progress.increment_processed()
            raise StopIteration
        progress.increment_started()
        outputs = {"loss": self._step(batch, batch_idx)}
        progress.increment_processed()
        self._tell("on_train_batch_end", outputs, batch, batch_idx)
        if self._results:  # somebody has logged
            connector.on_batch_end()
            connector.update_train_step_metrics()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()

    def _tell(self, hook: str, *args: Any) -> Any:
        model: Any = self.trainer.lightning_module
        model._current_fx_name = hook  # whoever logs is asked where
        for callback in self._listeners or ():
            if (method := getattr(callback, hook)) is not None:
                method(self.trainer, model, *args)
        return None if (method := getattr(model, hook)) is None else method(*args)

    def _step(self, batch: Any, batch_idx: int) -> Tensor:
        trainer, progress = self.trainer, self.automatic_optimization.optim_progress.optimizer
        model: Any = trainer.lightning_module
        optimizer = trainer.optimizers[0]
        model._current_fx_name = "training_step"
        loss: Any = self._forward(batch, batch_idx)
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        model.optimizer_zero_grad(trainer.current_epoch, batch_idx, optimizer)
        progress.zero_grad.increment_completed()
        loss.backward()
        if self._shared is not None:
            self._shared.average()
        model.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        progress.step.increment_ready()
        self._optimize()
        progress.step.increment_completed()
        detached: Tensor = loss.detach()
        return detached


def drop_overhead(trainer: Trainer, model: LightningModule) -> None:
    """Give the trainer the direct loop, and hide the hooks of a step that nobody has filled in.

    Lightning skips hooks that cannot be called. It also asks in each step for the step's signature, which is found at
    once where it is written down.
    """
    if isinstance(trainer.strategy, DDPStrategy):
        # our buffers are the same on all ranks at any time; sending them in each step costs as much as the gradients
        trainer.strategy._ddp_kwargs.setdefault(BUFFERS, False)
    before = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = DirectEpochLoop(trainer, min_steps=before.min_steps, max_steps=before.max_steps)
    step: Any = type(model).training_step
    step.__signature__ = inspect.signature(step)
    for owner, base in (*((callback, Callback) for callback in trainer.callbacks), (model, LightningModule)):  # type: ignore[attr-defined]
        for hook in STEP_HOOKS:
            if _keeps(owner, base, (hook,)):
                vars(owner)[hook] = None


def _keeps(owner: Any, base: type, names: tuple[str, ...]) -> bool:
    """Tell whether an object has only the base class's methods of these names."""
    return all(getattr(type(owner), n) is getattr(base, n) and vars(owner).get(n) is None for n in names)
