"""Tables of the role nvidia_driver, held against what NVIDIA, Debian and Canonical document.

Sources: https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/ (repositories, packages, streams,
branches), the install scripts of https://github.com/NVIDIA/gpu-driver-container (companions),
https://packages.debian.org and https://packages.ubuntu.com (their own drivers).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import (
    Driver,
    Fabric,
    PciGpu,
    supported_modules,
)

ROLE = Path(__file__).resolve().parents[3] / "roles/nvidia_driver"
KERNELS = {"Debian": "6.1.0-41-amd64", "Ubuntu": "6.8.0-90-generic", "Rocky": "5.14.0-687.el9.x86_64"}
FAMILIES = {"Rocky": "RedHat"}


def evaluate(expression: str, distribution: str, release: str, driver: Driver | None = None, **variables: Any) -> Any:
    """What an expression is for a host with the role's variables."""
    loader = DataLoader()
    facts = {
        "distribution": distribution,
        "distribution_version": release,
        "distribution_major_version": release.partition(".")[0],
        "driver_facts": (driver or Driver(kernel=KERNELS[distribution])).to_dict(),
    }
    values: dict[str, Any] = {"ansible_facts": facts, "inventory_hostname": "gpu1"}
    for name in ("defaults/main.yml", "vars/main.yml", f"vars/{FAMILIES.get(distribution, distribution)}.yml"):
        values |= loader.load_from_file(str(ROLE / name), trusted_as_template=True)
    return Templar(loader, variables=values | variables).template(trust_as_template("{{ " + expression + " }}"))


def gpus(*generations: str) -> Driver:
    """A host with GPUs of these generations."""
    found = tuple(PciGpu(f"0000:{index:02x}:00.0", "0x0000", one) for index, one in enumerate(generations))
    flavours, reason = supported_modules(found)
    return Driver(kernel="6.1.0-41-amd64", pci_gpus=found, supported_modules=flavours, modules_reason=reason)


@pytest.mark.parametrize(
    ("distribution", "release", "path"),
    [
        ("Debian", "12", "debian12/x86_64"),
        ("Debian", "13", "debian13/x86_64"),
        ("Ubuntu", "22.04", "ubuntu2204/x86_64"),
        ("Ubuntu", "24.04", "ubuntu2404/x86_64"),
        ("Rocky", "9", "rhel9/x86_64"),
        ("Rocky", "10", "rhel10/x86_64"),
    ],
)
def test_repositories(distribution: str, release: str, path: str) -> None:
    expected = f"https://developer.download.nvidia.com/compute/cuda/repos/{path}"
    assert evaluate("_nvidia_driver_url", distribution, release) == expected


@pytest.mark.parametrize(
    ("distribution", "release", "branch", "flavour", "packages"),
    [
        ("Debian", "12", "580", "open", "nvidia-driver-cuda nvidia-kernel-open-dkms"),
        ("Debian", "13", "595", "proprietary", "nvidia-driver-cuda nvidia-kernel-dkms"),
        ("Ubuntu", "24.04", "580", "open", "libnvidia-compute-580 nvidia-dkms-580-open"),
        ("Ubuntu", "22.04", "580", "proprietary", "libnvidia-compute-580 nvidia-dkms-580"),
        ("Ubuntu", "24.04", "595", "open", "libnvidia-compute nvidia-dkms-open"),
        ("Ubuntu", "24.04", "595", "proprietary", "libnvidia-compute nvidia-dkms"),
        ("Rocky", "9", "580", "open", "nvidia-driver-cuda kmod-nvidia-open-dkms"),
        ("Rocky", "10", "580", "proprietary", "nvidia-driver-cuda kmod-nvidia-latest-dkms"),
    ],
)
def test_packages_for_computing(distribution: str, release: str, branch: str, flavour: str, packages: str) -> None:
    variables: dict[str, Any] = {"nvidia_driver_branch": branch, "nvidia_driver_kernel_modules": flavour}
    assert set(packages.split()) <= set(evaluate("_nvidia_driver_versioned", distribution, release, **variables))


