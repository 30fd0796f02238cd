"""Make docs/tensorboard_*.png: train two small runs and take screenshots of TensorBoard.

    apt-get install chromium chromium-driver
    python docs/screenshots.py

Takes about 2 minutes. The script talks to chromedriver over WebDriver, so that no Python package is
needed beyond the development dependencies.
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

PAGES = {  # address, and the width and height at which the whole page is visible
    "scalars": ("scalars&tagFilter=%5E(train%7Cval%7Cgradient_flow)", 1400, 1400),
    "figures": ("images&tagFilter=%5Eval%2F%5Ba-m%5D", 1100, 1700),  # ^val/[a-m]
    "figures_2": ("images&tagFilter=%5Eval%2F%5Bp-z%5D", 1100, 2100),
    "gradient_flow": ("images&tagFilter=%5Egradient_flow", 1100, 1700),
    "pr_curves": ("pr_curves", 1400, 1100),
    "hparams": ("hparams", 4200, 900),
}
FIT = [
    "fit",
    "--figures.every_n_epochs=5",
    "--gradient_flow.every_n_epochs=1",
    "--data.length=20",
    "--data.min_length=5",
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
    """Return a port that no process listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def send(url: str, body: dict[str, Any] | None = None, *, method: str | None = None) -> Any:
    """Send a WebDriver command, once the server is up, and return the value of the response."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(240):
        try:
            with opener.open(request, timeout=120) as response:
                return json.load(response).get("value")
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:500]) from None
        except urllib.error.URLError:
            time.sleep(0.5)
    raise RuntimeError(f"{url} does not respond")


def train(folder: str) -> None:
    """Train and test one run per cell in a folder."""
    program = [sys.executable, "-m", "lightning_rnn"]
    for cell in ("rnn", "lstm"):
        subprocess.run([*program, *FIT, "--model.cell", cell], cwd=folder, check=True)
        subprocess.run([*program, "test"], cwd=folder, check=True)


def start_servers(folder: str, board: str, driver: str) -> list[subprocess.Popen[bytes]]:
    """Start TensorBoard and chromedriver on two ports."""
    tensorboard = [sys.executable, "-m", "tensorboard.main", "--logdir", "lightning_logs"]
    environment = {**os.environ, "no_proxy": "127.0.0.1,localhost"}
    return [
        subprocess.Popen([*tensorboard, "--port", board], cwd=folder),
        subprocess.Popen(["chromedriver", f"--port={driver}"], env=environment),
    ]


def take_screenshots(folder: str, board: str, driver: str) -> None:
    """Save a screenshot of every page next to this file."""
    arguments = [*CHROMIUM, f"--user-data-dir={folder}/chromium", "--no-proxy-server"]
    options = {"goog:chromeOptions": {"args": arguments}}
    sessions = f"http://127.0.0.1:{driver}/session"
    send(f"http://127.0.0.1:{board}/data/environment")  # TensorBoard is up
    created = send(sessions, {"capabilities": {"alwaysMatch": options}})
    session = f"{sessions}/{created['sessionId']}"
    for name, (page, width, height) in PAGES.items():
        send(f"{session}/window/rect", {"width": width, "height": height})
        send(f"{session}/url", {"url": "about:blank"})
        send(f"{session}/url", {"url": f"http://127.0.0.1:{board}/?darkMode=false#{page}"})
        time.sleep(15)
        image = base64.b64decode(send(f"{session}/screenshot"))
        Path(__file__).with_name(f"tensorboard_{name}.png").write_bytes(image)
    send(session, method="DELETE")


def main() -> None:
    """Train, take the screenshots, and stop the servers."""
    with tempfile.TemporaryDirectory() as folder:
        train(folder)
        board = free_port()
        driver = free_port()
        servers = start_servers(folder, board, driver)
        try:
            take_screenshots(folder, board, driver)
        finally:
            for server in servers:
                server.terminate()
                server.wait()


if __name__ == "__main__":
    main()
