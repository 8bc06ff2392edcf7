"""The process of gpuhosts-metrics: what it tells is fresh, or is not there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpuhosts_metrics
import pytest
from metrics_text import Metrics, samples

PROGRAM = Path(gpuhosts_metrics.__file__)
SETTINGS: dict[str, Any] = {
    "interval": 0.2,
    "dcgm_names": True,
    "engines": [],
    "model_store": "",
    "certificates": [],
    "front_door_log": "",
    "front_door_configuration": "",
    "front_address": "",
    "converged": "/nowhere",
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start it, and return when it says that it is ready."""
    for name in ("run", "state"):
        (tmp_path / name).mkdir()
    started = []

    def run(**settings: Any) -> subprocess.Popen[str]:
        (tmp_path / "settings.json").write_text(json.dumps(SETTINGS | settings))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(tmp_path / "notify"))
            notified.settimeout(10)
            places = {"RUNTIME_DIRECTORY": str(tmp_path / "run"), "STATE_DIRECTORY": str(tmp_path / "state")}
            process = subprocess.Popen(
                [sys.executable, "-Es", PROGRAM, tmp_path / "settings.json"],
                env=os.environ | places | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            assert notified.recv(100) == b"READY=1"
        (tmp_path / "notify").unlink()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ready_is_who_has_told_everything_and_sigterm_ends_it(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start()
    assert sorted(path.name for path in (tmp_path / "run").glob("*.prom")) == ["gpu.prom", "host.prom"]
    text = (tmp_path / "run/host.prom").read_text()
    ((labels, ran),) = samples(text, gpuhosts_metrics.LAST_RUN)
    assert labels == {"part": "host"}
    assert time.time() - ran < 10
    process.terminate()
    assert process.wait(timeout=10) == 0


def test_requests_are_counted_once_over_a_restart(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    log, configuration = tmp_path / "access.log", tmp_path / "nginx.conf"
    log.touch()
    configuration.touch()
    more = {"front_door_log": str(log), "front_door_configuration": str(configuration)}
    line = '{"model":"a","status":200,"seconds":1,"server_first_byte_seconds":"","server_seconds":""}\n'

    def count() -> float:
        text = (tmp_path / "run/front_door.prom").read_text()
        return sum(value for _, value in samples(text, "gpuhosts_front_door_requests_total"))

    first = start(**more)
    log.write_text(line * 2)
    until(lambda: count() == 2)
    first.kill()
    first.wait()
    log.write_text(line * 3)
    start(**more)
    assert count() == 3


def test_a_part_that_fails_tells_when_it_last_did_not_and_the_others_go_on(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    log, configuration = tmp_path / "access.log", tmp_path / "nginx.conf"
    log.touch()
    configuration.touch()
    start(front_door_log=str(log), front_door_configuration=str(configuration))
    file = tmp_path / "run/front_door.prom"
    until(lambda: "gpuhosts_front_door_unreadable_lines_total" in file.read_text())
    configuration.unlink()
    until(lambda: "gpuhosts_front_door" not in file.read_text())
    ((_, ran),) = samples(file.read_text(), gpuhosts_metrics.LAST_RUN)
    assert 0 < ran < time.time()
    before = (tmp_path / "run/host.prom").stat().st_mtime_ns
    until(lambda: (tmp_path / "run/host.prom").stat().st_mtime_ns > before)


def test_a_part_that_does_not_come_back_is_not_heard_of_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NVML does with a driver that hangs: its first run tells something, the second one never ends."""
    runs: list[int] = []

    def part(metrics: Metrics) -> None:
        runs.append(1)
        if len(runs) > 1:
            time.sleep(60)
        metrics.gauge("stale", "Of the first run.", 1)

    told: list[str] = []
    handlers: list[Any] = []

    def notify(state: str) -> None:
        text = (tmp_path / "gpu.prom").read_text()
        told.append(text)
        if state == "WATCHDOG=1" and "stale" not in text:
            handlers[0]()

    monkeypatch.setattr(gpuhosts_metrics, "parts", lambda *_: iter([("gpu", part)]))
    monkeypatch.setattr(gpuhosts_metrics, "notify", notify)
    monkeypatch.setattr(gpuhosts_metrics.signal, "signal", lambda _, handler: handlers.append(handler))
    assert gpuhosts_metrics.serve({"interval": 0.1}, tmp_path, tmp_path) == 0
    assert "stale 1" in told[0]
    assert gpuhosts_metrics.LAST_RUN in told[-1]


@pytest.mark.parametrize("change", [{"interval": "15"}, {"unknown": 1}, {"engines": None}])
def test_settings_that_are_none_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(SETTINGS))
    command = [sys.executable, "-Es", str(PROGRAM), "--check", str(path)]
    assert subprocess.run(command, check=False).returncode == 0
    path.write_text(json.dumps(SETTINGS | change))
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert next(iter(change)) in done.stderr
