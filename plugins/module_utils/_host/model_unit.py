"""The transient unit that fetches models on a host; private to the collection."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._errors import ModelStoreError
from . import model_fetch
from .access import addresses_of, look
from .places import make_directories
from .steps import take
from .system import answer

__all__ = ["begin", "end", "is_left", "progress"]

ROOT = Path("/")
UNIT = "gpuhosts-models.service"
RUN = Path("/run/gpuhosts-models")
STATUS = RUN / "status.json"
OPENED = ".opened"  # in the store: a port was opened, and is to be closed whatever becomes of the run
PROPERTIES = (
    # Engines that serve come first.
    "Nice=10",
    "IOSchedulingClass=idle",
    "UMask=0022",
    "NoNewPrivileges=yes",
    "PrivateTmp=yes",
    "ProtectHome=yes",
    "ProtectSystem=strict",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    # The store may be on a server, or belong to another group than root's.
    "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER",
)


def begin(job: Mapping[str, Any], *, seconds: int, access: Mapping[str, Any] | None) -> None:
    """Start to fetch and to serve; what an earlier run has left makes way.

    :param seconds: after which systemd ends it, should nobody else.
    """
    directory = Path(job["directory"])
    _stop()
    RUN.mkdir(mode=0o700)
    make_directories(directory)
    program, task = RUN / "model_fetch.py", RUN / "job.json"
    program.write_text(inspect.getsource(model_fetch), encoding="utf-8")
    task.touch(mode=0o600)
    task.write_text(json.dumps({**job, "status": str(STATUS)}), encoding="utf-8")
    if access:
        found = look(ROOT, answer, access, addresses_of)
        if found.firewall:
            (directory / OPENED).write_text(json.dumps(dict(access)), encoding="utf-8")
        take(found.firewall)
    properties = (*PROPERTIES, f"RuntimeMaxSec={seconds}", f"ReadWritePaths={directory} {RUN}")
    command = ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", "--description=Models for the engines"]
    command += [f"--property={entry}" for entry in properties]
    done = answer([*command, sys.executable, "-I", str(program), str(task)])
    if done.code:
        raise ModelStoreError(f"systemd-run does not start {UNIT}: {(done.errors or done.output).strip()}")


def progress() -> dict[str, Any]:
    """How far it is: ``state`` (running, done, failed), ``problem``, ``rate`` in bytes a second, and ``models``."""
    running = answer(["systemctl", "is-active", "--quiet", UNIT]).code == 0
    try:
        status: dict[str, Any] = json.loads(STATUS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        status = {"state": "running", "problem": "", "rate": 0, "models": []}
    if not running and status["state"] == "running":
        status |= {"state": "failed", "problem": f"{UNIT} was ended. {_last_words()}"}
    return status


def end(directory: Path) -> None:
    """Stop it, and close what was opened for it; what has come so far is kept."""
    _stop()
    opened = directory / OPENED
    if opened.exists():
        access = {**json.loads(opened.read_text(encoding="utf-8")), "listens_on": []}
        take(look(ROOT, answer, access, addresses_of).firewall)
        opened.unlink()


def is_left(directory: Path) -> bool:
    """Whether an interrupted run has left something to end."""
    return RUN.exists() or (directory / OPENED).exists()


def _stop() -> None:
    answer(["systemctl", "stop", UNIT])
    answer(["systemctl", "reset-failed", UNIT])
    shutil.rmtree(RUN, ignore_errors=True)  # there may be none; what stays in /run goes with the next boot


def _last_words() -> str:
    said = answer(["journalctl", f"--unit={UNIT}", "--lines=3", "--output=cat", "--no-pager"]).output
    lines: Sequence[str] = said.strip().splitlines()
    return f"It said: {lines[-1]}" if lines else f"Ask its journal: journalctl --unit={UNIT}"
