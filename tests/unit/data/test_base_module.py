"""Data modules: what they make or read, how they cut it, and what they refuse."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_rnn.data import DATA_MODULES
from lightning_rnn.data import loader as loading
from lightning_rnn.data import synthetic_module as synthetic
from lightning_rnn.data.file_module import FileDataModule
from lightning_rnn.data.loader import seeded_generator
from lightning_rnn.data.readers import read_file
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.synthetic_module import SyntheticDataModule
from lightning_rnn.data.synthetic_tasks import TASKS
from lightning_rnn.errors import DataError, OptionError

FILES = Path(__file__).parents[2] / "files"
ITALY = {"train_path": str(FILES / "ItalyPowerDemand_TRAIN.ts")}
GUN = {
    "train_path": str(FILES / "GunPoint_slice_TRAIN.tsv"),
    "test_path": str(FILES / "GunPoint_slice_TEST.tsv"),
    "val_fraction": 0.0,
}
VOWELS = {"train_path": str(FILES / "JapaneseVowels_slice_TRAIN.ts")}
SMALL = {"num_train": 20, "num_val": 12, "num_test": 30}
SPLITS = ("train", "val", "test")


def prints(data):
    return [data.split(name).fingerprint() for name in SPLITS]


# synthetic


@pytest.mark.parametrize("task", TASKS)
def test_synthetic_parts_are_a_function_of_the_settings(task):
    options = {"task": task, "length": 12, **SMALL}
    data, again, other = (SyntheticDataModule(**options, seed=seed) for seed in (3, 3, 4))
    assert prints(data) == prints(again)
    assert len(set(prints(data) + prints(other))) == 6
    assert [len(data.split(name)) for name in SPLITS] == [20, 12, 30]
    assert data.split("predict").fingerprint() == data.split("test").fingerprint()
    assert data.schema == Schema(TASKS[task].num_features or 1, list(TASKS[task].class_names), None)
    assert data.split("train").num_features == data.schema.num_features
    assert set(data.split("train").lengths.tolist()) == {12 + TASKS[task].extra_steps}


def test_parts_of_equal_size_differ():
    data = SyntheticDataModule(num_train=10, num_val=10, num_test=10)
    values = [data.split(name).values for name in SPLITS]
    assert not any(torch.equal(values[i], values[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_defaults_are_the_published_experiment():
    data = SyntheticDataModule()
    assert [tuple(data.split(name).values.shape) for name in SPLITS] == [
        (10_000, 1),
        (10_000, 1),
        (100_000, 1),
    ]
    assert data.batch_size == 32
    train = data.split("train")
    assert train.labels.tolist() == (train.values.view(-1, 10).double().sum(1) > 0).long().tolist()
    assert data.train_class_counts.tolist() == torch.bincount(train.labels).tolist()
    mean, std = data.train_moments
    assert mean.item() == pytest.approx(train.values.double().mean().item(), abs=1e-6)
    assert std.item() == pytest.approx(train.values.double().std(correction=0).item(), abs=1e-6)


def test_values_lengths_and_order_are_drawn_from_streams_of_their_own(monkeypatch):
    """One stream for two would tie a row's place in an epoch to its values."""
    seeds = []

    def recorded(*key):
        generator = seeded_generator(*key)
        seeds.append(generator.initial_seed())
        return generator

    monkeypatch.setattr(synthetic, "seeded_generator", recorded)
    monkeypatch.setattr(loading, "seeded_generator", recorded)
    data = SyntheticDataModule(length=5, min_length=2, **SMALL)
    for name in SPLITS:
        data.split(name)
    assert len(seeds) == 6  # values and lengths of each
    sampler = data.train_dataloader().batch_sampler
    for epoch in range(4):
        sampler.set_epoch(epoch)
        next(iter(sampler.batches(0)))
    assert len(set(seeds)) == len(seeds) == 10


