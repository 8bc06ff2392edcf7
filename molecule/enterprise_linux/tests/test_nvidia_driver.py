"""The driver as dnf installs, locks and changes it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

OLD, NEW, NEXT_BRANCH = "580.95.05", "580.159.03", "595.91.07"  # the first two in an order that is not the alphabet's
DRIVER = {"libnvidia-ml", "nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-modprobe", "nvidia-persistenced"}
COMPANIONS = {"libnvidia-nscq", "nvidia-fabricmanager"}


@pytest.fixture
def change(change: Callable[..., str]) -> Callable[..., str]:
    """Nothing but this role of the pool."""
    return functools.partial(change, "--tags=nvidia_driver")


def packages(host: Any) -> dict[str, str]:
    """Every package of the driver with its version."""
    lines = host.check_output("rpm --query --all --queryformat '%{NAME} %{VERSION}\\n' '*nvidia*'").splitlines()
    return dict(line.split(" ") for line in lines if "-container" not in line)


def versions(hosts: list[Any]) -> set[str]:
    """Versions of all packages of the driver on all hosts."""
    return {version for host in hosts for version in packages(host).values()}


def test_the_newest_of_the_branch_is_there_with_its_companions(host: Any) -> None:
    assert packages(host) == dict.fromkeys({*DRIVER, *COMPANIONS, "kmod-nvidia-open-dkms"}, NEW)
    assert host.check_output("modinfo -F version nvidia") == NEW


def test_services_start_at_every_boot(host: Any) -> None:
    for name in ("nvidia-persistenced", "nvidia-fabricmanager"):
        assert host.service(name).is_enabled


def test_what_the_driver_needs_comes_from_epel_and_crb(host: Any) -> None:
    assert host.check_output("crb status") == "CRB repo is enabled and named: crb"
    assert host.run("rpm --query dkms kernel-devel-matched kernel-headers").rc == 0


def test_only_release_9_has_a_stream_to_enable(host: Any) -> None:
    enabled = host.run("dnf --quiet module list --enabled nvidia-driver").stdout

    assert ("580-open [e]" in enabled) is (host.check_output("hostname") == "rocky9")


def test_a_companion_that_is_installed_by_hand_does_not_bring_the_next_branch_in(host: Any) -> None:
    # On release 9 the stream hides the next branch as well; on 10 the lock alone keeps it away.
    offered = host.check_output("dnf --quiet repoquery nvidia-imex")
    assert (NEXT_BRANCH in offered) is (host.check_output("hostname") == "rocky10")

    planned = host.run("dnf --assumeno install nvidia-imex").stdout

    assert NEW in planned
    assert NEXT_BRANCH not in planned


def test_every_package_follows_to_another_version_and_flavour_and_an_upgrade_of_the_host_leaves_it_there(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    assert not change(nvidia_driver_version=OLD, nvidia_driver_kernel_modules="proprietary")
    assert versions(hosts) == {OLD}
    for host in hosts:
        assert {name for name in packages(host) if name.startswith("kmod-")} == {"kmod-nvidia-latest-dkms"}
        assert host.check_output("modinfo -F license nvidia") == "NVIDIA"

    for host in hosts:
        output = host.check_output("dnf --assumeyes upgrade 2>&1")
        assert "could not parse" not in output
    assert versions(hosts) == {OLD}

    assert not change()
    assert versions(hosts) == {OLD}, "a second run does not upgrade"
    for host in hosts:
        assert host.check_output("modinfo -F license nvidia") == "Dual MIT/GPL"


def test_a_missing_version_is_refused_with_those_that_are_there(hosts: list[Any], change: Callable[..., str]) -> None:
    before = [packages(host) for host in hosts]

    output = " ".join(change(nvidia_driver_version="580.1.1").split())

    assert output.count(f"has no driver 580.1.1. Of branch 580 it has {NEW}, {OLD}. Set") >= len(hosts)
    assert [packages(host) for host in hosts] == before


def test_a_build_that_fails_names_its_log_and_the_way_back_works(hosts: list[Any], change: Callable[..., str]) -> None:
    output = " ".join(change(nvidia_driver_branch="595").split())

    for release in ("9", "10"):
        assert (
            f"DKMS could not build the open NVIDIA kernel module {NEXT_BRANCH} on enterprise_linux-{release}" in output
        )
    assert f"The log is /var/lib/dkms/nvidia/{NEXT_BRANCH}/build/make.log" in output
    assert not change(nvidia_driver_version=NEW)
    assert versions(hosts) == {NEW}
