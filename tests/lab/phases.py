"""What the lab says while it works: one line per phase with its seconds, and signs of life in the long ones."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .settings import LabError

Say = Callable[[str], None]

_PULSE_SECONDS = 5  # between two signs of life of a running command


@contextlib.contextmanager
def phase(name: str) -> Iterator[Say]:
    """Time a phase; what is said inside is indented below its name."""
    print(f"== {name}", flush=True)
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"   {time.monotonic() - start:5.1f} s  {text}", flush=True)

    yield say
    print(f"== {name}: {time.monotonic() - start:.1f} s", flush=True)


def follow(command: Sequence[str | Path], say: Say, env: dict[str, str] | None = None) -> None:
    """Run a command, showing its newest line of output now and then, and its last lines when it fails."""
    lines: list[str] = []
    with subprocess.Popen(
        command, env=env or dict(os.environ), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:

        def read() -> None:
            assert process.stdout
            lines.extend(line.strip() for line in process.stdout if line.strip())

        reader = threading.Thread(target=read)
        reader.start()
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PULSE_SECONDS)
                break
            say(lines[-1][:100] if lines else "...")
        reader.join()
    if process.returncode:
        print("\n".join(lines[-30:]), file=sys.stderr)
        raise LabError(f"{' '.join(map(str, command))[:200]} failed with exit code {process.returncode}")
