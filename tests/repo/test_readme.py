"""Every command of the README and the documents runs, shortened."""

import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
TUTORIAL = "docs/tutorial.md"  # test_docs.py executes it as a whole
SHORT = ("--trainer.max_epochs=1", "--trainer.max_steps=3", "--trainer.limit_val_batches=1")
FILE = ("--data", "FileDataModule", "--data.train_path", "train.csv")
NEED_A_RUN = ("test", "predict", "validate", "export")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands() -> list[tuple[str, str]]:
    """Return (page, command) of all commands, once, but those that need several processes."""
    found: dict[str, str] = {}
    for page in [page for page in PAGES if page != TUTORIAL]:
        for line in "".join(blocks(page, "")).replace("\\\n", " ").splitlines():
            command = line.partition("#")[0].strip()
            if command.startswith("python -m lightning_rnn") and "ddp" not in command:
                found.setdefault(command, page)
    return [(page, command) for command, page in found.items()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a folder with the configs and the files that the commands name."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "configs").symlink_to(ROOT / "configs")
    rng = np.random.default_rng(0)
    labels = {"label": ["a", "b", "c"] * 20}
    for name in ("train", "test", "new"):
        steps = {f"t{i}": rng.normal(size=60) for i in range(12)}
        columns = steps if name == "new" else labels | steps
        pl.DataFrame(columns).write_csv(folder / f"{name}.csv")
    vitals = {
        "patient": np.repeat(np.arange(40), 5),
        "hour": np.tile(np.arange(5), 40),
        "heart_rate": rng.normal(size=200),
        "temperature": rng.normal(size=200),
        "label": np.repeat(["well", "ill"] * 20, 5),
    }
    pl.DataFrame(vitals).write_csv(folder / "vitals.csv")
    clicks = {
        "session": np.repeat(np.arange(40), 4),
        "time": np.tile(np.arange(4), 40),
        "page": rng.choice(["home", "shoes", "basket"], size=160),
        "device": np.repeat(rng.choice(["phone", "laptop"], size=40), 4),
        "seconds": rng.random(size=160),
        "label": np.repeat(["buys", "leaves"] * 20, 4),
    }
    pl.DataFrame(clicks).write_csv(folder / "clicks.csv")
    write_recordings(folder, rng)
    return folder


def write_recordings(folder, rng):
    """Write folders of recordings, their labels, and a table of recordings with many states."""
    (folder / "recordings").mkdir()
    names = [f"r{i}.csv" for i in range(12)]
    for i, name in enumerate(names):
        steps = pl.DataFrame({"x": rng.normal(size=9)})
        steps.write_csv(folder / "recordings" / name)
        (folder / "walks" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        steps.write_csv(folder / "walks" / "ab"[i % 2] / name)
    labels = {"id": names, "label": ["rest", "move"] * 6}
    pl.DataFrame(labels).write_csv(folder / "labels.csv")
    sensors = {
        "recording": np.repeat(names, 200),
        "x": rng.normal(size=2400),
        "state": np.tile(["rest"] * 60 + ["move"] * 40, 24),
    }
    pl.DataFrame(sensors).write_csv(folder / "sensors.csv")


def test_the_readme_is_one_screen_with_commands():
    found = [command for page, command in commands() if page == "README.md"]
    assert len(found) >= 5
    assert len((ROOT / "README.md").read_text().splitlines()) <= 55
    assert len([page for page, _ in commands() if page == "docs/command_line.md"]) >= 6


@pytest.mark.parametrize(("page", "command"), commands())
def test_command_runs(page, command, clone, monkeypatch, run, tmp_path):
    monkeypatch.chdir(clone)
    args = shlex.split(command)[3:]
    if "--ckpt_path" in args and "version_" in args[-1]:
        args[-1] = "last"
    no_run = {"--help", "--print_config", "--data.help", "last"}
    if args[0] == "fit" and not no_run & set(args):
        args += SHORT
    if "--runs" in args:
        assert run("fit", *SHORT).code == 0
        assert run("test").code == 0
    elif args[0] == "compare":
        args += [*SHORT, "--cells=rnn", "--seeds=1", f"--folder={tmp_path / 'comparison'}"]
    has_run = bool(list(clone.glob("lightning_logs/version_*/checkpoints/last.ckpt")))
    if "--data.predict_path" in args or "--init_from" in args:
        assert run("fit", *FILE, *SHORT).code == 0
    elif args[:2] == ["validate", "--calibrate.objective"]:
        assert run("fit", *SHORT).code == 0  # the newest run has two classes
    elif (args[0] in NEED_A_RUN or "last" in args) and not has_run:
        assert run("fit", *SHORT).code == 0
    if "--init_from" in args:
        number = len(list(clone.glob("lightning_logs/version_*"))) - 1
        args = [arg.replace("version_0", f"version_{number}") for arg in args]
    if args[0] == "export":
        args += ["--overwrite", "true"]
    result = run(*args)
    assert result.code == 0, f"{page}: {command}\n{result.err}"


def test_checkpoint_predicts_in_python(clone, monkeypatch, run):
    monkeypatch.chdir(clone)
    code, _ = blocks("docs/python.md", "python")
    newest = run("fit", *SHORT)
    assert newest.code == 0
    line = next(line for line in newest.out.splitlines() if line.startswith("run folder"))
    names: dict[str, object] = {}
    exec(code.replace("lightning_logs/version_0", line.split(": ")[1]), names)
    probabilities = names["probabilities"]
    assert probabilities.shape == (2,)
    assert np.all((probabilities > 0) & (probabilities < 1))


@pytest.mark.filterwarnings("ignore")  # those of a Trainer with its own defaults
def test_a_trainer_of_ones_own(clone, monkeypatch):
    monkeypatch.chdir(clone)
    _, code = blocks("docs/python.md", "python")
    names: dict[str, object] = {}
    exec(code.replace("max_epochs=10", "max_epochs=1"), names)
    assert names["model"].class_names == ["a", "b", "c"]


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    for page in (*PAGES, "CONTRIBUTING.md"):
        named = re.findall(r"^make ([\w-]+)", "".join(blocks(page, "")), flags=re.MULTILINE)
        assert set(named) <= targets
        assert named or page != "CONTRIBUTING.md"
