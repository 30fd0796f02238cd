"""Make docs/tensorboard_*.png: train two small runs, open their TensorBoard in headless Chromium, look at each page.

    apt-get install chromium chromium-driver
    python docs/screenshots.py

About 2 minutes. It speaks WebDriver with chromedriver itself, so that no package is needed beyond the development set.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PAGES = {  # address, width and height, of which all of the page can be seen
    "scalars": ("scalars&tagFilter=%5E(train%7Cval%7Cmemory)", 1400, 1400),  # ^(train|val|memory)
    "figures": ("images&tagFilter=%5Eval%2F%5Ba-m%5D", 1100, 1700),  # ^val/[a-m]
    "figures_2": ("images&tagFilter=%5Eval%2F%5Bp-z%5D", 1100, 2100),
    "memory": ("images&tagFilter=%5Ememory", 1100, 1700),
    "pr_curves": ("pr_curves", 1400, 1100),
    "hparams": ("hparams", 4200, 900),
}
FIT = [
    "--figures.every_n_epochs",
    "5",
    "--gradient_flow.every_n_epochs",
    "1",
    "--data.length",
    "20",
    "--data.min_length",
    "5",
]
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1400",
]


def free_port() -> str:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def ask(url: str, body: dict[str, Any] | None = None, *, method: str | None = None) -> Any:
    """Send a WebDriver command and return its value, waiting for the server to come up."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    for _ in range(60):
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=120
            ) as answer:
                return json.load(answer).get("value")
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:500]) from None
        except urllib.error.URLError:
            time.sleep(0.5)
    raise RuntimeError(f"{url} does not answer")


def main() -> None:
    """Train, look, and end what was started."""
    with tempfile.TemporaryDirectory() as folder:
        for cell in ("rnn", "lstm"):
            for command in (["fit", "--model.cell", cell, *FIT], ["test"]):
                subprocess.run(
                    [sys.executable, "-m", "lightning_rnn", *command], cwd=folder, check=True
                )
        board, driver = free_port(), free_port()
        no_proxy = {**os.environ, "no_proxy": "127.0.0.1,localhost"}
        logs = ["--logdir", "lightning_logs", "--port", board]
        servers = [
            subprocess.Popen([sys.executable, "-m", "tensorboard.main", *logs], cwd=folder),
            subprocess.Popen(["chromedriver", f"--port={driver}"], env=no_proxy),
        ]
        try:
            options = {
                "args": [*CHROMIUM, f"--user-data-dir={folder}/chromium", "--no-proxy-server"]
            }
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            session = f"http://127.0.0.1:{driver}/session/"
            session += ask(session.rstrip("/"), wanted)["sessionId"]
            for name, (page, width, height) in PAGES.items():
                ask(f"{session}/window/rect", {"width": width, "height": height})
                ask(f"{session}/url", {"url": "about:blank"})
                ask(f"{session}/url", {"url": f"http://127.0.0.1:{board}/?darkMode=false#{page}"})
                time.sleep(15)
                image = base64.b64decode(ask(f"{session}/screenshot"))
                Path(__file__).with_name(f"tensorboard_{name}.png").write_bytes(image)
            ask(session, method="DELETE")
        finally:
            for server in servers:
                server.terminate()
                server.wait()


if __name__ == "__main__":
    main()
