"""The pages in docs/ and the site that `make docs` builds from them."""

import importlib
import json
import os
import re
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import uvicorn
import yaml
from helpers import free_port

from lightning_rnn import SequenceNetwork, export_onnx
from lightning_rnn.models.network import NetworkOptions
from lightning_rnn.training.checkpoint_file import SIZES_AND_NAMES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TESTED = {  # programs of commands, and what runs or checks them
    "python -m lightning_rnn": "test_readme.py",
    "python -m benchmarks": "test_benchmarks.py",
    "python -m pytest": "itself",
    "python examples/": "test_scripts_take_the_options",
    "torchrun": "test_launched_commands_take_the_options",
}
PYTHON_PAGES = {  # pages with Python, and the test that runs it
    "export.md": "test_examples.py",
    "own_networks.md": "test_own_networks.py",
    "python.md": "test_readme.py",
    "scikit_learn.md": "test_python_of_a_page_runs",
    "tutorial.md": "test_the_notebook_runs",
    "warm_start.md": "test_python_of_a_page_runs",
}


def blocks(page, language):
    return [code for name, code in BLOCK.findall(page.read_text()) if name == language]


def lines_of_commands(page):
    text = "".join(blocks(page, "")).replace("\\\n", " ")
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def commands_of(program):
    """Return the commands of a program in all pages, as lists of words."""
    found = []
    for page in PAGES:
        lines = [line for line in lines_of_commands(page) if line.startswith(program)]
        found += [shlex.split(line) for line in lines]
    return found


@pytest.fixture
def script(monkeypatch):
    """Return a function that imports a script in docs/."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_is_tested(page):
    for line in lines_of_commands(page):
        assert line.startswith(tuple(TESTED)), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_tested_and_valid(page):
    assert bool(blocks(page, "python")) == (page.name in PYTHON_PAGES)
    for code in blocks(page, "yaml"):
        assert yaml.safe_load(code)


def test_settings_of_early_stopping_are_those_of_the_config():
    [code] = blocks(DOCS / "early_stopping.md", "yaml")
    config = yaml.safe_load((ROOT / "configs/stopping.yaml").read_text())
    del config["trainer"]["max_epochs"]
    assert yaml.safe_load(code) == config


@pytest.mark.filterwarnings("ignore")  # those of scikit-learn for few sequences
@pytest.mark.parametrize(
    "name", [name for name, test in PYTHON_PAGES.items() if test == "test_python_of_a_page_runs"]
)
def test_python_of_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in blocks(DOCS / name, "python"):
        exec(code.replace("max_steps=100", "max_steps=2"), {})


@pytest.mark.parametrize("words", commands_of("python examples/"), ids=" ".join)
def test_scripts_take_the_options(words, empty, run_ok):
    """The options that are not of the script itself are those of fit."""
    assert words[2] in ("--folds", "--trials")
    run_ok("fit", *words[4:], "--print_config")


@pytest.mark.parametrize("words", commands_of("torchrun"), ids=" ".join)
def test_launched_commands_take_the_options(words, empty, run_ok):
    arguments = words[words.index("lightning_rnn") + 1 :]
    run_ok(*arguments, "--print_config")


def test_the_job_script_is_that_of_the_page(tmp_path, monkeypatch, run_ok):
    """A stand-in for srun prints the command, which takes the options."""
    [code] = blocks(DOCS / "cluster.md", "bash")
    path = ROOT / "examples/train.sbatch"
    assert path.read_text() == code
    stand_in = tmp_path / "srun"
    stand_in.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"SLURM_CPUS_PER_TASK": "8", "SLURM_JOB_ID": "7"}
    command = ["bash", "-eu", path, "--data.length", "20"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    option, *words = done.stdout.splitlines()
    assert option == "--cpus-per-task=8"
    assert words[:3] == ["python", "-m", "lightning_rnn"]
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(run_ok(*words[3:], "--print_config"))
    assert config["trainer"]["default_root_dir"] == "runs/7"
    assert config["data"]["init_args"]["length"] == 20


def test_service(tmp_path, monkeypatch):
    """Probabilities are those of the network for the sequence so far."""
    torch.manual_seed(0)
    net = SequenceNetwork(input_size=2, num_classes=3, options=NetworkOptions(cell="gru")).eval()
    export_onnx(net, tmp_path / "step.onnx", class_names=["a", "b", "c"], streaming=True)
    monkeypatch.setenv("MODEL", str(tmp_path / "step.onnx"))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    port = int(free_port())
    app = importlib.import_module("serve").app
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port}/sequences/s"
        ask(url, [0.5, 1.0])
        with pytest.raises(urllib.error.HTTPError, match="422"):
            ask(url, [0.5])
        found = ask(url, [None, -1.0])
        x = torch.tensor([[[0.5, 1.0], [torch.nan, -1.0]]])
        with torch.inference_mode():
            expected = net.decision.probabilities(net(x, torch.tensor([2])))[0]
        assert list(found) == ["a", "b", "c"]
        np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
        ask(url, None, method="DELETE")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(url, None, method="DELETE")
    finally:
        server.should_exit = True
        thread.join()
    lines = (ROOT / "examples/serve.py").read_text().splitlines()
    assert len([line for line in lines if line.strip() and '"""' not in line]) <= 20


