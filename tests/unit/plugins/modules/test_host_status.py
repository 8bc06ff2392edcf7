"""The module host_status and its action: files below another root, the stand-in for vLLM, a pretended Prometheus."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.action import host_status as action
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import present
from ansible_collections.gpuhosts.vllm.plugins.modules import host_status

from tests.stand_in.server import Settings
from tests.unit.plugins.conftest import RunModule
from tests.unit.plugins.served import serving

WORD = "prometheus_password"
NOBODY = "http://127.0.0.1:1"
# As the role nginx_lb writes and marks it.
NGINX = """\
    upstream tiny {
        zone tiny 128k;
        server 10.0.0.1:8000 max_fails=1 fail_timeout=1s; # tiny-1
        server 10.0.0.2:8000 max_fails=1 fail_timeout=1s down; # tiny-2
        keepalive 64;
    }
    upstream big {
        server 10.0.0.3:8000 max_fails=1 fail_timeout=1s down; # big-1 (maintenance)
    }
    server {
        listen 80;
        location / {
            return 404; # server 10.0.0.4:8000 down;
        }
    }
"""
METRICS = """\
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
"""
ALERT = {"labels": {"alertname": "EngineDown"}, "annotations": {}, "activeAt": "2027-01-15T08:00:00Z"}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host_status, "ROOT", tmp_path)
    return tmp_path


def put(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def place(root: Path, *entries: tuple[str, int, int]) -> None:
    """Instances by name, port and rank."""
    placed = [{"id": name, "model": "tiny", "port": port, "rank": rank, "gpus": [0]} for name, port, rank in entries]
    put(root, present.FACT, json.dumps({"version": 2, "instances": placed}))


def keep(root: Path, name: str, state: str) -> None:
    labels = f'id="{name}",rank="0"'
    put(
        root,
        f"run/vllm/{name}/keeper.prom",
        f'gpuhosts_keeper_state{{{labels},state="{state}"}} 1\ngpuhosts_keeper_epoch{{{labels}}} 1795884740917\n',
    )


@contextmanager
def answering(answer: Callable[[str, str], tuple[int, str]], certificate: Path | None = None) -> Iterator[str]:
    """The address of a server that answers a path and the words of its authorization."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def prometheus(path: str, _: str) -> tuple[int, str]:
    if urlsplit(path).path == "/api/v1/alerts":
        return 200, json.dumps(
            {"data": {"alerts": [{**ALERT, "state": "firing", "value": "1"}, {**ALERT, "state": "pending"}]}}
        )
    (query,) = parse_qs(urlsplit(path).query)["query"]
    result = [{"metric": {"model": "tiny"}, "value": [1, "0.5"]}] if query == "model:ttft_seconds:p95" else []
    return 200, json.dumps({"data": {"result": result}})


@pytest.mark.parametrize("check", [False, True])
def test_a_host_without_anything(run_module: RunModule, root: Path, check: bool) -> None:
    result = run_module(host_status, engine_address="127.0.0.1", _ansible_check_mode=check)
    assert not result["changed"]
    assert (result["engines"], result["front_door"], result["prometheus"]) == ([], None, None)
    assert result["changes"] == {"path": None, "changed_epoch": None, "run_epoch": None}
    assert result["problems"] == []
    assert list(root.iterdir()) == []


def test_an_engine_that_serves_and_one_that_is_stopped(run_module: RunModule, root: Path) -> None:
    with serving(Settings(models=["tiny"])) as engine:
        engine.counts.move(running=3, waiting=2)
        place(root, ("tiny-1", engine.server_port, 0), ("tiny-2", 1, 0), ("tiny-3", 1, 1))
        keep(root, "tiny-1", "serving")
        result = run_module(host_status, engine_address="127.0.0.1")
    one, two, three = result["engines"]
    assert one["keeper"] == {"state": "serving", "waits_for": "", "epoch": 1795884740917}
    assert (one["problem"], one["running"], one["waiting"], one["kv_cache_usage"]) == (None, 3, 2, 0)
    assert two["keeper"]["state"] is None
    assert "Connection refused" in two["problem"]
    assert "problem" not in three  # it is no head
    assert result["problems"] == []


def test_several_engines_behind_one_api(run_module: RunModule, root: Path) -> None:
    with answering(lambda path, _: (200, METRICS) if path == "/metrics" else (404, "")) as url:
        place(root, ("tiny-1", int(url.rpartition(":")[2]), 0))
        (engine,) = run_module(host_status, engine_address="127.0.0.1")["engines"]
    assert (engine["running"], engine["waiting"], engine["kv_cache_usage"]) == (5, 4, 0.5)


def test_an_engine_that_has_not_these_metrics(run_module: RunModule, root: Path) -> None:
    with answering(lambda *_: (200, "up 1\n")) as url:
        place(root, ("tiny-1", int(url.rpartition(":")[2]), 0))
        (engine,) = run_module(host_status, engine_address="127.0.0.1")["engines"]
    assert (engine["problem"], engine["running"], engine["kv_cache_usage"]) == (None, None, None)


def test_a_damaged_fact(run_module: RunModule, root: Path) -> None:
    put(root, present.FACT, '{"instances": [1')
    result = run_module(host_status, engine_address="127.0.0.1")
    assert result["engines"] == []
    assert result["problems"] == ["/etc/ansible/facts.d/gpuhosts_vllm.fact is damaged; serve.yml writes it anew"]


