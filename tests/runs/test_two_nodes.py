"""Two nodes, each in a network namespace of its own, train one model; one of them is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from finished_runs import newest, outcome
from helpers import CPU, MANY_SETTINGS, process_environment

pytestmark = pytest.mark.slow
NODES = (  # namespace, interface, address
    ("lrnn0", "veth-lrnn0", "10.199.7.1"),
    ("lrnn1", "veth-lrnn1", "10.199.7.2"),
)
PORT = 29400
LIMIT = 150  # seconds until a run is given up


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


def remove_nodes():
    for node, (namespace, interface, _) in enumerate(NODES):
        lose(node)
        for words in (["netns", "del", namespace], ["link", "del", interface]):
            with suppress(subprocess.CalledProcessError):
                ip(*words)


def make_nodes():
    """Connect two namespaces by a pair of virtual interfaces."""
    for namespace, _, _ in NODES:
        ip("netns", "add", namespace)
    ip("link", "add", NODES[0][1], "type", "veth", "peer", "name", NODES[1][1])
    for namespace, interface, address in NODES:
        ip("link", "set", interface, "netns", namespace)
        ip("-n", namespace, "address", "add", f"{address}/24", "dev", interface)
        ip("-n", namespace, "link", "set", interface, "up")
        ip("-n", namespace, "link", "set", "lo", "up")


@pytest.fixture(scope="module")
def nodes():
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    remove_nodes()
    try:
        make_nodes()
        yield NODES
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode().strip()
        pytest.skip(f"needs the right to make network namespaces: {reason}")
    finally:
        remove_nodes()


@pytest.fixture
def start(nodes, tmp_path):
    """Start torchrun on a node, in a session of its own; none outlives the test."""
    processes = []

    def start_node(folder, node):
        namespace, interface, _ = nodes[node]
        size = ["--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(node)]
        master = ["--master_addr", nodes[0][2], "--master_port", str(PORT)]
        fit = ["-m", "lightning_rnn", "fit", *MANY_SETTINGS.split(), *CPU, "--ckpt_path", "auto"]
        launcher = [sys.executable, "-m", "torch.distributed.run", *size, *master, *fit]
        environment = process_environment(GLOO_SOCKET_IFNAME=interface, PYTHONUNBUFFERED="1")
        with (folder / f"log{node}").open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *launcher],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        processes.append(process)
        return process

    yield start_node
    for node in (0, 1):
        lose(node)
    for process in processes:
        process.wait(timeout=20)


def lose(node):
    """Kill all that runs on a node at once."""
    command = ["ip", "netns", "pids", NODES[node][0]]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    for pid in found.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def logs(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("log*")))


def finish(processes, folder):
    for process in processes:
        assert process.wait(timeout=LIMIT) == 0, logs(folder)
    assert [path.name for path in (folder / "lightning_logs").iterdir()] == ["version_0"]
    assert logs(folder).count("epoch 12/12") == 1  # one run, printed by the first node alone


def wait_for_epoch(epoch, processes, folder):
    deadline = time.monotonic() + LIMIT
    while f"epoch {epoch}/12" not in logs(folder):
        assert time.monotonic() < deadline, logs(folder)
        assert all(process.poll() is None for process in processes), logs(folder)
        time.sleep(0.02)


def test_a_lost_node_ends_the_run_and_a_restart_completes_it(start, tmp_path):
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    finish([start(whole, node) for node in (0, 1)], whole)

    for lost, epoch in ((1, 3), (0, 7)):
        processes = [start(broken, node) for node in (0, 1)]
        wait_for_epoch(epoch, processes, broken)
        lose(lost)
        assert processes[lost].wait(timeout=20) == -signal.SIGKILL
        assert processes[1 - lost].wait(timeout=60) != 0, logs(broken)
        assert "epoch 12/12" not in logs(broken)
    assert (newest(broken) / "checkpoints/last.ckpt").is_file()

    finish([start(broken, node) for node in (0, 1)], broken)
    assert "continuing from" in logs(broken)
    assert outcome(broken) == outcome(whole)
