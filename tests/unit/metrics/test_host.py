"""What gpuhosts-metrics tells of a host beside its GPUs."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import metrics_host
import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import present
from metrics_text import Metrics, samples

CONF = """
    upstream tiny {
        server 10.0.0.1:8000 max_fails=1 fail_timeout=1s; # tiny-1
        server 10.0.0.2:8000 max_fails=1 fail_timeout=1s down; # tiny-2
        server 10.0.0.3:8000 max_fails=1 fail_timeout=1s down; # tiny-3 (maintenance)
    }
    server {
        listen 80;
    }
"""
SETTINGS: dict[str, Any] = {
    "model_store": "",
    "certificates": [],
    "converged": "/var/lib/gpuhosts/converged",
    "front_door_log": "",
    "front_door_configuration": "/nginx.conf",
}


def told(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {tuple(labels.values()): value for labels, value in samples(metrics.text(), name)}


def test_engines_are_held_against_the_plan(stand_in_metrics: str) -> None:
    metrics = Metrics()
    metrics_host.engines(
        metrics,
        [
            {"id": "a-1", "model": "a", "url": stand_in_metrics, "planned": 5000},
            {"id": "b-1", "model": "b", "url": "http://127.0.0.1:9", "planned": None},
        ],
    )
    assert told(metrics, "gpuhosts_engine_kv_cache_tokens_planned") == {("a-1", "a"): 5000}
    assert told(metrics, "gpuhosts_engine_kv_cache_tokens_effective") == {("a-1", "a"): 4096}


def test_engines_behind_one_api_are_added_up() -> None:
    one = 'vllm:cache_config_info{engine="%d",kv_cache_size_tokens="%s",num_gpu_blocks="9"} 1.0\n'
    assert metrics_host.kv_cache_tokens(one % (0, "160") + one % (1, "176")) == 336
    assert metrics_host.kv_cache_tokens(one % (0, "None")) is None
    assert metrics_host.kv_cache_tokens("") is None


@pytest.fixture
def stand_in_metrics() -> Any:
    """An API that has metrics as vLLM 0.33 writes them."""
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'vllm:cache_config_info{engine="0",kv_cache_size_tokens="4096"} 1.0\n')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("images", "pending"),
    [
        ([], False),  # a container: the kernel is another machine's
        (["vmlinuz-6.1.0-9-amd64"], True),
        (["vmlinuz-6.1.0-42-amd64", "vmlinuz-6.1.0-9-amd64"], False),
        (["vmlinuz-6.1.0-42-amd64", "vmlinuz-6.1.0-43-amd64"], True),
        (["vmlinuz-6.1.0-42-amd64", "vmlinuz-0-rescue-0123"], False),
    ],
)
def test_a_newer_kernel_waits_for_a_reboot(images: list[str], pending: bool) -> None:
    assert metrics_host.kernel_waits(images, "6.1.0-42-amd64") is pending


def test_what_packages_leave_asks_for_a_reboot(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics_host.host(metrics, SETTINGS, tmp_path)
    assert told(metrics, "gpuhosts_reboot_pending") == {(): 0}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/reboot-required").touch()
    metrics = Metrics()
    metrics_host.host(metrics, SETTINGS, tmp_path)
    assert told(metrics, "gpuhosts_reboot_pending") == {(): 1}


def test_the_room_for_models_and_the_last_run(tmp_path: Path) -> None:
    (tmp_path / "srv/models").mkdir(parents=True)
    (tmp_path / "var/lib/gpuhosts").mkdir(parents=True)
    (tmp_path / "var/lib/gpuhosts/converged").touch()
    os.utime(tmp_path / "var/lib/gpuhosts/converged", (7, 7))
    metrics = Metrics()
    metrics_host.host(metrics, {**SETTINGS, "model_store": "/srv/models"}, tmp_path)
    size = told(metrics, "gpuhosts_model_store_size_bytes")[()]
    assert 0 <= told(metrics, "gpuhosts_model_store_free_bytes")[()] < size
    assert told(metrics, "gpuhosts_last_converged_timestamp_seconds") == {(): 7}


@pytest.mark.parametrize(("said", "since"), [('{"since": 7}', {(): 7}), ("{", {(): 1}), (None, {})])
def test_an_update_that_was_rolled_back(tmp_path: Path, said: str | None, since: dict[tuple[str, ...], float]) -> None:
    mark = tmp_path / "etc/ansible/facts.d/gpuhosts_rollback.fact"
    mark.parent.mkdir(parents=True)
    if said is not None:
        mark.write_text(said)
    metrics = Metrics()
    metrics_host.host(metrics, SETTINGS, tmp_path)
    assert told(metrics, "gpuhosts_rolled_back_timestamp_seconds") == since


@pytest.mark.parametrize("days", [1, 36500])  # UTCTime; GeneralizedTime, from 2050 on
def test_when_a_certificate_expires(tmp_path: Path, days: int) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=h", "-keyout", tmp_path / "key", "-out", tmp_path / "pem", "-days", str(days)),
        ],
        check=True,
        capture_output=True,
    )
    shown = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-in", tmp_path / "pem"], check=True, capture_output=True, text=True
    ).stdout.strip()
    expected = datetime.strptime(shown, "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    metrics = Metrics()
    metrics_host.host(metrics, {**SETTINGS, "certificates": ["/pem", "/broken", "/absent"]}, tmp_path)
    assert told(metrics, "gpuhosts_certificate_expiry_timestamp_seconds") == {
        ("/pem",): expected.timestamp(),
        ("/broken",): 0,
        ("/absent",): 0,
    }


def test_the_certificate_of_a_front_door_is_watched_though_nobody_names_it(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("    ssl_certificate /a.pem;\n    ssl_certificate_key /a.key;\n")
    metrics = Metrics()
    metrics_host.host(metrics, {**SETTINGS, "front_door_log": "/access.log", "certificates": ["/b.pem"]}, tmp_path)
    name = "gpuhosts_certificate_expiry_timestamp_seconds"
    assert set(told(metrics, name)) == {("/a.pem",), ("/b.pem",)}

    metrics = Metrics()
    metrics_host.host(metrics, {**SETTINGS, "front_door_log": "/access.log", "certificates": ["/a.pem"]}, tmp_path)
    assert set(told(metrics, name)) == {("/a.pem",)}, "told once"


def test_drained_servers_are_those_of_the_configuration_since_they_were_first_seen(tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(CONF, encoding="utf-8")
    os.utime(path, (1000, 1000))
    since: dict[str, float] = {"10.0.0.3:8000 maintenance": 500, "10.0.0.9:8000 operator": 1}
    metrics = Metrics()
    metrics_host.drained_servers(metrics, path, since)
    assert told(metrics, "gpuhosts_server_drained_since_timestamp_seconds") == {
        ("10.0.0.2:8000", "operator"): 1000,
        ("10.0.0.3:8000", "maintenance"): 500,
    }
    path.write_text(CONF.replace(" down", ""), encoding="utf-8")
    metrics = Metrics()
    metrics_host.drained_servers(metrics, path, since)
    assert metrics.text() == ""
    assert since == {}


def test_status_reads_the_same_of_a_front_door() -> None:
    drained = {server["address"]: server["drained"] for server in present.servers(CONF) if server["drained"]}
    assert drained == metrics_host.servers(CONF)
    assert len(drained) == 2


def test_servers_in_service_by_model_without_those_that_are_drained(tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(
        "upstream a {\n    server 10.0.0.1:8000; # a-1\n    server 10.0.0.2:8000 down; # a-2 (health)\n}\n"
        "upstream b {\n    server 10.0.0.3:8000 down; # b-1\n    server 10.0.0.4:8000 down; # b-2 (maintenance)\n}\n"
        "upstream _affinity_a {\n    server 10.0.0.1:8000 max_conns=64; # a-1\n}\n"
        "upstream _every_server {\n    server 10.0.0.1:8000; # a-1\n    server 10.0.0.3:8000 down; # b-1\n}\n",
        encoding="utf-8",
    )
    metrics = Metrics()
    metrics_host.servers_in_service(metrics, path)
    metrics_host.drained_servers(metrics, path, {})
    assert told(metrics, "gpuhosts_server_in_service") == {("a", "10.0.0.1:8000"): 1, ("a", "10.0.0.2:8000"): 0}
    text = path.read_text()
    drained = {server["address"]: server["drained"] for server in present.servers(text) if server["drained"]}
    assert drained == metrics_host.servers(text)
    assert drained == {"10.0.0.3:8000": "operator", "10.0.0.4:8000": "maintenance"}
    assert [server["id"] for server in present.servers(text)] == ["a-1", "a-2", "b-1", "b-2"]


# As the kernel tells it, of a host that has 10.0.0.100 and whose network is 10.0.0.0/24.
ROUTES = """\
Main:
  +-- 10.0.0.0/24 2 0 2
     |-- 10.0.0.0
        /24 link UNICAST
Local:
     +-- 10.0.0.0/24 2 1 2
        |-- 10.0.0.2
           /32 host LOCAL
        |-- 10.0.0.100
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
"""


@pytest.mark.parametrize(("address", "held"), [("10.0.0.100", 1), ("10.0.0.10", 0), ("10.0.0.255", 0), ("10.0.0.0", 0)])
def test_the_kernel_says_who_holds_a_shared_address(tmp_path: Path, address: str, held: int) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/fib_trie").write_text(ROUTES)
    metrics = Metrics()
    metrics_host.front_address(metrics, address, tmp_path)
    assert told(metrics, "gpuhosts_front_address_held") == {(address,): held}