def ask(url, step, method="POST"):
    data = None if step is None else json.dumps(step).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return json.load(response)


def test_option_pages_have_every_option(script):
    pages = script("option_pages").option_pages()
    table = json.loads((ROOT / "lightning_rnn/cli/options.json").read_text())
    text = "\n".join(pages.values())
    documented = set(re.findall(r"^`--([\w.]+)", text, re.MULTILINE))
    assert set(table["options"]) - documented == {f"model.{name}" for name in SIZES_AND_NAMES}
    assert "Without a description" not in pages["options_data.md"]
    of_fit = pages["options_fit.md"]
    assert "`--model.cell {rnn,lstm,gru,mingru}`\n:   Recurrent cell" in of_fit
    assert ":paramref:" not in text
    assert set(table["commands"]) == set(script("option_pages").COMMANDS)


def test_the_api_page_has_every_public_name():
    names = re.findall(r"^::: lightning_rnn\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    import lightning_rnn

    assert sorted(names) == sorted(lightning_rnn.__all__)


def test_every_page_is_in_the_navigation():
    """The strict build reports a page that is missing; this is the same without building."""
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = set(re.findall(r": (\w+\.md)$", text, re.MULTILINE))
    assert {page.name for page in PAGES} <= named


def test_links_of_a_site_are_followed(script, tmp_path):
    """Each kind of fault is found, and a site without faults has none."""
    find_faults = script("check_links").find_faults
    index = tmp_path / "index.html"
    (tmp_path / "404.html").write_text('<a href="/index.html">Home</a>')
    (tmp_path / "data.csv").write_text("a\n")
    (tmp_path / "b.html").write_text('<h1 id="x y"></h1><a href="data.csv"></a><a href="."></a>')
    good = '<a href="b.html#x%20y"></a><a href="https://example.org/"></a>'
    index.write_text(good)
    assert find_faults(tmp_path) == []
    (tmp_path / "lost.html").write_text("")
    bad = '<a href="c.html"></a><a href="b.html#z"></a><script src="https://example.org/a.js">'
    index.write_text(good + bad)
    assert find_faults(tmp_path) == [
        "index.html loads https://example.org/a.js",
        "index.html: dead link c.html",
        "index.html: no such place b.html#z",
        "no link leads to lost.html",
    ]


def test_the_notebook_has_the_cells_of_the_tutorial(script):
    notebook = script("tutorial_notebook")
    stored = json.loads(notebook.NOTEBOOK.read_text())
    expected = notebook.notebook_of(notebook.SOURCE.read_text())
    assert [cell["source"] for cell in expected.cells] == [
        "".join(cell["source"]) for cell in stored["cells"]
    ], "run make notebook"
    assert all(outputs for outputs in notebook.outputs_of(stored)[:2])
    assert "/tmp" not in notebook.NOTEBOOK.read_text()


@pytest.mark.slow
def test_the_notebook_runs(script):
    """Every command succeeds."""
    notebook = script("tutorial_notebook")
    content = notebook.notebook_of(notebook.SOURCE.read_text())
    notebook.execute(content, timeout=600)
    assert len(notebook.outputs_of(content)) >= 12
    predicted = notebook.outputs_of(content)[-1][-1]["text"]
    assert set(re.findall(r"\w+", predicted)) <= {"good", "worn"}
