"""Every kind of request of OpenAI's API and of vLLM's: how it finds its model, and what the front door keeps closed."""

from __future__ import annotations

import gzip
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from front_door import Answer, FrontDoor

BIG = {9003, 9004}
ORIGIN = "https://chat.example.org"


def form(*parts: str, edge: str = "edge", quoted: bool = False) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form whose parts are head and value."""
    body = b"".join(f"--{edge}\r\n{part}\r\n".encode("latin-1") for part in parts) + f"--{edge}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={json.dumps(edge) if quoted else edge}"}


def field(name: str, value: str) -> str:
    return f"Content-Disposition: form-data; {name}\r\n\r\n{value}"


SOUND = field('name="file"; filename="model"\r\nContent-Type: audio/wav', "\xff\x00" * 100_000)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        form(field('name="model"', "big"), SOUND, field('name="prompt"', "Hi")),
        form(SOUND, field('name="prompt"', "Hi"), field('name="model"', "big")),
        form(field('name="prompt"', 'form-data; name="model"\r\nsmall'), field('name="model"', "big"), quoted=True),
    ],
)
def test_a_form_names_its_model_anywhere(front_door: FrontDoor, body: bytes, headers: dict[str, str]) -> None:
    assert front_door.request("POST", "/v1/completions", body, headers).json["model"] == "big"


def test_the_name_of_a_field_needs_no_quotes(front_door: FrontDoor) -> None:
    answer = front_door.request("POST", "/v1/completions", *form(field("name=model", "nowhere")))
    assert (answer.status, answer.json["error"]["param"]) == (404, "model")


def deep(levels: int) -> Any:
    return {"properties": deep(levels - 1)} if levels else {"model": 'a "small" \\'}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"prompt": "Hi", "max_tokens": 1, "tools": [deep(60)], "model": "big"}),
        json.dumps(
            {"model": "big", "prompt": "Hi", "max_tokens": 1, "tools": [deep(60)], "suffix": '\\"model": "small"'}
        ),
        "\ufeff" + json.dumps({"model": "big", "prompt": "Hi", "max_tokens": 1}),
        '{"model": "small", "prompt": "Hi", "max_tokens": 1, "mod\\u0065l": "big"}',
    ],
    ids=["a deep schema before the model", "and behind it", "a byte order mark", "the last one counts, as for vLLM"],
)
def test_json_that_vllm_reads_is_read(front_door: FrontDoor, text: str) -> None:
    answer = front_door.request("POST", "/v1/completions", text.encode())
    assert (answer.status, answer.json.get("model")) == (200, "big"), answer.body


def test_an_adapter_is_asked_of_the_servers_of_its_model(front_door: FrontDoor) -> None:
    answer = front_door.post(model="org/Adapter")
    assert (answer.json["model"], answer.arrived["port"] in BIG) == ("org/Adapter", True)


def test_a_model_is_told_of_by_its_name(front_door: FrontDoor) -> None:
    assert front_door.get("/v1/models/big").json["id"] == "big"
    for path in ("/v1/models/org/Adapter", "/v1/models/org%2FAdapter"):
        card = front_door.get(path).json
        assert (card["id"], card["object"], card["parent"]) == ("org/Adapter", "model", "big")
    unknown = front_door.get("/v1/models/huge")
    error = unknown.json["error"]
    assert (unknown.status, error["code"], error["type"], error["param"]) == (
        404, "model_not_found", "invalid_request_error", "model",
    )  # fmt: skip


def respond(front_door: FrontDoor, **wishes: Any) -> Answer:
    body = {"model": "big", "input": "Hi", **wishes}
    return front_door.request("POST", "/v1/responses", json.dumps(body).encode())


def test_a_response_is_found_on_the_engine_that_keeps_it(front_door: FrontDoor) -> None:
    made = [respond(front_door) for _ in range(6)]
    assert {answer.arrived["port"] for answer in made} == BIG

    for answer in made:
        name = answer.json["id"]
        assert front_door.get(f"/v1/responses/{name}").json["id"] == name
        assert front_door.request("POST", f"/v1/responses/{name}/cancel").json["id"] == name
        onward = respond(front_door, previous_response_id=name)
        assert (onward.status, onward.arrived["port"]) == (200, answer.arrived["port"])


def test_a_response_that_no_engine_keeps_is_told_as_vllm_tells_it(front_door: FrontDoor) -> None:
    for answer in (front_door.get("/v1/responses/resp_0"), respond(front_door, previous_response_id="resp_0")):
        assert (answer.status, answer.json["error"]["param"]) == (404, "response_id")
    assert front_door.post(model="big").status == 200, "the servers that do not know it are none the worse for it"


def shake(front_door: FrontDoor, path: str, **headers: str) -> bytes:
    """All that comes back on a connection that is to become a websocket."""
    wanted = {
        "Host": "a",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (wanted | headers).items())]
    received = b""
    with socket.create_connection((front_door.address, front_door.port), timeout=10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"}" not in received and (piece := connection.recv(65536)):
            received += piece
    return received


def test_a_websocket_is_asked_for_with_its_model_in_the_query(front_door: FrontDoor) -> None:
    answer = shake(front_door, "/v1/realtime?intent=transcription&model=big")

    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    event = json.loads(answer[answer.index(b"{") :])
    assert (event["type"], event["port"] in BIG) == ("session.created", True)

    assert b'"model_missing"' in shake(front_door, "/v1/realtime")
    assert b'"model_not_found"' in shake(front_door, "/v1/realtime?model=huge")


def test_nothing_else_is_upgraded(front_door: FrontDoor) -> None:
    headers = {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__", "Connection": "Upgrade, HTTP2-Settings"}
    arrived = front_door.post(model="small", headers=headers).arrived["headers"]
    assert "upgrade" not in arrived


def test_a_body_that_is_packed_is_refused(front_door: FrontDoor) -> None:
    body = gzip.compress(json.dumps({"model": "big", "prompt": "Hi"}).encode())
    answer = front_door.request("POST", "/v1/completions", body, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json["error"]["code"]) == (415, "encoding_unsupported")

    assert front_door.post(model="big", headers={"Content-Encoding": "identity"}).status == 200


def test_a_client_that_asks_first_is_told_to_go_on(front_door: FrontDoor) -> None:
    body = json.dumps({"model": "big", "prompt": "Hi", "max_tokens": 1}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((front_door.address, front_door.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_methods_that_nothing_needs_are_refused(front_door: FrontDoor, method: str) -> None:
    answer = front_door.request(method, "/v1/completions")
    assert answer.status == 405
    if method != "TRACE":  # NGINX itself refuses that
        assert answer.json["error"]["code"] == "method_not_allowed"


def test_a_page_of_an_allowed_origin_may_ask_and_read(front_door: FrontDoor) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    asked |= {"Access-Control-Request-Headers": "authorization,content-type"}
    before = front_door.request("OPTIONS", "/v1/chat/completions", headers=asked)
    assert (before.status, before.headers["access-control-allow-origin"]) == (204, ORIGIN)
    assert before.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in before.headers["access-control-allow-methods"]

    answer = front_door.post(model="big", headers={"Origin": ORIGIN})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert answer.headers["access-control-expose-headers"] == "X-Request-Id"
    error = front_door.post(model="huge", headers={"Origin": ORIGIN})
    assert (error.status, error.headers["access-control-allow-origin"]) == (404, ORIGIN), "the page may read why"


@pytest.mark.parametrize("origin", ["https://evil.example.org", f"{ORIGIN}.evil.org", "null"])
def test_a_page_of_another_origin_may_not(front_door: FrontDoor, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert front_door.request("OPTIONS", "/v1/chat/completions", headers=asked).status == 405

    headers = front_door.post(model="big", headers={"Origin": origin}).headers
    assert [name for name in headers if name.startswith("access-control")] == []


def test_a_path_outside_of_v1_is_served_where_it_was_opened(front_door: FrontDoor) -> None:
    body = json.dumps({"model": "big", "query": "Hi", "documents": ["Ho"]}).encode()
    answer = front_door.request("POST", "/rerank", body)
    assert (answer.status, answer.json) == (404, {"detail": "Not Found"}), "which a server for text says, not NGINX"
    assert front_door.request("POST", "/rerank/", body).json["error"]["code"] == "not_found"
