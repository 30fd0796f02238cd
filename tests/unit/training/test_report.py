"""`report.html` and `model_card.md`."""

import base64
import json
import re
import shutil
from html import escape
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from helpers import BEST, RUN, TINY

from lightning_rnn.training import watching
from lightning_rnn.training.model_card import escape_markdown

CLASSES = ["<script>alert(1)</script>", 'a & "b" | `c`']


class Page(HTMLParser):
    """What a browser would load, and the text that it would show."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.addresses = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def tested(tmp_path_factory, run_ok):
    """Return a folder with a run on data with odd names, which is tested."""
    folder = tmp_path_factory.mktemp("tested")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        for step in range(4):
            rows.append((f"<{i}>", step, 1000 + i % 2 + rng.normal(), 20.0, CLASSES[i % 2]))
    table = pl.DataFrame(rows, schema=["id", "time", "p & q", "<b>t", "label"], orient="row")
    table.write_csv(folder / "all.csv")
    data = ("--data.train_path", "all.csv", "--data.test_fraction", 0.4)
    columns = ("--data.id_column", "id", "--data.time_column", "time")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit = ("--trainer.max_steps", 3, "--model.stem", "none", "--model.lr", 1e-5)
        run_ok("fit", *data, *columns, *TINY, *fit)
        out = run_ok("test", "--ckpt_path", BEST)
    assert "report written to" in out
    return folder


def test_the_report_is_complete_and_loads_nothing(tested):
    page = Page((tested / RUN / "report.html").read_text())
    assert "script" not in page.tags
    assert all(address.startswith("data:") for address in page.addresses)
    assert page.tags.count("img") == 6  # all lengths are equal
    pictures = {base64.b64decode(a.partition(",")[2]) for a in page.addresses if "image" in a}
    assert pictures == {path.read_bytes() for path in (tested / RUN / "figures").glob("*.png")}
    metrics = json.loads((tested / RUN / "test_metrics.json").read_text())
    low, high = metrics["test/accuracy_low"], metrics["test/accuracy_high"]
    wanted = [
        *CLASSES,
        "p & q, <b>t",
        f"{metrics['test/accuracy']:.4f} ({low:.4f}-{high:.4f})",
        metrics["origin"]["checkpoint"],
        f"python -m lightning_rnn test --ckpt_path {BEST}",
        "1e-05",  # the learning rate
        "max_steps: 3",  # in config.yaml
    ]
    for text in wanted:
        assert text in page.text, text


def test_the_mistakes_are_those_of_the_predictions(tested):
    frame = pl.read_csv(tested / RUN / "test_predictions.csv", infer_schema=False)
    text = (tested / RUN / "report.html").read_text().partition("Most confident")[2]
    rows = re.findall(r"<tr><td>(&lt;\d+&gt;)</td><td>(.*?)</td><td>(.*?)</td><td>([\d.]+)", text)
    wrong = frame.filter(pl.col("label") != pl.col("true_label"))
    confidence = []
    for row in wrong.iter_rows():
        predicted = CLASSES.index(row[3])
        confidence.append((escape(row[0]), float(row[1 + predicted])))
    confidence.sort(key=lambda pair: -pair[1])
    assert len(rows) == min(20, len(wrong)) > 0
    assert text.startswith(f" mistakes ({len(rows)} of {len(wrong)})")
    assert [float(row[3]) for row in rows] == pytest.approx(
        [value for _, value in confidence[:20]], abs=1e-4
    )


def test_a_report_is_not_replaced_by_one_with_less(tested, monkeypatch, run_ok):
    monkeypatch.chdir(tested)
    before = (RUN / "report.html").read_bytes()
    run_ok("test", "--ckpt_path", BEST)
    assert not (RUN / "report-1.html").exists()  # nothing is different
    monkeypatch.setattr(watching, "find_spec", lambda name: None)
    watching.can_draw.cache_clear()
    out = run_ok("test", "--ckpt_path", BEST)
    watching.can_draw.cache_clear()
    assert "the earlier report.html, which differs, is kept as report-1.html" in out
    assert (RUN / "report-1.html").read_bytes() == before
    assert "matplotlib is not installed" in (RUN / "report.html").read_text()
    (RUN / "report-1.html").replace(RUN / "report.html")


@pytest.mark.slow
def test_a_browser_shows_it_without_errors_and_requests(tested):
    api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium")
    messages, requests = [], []
    address = (tested / RUN / "report.html").as_uri()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path)
        page = browser.new_page(color_scheme="dark", viewport={"width": 420, "height": 900})
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        sizes = page.eval_on_selector_all("img", "all => all.map(image => image.naturalWidth)")
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        browser.close()
    assert messages == []
    assert {url for url in requests if not url.startswith("data:")} == {address}
    assert len(sizes) == 6
    assert min(sizes) > 300
    assert overflow <= 0


def test_a_model_card_goes_with_the_exported_file(tested, monkeypatch, run_ok):
    monkeypatch.chdir(tested)
    out = run_ok("export", "--ckpt_path", BEST, "--output", "out/model.onnx")
    assert "model card: out/model_card.md" in out
    card = (tested / "out/model_card.md").read_text()
    metrics = json.loads((RUN / "test_metrics.json").read_text())
    assert f"| accuracy | {metrics['test/accuracy']:.4f} (" in card
    assert metrics["origin"]["checkpoint"] in card
    assert r'\<script\>alert(1)\</script\>, a \& "b" \| \`c\`' in card
    assert "    data/id_column: id\n" in card
    assert str(tested) not in card
    (tested / "out/model_card.md").write_text("filled in")
    out = run_ok("export", "--ckpt_path", BEST, "--output", "out/model.onnx", "--overwrite=true")
    assert (tested / "out/model_card-1.md").read_text() == "filled in"
    assert (tested / "out/model_card.md").read_text() == card


def test_a_model_card_has_no_metrics_of_other_weights(tested, monkeypatch, run_ok):
    monkeypatch.chdir(tested)
    path = RUN / "test_metrics.json"
    before = path.read_text()
    metrics = json.loads(before)
    metrics["origin"]["checkpoint"] = "0" * 64
    path.write_text(json.dumps(metrics))
    run_ok("export", "--ckpt_path", BEST, "--output", "other/model.onnx")
    path.write_text(before)
    card = (tested / "other/model_card.md").read_text()
    assert "None: `test` has not evaluated this checkpoint." in card
    assert "accuracy" not in card


def test_damaged_metrics_end_an_export_before_it_writes(trained, refused):
    (RUN / "test_metrics.json").write_text("{}")
    assert "expected metrics as written by test" in refused("export", code=1)


def test_text_is_escaped():
    assert escape_markdown(["a|b", "c\nd"]) == r"a\|b, c d"
