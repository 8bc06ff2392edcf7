"""How the readers of a host look at it: files and commands that may not be there; private to the collection."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Answer", "Run", "answer", "read_text", "run"]

Run = Callable[[Sequence[str]], str]  # standard output of a command; "" when it fails or is not there

COMMAND_SECONDS = 30


class Answer(NamedTuple):
    """What a command has said; its exit status is -1 when it is not there or hangs."""

    code: int
    output: str = ""
    errors: str = ""


def read_text(path: Path) -> str:
    """The content of a file without white space around it; "" when it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def run(command: Sequence[str]) -> str:
    """The output of a command in English; "" when it is not there, fails or hangs."""
    done = answer(command)
    return "" if done.code else done.output


def answer(command: Sequence[str], seconds: float | None = None, reads: str = "") -> Answer:
    """Exit status and output of a command in English, which reads a text from its standard input.

    It has COMMAND_SECONDS if nothing else is said.
    """
    environment = os.environ | {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            input=reads,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS if seconds is None else seconds,
        )
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return Answer(-1)
    return Answer(done.returncode, done.stdout, done.stderr)