def test_the_servers_of_a_front_door(run_module: RunModule, root: Path) -> None:
    put(root, present.NGINX, NGINX)
    with answering(lambda *_: (200, "Active connections: 12 \nserver accepts handled requests\n")) as url:
        result = run_module(host_status, front_door_url=f"{url}/stub_status")
    assert result["front_door"] == {
        "connections": 11,
        "servers": [
            {"address": "10.0.0.1:8000", "id": "tiny-1", "model": "tiny", "drained": None},
            {"address": "10.0.0.2:8000", "id": "tiny-2", "model": "tiny", "drained": "operator"},
            {"address": "10.0.0.3:8000", "id": "big-1", "model": "big", "drained": "maintenance"},
        ],
    }


def test_a_front_door_that_is_not_there(run_module: RunModule) -> None:
    result = run_module(host_status, front_door_url=f"{NOBODY}/stub_status")
    assert result["front_door"] == {"servers": [], "connections": None}
    absent, silent = result["problems"]
    assert absent == "there is no front door yet: /etc/nginx/nginx.conf is not there"
    assert silent.startswith(f"NGINX does not answer: {NOBODY}/stub_status: ")


def test_what_prometheus_has(run_module: RunModule) -> None:
    with answering(prometheus) as url:
        found = run_module(host_status, prometheus_url=url)["prometheus"]
    assert found["ttft_p95_seconds"] == [{"labels": {"model": "tiny"}, "value": "0.5"}]
    assert found["gpus"] == []
    assert found["alerts"] == [ALERT]


def test_the_password_of_prometheus(run_module: RunModule) -> None:
    wanted = "Basic " + base64.b64encode(b"prometheus:secret").decode()

    def guarded(path: str, authorization: str) -> tuple[int, str]:
        return prometheus(path, "") if authorization == wanted else (401, "")

    with answering(guarded) as url:
        assert run_module(host_status, prometheus_url=url, **{WORD: "secret"})["prometheus"]
        refused = run_module(host_status, prometheus_url=url, **{WORD: "wrong"})
    assert refused["prometheus"] is None
    (problem,) = refused["problems"]
    assert problem == f"Prometheus does not answer: {url}/api/v1/query: HTTP 401; set prometheus_password"


def test_services_that_are_ill(run_module: RunModule) -> None:
    with answering(lambda *_: (503, "")) as url:
        result = run_module(host_status, prometheus_url=url, alertmanager_url=url)
    assert (result["prometheus"], result["silenced"]) == (None, [])
    assert result["problems"] == [
        f"Prometheus does not answer: {url}/api/v1/query: HTTP 503",
        f"Alertmanager does not answer: {url}/api/v2/alerts: HTTP 503",
    ]


def test_a_certificate_of_another_name(run_module: RunModule, tmp_path: Path) -> None:
    pem = tmp_path / "own.pem"
    certificate = tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    named = ["-subj", "/CN=mon1.example.com", "-keyout", str(pem), "-out", str(certificate)]
    subprocess.run([*made, *named], check=True, capture_output=True)
    pem.write_text(pem.read_text() + certificate.read_text())
    with answering(prometheus, pem) as url:
        result = run_module(host_status, prometheus_url=url)
    assert (result["problems"], result["prometheus"]["alerts"]) == ([], [ALERT])


@pytest.mark.parametrize("text", ["no JSON", '{"data": 1}', '{"status": null}'])
def test_what_answers_otherwise(run_module: RunModule, text: str) -> None:
    with answering(lambda *_: (200, text)) as url:
        result = run_module(host_status, prometheus_url=url, alertmanager_url=url)
    assert (result["prometheus"], result["silenced"]) == (None, [])
    assert result["problems"] == [f"what answers at {url} is no {name}" for name in ("Prometheus", "Alertmanager")]


def test_silenced_alerts(run_module: RunModule) -> None:
    asked = []

    def alertmanager(path: str, _: str) -> tuple[int, str]:
        asked.append(path)
        return 200, json.dumps([{"labels": {"alertname": "EngineDown"}, "status": {"state": "suppressed"}}])

    with answering(alertmanager) as url:
        assert run_module(host_status, alertmanager_url=f"{url}/")["silenced"] == [{"alertname": "EngineDown"}]
    assert asked == ["/api/v2/alerts?active=false&silenced=true&inhibited=false"]


def test_the_youngest_file_is_the_last_change(run_module: RunModule, root: Path) -> None:
    for path, epoch in ((present.FACT, 100), ("etc/vllm/instances/tiny-1.yaml", 300), (present.NGINX, 200)):
        os.utime(put(root, path, "{}"), (epoch, epoch))
    os.utime(put(root, present.CONVERGED, ""), (400, 400))
    assert run_module(host_status)["changes"] == {
        "path": "/etc/vllm/instances/tiny-1.yaml",
        "changed_epoch": 300,
        "run_epoch": 400,
    }


@pytest.mark.parametrize(
    ("module", "result"),
    [
        ({"return_value": {"changed": False, "engines": []}}, {"changed": False, "engines": []}),
        (
            {"side_effect": AnsibleConnectionFailure("Failed to connect:\n  No route to host")},
            {"changed": False, "unreached": "Failed to connect: No route to host"},
        ),
        (
            {"return_value": {"failed": True, "msg": "Task failed: no Python"}},
            {"changed": False, "unread": "no Python"},
        ),
    ],
    ids=["there", "away", "without Python"],
)
def test_a_host_that_is_away_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, module: dict[str, Any], result: dict[str, Any]
) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    plugin = action.ActionModule(Mock(args={}), *[Mock() for _ in range(5)])
    monkeypatch.setattr(plugin, "_execute_module", Mock(**module))
    assert plugin.run(task_vars={}) == result
