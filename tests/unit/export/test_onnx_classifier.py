"""The runtime without the training stack."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn import (
    OnnxClassifier,
    SequenceClassifier,
    SequenceNetwork,
    StreamingClassifier,
    export_onnx,
    read_file,
)
from lightning_rnn.errors import DataError
from lightning_rnn.export import onnx_classifier
from lightning_rnn.export.onnx_metadata import METADATA_KEY, with_digest
from lightning_rnn.models.network import NetworkOptions

ROOT = Path(__file__).parents[3]
VOWELS = ROOT / "tests/files/JapaneseVowels_slice_TEST.ts"


def exported(folder, **options):
    """A classifier and its file."""
    torch.manual_seed(0)
    model = SequenceClassifier(
        **{"input_size": 2, "num_classes": 2, "hidden_size": 6} | options
    ).eval()
    with torch.no_grad():
        model.network.preprocess.set_moments(
            torch.full((model.schema.num_features,), 0.3),
            torch.full((model.schema.num_features,), 1.7),
        )
    model.network.decision.set(1.4, 0.45 if model.network.num_classes == 2 else 0.5)
    path = folder / "model.onnx"
    schema = model.schema
    export_onnx(
        model.network, path, class_names=schema.class_names, feature_names=schema.feature_names
    )
    return model, path


def ragged(n, num_features=2, seed=0):
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=(rng.integers(1, 40), num_features)) for _ in range(n)]
    for row in rows:
        row[rng.random(row.shape) < 0.2] = np.nan
    rows[0][len(rows[0]) // 2 :] = np.nan  # an end without values
    rows[1][:] = np.nan
    return rows


def test_it_predicts_what_the_checkpoint_predicts(tmp_path, monkeypatch):
    for num_classes in (2, 3):
        names = ["up", "down", "left"][:num_classes]
        model, path = exported(
            tmp_path, num_classes=num_classes, class_names=names, feature_names=["p", "q"]
        )
        classifier, rows = OnnxClassifier(path), ragged(60)
        expected = model.predict_proba(rows)
        np.testing.assert_allclose(classifier.predict_proba(rows), expected, rtol=0, atol=1e-5)
        decided = expected > 0.45 if num_classes == 2 else expected.argmax(1)
        predicted = classifier.predict(rows)
        assert isinstance(predicted, np.ndarray)
        assert predicted.tolist() == [names[int(code)] for code in decided]
        monkeypatch.setattr(onnx_classifier, "MAX_BATCH_STEPS", 50)  # many batches
        np.testing.assert_allclose(classifier.predict_proba(rows), expected, rtol=0, atol=1e-5)
        block = np.stack([row[:1] for row in rows])
        np.testing.assert_allclose(
            classifier.predict_proba(block), model.predict_proba(block), rtol=0, atol=1e-5
        )
        assert (classifier.class_names, classifier.feature_names, classifier.num_features) == (
            names,
            ["p", "q"],
            2,
        )
        assert classifier.temperature == pytest.approx(1.4)
        assert classifier.threshold == pytest.approx(0.45 if num_classes == 2 else 0.5)


def test_the_predicted_class_follows_the_fitted_threshold(tmp_path):
    model, path = exported(tmp_path)
    x = np.random.default_rng(0).normal(size=(50, 4, 2))
    probabilities = OnnxClassifier(path).predict_proba(x)
    threshold = float(np.median(probabilities))
    model.network.decision.set(1.4, threshold)
    export_onnx(model.network, path, class_names=["no", "yes"])
    above = OnnxClassifier(path).predict_proba(x) > np.float32(threshold)
    assert OnnxClassifier(path).predict(x).tolist() == np.where(above, "yes", "no").tolist()
    assert 20 <= above.sum() <= 30


def test_it_describes_itself(tmp_path):
    _, path = exported(tmp_path, num_classes=3, class_names=["a", "b", "c"])
    expected = f"OnnxClassifier({str(path)!r}, num_features=2, class_names=['a', 'b', 'c'])"
    assert repr(OnnxClassifier(path)) == expected


def test_one_feature_needs_no_axis(tmp_path):
    model, path = exported(tmp_path, input_size=1)
    rows = [np.arange(5.0), np.arange(2)]
    np.testing.assert_allclose(
        OnnxClassifier(path).predict_proba(rows), model.predict_proba(rows), rtol=0, atol=1e-5
    )


def test_what_cannot_be_used(tmp_path):
    classifier = OnnxClassifier(exported(tmp_path)[1])
    for x, message in (
        ([], "^x: expected at least one sequence, got none$"),
        (
            np.ones((3, 2)),
            r"^x: expected shape \(N, T, 2\) or a list of arrays, got shape \(3, 2\)$",
        ),
        (
            [np.ones((3, 2)), np.ones((3, 1))],
            r"^x\[1\]: expected shape \(T, 2\) with T of at least 1, got \(3, 1\)$",
        ),
        ([np.ones((0, 2))], r"^x\[0\]: expected shape .*, got \(0, 2\)$"),
        ([np.ones(2)], r"^x\[0\]: expected shape .*, got \(2,\)$"),
        ([[[1.0, np.inf]]], r"^x\[0\]: expected finite float32 numbers.*, got an infinite value$"),
        ([[[1e300, 0.0]]], r"^x\[0\]: expected finite float32 numbers.*, got an infinite value$"),
        ([[["a", "b"]]], r"^x\[0\]: expected numbers, got dtype <U1$"),
        (np.ma.masked_array(np.ones((1, 3, 2)), mask=True), "^x: expected no masked array"),
        (
            [[[1, 2]], [[1, 2], [3]]],
            r"^x\[1\]: expected a rectangular array, got nested lists of different lengths$",
        ),
    ):
        with pytest.raises(DataError, match=message):
            classifier.predict_proba(x)


def test_files_that_cannot_be_used(tmp_path):
    import onnx

    model, path = exported(tmp_path)
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:100])
    foreign = onnx.load(path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    schema = model.schema
    export_onnx(
        model.network, tmp_path / "step.onnx", class_names=schema.class_names, streaming=True
    )
    for name, message in (
        ("none.onnx", "got no such file"),
        (".", "got no such file"),
        ("cut.onnx", "expected a file as written by export_onnx, got one that is damaged"),
        ("foreign.onnx", "expected a file as written by export_onnx, got one that is damaged"),
        ("step.onnx", "expected a file for whole sequences, got a file for single steps"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            OnnxClassifier(tmp_path / name)
        assert str(raised.value).startswith(f"{tmp_path / name}: ")


def test_no_flipped_bit_is_read(tmp_path):
    _, path = exported(tmp_path)
    content = path.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(content), 200, replace=False).tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="got one that is damaged, changed"):
            OnnxClassifier(path)
    path.write_bytes(content)
    OnnxClassifier(path)


GOOD_METADATA = {
    "version": "1",
    "class_names": ["a", "b"],
    "feature_names": ["p", "q"],
    "categories": {},
    "num_features": 2,
    "missing_values": [-9.0],
    "temperature": 1.4,
    "threshold": 0.45,
    "streaming": False,
}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        "text",
        {},
        GOOD_METADATA | {"more": 1},
        GOOD_METADATA | {"class_names": ["a", "b", "c"]},
        GOOD_METADATA | {"class_names": "ab"},
        GOOD_METADATA | {"class_names": [1, 2]},
        GOOD_METADATA | {"feature_names": ["a"]},
        GOOD_METADATA | {"categories": None},
        GOOD_METADATA | {"categories": {"r": ["x"]}},
        GOOD_METADATA | {"categories": {"q": []}},
        GOOD_METADATA | {"categories": {"q": 3}},
        GOOD_METADATA | {"categories": {"q": [3]}},
        GOOD_METADATA | {"num_features": 3},
        GOOD_METADATA | {"missing_values": 3},
        GOOD_METADATA | {"missing_values": ["x"]},
        GOOD_METADATA | {"temperature": 0},
        GOOD_METADATA | {"temperature": float("nan")},
        GOOD_METADATA | {"threshold": "x"},
        GOOD_METADATA | {"threshold": 2.0},
        GOOD_METADATA | {"version": None},
        GOOD_METADATA | {"streaming": "no"},
    ],
)
def test_crafted_metadata_is_refused(tmp_path, crafted, metadata):
    with pytest.raises(DataError, match=r"expected a file as written by export_onnx, got ['\"]"):
        OnnxClassifier(crafted(metadata))
    assert OnnxClassifier(crafted(GOOD_METADATA)).threshold == 0.45


def test_a_crafted_graph_that_cannot_be_computed(tmp_path):
    import onnx

    _, path = exported(tmp_path)
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "Div").op_type = "Gather"
    path.write_bytes(with_digest(model.SerializeToString()))
    with pytest.raises(DataError, match="expected a file as written by export_onnx, got"):
        OnnxClassifier(path).predict_proba(ragged(3))


@pytest.fixture
def crafted(tmp_path):
    """Write a file with any metadata and a valid digest."""
    import onnx

    _, path = exported(tmp_path)
    model = onnx.load(path)

    def write(metadata):
        onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
        path.write_bytes(with_digest(model.SerializeToString()))
        return path

    return write


WITHOUT_TORCH = """
import sys
for name in ("torch", "lightning", "polars", "sklearn", "onnx"):
    sys.modules[name] = None