def test_fresh_makes_training_data_for_each_epoch():
    options = {"length": 9, "min_length": 2, "fresh": True, **SMALL}
    data, again, other = (SyntheticDataModule(**options, seed=seed) for seed in (0, 0, 1))
    epochs = [data.train_epoch(epoch).fingerprint() for epoch in (0, 1, 2)]
    assert len(set(epochs)) == 3
    assert data.train_epoch(0) is data.split("train")
    assert [again.train_epoch(epoch).fingerprint() for epoch in (2, 0, 1)] == [
        epochs[2],
        epochs[0],
        epochs[1],
    ]
    assert other.train_epoch(1).fingerprint() not in epochs
    assert (
        data.train_epoch(5).lengths.tolist() == data.split("train").lengths.tolist()
    )  # batches are planned by them
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(2)
    batch = next(iter(loader))
    assert torch.equal(batch.x, data.train_epoch(2).batch(batch.index).x)
    still = SyntheticDataModule(**options | {"fresh": False})
    assert still.train_epoch(3) is still.split("train")


def test_lengths_vary_evenly_where_asked():
    data = SyntheticDataModule(length=6, min_length=3, num_train=2000, task="delayed_recall")
    counts = data.split("train").lengths.bincount()
    assert counts[:4].tolist() == [0, 0, 0, 0]
    assert len(counts) == 8
    assert counts[4:].tolist() == pytest.approx([500] * 4, abs=80)
    assert data.split("val").lengths[:50].tolist() != data.split("train").lengths[:50].tolist()


def test_num_features_widens_the_tasks_that_allow_it():
    data = SyntheticDataModule(num_features=3, **SMALL)
    assert data.split("train").values.shape == (200, 3)
    assert data.schema.num_features == 3
    assert SyntheticDataModule(task="adding", num_features=2).schema.num_features == 2


