"""What a host gets of NVIDIA's container toolkit, decided with the tables of the role.

They are held against https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError, ContainersError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import Engine
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.planned import Host, platform_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import Answer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.toolkit_plan import (
    Plan,
    Toolkit,
    Wishes,
    describe,
    is_able,
    plan_toolkit,
    read_toolkit,
)

ROLES = Path(__file__).resolve().parents[5] / "roles"
ROLE = ROLES / "nvidia_container_toolkit"
PLATFORMS = yaml.safe_load((ROLE / "vars/main/platforms.yml").read_text())["_nvidia_container_toolkit_platforms"]
HOST = Host("gpu1", "Debian", "13")
KEYS = [tuple(name.split(" ")) for name in PLATFORMS]
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
WISHES = Wishes(**{name.removeprefix("nvidia_container_toolkit_"): value for name, value in DEFAULTS.items()})
PACKAGES = [
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
]
RUNTIME = {"nvidia": {"path": "nvidia-container-runtime"}}
INFO: dict[str, Any] = {
    "ServerVersion": "29.7.2",
    "DockerRootDir": "/var/lib/docker",
    "Runtimes": RUNTIME,
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
}
OLD = {**INFO, "ServerVersion": "20.10.24+dfsg1", "CDISpecDirs": None}
SETTINGS = {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}, "features": {"cdi": True}}
SAID = json.dumps({"debug": True, **SETTINGS}).encode()
THERE = Toolkit(
    present=True,
    settings=Answer(0, json.dumps(SETTINGS)),
    specification="kind: nvidia.com/gpu",
    generated=Answer(0, "kind: nvidia.com/gpu\n"),
)
LINKS = "/etc/systemd/system/nvidia-cdi-refresh.service.d/gpuhosts.conf"


def plan(
    platform: tuple[str, str] = ("Debian", "13"),
    info: Mapping[str, Any] | None = INFO,
    content: bytes = SAID,
    toolkit: Toolkit = THERE,
    later: Iterable[str] = ("unable",),
    **wishes: Any,
) -> Plan:
    """The plan of a host named gpu1."""
    host = Host("gpu1", *platform)
    table = platform_of(host, PLATFORMS, "nvidia_container_toolkit", "Take it out.")
    engine = Engine(info=info, content=content)
    return plan_toolkit(engine, toolkit, replace(WISHES, **wishes), host, table, later=set(later))


def refusal(**arguments: Any) -> str:
    with pytest.raises((ContainersError, ConfigFileError)) as error:
        plan(**arguments)
    return str(error.value)


# ---- the tables ----


def test_both_roles_know_the_same_distributions() -> None:
    engines = yaml.safe_load((ROLES / "docker_engine/vars/main/platforms.yml").read_text())["_docker_engine_platforms"]
    assert set(PLATFORMS) == set(engines)


@pytest.mark.parametrize("platform", [key for key in KEYS if key[0] in ("Debian", "Ubuntu")])
def test_the_repository_for_apt(platform: tuple[str, str]) -> None:
    vendor = plan(platform).vendor
    assert vendor.key["url"] == "https://nvidia.github.io/libnvidia-container/gpgkey"
    ((path, text),) = vendor.files.items()
    assert path == "/etc/apt/sources.list.d/nvidia-container-toolkit.list"
    assert text.splitlines()[1] == (
        "deb [signed-by=/etc/apt/keyrings/nvidia-container-toolkit.asc] "
        "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /"
    )
    assert vendor.wanted == [f"{name}=1.20.1-1" for name in PACKAGES]


@pytest.mark.parametrize("platform", [key for key in KEYS if key[0] not in ("Debian", "Ubuntu")])
def test_the_repository_for_dnf(platform: tuple[str, str]) -> None:
    vendor = plan(platform).vendor
    assert vendor.repository["baseurl"] == "https://nvidia.github.io/libnvidia-container/stable/rpm/$basearch"
    assert (vendor.repository["repo_gpgcheck"], vendor.repository["gpgcheck"]) == ("1", "0")
    assert vendor.repository["gpgkey"] == f"file://{vendor.key['path']}"
    assert vendor.wanted == [f"{name}-1.20.1-1" for name in PACKAGES]


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"platform": ("Fedora", "42")},
            "gpu1 runs Fedora 42; the role nvidia_container_toolkit is made for Debian 12",
        ),
        ({"version": "1.17.8-1"}, "nvidia_container_toolkit_version is 1.17.8-1; before 1.18 nothing refreshes"),
        ({"content": b"{"}, "/etc/docker/daemon.json, line 1, column 2: not JSON"),
        ({"info": None}, "gpu1: no Docker Engine answers on /run/docker.sock. Run the role docker_engine first."),
        ({"info": {**INFO, "DockerRootDir": "/var/snap/docker/common"}}, "gpu1: Docker is a snap"),
        ({"info": {**INFO, "DockerRootDir": "/var/snap/docker/common"}, "later": ["old", "missing"]}, "is a snap"),
        ({"info": OLD}, "gpu1 has Docker Engine 20.10.24+dfsg1; CDI begins with 25.0. Set docker_engine_source"),
        ({"toolkit": replace(THERE, settings=Answer(1, "", "no such flag\n"))}, "--dry-run failed: no such flag."),
        ({"info": {**INFO, "Runtimes": {}}, "later": []}, "gpu1: the engine runs without NVIDIA's runtime or without"),
        ({"info": {**INFO, "CDISpecDirs": []}, "later": []}, "gpu1: the engine runs without NVIDIA's runtime or"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], words: str) -> None:
    assert words in refusal(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"info": None, "later": ["missing"], "toolkit": Toolkit(), "content": b""},
        {"info": OLD, "later": ["old", "unable"]},
        {"info": OLD, "mode": "legacy"},
        {"info": {**INFO, "CDISpecDirs": []}, "mode": "legacy", "later": []},
        {"info": {**INFO, "Runtimes": {}}},
    ],
)
def test_what_is_not(arguments: dict[str, Any]) -> None:
    assert plan(**arguments)


def test_who_can_hand_out_gpus() -> None:
    assert is_able(Engine(info=INFO), "cdi")
    assert not is_able(Engine(info={**INFO, "CDISpecDirs": None}), "cdi")
    assert is_able(Engine(info={**INFO, "CDISpecDirs": None}), "legacy")
    assert not is_able(Engine(info={**INFO, "Runtimes": {"runc": {}}}), "legacy")
    assert not is_able(Engine(), "legacy")


# ---- what is there ----


class Machine:
    """A host that is all that its plan wants, until a test changes something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.units = {"service": ("enabled", "inactive"), "path": ("enabled", "active")}
        self.info = INFO
        self.said = SAID
        self.toolkit = THERE
        self.mode = "cdi"
        vendor = self.plan.vendor
        records = (
            f"Package: {name}\nStatus: hold ok installed\nArchitecture: amd64\nVersion: {version}\n"
            for name, version in vendor.packages.items()
        )
        self.write("/var/lib/dpkg/status", "\n".join(records))
        self.write(vendor.key["path"], "key")
        for path, text in vendor.files.items():
            self.write(path, text)
        for path, text in self.describe()["files"].items():
            self.write(path, text)

    @property
    def engine(self) -> Engine:
        return Engine(info=self.info, content=self.said)

    @property
    def plan(self) -> Plan:
        return plan(info=self.info, content=self.said, toolkit=self.toolkit, mode=self.mode, key_checksum="sha256:")

    def write(self, path: str, content: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o644)

    def run(self, command: Sequence[str]) -> str:
        if command == ["systemctl", "show", "--property=ExecStart,Environment,EnvironmentFiles", "docker.service"]:
            return ""
        if command[0] == "systemctl":
            return "\n".join(
                f"Id=nvidia-cdi-refresh.{kind}\nUnitFileState={enabled}\nActiveState={active}\n"
                for kind, (enabled, active) in self.units.items()
            )
        assert command == ["dockerd", "--version"]
        return "Docker version 29.7.2, build 1"

    def describe(self) -> dict[str, Any]:
        return describe(self.plan, self.engine, self.toolkit, self.mode, HOST, self.root, self.run)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def steps(found: dict[str, Any]) -> list[str]:
    return [step for step, todo in found["todo"].items() if todo]


