"""What a host gets of the driver, decided with the tables of the role nvidia_driver.

The tables are held against what NVIDIA, Debian and Canonical document. Sources:
https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/ (repositories, packages, streams, branches), the
install scripts of https://github.com/NVIDIA/gpu-driver-container (companions), https://packages.debian.org and
https://packages.ubuntu.com (their own drivers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import DriverError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import (
    Driver,
    DriverPackage,
    Fabric,
    PciGpu,
    read_driver,
    supported_modules,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_plan import (
    Host,
    Plan,
    Wishes,
    plan_driver,
    reboots,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_state import offered_versions
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.platform import find_platform, resolve

from tests.unit.plugins.module_utils._host.apt import Dpkg

ROOT = Path(__file__).resolve().parents[5]
VARIABLES = yaml.safe_load((ROOT / "roles/nvidia_driver/vars/main/platforms.yml").read_text())
PLATFORMS: Mapping[str, Any] = VARIABLES["_nvidia_driver_platforms"]
KERNELS = {"Debian": "6.1.0-41-amd64", "Ubuntu": "6.8.0-90-generic", "Rocky": "5.14.0-687.el9.x86_64"}
OLD, NEW = "580.159.03", "580.178.04"


def plan(
    distribution: str = "Debian",
    release: str = "12",
    driver: Driver | None = None,
    offered: Sequence[str] | None = None,
    host: Mapping[str, Any] | None = None,
    **wishes: Any,
) -> Plan:
    """The plan of a host named gpu1."""
    driver = driver or Driver(kernel=KERNELS.get(distribution, KERNELS["Rocky"]))
    found = Host("gpu1", distribution, release, **(host or {}))
    versions = None if offered is None else {"nvidia-driver-cuda": offered}
    return plan_driver(driver, Wishes(**wishes), found, PLATFORMS, versions)


def refusal(*arguments: Any, **wishes: Any) -> str:
    """Why there is no plan."""
    with pytest.raises(DriverError) as error:
        plan(*arguments, **wishes)
    return str(error.value)


def gpus(*generations: str) -> Driver:
    """A host with GPUs of these generations."""
    found = tuple(PciGpu(f"0000:{index:02x}:00.0", "0x0000", one) for index, one in enumerate(generations))
    flavours, reason = supported_modules(found)
    return Driver(kernel="6.1.0-41-amd64", pci_gpus=found, supported_modules=flavours, modules_reason=reason)


def installed(version: str = OLD, *names: str, source: str = "nvidia") -> Driver:
    """A host with a driver."""
    packages = tuple(DriverPackage(name, f"{version}-1", source, held=True) for name in names or ("libnvidia-ml1",))
    return Driver(kernel="6.1.0-41-amd64", library_version=version, source=source, packages=packages)


# ---- the tables ----


@pytest.mark.parametrize(
    ("distribution", "release", "path"),
    [
        ("Debian", "12", "debian12/x86_64"),
        ("Debian", "13", "debian13/x86_64"),
        ("Ubuntu", "22.04", "ubuntu2204/x86_64"),
        ("Ubuntu", "24.04", "ubuntu2404/x86_64"),
        ("Ubuntu", "26.04", "ubuntu2604/x86_64"),
        ("Rocky", "9", "rhel9/x86_64"),
        ("Rocky", "10", "rhel10/x86_64"),
        ("AlmaLinux", "9", "rhel9/x86_64"),
        ("AlmaLinux", "10", "rhel10/x86_64"),
        ("OracleLinux", "9", "rhel9/x86_64"),
        ("OracleLinux", "10", "rhel10/x86_64"),
    ],
)
def test_repositories(distribution: str, release: str, path: str) -> None:
    expected = f"https://developer.download.nvidia.com/compute/cuda/repos/{path}"
    assert plan(distribution, release).url == expected


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_host_of_another_architecture_than_the_repositorys_is_refused(name: str) -> None:
    distribution, release = name.split()
    assert plan(distribution, release).url.endswith("/".join(resolve(PLATFORMS, name)["architectures"]["nvidia"]))
    words = refusal(distribution, release, host={"architecture": "aarch64"})
    assert words.startswith("gpu1 is a host of aarch64; with nvidia_driver_source: nvidia")
    assert words.endswith("set nvidia_driver_source to none for this host.")


def test_the_archive_of_debian_has_aarch64_and_that_of_ubuntu_has_not() -> None:
    arm = {"architecture": "aarch64"}
    assert plan("Debian", "13", host=arm, source="distro", kernel_modules="proprietary").source == "distro"
    assert "for x86_64 only" in refusal("Ubuntu", "24.04", host=arm, source="distro")


@pytest.mark.parametrize(
    ("distribution", "release", "branch", "flavour", "packages"),
    [
        ("Debian", "12", "580", "open", "nvidia-driver-cuda nvidia-kernel-open-dkms"),
        ("Debian", "13", "595", "proprietary", "nvidia-driver-cuda nvidia-kernel-dkms"),
        ("Ubuntu", "24.04", "580", "open", "libnvidia-compute-580 nvidia-utils-580 nvidia-dkms-580-open"),
        ("Ubuntu", "22.04", "580", "proprietary", "libnvidia-compute-580 nvidia-dkms-580"),
        ("Ubuntu", "24.04", "595", "open", "libnvidia-compute nvidia-persistenced nvidia-dkms-open"),
        ("Ubuntu", "24.04", "595", "proprietary", "libnvidia-compute nvidia-persistenced nvidia-dkms"),
        ("Ubuntu", "26.04", "auto", "open", "libnvidia-compute nvidia-persistenced nvidia-dkms-open"),
        ("Rocky", "9", "580", "open", "nvidia-driver-cuda kmod-nvidia-open-dkms"),
        ("Rocky", "10", "580", "proprietary", "nvidia-driver-cuda kmod-nvidia-latest-dkms"),
    ],
)
def test_packages_for_computing(distribution: str, release: str, branch: str, flavour: str, packages: str) -> None:
    found = plan(distribution, release, branch=branch, kernel_modules=flavour)
    assert set(packages.split()) <= set(found.required)
    # The names of Ubuntu's release 26.04, and of 590 and later, have no branch.
    assert found.branch == "580" or not [name for name in found.required if found.branch in name]


@pytest.mark.parametrize(("distribution", "release"), [("Debian", "12"), ("Ubuntu", "24.04"), ("Rocky", "9")])
def test_companions_have_no_branch_in_their_names_since_580(distribution: str, release: str) -> None:
    always: dict[str, Any] = dict.fromkeys(["fabric_manager", "subnet_manager", "imex"], "always")
    found = plan(distribution, release, **always, imex_nodes=["10.0.0.1", "10.0.0.2"])
    assert {"nvidia-fabricmanager", "libnvidia-nscq", "nvidia-imex"} <= set(found.required)
    assert found.others == ("nvlsm", "infiniband-diags")
    assert found.services == ("nvidia-persistenced", "nvidia-fabricmanager", "nvidia-imex")
    assert found.node_files == {"/etc/nvidia-imex/nodes_config.cfg": "10.0.0.1\n10.0.0.2\n"}


@pytest.mark.parametrize(
    ("flavour", "stream"), [("open", "nvidia-driver:580-open"), ("proprietary", "nvidia-driver:580-dkms")]
)
def test_streams_are_there_on_release_9_only(flavour: str, stream: str) -> None:
    for release, expected in (("9", stream), ("10", "")):
        assert plan("Rocky", release, kernel_modules=flavour).stream == expected


@pytest.mark.parametrize(
    ("distribution", "kernel", "expected"),
    [
        ("Debian", "6.1.0-41-amd64", ["linux-headers-6.1.0-41-amd64", "linux-headers-amd64"]),
        ("Debian", "6.1.0-41-cloud-amd64", ["linux-headers-6.1.0-41-cloud-amd64", "linux-headers-cloud-amd64"]),
        ("Debian", "6.12.118+deb13-amd64", ["linux-headers-6.12.118+deb13-amd64", "linux-headers-amd64"]),
        ("Debian", "6.1.0-0.deb11.5-amd64", ["linux-headers-6.1.0-0.deb11.5-amd64", "linux-headers-amd64"]),
        ("Ubuntu", "6.8.0-90-generic", ["linux-headers-6.8.0-90-generic", "linux-headers-generic"]),
        ("Rocky", "5.14.0-687.el9.x86_64", ["kernel-devel-matched", "kernel-headers"]),
    ],
)
def test_headers_of_this_kernel_and_of_later_ones(distribution: str, kernel: str, expected: list[str]) -> None:
    release = {"Debian": "12", "Ubuntu": "24.04", "Rocky": "9"}[distribution]
    found = plan(distribution, release, Driver(kernel=kernel))
    assert list(found.headers) == expected
    assert list(found.build) == ["dkms", *expected]
    assert plan(distribution, release, kernel_headers=["mine"]).headers == ("mine",)


def test_ubuntus_own_driver_is_the_server_branch_with_canonicals_signed_modules() -> None:
    found = plan("Ubuntu", "24.04", source="distro")
    assert list(found.required) == [
        "nvidia-compute-utils-580-server",
        "nvidia-utils-580-server",
        "linux-modules-nvidia-580-server-open-6.8.0-90-generic",
        "linux-modules-nvidia-580-server-open-generic",
        "nvidia-headless-no-dkms-580-server-open",
    ]
    assert (found.build, found.names) == ((), found.required)


def test_dnf_locks_what_has_the_drivers_version_and_nothing_else() -> None:
    locks = plan("Rocky", "9", version=OLD).locks.splitlines()
    globs = [line.removesuffix(f"-{OLD}-*.*") for line in locks]
    table = resolve(PLATFORMS, "Rocky 9")["packages"]["nvidia"]
    names = {*table["driver"], *table["modules"]["open"], *table["modules"]["proprietary"]}
    names |= {*table["manager"], *table["imex"], "nvidia-driver-cuda-libs", "nvidia-kmod-common", "libnvidia-ml"}
    others = {"nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container1", "nvidia-fs", "nvlsm"}

    assert {name for name in names | others if any(fnmatchcase(name, glob) for glob in globs)} == names
    assert not [glob for glob in globs if ":" in glob], "dnf does not read a line with a glob and an epoch"


def test_debians_own_driver_comes_from_the_security_archive_as_well() -> None:
    (text,) = plan(source="distro", distro_security_mirror="http://mirror/security").repository_files.values()
    assert "deb http://deb.debian.org/debian bookworm non-free contrib non-free-firmware\n" in text
    assert "deb http://mirror/security bookworm-security non-free contrib non-free-firmware\n" in text
    assert plan(source="distro", host={"has_component": True}).repository_files == {}


def test_a_mirror_replaces_nvidias_own_address() -> None:
    found = plan(mirror="http://mirror/repos")
    assert found.repository_files == {
        "/etc/apt/sources.list.d/cuda-debian12-x86_64.list": (
            "deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] http://mirror/repos/debian12/x86_64/ /\n"
        )
    }


@pytest.mark.parametrize(
    ("distribution", "version", "expected"),
    [
        ("Debian", "12.11", ("Debian 12", "12")),
        ("Ubuntu", "24.04", ("Ubuntu 24.04", "24.04")),
        ("Rocky", "9.6", ("Rocky 9", "9")),
    ],
)
def test_the_release_that_a_table_knows(distribution: str, version: str, expected: tuple[str, str]) -> None:
    assert find_platform(distribution, version) == expected


# ---- flavours, companions, versions ----


@pytest.mark.parametrize(
    ("wish", "needed", "expected"),
    [("auto", False, ()), ("auto", True, ("manager",)), ("always", False, ("manager",)), ("never", True, ())],
)
def test_companions_follow_the_hardware_unless_told_otherwise(
    wish: str, needed: bool, expected: tuple[str, ...]
) -> None:
    driver = Driver(kernel="6.1.0-41-amd64", fabric=Fabric(manager=needed))
    assert plan(driver=driver, fabric_manager=wish).companions == expected


@pytest.mark.parametrize(
    ("release", "generations", "expected"),
    [("12", [], "proprietary"), ("12", ["volta", "hopper"], "proprietary"), ("13", ["hopper"], "proprietary")],
)
def test_the_flavour_of_debians_own_driver(release: str, generations: list[str], expected: str) -> None:
    assert plan("Debian", release, gpus(*generations), source="distro").flavour == expected


@pytest.mark.parametrize("release", ["12", "13"])
def test_gpus_that_debians_own_driver_does_not_run(release: str) -> None:
    message = refusal("Debian", release, gpus("blackwell"), source="distro")
    assert "offers the kernel module proprietary" in message
    assert "the GPUs of gpu1 need another: Blackwell runs with the open kernel module only" in message


@pytest.mark.parametrize(
    ("branch", "generations", "expected"), [("580", ["pascal"], "proprietary"), ("610", ["ada"], "open")]
)
def test_the_flavour_of_nvidias_driver(branch: str, generations: list[str], expected: str) -> None:
    assert plan(driver=gpus(*generations), branch=branch).flavour == expected


def test_the_last_branch_with_a_proprietary_module() -> None:
    assert plan(driver=gpus("ada"), branch="610", kernel_modules="proprietary").flavour == "proprietary"
    message = refusal(driver=gpus("ada"), branch="615", kernel_modules="proprietary")
    assert "on gpu1 only open is possible" in message
    assert "branches after 610 have no proprietary one" in message
    assert plan(driver=gpus("ada"), branch="615", kernel_modules="auto").flavour == "open"


def test_the_branch_is_that_of_the_version_else_the_installed_one_else_the_first_to_be_had() -> None:
    assert plan(version="595.91.07", driver=installed(OLD)).branch == "595"
    assert plan(driver=installed("595.91.07")).branch == "595"
    assert plan(driver=installed("535.261.03")).branch == "580"
    assert (plan().branch, plan("Ubuntu", "26.04").branch) == ("580", "595")
    assert plan("Ubuntu", "26.04", source="distro").branch == "580"


def test_an_installed_version_is_kept_and_its_packages_move_together() -> None:
    there = installed(OLD, "libnvidia-ml1", "nvidia-kernel-dkms", "nvidia-kernel-open-dkms", "libcuda1:i386")
    assert plan(driver=there).version == OLD
    assert plan(driver=there, branch="595").version == ""
    assert plan(driver=there, version=NEW).wanted == (
        "nvidia-driver-cuda=580.178.04-*",
        "nvidia-persistenced=580.178.04-*",
        "nvidia-kernel-open-dkms=580.178.04-*",
        "libnvidia-ml1=580.178.04-*",
        "libcuda1:i386=580.178.04-*",
    )
    assert plan("Rocky", "9", Driver(kernel="5.14"), version=NEW).wanted[0] == f"nvidia-driver-cuda-{NEW}"


def test_the_newest_of_the_branch_is_found_by_numbers_and_not_by_the_alphabet() -> None:
    assert plan(offered=["580.95.05", NEW, OLD]).version == NEW
    assert plan(offered=["580.95.05", OLD]).version == OLD
    assert plan(offered=[NEW, OLD], driver=installed(OLD)).version == OLD


def test_versions_of_the_branch_in_the_repository() -> None:
    madison = "\n".join(
        f" nvidia-driver-cuda | {one} | http://mirror Packages"
        for one in ("595.91.07-1", "580.178.04-1", "580.159.03-0ubuntu1", "3:580.95.05-1")
    )
    assert offered_versions(plan(), madison) == {
        "nvidia-driver-cuda": ["595.91.07", "580.178.04", "580.159.03", "580.95.05"]
    }
    assert plan(offered=["595.91.07", "580.178.04"]).version == "580.178.04"
    answer = "580.95.05\n\n580.159.03\n\n580.159.03\n"
    assert offered_versions(plan("Rocky", "9"), answer) == {"nvidia-driver-cuda": ["580.95.05", "580.159.03"]}


def test_until_the_repository_is_asked_a_fresh_host_has_no_version() -> None:
    found = plan()
    assert (found.version, found.wanted, found.locks) == ("", (), "")
    assert "/etc/apt/preferences.d/gpuhosts-nvidia-driver" not in found.lock_files


def test_what_keeps_apt_from_another_version() -> None:
    files = plan(version=NEW).lock_files
    assert f"Pin: version {NEW}-*\nPin-Priority: 1001" in files["/etc/apt/preferences.d/gpuhosts-nvidia-driver"]
    assert '"libnvidia-"' in files["/etc/apt/apt.conf.d/51gpuhosts-nvidia-driver"]


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
    assert reboots(mode, pending=pending, changed=changed) is expected


def test_a_driver_too_old_for_vllm_is_warned_of() -> None:
    (note,) = plan("Debian", "13", source="distro").notes
    assert note.startswith("WARNING: Debian 13 has driver branch 550.")
    assert plan("Ubuntu", "24.04", source="distro").notes == ()


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "wishes", "words"),
    [
        (
            ["Fedora", "42", Driver(kernel="6")],
            {},
            f"gpu1 runs Fedora 42; the role nvidia_driver is made for {', '.join(PLATFORMS)}. Reinstall the host",
        ),
        (["Rocky", "9"], {"source": "distro"}, "gpu1 runs Rocky 9; with nvidia_driver_source: distro"),
        ([], {"branch": "570"}, "The branch is 580 or later"),
        ([], {"branch": "latest"}, "nvidia_driver_branch is 'latest'"),
        ([], {"branch": "580", "version": "595.91.07"}, "begins with the branch"),
        ([], {"source": "distro", "version": "535.261.03"}, "distro the version is empty on Debian"),
        ([], {"offered": [OLD, NEW], "version": "580.1.2"}, f"Of branch 580 it has {NEW}, {OLD}. Set"),
        ([], {"offered": []}, "has no driver of branch 580. Of branch 580 it has none"),
        ([], {"imex": "always"}, "set nvidia_driver_imex_nodes to the addresses"),
        ([], {"driver": gpus("pascal"), "branch": "595"}, 'Set nvidia_driver_branch to "580" for this host'),
        (
            ["Ubuntu", "26.04"],
            {"driver": gpus("pascal")},
            "Set nvidia_driver_source to distro and nvidia_driver_branch to",
        ),
        (["Ubuntu", "26.04"], {"branch": "580"}, 'the first one is 595. Set nvidia_driver_branch to auto or "595", or'),
        ([], {"driver": gpus("blackwell", "pascal")}, "the GPUs of gpu1 need another"),
        ([], {"source": "distro", "fabric_manager": "always"}, "CUDA fails with error 802. Set nvidia_driver_source"),
        ([], {"source": "distro", "kernel_modules": "open"}, "535.261.03, which does not build on its kernel 6.1.192"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(arguments: list[Any], wishes: dict[str, Any], words: str) -> None:
    assert words in refusal(*arguments, **wishes)


@pytest.mark.parametrize(
    ("there", "source", "words"),
    [
        (installed(), "distro", "Either keep that driver (nvidia_driver_source: nvidia)"),
        (installed(source="distro"), "nvidia", "Either keep that driver (nvidia_driver_source: distro)"),
        (Driver(kernel="6", source="runfile"), "nvidia", "(nvidia_driver_source: none), or remove it, reboot and run"),
    ],
)
def test_a_driver_of_another_source_is_not_replaced(there: Driver, source: str, words: str) -> None:
    assert words in refusal(driver=there, source=source)


def test_only_what_is_there_is_to_be_removed() -> None:
    runfile = refusal(driver=Driver(kernel="6", source="runfile"))
    assert runfile.endswith("run again: nvidia-uninstall")
    packages = refusal(driver=installed(), source="distro")
    assert packages.endswith("run again: apt-get purge --allow-change-held-packages libnvidia-ml1")


def test_secure_boot_wants_a_key_that_is_enrolled() -> None:
    locked = replace(gpus("hopper"), secure_boot=True)
    message = refusal(driver=locked)
    assert "mokutil --import /var/lib/dkms/mok.pub" in message
    assert "Enroll MOK" in message
    assert plan(driver=locked, host={"key_enrolled": True}).flavour == "open"
    assert plan("Ubuntu", "24.04", locked, source="distro").flavour == "open", "Canonical has signed them"


@pytest.mark.parametrize("wishes", [{"version": NEW}, {"branch": "595"}, {"kernel_modules": "proprietary"}])
def test_what_runs_on_the_gpus_gets_no_other_driver_below_it(wishes: dict[str, Any]) -> None:
    there = installed(OLD, "libnvidia-ml1", "nvidia-kernel-open-dkms")
    message = refusal(driver=there, in_use=["llama-1"], **wishes)
    assert f"gpu1 has driver {OLD}" in message
    assert "it serves llama-1. Hosts that serve are upgraded by driver_upgrade.yml" in message
    assert plan(driver=there, in_use=["llama-1"]).version == OLD
    assert plan(driver=there, **wishes)


def test_the_printed_purge_takes_packages_of_the_other_architecture_along(tmp_path: Path) -> None:
    """apt-get purge NAME leaves NAME:i386, and the same refusal would come back."""
    host = Dpkg(tmp_path)
    host.status.write_text((ROOT / "tests/unit/fixtures/dpkg-status-with-i386").read_text())

    def run(_: Sequence[str]) -> str:
        return ""

    message = refusal("Ubuntu", "22.04", driver=read_driver(tmp_path, run, "6.8.0-90-generic"))
    (command,) = re.findall(r"apt-get purge .*", message)
    assert "libnvidia-gl-535:i386" in command

    host.remove(*host.would("Purg", command))

    assert plan("Ubuntu", "22.04", driver=read_driver(tmp_path, run, "6.8.0-90-generic")).source == "nvidia"
