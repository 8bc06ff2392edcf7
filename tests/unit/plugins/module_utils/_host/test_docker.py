"""A Docker Engine as it is found on a host."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import (
    Container,
    Engine,
    at_least,
    container_named,
    containers_of,
    has_image,
    instances_by_container,
    is_installed,
    owners_of,
    read_engine,
    wait_for,
)


class Daemon(socketserver.ThreadingUnixStreamServer):
    """What answers on a socket; ``said`` are the bytes of its answer."""

    said = b""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[str] = []


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        asked = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        assert isinstance(self.server, Daemon)
        self.server.asked.append(unquote(asked))
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
    assert daemon.asked == ["/info"]


def test_whether_it_has_an_image(daemon: Daemon) -> None:
    daemon.said = http(b"{}")
    assert has_image(Path(), "gpuhosts/vllm:0.33.0-0f3b")
    assert daemon.asked == ["/images/gpuhosts/vllm:0.33.0-0f3b/json"]
    daemon.said = http(b'{"message": "No such image"}', "404 Not Found")
    assert not has_image(Path(), "gpuhosts/vllm:0.33.0-0f3b")


def test_whose_container_has_a_name(daemon: Daemon) -> None:
    own = {"Config": {"Image": "gpuhosts/vllm:0.33.0-0f3b", "Labels": {"gpuhosts.vllm.instance": "tiny-1"}}}
    daemon.said = http(json.dumps(own).encode())
    assert container_named(Path(), "vllm-tiny-1") == Container("gpuhosts/vllm:0.33.0-0f3b", "tiny-1")
    assert daemon.asked == ["/containers/vllm-tiny-1/json"]
    unlabelled: tuple[dict[str, str] | None, ...] = ({}, None)
    for labels in unlabelled:
        daemon.said = http(json.dumps({"Config": {"Image": "web", "Labels": labels}}).encode())
        assert container_named(Path(), "vllm-tiny-1") == Container("web", "")
    daemon.said = http(b'{"message": "No such container"}', "404 Not Found")
    assert container_named(Path(), "vllm-tiny-1") is None


def test_how_many_containers_there_are(daemon: Daemon) -> None:
    daemon.said = http(b'[{"Id": "0f3b"}, {"Id": "77aa"}]')
    assert containers_of(Path()) == 2
    assert daemon.asked == ["/containers/json?all=true"]
    daemon.said = http(b"[]")
    assert containers_of(Path()) == 0
    daemon.said = http(b"{}", "500 Internal Server Error")
    assert containers_of(Path()) is None


@pytest.mark.parametrize(
    ("path", "there"), [("usr/bin/dockerd", True), ("snap/bin/docker", True), ("usr/bin/docker", False)]
)
def test_whether_there_is_an_engine(tmp_path: Path, path: str, there: bool) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert is_installed(tmp_path) is there


def test_which_instances_run_in_containers(daemon: Daemon) -> None:
    label = "gpuhosts.vllm.instance"
    daemon.said = http(json.dumps([{"Id": "0f3b", "Labels": {label: "tiny-1"}}]).encode())
    assert instances_by_container(Path()) == {"0f3b": "tiny-1"}
    assert daemon.asked == [f'/containers/json?filters={{"label": ["{label}"]}}']
    daemon.said = http(b"{}", "500 Internal Server Error")
    assert instances_by_container(Path()) == {}


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
