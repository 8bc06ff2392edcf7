"""What no exporter has, and the exporter of NGINX, beside a real front door."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = "curl --silent --fail http://127.0.0.2:9100/metrics"
REQUEST = (
    "curl --silent --output /dev/null --write-out '%{http_code}' --header 'Content-Type: application/json'"
    ' --data \'{"model": "MODEL"}\' http://127.0.0.2/v1/completions'
)
# A server that answers every POST with 501, and has the metrics of an engine.
STATE = "/var/lib/gpuhosts-front-door/state.json"
SERVER = "systemd-run --quiet --collect --unit=server --working-directory=/srv/engine python3 -m http.server 9001"


def told(host: Any, metric: str) -> float | None:
    """The value of one sample; None: there is none."""
    match = re.search(f"^{re.escape(metric)} (\\S+)$", host.check_output(METRICS), re.MULTILINE)
    return float(match[1]) if match else None


def wait_for(host: Any, metric: str, value: float) -> None:
    """Told every 15 s."""
    deadline = time.monotonic() + 40
    while told(host, metric) != value:
        assert time.monotonic() < deadline, (metric, told(host, metric))
        time.sleep(1)


@pytest.mark.parametrize("name", ["gpuhosts-metrics", "prometheus-nginx-exporter"])
def test_runs_now_and_at_every_boot_as_nobody_who_matters_in_a_sandbox(
    host: Any, name: str, exposure: Callable[[Any, str], float]
) -> None:
    assert host.service(name).is_running
    assert host.service(name).is_enabled
    assert host.check_output("systemctl show --value --property=User %s", name) != "root"
    assert exposure(host, name) <= 3.0


def test_every_part_has_told_all_that_it_has_and_node_exporter_hands_it_on(host: Any) -> None:
    text = host.check_output(METRICS)
    now = float(host.check_output("date +%s"))
    ran = dict(re.findall(r'^gpuhosts_metrics_last_run_timestamp_seconds\{part="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert set(ran) == {"engines", "front_door", "gpu", "host"}
    assert min(map(float, ran.values())) > now - 60
    assert "node_textfile_scrape_error 0" in text
    assert told(host, "gpuhosts_reboot_pending") == 0
    assert now - 3600 < (told(host, "gpuhosts_last_converged_timestamp_seconds") or 0) <= now
    assert (told(host, "gpuhosts_model_store_size_bytes") or 0) > (told(host, "gpuhosts_model_store_free_bytes") or 0)
    expiry = 'gpuhosts_certificate_expiry_timestamp_seconds{path="%s"}'
    assert (told(host, expiry % "/etc/ssl/certs/ca-certificates.crt") or 0) > 1e9
    assert told(host, expiry % "/etc/ssl/nowhere.pem") == 0


def test_the_exporter_of_nginx_sees_it_and_listens_on_its_address_only(host: Any) -> None:
    sockets = host.socket.get_listening_sockets()
    assert [one for one in sockets if one.endswith(":9113")] == ["tcp://127.0.0.2:9113"]
    assert "nginx_up 1" in host.check_output("curl --silent --fail http://127.0.0.2:9113/metrics")


def test_requests_are_told_by_model_and_status_also_where_no_server_answers(host: Any) -> None:
    host.check_output("mkdir -p /srv/engine && touch /srv/engine/health")
    host.check_output(
        'echo \'vllm:cache_config_info{engine="0",kv_cache_size_tokens="4096"} 1.0\' >/srv/engine/metrics'
    )
    host.check_output(SERVER)
    host.check_output("curl --silent --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:9001/metrics")
    # The front door has seen that it is well, and NGINX has taken that up.
    host.check_output(f"timeout 20 sh -c 'while grep -q 127.0.0.1:9001 {STATE}; do sleep 0.2; done' && sleep 1")
    before = [
        told(host, f'gpuhosts_front_door_requests_total{{model="{name}",status="{status}"}}') or 0
        for name, status in (("tiny", 501), ("away", 503))
    ]

    assert host.check_output(REQUEST.replace("MODEL", "tiny")) == "501"
    assert host.check_output(REQUEST.replace("MODEL", "away")) == "503"

    wait_for(host, 'gpuhosts_front_door_requests_total{model="away",status="503"}', before[1] + 1)
    wait_for(host, 'gpuhosts_front_door_requests_total{model="tiny",status="501"}', before[0] + 1)
    assert told(host, 'gpuhosts_front_door_first_byte_seconds_count{model="tiny"}') == before[0] + 1
    assert told(host, 'gpuhosts_front_door_seconds_count{model="away"}') == before[1] + 1
    labels = '{instance_id="tiny-1",model="tiny"}'
    assert told(host, f"gpuhosts_engine_kv_cache_tokens_planned{labels}") == 5000
    wait_for(host, f"gpuhosts_engine_kv_cache_tokens_effective{labels}", 4096)
    host.check_output("systemctl stop server")


def test_what_it_has_told_goes_when_it_stops(host: Any) -> None:
    host.check_output("systemctl stop gpuhosts-metrics")
    assert "gpuhosts_reboot_pending" not in host.check_output(METRICS)
    assert "node_textfile_scrape_error 0" in host.check_output(METRICS)
    host.check_output("systemctl start gpuhosts-metrics")
    assert told(host, "gpuhosts_reboot_pending") == 0