@pytest.mark.parametrize(("distribution", "release"), [("Debian", "12"), ("Ubuntu", "24.04"), ("Rocky", "9")])
def test_companions_have_no_branch_in_their_names_since_580(distribution: str, release: str) -> None:
    always: dict[str, Any] = dict.fromkeys(
        ["nvidia_driver_fabric_manager", "nvidia_driver_subnet_manager", "nvidia_driver_imex"], "always"
    )
    names = evaluate("_nvidia_driver_versioned", distribution, release, **always)
    assert {"nvidia-fabricmanager", "libnvidia-nscq", "nvidia-imex"} <= set(names)
    assert evaluate("_nvidia_driver_unversioned", distribution, release, **always) == ["nvlsm", "infiniband-diags"]
    services = ["nvidia-persistenced", "nvidia-fabricmanager", "nvidia-imex"]
    assert evaluate("_nvidia_driver_services", distribution, release, **always) == services


@pytest.mark.parametrize(
    ("wish", "needed", "expected"),
    [("auto", False, []), ("auto", True, ["manager"]), ("always", False, ["manager"]), ("never", True, [])],
)
def test_companions_follow_the_hardware_unless_told_otherwise(wish: str, needed: bool, expected: list[str]) -> None:
    driver = Driver(kernel="6.1.0-41-amd64", fabric=Fabric(manager=needed))
    companions = evaluate("_nvidia_driver_companions", "Debian", "12", driver, nvidia_driver_fabric_manager=wish)
    assert companions == expected


@pytest.mark.parametrize(
    ("flavour", "stream"), [("open", "nvidia-driver:580-open"), ("proprietary", "nvidia-driver:580-dkms")]
)
def test_streams_are_there_on_release_9_only(flavour: str, stream: str) -> None:
    for release, expected in (("9", stream), ("10", "")):
        answer = evaluate("_nvidia_driver_stream", "Rocky", release, nvidia_driver_kernel_modules=flavour)
        assert answer == expected


@pytest.mark.parametrize(
    ("release", "generations", "expected"),
    [
        ("12", [], "proprietary"),
        ("12", ["volta", "hopper"], "proprietary"),
        ("12", ["blackwell"], None),
        ("13", ["hopper"], "proprietary"),
        ("13", ["blackwell"], None),
    ],
)
def test_the_flavour_of_debians_own_driver(release: str, generations: list[str], expected: str | None) -> None:
    possible = evaluate("_nvidia_driver_possible", "Debian", release, gpus(*generations), nvidia_driver_source="distro")
    assert possible[:1] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("branch", "generations", "expected"),
    [
        ("580", ["pascal"], ["proprietary"]),
        ("610", ["ada"], ["open", "proprietary"]),
        ("615", ["ada"], ["open"]),
        ("615", ["pascal"], []),
        ("580", ["blackwell", "pascal"], []),
    ],
)
def test_the_flavour_of_nvidias_driver(branch: str, generations: list[str], expected: list[str]) -> None:
    driver = gpus(*generations)
    assert evaluate("_nvidia_driver_possible", "Debian", "12", driver, nvidia_driver_branch=branch) == expected


@pytest.mark.parametrize(
    ("distribution", "kernel", "expected"),
    [
        ("Debian", "6.1.0-41-amd64", ["linux-headers-6.1.0-41-amd64", "linux-headers-amd64"]),
        ("Debian", "6.1.0-41-cloud-amd64", ["linux-headers-6.1.0-41-cloud-amd64", "linux-headers-cloud-amd64"]),
        ("Debian", "6.12.118+deb13-amd64", ["linux-headers-6.12.118+deb13-amd64", "linux-headers-amd64"]),
        ("Debian", "6.1.0-0.deb11.5-amd64", ["linux-headers-6.1.0-0.deb11.5-amd64", "linux-headers-amd64"]),
        ("Ubuntu", "6.8.0-90-generic", ["linux-headers-6.8.0-90-generic"]),
        ("Rocky", "5.14.0-687.el9.x86_64", ["kernel-devel-matched", "kernel-headers"]),
    ],
)
def test_headers_of_this_kernel_and_of_later_ones(distribution: str, kernel: str, expected: list[str]) -> None:
    release = {"Debian": "12", "Ubuntu": "24.04", "Rocky": "9"}[distribution]
    assert evaluate("_nvidia_driver_headers", distribution, release, Driver(kernel=kernel)) == expected