def test_no_validation_part():
    data = SyntheticDataModule(num_val=0)
    assert data.val_dataloader() == []
    with pytest.raises(DataError, match=r"^val data: expected sequences, got none: num_val is 0$"):
        data._eval_loader("val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sorting"}, f"task: expected one of {', '.join(TASKS)}, got 'sorting'"),
        ({"length": 0}, "length: expected at least 1 for task sum_sign, got 0"),
        ({"task": "adding", "length": 1}, "length: expected at least 2 for task adding, got 1"),
        ({"task": "temporal_order", "length": 9}, "length: expected at least 10 for task "
         "temporal_order, got 9"),
        ({"min_length": 11}, "min_length: expected at least 1 and at most the length, 10, got 11"),
        ({"min_length": 0}, "min_length: expected at least 1 and at most the length, 10, got 0"),
        ({"num_features": 0}, "num_features: expected an integer of at least 1, got 0"),
        ({"task": "parity", "num_features": 2}, "num_features: expected 1 for task parity, got 2"),
        ({"num_train": 0}, "num_train: expected an integer of at least 1, got 0"),
        ({"num_val": -1}, "num_val: expected an integer of at least 0, got -1"),
        ({"num_test": 0}, "num_test: expected an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)  # fmt: skip
def test_synthetic_option_errors(options, message):
    with pytest.raises(OptionError) as caught:
        SyntheticDataModule(**options)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("data", [SyntheticDataModule(task="parity"), FileDataModule(**GUN)])
def test_settings_are_the_constructors_json_values(data):
    settings = data.settings
    assert data.state_dict()["settings"] == settings
    assert json.loads(json.dumps(settings)) == settings
    assert type(data)(**settings).settings == settings
    assert data.identity_settings <= set(settings)
    assert DATA_MODULES[type(data).__name__] is type(data)


@pytest.mark.parametrize("part", ["train", "val"])
def test_only_a_fit_on_other_data_is_refused(part):
    stored = SyntheticDataModule(**SMALL).state_dict()
    assert stored["fingerprints"][part] == SyntheticDataModule(**SMALL).split(part).fingerprint()
    for fn, options in (("fit", {f"num_{part}": 21}), ("fit", {"seed": 1}), ("test", {"seed": 1})):
        data = SyntheticDataModule(**SMALL | options)
        data.trainer = SimpleNamespace(state=SimpleNamespace(fn=fn))
        if fn == "fit":
            named = "train" if "seed" in options else part
            expected = "expected the sequences that the checkpoint was trained with, got "
            with pytest.raises(DataError, match=f"^{named} data: {expected}"):
                data.load_state_dict(stored)
        else:
            data.load_state_dict(stored)
            assert data.settings["seed"] == options["seed"]  # the user's


# files


def rows_in(part):
    return sorted(part.ids.tolist(), key=int)


def test_one_file_is_split():
    data = FileDataModule(**ITALY, val_fraction=0.2, test_fraction=0.1)
    file = read_file(ITALY["train_path"])
    parts = [data.split(name) for name in SPLITS]
    rows = [row for part in parts for row in rows_in(part)]
    assert sorted(rows, key=int) == [str(i) for i in range(67)]
    assert [len(part) for part in parts] == [47, 14, 6]  # of 34 and 33: 7 and 7, 3 and 3
    for part in parts:
        at = torch.tensor([int(i) for i in part.ids])
        assert [data.schema.class_names[code] for code in part.labels] == file.labels[at].tolist()
        assert part.values.data_ptr() == data.split("train").values.data_ptr()  # shared
        assert torch.equal(part.batch(torch.arange(len(part))).x, file.sequences.batch(at).x)
    again = FileDataModule(**ITALY, val_fraction=0.2, test_fraction=0.1)
    assert prints(again) == prints(data)
    other = FileDataModule(**ITALY, val_fraction=0.2, test_fraction=0.1, seed=1)
    assert rows_in(other.split("val")) != rows_in(data.split("val"))


def test_moments_and_counts_are_those_of_the_training_part_alone():
    data = FileDataModule(**ITALY)
    train = data.split("train")
    values = train.batch(torch.arange(len(train))).x.double().numpy()
    assert data.train_moments[0].item() == pytest.approx(values.mean(), abs=1e-6)
    assert data.train_moments[1].item() == pytest.approx(values.std(), abs=1e-6)
    assert data.train_class_counts.tolist() == np.bincount(train.labels).tolist()


def test_val_and_test_paths_are_taken_whole():
    test = str(FILES / "ItalyPowerDemand_TEST.ts")
    data = FileDataModule(
        **ITALY, val_path=test, test_path=test, val_fraction=0.9, test_fraction=0.9
    )
    assert [len(data.split(name)) for name in SPLITS] == [67, 1029, 1029]
    assert data.split("predict") is data.split("test")
    names = np.array(data.schema.class_names)
    assert names[data.split("test").labels.numpy()].tolist() == read_file(test).labels.tolist()


def test_labels_of_tsv_files_are_coded_in_order():
    data = FileDataModule(**GUN)
    assert data.schema == Schema(1, ["1", "2"], None)
    for name, path in (("train", GUN["train_path"]), ("test", GUN["test_path"])):
        first_cells = [line.split("\t")[0] for line in Path(path).read_text().splitlines()]
        assert data.split(name).labels.tolist() == [int(cell) - 1 for cell in first_cells]
    assert data.val_dataloader() == []


def test_positive_class_gets_code_1():
    data = FileDataModule(**GUN, positive_class="1")
    assert data.schema.class_names == ["2", "1"]
    assert data.split("test").labels.tolist() == [
        1 - code for code in FileDataModule(**GUN).split("test").labels
    ]


def test_many_classes_of_varying_length():
    data = FileDataModule(**VOWELS)
    assert data.schema == Schema(12, [str(k) for k in range(1, 10)], None)
    assert data.split("val").labels.bincount().tolist() == [1] * 9
    assert data.split("train").labels.bincount().tolist() == [4] * 9
    lengths = torch.cat([data.split("train").lengths, data.split("val").lengths])
    assert (int(lengths.min()), int(lengths.max())) == (10, 26)


@pytest.mark.parametrize(
    ("train", "expected"),
    [(1, 8), (67, 8), (255, 8), (256, 16), (600, 32), (1023, 32), (1024, 64), (5000, 64)],
)
def test_batch_size_is_a_sixteenth_of_the_training_part(tmp_path, train, expected):
    path = tmp_path / "x.npz"
    np.savez(path, X=np.zeros((train + 1, 2)), y=np.arange(train + 1) % 2)
    data = FileDataModule(train_path=str(path), val_fraction=0.0)
    data._splits["train"] = data.split("train").select(torch.arange(train))
    assert data.batch_size == expected
    assert len(next(iter(data.train_dataloader())).x) == min(expected, train)
    assert FileDataModule(train_path=str(path), batch_size=5).batch_size == 5


def write_long(path, n=20, label="up"):
    lines = ["id,time,a,b,person,label"]
    for i in range(n):
        lines += [f"s{i},{t},{i + t},{-i},p{i // 4},{label if i % 2 else 'down'}" for t in (1, 0)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


LONG = {"id_column": "id", "time_column": "time", "group_column": "person"}


def test_group_column_keeps_a_persons_sequences_together(tmp_path):
    path = write_long(tmp_path / "x.csv")
    data = FileDataModule(train_path=path, **LONG, val_fraction=0.2, test_fraction=0.2)
    people = [set(data.split(name).groups.tolist()) for name in SPLITS]
    assert sorted(map(len, people)) == [1, 1, 3]
    assert set.union(*people) == {f"p{i}" for i in range(5)}
    assert data.schema == Schema(2, ["down", "up"], ["a", "b"])
    train = data.split("train")
    batch = train.batch(torch.tensor([0]))
    number = int(train.ids[0][1:])
    assert batch.x.tolist() == [[[number, -number], [number + 1, -number]]]  # ordered by time


def test_other_files_need_the_training_files_features(tmp_path):
    train, test = write_long(tmp_path / "train.csv"), tmp_path / "test.csv"
    test.write_text("id,time,b,a,person,label\ns,0,1,2,p,up\ns,1,3,4,p,up\n")
    data = FileDataModule(train_path=train, test_path=str(test), **LONG)
    assert data.split("test").values.tolist() == [[2, 1], [4, 3]]  # by name, not by place
    test.write_text("id,time,a,person,label\ns,0,1,p,up\n")
    with pytest.raises(
        DataError,
        match=r"test\.csv: expected the features 'a', 'b', got no feature 'b'",
    ):
        FileDataModule(train_path=train, test_path=str(test), **LONG).split("test")


def test_prediction_needs_no_labels(tmp_path):
    predict = tmp_path / "predict.csv"
    predict.write_text("id,time,a,b\nx,0,1,2\ny,0,3,4\n")
    data = FileDataModule(
        train_path=write_long(tmp_path / "x.csv"), predict_path=str(predict), **LONG
    )
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch.y is None
    assert batch.x.tolist() == [[[1, 2]], [[3, 4]]]
    assert data.split("predict").ids.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\t0.5\n3\t0.5\n", "sequence '1': expected a label seen in training (1, 2), got '3'"),
        ("0\t0.5\n1\t0.5\n", "sequence '0': expected a label seen in training (1, 2), got '0'"),
    ],
)
def test_unseen_label_is_refused(tmp_path, content, message):
    path = tmp_path / "test.tsv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        FileDataModule(**GUN | {"test_path": str(path)}).split("test")
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("option", ["val_path", "test_path", "predict_path"])
def test_another_width_is_refused(option):
    data = FileDataModule(**ITALY, **{option: VOWELS["train_path"]})
    with pytest.raises(DataError) as caught:
        data.split(option.removesuffix("_path"))
    found = f"{VOWELS['train_path']}: expected 1 feature per step, as in training, got 12"
    assert str(caught.value) == found


