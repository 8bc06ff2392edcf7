"""Upgrades, reboots, and what the role refuses; each test leaves the hosts as it found them, or one step further."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driver import FAILING_BUILDS, NEW, NEXT_BRANCH, OLD, driver_packages, loaded, on_disk, packages

Change = Callable[..., str]
Converge = Callable[..., Any]


@pytest.fixture
def failing_builds(hosts: list[Any]) -> Iterator[Callable[..., None]]:
    """DKMS cannot build the module of some versions."""

    def fail(*versions: str) -> None:
        for host in hosts:
            host.check_output(
                f"mkdir -p $(dirname {FAILING_BUILDS}) && printf '%s\\n' {' '.join(versions)} >{FAILING_BUILDS}"
            )

    yield fail
    for host in hosts:
        host.check_output(f"rm {FAILING_BUILDS}")


def test_a_driver_of_another_source_is_not_replaced(hosts: list[Any], change: Change) -> None:
    message = change(nvidia_driver_source="distro", nvidia_driver_version="")

    assert "has a driver from nvidia" in message
    assert "apt-get purge --allow-change-held-packages libcuda1" in message
    assert all(driver_packages(host) == {OLD} for host in hosts)


def test_a_version_that_the_repository_does_not_have_is_refused(hosts: list[Any], change: Change) -> None:
    message = " ".join(change(nvidia_driver_version="580.1.2").split())

    assert f"has no driver 580.1.2. Of branch 580 it has {NEW}, {OLD}" in message
    assert all(driver_packages(host) == {OLD} for host in hosts)


def test_drift_is_seen_by_a_check_and_mended_without_asking_the_repository(
    hosts: list[Any], converge: Converge
) -> None:
    """A hold, a pin, a setting, a service and a built module that somebody has removed."""
    drift = (
        "apt-mark unhold libnvidia-ml1",
        "rm /etc/apt/preferences.d/gpuhosts-nvidia-driver",
        "echo >/etc/modprobe.d/gpuhosts-nouveau.conf",
        "systemctl disable --now nvidia-persistenced",
        f"dkms uninstall nvidia/{OLD} -k $(uname -r)",
    )
    for host in hosts:
        host.check_output(" && ".join(drift))

    check = converge("--check")
    assert check.returncode == 0, check.stdout
    assert "changed=0" not in check.stdout
    assert all("libnvidia-ml1" not in host.check_output("apt-mark showhold") for host in hosts)

    mended = converge()
    assert mended.returncode == 0, mended.stdout
    assert "Refresh the package lists" not in mended.stdout
    for host in hosts:
        assert "libnvidia-ml1" in host.check_output("apt-mark showhold")
        assert f"Pin: version {OLD}-*" in host.file("/etc/apt/preferences.d/gpuhosts-nvidia-driver").content_string
        assert "blacklist nouveau" in host.file("/etc/modprobe.d/gpuhosts-nouveau.conf").content_string
        assert host.service("nvidia-persistenced").is_running
        assert host.service("nvidia-persistenced").is_enabled
        assert on_disk(host) == OLD


def test_an_upgrade_without_a_reboot_says_that_one_is_pending(hosts: list[Any], converge: Converge) -> None:
    result = converge("-e", f"nvidia_driver_version={NEW}", "-e", "nvidia_driver_reboot=never")

    assert result.returncode == 0, result.stdout
    assert f"waits for a reboot: kernel module {OLD} is loaded, {NEW} is installed" in " ".join(result.stdout.split())
    for host in hosts:
        assert driver_packages(host) == {NEW}
        assert (on_disk(host), loaded(host)) == (NEW, OLD)
        assert host.run("nvidia-smi").rc == 18


def test_a_pending_reboot_is_done_where_it_is_allowed(hosts: list[Any], change: Change) -> None:
    assert change(nvidia_driver_version=NEW) == ""

    for host in hosts:
        assert (on_disk(host), loaded(host)) == (NEW, NEW)
        assert host.check_output("nvidia-smi") == f"Driver Version: {NEW}  GPUs: 2"
        assert host.service("nvidia-fabricmanager").is_running
        assert set(packages(host)) <= set(host.check_output("apt-mark showhold").splitlines()) | {
            "nvidia-driver-pinning-580"
        }


def test_a_build_that_fails_leaves_the_old_driver_and_a_usable_dpkg(
    hosts: list[Any], change: Change, failing_builds: Callable[..., None]
) -> None:
    failing_builds(NEXT_BRANCH)

    message = " ".join(change(nvidia_driver_branch="595", nvidia_driver_version=NEXT_BRANCH).split())

    assert f"DKMS could not build the open NVIDIA kernel module {NEXT_BRANCH}" in message
    assert f"The log is /var/log/nvidia-dkms-{NEXT_BRANCH}.log" in message
    assert "error: implicit declaration of function" in message
    assert f"The driver {NEW} that was there is installed again" in message
    for host in hosts:
        assert host.check_output("dpkg --audit") == ""
        assert driver_packages(host) == {NEW}
        assert (on_disk(host), loaded(host)) == (NEW, NEW)
        assert "dma_buf_that_this_kernel_lacks" in host.file(f"/var/log/nvidia-dkms-{NEXT_BRANCH}.log").content_string


def test_a_downgrade_and_the_other_flavour_take_everything_along(hosts: list[Any], change: Change) -> None:
    assert change(nvidia_driver_version=OLD, nvidia_driver_kernel_modules="proprietary") == ""

    for host in hosts:
        assert driver_packages(host) == {OLD}
        assert {"nvidia-kernel-dkms", "nvidia-kernel-open-dkms"} & set(packages(host)) == {"nvidia-kernel-dkms"}
        assert "Open" not in host.file("/proc/driver/nvidia/version").content_string
        assert loaded(host) == OLD


def test_a_build_that_fails_on_a_fresh_host_leaves_nothing_unfinished(
    hosts: list[Any], change: Change, failing_builds: Callable[..., None]
) -> None:
    for host in hosts:
        names = " ".join(packages(host))
        host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get --yes purge --allow-change-held-packages {names}")
    failing_builds(OLD)

    message = " ".join(change().split())

    assert "The packages that it left unfinished are removed" in message
    for host in hosts:
        assert host.check_output("dpkg --audit") == ""
        assert "nvidia-kernel-open-dkms" not in packages(host)
