"""The table of settings from which `kill_and_resume.py` draws, and the draw.

A row is a group of settings of which a run has one. A draw takes a setting of each group, so that
pairs of settings that have not been together yet come first.
"""

import random
import shlex
from itertools import combinations
from pathlib import Path

CALLBACKS = "--trainer.callbacks+="
LIGHTNING = f"{CALLBACKS}lightning.pytorch.callbacks."
OF_LAST_CALLBACK = "--trainer.callbacks."
CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = "--model.hidden_size 4"
FILES = "--data.train_path train.csv --data.id_column id --data.time_column time"
SHORT = f"{FILES} --data.val_fraction 0.4 --trainer.max_steps 67 {SMALL}"

BASE = """
    --trainer.max_epochs 6 --trainer.log_every_n_steps 2 --trainer.enable_progress_bar false
    --model.cell gru --model.hidden_size 4 --model.dropout 0.3
    --data.length 6 --data.min_length 3 --data.num_train 96 --data.num_val 32 --data.batch_size 8
"""

# group: {setting: its options}
TABLE: dict[str, dict[str, str]] = {
    "config": {
        "none": "",
        "quickstart.yaml": f"--config {CONFIGS}/quickstart.yaml",
        "gru.yaml": f"--config {CONFIGS}/gru.yaml",
        "lstm.yaml": f"--config {CONFIGS}/lstm.yaml",
        "stopping.yaml": f"--config {CONFIGS}/stopping.yaml",
        "debug.yaml": f"--config {CONFIGS}/debug.yaml",
        # with 2 ranks, the launcher says how many processes there are
        "ddp.yaml": f"--config {CONFIGS}/ddp.yaml --trainer.devices 1",
        "gpu.yaml, on a CPU": f"--config {CONFIGS}/gpu.yaml --trainer.accelerator cpu",
        "files.yaml": f"--config {CONFIGS}/files.yaml {SHORT}",
    },
    "end": {
        "max_epochs": "",
        "max_steps": "--trainer.max_steps 67",
        "max_steps, max_epochs -1": "--trainer.max_epochs -1 --trainer.max_steps 67",
        "max_time": "--trainer.max_time 00:00:10:00",
        "min_epochs": "--trainer.min_epochs 3",
    },
    "stopping": {
        "none": "",
        "EarlyStopping": f"{CALLBACKS}lightning_rnn.EarlyStopping "
        f"{OF_LAST_CALLBACK}monitor=val/loss {OF_LAST_CALLBACK}patience=2 "
        f"{OF_LAST_CALLBACK}min_delta=0.1",
        "Lightning's EarlyStopping": f"{LIGHTNING}EarlyStopping "
        f"{OF_LAST_CALLBACK}monitor=train/loss {OF_LAST_CALLBACK}patience=2 "
        f"{OF_LAST_CALLBACK}min_delta=0.1 {OF_LAST_CALLBACK}check_on_train_epoch_end=true",
    },
    "batches": {
        "all": "",
        "limit_train_batches 7": "--trainer.limit_train_batches 7",
        "limit_train_batches 0.5": "--trainer.limit_train_batches 0.5",
        "overfit_batches 5": "--trainer.overfit_batches 5",
    },
    "validation": {
        "by default": "",
        "val_check_interval 0.5": "--trainer.val_check_interval 0.5",
        "val_check_interval 5": "--trainer.val_check_interval 5",
        "check_val_every_n_epoch 2": "--trainer.check_val_every_n_epoch 2",
        "limit_val_batches 0": "--trainer.limit_val_batches 0",
        "num_sanity_val_steps 1": "--trainer.num_sanity_val_steps 1",
    },
    "reloaded loaders": {
        "never": "",
        "every epoch": "--trainer.reload_dataloaders_every_n_epochs 1",
        "every 2 epochs": "--trainer.reload_dataloaders_every_n_epochs 2",
    },
    "accumulation": {
        "none": "",
        "accumulate_grad_batches 3": "--trainer.accumulate_grad_batches 3",
        "GradientAccumulationScheduler": f"{LIGHTNING}GradientAccumulationScheduler "
        f"{OF_LAST_CALLBACK}scheduling='{{2: 3}}'",
    },
    "averaging": {
        "none": "",
        "StochasticWeightAveraging": f"{LIGHTNING}StochasticWeightAveraging "
        f"{OF_LAST_CALLBACK}swa_lrs=0.01",
        "EMAWeightAveraging": f"{LIGHTNING}EMAWeightAveraging {OF_LAST_CALLBACK}decay=0.9",
    },
    "callbacks": {
        "none": "",
        # the counter would give a file that the killed process has written another name
        "two ModelCheckpoints": f"{LIGHTNING}ModelCheckpoint {OF_LAST_CALLBACK}filename=first "
        f"{OF_LAST_CALLBACK}enable_version_counter=false "
        f"{LIGHTNING}ModelCheckpoint {OF_LAST_CALLBACK}filename=second "
        f"{OF_LAST_CALLBACK}monitor=train/loss {OF_LAST_CALLBACK}every_n_epochs=2 "
        f"{OF_LAST_CALLBACK}enable_version_counter=false",
        "LearningRateMonitor": f"{LIGHTNING}LearningRateMonitor",
        "a class of the user": f"{CALLBACKS}users_callback.CountSteps",
    },
    "precision": {
        "32-true": "",
        "64-true": "--trainer.precision 64-true",
        "bf16-mixed": "--trainer.precision bf16-mixed",
        "bf16-true": "--trainer.precision bf16-true",
    },
    "clipping": {
        "by norm": "",
        "by value": "--trainer.gradient_clip_val 0.1 --trainer.gradient_clip_algorithm value",
        "none": "--trainer.gradient_clip_val null",
    },
    "logger": {
        "by default": "",
        "no logger": "--trainer.logger false",
        "CSVLogger": "--trainer.logger CSVLogger --trainer.logger.save_dir .",
        "TensorBoardLogger": "--trainer.logger TensorBoardLogger --trainer.logger.save_dir .",
    },
    "checkpoints": {
        "of epochs": "",
        "every_n_steps 5": "--checkpoint.every_n_steps 5",
        "every_n_minutes 0.0001": "--checkpoint.every_n_minutes 0.0001",
        "monitor val/accuracy": "--checkpoint.monitor val/accuracy",
    },
    "cell": {
        "gru": "",
        "rnn": "--model.cell rnn",
        "lstm, both directions": "--model.cell lstm --model.bidirectional true",
        "mingru": "--model.cell mingru",
    },
    "stem": {
        "none": "",
        "conv": "--model.stem conv",
        "inception": "--model.stem inception",
    },
    "optimizer": {
        "adam": "",
        "adamw": "--model.optimizer adamw --model.weight_decay 0.1",
    },
    "schedule": {
        "cosine": "",
        "constant": "--model.schedule constant",
        "onecycle": "--model.schedule onecycle",
    },
    "loss": {
        "plain": "",
        "label_smoothing": "--model.label_smoothing 0.1",
        "class_weights": "--model.class_weights balanced",
    },
    "data": {
        "the same in each epoch": "",
        "fresh": "--data.fresh true",
        "buckets": "--data.buckets true",
    },
    "calibration": {
        "auto": "",
        "always, with an objective": "--calibrate.when always --calibrate.objective f1",
        "never": "--calibrate.when never",
    },
    "pictures": {
        "by default": "",
        "gradient flow": "--gradient_flow.every_n_epochs 2",
    },
    "other": {
        "none": "",
        "deterministic": "--trainer.deterministic true",
        "detect_anomaly": "--trainer.detect_anomaly true",
        "inference_mode false": "--trainer.inference_mode false",
        "profiler": "--trainer.profiler SimpleProfiler",
        "matmul_precision": "--matmul_precision medium",
    },
}
# pairs that `fit` or Lightning refuses before training, or that contradict each other
EXCLUDED: set[frozenset[str]] = {
    frozenset(pair)
    for pair in (
        ("limit_val_batches 0", "EarlyStopping"),
        ("limit_val_batches 0", "stopping.yaml"),
        ("LearningRateMonitor", "no logger"),
        ("accumulate_grad_batches 3", "GradientAccumulationScheduler"),
        ("StochasticWeightAveraging", "EMAWeightAveraging"),
        ("stopping.yaml", "StochasticWeightAveraging"),
        ("stopping.yaml", "EMAWeightAveraging"),
        ("stopping.yaml", "EarlyStopping"),
        ("max_steps, max_epochs -1", "StochasticWeightAveraging"),
        ("files.yaml", "StochasticWeightAveraging"),
        ("files.yaml", "fresh"),
        ("val_check_interval 5", "overfit_batches 5"),
    )
}
Draw = dict[str, str]  # group: setting