def test_one_class_only_is_refused(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("1\t0.5\n1.0\t0.25\n")
    with pytest.raises(DataError) as caught:
        FileDataModule(train_path=str(path)).setup("fit")
    assert str(caught.value) == f"{path}: expected at least two classes, got only '1'"


@pytest.mark.parametrize(("options", "positive"), [(GUN, "9"), (VOWELS, "1")])
def test_positive_class_must_be_one_of_two(options, positive):
    with pytest.raises(DataError) as caught:
        FileDataModule(**options, positive_class=positive).read_schema()
    classes = "1, 2" if options is GUN else "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert str(caught.value) == (
        f"{options['train_path']}: expected two classes, one of them the positive_class "
        f"'{positive}', got {classes}"
    )


def test_a_split_that_cannot_be_names_the_file_and_the_class(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("sick\t1\n" + "well\t1\n" * 5)
    with pytest.raises(DataError) as caught:
        FileDataModule(train_path=str(path)).split("train")
    assert str(caught.value).startswith(
        f"{path}: train split: expected every class, got no sequence of class 'sick': "
    )


def test_a_split_without_training_names_the_file():
    with pytest.raises(DataError) as caught:
        FileDataModule(**VOWELS, val_fraction=0.5, test_fraction=0.45).split("train")
    assert str(caught.value).startswith(f"{VOWELS['train_path']}: train split: expected ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction: expected a number from 0 to below 1, got 1.0"),
        ({"test_fraction": -0.1}, "test_fraction: expected a number from 0 to below 1, got -0.1"),
        (
            {"val_fraction": 0.5, "test_fraction": 0.5},
            "val_fraction and test_fraction: expected a sum below 1, got 1.0",
        ),
        ({"num_folds": 1}, "num_folds: expected an integer of at least 2, got 1"),
        ({"num_folds": 3, "fold": 3}, "fold: expected an integer from 0 to 2, got 3"),
        (
            {"num_folds": 3, "test_fraction": 0.1},
            "test_fraction: expected 0, as a fold is tested, got 0.1",
        ),
        ({"num_folds": 3, "test_path": "x.csv"}, "test_path: expected None, as a fold is tested"),
        (
            {"num_folds": 2, "val_fraction": 0.5},
            "val_fraction and test_fraction: expected a sum below 1, got 1.0",
        ),
        ({"test_path": 3}, "test_path: expected list or str or None, got 3"),
        ({"val_fraction": "0.2"}, "val_fraction: expected float, got '0.2'"),
        ({"stratify": 1}, "stratify: expected bool, got 1"),
        ({"id_column": 0}, "id_column: expected str or None, got 0"),
        ({"feature_columns": "x"}, "feature_columns: expected list or None, got 'x'"),
        ({"missing_values": ["-9"]}, "missing_values: expected finite float32 numbers, got ['-9']"),
        ({"window_length": 2.5}, "window_length: expected int or None, got 2.5"),
        ({"window_label": "first"}, "window_label: expected one of last, majority, any, got"),
        ({"separator": ";;"}, "separator: expected one ASCII character, got ';;'"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)  # fmt: skip
def test_file_option_errors(options, message):
    with pytest.raises(OptionError) as caught:
        FileDataModule(**ITALY, **options)
    assert str(caught.value).startswith(message)


def test_paths_may_be_path_objects():
    data = FileDataModule(train_path=Path(GUN["train_path"]))
    assert data.settings["train_path"] == GUN["train_path"]


def test_a_missing_file_or_part_is_named():
    with pytest.raises(OptionError, match=r"^train_path: expected a file, got None$"):
        FileDataModule().setup("fit")
    reason = "test_path is not given and test_fraction is 0"
    with pytest.raises(DataError, match=f"^test data: expected sequences, got none: {reason}$"):
        FileDataModule(**ITALY).test_dataloader()
    with pytest.raises(
        DataError,
        match=r"^predict data: expected sequences, got none: predict_path is not given and ",
    ):
        FileDataModule(**ITALY).predict_dataloader()


def test_paths_become_absolute(monkeypatch):
    monkeypatch.chdir(FILES)
    data = FileDataModule(train_path="GunPoint_slice_TRAIN.tsv")
    assert data.settings["train_path"] == GUN["train_path"]
    assert data.settings["test_path"] is None


def test_evaluation_batches_hold_every_sequence_once():
    data = FileDataModule(**GUN)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(20))
