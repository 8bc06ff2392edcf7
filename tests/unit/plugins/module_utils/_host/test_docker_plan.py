"""What a host gets of Docker, decided with the tables of the role docker_engine.

Only Debian is run for real (molecule/). For the others this is what stands between a table and a typing error: the
tables are held against https://docs.docker.com/engine/install/{debian,ubuntu,rhel,centos}/, with names of packages and
versions as `apt-cache madison docker-ce` and `dnf list docker-ce --showduplicates` print them there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError, ContainersError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import Engine
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker_plan import (
    Plan,
    Wishes,
    describe,
    plan_docker,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.planned import Host, platform_of

ROLE = Path(__file__).resolve().parents[5] / "roles/docker_engine"
PLATFORMS = yaml.safe_load((ROLE / "vars/main/platforms.yml").read_text())["_docker_engine_platforms"]
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
WISHES = Wishes(**{name.removeprefix("docker_engine_"): value for name, value in DEFAULTS.items()})
APT = {
    ("Debian", "12"): ("https://download.docker.com/linux/debian", "bookworm", "~debian.12~bookworm"),
    ("Debian", "13"): ("https://download.docker.com/linux/debian", "trixie", "~debian.13~trixie"),
    ("Ubuntu", "22.04"): ("https://download.docker.com/linux/ubuntu", "jammy", "~ubuntu.22.04~jammy"),
    ("Ubuntu", "24.04"): ("https://download.docker.com/linux/ubuntu", "noble", "~ubuntu.24.04~noble"),
    ("Ubuntu", "26.04"): ("https://download.docker.com/linux/ubuntu", "resolute", "~ubuntu.26.04~resolute"),
}
DNF = {
    ("RedHat", "9"): ("https://download.docker.com/linux/rhel", "9", ".el9"),
    ("RedHat", "10"): ("https://download.docker.com/linux/rhel", "10", ".el10"),
    **{
        (name, release): ("https://download.docker.com/linux/centos", release, f".el{release}")
        for name in ("Rocky", "AlmaLinux", "OracleLinux")
        for release in ("9", "10")
    },
}
# https://packages.debian.org/docker.io (from Debian 13 on the client is a package of its own), https://packages.ubuntu.com/docker.io
DISTRO = {
    ("Debian", "12"): ["docker.io"],
    ("Debian", "13"): ["docker.io", "docker-cli"],
    ("Ubuntu", "22.04"): ["docker.io"],
    ("Ubuntu", "24.04"): ["docker.io"],
    ("Ubuntu", "26.04"): ["docker.io"],
}
OURS = {"live-restore": True, "log-driver": "json-file", "log-opts": {"max-size": "100m", "max-file": "5"}}
INFO = {"ServerVersion": "29.7.2", "Swarm": {"LocalNodeState": "inactive"}}


def plan(
    platform: tuple[str, str] = ("Debian", "13"),
    owners: Mapping[str, str] | None = None,
    info: Mapping[str, Any] | None = None,
    content: bytes = b"",
    kernel: str = "",
    **wishes: Any,
) -> Plan:
    """The plan of a host named gpu1."""
    host = Host("gpu1", *platform, kernel=kernel)
    table = platform_of(host, PLATFORMS, "docker_engine", "Take it out.")
    return plan_docker(Engine(owners or {}, info, content), replace(WISHES, **wishes), host, table)


def refusal(*arguments: Any, **wishes: Any) -> str:
    with pytest.raises((ContainersError, ConfigFileError)) as error:
        plan(*arguments, **wishes)
    return str(error.value)


# ---- the tables ----


def test_the_tables_are_held_against_the_vendors_for_every_distribution() -> None:
    assert {f"{name} {version}" for name, version in (*APT, *DNF)} == set(PLATFORMS)


@pytest.mark.parametrize("platform", APT)
def test_dockers_repository_for_apt(platform: tuple[str, str]) -> None:
    url, suite, ending = APT[platform]
    vendor = plan(platform).vendor

    assert vendor.key["url"] == f"{url}/gpg"
    ((path, text),) = vendor.files.items()
    source = yaml.safe_load(text)
    assert path == "/etc/apt/sources.list.d/docker.sources"
    assert (source["URIs"], source["Suites"], source["Components"]) == (url, suite, "stable")
    assert source["Signed-By"] == vendor.key["path"]
    assert sorted(vendor.wanted) == [
        f"containerd.io=2.3.4-1{ending}",
        f"docker-ce-cli=5:29.7.2-1{ending}",
        f"docker-ce=5:29.7.2-1{ending}",
    ]


@pytest.mark.parametrize("platform", DNF)
def test_dockers_repository_for_dnf(platform: tuple[str, str]) -> None:
    url, release, ending = DNF[platform]
    vendor = plan(platform).vendor

    assert vendor.repository["baseurl"] == f"{url}/{release}/$basearch/stable"
    assert vendor.key == {"url": f"{url}/gpg", "fingerprint": DEFAULTS["docker_engine_key_fingerprint"]}
    assert sorted(vendor.wanted) == [
        f"containerd.io-2.3.4-1{ending}",
        f"docker-ce-29.7.2-1{ending}",
        f"docker-ce-cli-29.7.2-1{ending}",
    ]


@pytest.mark.parametrize("platform", [*APT, *DNF])
def test_the_engine_of_the_distribution(platform: tuple[str, str]) -> None:
    if platform in DISTRO:
        vendor = plan(platform, source="distro").vendor
        assert (vendor.wanted, vendor.pins, vendor.files) == (DISTRO[platform], {}, {})
    else:
        assert "Docker Engine of its own. Set docker_engine_source to 'docker'" in refusal(platform, source="distro")


# ---- whose an engine is ----


@pytest.mark.parametrize(
    ("platform", "source", "owners", "strangers"),
    [
        (("Debian", "13"), "docker", {}, ()),
        (("Debian", "12"), "distro", {"/usr/bin/docker": "docker.io", "/usr/sbin/dockerd": "docker.io"}, ()),
        (("Debian", "13"), "docker", {"/usr/bin/docker": "docker-ce-cli", "/usr/bin/dockerd": "docker-ce"}, ()),
        (("Debian", "13"), "docker", {"/usr/bin/docker": "podman-docker"}, ("podman-docker",)),
        (("Debian", "13"), "docker", {"/snap/bin/docker": ""}, ("/snap/bin/docker",)),
        (
            ("Debian", "12"),
            "docker",
            {"/usr/bin/docker": "docker.io", "/usr/sbin/dockerd": "docker.io"},
            ("docker.io",),
        ),
        (
            ("Rocky", "9"),
            "docker",
            {"/usr/bin/docker": "docker-ce-cli", "/usr/local/bin/dockerd": ""},
            ("/usr/local/bin/dockerd",),
        ),
    ],
)
def test_whose_an_engine_is(
    platform: tuple[str, str], source: str, owners: dict[str, str], strangers: tuple[str, ...]
) -> None:
    assert plan(platform, owners, INFO, source=source).strangers == strangers


def test_somebody_elses_is_left_alone_settings_included() -> None:
    found = plan(owners={"/snap/bin/docker": ""}, info=INFO, content=b"no JSON")
    assert (found.settings, found.unsaid) == ({}, ())
    assert found.notes[0].startswith("gpu1 has a Docker already that is not of docker_engine_source 'docker' (/snap/")


@pytest.mark.parametrize(("info", "answers"), [(None, "nothing"), ({"ServerVersion": "19.3.1"}, "version 19.3.1")])
def test_somebody_elses_has_to_answer_and_be_recent_enough(info: dict[str, Any] | None, answers: str) -> None:
    message = refusal(("Debian", "13"), {"/usr/bin/docker": "podman-docker"}, info)
    assert f"on /run/docker.sock is {answers}; a Docker Engine 20.10 or newer is needed" in message
    assert message.startswith("gpu1: podman-docker is there, and left alone")


# ---- settings ----


def test_the_settings_that_are_not_there_yet() -> None:
    assert plan().unsaid == ("live-restore", "log-driver", "log-opts")
    assert plan(settings={"log-opts": None}).unsaid == ("live-restore", "log-driver")
    assert plan(content=b'{"live-restore": true, "debug": true}').unsaid == ("log-driver", "log-opts")
    assert plan(content=b'{"log-driver": "json-file", "log-opts": {"labels": "x"}}').unsaid == (
        "live-restore",
        "log-opts",
    )


@pytest.mark.parametrize(
    ("arguments", "wishes", "words"),
    [
        ([("Fedora", "42")], {}, "gpu1 runs Fedora 42; the role docker_engine is made for Debian 12, Debian 13, "),
        ([], {"settings": {"log-opts": {"max-file": 5}}}, 'there is {"max-file": 5}. Put the numbers in quotes'),
        ([("Debian", "12"), {}, None, b"{"], {}, "/etc/docker/daemon.json, line 1, column 2: not JSON"),
        (
            [("Debian", "12"), {}, {**INFO, "Swarm": {"LocalNodeState": "active"}}],
            {},
            "The engine of gpu1 is in swarm mode, in which it refuses to start with live-restore",
        ),
    ],
)
def test_what_is_refused(arguments: list[Any], wishes: dict[str, Any], words: str) -> None:
    assert words in refusal(*arguments, **wishes)


def test_a_swarm_without_live_restore() -> None:
    swarm = {**INFO, "Swarm": {"LocalNodeState": "active"}}
    assert plan(info=swarm, settings={"live-restore": False}).settings == {**OURS, "live-restore": False}


def test_further_settings_leave_ours_as_they_are() -> None:
    """Such as a registry without TLS, which once took live-restore away."""
    registry = {"insecure-registries": ["registry.example:5000"]}
    assert plan(settings=registry).settings == {**OURS, **registry}
    assert plan(settings={"log-opts": {"max-size": "1g"}}).settings["log-opts"] == {"max-size": "1g", "max-file": "5"}
    assert plan(settings={"log-driver": "journald"}).settings == {"live-restore": True, "log-driver": "journald"}


def test_an_engine_without_cdi_is_told_of() -> None:
    (note,) = plan(("Debian", "12"), {}, {"ServerVersion": "20.10.24+dfsg1"}, source="distro").notes
    assert note.startswith("gpu1: Docker Engine 20.10.24+dfsg1 has no CDI (25.0 or newer has)")
    assert plan(info=INFO).notes == ()


# ---- what differs ----

VERSIONS = {
    "docker-ce": "5:29.7.2-1~debian.13~trixie",
    "docker-ce-cli": "5:29.7.2-1~debian.13~trixie",
    "containerd.io": "2.3.4-1~debian.13~trixie",
}


class Machine:
    """A host that is all that its plan wants, until a test changes something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unit = "UnitFileState=enabled\nActiveState=active"
        self.wishes = replace(WISHES, key_checksum="sha256:")
        self.engine = Engine(
            {"/usr/bin/dockerd": "docker-ce", "/usr/bin/docker": "docker-ce-cli"},
            INFO,
            b'{"live-restore": true, "log-driver": "json-file", "log-opts": {"max-size": "100m", "max-file": "5"}}',
        )
        self.packages(VERSIONS)
        self.write("/etc/apt/keyrings/docker.asc", "key")
        for path, text in self.plan.vendor.files.items():
            self.write(path, text)
        (root / "etc/docker").mkdir(mode=0o755)

    @property
    def plan(self) -> Plan:
        host = Host("gpu1", "Debian", "13")
        return plan_docker(self.engine, self.wishes, host, platform_of(host, PLATFORMS, "docker_engine", ""))

    def write(self, path: str, content: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o644)

    def packages(self, versions: Mapping[str, str], want: str = "hold") -> None:
        records = (
            f"Package: {name}\nStatus: {want} ok installed\nArchitecture: amd64\nVersion: {version}\n"
            for name, version in versions.items()
        )
        self.write("/var/lib/dpkg/status", "\n".join(records))

    def run(self, command: Sequence[str]) -> str:
        assert command[0] in {"systemctl", "/usr/bin/dockerd"}, command
        if command[0] != "systemctl":
            return "Docker version 29.7.2, build 1"
        if "ExecStart" in command[2]:
            return "ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd -H fd:// ; ignore_errors=no ; }"
        return f"Id=docker.service\n{self.unit}\n"

    def describe(self) -> dict[str, Any]:
        return describe(self.plan, self.engine, Host("gpu1", "Debian", "13"), self.root, self.run)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def steps(found: dict[str, Any]) -> list[str]:
    return [step for step, todo in found["todo"].items() if todo]


