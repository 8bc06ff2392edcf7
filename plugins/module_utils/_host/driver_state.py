"""How far a host is from the driver that is planned for it; private to the collection.

`differences` compares a plan with what is there, step by step of the role: a step without differences is not run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .driver import Driver
from .driver_plan import Plan, nvidias_version, reboots
from .packages import Package, read_packages
from .system import Run, answer, read_text
from .wanted import (
    differing_files,
    differing_packages,
    differing_services,
    differing_settings,
    read_services,
)

__all__ = ["describe", "has_component", "is_enrolled", "lacks_module", "offered_versions", "query"]

_VERSIONLOCK = "etc/dnf/plugins/versionlock.list"


def describe(plan: Plan, driver: Driver, mode: str, *, changed: bool, root: Path, run: Run) -> dict[str, Any]:
    """The plan as a fact, with what differs by step, and what is to be done about the running kernel.

    ``mode`` is nvidia_driver_reboot, ``changed`` whether packages have been changed in this run.
    """
    packages = read_packages(root, run)
    services = read_services(plan.services, run)
    reboot = reboots(mode, pending=driver.reboot_pending, changed=changed)
    missing = lacks_module(driver)
    load = bool(
        driver.pci_gpus and driver.installed_version and not driver.loaded_version and not driver.reboot_pending
    )
    start = driver.loaded_version is not None and not driver.reboot_pending
    differs = {
        "repository": differing_files(root, plan.repository_files) + _differing_repository(root, plan),
        "units": differing_files(root, plan.unit_files),
        "packages": _differing_packages(plan, packages),
        "locks": _differing_locks(root, plan, _unheld(plan, driver, packages)),
        "files": differing_files(root, {**plan.module_files, **plan.node_files}),
        "services": differing_services(services, plan.services, active=start),
        "build": [f"kernel {driver.kernel} runs and has no NVIDIA module"] if missing else [],
        "load": ["the kernel module is not loaded"] if load else [],
        "reboot": [str(driver.reboot_reason or "packages have changed")] if reboot else [],
    }
    return {
        **plan.to_dict(),
        "differs": differs,
        "todo": {step: bool(reasons) for step, reasons in differs.items()},
        "settled": not any(differs.values()),
        "start": start,
        "state": "latest" if plan.kernel_packages else "present",
        "unheld": _unheld(plan, driver, packages),
    }


def lacks_module(driver: Driver) -> bool:
    """Whether the running kernel has no module, and a reboot would bring none."""
    return driver.library_version is not None and driver.installed_version is None and not driver.reboot_pending


def has_component(root: Path, component: str, own: str) -> bool:
    """Whether a source of apt names a component of the archive; the list at the path ``own`` does not count."""
    names = re.compile(rf"(?m)^(?:deb |Components:)(?:[^#\n]*\s)?{re.escape(component)}(?:\s|$)")
    lists = [*root.glob("etc/apt/*.list"), *root.glob("etc/apt/sources.list.d/*.list")]
    lists += root.glob("etc/apt/sources.list.d/*.sources")
    return any(names.search(read_text(path)) for path in lists if path != root / own.lstrip("/"))


def is_enrolled(key: str) -> bool:
    """Whether the firmware knows the key that signs kernel modules; False when nobody can tell."""
    # The exit status is 1 for an enrolled key.
    return "is already enrolled" in answer(["mokutil", "--test-key", key]).output


def query(plan: Plan) -> list[str]:
    """The command that asks the repository which versions it has of the branch, and a module for this kernel."""
    first = plan.required[0]
    if plan.manager == "apt":
        return ["apt-cache", "madison", first, *([plan.kernel_module] if plan.kernel_module else [])]
    return ["dnf", "--quiet", "repoquery", "--queryformat=%{version}\n", f"{first}-{plan.branch}.*"]


def offered_versions(plan: Plan, output: str) -> dict[str, list[str]]:
    """NVIDIA's versions by package in the answer to `query`; those of a package of the kernel's are left out."""
    pairs = re.findall(r"(?m)^ *(\S+) *[|] *(\S+) *[|]", output)
    if plan.manager == "dnf":
        pairs = [(plan.required[0], word) for word in output.split()]
    offered: dict[str, list[str]] = {name: [] for name, _ in pairs}
    for name, word in pairs:
        if (version := nvidias_version(word)) and version not in offered[name]:
            offered[name].append(version)
    return offered


def _unheld(plan: Plan, driver: Driver, packages: Sequence[Package]) -> list[str]:
    """Packages of the driver, and of the kernel that belongs to it, that an upgrade of the host would move."""
    kernel = [one.name for one in packages if one.name in plan.kernel_packages and not one.held and not one.foreign]
    return [one.name for one in driver.packages if not one.held] + kernel


def _differing_packages(plan: Plan, packages: Sequence[Package]) -> list[str]:
    """What is missing, unfinished or of another version."""
    names = dict.fromkeys([*plan.required, *plan.build, *plan.others], "")
    if plan.manager == "apt" and plan.source == "nvidia":
        names[f"nvidia-driver-pinning-{plan.branch}"] = ""
    if plan.manager == "dnf":
        names["python3-dnf-plugin-versionlock"] = ""
    found = differing_packages(packages, names, held=False)
    present = {one.key: one for one in packages}
    for name in plan.names:
        package = present.get(name)
        if package is None:
            continue  # said above
        version = nvidias_version(package.version)
        if not package.configured and name not in plan.required:
            found.append(f"{name} is installed half-way")
        elif plan.versions and version and version != plan.version:
            found.append(f"{name} is {version}, not {plan.version or f'of branch {plan.branch}'}")
    return found


def _differing_locks(root: Path, plan: Plan, unheld: Sequence[str]) -> list[str]:
    """What would let another version in."""
    found = differing_files(root, plan.lock_files)
    lines = set(read_text(root / _VERSIONLOCK).splitlines())
    if not set(plan.locks.splitlines()) <= lines:
        found.append(f"/{_VERSIONLOCK} does not lock every package of the driver")
    return found + [f"{name} is not held" for name in unheld]


def _differing_repository(root: Path, plan: Plan) -> list[str]:
    """For apt the key of NVIDIA's repository, for dnf the repository and its stream."""
    if plan.source != "nvidia":
        return []
    if plan.manager == "apt":
        keyring = plan.repository["keyring"]
        return [] if (root / keyring.lstrip("/")).is_file() else [f"{keyring} is not there"]
    found = []
    name = plan.repository["name"]
    wanted = {"baseurl": plan.url, "gpgkey": f"{plan.url}/{plan.repository['key']}", "gpgcheck": "1"}
    found += differing_settings(root, f"/etc/yum.repos.d/{name}.repo", name, wanted)
    if plan.stream:
        module, _, stream = plan.stream.partition(":")
        enabled = {"stream": stream, "state": "enabled"}
        if differing_settings(root, f"/etc/dnf/modules.d/{module}.module", module, enabled):
            found.append(f"the stream {plan.stream} is not enabled")
    return found
