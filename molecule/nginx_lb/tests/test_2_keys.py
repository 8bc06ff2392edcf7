"""Who may ask for what, and that nothing else reaches an engine: every denial is a test of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from front_door import Answer, FrontDoor

LOG = "/var/log/nginx/access.log"
ENGINE = "engine-0123456789-0123456789"
VALUES = {name: f"{name}-0123456789-0123456789" for name in ("all", "new", "some", "slow", "few")}
SETTINGS: dict[str, Any] = {
    "nginx_lb_open": False,
    "nginx_lb_engine_key": ENGINE,
    "nginx_lb_client_timeout": 2,
    "nginx_lb_keys": [
        {"name": "all", "keys": [VALUES["all"]]},
        {"name": "some", "keys": [VALUES["some"]], "models": ["small"]},
        {"name": "slow", "keys": [VALUES["slow"]], "requests_per_minute": 6},
        {"name": "few", "keys": [VALUES["few"]], "concurrency": 2},
    ],
}
REQUEST = json.dumps({"model": "small", "prompt": "Hi", "max_tokens": 1}).encode()


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {VALUES[name]}"}


def reached(front_door: FrontDoor) -> int:
    """How many requests NGINX has handed to an engine, and how many these have answered."""
    lines = front_door.host.file(LOG).content_string.splitlines()
    handed = sum(bool(json.loads(line)["server"]) for line in lines)
    ask = "for port in 9001 9002 9003 9004; do curl --silent http://127.0.0.1:$port/metrics; done"
    told = front_door.host.check_output(ask).splitlines()
    return handed + sum(int(float(line.split()[-1])) for line in told if line.startswith("vllm:request_success_total"))


def raw(front_door: FrontDoor, data: bytes) -> bytes:
    """What comes back for bytes that no client library would send, until NGINX closes the connection."""
    got = b""
    with socket.create_connection((front_door.address, front_door.port), timeout=20) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                got += piece
    return got


def head(*lines: str, name: str = "all") -> bytes:
    """The head of a request with a right key, and whatever else it shall have."""
    usual = ["POST /v1/completions HTTP/1.1", "Host: a", f"Authorization: Bearer {VALUES[name]}"]
    return "\r\n".join([*usual, *lines, "", ""]).encode()


@pytest.fixture(scope="module", autouse=True)
def _keys(change: Callable[..., str]) -> None:
    assert not change(**SETTINGS)


@pytest.fixture
def nothing_reaches(front_door: FrontDoor) -> Iterator[None]:
    """After the test the engines have seen as many requests as before."""
    before = reached(front_door)
    yield
    assert reached(front_door) == before


def denied(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}


@pytest.mark.usefixtures("nothing_reaches")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {VALUES['all']}"},
        {"Authorization": f"Bearer {VALUES['all']} x"},
        {"X-Api-Key": "wrong"},
    ],
)
def test_nobody_without_a_known_key_is_answered(front_door: FrontDoor, headers: dict[str, str]) -> None:
    denied(front_door.post(model="small", headers=headers), 401, "invalid_api_key")
    listed = front_door.request("GET", "/v1/models", headers=headers)
    denied(listed, 401, "invalid_api_key")
    assert listed.headers["www-authenticate"] == "Bearer"


def test_the_engine_hears_its_own_key_and_never_that_of_a_client(host: Any, front_door: FrontDoor) -> None:
    for headers in (bearer("all"), {"X-Api-Key": VALUES["all"]}, {"Authorization": f"Bearer {ENGINE}"}):
        answer = front_door.post(model="small", headers={**headers, "X-Request-ID": "who"})
        assert answer.arrived["headers"]["authorization"] == f"Bearer {ENGINE}"
        assert "x-api-key" not in answer.arrived["headers"]
    entries = [json.loads(line) for line in host.file(LOG).content_string.splitlines()]
    assert [entry["key"] for entry in entries if entry["id"] == "who"][-3:] == ["all", "all", "fleet"]
    assert VALUES["all"] not in host.check_output("cat /var/log/nginx/*.log /etc/nginx/*.conf")
    assert host.file("/etc/nginx/keys.conf").mode == 0o600


@pytest.mark.usefixtures("nothing_reaches")
def test_a_model_that_a_key_may_not_use_is_not_there(front_door: FrontDoor) -> None:
    answer = front_door.post(model="big", headers=bearer("some"))
    denied(answer, 404, "model_not_found")
    assert answer.json["error"]["message"] == "There is no such model; there are small."
    denied(front_door.post(model="huge", headers=bearer("some")), 404, "model_not_found")


def test_a_key_is_shown_its_models(front_door: FrontDoor) -> None:
    for name, models in (("all", ["small", "big", "org/Adapter", "away"]), ("some", ["small"])):
        listed = front_door.request("GET", "/v1/models", headers=bearer(name)).json["data"]
        assert [model["id"] for model in listed] == models
    assert front_door.post(model="small", headers=bearer("some")).status == 200


def test_a_key_has_so_many_requests_a_minute(front_door: FrontDoor) -> None:
    answers = [front_door.post(model="small", headers=bearer("slow")) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]  # one, and one of the burst
    denied(answers[-1], 429, "rate_limit_exceeded")
    assert answers[-1].headers["retry-after"] == "1"
    assert front_door.post(model="small", headers=bearer("all")).status == 200, "the limit is another key's"


def test_a_key_has_so_many_requests_at_once(front_door: FrontDoor) -> None:
    with ThreadPoolExecutor(4) as clients:
        wait = {"headers": bearer("few"), "tokens": 2, "interval": 1.0}
        answers = list(clients.map(lambda _: front_door.post(model="big", **wait), range(4)))
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429]
    assert front_door.post(model="big", headers=bearer("few")).status == 200


@pytest.mark.usefixtures("nothing_reaches")
def test_what_is_too_large_or_no_json_is_refused(front_door: FrontDoor) -> None:
    large = front_door.request("POST", "/v1/completions", headers={**bearer("all"), "Content-Length": str(65 * 2**20)})
    denied(large, 413, "too_large")
    denied(front_door.request("POST", "/v1/completions", b'{"model": "small"', bearer("all")), 400, "model_missing")


HIDDEN = head(f"Content-Length: {len(REQUEST)}") + REQUEST
CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(REQUEST), REQUEST)


@pytest.mark.usefixtures("nothing_reaches")
@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(head("Content-Length: 4", "Transfer-Encoding: chunked") + CHUNK + HIDDEN, 400, id="CL.TE"),
        pytest.param(head("Transfer-Encoding: chunked", "Content-Length: 4") + CHUNK + HIDDEN, 400, id="TE.CL"),
        pytest.param(head("Content-Length: 4", f"Content-Length: {len(REQUEST)}") + REQUEST, 400, id="double length"),
        pytest.param(head("Content-Length: 4, 5") + REQUEST, 400, id="list of lengths"),
        pytest.param(head("Content-Length: -1") + REQUEST, 400, id="negative length"),
        pytest.param(head("Transfer-Encoding: chunked", " , identity") + CHUNK, 400, id="obs-fold"),
        pytest.param(head("Transfer-Encoding: xchunked") + CHUNK, 501, id="unknown encoding"),
        pytest.param(head("Transfer-Encoding: chunked") + b"zz\r\n" + REQUEST, 400, id="no chunk"),
        pytest.param(head(*(f"X-{number}: {'x' * 4000}" for number in range(20))), 431, id="many headers"),
        pytest.param(head("X-One: " + "x" * 60000), 431, id="long header"),
        pytest.param(b"GET /" + b"x" * 60000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, id="long line"),
        pytest.param(b"NONSENSE\r\n\r\n", 400, id="no request"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, id="TLS without TLS"),
        pytest.param(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two hosts"),
    ],
)
def test_what_could_be_understood_in_two_ways_is_refused(front_door: FrontDoor, data: bytes, status: int) -> None:
    got = raw(front_door, data)
    first, _, body = got.partition(b"\r\n\r\n")
    assert int(first.split()[1]) == status
    assert json.loads(body)["error"]["code"] == "malformed", "one answer, and the connection is closed"


@pytest.mark.usefixtures("nothing_reaches")
@pytest.mark.parametrize(
    "beginning", [head().removesuffix(b"\r\n"), head(f"Content-Length: {len(REQUEST)}") + REQUEST[:4]]
)
def test_a_client_that_drips_is_cut(front_door: FrontDoor, beginning: bytes) -> None:
    assert raw(front_door, beginning) == b"", "NGINX closes the connection"


def test_keys_change_under_open_streams(front_doors: list[FrontDoor], change: Callable[..., str]) -> None:
    both = [{"name": "all", "keys": [VALUES["all"], VALUES["new"]]}]
    masters = [door.host.check_output("cat /run/nginx.pid") for door in front_doors]
    with ThreadPoolExecutor(4 * len(front_doors)) as clients:
        options: dict[str, Any] = {"headers": bearer("all"), "stream": True, "tokens": 60, "interval": 0.25}
        streams = [clients.submit(door.post, model="big", **options) for door in front_doors for _ in range(4)]
        time.sleep(1)
        assert not change(**SETTINGS | {"nginx_lb_keys": both})
        assert {door.post(model="small", headers=bearer("new")).status for door in front_doors} == {200}
        assert {door.post(model="small", headers=bearer("all")).status for door in front_doors} == {200}
        only = [{"name": "all", "keys": [VALUES["new"]]}]
        assert not change(**SETTINGS | {"nginx_lb_keys": only})
        assert {door.post(model="small", headers=bearer("all")).status for door in front_doors} == {401}
    assert [stream.result().tokens for stream in streams] == [60] * len(streams)
    assert [door.host.check_output("cat /run/nginx.pid") for door in front_doors] == masters


def test_a_change_of_keys_shows_no_key(converge: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    told = converge("--check", "--diff", "-vvv", "--extra-vars", json.dumps(SETTINGS)).stdout
    assert "keys.conf" in told
    # -vvv shows what was given as --extra-vars; the hashes and the engines' header are what the role makes of it.
    assert "Bearer engine" not in told
