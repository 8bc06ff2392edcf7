"""The stand-ins for the packages of Docker and of NVIDIA's container toolkit."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.vendor import docker_ce, toolkit, units
from tests.lab.vendor.deb import Package, Stored

ROLES = Path(__file__).resolve().parents[4] / "roles"


def defaults(role: str) -> dict[str, Any]:
    return yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded or compiled here: the bytes of programs are of no interest."""
    upstream = [*toolkit._UNITS, "10-container-engines.conf", "99-nvidia-cdi-refresh.rules", "nvidia-cdi-refresh.env"]
    for module, variable, names in (
        (docker_ce, "_DOWNLOADED", docker_ce._NAMES),
        (toolkit, "_BUILT", (*toolkit._PROGRAMS, *upstream)),
    ):
        monkeypatch.setattr(module, variable, tmp_path)
        for name in names:
            (tmp_path / name).write_text(name)


def engine() -> list[Package]:
    version, containerd = docker_ce.VERSION, docker_ce.CONTAINERD_VERSION
    return [docker_ce._programs(), *docker_ce._engine(version), docker_ce._containerd(containerd)]


def test_the_lab_has_what_the_roles_ask_for_and_something_newer() -> None:
    engine, toolkit_role = defaults("docker_engine"), defaults("nvidia_container_toolkit")
    assert docker_ce.OLDER < docker_ce.VERSION == engine["docker_engine_version"] < docker_ce.NEWER
    assert docker_ce.CONTAINERD_VERSION == engine["docker_engine_containerd_version"] < docker_ce.NEWER_CONTAINERD
    assert f"{toolkit.VERSION}-1" == toolkit_role["nvidia_container_toolkit_version"] < toolkit.NEWER


def test_the_module_is_the_one_of_the_package() -> None:
    required = re.findall(rf"^\t{toolkit._MODULE} v(\S+)", (toolkit._TOOLS / "go.mod").read_text(), re.MULTILINE)
    assert required == [toolkit.VERSION]


@pytest.mark.parametrize("packages", [engine, lambda: toolkit.toolkit(toolkit.VERSION)])
def test_every_dependency_is_there(packages: Any) -> None:
    there = {package.name for package in packages()}
    wanted = {re.split(r"[ (]", one)[0] for package in packages() for one in package.depends}
    assert wanted - there <= {"iptables", "libc6", "libsystemd0", "runc"}


def test_an_engine_is_where_its_unit_looks_for_it() -> None:
    found = {path for package in engine() for path in package.links}
    assert {"/usr/bin/dockerd", "/usr/bin/docker-proxy", "/usr/bin/docker", "/usr/bin/containerd"} <= found
    (docker,) = (package for package in engine() if package.name == "docker-ce")
    assert b"ExecStart=/usr/bin/dockerd " in docker.files["/usr/lib/systemd/system/docker.service"]
    targets = {target for package in engine() for target in package.links.values()}
    assert targets == set(docker_ce._programs().programs)


def test_newer_packages_have_nothing_in_them() -> None:
    newer = [*docker_ce._empty("2", "2"), *toolkit._empty("2")]
    assert len(newer) == 3 + 4
    assert not [package for package in newer if package.files or package.programs or package.links]


def test_the_four_packages_of_the_toolkit_go_together() -> None:
    packages = {package.name: package for package in toolkit.toolkit("1.2.3")}
    assert {package.version for package in packages.values()} == {"1.2.3-1"}
    assert "nvidia-container-toolkit-base (= 1.2.3-1)" in packages["nvidia-container-toolkit"].depends
    assert "/usr/bin/nvidia-ctk" in packages["nvidia-container-toolkit-base"].programs
    assert "nvidia-ctk --quiet config" in packages["nvidia-container-toolkit-base"].scripts["postinst"]


def test_scripts_enable_and_start_their_units() -> None:
    scripts = units.scripts("a.service", "b.path", before="first")
    assert "for unit in a.service b.path; do" in scripts["postinst"]
    assert "\nfirst\n" in scripts["postinst"]
    assert "deb-systemd-invoke stop a.service b.path " in scripts["prerm"]


def test_stored_files_are_told_apart_without_reading_them(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_bytes(b"old")
    stored = Stored({"/usr/bin/program": file})
    before = repr(stored)
    assert dict(stored) == {"/usr/bin/program": b"old"}
    assert repr(Stored({"/usr/bin/program": file})) == before

    file.write_bytes(b"new")
    os.utime(file, (0, 0))
    assert repr(stored) != before
