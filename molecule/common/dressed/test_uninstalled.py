"""The last of a scenario: what the roles installed is removed as an operator removes it, and the host is sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

NAMES = (
    "*nvidia*",
    "*nvsdm*",
    "cuda-keyring",
    "docker*",
    "containerd*",
    "nginx*",
    "libnginx*",
    "prometheus*",
    "promtool",
)
UNITS = (".service", ".socket", ".path", ".timer")


@dataclass(frozen=True)
class Manager:
    """The commands of a package manager; names come behind them."""

    query: str
    files: str
    remove: str
    sound: str
    install: str


APT = Manager(
    query="dpkg-query --show --showformat '${db:Status-Status} ${Package}\\n'",
    files="dpkg-query --listfiles",
    remove="DEBIAN_FRONTEND=noninteractive apt-get purge --yes --quiet --allow-change-held-packages",
    sound="dpkg --audit",
    install="DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet busybox-static",
)
DNF = Manager(
    query="rpm --query --all --queryformat 'installed %{NAME}\\n'",
    files="rpm --query --list",
    remove="dnf --assumeyes --quiet remove",
    sound="dnf --quiet check",
    install="dnf --assumeyes --quiet install nginx",
)


@pytest.fixture(scope="module")
def removed(hosts: list[Any]) -> dict[str, tuple[Manager, list[str]]]:
    """By host: its package manager, and the units that were in the packages that are gone."""
    return {host.backend.name: _remove(host) for host in hosts}


def _remove(host: Any) -> tuple[Manager, list[str]]:
    manager = DNF if host.exists("dnf") else APT
    packages = installed(host, manager)
    assert {"nginx", "docker", "nvidia"} <= {name.partition("-")[0].partition(".")[0] for name in packages}
    names = " ".join(packages)
    files = host.check_output(f"{manager.files} {names}").splitlines()
    units = [path.rpartition("/")[2] for path in files if "/systemd/system/" in path and path.endswith(UNITS)]
    assert "nginx.service" in units
    units = [unit for unit in units if "@" not in unit]
    host.check_output(f"systemctl disable --now {' '.join(units)}")
    host.check_output("systemctl reset-failed")  # without a GPU some have failed before
    host.check_output(f"{manager.remove} {names}")
    host.check_output("systemctl daemon-reload")  # on Enterprise Linux systemd's own package does so, by a trigger
    return manager, units


def installed(host: Any, manager: Manager) -> list[str]:
    """What the roles have brought, or what is left of it."""
    patterns = " ".join(f"'{name}'" for name in NAMES)
    lines = host.run(f"{manager.query} {patterns}").stdout.splitlines()
    states = {name: state for state, name in (line.split() for line in lines)}
    return [name for name, state in states.items() if state != "not-installed"]


def test_no_package_is_left_not_even_its_configuration(host: Any, removed: Any) -> None:
    manager, _ = removed[host.backend.name]
    assert installed(host, manager) == []


def test_no_unit_of_theirs_runs_or_has_failed(host: Any, removed: Any) -> None:
    _, units = removed[host.backend.name]
    for unit in units:
        shown = host.check_output("systemctl show --property LoadState,ActiveState %s", unit)
        assert shown == "LoadState=not-found\nActiveState=inactive", unit
    assert host.check_output("systemctl --failed --no-legend --plain") == ""


def test_the_package_database_is_sound_and_takes_the_next_package(host: Any, removed: Any) -> None:
    manager, _ = removed[host.backend.name]
    assert host.check_output(manager.sound) == ""
    host.check_output(manager.install)