def test_a_host_with_nothing_to_do(machine: Machine) -> None:
    found = machine.describe()
    assert found["differs"] == {step: [] for step in found["differs"]}
    assert found["settled"]
    assert not found["install"]
    assert (found["present"], found["runs"], found["validate"]) == (True, True, "")


def test_settings_that_differ_are_validated(machine: Machine) -> None:
    machine.engine = replace(machine.engine, content=b'{"live-restore": false}')
    found = machine.describe()
    assert steps(found) == ["settings"]
    assert found["differs"]["settings"][0] == "/etc/docker/daemon.json says otherwise of live-restore"
    assert found["validate"] == "/usr/bin/dockerd --validate --config-file %s -H fd://"


def test_the_directory_of_the_settings(machine: Machine) -> None:
    (machine.root / "etc/docker").chmod(0o711)
    assert machine.describe()["differs"]["settings"] == ["/etc/docker has mode 0711, not 0755"]
    (machine.root / "etc/docker").rmdir()
    assert machine.describe()["differs"]["settings"] == ["/etc/docker is not there"]


def test_packages_of_another_version_and_not_held(machine: Machine) -> None:
    machine.wishes = replace(machine.wishes, version="29.8.0-1")
    found = machine.describe()
    assert steps(found) == ["packages"]
    assert found["vendor"]["todo"] == {"repository": False, "packages": True, "locks": False}
    assert found["install"]

    machine.wishes = replace(machine.wishes, version="29.7.2-1")
    machine.packages(VERSIONS, want="install")
    assert steps(machine.describe()) == ["locks"]


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ("UnitFileState=disabled\nActiveState=active", "docker does not start at boot"),
        ("UnitFileState=enabled\nActiveState=failed", "docker does not run"),
    ],
)
def test_the_unit(machine: Machine, unit: str, reason: str) -> None:
    machine.unit = unit
    found = machine.describe()
    assert (steps(found), found["differs"]["service"]) == (["service"], [reason])


