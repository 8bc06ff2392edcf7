"""The last of a scenario: what the roles have installed goes, what others have put there stays, the host is sound."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

NAMES = (
    "*nvidia*",
    "*nvsdm*",
    "cuda-keyring",
    "datacenter-gpu-manager*",
    "docker*",
    "containerd*",
    "grafana*",
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
    sound: str
    install: str


APT = Manager(
    query="dpkg-query --show --showformat '${db:Status-Status} ${Package}\\n'",
    files="dpkg-query --listfiles",
    sound="dpkg --audit",
    install="DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet busybox-static",
)
DNF = Manager(
    query="rpm --query --all --queryformat 'installed %{NAME}\\n'",
    files="rpm --query --list",
    sound="dnf --quiet check",
    install="dnf --assumeyes --quiet reinstall bash",
)


THEIRS = (
    "/etc/vllm/notes.txt",
    "/etc/vllm/instances/README",
    "/etc/systemd/system/vllm@theirs.service",
    "/etc/prometheus/rules.yml",
    "/etc/docker/theirs.json",
    "/opt/gpuhosts/theirs",
)
GONE = (
    "/etc/vllm/secrets.env",
    "/etc/systemd/system/vllm@.service",
    "/etc/systemd/system/nginx.service.d",
    "/etc/ansible/facts.d/gpuhosts_vllm.fact",
    "/etc/docker/daemon.json",
    "/etc/grafana",
    "/opt/vllm",
    "/var/lib/vllm",
    "/var/lib/prometheus",
)


@pytest.fixture(scope="module")
def removed(
    hosts: list[Any], play: Callable[..., subprocess.CompletedProcess[str]]
) -> dict[str, tuple[Manager, list[str]]]:
    """By host: its package manager, and the units that were in the packages that are gone."""
    before = {host.backend.name: _look(host) for host in hosts}
    for host in hosts:
        for path in THEIRS:
            host.check_output(f"mkdir -p $(dirname {path}) && touch {path}")
    check, first, second = (play("../common/absent.yml", *words) for words in (["--check"], [], []))
    assert check.returncode == 0, check.stdout
    assert first.returncode == 0, first.stdout
    assert re.findall(r"changed=(\d+)", check.stdout) == re.findall(r"changed=(\d+)", first.stdout)
    assert set(re.findall(r"changed=(\d+)", second.stdout)) == {"0"}, second.stdout
    return before


def _look(host: Any) -> tuple[Manager, list[str]]:
    manager = DNF if host.exists("dnf") else APT
    packages = installed(host, manager)
    assert {"nginx", "docker", "nvidia"} <= {name.partition("-")[0].partition(".")[0] for name in packages}
    files = host.check_output(f"{manager.files} {' '.join(packages)}").splitlines()
    units = [path.rpartition("/")[2] for path in files if "/systemd/system/" in path and path.endswith(UNITS)]
    assert "nginx.service" in units
    host.check_output("systemctl reset-failed")  # without a GPU some have failed before
    return manager, [unit for unit in units if "@" not in unit]


def installed(host: Any, manager: Manager) -> list[str]:
    """What the roles have brought, or what is left of it."""
    patterns = " ".join(f"'{name}'" for name in NAMES)
    lines = host.run(f"{manager.query} {patterns}").stdout.splitlines()
    states = {name: state for state, name in (line.split() for line in lines)}
    # What a package has brought along stays, as at any removal; of the lab's own packages that is one.
    return [name for name, state in states.items() if state != "not-installed" and name != "docker-stand-in"]


@pytest.mark.usefixtures("removed")
def test_what_the_roles_wrote_is_gone_and_what_others_wrote_is_there(host: Any) -> None:
    assert [path for path in GONE if host.file(path).exists] == []
    assert [path for path in THEIRS if not host.file(path).exists] == []
    assert not host.user("vllm").exists
    assert host.run("find /etc -name '*gpuhosts*'").stdout == ""


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