def test_ubuntus_own_driver_is_the_server_branch_with_canonicals_signed_modules() -> None:
    names = evaluate("_nvidia_driver_versioned", "Ubuntu", "24.04", nvidia_driver_source="distro")
    assert names == [
        "nvidia-compute-utils-580-server",
        "nvidia-utils-580-server",
        "linux-modules-nvidia-580-server-open-6.8.0-90-generic",
        "linux-modules-nvidia-580-server-open-generic",
        "nvidia-headless-no-dkms-580-server-open",
    ]
    assert evaluate("_nvidia_driver_build", "Ubuntu", "24.04", nvidia_driver_source="distro") == []


@pytest.mark.parametrize(
    ("mode", "pending", "changed", "expected"),
    [
        ("auto", False, True, False),
        ("auto", True, False, True),
        ("always", False, False, False),
        ("always", False, True, True),
        ("never", True, True, False),
    ],
)
def test_when_a_host_is_rebooted(mode: str, pending: bool, changed: bool, expected: bool) -> None:
    driver = Driver(kernel="6.1.0-41-amd64", reboot_pending=pending)
    install = {"changed": changed}
    variables: dict[str, Any] = {"nvidia_driver_reboot": mode, "__nvidia_driver_install": install}
    assert evaluate("_nvidia_driver_reboots", "Debian", "12", driver, **variables) is expected


def test_an_installed_version_is_kept_and_its_packages_move_together() -> None:
    before = {
        "library_version": "580.159.03",
        "packages": [{"name": "libnvidia-ml1"}, {"name": "nvidia-kernel-dkms"}, {"name": "nvidia-kernel-open-dkms"}],
    }
    variables: dict[str, Any] = {"__nvidia_driver_before": before, "__nvidia_driver_version": "580.178.04"}
    assert evaluate("_nvidia_driver_installed", "Debian", "12", **variables) == "580.159.03"
    assert evaluate("_nvidia_driver_installed", "Debian", "12", nvidia_driver_branch="595", **variables) == ""
    assert evaluate("_nvidia_driver_wanted", "Debian", "12", **variables) == [
        "nvidia-driver-cuda=580.178.04-*",
        "nvidia-persistenced=580.178.04-*",
        "nvidia-kernel-open-dkms=580.178.04-*",
        "libnvidia-ml1=580.178.04-*",
    ]


def test_versions_of_the_branch_in_the_repository() -> None:
    madison = "\n".join(
        f" nvidia-driver-cuda | {one} | http://mirror Packages"
        for one in ("595.91.07-1", "580.178.04-1", "580.159.03-0ubuntu1", "3:580.95.05-1")
    )
    versions = evaluate("_nvidia_driver_available", "Debian", "12", __nvidia_driver_madison={"stdout": madison})
    assert versions == ["580.178.04", "580.159.03", "580.95.05"]


def test_dnf_locks_what_has_the_drivers_version_and_nothing_else() -> None:
    globs = evaluate("_nvidia_driver_locked", "Rocky", "9")
    table = evaluate("_nvidia_driver_packages.nvidia", "Rocky", "9")
    names = {*table["driver"], *table["modules"]["open"], *table["modules"]["proprietary"]}
    names |= {*table["manager"], *table["imex"], "nvidia-driver-cuda-libs", "nvidia-kmod-common", "libnvidia-ml"}
    others = {"nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container1", "nvidia-fs", "nvlsm"}

    assert {name for name in names | others if any(fnmatchcase(name, glob) for glob in globs)} == names
    assert not [glob for glob in globs if ":" in glob], "dnf does not read a line with a glob and an epoch"
