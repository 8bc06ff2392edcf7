"""NVIDIA's exporter as the role runs it on Debian 12: a stand-in, which tells what the real one has told elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = "curl --silent --fail http://127.0.0.2:9400/metrics"
ROOT = Path(__file__).resolve().parents[3]
COUNTERS = (ROOT / "roles/exporters/files/dcgm-counters.csv").read_text()
RECORDED = (ROOT / "tests/unit/fixtures/metrics/dcgm-exporter-l40s.prom").read_text()


@pytest.fixture(scope="module")
def gpu_host(hosts: list[Any]) -> Any:
    """The host that NVIDIA has packages for."""
    (host,) = (host for host in hosts if host.check_output("hostname") == "bookworm")
    return host


def names(text: str) -> set[str]:
    """Metrics and counters at the beginning of lines."""
    return set(re.findall(r"^(DCGM_\w+)", text, re.MULTILINE))


def test_runs_now_and_at_every_boot_in_a_sandbox(gpu_host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert gpu_host.service("nvidia-dcgm-exporter").is_running
    assert gpu_host.service("nvidia-dcgm-exporter").is_enabled
    assert exposure(gpu_host, "nvidia-dcgm-exporter") <= 3.0
    assert not gpu_host.file("/var/log/dcgm-exporter.log").exists, "which nothing rotates"


def test_listens_on_the_given_address_only(gpu_host: Any) -> None:
    sockets = gpu_host.socket.get_listening_sockets()

    assert [socket for socket in sockets if socket.endswith(":9400")] == ["tcp://127.0.0.2:9400"]


def test_tells_the_counters_of_the_role_and_nobody_else_does(gpu_host: Any) -> None:
    told = names(gpu_host.check_output(METRICS))

    assert told == names(COUNTERS) & names(RECORDED)
    assert len(told) > 10
    assert not names(gpu_host.check_output("curl --silent --fail http://127.0.0.2:9100/metrics"))


def test_both_packages_stay_at_the_versions_that_belong_together(gpu_host: Any) -> None:
    query = "dpkg-query --show --showformat '${Package} ${Version}\\n' 'datacenter-gpu-manager*'"
    assert set(gpu_host.check_output(query).splitlines()) == {
        "datacenter-gpu-manager-4-core 1:4.6.0-1",
        "datacenter-gpu-manager-exporter 4.8.3-1",
    }
    upgrade = gpu_host.check_output("apt-get --simulate dist-upgrade")
    assert not [line for line in upgrade.splitlines() if line.startswith("Inst datacenter-gpu-manager")]


def test_a_host_without_packages_of_nvidias_is_told_what_to_do(change: Callable[..., str]) -> None:
    said = " ".join(change(exporters_gpu_source="dcgm").split())

    assert "NVIDIA has no package datacenter-gpu-manager-exporter for Debian 13" in said
    assert "Set it to nvml, which gives the same names." in said


def test_a_host_goes_back_to_nvml_and_nothing_of_it_stays(gpu_host: Any, change: Callable[..., str]) -> None:
    assert not change(exporters_gpu_source="nvml")

    assert not gpu_host.service("nvidia-dcgm-exporter").exists
    assert gpu_host.run("dpkg-query --list 'datacenter-gpu-manager*' | grep '^[ir]'").rc
    assert gpu_host.run("find /etc -name '*dcgm*' -not -name '*.list'").stdout == ""
    assert gpu_host.run(METRICS).rc
