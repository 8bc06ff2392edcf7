"""NVIDIA's exporter by dnf: the stand-in for it, which tells what the real one has told elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = "datacenter-gpu-manager-exporter datacenter-gpu-manager-4-core"
NEWER = "4.9.0"


def test_runs_now_and_at_every_boot_in_a_sandbox(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert host.service("nvidia-dcgm-exporter").is_running
    assert host.service("nvidia-dcgm-exporter").is_enabled
    assert exposure(host, "nvidia-dcgm-exporter") <= 3.0
    assert "\nDCGM_FI_DEV_GPU_TEMP{" in host.check_output("curl --silent --fail http://127.0.0.1:9400/metrics")


def test_both_packages_stay_at_the_versions_that_belong_together(host: Any) -> None:
    query = "rpm --query --queryformat '%{EPOCHNUM}:%{VERSION}\\n' "
    assert host.check_output(query + NAMES).splitlines() == ["0:4.8.3", "1:4.6.0"]
    assert NEWER in host.check_output("dnf --quiet --disableplugin=versionlock list --available")
    assert NEWER not in host.run("dnf --assumeno upgrade").stdout