import numpy as np
from lightning_rnn import OnnxClassifier, StreamingClassifier
from lightning_rnn.export import onnx_classifier, streaming
stored = np.load("rows.npz")
rows = [stored[f"arr_{i}"] for i in range(len(stored.files) - 1)]
found = OnnxClassifier("model.onnx").predict_proba(rows)
np.testing.assert_allclose(found, stored["expected"], rtol=0, atol=1e-5)
stream = StreamingClassifier("step.onnx")
found = stream.update(range(len(rows)), rows)
np.testing.assert_allclose(found, stored["expected"], rtol=0, atol=1e-5)
print(len(rows), "predicted")
"""


def place_example(folder):
    """Write exported models, the sequences of an example file and PyTorch's predictions."""
    rows = read_file(VOWELS).sequences
    arrays = [rows.batch(torch.tensor([i])).x[0].numpy() for i in range(len(rows))]
    model, path = exported(
        folder, input_size=12, num_classes=9, cell="lstm", hidden_size=16, stem="conv"
    )
    export_onnx(
        model.network,
        path.with_name("step.onnx"),
        class_names=model.schema.class_names,
        streaming=True,
    )
    np.savez(folder / "rows.npz", *arrays, expected=model.predict_proba(arrays))
    return len(arrays)


def test_neither_torch_nor_lightning_is_imported(tmp_path, run_apart):
    n = place_example(tmp_path)
    result = run_apart("-c", WITHOUT_TORCH, cwd=tmp_path, module=None)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{n} predicted\n"


