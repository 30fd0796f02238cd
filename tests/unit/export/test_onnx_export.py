"""Exported files compute what PyTorch computes, or are not written."""

import json
import math
import re
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import BEST, RUN
from networks import network

from lightning_rnn import (
    OnnxClassifier,
    SequenceClassifier,
    SequenceNetwork,
    StreamingClassifier,
    export_onnx,
)
from lightning_rnn.errors import ExportError, OptionError
from lightning_rnn.export import onnx_export as export_module
from lightning_rnn.export import step_network as steps_module
from lightning_rnn.export.onnx_export import (
    TOLERANCE,
    TRACED_SIZE,
    VERIFIED_SIZES,
    VERIFIED_STEP_SIZES,
)
from lightning_rnn.models import network as network_module
from lightning_rnn.models.network import NetworkOptions
from lightning_rnn.padding import Padding

CELLS, POOLINGS, STEMS = ("rnn", "lstm", "gru", "mingru"), ("last", "mean", "max"), ("none", "conv")
WHOLE = list(product([False], CELLS, (1, 2), (False, True), POOLINGS, STEMS))
STEPS = list(product([True], CELLS, (1, 2), [False], POOLINGS, STEMS))
WHOLE += product([False], ("lstm", "mingru"), [1], (False, True), ("last", "mean"), ["inception"])
STEPS += product([True], ("lstm", "mingru"), [1], [False], ("last", "mean"), ["inception"])
SAMPLE = [
    *((False, cell, 2, True, "max", "conv") for cell in CELLS),
    *((True, cell, 2, False, "mean", "conv") for cell in CELLS),
    (False, "lstm", 1, True, "mean", "inception"),
    (False, "mingru", 2, False, "last", "inception"),
    (True, "gru", 1, False, "max", "inception"),
    (True, "lstm", 2, False, "mean", "inception"),
]


def check(path, streaming, cell, num_layers, bidirectional, pooling, stem, num_classes):
    options = {
        "cell": cell,
        "num_layers": num_layers,
        "bidirectional": bidirectional,
        "pooling": pooling,
        "stem": stem,
    }
    net = network(num_classes=num_classes, dropout=0.3, **options)
    names = ["a", "b", "c"][:num_classes]
    assert 0 < export_onnx(net, path, class_names=names, streaming=streaming) <= 1e-5
    assert net.training  # as it was given


@pytest.mark.parametrize(("number", "combination"), list(enumerate(SAMPLE)))
def test_a_sample_of_networks(number, combination, tmp_path):
    check(tmp_path / "model.onnx", *combination, num_classes=2 + number % 2)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("combination", WHOLE + STEPS)
def test_every_network(combination, num_classes, tmp_path):
    check(tmp_path / "model.onnx", *combination, num_classes=num_classes)


def test_the_proof_leaves_the_traced_size_and_asks_enough():
    assert TRACED_SIZE not in VERIFIED_SIZES
    assert len(VERIFIED_SIZES) >= 6
    assert TOLERANCE == 1e-5
    assert TRACED_SIZE[0] not in {batch for batch, _ in VERIFIED_SIZES}
    assert sum(steps != TRACED_SIZE[1] for _, steps in VERIFIED_SIZES) >= 6
    assert TRACED_SIZE[0] not in {batch for batch, _ in VERIFIED_STEP_SIZES}
    assert len({batch for batch, _ in VERIFIED_STEP_SIZES}) >= 5
    assert max(steps for _, steps in VERIFIED_STEP_SIZES) > 2 * steps_module.WINDOW


def ignores_padding(self, x, padding):
    return torch.cat([states.mean(1) for states in self.recurrent(x, padding)], dim=1)


def test_a_broken_exporter_is_caught(tmp_path, monkeypatch):
    """Defects known from exporters: a frozen axis, padding that counts, another model's weights."""
    net, path = network(), tmp_path / "model.onnx"
    path.write_bytes(b"the file before")
    trace = export_module.trace

    def traced_with(target, name, broken):
        def broken_trace(traced, *, streaming):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, broken)
                return trace(traced, streaming=streaming)

        return broken_trace

    def other_weights(_, *, streaming):
        return trace(network(cell="gru"), streaming=streaming)

    def last_of_the_width(x, padding):
        return x[:, -1]

    def last_of_the_traced(x, padding):
        if torch.jit.is_tracing():
            return x[:, TRACED_SIZE[1] - 1]
        return x[torch.arange(len(x)), padding.lengths - 1]

    differs = "not compute what PyTorch computes"
    for broken, found in (
        (traced_with(network_module, "last_step", last_of_the_width), differs),
        (traced_with(SequenceNetwork, "pool", ignores_padding), differs),
        (traced_with(network_module, "last_step", last_of_the_traced), "fails with B = 1, T = 1"),
        (other_weights, differs),
    ):
        monkeypatch.setattr(export_module, "trace", broken)
        with pytest.raises(ExportError, match=found):
            export_onnx(net, path, class_names=["a", "b", "c"])
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"the file before"


