"""When a server goes out and comes in, and what of it NGINX is told."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from front_door_health import (
    LATE,
    STANDS,
    Asker,
    Health,
    Judge,
    Limits,
    ask,
    ask_for_a_token,
    authorization,
    read_limits,
)
from front_door_state import FrontDoor

REFUSES = "refuses connections"
TEXT = """
user root;
upstream m {
    server 10.0.0.1:8000; # m-1
    server 10.0.0.2:8000; # m-2
}
"""
ONE, TWO = "10.0.0.1:8000", "10.0.0.2:8000"


def told(answers: str, *, last: bool = False, limits: Limits | None = None, late: bool = False) -> list[str]:
    """What the judge says of good (.) and bad (x) answers, one a second."""
    judge, down, verdicts = Judge(limits or Limits()), False, []
    for second, answer in enumerate(answers):
        why = {"x": LATE if late else REFUSES}.get(answer, "")
        verdict = judge.hear(ONE, why, second, down=down, last=last)
        down = {"out": True, "in": False}.get(verdict, down)
        verdicts.append(f"{second} {verdict}" if verdict else "")
    return [verdict for verdict in verdicts if verdict]


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ("....", []),
        (".x.x.x.", []),
        (".xx.", ["2 out", "3 in"]),
        ("xxxx..", ["1 out", "4 in"]),
    ],
)
def test_two_misses_in_a_row_take_it_out_and_one_answer_brings_it_back(answers: str, verdicts: list[str]) -> None:
    assert told(answers) == verdicts


def test_one_that_comes_and_goes_has_to_answer_for_a_while_before_it_is_believed() -> None:
    verdicts = told("xx." * 4 + "." * 40)
    assert verdicts == ["1 out", "2 in", "4 out", "5 in", "7 out", "8 in", "10 out", "41 in"]
    assert told("xx." * 4 + "." * 40, last=True)[-1] == "11 in", "nobody else would answer"
    assert told("xx." * 3 + "." * 600 + "xx.")[-1] == "611 in", "that was long ago"


def test_the_last_one_stays_when_it_is_only_late() -> None:
    assert told("xxxx", late=True) == ["1 out"]
    assert told("xxxx", late=True, last=True) == []
    assert told("xxxx", last=True) == ["1 out"]


def test_connections_to_one_that_stays_silent_are_ended_once() -> None:
    assert told("x" * 20, late=True) == ["1 out", "5 reset"]
    assert told("x" * 20, late=True, limits=Limits(reset=0)) == ["1 out"]
    assert told("x" * 20) == ["1 out"], "the kernel has ended them"
    assert told("xxxxxxx.xxxxxxx", late=True) == ["1 out", "5 reset", "7 in", "9 out", "13 reset"]


@pytest.fixture
def server() -> Iterator[tuple[socket.socket, str]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "answers 500"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "answers 503"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "answers 204"),
        (b"SSH-2.0-OpenSSH\r\n", "says nothing in HTTP"),
        (b"", "says nothing in HTTP"),
    ],
)
def test_what_a_server_says(server: tuple[socket.socket, str], says: bytes, why: str) -> None:
    listening, name = server

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            assert connection.recv(4096).startswith(b"GET /health HTTP/1.1\r\n")
            connection.sendall(says)

    thread = threading.Thread(target=answer)
    thread.start()
    assert ask(name, 5) == why
    thread.join()


def test_what_a_server_does_not_say(server: tuple[socket.socket, str]) -> None:
    listening, name = server
    assert ask(name, 0.1) == LATE  # the kernel accepts for it
    listening.close()
    assert ask(name, 5) == "refuses connections"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", ""),  # a model that makes no text
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", ""),  # a full queue
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", STANDS),
        (b"", ""),  # it ends: its health tells
    ],
)
def test_who_gives_a_token_does_not_stand_still(server: tuple[socket.socket, str], says: bytes, why: str) -> None:
    listening, name = server
    asked = []

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            asked.append(connection.recv(4096))
            connection.sendall(says)

    thread = threading.Thread(target=answer)
    thread.start()
    assert ask_for_a_token(name, "m", "Bearer k", 5) == why
    thread.join()
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert b"\r\nAuthorization: Bearer k" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["max_tokens"] == 1


def test_one_that_gives_no_token_is_out_although_it_is_healthy_unless_it_is_the_last(
    server: tuple[socket.socket, str],
) -> None:
    _, name = server
    assert ask_for_a_token(name, "m", "", 0.1) == STANDS
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    asker = Asker(name, "m", Limits(timeout=0.01, probe=0.01, probe_timeout=0.01), heard)
    threading.Thread(target=asker.probe, daemon=True).start()
    deadline = time.monotonic() + 5
    while not asker.stands:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    asker.ended.set()
    judges = {last: Judge(Limits()) for last in (False, True)}
    verdicts = {
        last: [judge.hear(name, asker.stands, second, down=False, last=last) for second in range(2)]
        for last, judge in judges.items()
    }
    assert verdicts == {False: ["", "out"], True: ["", ""]}


def test_the_key_of_the_engines_is_that_of_nginx(tmp_path: Path) -> None:
    keys = tmp_path / "keys.conf"
    assert authorization(keys) == ""
    keys.write_text('map "" $engine_authorization {\n    default "Bearer s3cret";\n}\n')
    assert authorization(keys) == "Bearer s3cret"
    keys.write_text('map "" $engine_authorization {\n    default $http_authorization;\n}\n')
    assert authorization(keys) == ""


@pytest.fixture
def health(tmp_path: Path) -> Health:
    door = FrontDoor(tmp_path)
    door.source.parent.mkdir(parents=True)
    door.source.write_text(TEXT)
    door.configuration.write_text(TEXT)
    health = Health(door, Limits(), take_up=lambda: taken.pop(0), end=lambda *_: 3)
    taken: list[str] = []
    health.models = {ONE: {"m"}, TWO: {"m"}}
    health.said = taken  # type: ignore[attr-defined]
    return health


def hear(health: Health, *heard: tuple[str, str], nginx: str | None = None) -> None:
    """One turn; ``nginx`` is what a reload says that must come of it."""
    waiting: list[str] = health.said  # type: ignore[attr-defined]
    waiting[:] = [] if nginx is None else [nginx]
    for one in heard:
        health.heard.put(one)
    health.turn(0.01)
    assert waiting == []


def test_nginx_reloads_once_for_all_that_changes_together_and_only_then(health: Health) -> None:
    hear(health, (ONE, REFUSES), (TWO, REFUSES))
    hear(health, (ONE, REFUSES), (TWO, REFUSES), nginx="")
    assert {server: entry["down"]["why"] for server, entry in health.front_door.read().items()} == dict.fromkeys(
        (ONE, TWO), REFUSES
    )
    hear(health, (ONE, REFUSES), (TWO, REFUSES))
    hear(health, (ONE, ""), nginx="")
    assert list(health.front_door.read()) == [TWO]


def test_a_reload_that_fails_is_done_again(health: Health) -> None:
    hear(health, (ONE, REFUSES), (ONE, REFUSES), nginx="it does not run")
    hear(health, nginx="it does not run")
    hear(health, nginx="")
    hear(health)


def test_of_one_that_is_drained_nginx_need_not_hear(health: Health) -> None:
    with health.front_door.changing() as state:
        state[ONE] = {"drained": {"by": "maintenance", "since": 1}}
    hear(health, (ONE, REFUSES), (ONE, REFUSES))
    entry = health.front_door.read()[ONE]
    assert (entry["drained"]["by"], entry["down"]["why"]) == ("maintenance", REFUSES)
    hear(health, (ONE, ""))
    assert list(health.front_door.read()[ONE]) == ["drained"]


def test_of_two_that_are_late_one_stays(health: Health) -> None:
    hear(health, (ONE, LATE), (TWO, LATE), (ONE, LATE), (TWO, LATE), nginx="")
    assert list(health.front_door.read()) == [ONE]
    hear(health, (ONE, LATE), (TWO, LATE))
    assert list(health.front_door.read()) == [ONE]


def test_a_token_is_asked_of_a_model_and_not_of_what_has_the_servers_of_all(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asker, "start", lambda _: None)
    health.front_door.source.write_text(TEXT + TEXT.replace("upstream m", "upstream _every_server"))
    health.look()
    assert {name: asker.model for name, asker in health.askers.items()} == {ONE: "m", TWO: "m"}


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_text(json.dumps(asdict(Limits()) | {"timeout": 2}))
    assert read_limits(path).timeout == 2
    for wrong in ({"misses": 2}, asdict(Limits()) | {"misses": "2"}, asdict(Limits()) | {"more": 1}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="missing, unknown or of another kind"):
            read_limits(path)
