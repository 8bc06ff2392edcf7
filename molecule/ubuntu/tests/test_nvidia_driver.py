"""The driver on Ubuntu: Canonical's, which its kernels stay with, and NVIDIA's."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from typing import Any

import pytest

# As in tests/lab/vendor/ubuntu_driver.py.
OLD, NEW = "580.159.03", "580.178.04"
NVIDIAS = ("595.71.05", "595.91.07")
KERNEL = platform.release()  # containers have it, too
FLAVOUR = re.sub(r"^[^-]+(-[0-9][^-]*)?-", "", KERNEL)
LATER = "deb [trusted=yes] http://172.29.250.2/ubuntu jammy-proposed restricted"
META, NEXT = f"{FLAVOUR}-hwe-22.04", f"99.0.0-91-{FLAVOUR}"
MODULES = "linux-modules-nvidia-580-server-open"
METAS = {f"linux-{META}", f"linux-image-{META}", f"linux-headers-{META}"}
USER_SPACE = {
    "libnvidia-compute-580-server",
    "nvidia-compute-utils-580-server",
    "nvidia-headless-no-dkms-580-server-open",
    "nvidia-kernel-common-580-server",
    "nvidia-utils-580-server",
}


@pytest.fixture(scope="session")
def canonicals(hosts: list[Any]) -> Any:
    """Some weeks later: the archive has a newer kernel and a newer driver."""
    (host,) = (host for host in hosts if host.backend.name == "ubuntu-2204")
    host.check_output(f"echo '{LATER}' >/etc/apt/sources.list.d/later.list")
    host.check_output("apt-get update")
    return host


@pytest.fixture(scope="session")
def nvidias(hosts: list[Any]) -> Any:
    (host,) = (host for host in hosts if host.backend.name == "ubuntu-2604")
    return host


def versions(host: Any) -> dict[str, str]:
    """Installed packages of drivers and kernels."""
    form = "${db:Status-Status} ${Package} ${Version}\\n"
    lines = host.check_output(f"dpkg-query --show --showformat='{form}'").splitlines()
    rows = [line.split(" ") for line in lines if "nvidia" in line or FLAVOUR in line]
    return {name: version for status, name, version in rows if status != "config-files"}


def held(host: Any) -> set[str]:
    return set(host.check_output("apt-mark showhold").split())


def would_move(host: Any) -> set[str]:
    """What an upgrade of the host would bring of drivers and kernels."""
    lines = host.check_output("apt-get --simulate dist-upgrade").splitlines()
    names = {line.split()[1] for line in lines if line.startswith("Inst")}
    return {name for name in names if "nvidia" in name or FLAVOUR in name}


def module(host: Any, kernel: str) -> str:
    return host.check_output(f"modinfo --set-version {kernel} -F version nvidia")


def test_the_module_is_canonicals_for_the_kernel_that_runs_and_for_the_hwe_kernels(canonicals: Any) -> None:
    found = versions(canonicals)
    assert {found[name].partition("-")[0] for name in USER_SPACE} == {OLD}
    assert {f"{MODULES}-{KERNEL}", f"{MODULES}-{META}"} <= set(found)
    assert module(canonicals, KERNEL) == OLD


def test_driver_modules_and_kernel_are_held_and_an_upgrade_of_the_host_leaves_them_there(canonicals: Any) -> None:
    assert METAS | USER_SPACE | {f"{MODULES}-{KERNEL}", f"{MODULES}-{META}"} <= held(canonicals)
    assert would_move(canonicals) == set()


def test_a_hold_of_the_driver_alone_would_bring_a_kernel_without_a_module(canonicals: Any) -> None:
    """The test above shows something."""
    canonicals.check_output("apt-mark unhold " + " ".join(METAS))
    moved = would_move(canonicals)
    canonicals.check_output("apt-mark hold " + " ".join(METAS))
    assert f"linux-image-{NEXT}" in moved
    assert f"{MODULES}-{NEXT}" not in moved


def test_another_version_moves_all_of_them_in_one_transaction(canonicals: Any, change: Callable[..., str]) -> None:
    before = canonicals.check_output("grep --count ^Start-Date: /var/log/apt/history.log")

    assert not change("--limit=ubuntu-2204", "--tags=nvidia_driver", nvidia_driver_version=NEW)

    after = canonicals.check_output("grep --count ^Start-Date: /var/log/apt/history.log")
    assert int(after) == int(before) + 1
    found = versions(canonicals)
    assert {found[name].partition("-")[0] for name in USER_SPACE} == {NEW}
    assert {f"linux-image-{NEXT}", f"{MODULES}-{NEXT}"} <= set(found)
    assert (module(canonicals, KERNEL), module(canonicals, NEXT)) == (NEW, NEW)
    assert METAS | USER_SPACE | {f"{MODULES}-{KERNEL}", f"{MODULES}-{NEXT}", f"{MODULES}-{META}"} <= held(canonicals)
    assert would_move(canonicals) == set()


def test_nvidias_packages_are_those_without_a_branch_in_their_names(nvidias: Any) -> None:
    names = {"libnvidia-compute", "nvidia-dkms-open", "nvidia-kernel-common", "nvidia-modprobe", "nvidia-persistenced"}
    found = versions(nvidias)
    assert {name: found[name].partition("-")[0] for name in names} == dict.fromkeys(names, NVIDIAS[0])
    assert names <= held(nvidias)
    assert module(nvidias, KERNEL) == NVIDIAS[0]
    assert NVIDIAS[1] in nvidias.check_output("apt-cache madison libnvidia-compute")
    assert would_move(nvidias) == set()
