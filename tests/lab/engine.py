"""The Docker engine: the one that answers, else one that we install and start (and stop again)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import docker
from docker.errors import DockerException

from .phases import Say, follow
from .settings import CACHE, LabError

_PID_FILE = CACHE / "dockerd.pid"  # there only while an engine runs that we started by hand
_LOG = CACHE / "dockerd.log"
_START_SECONDS = 60
_STOP_SECONDS = 30


def ensure(say: Say) -> docker.DockerClient:
    """Return a client of a running engine, after starting one where none answers (which only root can do)."""
    try:
        return client()
    except DockerException as error:
        if os.environ.get("DOCKER_HOST"):
            raise LabError(f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: {error}") from error
        if os.geteuid() != 0:
            raise LabError(
                f"no Docker engine answers ({error}); start one, add yourself to the group docker, or run as root"
            ) from error
    if not shutil.which("dockerd"):
        install(["docker.io"], say)
    return _start(say)


def client() -> docker.DockerClient:
    """Return a client of the engine of this machine (or of DOCKER_HOST); raises DockerException when none answers."""
    connection = docker.from_env(timeout=600)
    connection.ping()
    return connection


def install(packages: list[str], say: Say) -> None:
    """Install packages of the distribution on this machine."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise LabError(
            f"please install {' and '.join(packages)}: only as root on Debian or Ubuntu can it be done for you"
        )
    say(f"apt-get install {' '.join(packages)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # phases of the tests run side by side, and apt lets in only one
        follow(["apt-get", "update", "--quiet"], say)
        follow(
            ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages],
            say,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )


def stop(say: Say) -> None:
    """Stop the engine if it is one that we started by hand."""
    if not _PID_FILE.is_file():
        return
    pid = int(_PID_FILE.read_text())
    _PID_FILE.unlink()
    if not _is_dockerd(pid):
        return
    say(f"stopping the Docker engine started by the lab, process {pid}")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while _is_dockerd(pid) and time.monotonic() < deadline:
        time.sleep(0.2)


def _start(say: Say) -> docker.DockerClient:
    """Start the engine of this machine: through systemd where that runs, else as a process of its own."""
    if Path("/run/systemd/system").is_dir():
        say("starting the Docker engine with systemctl")
        follow(["systemctl", "enable", "--now", "docker.service"], say)
        return client()
    say(f"starting the Docker engine by hand, log in {_LOG}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with _LOG.open("w") as log:
        process = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    _PID_FILE.write_text(f"{process.pid}\n")
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(DockerException):
            return client()
        time.sleep(0.5)
    stop(say)
    raise LabError(f"the Docker engine does not start; the end of {_LOG}:\n{_LOG.read_text()[-1500:]}")


def _is_dockerd(pid: int) -> bool:
    try:
        return b"dockerd" in Path(f"/proc/{pid}/cmdline").read_bytes()  # empty when it has ended
    except OSError:
        return False
