"""A Docker Engine as it is found on a host."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import (
    Engine,
    at_least,
    owners_of,
    read_engine,
    wait_for,
)


class Daemon(socketserver.ThreadingUnixStreamServer):
    """What answers on a socket; ``said`` are the bytes of its answer."""

    said = b""


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert self.rfile.readline() == b"GET /info HTTP/1.1\r\n"
        while self.rfile.readline().strip():
            pass
        assert isinstance(self.server, Daemon)
        self.wfile.write(self.server.said)


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with Daemon("run/docker.sock", Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_it_says_of_itself(daemon: Daemon) -> None:
    daemon.said = http(json.dumps({"ServerVersion": "29.7.2", "CDISpecDirs": ["/etc/cdi"]}).encode())
    engine = read_engine(Path())
    assert (engine.version, engine.has_cdi) == ("29.7.2", True)


@pytest.mark.parametrize(
    "said", [http(b"{}", "503 Service Unavailable"), http(b"no JSON"), http(b"[]"), b"no HTTP", b""]
)
def test_what_is_no_answer(daemon: Daemon, said: bytes) -> None:
    daemon.said = said
    assert read_engine(Path()).info is None


def test_nobody_answers_where_there_is_no_socket(tmp_path: Path) -> None:
    assert read_engine(tmp_path) == Engine()
    assert (Engine().version, Engine().has_cdi, Engine().settings) == ("", False, {})


def test_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(b'{"debug": true}')
    assert read_engine(tmp_path).settings == {"debug": True}

    file.write_bytes(b'{"debug": "\xff"}')
    with pytest.raises(ConfigFileError, match=r"^/etc/docker/daemon.json: not UTF-8 text"):
        assert read_engine(tmp_path).settings

    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigFileError, match=r"^/etc/docker/daemon.json cannot be read: Is a directory"):
        read_engine(tmp_path)


@pytest.mark.parametrize(
    ("manager", "answers", "expected"),
    [
        # As `dpkg-query --search` and `rpm --query --file` answer; a file of no package is an error to both.
        ("apt", {"/usr/bin/docker": "docker-ce-cli: /usr/bin/docker\n"}, {"/usr/bin/docker": "docker-ce-cli"}),
        ("apt", {"/usr/bin/docker": "podman:amd64: /usr/bin/docker\n"}, {"/usr/bin/docker": "podman"}),
        (
            "apt",
            {"/usr/sbin/dockerd": "diversion by x from: /usr/sbin/dockerd\ndocker.io: /usr/sbin/dockerd\n"},
            {"/usr/sbin/dockerd": "docker.io"},
        ),
        ("apt", {"/snap/bin/docker": ""}, {"/snap/bin/docker": ""}),
        ("dnf", {"/usr/bin/docker": "podman-docker: \n"}, {"/usr/bin/docker": "podman-docker"}),
        ("dnf", {"/usr/local/bin/dockerd": "file /usr/local/bin/dockerd is not owned"}, {"/usr/local/bin/dockerd": ""}),
        ("dnf", {}, {}),
    ],
)
def test_whose_its_programs_are(
    tmp_path: Path, manager: str, answers: dict[str, str], expected: dict[str, str]
) -> None:
    for path in answers:
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to("/nowhere")  # as a snap's are, before it is mounted

    def run(command: Sequence[str]) -> str:
        assert command[0] == {"apt": "dpkg-query", "dnf": "rpm"}[manager]
        return answers[command[-1]]

    assert owners_of(tmp_path, manager, run) == expected


@pytest.mark.parametrize(
    ("version", "floor", "expected"),
    [
        ("29.7.2", "25.0", True),
        ("20.10.24+dfsg1", "25.0", False),
        ("1.20.1-1", "1.18", True),
        ("1.9", "1.18", False),
        ("25.0", "25.0", True),
        ("", "20.10", False),
    ],
)
def test_versions(version: str, floor: str, expected: bool) -> None:
    assert at_least(version, floor) is expected


def test_an_engine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers: list[Any] = [None, None, {"ServerVersion": "29.7.2"}]
    waited = wait_for(30, lambda: Engine(info=answers.pop(0)), lambda engine: engine.info is not None)
    assert (waited.version, answers) == ("29.7.2", [])
    assert wait_for(0, Engine, lambda engine: engine.info is not None) == Engine()
