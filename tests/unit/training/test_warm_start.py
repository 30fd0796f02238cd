"""Weights of another model, in Python."""

import copy
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import BaseFinetuning

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.errors import OptionError
from lightning_rnn.training.warm_start import take_weights

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}


def model(seed=0, **options):
    seed_everything(seed, verbose=False)
    settings = {"cell": "gru", "hidden_size": 4, "stem": "inception"}
    settings |= {"input_size": 1, "num_classes": 2}
    return SequenceClassifier(**settings | options).eval()


def trained():
    fitted = model()
    fitted.network.preprocess.set_moments(torch.tensor([3.0]), torch.tensor([0.5]))
    fitted.network.decision.set(2.0, 0.1)
    return fitted


def take(new, old):
    return take_weights(
        new, old.state_dict(), old.hparams, option="init_from", source="the other model"
    )


def test_the_same_classes_keep_the_head():
    old = trained()
    new = model(1, dropout=0.3, class_weights=[1.0, 4.0])
    x = torch.randn(5, 7, 1) + 3
    assert take(new, old) == []
    lengths = torch.full((5,), 7)
    assert torch.equal(new(x, lengths), old(x, lengths))
    assert not new.network.decision.is_fitted
    assert new.class_weight.tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    "classes", [["0", "1", "2"], ["1", "0"], ["a", "b"]], ids=["more", "swapped", "others"]
)
def test_other_classes_keep_all_but_the_heads(classes):
    old = trained()
    new = model(1, num_classes=len(classes), class_names=classes)
    heads = copy.deepcopy([new.network.head.state_dict(), new.network.summary_head.state_dict()])
    assert take(new, old) == ["0", "1"]
    x = torch.randn(5, 7, 1) + 3
    lengths = torch.full((5,), 7)
    assert torch.equal(new.network.embed(x, lengths), old.network.embed(x, lengths))
    for before, after in zip(heads, (new.network.head, new.network.summary_head), strict=True):
        assert all(torch.equal(before[name], value) for name, value in after.state_dict().items())


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm"},
        {"hidden_size": 5},
        {"num_layers": 2},
        {"bidirectional": True},
        {"pooling": "mean"},
        {"stem": "conv"},
    ],
)
def test_another_architecture_is_refused(options):
    ((name, value),) = options.items()
    old = trained()
    expected = f"^{name}: expected {old.hparams[name]!r} as in the other model, got {value!r}$"
    with pytest.raises(OptionError, match=expected):
        take(model(**options), old)


def test_freezing_needs_trained_weights():
    data = SyntheticDataModule(num_train=16, num_val=8, length=5)
    with pytest.raises(OptionError, match=r"^freeze: expected False for a model without trained"):
        Trainer(max_epochs=1, **QUIET).fit(model(freeze=True), datamodule=data)


def test_a_loaded_checkpoint_is_trained_further(tmp_path):
    """`load_from_checkpoint` is the way to start from weights with a Trainer of one's own."""
    data = SyntheticDataModule(num_train=32, num_val=16, length=5)
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(model().train(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    other = SyntheticDataModule(num_train=32, num_val=16, length=5, seed=3)
    moments = {}
    for freeze in (False, True):
        again = SequenceClassifier.load_from_checkpoint(
            tmp_path / "first.ckpt", weights_only=True, freeze=freeze, lr=0.1
        )
        before = copy.deepcopy(again.state_dict())
        Trainer(max_epochs=1, **QUIET).fit(again, datamodule=other)
        after = again.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert any("recurrent" in name for name in changed) is not freeze
        assert any("head" in name for name in changed)
        moments[freeze] = again.network.preprocess.mean
    assert torch.equal(moments[True], before["network.preprocess.mean"])
    assert torch.equal(moments[False], other.train_moments[0])


class Thaw(BaseFinetuning):
    """The callback in docs/warm_start.md, two epochs earlier."""

    def freeze_before_training(self, pl_module):
        self.freeze([pl_module.network.stem, pl_module.network.recurrent])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.make_trainable(pl_module.network.recurrent)


def test_lightnings_finetuning_thaws_layers():
    copies = []

    class Copies(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            copies.append(copy.deepcopy(dict(pl_module.named_parameters())))

        on_train_end = on_train_epoch_start

    data = SyntheticDataModule(num_train=32, num_val=16, length=5)
    Trainer(max_epochs=2, callbacks=[Thaw(), Copies()], **QUIET).fit(model().train(), data)
    changed = []
    for before, after in pairwise(copies):
        names = {name for name, value in after.items() if not torch.equal(value, before[name])}
        changed.append({name.split(".")[1] for name in names})
    assert changed[0] == {"head", "summary_head"}
    assert changed[1] == {"head", "summary_head", "recurrent"}
