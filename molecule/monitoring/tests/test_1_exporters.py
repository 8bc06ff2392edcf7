"""node_exporter as the role runs it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ARGUMENTS = "/etc/default/prometheus-node-exporter"
METRICS = "curl --silent --fail http://127.0.0.2:9100/metrics"


def test_runs_now_and_at_every_boot(host: Any) -> None:
    service = host.service("prometheus-node-exporter")

    assert service.is_running
    assert service.is_enabled


def test_listens_on_the_given_address_only(host: Any) -> None:
    sockets = host.socket.get_listening_sockets()

    assert [socket for socket in sockets if socket.endswith(":9100")] == ["tcp://127.0.0.2:9100"]


def test_answers_with_the_chosen_collectors(host: Any) -> None:
    metrics = host.check_output(METRICS)

    assert 'node_scrape_collector_success{collector="cpu"} 1' in metrics
    assert 'collector="arp"' not in metrics
    assert "node_memory_MemAvailable_bytes" in metrics
    assert 'node_systemd_unit_state{name="ssh.service",state="active"' in metrics


def test_adds_what_keepers_of_engines_tell_and_misses_nothing_where_there_are_none(host: Any) -> None:
    assert "node_textfile_scrape_error 0" in host.check_output(METRICS)
    host.check_output("mkdir -m 755 /run/vllm/tiny-1 && echo 'gpuhosts_keeper_epoch 7' >/run/vllm/tiny-1/keeper.prom")
    assert "gpuhosts_keeper_epoch 7" in host.check_output(METRICS)
    host.check_output("rm -r /run/vllm/tiny-1")


def test_is_in_a_sandbox_in_which_every_collector_works(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert exposure(host, "prometheus-node-exporter") <= 3.0
    assert "node_timex_sync_status " in host.check_output(METRICS)
    failed = re.findall(r'node_scrape_collector_success\{collector="(\w+)"\} 0', host.check_output(METRICS))
    assert set(failed) <= {"edac", "hwmon", "infiniband", "nvme", "pressure"}, "what a container may have none of"


def test_arguments_that_the_program_does_not_know_are_refused(hosts: list[Any], change: Callable[..., str]) -> None:
    before = [host.file(ARGUMENTS).sha256sum for host in hosts]

    assert "unknown long flag '--collector.nonsense'" in change(exporters_node_collectors=["nonsense"])

    assert [host.file(ARGUMENTS).sha256sum for host in hosts] == before
