"""Step by step gives what the whole sequence so far gives."""

from functools import cache
from itertools import product

import networks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn import OnnxClassifier, SequenceClassifier, StreamingClassifier, export_onnx
from lightning_rnn.errors import DataError, OptionError

COMBINATIONS = list(
    product(
        ("rnn", "lstm", "gru", "mingru"), (1, 2), ("last", "mean", "max"), ("none", "conv"), (2, 3)
    )
) + list(product(("lstm", "mingru"), (1, 2), ("last", "mean", "max"), ("inception",), (2, 3)))


def network(**options):
    return networks.network(**options).eval()


@torch.inference_mode()
def whole(net, x):
    """Return the probabilities after each step of a sequence (T, F), from the sequence so far."""
    steps = len(x)
    logits = net(torch.from_numpy(x).expand(steps, -1, -1), torch.arange(1, steps + 1))
    return net.decision.probabilities(logits).numpy()


def values(rng, *shape):
    return np.where(rng.random(shape) < 0.3, np.nan, rng.normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize(("cell", "num_layers", "pooling", "stem", "num_classes"), COMBINATIONS)
def test_streaming_equals_batch(cell, num_layers, pooling, stem, num_classes):
    net = network(
        cell=cell, num_layers=num_layers, pooling=pooling, stem=stem, num_classes=num_classes
    )
    x = values(np.random.default_rng(0), 3, 30, 2)
    stream = StreamingClassifier(net)
    found = np.stack([stream.update("abc", x[:, t]) for t in range(30)], axis=1)
    for row, sequence in zip(found, x, strict=True):
        np.testing.assert_allclose(row, whole(net, sequence), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["network", "file"])
@given(data=st.data())
@settings(max_examples=15)
def test_sequences_come_and_go_in_any_order(kind, data, nets):
    net, file = nets
    stream = StreamingClassifier(net if kind == "network" else file)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    seen: dict[int, np.ndarray] = {}
    for _ in range(data.draw(st.integers(1, 8))):
        ids = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
        steps = [values(rng, data.draw(st.integers(1, 9)), 2) for _ in ids]
        found = stream.update(ids, steps)
        for name, new, probability in zip(ids, steps, found, strict=True):
            seen[name] = np.concatenate([seen[name], new]) if name in seen else new
            np.testing.assert_allclose(probability, whole(net, seen[name])[-1], rtol=0, atol=1e-6)
        gone = [name for name in ids if data.draw(st.booleans())]
        stream.forget(gone)
        for name in gone:
            del seen[name]
        assert len(stream) == len(seen)


MAGNITUDES = st.floats(-38, 38.5).map(lambda power: 10.0**power)


@pytest.mark.parametrize(
    ("cell", "stem", "pooling"),
    [
        ("rnn", "none", "last"),
        ("lstm", "conv", "mean"),
        ("gru", "none", "max"),
        ("mingru", "none", "mean"),
        ("mingru", "conv", "last"),
    ],
)
@given(data=st.data())
@settings(max_examples=8)
def test_all_finite_values_give_the_same_everywhere(cell, stem, pooling, data, exported):
    model, whole_file, stream_file = exported(cell, stem, pooling)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    x = [values(rng, length, 2) for length in (1, 9, 30)]
    for sequence in x:
        for _ in range(data.draw(st.integers(0, 4))):
            place = tuple(rng.integers(sequence.shape))
            sign = data.draw(st.sampled_from([-1, 1]))
            sequence[place] = sign * data.draw(MAGNITUDES)
        sequence[-1] = data.draw(st.sampled_from([0.5, -9999.0, np.nan]))  # an end to cut off
    expected = model.predict_proba(x)
    assert np.isfinite(expected).all()
    found = [OnnxClassifier(whole_file).predict_proba(x)]
    known = [np.isfinite(sequence) & (sequence != -9999) for sequence in x]
    ends = [max(1, np.append(np.flatnonzero(rows.any(1)), 0).max() + 1) for rows in known]
    cut = [sequence[:end] for sequence, end in zip(x, ends, strict=True)]
    for stream in (stream_file, model.network):
        found.append(StreamingClassifier(stream).update("abc", cut))
    for probabilities in found:
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns a model with a mark for missing values, and its two files."""

    @cache
    def export(cell, stem, pooling):
        torch.manual_seed(0)
        options = {"cell": cell, "stem": stem, "pooling": pooling, "hidden_size": 4}
        model = SequenceClassifier(
            input_size=2, num_classes=2, missing_values=[-9999.0], **options
        ).eval()
        model.network.preprocess.set_moments(torch.tensor([5.0, 1e6]), torch.tensor([0.1, 1e3]))
        folder = tmp_path_factory.mktemp("export")
        files = [folder / "model.onnx", folder / "step.onnx"]
        for file in files:
            streaming = file.name == "step.onnx"
            export_onnx(model.network, file, class_names=["a", "b"], streaming=streaming)
        return model, *files

    return export


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    net = network(cell="lstm", stem="conv", pooling="mean", num_layers=2)
    file = tmp_path_factory.mktemp("step") / "step.onnx"
    export_onnx(net, file, class_names=["a", "b", "c"], streaming=True)
    return net, file


@pytest.mark.parametrize(("cell", "pooling"), [("mingru", "max"), ("lstm", "mean")])
def test_nothing_is_lost_over_thousands_of_steps(cell, pooling):
    net = network(cell=cell, pooling=pooling)
    x = values(np.random.default_rng(1), 3000, 2)
    stream = StreamingClassifier(net)
    size = None
    for start in range(0, 3000, 500):
        found = stream.update(["one"], [x[start : start + 500]])
        with torch.inference_mode():
            logits = net(torch.from_numpy(x[None, : start + 500]), torch.tensor([start + 500]))
        np.testing.assert_allclose(
            found, net.decision.probabilities(logits).numpy(), rtol=0, atol=1e-6
        )
        memory = sum(part.nbytes for part in stream._state)
        assert size in (None, memory)  # constant
        size = memory


def test_what_cannot_be_taken_changes_nothing():
    net = network()
    stream = StreamingClassifier(net)
    first = np.ones((1, 2), np.float32)
    stream.update(["a"], first)
    for ids, x, message in (
        (["a", "a"], np.ones((2, 2)), "got 2, 1 of them different, for 2 sequences$"),
        (["a", "b"], np.ones((1, 2)), "got 2, 2 of them different, for 1 sequence$"),
        ([], np.ones((0, 2)), "^ids: expected one different id for each sequence, got 0, "),
        (
            ["b", "a"],
            [[1.0, 2.0], [1.0, np.inf]],
            r"^x\[1\]: expected finite .*, got an infinite value$",
        ),
        (["a"], np.ones((1, 3)), r"^x\[0\]: expected shape .*, got \(1, 3\)$"),
        (["a"], [np.ones((0, 2))], r"^x\[0\]: expected shape .*, got \(0, 2\)$"),
        (["a"], [["x", "y"]], "expected numbers, got dtype"),
        (["a"], np.ma.masked_array(first, mask=True), "^x: expected no masked array"),
        (
            ["a"],
            [[[1, 2], [3]]],
            r"^x\[0\]: expected a rectangular array, got nested lists of different lengths$",
        ),
        (
            ["a", "b"],
            [[1, 2], [1, [2]]],
            r"^x\[1\]: expected a rectangular array, got nested lists of different lengths",
        ),
        (
            np.array([], dtype=str),
            np.ones((0, 2)),
            "^ids: expected one different id for each sequence, got 0, ",
        ),
    ):
        with pytest.raises(DataError, match=message):
            stream.update(ids, x)
    for unknown in (["z"], np.array(["z"])):
        with pytest.raises(DataError, match=r"^ids: expected a sequence that has begun, got 'z'$"):
            stream.forget(unknown)
    assert len(stream) == 1
    np.testing.assert_allclose(
        stream.update(["a"], first)[0], whole(net, np.ones((2, 2), np.float32))[-1], atol=1e-6
    )


def test_ids_may_be_an_array():
    x = np.array([[0.3, 1.0], [-0.4, np.nan]], np.float32)
    for ids in (np.array(["ward 3", "ward 7"]), np.arange(2)):
        stream = StreamingClassifier(network())
        expected = StreamingClassifier(network()).update(ids.tolist(), x)
        np.testing.assert_array_equal(stream.update(ids, x), expected)
        stream.forget(ids[:1])
        np.testing.assert_array_equal(
            stream.update(ids[:1].tolist(), x[:1]), expected[:1]
        )  # begun anew
        assert len(stream) == 2


def test_names_and_description(nets):
    net, file = nets
    stream = StreamingClassifier(file)
    stream.update(["p", "q"], np.ones((2, 2)))
    expected = "StreamingClassifier(num_features=2, class_names=['a', 'b', 'c'], sequences=2)"
    assert repr(stream) == expected
    assert StreamingClassifier(net).class_names == ["0", "1", "2"]


def test_two_way_models_are_refused():
    with pytest.raises(OptionError, match="bidirectional: expected False for streaming, got True"):
        StreamingClassifier(network(bidirectional=True))


def test_a_file_of_whole_sequences_is_refused(tmp_path):
    file = tmp_path / "model.onnx"
    export_onnx(network(), file, class_names=["a", "b", "c"])
    with pytest.raises(
        DataError, match="expected a file for single steps, got a file for whole sequences"
    ):
        StreamingClassifier(file)


def test_the_network_may_be_trained_on():
    net = network().train()
    stream = StreamingClassifier(net)
    before = stream.update(["a"], np.ones((1, 2)))
    torch.nn.init.zeros_(net.head.weight)
    np.testing.assert_array_equal(before, stream.update(["b"], np.ones((1, 2))))
    assert net.training