def test_a_difference_of_one_weight_is_caught(tmp_path, monkeypatch):
    net = network(cell="lstm")
    trace = export_module.trace

    def slightly_off(traced, *, streaming):
        with torch.no_grad():
            traced.head.weight[0, 0] += 2e-3
            try:
                return trace(traced, streaming=streaming)
            finally:
                traced.head.weight[0, 0] -= 2e-3

    monkeypatch.setattr(export_module, "trace", slightly_off)
    for streaming in (False, True):
        with pytest.raises(ExportError):
            export_onnx(
                net, tmp_path / "model.onnx", class_names=["a", "b", "c"], streaming=streaming
            )


def test_a_wrong_decision_is_caught(tmp_path, monkeypatch):
    net = network(num_classes=2)
    trace = export_module.trace

    def other_threshold(traced, *, streaming):
        traced.decision.threshold.fill_(0.5)
        try:
            return trace(traced, streaming=streaming)
        finally:
            traced.decision.threshold.fill_(0.45)

    net.decision.set(1.0, 0.45)
    torch.nn.init.zeros_(net.head.bias)
    monkeypatch.setattr(export_module, "trace", other_threshold)
    with pytest.raises(ExportError):
        export_onnx(net, tmp_path / "model.onnx", class_names=["a", "b"])


def test_a_network_of_nan_is_refused(tmp_path):
    net = network()
    torch.nn.init.constant_(net.head.weight, torch.nan)
    with pytest.raises(ExportError):
        export_onnx(net, tmp_path / "model.onnx", class_names=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_the_number_of_names_is_checked(tmp_path):
    for names, message in (
        ({"class_names": ["a", "b"]}, r"^class_names: expected 3 names, got \['a', 'b'\]$"),
        ({"class_names": ["a", "b", "c"], "feature_names": ["p"]}, "^feature_names: expected 2"),
    ):
        with pytest.raises(OptionError, match=message):
            export_onnx(network(), tmp_path / "model.onnx", **names)


def test_the_random_state_stays(tmp_path):
    net = network()
    before = torch.get_rng_state()
    export_onnx(net, tmp_path / "model.onnx", class_names=["a", "b", "c"])
    assert torch.equal(before, torch.get_rng_state())


@torch.inference_mode()
def test_completed_positions():
    """A position is completed if further steps do not change the stem's output there."""
    stem = network(stem="conv").stem.eval()
    x = torch.randn(8, 80, 2)
    whole = stem(x, Padding(torch.full((8,), 80))).x
    for steps in range(1, 61):
        outputs = stem(x[:, :steps], Padding(torch.full((8,), steps))).x
        completed = int(steps_module.completed_positions(torch.tensor(steps)))
        assert 1 <= outputs.shape[1] - completed <= 3
        changes = (outputs - whole[:, : outputs.shape[1]]).abs().amax((0, 2))
        assert (changes[:completed] < 1e-6).all()
        assert changes[completed] > 1e-4


def test_a_two_way_network_takes_no_steps(tmp_path):
    with pytest.raises(OptionError, match="bidirectional: expected False for streaming, got True"):
        export_onnx(
            network(bidirectional=True),
            tmp_path / "m.onnx",
            class_names=["a", "b", "c"],
            streaming=True,
        )


def test_the_stem_as_the_step_knows_it(tmp_path):
    """`step_network` has the convolutions' sizes in its constants."""
    net = network(stem="conv")
    sizes = {(c.kernel_size, c.stride, c.padding) for c in net.stem.convs}
    assert sizes == {((9,), (2,), (4,))}
    assert len(net.stem.convs) == 2
    assert steps_module.WINDOW == 9 + 2 * (9 + 2 * 3 - 1)
    assert steps_module.REACH == 4 + 2 * 4
    assert steps_module.STRIDE == 2 * 2


# the command


def test_export_writes_a_proven_file(trained, run_ok):
    out = run_ok("export")
    path = RUN / "model.onnx"
    assert re.search(
        r"^largest difference from PyTorch: \d\.\de-\d+ \(allowed: 1e-05\)$", out, re.MULTILINE
    )
    assert str(path) in out
    assert str(BEST) in out
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("x", ["B", "T", 1], "tensor(float)"),
        ("lengths", ["B"], "tensor(int64)"),
    ]
    assert [(o.name, o.shape, o.type) for o in session.get_outputs()] == [
        ("probability", ["B"], "tensor(float)"),
        ("label", ["B"], "tensor(int64)"),
        ("logits", ["B"], "tensor(float)"),
    ]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["lightning_rnn"])
    assert facts["class_names"] == ["negative", "positive"]
    assert facts["num_features"] == 1
    assert (facts["temperature"], facts["threshold"], facts["streaming"]) == (1.0, 0.5, False)


