"""Ubuntu's kernels and the modules that Canonical builds for them: they stay together, and move together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import DriverError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver, DriverPackage, read_driver
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_kernel import meta_of, moves_along
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_plan import Host, Plan, Wishes, plan_driver
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_state import describe, offered_versions, query
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import Package

from tests.unit.plugins.module_utils._host.apt import Dpkg

TABLE = Path(__file__).resolve().parents[5] / "roles/nvidia_driver/vars/main/platforms.yml"
PLATFORMS = yaml.safe_load(TABLE.read_text())["_nvidia_driver_platforms"]
OLD, NEW = "580.159.03", "580.178.04"
KERNEL, NEXT = "6.8.0-90-generic", "6.8.0-91-generic"
ARCHIVE = "0ubuntu0.24.04.1"
USER_SPACE = (
    "nvidia-compute-utils-580-server",
    "nvidia-utils-580-server",
    "nvidia-headless-no-dkms-580-server-open",
    "libnvidia-compute-580-server",
)
MODULES = "linux-modules-nvidia-580-server-open"


def kernels(*names: str, version: str = "6.8.0-90.91", held: bool = False) -> list[Package]:
    return [Package(name, version, "amd64", held=held) for name in names]


GENERIC = kernels("linux-generic", "linux-image-generic", "linux-headers-generic")


def installed(version: str = OLD, kernel: str = KERNEL, *, held: bool = True) -> Driver:
    """A host whose driver is Canonical's, with the module of one kernel, whichever one runs."""
    versions = dict.fromkeys(USER_SPACE, f"{version}-{ARCHIVE}")
    versions |= {f"nvidia-firmware-580-server-{version}": f"{version}-{ARCHIVE}"}
    versions |= {f"{MODULES}-{KERNEL}": "6.8.0-90.91", f"{MODULES}-generic": "6.8.0-90.91"}
    return Driver(
        kernel=kernel,
        kernels=(KERNEL, kernel),
        module_versions={KERNEL: version},
        installed_version=version if kernel == KERNEL else None,
        library_version=version,
        source="distro",
        packages=tuple(DriverPackage(name, one, "distro", held=held) for name, one in versions.items()),
    )


def plan(
    driver: Driver | None = None,
    offered: Mapping[str, Sequence[str]] | None = None,
    packages: Sequence[Package] = tuple(GENERIC),
    **wishes: Any,
) -> Plan:
    host = Host("gpu1", "Ubuntu", "24.04", kernel_packages=packages)
    return plan_driver(driver or Driver(kernel=KERNEL), Wishes(source="distro", **wishes), host, PLATFORMS, offered)


# ---- names ----


@pytest.mark.parametrize(
    ("kernel", "packages", "expected"),
    [
        ("6.8.0-90-generic", [], "generic"),
        ("6.8.0-90-generic", GENERIC, "generic"),
        ("6.17.0-40-generic", kernels("linux-image-generic-hwe-24.04"), "generic-hwe-24.04"),
        ("6.17.0-40-generic", [*GENERIC, *kernels("linux-image-generic-hwe-24.04", version="6.17.0-40.40~24.04.1")],
         "generic-hwe-24.04"),
        # The newest kernel boots next, whichever one runs now.
        ("6.8.0-90-generic", [*GENERIC, *kernels("linux-image-generic-6.14", version="6.14.0-37.37~24.04.1")],
         "generic-6.14"),
        ("6.8.0-90-generic", kernels("linux-image-virtual"), "generic"),
        ("6.17.0-40-generic", kernels("linux-image-virtual-hwe-24.04"), "generic-hwe-24.04"),
        ("6.8.0-1030-aws", kernels("linux-image-aws-lts-24.04"), "aws-lts-24.04"),
        ("6.8.0-90-generic", kernels("linux-image-generic-hwe-24.04-edge"), "generic-hwe-24.04-edge"),
        ("6.8.0-90-generic", kernels("linux-image-generic-dbgsym", "linux-image-lowlatency"), "generic"),
        ("6.1.0-41-cloud-amd64", [], "cloud-amd64"),
    ],
)  # fmt: skip
def test_the_metapackages_of_a_kernel(kernel: str, packages: Sequence[Package], expected: str) -> None:
    assert meta_of(kernel, packages) == expected


