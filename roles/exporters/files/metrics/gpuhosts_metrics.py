"""Writes what no exporter has as files for node_exporter's textfile collector: the unit gpuhosts-metrics.

Usage: ``gpuhosts_metrics.py FILE`` runs as the file says, ``gpuhosts_metrics.py --check FILE`` reads it only.

Every part has a thread and a file of its own. A part that fails, or does not come back, is heard of no more: its file
keeps nothing but the time of its last run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import metrics_host
from metrics_front_door import FrontDoorLog
from metrics_gpu import GpuPart
from metrics_nvml import NvmlError
from metrics_text import Metrics

ROOT = Path("/")
KINDS: dict[str, type | tuple[type, ...]] = {
    "interval": (int, float),  # seconds from one run of a part to its next
    "dcgm_names": bool,  # whether GPUs are told under DCGM's names
    "engines": list,  # id, model, url and planned tokens of the instances whose API is here
    "model_store": str,  # directory; "": none
    "certificates": list,  # paths
    "front_door_log": str,  # path; "": no front door here
    "front_door_configuration": str,
    "front_address": str,  # that load balancers share; "": none
    "converged": str,  # file whose time is that of the last run of the playbooks
}
PATIENCE = 20.0  # seconds for the first run of all parts; the engines' metrics may take half of it
MISSED = 3  # intervals without a run, and what a part has said counts no more
LAST_RUN = "gpuhosts_metrics_last_run_timestamp_seconds"
ABOUT = "When a part of gpuhosts-metrics last told all that it has to tell, in seconds since 1970; 0: never."

FAILURES = (OSError, ValueError, LookupError, TypeError, NvmlError)  # of one part; the others go on

Part = Callable[[Metrics], None]


def read_settings(path: Path) -> dict[str, Any]:
    """What the role has written.

    :raises ValueError: It says something else than it should.
    """
    settings = json.loads(path.read_text(encoding="utf-8"))
    wrong = set(settings) ^ set(KINDS) or {key for key, kind in KINDS.items() if not isinstance(settings[key], kind)}
    if wrong:
        raise ValueError(f"{path}: {', '.join(sorted(wrong))} missing, unknown or of another kind")
    return dict(settings)


class Writer:
    """One part's file, replaced whole."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.path = name, directory / f"{name}.prom"
        self.ran = 0.0  # seconds since 1970
        self.lock = threading.Lock()

    def write(self, metrics: Metrics) -> None:
        """Write what was told, with the time of the last run."""
        metrics.gauge(LAST_RUN, ABOUT, self.ran, {"part": self.name})
        new = self.path.with_suffix(".new")
        with self.lock:
            new.write_text(metrics.text(), encoding="utf-8")
            new.replace(self.path)

    def run(self, part: Part) -> None:
        """Run the part once."""
        metrics = Metrics()
        try:
            part(metrics)
        except FAILURES as error:
            say(f"{self.name}: {type(error).__name__}: {error}")
            self.write(Metrics())
            return
        self.ran = time.time()
        self.write(metrics)


def parts(settings: Mapping[str, Any], state: Path) -> Iterator[tuple[str, Part]]:
    """What runs on this host, by name."""
    yield "gpu", GpuPart(ROOT, dcgm_names=settings["dcgm_names"]).run
    yield "host", lambda metrics: metrics_host.host(metrics, settings, ROOT)
    if settings["engines"]:
        yield "engines", lambda metrics: metrics_host.engines(metrics, settings["engines"])
    if settings["front_door_log"]:
        yield "front_door", front_door(settings, state / "front_door.json")
    if settings["front_address"]:
        yield "front_address", lambda metrics: metrics_host.front_address(metrics, settings["front_address"], ROOT)


def front_door(settings: Mapping[str, Any], memory: Path) -> Part:
    """The part that reads the front door's log and configuration; what it remembers is in a file."""
    known: dict[str, Any] = {}
    log: list[FrontDoorLog] = []

    def run(metrics: Metrics) -> None:
        if not log:
            known.update(read_memory(memory))
            log.append(FrontDoorLog(Path(settings["front_door_log"]), known.get("log")))
            known.setdefault("drained", {})
        log[0].run(metrics)
        metrics_host.drained_servers(metrics, Path(settings["front_door_configuration"]), known["drained"])
        metrics_host.servers_in_service(metrics, Path(settings["front_door_configuration"]))
        text = json.dumps({"log": log[0].stored(), "drained": known["drained"]})
        new = memory.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(memory)

    return run


def read_memory(path: Path) -> dict[str, Any]:
    """What was remembered; nothing of a damaged file."""
    try:
        memory = json.loads(path.read_text(encoding="utf-8"))
        return memory if isinstance(memory, dict) else {}
    except (OSError, ValueError):
        return {}


def say(text: str) -> None:
    """To the journal."""
    print(text, file=sys.stderr, flush=True)


def notify(state: str) -> None:
    """Tell systemd (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        # A systemd that starts itself anew is away for a moment; the watchdog hears the next one.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(state.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)


def serve(settings: Mapping[str, Any], directory: Path, state: Path) -> int:
    """Run the parts until SIGTERM. Ready is who has run each of them once, or has waited for one that hangs.

    The exit status is 1 where one has ended by a mistake of this program.
    """
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    interval = float(settings["interval"])
    begun = time.time()
    writers: list[Writer] = []
    first: list[threading.Event] = []
    threads: list[threading.Thread] = []
    for name, part in parts(settings, state):
        writer, done = Writer(name, directory), threading.Event()
        writers.append(writer)
        first.append(done)

        def loop(writer: Writer = writer, part: Part = part, done: threading.Event = done) -> None:
            while not ended.is_set():
                writer.run(part)
                done.set()
                ended.wait(interval)

        threads.append(threading.Thread(target=loop, name=name, daemon=True))
        threads[-1].start()
    for done in first:
        done.wait(timeout=max(0.0, begun + PATIENCE - time.time()))
    notify("READY=1")
    while not ended.wait(min(interval, 5.0)):
        if not all(thread.is_alive() for thread in threads):
            return 1
        for writer in writers:
            if time.time() - max(writer.ran, begun) > MISSED * interval:
                writer.write(Metrics())
        notify("WATCHDOG=1")
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line."""
    check = arguments[:1] == ["--check"]
    try:
        settings = read_settings(Path(arguments[-1]))
    except (OSError, ValueError) as error:
        say(str(error))
        return 1
    return 0 if check else serve(settings, *(Path(os.environ[f"{kind}_DIRECTORY"]) for kind in ("RUNTIME", "STATE")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
