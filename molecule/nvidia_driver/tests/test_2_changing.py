"""Upgrades, reboots, and what the role refuses; each test leaves the hosts as it found them, or one step further."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driver import FAILING_BUILDS, NEW, NEXT_BRANCH, OLD, driver_packages, loaded, on_disk, packages

SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
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


@pytest.fixture
def secure_boot(hosts: list[Any]) -> Iterator[None]:
    """A firmware that takes signed modules only."""
    for host in hosts:
        host.check_output("mount -t tmpfs pretend-firmware /sys/firmware")
        host.check_output(f"mkdir -p $(dirname {SECURE_BOOT})")
        host.check_output(f"printf '\\6\\0\\0\\0\\1' >{SECURE_BOOT}")
    yield
    for host in hosts:
        host.check_output("umount /sys/firmware")


def test_a_driver_of_another_source_is_not_replaced(hosts: list[Any], change: Change) -> None:
    message = change(nvidia_driver_source="distro", nvidia_driver_version="")

    assert "has a driver from nvidia" in message
    assert "apt-get purge --allow-change-held-packages libcuda1" in message
    assert all(driver_packages(host) == {OLD} for host in hosts)


@pytest.mark.usefixtures("secure_boot")
def test_secure_boot_with_a_key_that_is_not_enrolled_is_refused(hosts: list[Any], change: Change) -> None:
    message = change(nvidia_driver_version=NEW)

    assert "mokutil --import /var/lib/dkms/mok.pub" in message
    assert "Enroll MOK" in message
    assert all(driver_packages(host) == {OLD} for host in hosts)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"nvidia_driver_branch": "570", "nvidia_driver_version": ""}, "the branch is 580 or later"),
        ({"nvidia_driver_version": NEXT_BRANCH}, "begins with the branch"),
        ({"nvidia_driver_version": "580.1.2"}, f"Of branch 580 it has {NEW}, {OLD}"),
        ({"nvidia_driver_imex": "always"}, "set nvidia_driver_imex_nodes to the addresses"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    hosts: list[Any], change: Change, variables: dict[str, str], words: str
) -> None:
    assert words in " ".join(change(**variables).split())
    assert all(driver_packages(host) == {OLD} for host in hosts)


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