def test_modules_and_headers_follow_the_hwe_kernels() -> None:
    packages = kernels("linux-generic-hwe-24.04", "linux-image-generic-hwe-24.04", version="6.17.0-40.40~24.04.1")
    found = plan(Driver(kernel="6.17.0-40-generic"), packages=packages)
    assert f"{MODULES}-6.17.0-40-generic" in found.required
    assert f"{MODULES}-generic-hwe-24.04" in found.required
    assert found.kernel_packages == ("linux-generic-hwe-24.04", "linux-image-generic-hwe-24.04")
    assert found.headers == ("linux-headers-6.17.0-40-generic", "linux-headers-generic-hwe-24.04")


def test_what_moves_under_its_name() -> None:
    names = ["libnvidia-compute-580-server", "libnvidia-gl-580-server:i386", "nvidia-modprobe", "libnvidia-compute-535",
             "nvidia-firmware-580-server-580.159.03", "linux-modules-nvidia-580-server-open-generic"]  # fmt: skip
    assert [name for name in names if not moves_along(name, "580")] == [names[3], names[4]]


# ---- all or nothing ----


def test_modules_and_kernel_are_held_with_the_driver(tmp_path: Path) -> None:
    driver = installed(held=False)
    found = describe(plan(driver), driver, "never", changed=False, root=dpkg(tmp_path, driver, GENERIC), run=silent)
    assert set(found["unheld"]) == {one.name for one in driver.packages} | {one.name for one in GENERIC}
    assert "linux-image-generic is not held" in found["differs"]["locks"]

    held = installed()
    metas = [replace(one, held=True) for one in GENERIC]
    root = dpkg(tmp_path, held, metas)
    found = describe(plan(held, packages=metas), held, "never", changed=False, root=root, run=silent)
    assert found["unheld"] == []
    assert not [one for one in found["differs"]["locks"] if "held" in one]


def test_a_driver_that_is_built_on_the_host_leaves_the_kernel_alone() -> None:
    host = Host("gpu1", "Ubuntu", "24.04", kernel_packages=GENERIC)
    found = plan_driver(Driver(kernel=KERNEL), Wishes(), host, PLATFORMS, {"libnvidia-compute-580": [OLD]})
    assert (found.kernel_packages, found.kernel_module) == ((), "")
    assert not [one for one in found.wanted if one.startswith("linux-")]


def test_another_version_moves_driver_modules_and_kernel_in_one_transaction(tmp_path: Path) -> None:
    driver = installed()
    offered = {USER_SPACE[0]: [NEW, OLD], f"{MODULES}-{KERNEL}": []}
    found = plan(driver, offered, version=NEW)
    assert set(found.wanted) == {
        *(f"{name}={NEW}-*" for name in USER_SPACE),
        f"{MODULES}-{KERNEL}",
        f"{MODULES}-generic",
        *(one.name for one in GENERIC),
    }
    told = describe(found, driver, "never", changed=False, root=dpkg(tmp_path, driver, GENERIC), run=silent)
    assert told["state"] == "latest", "apt leaves an installed package of any version where it is, else"
    assert f"nvidia-utils-580-server is {OLD}, not {NEW}" in told["differs"]["packages"]
    assert f"Pin: version {NEW}-*" in found.lock_files["/etc/apt/preferences.d/gpuhosts-nvidia-driver"]


def test_nothing_moves_without_another_version(tmp_path: Path) -> None:
    driver = installed()
    found = plan(driver)
    assert found.version == OLD
    told = describe(found, driver, "never", changed=False, root=dpkg(tmp_path, driver, GENERIC), run=silent)
    assert told["differs"]["packages"] == []


def test_what_serves_is_not_given_another_version() -> None:
    with pytest.raises(DriverError, match=r"Hosts that serve are upgraded by driver_upgrade\.yml"):
        plan(installed(), version=NEW, in_use=["llama-1"])


