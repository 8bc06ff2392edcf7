"""Docker's repository: key, exact versions, and that nothing but the role changes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .conftest import Engine

# As they are in Docker's repository.
VERSIONS = {
    "containerd.io": "2.3.4-1~debian.13~trixie",
    "docker-ce": "5:29.7.2-1~debian.13~trixie",
    "docker-ce-cli": "5:29.7.2-1~debian.13~trixie",
}


@pytest.fixture(scope="session")
def engine(engines: list[Engine]) -> Engine:
    """One that comes from there."""
    (engine,) = (engine for engine in engines if engine.name == "containers-vendor-trixie")
    return engine


def versions(engine: Engine) -> dict[str, str]:
    output = engine.host.check_output("dpkg-query --show " + " ".join(VERSIONS))
    return dict(line.split() for line in output.splitlines())


def held(engine: Engine) -> set[str]:
    return set(engine.host.check_output("apt-mark showhold").split())


def test_exactly_the_pinned_versions_are_installed_and_held(engine: Engine) -> None:
    assert versions(engine) == VERSIONS
    assert held(engine) >= set(VERSIONS)


def test_a_newer_version_in_the_repository_is_not_pulled(engine: Engine) -> None:
    assert "Candidate: 5:29.9.0-1" in engine.host.check_output("apt-cache policy docker-ce")

    upgrades = engine.host.check_output("apt-get --simulate dist-upgrade")

    assert not [line for line in upgrades.splitlines() if line.startswith("Inst") and line.split()[1] in VERSIONS]


def test_a_key_that_is_not_the_expected_one_is_refused(
    engine: Engine, converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = engine.host.file("/etc/apt/keyrings/docker.asc").sha256sum

    result = converge("--limit", engine.name, "--extra-vars", "docker_engine_key_checksum=sha256:" + 64 * "0")

    assert result.returncode
    assert "changed=0" in result.stdout
    assert "did not match" in " ".join(result.stdout.split())
    assert engine.host.file("/etc/apt/keyrings/docker.asc").sha256sum == before


def test_another_version_is_followed_though_held_and_containers_outlive_it(
    engine: Engine, converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pid, start = engine.run("survivor"), engine.start

    result = converge("--limit", engine.name, "--extra-vars", json.dumps({"docker_engine_version": "29.7.1-1"}))

    assert result.returncode == 0, result.stdout
    assert versions(engine)["docker-ce"] == "5:29.7.1-1~debian.13~trixie"
    assert held(engine) >= set(VERSIONS)
    assert engine.start != start
    assert engine.pid("survivor") == pid
