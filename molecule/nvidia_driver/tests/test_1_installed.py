"""The driver as the role has installed it, on hosts with NVSwitches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from driver import COMPANIONS, DRIVER, NEXT_BRANCH, OLD, driver_packages, loaded, on_disk, packages

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect('/run/nvidia-persistenced/socket')"


def test_driver_and_companions_have_the_same_version_though_a_newer_branch_is_there(host: Any) -> None:
    assert NEXT_BRANCH in host.check_output("apt-cache madison nvidia-imex")
    assert driver_packages(host) == {OLD}
    assert set(DRIVER + COMPANIONS) <= set(packages(host))


def test_the_kernel_module_is_built_and_loaded_without_a_reboot(host: Any) -> None:
    assert (on_disk(host), loaded(host)) == (OLD, OLD)
    assert "Open Kernel Module" in host.file("/proc/driver/nvidia/version").content_string
    assert host.check_output("nvidia-smi") == f"Driver Version: {OLD}  GPUs: 2"


@pytest.mark.parametrize("name", ["nvidia-persistenced", "nvidia-fabricmanager"])
def test_services_run_now_and_at_every_boot(host: Any, name: str) -> None:
    service = host.service(name)

    assert service.is_running
    assert service.is_enabled


def test_the_persistence_daemon_runs_in_a_sandbox_that_lets_it_load_the_module(
    host: Any, exposure: Callable[[Any, str], float]
) -> None:
    pid = host.check_output("systemctl show --property=MainPID --value nvidia-persistenced")
    status = host.check_output(f"cat /proc/{pid}/status")

    assert exposure(host, "nvidia-persistenced") <= 3.0
    assert "Seccomp:\t2" in status, "it was started before its sandbox was there"
    assert "NoNewPrivs:\t0" in status, "nvidia-modprobe is setuid"
    host.check_output("python3 -c %s", CONNECT)


def test_packages_come_from_the_mirror_and_not_from_nvidias_own_servers(host: Any) -> None:
    sources = host.check_output("cat /etc/apt/sources.list.d/*")

    assert "http://172.29.250.2/nvidia/cuda/repos/debian" in sources
    assert "developer.download.nvidia.com" not in sources


@pytest.mark.parametrize("command", ["upgrade", "dist-upgrade"])
@pytest.mark.parametrize("options", ["", "-o Dir::Etc::PreferencesParts=/nowhere"], ids=["pinned", "held only"])
def test_an_upgrade_of_the_host_leaves_the_driver_alone(host: Any, command: str, options: str) -> None:
    host.check_output("apt-get update")

    host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get --yes {options} {command}")

    assert driver_packages(host) == {OLD}


def test_a_companion_that_is_installed_by_hand_does_not_bring_the_next_branch_in(host: Any) -> None:
    """nvidia-imex asks for any nvidia-modprobe, and NVIDIA's own pin does not cover it."""
    assert f"Inst nvidia-imex ({OLD}" in host.check_output("apt-get --simulate install nvidia-imex")


def test_unattended_upgrades_leave_the_driver_alone(host: Any) -> None:
    blacklist = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")

    assert '"nvidia-";' in blacklist
    assert '"libnvidia-";' in blacklist


def test_nouveau_is_kept_off(host: Any) -> None:
    assert "options nouveau modeset=0" in host.check_output("modprobe --showconfig")