def test_an_engine_that_hangs(machine: Machine) -> None:
    machine.engine = replace(machine.engine, info=None)
    assert machine.describe()["differs"]["service"] == ["docker runs, and does not answer"]


def test_somebody_elses_engine_is_settled_whatever_is_there(tmp_path: Path) -> None:
    engine = Engine({"/usr/bin/docker": "podman-docker"}, INFO)
    host = Host("gpu1", "Debian", "13")
    wanted = plan_docker(engine, WISHES, host, platform_of(host, PLATFORMS, "docker_engine", ""))
    found = describe(wanted, engine, host, tmp_path, lambda command: pytest.fail(f"{command} was asked"))
    assert found["settled"]
    assert found["strangers"] == ("podman-docker",)


# ---- firewalls ----


def test_el_10_gets_the_modules_that_rules_for_iptables_need() -> None:
    for name in ("RedHat", "Rocky", "AlmaLinux", "OracleLinux"):
        assert (plan((name, "9")).modules, plan((name, "10")).modules) == ("", "kernel-modules-extra")
        assert plan((name, "10"), firewall="nftables").modules == ""


UEK = "6.12.0-105.51.5.el10uek.x86_64"


def test_oracles_own_kernel_has_no_such_package_and_gets_nftables_unless_somebody_wants_iptables() -> None:
    oracle = ("OracleLinux", "10")
    found = plan(oracle, kernel=UEK)
    assert (found.modules, found.forwards, found.settings["firewall-backend"]) == ("", True, "nftables")
    assert plan(oracle, kernel=KERNEL).modules == "kernel-modules-extra", "Red Hat's kernel"
    assert plan(("OracleLinux", "9"), kernel=UEK).settings.get("firewall-backend") is None, "it misses nothing there"
    words = refusal(oracle, kernel=UEK, firewall="iptables")
    assert f"not made for its kernel {UEK}. Set docker_engine_firewall to 'auto' or 'nftables'" in words


