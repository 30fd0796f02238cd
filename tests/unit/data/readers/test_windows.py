"""Windows of recordings, against a slow and readable reference."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data.file_module import FileDataModule
from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.errors import DataError, OptionError

COLUMNS = ("id_column", "label_column", "group_column")


def write_recordings(path, recordings):
    """Write a long table of (value, label) steps of each recording; None is a missing value."""
    lines = ["name,x,state"]
    for name, steps in recordings.items():
        for value, state in steps:
            lines.append(f"{name},{'' if value is None else value},{state}")
    path.write_text("\n".join(lines))


def reference_label(states, rule, positive):
    if rule == "last":
        return states[-1]
    if rule == "any" and positive in states:
        return positive
    counts = Counter(states)
    return min(counts, key=lambda name: (-counts[name], name))


def reference_windows(recordings, length, stride, rule, positive):
    """Return (id, group, values, label) of each window."""
    found = []
    for name, steps in recordings.items():
        end = max([1, *(i + 1 for i, (value, _) in enumerate(steps) if value is not None)])
        starts = [0]
        while starts[-1] + stride + length <= end:
            starts.append(starts[-1] + stride)
        for start in starts:
            part = steps[start : min(start + length, end)]
            label = reference_label([state for _, state in part], rule, positive)
            values = [value for value, _ in part]
            while len(values) > 1 and values[-1] is None:
                values.pop()
            found.append((f"{name}:{start}", name, values, label))
    return found


def as_tuples(contents):
    sequences = contents.sequences
    found = []
    for i, label in enumerate(contents.labels):
        start = int(sequences.offsets[i])
        values = sequences.values[start : start + int(sequences.lengths[i])].flatten().tolist()
        values = [None if np.isnan(value) else value for value in values]
        found.append((sequences.ids[i], sequences.groups[i], values, label))
    return found


STEPS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 9)), st.sampled_from("012")),
    min_size=1,
    max_size=14,
)


@settings(max_examples=40)
@given(
    recordings=st.dictionaries(st.sampled_from("pqr"), STEPS, min_size=1),
    length=st.integers(1, 6),
    stride=st.one_of(st.none(), st.integers(1, 7)),
    rule=st.sampled_from(["last", "majority", "any"]),
)
def test_windows_are_those_of_the_reference(tmp_path_factory, recordings, length, stride, rule):
    folder = tmp_path_factory.mktemp("windows")
    if rule == "any":  # of two classes
        for name, steps in recordings.items():
            recordings[name] = [(value, min(state, "1")) for value, state in steps]
    write_recordings(folder / "a.csv", recordings)
    options = {
        "id_column": "name",
        "label_column": "state",
        "window_length": length,
        "window_stride": stride,
        "window_label": rule,
        "positive_class": "1",
    }
    contents = read_file(folder / "a.csv", ReadOptions(**options))
    expected = reference_windows(recordings, length, stride or length, rule, "1")
    assert as_tuples(contents) == expected
    pack(input=str(folder / "a.csv"), output=str(folder / "packed"), **options)
    # the windows of a packed folder stay in the group of their recording, asked for or not
    of_windows = {name: options[name] for name in options if name not in COLUMNS}
    assert as_tuples(read_file(folder / "packed", ReadOptions(**of_windows))) == expected
    for name, other in (("window_length", None), ("window_length", 9), ("window_stride", 9)):
        others = of_windows | {name: other}
        if others["window_length"] is None:
            others = {}
        with pytest.raises(DataError, match=f"packed: {name}: expected .*, as given to pack"):
            read_file(folder / "packed", ReadOptions(**others))


def test_windows_of_arrays_have_the_label_of_their_sequence(tmp_path):
    x = np.arange(12.0).reshape(2, 6)
    np.savez(tmp_path / "a.npz", X=x, y=["u", "v"], ids=["p", "q"])
    options = ReadOptions(window_length=4, window_stride=2)
    assert as_tuples(read_file(tmp_path / "a.npz", options)) == [
        ("p:0", "p", [0, 1, 2, 3], "u"),
        ("p:2", "p", [2, 3, 4, 5], "u"),
        ("q:0", "q", [6, 7, 8, 9], "v"),
        ("q:2", "q", [8, 9, 10, 11], "v"),
    ]


@pytest.mark.parametrize("positive", ["Fault", "1"])
def test_a_positive_class_that_is_not_there_is_refused(tmp_path, positive):
    path = tmp_path / "a.csv"
    write_recordings(path, {"r": [(step, "fine") for step in range(6)] + [(7, "fault")]})
    options = {"id_column": "name", "label_column": "state", "window_length": 2}
    options |= {"window_label": "any", "positive_class": positive}
    message = f"expected two classes, one of them the positive_class '{positive}', got fault, fine"
    with pytest.raises(DataError, match=message):
        read_file(path, ReadOptions(**options))
    with pytest.raises(DataError, match=message):
        pack(input=str(path), output=str(tmp_path / "packed"), **options)
    write_recordings(path, {"r": [(step, "fine") for step in range(6)]})  # a file to test
    assert read_file(path, ReadOptions(**options)).labels.tolist() == ["fine"] * 3


def test_groups_of_the_file_contain_the_recordings(tmp_path):
    (tmp_path / "a.csv").write_text("id,who,x,label\np,A,1,u\nq,A,2,v\np,A,3,v\nq,A,4,u\n")
    options = {"id_column": "id", "group_column": "who", "window_length": 1}
    contents = read_file(tmp_path / "a.csv", ReadOptions(**options))
    assert contents.sequences.groups.tolist() == ["A"] * 4
    pack(input=str(tmp_path / "a.csv"), output=str(tmp_path / "packed"), **options)
    packed = read_file(tmp_path / "packed", ReadOptions(window_length=1))
    assert packed.sequences.groups.tolist() == ["A"] * 4


def test_no_recording_is_in_two_splits(tmp_path):
    recordings = {f"r{i}": [(step, "ab"[step % 2]) for step in range(40)] for i in range(12)}
    write_recordings(tmp_path / "a.csv", recordings)
    data = FileDataModule(
        train_path=str(tmp_path / "a.csv"),
        id_column="name",
        label_column="state",
        window_length=9,
        window_stride=3,
        test_fraction=0.25,
    )
    found = [set(data.split(name).groups) for name in ("train", "val", "test")]
    assert sum(map(len, found)) == len(set.union(*found)) == 12
    assert sum(len(data.split(name)) for name in ("train", "val", "test")) == 12 * 11


def test_one_recording_cannot_be_split(tmp_path):
    write_recordings(tmp_path / "a.csv", {"r": [(step, step % 2) for step in range(40)]})
    options = {"id_column": "name", "label_column": "state", "window_length": 3}
    data = FileDataModule(train_path=str(tmp_path / "a.csv"), **options)
    with pytest.raises(DataError, match="val split: expected at least one sequence, got none"):
        data.split("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_length": 0}, "window_length: expected an integer of at least 1, got 0"),
        ({"window_stride": -1}, "window_stride: expected an integer of at least 1, got -1"),
        ({"window_stride": 2}, "window_stride: expected also a window_length, got 2"),
        ({"window_label": "any"}, "window_label: expected also a positive_class, got any"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(OptionError, match=message):
        ReadOptions(**options)