def test_export_of_a_named_checkpoint(trained, run_ok):
    run_ok("export", "--ckpt_path", BEST, "--output", "there/step.onnx", "--streaming", "true")
    session = onnxruntime.InferenceSession("there/step.onnx")
    model = SequenceClassifier.load_from_checkpoint(BEST).eval()
    x = np.array([[0.4], [-1.0]], np.float32)
    state = {i.name: np.zeros((2, *i.shape[1:]), np.int64 if "int" in i.type else np.float32)
             for i in session.get_inputs()[1:]}  # fmt: skip
    outputs = dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {"x": x, **state}),
            strict=True,
        )
    )
    np.testing.assert_allclose(outputs["probability"], model.predict_proba(x[:, None]), atol=1e-6)
    assert {f"next_{name}" for name in state} < set(outputs)


def test_export_refuses(trained, run_ok, refused):
    run_ok("export")
    new_file = "--output: expected a new file, or --overwrite true, got "
    assert refused("export", code=2) == f"{new_file}{(RUN / 'model.onnx').absolute()}, which exists"
    assert refused("export", "--output", ".", code=2) == f"{new_file}., which exists"
    message = refused("export", "--ckpt_path", "nowhere.ckpt", code=1)
    assert message == "nowhere.ckpt: expected a checkpoint file, got no such file"
    message = refused("export", "--streaming", "perhaps", code=2)
    assert message == "--streaming: expected bool, got 'perhaps'"
    assert "opset" in refused("export", "--opset", "3", code=2)
    run_ok("export", "--overwrite", "true")


def test_export_without_a_run(empty, refused):
    message = refused("export", code=1)
    assert message.startswith("expected a run with best.ckpt under lightning_logs, got none")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(missing, trained, run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    result = run("export")
    assert result.code == 2
    assert f"{missing} is not installed; run: pip install 'lightning_rnn[export]'" in result.err


@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
def test_categories(tmp_path, stem):
    """Exported files of both kinds take names of categories; `export_onnx` compares the codes."""
    sizes = [0, 3, 40]  # a number, one-hot vectors, an embedding
    torch.manual_seed(0)
    net = SequenceNetwork(
        input_size=3,
        num_classes=2,
        options=NetworkOptions(hidden_size=4, stem=stem, embedding_size=5),
        category_sizes=sizes,
    )
    words = {"kind": ["a", "b", "c"], "word": [f"w{i}" for i in range(40)]}
    names = {"class_names": ["down", "up"], "feature_names": ["x", "kind", "word"]}
    for streaming in (False, True):
        path = tmp_path / f"{streaming}.onnx"
        difference = export_onnx(net, path, **names, categories=words, streaming=streaming)
        assert difference < 1e-5
    x = [[0.5, "b", "w39"], [None, None, "w0"], [1.0, "c", None]]
    codes = torch.tensor([[0.5, 2, 40], [math.nan, math.nan, 1], [1.0, 3, math.nan]])
    with torch.no_grad():
        logit = net.eval()(codes[None], torch.tensor([3]))
    expected = net.decision.probabilities(logit).numpy()
    found = OnnxClassifier(tmp_path / "False.onnx").predict_proba([x])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = StreamingClassifier(tmp_path / "True.onnx").update(["s"], [x])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for wrong in (None, {"kind": ["a", "b", "c"]}, words | {"x": ["a"]}):
        with pytest.raises(OptionError, match=r"^categories: expected those of the features"):
            export_onnx(net, tmp_path / "wrong.onnx", **names, categories=wrong)