def write_files(folder: Path) -> None:
    """Write the data file and the user's module that some settings need."""
    rng = random.Random(0)
    rows = ["id,time,a,b,label"]
    for i in range(60):
        for step in range(3 + i % 3):
            a = rng.random() + i % 2
            rows.append(f"s{i},{step},{a:.6f},{rng.random():.6f},{('down', 'up')[i % 2]}")
    # without polars, whose threads would not live on in the forked processes
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    (folder / "users_callback.py").write_text(USERS_CALLBACK)


def arguments(draw: Draw) -> list[str]:
    """Return the options of a draw; a config that is for files has no options of other data."""
    base = BASE.split()
    if draw["config"] == "files.yaml":
        base = ["--trainer.log_every_n_steps", "2", "--trainer.enable_progress_bar", "false"]
    words = TABLE["config"][draw["config"]].split()
    others = [name for name in draw if name != "config"]
    for group in others:
        base += shlex.split(TABLE[group][draw[group]])
    return words + base


def pairs(draw: Draw) -> set[frozenset[tuple[str, str]]]:
    """Return all pairs of settings that a draw has."""
    return {frozenset(pair) for pair in combinations(draw.items(), 2)}


def is_accepted(draw: Draw) -> bool:
    """Return whether no two settings of a draw exclude each other."""
    chosen = set(draw.values())
    return not any(pair <= chosen for pair in EXCLUDED)


def next_draw(rng: random.Random, covered: set[frozenset[tuple[str, str]]]) -> Draw:
    """Return, of 40 random draws, that with the most pairs that are not `covered`."""
    best: Draw = {}
    most = -1
    for _ in range(40):
        draw = {group: _setting(rng, group) for group in TABLE}
        if not is_accepted(draw):
            continue
        new = len(pairs(draw) - covered)
        if new > most:
            best = draw
            most = new
    return best


def _setting(rng: random.Random, group: str) -> str:
    """Choose a setting; the default one in a third of all draws, as others may hide each other."""
    settings = list(TABLE[group])
    return settings[0] if rng.random() < 1 / 3 else rng.choice(settings)


USERS_CALLBACK = """
from lightning.pytorch import Callback


class CountSteps(Callback):
    def __init__(self):
        self.count = 0

    def on_train_batch_end(self, *args):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]
"""
