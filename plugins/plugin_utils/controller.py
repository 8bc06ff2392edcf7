"""Which run of Ansible this is, told so that another one can see whether it is still alive."""

from __future__ import annotations

import getpass
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

__all__ = ["is_gone", "this_run"]

PROC = Path("/proc")


def this_run() -> dict[str, Any]:
    """``by``, ``pid`` and ``run`` (no other has it) of ansible-playbook; an action runs in a child of it."""
    parent = multiprocessing.parent_process()
    pid = (parent.pid if parent else None) or os.getpid()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return {"by": f"{user}@{socket.gethostname()}", "pid": pid, "run": f"{_here()} {pid} {_started(pid)}"}


def is_gone(run: str) -> bool:
    """Whether it is sure that a run has ended: it ran here, since the last boot, and its process is not there."""
    *here, pid, started = ("", "", *run.split(" "))
    return " ".join(here[2:]) == _here() and pid.isdigit() and _started(int(pid)) != started


def _here() -> str:
    """Where a number stands for one process: this boot of this kernel, and its namespace of processes."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process began, in the kernel's clock ticks; "-" where only its being there is known; "" if it is not."""
    try:
        # The name of the program, in parentheses, may have any character in it.
        told = (PROC / f"{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if told[0] == "Z" else told[19]  # a dead one that nobody has asked about
    except OSError:
        if PROC.joinpath("self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "-"
