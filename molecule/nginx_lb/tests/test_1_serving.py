"""NGINX in front of the models `small` and `big`, with two servers each, and `away`, which has none."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from front_door import Answer, FrontDoor

SERVERS = {"small": {9001, 9002}, "big": {9003, 9004}}
LOG = "/var/log/nginx/access.log"


def at_once(number: int, front_door: FrontDoor, model: str) -> list[Answer]:
    with ThreadPoolExecutor(number) as clients:
        return list(clients.map(lambda _: front_door.post(model=model, interval=0.1), range(number)))


def logged(host: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.file(LOG).content_string.splitlines()]


def test_runs_now_and_at_every_boot(host: Any) -> None:
    service = host.service("nginx")

    assert service.is_running
    assert service.is_enabled


def test_its_sandbox_is_tight(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert exposure(host, "nginx") <= 3.0


def test_listens_for_users_and_on_the_loopback_for_the_exporter(host: Any) -> None:
    sockets = [socket for socket in host.socket.get_listening_sockets() if socket.endswith((":80", ":8080"))]

    assert sorted(sockets) == ["tcp://0.0.0.0:80", "tcp://127.0.0.1:8080"]
    assert "Active connections" in host.check_output("curl --silent --fail http://127.0.0.1:8080/stub_status")


def test_tokens_pass_as_they_come(front_door: FrontDoor) -> None:
    answer = front_door.post(model="small", stream=True, tokens=5, interval=0.3)

    assert answer.tokens == 5
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    gaps = [later - earlier for earlier, later in zip(answer.arrivals[:5], answer.arrivals[1:5], strict=False)]
    assert len(answer.arrivals) >= 5  # the reason and [DONE] come with the last token, or right after it
    assert min(gaps) > 0.15


@pytest.mark.parametrize("model", ["small", "big"])
def test_a_request_goes_to_the_servers_of_its_model(front_door: FrontDoor, model: str) -> None:
    answers = at_once(8, front_door, model)

    assert {answer.json["model"] for answer in answers} == {model}
    assert {answer.arrived["port"] for answer in answers} == SERVERS[model]


def test_a_form_goes_to_the_servers_of_its_model(front_door: FrontDoor) -> None:
    """As recordings are sent: bytes that are no text, before and after the field."""
    sound = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    parts = [sound.encode() + b"\xff\x00\r\n", b'Content-Disposition: form-data; name="model"\r\n\r\nbig']
    parts += [b'Content-Disposition: form-data; name="prompt"\r\n\r\nHi']
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}

    assert front_door.request("POST", "/v1/completions", body, kind).json["model"] == "big"
    unnamed = front_door.request("POST", "/v1/completions", body.replace(b'"model"', b'"other"'), kind)
    assert (unnamed.status, unnamed.json["error"]["code"]) == (400, "model_missing")


def test_path_arguments_and_body_arrive_unchanged(front_door: FrontDoor) -> None:
    answer = front_door.post("/v1/completions?a=b%20c", model="big", prompt="x" * 8_000_000)

    assert answer.arrived["path"] == "/v1/completions?a=b%20c"
    assert answer.arrived["length"] > 8_000_000


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b'{"model": "huge"}', 404, "model_not_found", "there are small, big, away, org/Adapter."),
        (b'{"model": "away"}', 503, "no_server", "No server of this model answers"),
        (b'{"model": 1}', 400, "model_missing", "must be a JSON object that names its model"),
        (b"[", 400, "model_missing", "must be a JSON object that names its model"),
        (b"", 400, "model_missing", "must be a JSON object that names its model"),
    ],
)
def test_a_request_that_no_server_can_answer_is_told_why(
    front_door: FrontDoor, body: bytes, status: int, code: str, message: str
) -> None:
    answer = front_door.request("POST", "/v1/chat/completions", body)

    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["code"] == code
    assert message in answer.json["error"]["message"]


def test_a_body_that_is_too_large_is_refused(front_door: FrontDoor) -> None:
    answer = front_door.request("POST", "/v1/chat/completions", headers={"Content-Length": str(65 * 2**20)})

    assert (answer.status, answer.json["error"]["code"]) == (413, "too_large")


def test_lists_the_models(front_door: FrontDoor) -> None:
    assert [model["id"] for model in front_door.get("/v1/models").json["data"]] == [
        "small",
        "big",
        "org/Adapter",
        "away",
    ]


def test_answers_for_its_own_health(front_door: FrontDoor) -> None:
    assert front_door.get("/health").body == b"ok\n"


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/invocations", "/tokenize", "/docs", "/sleep", "/v1", "/v1/../metrics", "/v1/load_lora_adapter",
     "/health/", "/stub_status", "/v2/models"],
)  # fmt: skip
def test_all_other_paths_are_closed(front_door: FrontDoor, path: str) -> None:
    answer = front_door.post(path, model="small")

    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


def test_a_request_keeps_its_id_and_key(front_door: FrontDoor) -> None:
    answer = front_door.post(model="small", headers={"X-Request-ID": "id-1", "Authorization": "Bearer key-1"})

    assert answer.headers["x-request-id"] == "id-1"
    assert answer.arrived["headers"]["x-request-id"] == "id-1"
    assert answer.arrived["headers"]["authorization"] == "Bearer key-1"


def test_a_request_without_a_fit_id_gets_one(front_door: FrontDoor) -> None:
    answer = front_door.post(model="small", headers={"X-Request-ID": 'no "id"'})

    assert len(answer.headers["x-request-id"]) == 32
    assert answer.arrived["headers"]["x-request-id"] == answer.headers["x-request-id"]


def test_a_request_stays_in_its_trace(host: Any, front_door: FrontDoor) -> None:
    trace, state = f"00-{'a1' * 16}-{'b2' * 8}-00", "vendor=1"
    arrived = front_door.post(model="small", headers={"traceparent": trace, "tracestate": state}).arrived["headers"]

    assert (arrived["traceparent"], arrived["tracestate"]) == (trace, state)
    entry = logged(host)[-1]
    assert (entry["traceparent"], entry["trace_id"]) == (trace, "a1" * 16)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "",
        "00-not-a-trace",
        f"00-{'0' * 32}-{'b2' * 8}-01",  # no trace
        f"00-{'a1' * 16}-{'0' * 16}-01",  # no span
        f"00-{'A1' * 16}-{'b2' * 8}-01",
        f"00-{'a1' * 16}-{'b2' * 8}-01-more",  # version 00 has no more
        f"ff-{'a1' * 16}-{'b2' * 8}-01",
        f'00-{"a1" * 16}-{"b2" * 8}-01"}}',
    ],
)
def test_a_request_without_a_trace_begins_one(host: Any, front_door: FrontDoor, wrong: str | None) -> None:
    headers = {"tracestate": "vendor=1", "X-Request-ID": "id-3"} | ({} if wrong is None else {"traceparent": wrong})
    arrived = front_door.post(model="small", headers=headers).arrived["headers"]

    made = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-01", arrived["traceparent"])
    assert made
    assert made[1] != "a1" * 16
    assert "tracestate" not in arrived, "it is that of another trace"
    entry = logged(host)[-1]
    assert (entry["id"], entry["trace_id"], entry["traceparent"]) == ("id-3", made[1], made[0])


def test_a_trace_of_a_later_version_goes_on(front_door: FrontDoor) -> None:
    trace = f"01-{'a1' * 16}-{'b2' * 8}-01-what.nobody-knows"
    assert front_door.post(model="small", headers={"traceparent": trace}).arrived["headers"]["traceparent"] == trace


def test_a_request_without_any_id_has_that_of_its_trace(front_door: FrontDoor) -> None:
    answer = front_door.post(model="small")
    assert answer.headers["x-request-id"] == answer.arrived["headers"]["traceparent"].split("-")[1]


def test_the_log_has_the_timings_and_no_secrets(host: Any, front_door: FrontDoor) -> None:
    front_door.post(
        "/v1/completions?key-2", {"X-Request-ID": "id-2", "Authorization": "Bearer key-2"}, model="big", interval=0.2
    )

    entry = [entry for entry in logged(host) if entry["id"] == "id-2"][-1]
    assert (entry["path"], entry["status"], entry["model"]) == ("/v1/completions", 200, "big")
    assert entry["server"] in ["127.0.0.1:9003", "127.0.0.1:9004"]
    assert entry["seconds"] > 0.1
    assert float(entry["server_first_byte_seconds"]) > 0.1
    assert "key-2" not in host.file(LOG).content_string


def test_a_busy_server_is_followed_by_another(host: Any, front_door: FrontDoor) -> None:
    answers = [front_door.post(model="small", busy=9001) for _ in range(4)]

    assert {(answer.status, answer.arrived["port"]) for answer in answers} == {(200, 9002)}
    assert '"server_status":"503, 200"' in host.file(LOG).content_string


def test_reloads_keep_streams(host: Any, front_door: FrontDoor) -> None:
    """20 of them under 64 streams; of the requests that come meanwhile none fails either."""
    with ThreadPoolExecutor(64) as clients:
        wish: dict[str, Any] = {"model": "small", "stream": True, "tokens": 30, "interval": 0.3}
        streams = [clients.submit(front_door.post, **wish) for _ in range(64)]
        time.sleep(1)
        host.check_output("systemctl reload nginx")
        while "shutting down" not in host.check_output("ps -C nginx -o args="):
            assert not any(stream.done() for stream in streams), "no worker stayed for the streams"
            time.sleep(0.2)
        for _ in range(19):
            assert front_door.post(model="small").status == 200
            host.check_output("systemctl reload nginx")

    assert [stream.result().tokens for stream in streams] == [30] * 64


def test_no_request_fails_when_a_server_is_killed(host: Any, front_door: FrontDoor) -> None:
    """Neither those that it was computing nor those that come while it is away; afterwards it gets its share again."""
    end = time.monotonic() + 3

    def client(_: int) -> list[Answer]:
        answers = []
        while time.monotonic() < end:
            answers.append(front_door.post(model="big", interval=0.1))
        return answers

    with ThreadPoolExecutor(8) as clients:
        results = clients.map(client, range(8))
        time.sleep(1)
        host.check_output("systemctl kill --signal=SIGKILL upstream@9003")
        answers = [answer for answers in results for answer in answers]

    assert {answer.status for answer in answers} == {200}

    deadline = time.monotonic() + 10
    while {answer.arrived["port"] for answer in at_once(8, front_door, "big")} != SERVERS["big"]:
        assert time.monotonic() < deadline


def test_an_outage_is_told_and_ends_when_the_servers_are_back(host: Any, front_door: FrontDoor) -> None:
    host.check_output("systemctl stop upstream@9003 upstream@9004")
    answer = front_door.post(model="big")
    assert (answer.status, answer.json["error"]["code"]) == (503, "no_server")

    host.check_output("systemctl start upstream@9003 upstream@9004")
    deadline = time.monotonic() + 5
    while (answer := front_door.post(model="big")).status != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def test_comes_back_after_a_crash(host: Any, front_door: FrontDoor) -> None:
    host.check_output("systemctl kill --signal=SIGKILL nginx")

    deadline = time.monotonic() + 10
    while not host.run("curl --silent --fail http://127.0.0.1/health").succeeded:
        assert time.monotonic() < deadline, host.check_output("journalctl --unit nginx")
        time.sleep(0.2)
    assert front_door.post(model="small").status == 200
