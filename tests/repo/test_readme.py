"""Every command of the README and the documents runs, shortened."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
SHORT = (
    "--trainer.max_epochs",
    "1",
    "--trainer.max_steps",
    "3",
    "--trainer.limit_val_batches",
    "1",
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL
    )


def commands() -> list[tuple[str, str]]:
    lines = []
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.split("#")[0].strip()
                if command.startswith("python -m lightning_rnn"):
                    lines.append((page, command))
    return lines


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder as after cloning, with the files and the run that the commands speak of."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "configs").symlink_to(ROOT / "configs")
    rng = np.random.default_rng(0)
    for name in ("train", "test", "new"):
        steps = {f"t{i}": rng.normal(size=60) for i in range(12)}
        labels = {} if name == "new" else {"label": ["a", "b", "c"] * 20}
        pl.DataFrame(labels | steps).write_csv(folder / f"{name}.csv")
    hours = pl.DataFrame(
        {"patient": np.repeat(np.arange(40), 5), "hour": np.tile(np.arange(5), 40)}
    )
    hours.with_columns(
        heart_rate=rng.normal(size=200),
        temperature=rng.normal(size=200),
        label=np.repeat(["well", "ill"] * 20, 5),
    ).write_csv(folder / "vitals.csv")
    return folder


def test_there_are_commands():
    assert len([page for page, _ in commands() if page == "README.md"]) >= 10


@pytest.mark.parametrize(("page", "command"), [c for c in commands() if "ddp" not in c[1]])
def test_command_runs(page, command, place, monkeypatch, run):
    monkeypatch.chdir(place)
    args = shlex.split(command)[3:]
    if "--ckpt_path" in args and "version_3" in args[args.index("--ckpt_path") + 1]:
        args[args.index("--ckpt_path") + 1] = "last"
    runs = {"fit"} & set(args) and not {"--print_config", "--data.help"} & set(args)
    if runs and args[-2:] != ["--ckpt_path", "last"]:
        args += SHORT
    needs_run = args[0] in ("test", "predict", "validate", "export") or "last" in args
    if needs_run and not list(place.glob("lightning_logs/version_*/checkpoints/last.ckpt")):
        data = (
            ()
            if "--data.predict_path" not in args
            else ("--data", "FileDataModule", "--data.train_path", "train.csv")
        )
        assert run("fit", *data, *SHORT).code == 0
    if "--data.predict_path" in args:
        assert (
            run("fit", "--data", "FileDataModule", "--data.train_path", "train.csv", *SHORT).code
            == 0
        )
    if args[0] == "export":
        args += ["--overwrite", "true"]
    result = run(*args)
    assert result.code == 0, f"{page}: {command}\n{result.err}"


def test_python_of_the_readme_runs(place, monkeypatch, run):
    monkeypatch.chdir(place)
    (code,) = blocks("README.md", "python")
    newest = run("fit", *SHORT)
    assert newest.code == 0
    folder = next(
        line.split(": ")[1] for line in newest.out.splitlines() if line.startswith("run folder")
    )
    names: dict[str, object] = {}
    exec(
        code.replace("lightning_logs/version_0", folder).replace(
            "\nmodel.predict", "\np = model.predict"
        ),
        names,
    )
    assert names["p"].shape == (2,)
    assert np.all((names["p"] > 0) & (names["p"] < 1))


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_make_targets_named_in_the_readme_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(
        re.findall(r"^make ([\w-]+)", "\n".join(blocks("README.md", "")), flags=re.MULTILINE)
    )
    assert named and named <= targets
    assert sys.version_info >= (3, 11)