def test_the_archive_is_asked_for_versions_and_for_a_module_of_this_kernel() -> None:
    found = plan()
    assert query(found) == ["apt-cache", "madison", USER_SPACE[0], f"{MODULES}-{KERNEL}"]
    where = "http://archive.ubuntu.com/ubuntu noble-updates/restricted amd64 Packages"
    output = f" {USER_SPACE[0]} | {NEW}-{ARCHIVE} | {where}\n {MODULES}-{KERNEL} | 6.8.0-90.91 | {where}\n"
    assert offered_versions(found, output) == {USER_SPACE[0]: [NEW], f"{MODULES}-{KERNEL}": []}
    assert plan(offered=offered_versions(found, output)).version == NEW


# ---- a kernel without its module ----


def test_a_new_kernel_gets_its_module_and_no_reboot(tmp_path: Path) -> None:
    driver = installed(kernel=NEXT)
    offered = {USER_SPACE[0]: [OLD], f"{MODULES}-{NEXT}": []}
    found = plan(driver, offered)
    assert f"{MODULES}-{NEXT}" in found.wanted
    told = describe(found, driver, "auto", changed=False, root=dpkg(tmp_path, driver, GENERIC), run=silent)
    assert told["differs"]["packages"] == [f"{MODULES}-{NEXT} is not installed"]
    assert told["differs"]["reboot"] == []


def test_a_new_kernel_whose_module_is_of_a_newer_driver_is_told_how_to_get_it() -> None:
    driver = installed(kernel=NEXT)
    offered = {USER_SPACE[0]: [NEW], f"{MODULES}-{NEXT}": []}
    with pytest.raises(DriverError) as error:
        plan(driver, offered)
    (version,) = re.findall(r"Set nvidia_driver_version to ([\d.]+\d)", str(error.value))
    assert "reboot" not in str(error.value)
    assert f"{MODULES}-{NEXT}" in plan(driver, offered, version=version).wanted


def test_a_kernel_that_never_gets_a_module_is_told_which_one_does(tmp_path: Path) -> None:
    """The printed command is what the real apt-get understands, and after it and the reboot there is a plan."""
    driver = Driver(kernel="6.8.0-12-generic")
    offered = {USER_SPACE[0]: [NEW]}
    with pytest.raises(DriverError) as error:
        plan(driver, offered)
    (command,) = re.findall(r"apt-get install [^.]*(?=\. Or)", str(error.value))
    host = Dpkg(tmp_path)
    host.install(*GENERIC)
    host.offer(f"{MODULES}-generic", "6.8.0-91.92", depends=f"{MODULES}-{NEXT}")
    host.offer(f"{MODULES}-{NEXT}", "6.8.0-91.92")
    host.offer("linux-image-generic", "6.8.0-91.92")
    assert host.would("Inst", command) == {f"{MODULES}-generic", f"{MODULES}-{NEXT}", "linux-image-generic"}
    assert plan(replace(driver, kernel=NEXT), {**offered, f"{MODULES}-{NEXT}": []}).version == NEW


# ---- what a host says ----


def dpkg(root: Path, driver: Driver, packages: Sequence[Package]) -> Path:
    """A host with these packages."""
    ours = [Package(one.name, one.version, "amd64", held=one.held) for one in driver.packages]
    Dpkg(root).install(*ours, *packages)
    return root


def silent(_: Sequence[str]) -> str:
    return ""


def test_canonicals_modules_belong_to_the_driver(tmp_path: Path) -> None:
    root = dpkg(tmp_path, installed(), GENERIC)
    found = read_driver(root, silent, KERNEL)
    assert f"{MODULES}-{KERNEL}" in {one.name for one in found.packages}
    assert found.source == "distro"
    assert not [one for one in found.packages if one.name in {two.name for two in GENERIC}]


def test_the_printed_purge_takes_canonicals_modules_along(tmp_path: Path) -> None:
    """They would be left, without a library, and the same refusal would come back."""
    driver = installed()
    root = dpkg(tmp_path, driver, GENERIC)
    host = Host("gpu1", "Ubuntu", "24.04", kernel_packages=GENERIC)
    with pytest.raises(DriverError) as error:
        plan_driver(read_driver(root, silent, KERNEL), Wishes(), host, PLATFORMS)
    (command,) = re.findall(r"apt-get purge .*", str(error.value))

    Dpkg(root).remove(*Dpkg(root).would("Purg", command))

    assert plan_driver(read_driver(root, silent, KERNEL), Wishes(), host, PLATFORMS).source == "nvidia"
