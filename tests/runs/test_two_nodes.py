"""Two machines, each a network namespace of its own, train one model over a cable; one of them is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from kill_and_resume import ARGS, newest, outcome

pytestmark = pytest.mark.slow
NODES = (
    ("lrnn0", "veth-lrnn0", "10.199.7.1"),
    ("lrnn1", "veth-lrnn1", "10.199.7.2"),
)  # namespace, interface, address
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


@pytest.fixture(scope="module")
def nodes():
    """Join two namespaces by a pair of virtual interfaces."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    remove_nodes()
    try:
        try:
            for namespace, _, _ in NODES:
                ip("netns", "add", namespace)
            ip("link", "add", NODES[0][1], "type", "veth", "peer", "name", NODES[1][1])
            for namespace, interface, address in NODES:
                ip("link", "set", interface, "netns", namespace)
                ip("-n", namespace, "address", "add", f"{address}/24", "dev", interface)
                ip("-n", namespace, "link", "set", interface, "up")
                ip("-n", namespace, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(
                f"needs the right to make network namespaces: {error.stderr.decode().strip()}"
            )
        yield NODES
    finally:
        remove_nodes()


@pytest.fixture
def start(nodes, tmp_path):
    """Start torchrun on a node, in a session of its own; none outlives the test."""
    processes = []

    def begun(folder, node):
        namespace, interface, _ = nodes[node]
        launcher = [
            "-m",
            "torch.distributed.run",
            "--nnodes",
            "2",
            "--nproc_per_node",
            "1",
            "--node_rank",
            str(node),
        ]
        launcher += [
            "--master_addr",
            nodes[0][2],
            "--master_port",
            str(PORT),
            "-m",
            "lightning_rnn",
            "fit",
            *ARGS,
        ]
        command = ["ip", "netns", "exec", namespace, sys.executable, *launcher]
        command += ["--trainer.accelerator", "cpu", "--ckpt_path", "auto"]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MASTER_", "SLURM_"))
        }
        environment |= {
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": interface,
            "PYTHONUNBUFFERED": "1",
        }
        with (folder / f"log{node}").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        processes.append(process)
        return process

    yield begun
    for node in (0, 1):
        lose(node)
    for process in processes:
        process.wait(timeout=20)


def lose(node):
    """Kill all that runs on a node at once."""
    found = subprocess.run(
        ["ip", "netns", "pids", NODES[node][0]], capture_output=True, text=True, timeout=20
    )
    for pid in found.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def logs(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("log*")))


def finish(processes, folder):
    for process in processes:
        assert process.wait(timeout=LIMIT) == 0, logs(folder)
    assert [path.name for path in (folder / "lightning_logs").iterdir()] == ["version_0"]
    assert logs(folder).count("epoch 12/12") == 1  # one run, of which the first node alone speaks


def test_a_lost_node_ends_the_run_and_a_restart_completes_it(start, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    finish([start(whole, node) for node in (0, 1)], whole)
    wanted = outcome(whole)

    for lost in (1, 0):
        processes = [start(broken, node) for node in (0, 1)]
        epoch = "epoch 3/12" if lost else "epoch 7/12"
        deadline = time.monotonic() + LIMIT
        while epoch not in logs(broken):
            assert time.monotonic() < deadline and all(
                process.poll() is None for process in processes
            ), logs(broken)
            time.sleep(0.02)
        lose(lost)
        assert processes[lost].wait(timeout=20) == -signal.SIGKILL
        assert processes[1 - lost].wait(timeout=60) != 0, logs(broken)
        assert "epoch 12/12" not in logs(broken)
    assert (newest(broken) / "checkpoints/last.ckpt").is_file()

    finish([start(broken, node) for node in (0, 1)], broken)
    assert "continuing from" in logs(broken)
    assert outcome(broken) == wanted