KERNEL, NEWER = "6.12.0-55.9.1.el10_0.x86_64", "6.12.0-124.8.1.el10_1.x86_64"


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], [KERNEL]),
        ([("kernel-modules-extra", KERNEL)], []),
        ([("kernel-modules-extra", KERNEL), ("kernel-core", KERNEL), ("kernel-core", NEWER)], [NEWER]),
        ([("kernel-modules-extra", NEWER), ("kernel-core", KERNEL), ("kernel-core", NEWER)], [KERNEL]),
        # One that was kept and boots no more is of no concern.
        ([("kernel-modules-extra", KERNEL), ("kernel-core", "6.12.0-9.el10.x86_64"), ("kernel-core", KERNEL)], []),
    ],
)
def test_modules_for_the_kernel_that_runs_and_for_the_one_that_boots_next(
    tmp_path: Path, there: list[tuple[str, str]], expected: list[str]
) -> None:
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    database = "".join(f"{name}\t0\t{release.removesuffix('.x86_64')}\tx86_64\tRed Hat\n" for name, release in there)

    def run(command: Sequence[str]) -> str:
        return database if command[0] == "rpm" and "--all" in command else ""

    found = describe(plan(("Rocky", "10")), Engine(), Host("gpu1", "Rocky", "10", KERNEL), tmp_path, run)
    assert found["modules"] == [f"kernel-modules-extra-{kernel}" for kernel in expected]
    assert found["todo"]["modules"] is bool(expected)


