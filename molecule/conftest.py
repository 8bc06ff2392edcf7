"""Fixtures of the molecule scenarios. The tests run after the scenario has converged, most of them once per host."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra

if TYPE_CHECKING:
    from collections.abc import Callable


_IMAGE = """
set -e
mkdir -p /tmp/image/bin
cp /bin/busybox /tmp/image/bin/
for name in sh sleep; do ln -sf busybox /tmp/image/bin/$name; done
tar -C /tmp/image -c . | docker import - tiny
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What must be true of converged hosts comes before the tests that change them, what takes all away last."""
    items.sort(key=lambda item: {"test_drift.py": 0, "test_uninstalled.py": 2}.get(item.path.name, 1))


@pytest.fixture(scope="session")
def hosts(pytestconfig: pytest.Config) -> list[Any]:
    """All hosts of the scenario, for tests that do something to all of them at once."""
    return testinfra.get_hosts(pytestconfig.option.hosts.split(","), connection=pytestconfig.option.connection)


@pytest.fixture(scope="session")
def hosts_with_image(hosts: list[Any]) -> list[Any]:
    """All hosts of the scenario, with an image `tiny` that was made there: no registry is needed."""
    for host in hosts:
        host.check_output("apt-get install --yes --quiet busybox-static")
        host.check_output(_IMAGE)
    return hosts


@pytest.fixture(scope="session")
def exposure() -> Callable[[Any, str], float]:
    """What systemd counts against a unit, of 10: what it may do and could be kept from. The roles allow 3.0."""

    def count(host: Any, unit: str) -> float:
        said = host.run("systemd-analyze security --no-pager %s.service", unit).stdout
        return float(said.rsplit(f"{unit}.service: ", 1)[1].split()[0])

    return count


@pytest.fixture(scope="session")
def play() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a playbook of the scenario on all its hosts, with further arguments of ansible-playbook."""

    def run(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"], playbook)
        return subprocess.run(
            ["ansible-playbook", "--inventory", os.environ["MOLECULE_INVENTORY_FILE"], *arguments, path],
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def converge(play: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run converge.yml."""
    return functools.partial(play, "converge.yml")


@pytest.fixture(scope="session")
def change(converge: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """Converge with other values of some variables, for good; return the output of a run that fails, else nothing.

    Further arguments are those of ansible-playbook, such as ``--tags``.
    """

    def run(*arguments: str, **variables: Any) -> str:
        result = converge(*arguments, "--extra-vars", json.dumps(variables))
        return result.stdout if result.returncode else ""

    return run