def test_a_host_with_nothing_to_do(machine: Machine) -> None:
    found = machine.describe()
    assert found["differs"] == {step: [] for step in found["differs"]}
    assert len(found["todo"]) == 10
    assert found["settled"]
    assert machine.plan.notes == ()


def test_settings_that_nvidia_ctk_wants(machine: Machine) -> None:
    machine.said = b'{"debug": true}'
    found = machine.describe()
    assert steps(found) == ["settings"]
    assert found["settings"] == SETTINGS
    assert found["validate"] == "dockerd --validate --config-file %s"


@pytest.mark.parametrize(
    ("info", "mode", "apply"),
    [
        ({"Runtimes": {}}, "cdi", "reload"),
        ({"CDISpecDirs": None}, "cdi", "restart"),
        ({"Runtimes": {}, "CDISpecDirs": None}, "legacy", "reload"),
    ],
)
def test_an_engine_that_has_not_taken_them_up(machine: Machine, info: dict[str, Any], mode: str, apply: str) -> None:
    machine.info, machine.mode = {**INFO, **info}, mode
    found = machine.describe()
    assert (steps(found), found["apply"]) == (["engine"], apply)


def test_a_specification_that_is_out_of_date(machine: Machine) -> None:
    machine.toolkit = replace(THERE, generated=Answer(0, "kind: nvidia.com/gpu\nof: another driver\n"))
    assert steps(machine.describe()) == ["specification"]


