"""Jaeger as the role runs it: the real program, which keeps spans in its own store."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION = "/etc/jaeger/config.yaml"
SPANS = "http://127.0.0.1:4318/v1/traces"
PORTS = {
    "tcp://127.0.0.1:16686",  # pages and API
    "tcp://127.0.0.1:16685",
    "tcp://127.0.0.2:4317",
    "tcp://127.0.0.1:4318",
    "tcp://127.0.0.1:8888",  # its metrics
    "tcp://127.0.0.1:13133",  # its health
}


def send(host: Any) -> str:
    """Send a span as an engine does; returns the ID of its trace."""
    trace, now = uuid.uuid4().hex, time.time_ns()
    span = {
        "traceId": trace,
        "spanId": trace[:16],
        "name": "llm_request",
        "kind": 2,
        "startTimeUnixNano": str(now - 10**9),
        "endTimeUnixNano": str(now),
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "tiny"}}]}
    body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]})
    host.check_output("curl --silent --fail --json %s %s", body, SPANS)
    return trace


def found(host: Any, trace: str) -> list[str]:
    """Names of the spans of a trace."""
    deadline = time.monotonic() + 20
    while True:
        answer = host.run("curl --silent http://127.0.0.1:16686/api/traces/%s", trace).stdout
        if data := json.loads(answer or "{}").get("data"):
            return [span["operationName"] for span in data[0]["spans"]]
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)


def test_runs_now_and_at_every_boot(host: Any) -> None:
    assert host.service("jaeger").is_running
    assert host.service("jaeger").is_enabled


def test_listens_on_the_given_addresses_only(host: Any) -> None:
    names = host.check_output("ss --listening --tcp --numeric --processes --no-header").splitlines()
    assert {f"tcp://{line.split()[3]}" for line in names if '"jaeger"' in line} == PORTS


def test_keeps_spans_over_a_restart(host: Any) -> None:
    trace = send(host)
    assert found(host, trace) == ["llm_request"]
    host.check_output("systemctl restart jaeger")
    assert found(host, trace) == ["llm_request"]
    assert host.check_output("stat --format='%a %U' /var/lib/jaeger") == "700 jaeger"


def test_tells_prometheus_of_its_spans(host: Any) -> None:
    found(host, send(host))
    assert re.search(r"^otelcol_receiver_accepted_spans\S* [1-9]", metrics(host), re.MULTILINE), metrics(host)


def metrics(host: Any) -> str:
    return host.check_output("curl --silent --fail http://127.0.0.1:8888/metrics")


def test_is_in_a_sandbox(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert exposure(host, "jaeger") <= 3.0


def test_what_jaeger_refuses_never_takes_the_place_of_the_old_one(hosts: list[Any], change: Callable[..., str]) -> None:
    before = [host.file(CONFIGURATION).sha256sum for host in hosts]

    assert "does not validate as url" in change(jaeger_opensearch_urls=["::"])

    assert [host.file(CONFIGURATION).sha256sum for host in hosts] == before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"jaeger_retention": "7d"}, "jaeger_retention is '7d'; it must be a time in hours or minutes, as in 168h."),
        ({"jaeger_version": "1.76.0"}, "jaeger_version is '1.76.0'; it must be a version of Jaeger 2"),
        ({"jaeger_http_listen_address": "4318"}, "jaeger_http_listen_address must be an address and a port"),
    ],
)
def test_variables_that_jaeger_would_understand_otherwise_are_checked(
    change: Callable[..., str], variables: dict[str, Any], message: str
) -> None:
    assert message in re.sub(r"\s+", " ", change(**variables))


def test_a_version_that_is_not_there_changes_nothing_and_says_what_to_do(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    said = re.sub(r"\s+", " ", change(jaeger_version="2.99.0"))

    assert "a version that there is, jaeger_version" in said
    assert all(host.service("jaeger").is_running for host in hosts)


def test_traces_may_be_kept_in_opensearch(hosts: list[Any], change: Callable[..., str]) -> None:
    """A server that answers what Jaeger asks before it works; the password comes by systemd, from a file of root."""
    for host in hosts:
        host.check_output("printf s3cret | install -m 600 /dev/stdin /etc/jaeger/opensearch-password")
        host.check_output("systemd-run --unit=opensearch --quiet python3 -c %s", OPENSEARCH)

    variables = {"jaeger_opensearch_urls": ["http://127.0.0.1:9200"], "jaeger_opensearch_user": "tracer"}
    assert not change(**variables)

    for host in hosts:
        said = host.check_output("journalctl --no-pager --output=cat --unit=opensearch")
        assert "GET / Basic dHJhY2VyOnMzY3JldA==" in said
        assert "s3cret" not in host.file(CONFIGURATION).content_string


OPENSEARCH = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        print(self.command, self.path, self.headers["Authorization"], flush=True)
        version = {"number": "2.19.0", "distribution": "opensearch"}
        said = {"version": version, "tagline": "The OpenSearch Project: https://opensearch.org/", "acknowledged": True}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")
    do_GET = do_HEAD = do_PUT = do_POST = answer
http.server.ThreadingHTTPServer(("127.0.0.1", 9200), Handler).serve_forever()
"""
