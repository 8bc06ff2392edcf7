"""The head of an engine that Ray joins: both of its processes live and die together."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "roles/vllm/files/ray_node.py"
LISTENS = "import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep({seconds})"


def start(tmp_path: Path, ray_seconds: float, vllm: str) -> subprocess.Popen[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (tmp_path / "ray.py").write_text(LISTENS.format(port=port, seconds=ray_seconds))
    (tmp_path / "vllm.py").write_text(vllm)
    ray = [sys.executable, str(tmp_path / "ray.py"), f"--port={port}", "--node-ip-address=127.0.0.1", "--block"]
    command = [sys.executable, str(PROGRAM), *ray, "--", sys.executable, str(tmp_path / "vllm.py")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=20)
    return process.returncode, output


@pytest.mark.parametrize("code", [0, 3])
def test_it_ends_with_the_api_server(tmp_path: Path, code: int) -> None:
    process = start(tmp_path, 4, f"raise SystemExit({code})")
    assert said(process) == (code, f"ray_node: the API server ended with status {code}\n")


def test_it_ends_with_ray(tmp_path: Path) -> None:
    process = start(tmp_path, 0.5, "import time; time.sleep(4)")
    assert said(process) == (0, "ray_node: Ray's head ended with status 0\n")


def test_sigterm_is_for_the_api_server(tmp_path: Path) -> None:
    """Which says what it still has to, while Ray goes on."""
    drains = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
    process = start(
        tmp_path, 8, drains + "open('started', 'w'); time.sleep(8)".replace("started", str(tmp_path / "up"))
    )
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert said(process) == (5, "ray_node: the API server ended with status 5\n")


def test_a_ray_that_never_listens_is_told(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise SystemExit(2)")
    command = [sys.executable, str(PROGRAM), sys.executable, str(tmp_path / "ray.py"), "--port=9"]
    process = subprocess.Popen(
        [*command, "--node-ip-address=127.0.0.1", "--", "false"], stdout=subprocess.PIPE, text=True
    )
    assert said(process) == (1, "ray_node: Ray's head ended with status 2 before it listened\n")