def test_an_engine_with_nftables_needs_forwarding(machine: Machine) -> None:
    machine.wishes = replace(machine.wishes, firewall="nftables")
    found = machine.describe()
    assert steps(found) == ["settings", "forwarding"]
    assert found["settings"]["firewall-backend"] == "nftables"

    said = json.dumps({**json.loads(machine.engine.content), "firewall-backend": "nftables"})
    machine.engine = replace(machine.engine, content=said.encode())
    for path, text in found["forwarding"].items():
        machine.write(path, text)
    assert machine.describe()["differs"]["forwarding"] == ["net.ipv4.ip_forward is not 1"]
    machine.write("/proc/sys/net/ipv4/ip_forward", "1\n")
    assert machine.describe()["settled"]

    machine.wishes = replace(machine.wishes, firewall="auto")
    found = machine.describe()
    assert steps(found) == ["settings"], "the way back"
    assert found["settings"]["firewall-backend"] == "iptables"


@pytest.mark.parametrize(
    ("wishes", "info", "words"),
    [
        ({"version": "28.5.2-1"}, None, "begins with Docker Engine 29.0; the engine of gpu1 is 28.5.2-1. Set"),
        ({"source": "distro"}, {"ServerVersion": "26.1.5+dfsg1"}, "the engine of gpu1 is 26.1.5+dfsg1. Set"),
        ({"source": "distro"}, None, "the engine of gpu1 is one that does not run yet. Set"),
        (
            {"settings": {"live-restore": False}},
            {**INFO, "Swarm": {"LocalNodeState": "active"}},
            "which docker_engine_firewall: nftables",
        ),
    ],
)
def test_where_nftables_cannot_be(wishes: dict[str, Any], info: dict[str, Any] | None, words: str) -> None:
    assert words in refusal(info=info, firewall="nftables", **wishes)


def test_a_fresh_host_needs_everything(tmp_path: Path) -> None:
    found = describe(plan(), Engine(), Host("gpu1", "Debian", "13"), tmp_path, lambda _: "")
    assert steps(found) == ["repository", "packages", "settings", "service"]
    assert not found["present"]