def test_without_a_driver_there_is_nothing_to_refresh_and_it_is_told(machine: Machine) -> None:
    machine.toolkit = replace(THERE, generated=Answer(1, "", "level=info\nfailed to initialize NVML\n"))
    assert machine.describe()["settled"]
    (note,) = machine.plan.notes
    assert note.startswith("gpu1: no CDI specification can be made of its GPUs now")
    assert note.endswith("nvidia-ctk says: failed to initialize NVML")


def test_the_refresh_makes_links_and_is_run_for_them(machine: Machine) -> None:
    (machine.root / LINKS[1:]).write_text("[Service]\n")
    assert steps(machine.describe()) == ["links", "specification"]


@pytest.mark.parametrize(
    ("kind", "states", "reason"),
    [
        ("service", ("disabled", "inactive"), "nvidia-cdi-refresh.service does not start at boot"),
        ("path", ("disabled", "active"), "nvidia-cdi-refresh.path does not start at boot"),
        ("path", ("enabled", "failed"), "nvidia-cdi-refresh.path does not run"),
    ],
)
def test_units(machine: Machine, kind: str, states: tuple[str, str], reason: str) -> None:
    machine.units[kind] = states
    found = machine.describe()
    assert (steps(found), found["differs"]["units"]) == (["units"], [reason])


def test_before_it_is_installed_only_that_is_told(tmp_path: Path) -> None:
    fresh = Toolkit()
    wanted = plan(toolkit=fresh, content=b"")
    found = describe(wanted, Engine(info={**INFO, "Runtimes": {}}), fresh, "cdi", HOST, tmp_path, lambda _: "")
    assert steps(found) == ["repository", "packages"]
    assert (found["install"], found["present"], found["settled"]) == (True, False, False)


def test_what_is_read_of_a_host(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def answer(command: Sequence[str], **_: float) -> Answer:
        asked.append(command)
        return Answer(0, "answer")

    assert read_toolkit(tmp_path, "cdi", answer) == Toolkit()
    assert asked == []

    files = {
        "usr/bin/nvidia-ctk": "",
        "etc/cdi/nvidia.yaml": "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n",
        "etc/cdi/site/gpus.json": '{"kind":"nvidia.com/gpu"}',
        "etc/cdi/network.yaml": "kind: example.com/net\n",
        "etc/cdi/nvidia.yaml.stale": "kind: nvidia.com/gpu\n",
        "var/run/cdi/nvidia.yaml": "kind: nvidia.com/gpu\n",
        "etc/nvidia-container-toolkit/nvidia-cdi-refresh.env": "A=1\nNVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/etc/cdi/n.yaml\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert read_toolkit(tmp_path, "cdi", answer) == Toolkit(
        present=True,
        settings=Answer(0, "answer"),
        stale=("/etc/cdi/nvidia.yaml", "/etc/cdi/site/gpus.json"),
        elsewhere=True,
        specification="kind: nvidia.com/gpu",
        generated=Answer(0, "answer"),
    )
    assert [command[-1] for command in asked] == ["--cdi.enabled", "--output="]

    file = tmp_path / "etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"
    file.write_text("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml\n")
    assert not read_toolkit(tmp_path, "legacy", answer).elsewhere
    assert asked[-2][-1] == "--dry-run"
