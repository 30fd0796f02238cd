"""Kill `fit` at drawn moments, resume it, and compare with an undisturbed run.

    python tests/kill_and_resume.py --minutes 30
    python tests/kill_and_resume.py --cases 10 --ranks 2
    python tests/kill_and_resume.py --seed 0 --first 17 --cases 1    # case 17 of seed 0 again

Each case has settings drawn from `resume_settings.TABLE` and a moment drawn from
`killed_process.EVENTS`; a third of the resumed runs are killed, too. `finished_runs.outcome` lists
what is compared. At the end, the table of settings is printed with the number of cases of each, and
how many of them were equal.
"""

import argparse
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from finished_runs import outcome
from helpers import CPU, free_port
from killed_process import Kill, start
from resume_settings import TABLE, Draw, arguments, next_draw, pairs, write_files

SECONDS = 600  # that a run may take on a busy machine
GRACE = 5.0  # seconds until the other ranks of a killed one are killed, too
USERS_CLASS = "a class of the user"


@dataclass(frozen=True)
class Ended:
    """How the ranks of a run have ended: exit codes, or -9 after SIGKILL."""

    codes: tuple[int, ...]

    @property
    def was_killed(self) -> bool:
        return -signal.SIGKILL in self.codes


def run_fit(args: list[str], folder: Path, ranks: int, kill: Kill | None = None) -> Ended:
    """Run `fit` in one process or, as `torchrun` does, in several; wait until all have ended."""
    pids: dict[int, int] = {}  # of processes by rank
    port = free_port()
    for rank in range(ranks):
        environment = {"OMP_NUM_THREADS": "1"}
        if ranks > 1:
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
                "GROUP_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "TORCHELASTIC_RUN_ID": "campaign",
            }
        pids[rank] = start(args, folder, kill=kill, environment=environment)
    codes = dict.fromkeys(pids, 0)
    deadline = time.monotonic() + SECONDS
    while pids:
        for rank, pid in list(pids.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done:
                continue
            del pids[rank]
            codes[rank] = os.waitstatus_to_exitcode(status)
            if codes[rank] != 0:
                deadline = min(deadline, time.monotonic() + GRACE)
        if time.monotonic() > deadline:
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return Ended(tuple(codes.values()))


@dataclass(frozen=True)
class Case:
    """A run to be killed and resumed."""

    number: int
    draw: Draw
    ranks: int
    rng: random.Random

    @property
    def args(self) -> list[str]:
        options = arguments(self.draw)
        if self.ranks > 1:
            options += [str(word) for word in CPU]
        return options

    def kill(self, counts: list[dict[str, int]]) -> Kill:
        """Draw a moment from those of the undisturbed run, given its `counts` by rank."""
        rank = self.rng.randrange(self.ranks)
        own = {event: count for event, count in counts[rank].items() if count}
        own["last step"] = own["step"]
        event = self.rng.choice(sorted(own))
        number = own[event]
        if event != "last step":
            number = self.rng.randint(1, number)
        return Kill(event, number, rank)

    def resume_args(self, folder: Path) -> list[str]:
        """Return the arguments that continue a killed run: short ones if they suffice."""
        has_checkpoint = list(folder.glob("lightning_logs/*/checkpoints/last.ckpt"))
        is_short = has_checkpoint and self.rng.random() < 0.5
        if is_short and self.draw["callbacks"] != USERS_CLASS:
            return ["--ckpt_path", "last"]
        return [*self.args, "--ckpt_path", "auto"]


def cases(seed: int, ranks: int) -> Iterator[Case]:
    """Yield the cases of a seed, without end."""
    rng = random.Random(f"{seed} {ranks}")
    covered: set[frozenset[tuple[str, str]]] = set()
    number = 0
    while True:
        number += 1
        draw = next_draw(rng, covered)
        covered |= pairs(draw)
        yield Case(number, draw, ranks, random.Random(f"{seed} {ranks} {number}"))


@dataclass(frozen=True)
class Result:
    """What came of a case."""

    verdict: str  # equal, refused, or what differs
    moments: str  # at which the run was killed

    @property
    def is_equal(self) -> bool:
        return self.verdict == "equal"

    @property
    def is_refused(self) -> bool:
        return self.verdict.startswith("refused")


def examine(case: Case, root: Path) -> Result:
    """Run a case."""
    whole = root / "whole"
    killed = root / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_files(folder)
    ended = run_fit(case.args, whole, case.ranks)
    if any(ended.codes):
        return Result(f"{_refusal(whole)} {ended.codes}", "")
    counts = [json.loads((whole / f"counts.{rank}").read_text()) for rank in range(case.ranks)]
    kill = case.kill(counts)
    moments = [str(kill)]
    ended = run_fit(case.args, killed, case.ranks, kill)
    if not ended.was_killed:
        return Result(f"NOT KILLED {ended.codes}", str(kill))
    if case.rng.random() < 1 / 3:
        kill = case.kill(counts)
        kill = Kill(kill.event, max(1, kill.number // 2), kill.rank)
        moments.append(str(kill))
        run_fit(case.resume_args(killed), killed, case.ranks, kill)
    ended = run_fit(case.resume_args(killed), killed, case.ranks)
    if any(ended.codes):
        return Result(f"FAILED {ended.codes}: {_last_line(killed)}", ", then ".join(moments))
    try:
        different = compare(whole, killed)
    except OSError as error:
        return Result(f"INCOMPLETE: {error}", ", then ".join(moments))
    verdict = f"DIFFERS in {', '.join(different)}" if different else "equal"
    if not different and not is_settled(case, killed):
        verdict = "A FINISHED RUN CHANGED"
    return Result(verdict, ", then ".join(moments))


def compare(whole: Path, killed: Path) -> list[str]:
    """Return in what the results of a killed and resumed run differ from an undisturbed one."""
    expected = outcome(whole)
    got = outcome(killed)
    return [name for name, value in expected.items() if got[name] != value]


def is_settled(case: Case, folder: Path) -> bool:
    """Return whether a finished run that is continued says so and changes nothing."""
    before = _state_of_files(folder)
    log = folder / "log"
    size = log.stat().st_size
    ended = run_fit(case.resume_args(folder), folder, case.ranks)
    said = "finished" in log.read_bytes()[size:].decode()
    return not any(ended.codes) and said and _state_of_files(folder) == before


def _state_of_files(folder: Path) -> dict[str, tuple[int, int]]:
    states = {}
    for path in (folder / "lightning_logs").rglob("*"):
        status = path.stat()
        states[str(path)] = (status.st_mtime_ns, status.st_ino)
    return states


def _last_line(folder: Path) -> str:
    lines = (folder / "log").read_text().splitlines() or [""]
    return lines[-1]


def _refusal(folder: Path) -> str:
    """Return the message with which `fit` has refused settings; a traceback is no refusal."""
    if "Traceback" in (folder / "log").read_text():
        return f"TRACEBACK: {_last_line(folder)}"
    return f"refused: {_last_line(folder)}"


def campaign(
    seed: int, *, ranks: int = 1, first: int = 1, num_cases: int | None, seconds: float, keep: bool
) -> bool:
    """Examine cases until a number of cases or seconds is reached; return whether all are equal.

    With `keep`, the folder of each case that is not equal is left, and named.
    """
    begin = time.monotonic()
    tried: Counter[tuple[str, str]] = Counter()
    equal: Counter[tuple[str, str]] = Counter()
    verdicts: Counter[str] = Counter()
    for case in cases(seed, ranks):
        if case.number < first:
            continue
        if num_cases is not None and case.number >= first + num_cases:
            break
        if time.monotonic() - begin > seconds:
            break
        root = Path(tempfile.mkdtemp(prefix="case"))
        result = examine(case, root)
        print(f"{case.number:4}  {result.verdict}  ({result.moments})", flush=True)
        if not result.is_equal:
            chosen = [s for group, s in case.draw.items() if s != next(iter(TABLE[group]))]
            print(f"      {'; '.join(chosen)}", flush=True)
        if result.is_equal or not keep:
            shutil.rmtree(root)
        else:
            print(f"      {root}: fit {' '.join(case.args)}", flush=True)
        verdicts["equal" if result.is_equal else result.verdict.split()[0]] += 1
        if not result.is_refused:
            tried.update(case.draw.items())
            if result.is_equal:
                equal.update(case.draw.items())
    print_table(tried, equal)
    counts = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.items())
    print(f"seed {seed}, {ranks} rank(s): {counts}", flush=True)
    return set(verdicts) <= {"equal", "refused:"}


def print_table(tried: Counter[tuple[str, str]], equal: Counter[tuple[str, str]]) -> None:
    """Print how many cases had each setting, and how many of them were equal."""
    print("\n| group | settings, with equal / tried cases |\n| --- | --- |")
    for group, settings in TABLE.items():
        texts = []
        for setting in settings:
            key = (group, setting)
            texts.append(f"{setting} {equal[key]}/{tried[key]}")
        print(f"| {group} | {'; '.join(texts)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="Keep the folders of unequal cases.")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the processes are forked: no thread may have been started
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of events of killed runs
    all_equal = campaign(
        options.seed,
        ranks=options.ranks,
        first=options.first,
        num_cases=options.cases,
        seconds=60 * options.minutes,
        keep=options.keep,
    )
    return 0 if all_equal else 1


if __name__ == "__main__":
    sys.exit(main())