@pytest.mark.slow
def test_the_wheel_alone_predicts_with_numpy_and_onnxruntime(tmp_path):
    n = place_example(tmp_path)
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(
        ROOT / "lightning_rnn", copy / "lightning_rnn", ignore=shutil.ignore_patterns("__pycache__")
    )
    quiet = {"check": True, "capture_output": True, "timeout": 280}
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, copy], **quiet)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--constraint", ROOT / "constraints.txt", "numpy", "onnxruntime"], **quiet
    )
    subprocess.run([*pip, "--no-deps", wheel], **quiet)
    missing = subprocess.run([python, "-c", "import torch"], cwd=tmp_path, capture_output=True)
    assert missing.returncode != 0
    done = subprocess.run(
        [python, "-c", WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{n} predicted\n")


@given(seed=st.integers(0, 2**31), num_features=st.integers(1, 3))
@settings(max_examples=15)
def test_sequences_together_are_predicted_as_alone(seed, num_features, tmp_path_factory):
    """With other lengths, types, marks of missing values and sizes of batches."""
    rng = np.random.default_rng(seed)
    options = NetworkOptions(hidden_size=3)
    torch.manual_seed(seed)
    network = SequenceNetwork(input_size=num_features, num_classes=3, options=options)
    path = tmp_path_factory.mktemp("together") / "model.onnx"
    export_onnx(network.eval(), path, class_names=["a", "b", "c"])
    sequences = []
    for length in rng.integers(1, 12, size=rng.integers(1, 9)):
        sequence = rng.normal(size=(length, num_features)).astype(rng.choice(["f4", "f8"]))
        sequence[rng.random(length) < 0.3] = rng.choice([np.nan, -9.0])
        sequences.append(sequence)
    classifier = OnnxClassifier(path)
    classifier.missing_values = np.array([-9.0], np.float32)
    with patch("lightning_rnn.export.onnx_classifier.MAX_BATCH_STEPS", int(rng.integers(1, 40))):
        found = classifier.predict_proba(sequences)
    for sequence, probabilities in zip(sequences, found, strict=True):
        stop = len(sequence)
        while stop > 1 and (np.isnan(sequence[stop - 1]) | (sequence[stop - 1] == -9)).all():
            stop -= 1
        alone = classifier.predict_proba([sequence[:stop]])[0]
        np.testing.assert_allclose(probabilities, alone, atol=1e-6)


def test_categories_that_are_numbers_are_names_in_every_array(tmp_path):
    torch.manual_seed(0)
    network = SequenceNetwork(input_size=2, num_classes=2, category_sizes=[0, 3]).eval()
    names = {"feature_names": ["speed", "gear"], "categories": {"gear": ["1", "2", "5"]}}
    x = np.array([[[0.1, 5.0], [0.2, 1.0]], [[0.3, 2.0], [0.1, 5.0]]])
    codes = torch.tensor([[[0.1, 3.0], [0.2, 1.0]], [[0.3, 2.0], [0.1, 3.0]]])
    with torch.inference_mode():
        expected = network.decision.probabilities(network(codes, torch.tensor([2, 2])))
    for streaming in (False, True):
        path = tmp_path / f"{streaming}.onnx"
        export_onnx(network, path, class_names=["a", "b"], streaming=streaming, **names)
    classifier = OnnxClassifier(tmp_path / "False.onnx")
    for sequences in (x, list(x)):
        np.testing.assert_allclose(classifier.predict_proba(sequences), expected, atol=1e-6)
    stream = StreamingClassifier(tmp_path / "True.onnx")
    for step in x.transpose(1, 0, 2):
        found = stream.update(["a", "b"], step)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    unknown = x.copy()
    unknown[..., 1] += 1
    with pytest.raises(DataError, match="expected a category seen in training"):
        classifier.predict_proba(unknown)
    with pytest.raises(DataError, match="expected a category seen in training"):
        stream.update(["a", "b"], unknown[:, 0])
