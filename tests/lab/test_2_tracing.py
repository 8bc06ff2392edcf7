"""A request through the front door is found in Jaeger, with what the engine did, by the ID in NGINX's log."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from .conftest import machine
from .settings import REPORTS, STATE
from .show import FRONT_DOOR

LOG = "/var/log/nginx/access.log"
BOUND = 1 << 63  # of the lower half of a trace's ID: the plan traces half of the requests


def complete(**headers: str) -> str:
    """Have a completion; returns the ID of the request."""
    key = (STATE / "api_key").read_text().strip()
    connection = http.client.HTTPConnection(FRONT_DOOR, timeout=60)
    try:
        body = json.dumps({"model": "tiny-llama", "prompt": "Hi", "max_tokens": 4})
        given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
        connection.request("POST", "/v1/completions", body, given)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        return str(answer.getheader("X-Request-Id"))
    finally:
        connection.close()


def logged(request: str) -> dict[str, Any]:
    """The line of NGINX's log about a request."""
    lines = machine("lb1").check_output("grep --fixed-strings %s %s", request, LOG).splitlines()
    (entry,) = (entry for entry in map(json.loads, lines) if entry["id"] == request)
    return dict(entry)


def trace(identifier: str, seconds: float = 30) -> dict[str, Any]:
    """What Jaeger has of a trace; {} if that is nothing."""
    deadline = time.monotonic() + seconds
    while True:
        answer = machine("mon1").run("curl --silent http://127.0.0.1:16686/api/traces/%s", identifier).stdout
        if data := json.loads(answer or "{}").get("data"):
            return dict(data[0])
        if time.monotonic() > deadline:
            return {}
        time.sleep(1)


def chosen(identifier: str) -> bool:
    return int(identifier[16:], 16) < BOUND


def test_a_request_is_found_by_the_id_in_the_front_doors_log() -> None:
    requests = (logged(complete()) for _ in range(20))
    entry = next(entry for entry in requests if chosen(entry["trace_id"]))

    found = trace(entry["trace_id"])

    (span,) = found["spans"]
    assert span["operationName"] == "llm_request"
    process = found["processes"][span["processID"]]
    assert process["serviceName"] == "tiny-llama"
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    assert tags["gen_ai.usage.completion_tokens"] == 4
    assert entry["id"] in tags["gen_ai.request.id"]
    assert 0 < tags["gen_ai.latency.time_to_first_token"] <= tags["gen_ai.latency.e2e"] <= entry["seconds"]
    (instance,) = (tag["value"] for tag in process["tags"] if tag["key"] == "service.instance.id")
    plan = json.loads((REPORTS / "plan.json").read_text())["instances"]
    endpoint = next(known["endpoint"] for known in plan if known["id"] == instance)
    assert entry["server"] == f"{endpoint['address']}:{endpoint['port']}"


def test_a_trace_of_the_client_goes_on_and_the_id_decides_what_is_traced() -> None:
    parent = "b2" * 8
    there, not_there = f"{'a1' * 8}{time.time_ns() % BOUND:016x}", "f" * 32
    complete(traceparent=f"00-{not_there}-{parent}-01")
    complete(traceparent=f"00-{there}-{parent}-00")

    (span,) = trace(there)["spans"]
    assert [reference["spanID"] for reference in span["references"]] == [parent]
    assert trace(not_there, seconds=0) == {}
