"""How far a host is from its plan, step by step: each drift is seen, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver, DriverPackage, PciGpu
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_plan import Host, Plan, Wishes, plan_driver
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_state import (
    describe,
    has_component,
    is_enrolled,
    lacks_module,
    query,
)

ROOT = Path(__file__).resolve().parents[5]
TABLE = ROOT / "roles/nvidia_driver/vars/main/platforms.yml"
PLATFORMS = yaml.safe_load(TABLE.read_text())["_nvidia_driver_platforms"]
KERNEL, OLD, NEW = "6.1.0-41-amd64", "580.159.03", "580.178.04"
SERVICES = ("nvidia-persistenced",)


class Machine:
    """A host that is all that its plan wants, until a test changes something."""

    def __init__(self, root: Path, distribution: str, **wishes: Any) -> None:
        self.root = root
        self.is_rpm = distribution == "Rocky"
        release = "9" if self.is_rpm else "12"
        names = ["nvidia-driver-cuda", "nvidia-persistenced"]
        names.append("kmod-nvidia-open-dkms" if self.is_rpm else "nvidia-kernel-open-dkms")
        self.versions = dict.fromkeys(names, f"{OLD}-1")
        self.tools = {"dkms": "3.0.10-8", f"linux-headers-{KERNEL}": "6.1.192", "linux-headers-amd64": "6.1.192"}
        if self.is_rpm:
            self.tools = dict.fromkeys(["dkms", "kernel-devel-matched", "kernel-headers"], "1")
            self.tools["python3-dnf-plugin-versionlock"] = "4.3"
        else:
            self.tools["nvidia-driver-pinning-580"] = "580-1"
        self.status = dict.fromkeys(names, "hold ok installed")
        self.services = dict.fromkeys(SERVICES, ("enabled", "active"))
        self.driver = Driver(
            kernel=KERNEL,
            kernels=(KERNEL,),
            loaded_version=OLD,
            installed_version=OLD,
            module_versions={KERNEL: OLD},
            library_version=OLD,
            pci_gpus=(PciGpu("0000:1b:00.0", "0x2330", "hopper"),),
            source="nvidia",
            packages=tuple(DriverPackage(name, f"{OLD}-1", "nvidia", held=True) for name in names),
        )
        self.wishes = Wishes(**wishes)
        self.host = Host("gpu1", distribution, release)
        for path, content in self.files().items():
            self.write(path, content)

    @property
    def plan(self) -> Plan:
        return plan_driver(self.driver, self.wishes, self.host, PLATFORMS)

    def files(self) -> dict[str, str]:
        plan = self.plan
        files = {**plan.repository_files, **plan.lock_files}
        files |= {**plan.module_files, **plan.unit_files, **plan.node_files}
        if not self.is_rpm:
            return files | {plan.repository["keyring"]: "key"}
        url, key = plan.url, plan.repository["key"]
        return files | {
            f"/etc/yum.repos.d/{plan.repository['name']}.repo": (
                f"[{plan.repository['name']}]\nasync = 1\nbaseurl = {url}\ngpgcheck = 1\ngpgkey = {url}/{key}\n"
            ),
            "/etc/dnf/modules.d/nvidia-driver.module": (
                "[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate=enabled\n"
            ),
            "/etc/dnf/plugins/versionlock.list": f"# BEGIN\n{plan.locks}# END\n",
        }

    def write(self, path: str, content: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(0o644)

    def run(self, command: Sequence[str]) -> str:
        if command[0] == "systemctl":
            return "\n".join(
                f"Id={name}.service\nUnitFileState={enabled}\nActiveState={active}\n"
                for name, (enabled, active) in self.services.items()
            )
        assert command[0] == "rpm"
        versions = self.versions | self.tools
        return "".join(f"{name}\t3\t{version}\tx86_64\tNVIDIA\n" for name, version in versions.items())

    def describe(self, *, changed: bool = False) -> dict[str, Any]:
        if self.is_rpm:
            (self.root / "var/lib/rpm").mkdir(parents=True, exist_ok=True)
        else:
            states = self.status | dict.fromkeys(self.tools, "install ok installed")
            paragraphs = [
                f"Package: {name}\nStatus: {states[name]}\nArchitecture: amd64\nVersion: {version}\n"
                for name, version in (self.versions | self.tools).items()
            ]
            self.write("/var/lib/dpkg/status", "\n".join(paragraphs))
        return describe(self.plan, self.driver, self.wishes.reboot, changed=changed, root=self.root, run=self.run)

    def differs(self) -> dict[str, list[str]]:
        return {step: reasons for step, reasons in self.describe()["differs"].items() if reasons}


@pytest.fixture(params=["Debian", "Rocky"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


@pytest.fixture
def debian(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "Debian")


@pytest.fixture
def rocky(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "Rocky")


def test_a_host_that_is_as_it_should_be_needs_nothing(machine: Machine) -> None:
    found = machine.describe()
    assert machine.differs() == {}
    assert found["settled"]
    assert not any(found["todo"].values())


def test_every_file_counts(debian: Machine) -> None:
    steps = {
        "/etc/apt/sources.list.d/cuda-debian12-x86_64.list": "repository",
        "/usr/share/keyrings/cuda-archive-keyring.gpg": "repository",
        "/etc/apt/preferences.d/gpuhosts-nvidia-driver": "locks",
        "/etc/apt/apt.conf.d/51gpuhosts-nvidia-driver": "locks",
        "/etc/modprobe.d/gpuhosts-nouveau.conf": "files",
        "/etc/systemd/system/nvidia-persistenced.service.d/gpuhosts.conf": "units",
    }
    assert set(steps) == set(debian.files())
    for path, step in steps.items():
        file = debian.root / path.lstrip("/")
        content = file.read_text()
        file.unlink()
        assert debian.differs() == {step: [f"{path} is not there"]}
        if step != "repository" or path.endswith(".list"):
            debian.write(path, content + "# by hand\n")
            assert debian.differs() == {step: [f"{path} is another one"]}
            debian.write(path, content)
            file.chmod(0o600)
            assert debian.differs() == {step: [f"{path} has mode 0600, not 0644"]}
        debian.write(path, content)
    assert debian.describe()["settled"]


def test_a_removed_hold(debian: Machine) -> None:
    first, *others = debian.driver.packages
    debian.driver = replace(debian.driver, packages=(replace(first, held=False), *others))
    assert debian.differs() == {"locks": ["nvidia-driver-cuda is not held"]}
    assert debian.describe()["unheld"] == ["nvidia-driver-cuda"]


def test_a_removed_lock(rocky: Machine) -> None:
    rocky.write("/etc/dnf/plugins/versionlock.list", rocky.plan.locks.partition("\n")[2])
    assert rocky.differs() == {"locks": ["/etc/dnf/plugins/versionlock.list does not lock every package of the driver"]}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/yum.repos.d/cuda-rhel9-x86_64.repo", "/etc/yum.repos.d/cuda-rhel9-x86_64.repo is another one"),
        ("/etc/dnf/modules.d/nvidia-driver.module", "the stream nvidia-driver:580-open is not enabled"),
    ],
)
def test_repository_and_stream_of_dnf(rocky: Machine, path: str, reason: str) -> None:
    content = (rocky.root / path.lstrip("/")).read_text()
    for other in (content.replace("580-open", "595-open").replace("https://", "http://"), "", "no INI file\n"):
        rocky.write(path, other)
        assert rocky.differs() == {"repository": [reason]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda one: one.versions.update({"nvidia-persistenced": f"{NEW}-1"}),
            f"nvidia-persistenced is {NEW}, not {OLD}",
        ),
        (lambda one: one.versions.pop("nvidia-persistenced"), "nvidia-persistenced is not installed"),
        (lambda one: one.tools.pop("dkms"), "dkms is not installed"),
    ],
)
def test_packages_of_another_version_or_missing(
    machine: Machine, change: Callable[[Machine], Any], reason: str
) -> None:
    change(machine)
    assert machine.differs() == {"packages": [reason]}


def test_a_package_that_came_along_is_looked_at_as_well(debian: Machine) -> None:
    along = DriverPackage("libnvidia-ml1", f"{NEW}-1", "nvidia", held=True)
    debian.driver = replace(debian.driver, packages=(*debian.driver.packages, along))
    debian.versions["libnvidia-ml1"], debian.status["libnvidia-ml1"] = f"{NEW}-1", "hold ok installed"
    assert debian.differs() == {"packages": [f"libnvidia-ml1 is {NEW}, not {OLD}"]}


def test_the_headers_of_later_kernels_and_the_pin_of_the_branch(debian: Machine) -> None:
    del debian.tools["linux-headers-amd64"], debian.tools["nvidia-driver-pinning-580"]
    assert debian.differs() == {
        "packages": ["linux-headers-amd64 is not installed", "nvidia-driver-pinning-580 is not installed"]
    }


def test_a_package_that_dpkg_has_not_finished(debian: Machine) -> None:
    debian.status["nvidia-kernel-open-dkms"] = "hold ok half-configured"
    assert debian.differs() == {"packages": ["nvidia-kernel-open-dkms is installed half-way"]}


def test_another_version_is_wanted(machine: Machine) -> None:
    machine.wishes = Wishes(version=NEW)
    differs = machine.differs()
    assert f"nvidia-driver-cuda is {OLD}, not {NEW}" in differs["packages"]
    assert "locks" in differs


def test_another_flavour_is_wanted(debian: Machine) -> None:
    debian.wishes = Wishes(kernel_modules="proprietary")
    assert debian.differs() == {"packages": ["nvidia-kernel-dkms is not installed"]}


@pytest.mark.parametrize(
    ("state", "reason"),
    [(("disabled", "active"), "does not start at boot"), (("enabled", "failed"), "does not run")],
)
def test_services(machine: Machine, state: tuple[str, str], reason: str) -> None:
    machine.services["nvidia-persistenced"] = state
    assert machine.differs() == {"services": [f"nvidia-persistenced {reason}"]}


def test_without_a_loaded_driver_services_need_not_run(debian: Machine) -> None:
    debian.services["nvidia-persistenced"] = ("enabled", "inactive")
    debian.driver = replace(debian.driver, loaded_version=None, pci_gpus=())
    assert debian.differs() == {}


def test_a_driver_that_is_not_loaded(debian: Machine) -> None:
    debian.driver = replace(debian.driver, loaded_version=None)
    assert debian.differs() == {"load": ["the kernel module is not loaded"]}


@pytest.mark.parametrize(("mode", "settled"), [("auto", False), ("always", False), ("never", True)])
def test_a_pending_reboot(debian: Machine, mode: str, settled: bool) -> None:
    debian.wishes = Wishes(reboot=mode)
    debian.driver = replace(debian.driver, reboot_pending=True, reboot_reason="because")
    assert debian.describe()["settled"] is settled
    assert debian.differs() == ({} if settled else {"reboot": ["because"]})


def test_a_kernel_without_its_module_is_built_for_and_not_rebooted(debian: Machine) -> None:
    debian.driver = replace(
        debian.driver, loaded_version=None, installed_version=None, module_versions={"6.1.0-40": OLD}
    )
    assert lacks_module(debian.driver)
    assert debian.differs() == {"build": [f"kernel {KERNEL} runs and has no NVIDIA module"]}


def test_the_host_of_another_distribution_of_the_driver(tmp_path: Path) -> None:
    listed = "/etc/apt/sources.list.d/gpuhosts-nvidia-driver.list"
    assert not has_component(tmp_path, "non-free", listed)
    sources = tmp_path / "etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    for text, expected in (
        ("deb http://deb.debian.org/debian bookworm main non-free-firmware\n", False),
        ("# deb http://deb.debian.org/debian bookworm main non-free\n", False),
        ("deb http://deb.debian.org/debian bookworm main non-free\n", True),
    ):
        sources.write_text(text)
        assert has_component(tmp_path, "non-free", listed) is expected
    sources.unlink()
    (tmp_path / "etc/apt/sources.list.d").mkdir()
    (tmp_path / listed.lstrip("/")).write_text("deb http://deb.debian.org/debian bookworm non-free contrib\n")
    assert not has_component(tmp_path, "non-free", listed), "the role's own list does not count"
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text("Types: deb\nComponents: main non-free\n")
    assert has_component(tmp_path, "non-free", listed)


def test_what_asks_the_repository(machine: Machine) -> None:
    assert query(machine.plan)[0] == ("dnf" if machine.is_rpm else "apt-cache")


def test_without_mokutil_no_key_is_enrolled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_enrolled("/var/lib/dkms/mok.pub")
    program = tmp_path / "mokutil"
    program.write_text("#!/bin/sh\necho $2 is already enrolled\nexit 1\n")
    program.chmod(0o755)
    assert is_enrolled("/var/lib/dkms/mok.pub")
