"""Clients that stream through the front door while a test works on what is behind it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from .conftest import machine
from .settings import STATE, LabError
from .show import FRONT_DOOR, stream_chat


@dataclass
class Client:
    """Streams one completion after the other through the front door, and keeps what became of them."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)

    def stream(self, end: threading.Event) -> None:
        """Go on until the end."""
        key = (STATE / "api_key").read_text().strip()
        while not end.is_set():
            try:
                pieces = list(stream_chat(FRONT_DOOR, key, "tiny-llama", "Tell me a story.", 48))
            except (LabError, OSError) as error:
                self.failures.append(f"{time.strftime('%X')} {error}")
            else:
                self.answers += bool(pieces)
                self.failures += [] if pieces else [f"{time.strftime('%X')} an empty answer"]
            # The engine that starts meanwhile wants the two cores as well; vLLM is busy for a second after an answer.
            end.wait(4)


@contextlib.contextmanager
def client() -> Iterator[Client]:
    """A client that streams all the time, with two requests at once."""
    one, end = Client(), threading.Event()
    threads = [threading.Thread(target=one.stream, args=[end]) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield one
    finally:
        end.set()
        for thread in threads:
            thread.join()


def drained() -> set[str]:
    """Addresses that the front door sends nothing to."""
    text = machine("lb1").file("/etc/nginx/nginx.conf").content_string
    return {line.split()[1].partition(":")[0] for line in text.splitlines() if " down;" in line}
