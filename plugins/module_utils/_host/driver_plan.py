"""What the role nvidia_driver is to do on a host, decided from the driver that is there, wishes and the role's tables.

Pure: `plan_driver` takes records and returns one; what cannot be met raises DriverError before anything is changed.
What the tables say of a distribution stands in ``roles/nvidia_driver/vars/main.yml``; their texts may name
``{branch}``, ``{suffix}``, ``{kernel}`` and ``{kernel_flavour}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .._errors import DriverError
from .._releases.requirements import driver_floor
from .._releases.versions import DEFAULT_VERSION
from .driver import Driver
from .driver_texts import (
    NOUVEAU,
    UNATTENDED,
    list_of_archives,
    nodes_of_imex,
    preferences,
    versionlock,
)
from .platform import filled, resolve

__all__ = ["Host", "Plan", "Wishes", "nvidias_version", "plan_driver", "reboots"]

_VERSION = re.compile(r"(?:\d+:)?(\d{3}(?:\.\d+)+)")
_LEGACY = ("maxwell", "pascal", "volta")

# NVIDIA's packages have one name for all branches from here on, and the companions have no branch in theirs.
FIRST_BRANCH = 580
VLLM_FLOOR = driver_floor(DEFAULT_VERSION) or FIRST_BRANCH  # below it the CUDA of vLLM's wheels does not start
LAST_LEGACY_BRANCH = 580  # of Maxwell, Pascal and Volta
LAST_PROPRIETARY_BRANCH = 610

IMEX_NODES = "/etc/nvidia-imex/nodes_config.cfg"


@dataclass(frozen=True)
class Wishes:
    """The role's variables, without their prefix nvidia_driver."""

    source: str = "nvidia"  # nvidia or distro
    branch: str = "580"
    version: str = ""  # "": the installed one, or the newest of the branch
    kernel_modules: str = "auto"  # auto, open, proprietary
    kernel_headers: Sequence[str] = ()
    fabric_manager: str = "auto"  # auto, always, never
    subnet_manager: str = "auto"
    imex: str = "auto"
    imex_nodes: Sequence[str] = ()
    mirror: str = "https://developer.download.nvidia.com/compute/cuda/repos"
    distro_mirror: str = ""
    distro_security_mirror: str = ""
    reboot: str = "auto"  # auto, never, always
    in_use: Sequence[str] = ()  # what runs on the GPUs and would be interrupted


@dataclass(frozen=True)
class Host:
    """A host that a driver is planned for, but for the driver that is there."""

    name: str
    distribution: str
    release: str  # 12; of Ubuntu 24.04
    key_enrolled: bool = False  # the key that DKMS signs with, in the firmware; matters with Secure Boot only
    has_component: bool = False  # the host's own sources name the component with the distribution's drivers


@dataclass(frozen=True)
class Plan:
    """What the role installs and writes."""

    source: str
    manager: str  # apt or dnf
    flavour: str  # open or proprietary
    flavour_reason: str
    version: str  # NVIDIA's; "": not known yet (only the repository knows), or the distribution's
    branch: str
    build: tuple[str, ...]  # packages that the kernel module is built with
    headers: tuple[str, ...]
    names: tuple[str, ...]  # packages that have the driver's version
    required: tuple[str, ...]  # those of them that must be there
    others: tuple[str, ...]  # packages with a version of their own
    companions: tuple[str, ...]  # manager, subnet_manager, imex
    services: tuple[str, ...]
    url: str  # of NVIDIA's repository
    stream: str  # of the module nvidia-driver in it; "": there is none
    repository: Mapping[str, str]  # name, key, keyring_checksum
    platform: Mapping[str, Any]  # what else the tables say of the distribution
    repository_files: Mapping[str, str] = field(default_factory=dict)  # content by path: before packages are installed
    lock_files: Mapping[str, str] = field(default_factory=dict)  # what keeps versions where they are
    module_files: Mapping[str, str] = field(default_factory=dict)  # what modprobe reads
    node_files: Mapping[str, str] = field(default_factory=dict)  # what IMEX reads
    locks: str = ""  # lines of dnf's versionlock
    wanted: tuple[str, ...] = ()  # what the package manager is to install; empty where the version is not known yet
    removal: str = ""  # command that removes the driver that is there
    notes: tuple[str, ...] = ()  # what an operator should read

    def to_dict(self) -> dict[str, Any]:
        """The record as a fact."""
        return asdict(self)


def nvidias_version(version: str) -> str:
    """NVIDIA's version in that of a package: 580.178.04 in 3:580.178.04-1.el9; "" when there is none."""
    match = _VERSION.match(version)
    return match[1] if match else ""


def reboots(mode: str, *, pending: bool, changed: bool) -> bool:
    """Whether the host is to be rebooted now: ``mode`` is auto, never or always."""
    return mode != "never" and (pending or (changed and mode == "always"))


def plan_driver(
    driver: Driver,
    wishes: Wishes,
    host: Host,
    platforms: Mapping[str, Any],
    offered: Sequence[str] | None = None,
) -> Plan:
    """The plan for a host.

    ``platforms`` is the role's table; ``offered`` are the versions of the branch that NVIDIA's repository has, None
    while nobody has asked it. Raises DriverError with what is wrong and what to do.
    """
    name = f"{host.distribution} {host.release}"
    tables = {key: resolve(platforms, key) for key in platforms}
    offers = [key for key, one in tables.items() if wishes.source in one["packages"]]
    if name not in offers:
        raise DriverError(
            f"{host.name} runs {name}; with nvidia_driver_source: {wishes.source} the role nvidia_driver has "
            f"packages for "
            f"{', '.join(offers)}. Install the driver by other means and set nvidia_driver_source to none for this "
            f"host."
        )
    platform = _filled(tables[name], wishes, driver)
    table = platform["packages"][wishes.source]
    removal = _removal(driver, platform)
    _check_wishes(driver, wishes, host, removal)
    flavour, flavour_reason = _choose_flavour(driver, wishes, host, platform)
    companions = _choose_companions(driver, wishes, host, table)
    _check_secure_boot(driver, wishes, host, platform)

    is_nvidia = wishes.source == "nvidia"
    url = f"{wishes.mirror}/{platform['repository']['path']}"
    version = _choose_version(driver, wishes, offered, url) if is_nvidia else ""
    required = tuple(table["driver"] + table["modules"][flavour])
    required += tuple(name for one in ("manager", "imex") if one in companions for name in table[one])
    modules = {name for names in table["modules"].values() for name in names}
    # Whatever else of NVIDIA's driver is there moves with it, but for the kernel module of the other flavour.
    along = [one.name for one in driver.packages if one.name not in modules] if is_nvidia else []
    names = tuple(dict.fromkeys([*required, *along]))
    headers = tuple(wishes.kernel_headers or platform["headers"])
    is_built = is_nvidia or not platform["distro"]["signed"]
    locks = versionlock(platform.get("locks", []), version)
    _check_in_use(driver, wishes, host, version, table["modules"][flavour])
    return Plan(
        source=wishes.source,
        manager=platform["manager"],
        flavour=flavour,
        flavour_reason=flavour_reason,
        version=version,
        branch=wishes.branch,
        build=("dkms", *headers) if is_built else (),
        headers=headers,
        names=names,
        required=required,
        others=tuple(table["subnet_manager"]) if "subnet_manager" in companions else (),
        companions=companions,
        services=_services(companions),
        url=url,
        stream=platform["repository"].get("streams", {}).get(flavour, "") if is_nvidia else "",
        repository=platform["repository"],
        platform=platform,
        repository_files=_repository_files(wishes, host, platform, url),
        lock_files=_lock_files(wishes, platform, version),
        module_files={"/etc/modprobe.d/gpuhosts-nouveau.conf": NOUVEAU},
        node_files={"/etc/nvidia-imex/nodes_config.cfg": nodes_of_imex(wishes.imex_nodes)}
        if "imex" in companions
        else {},
        locks=locks,
        wanted=_wanted(platform["manager"], names, version) if version or not is_nvidia else (),
        removal=removal,
        notes=_notes(wishes, name, platform),
    )


def _filled(table: Mapping[str, Any], wishes: Wishes, driver: Driver) -> dict[str, Any]:
    """The table of a platform with its placeholders filled in."""
    before = table["packages"][wishes.source].get("suffix_before", 0)
    texts = {
        "branch": wishes.branch,
        "suffix": f"-{wishes.branch}" if wishes.branch.isdigit() and int(wishes.branch) < before else "",
        "kernel": driver.kernel,
        "kernel_flavour": re.sub(r"^[^-]+(-[0-9][^-]*)?-", "", driver.kernel),
    }
    return filled(table, texts)


def _removal(driver: Driver, platform: Mapping[str, Any]) -> str:
    """The commands that remove what is there, and only what is there."""
    commands = []
    if driver.packages:
        # apt takes a bare name for the package of the host's own architecture, and leaves the one of i386.
        commands.append(f"{platform['remove']} {' '.join(one.name for one in driver.packages)}")
    if driver.source in ("runfile", "mixed"):
        commands.append("nvidia-uninstall" if driver.source == "runfile" else "nvidia-uninstall if it is there")
    return "; ".join(commands)


def _check_wishes(driver: Driver, wishes: Wishes, host: Host, removal: str) -> None:
    """Branch, version, source and GPUs agree."""
    branch, version = wishes.branch, wishes.version
    if wishes.source == "nvidia":
        agree = branch.isdigit() and int(branch) >= FIRST_BRANCH and (not version or version.startswith(f"{branch}."))
    else:
        agree = not version
    if not agree:
        raise DriverError(
            f"nvidia_driver_branch is '{branch}', nvidia_driver_version is '{version}'. With nvidia_driver_source: "
            f"nvidia the "
            f"branch is {FIRST_BRANCH} or later (vLLM needs it) and the version is empty or begins with the "
            f"branch, as in "
            "580.178.04; with distro the version is empty, because the distribution has one only."
        )
    if driver.source not in ("none", wishes.source):
        there = " ".join(one.name for one in driver.packages) or "NVIDIA-Linux-*.run"
        keep = driver.source if driver.source in ("nvidia", "distro") else "none"
        raise DriverError(
            f"{host.name} has a driver from {driver.source} ({there}), and nvidia_driver_source is "
            f"{wishes.source}. Packages of "
            f"two sources break each other, so nothing was changed. Either keep that driver (nvidia_driver_source: "
            f"{keep}), or "
            f"remove it, reboot and run again: {removal}"
        )
    legacy = sorted({one.generation for one in driver.pci_gpus if one.generation in _LEGACY})
    if legacy and int(branch) > LAST_LEGACY_BRANCH:
        raise DriverError(
            f"Branch {branch} has no support for the {', '.join(legacy)} GPUs of {host.name}; {LAST_LEGACY_BRANCH} "
            f"is the last "
            f'that has. (vLLM cannot use GPUs before Turing.) Set nvidia_driver_branch to "{LAST_LEGACY_BRANCH}" '
            f"for this host."
        )


def _choose_flavour(driver: Driver, wishes: Wishes, host: Host, platform: Mapping[str, Any]) -> tuple[str, str]:
    """The kernel module's flavour, and why."""
    if wishes.source == "distro":
        offers, offers_reason = platform["distro"]["modules"], platform["distro"].get("modules_reason", "")
    elif int(wishes.branch) > LAST_PROPRIETARY_BRANCH:
        offers, offers_reason = ["open"], f"branches after {LAST_PROPRIETARY_BRANCH} have no proprietary one"
    else:
        offers, offers_reason = ["open", "proprietary"], ""
    possible = [one for one in driver.supported_modules if one in offers]
    if not possible:
        raise DriverError(
            f"nvidia_driver_source: {wishes.source} offers the kernel module {', '.join(offers)} "
            f"({offers_reason or f'branch {wishes.branch}'}); the GPUs of {host.name} need another: "
            f"{driver.modules_reason}. Use "
            f"nvidia_driver_source: nvidia with branch {LAST_LEGACY_BRANCH}, or take the GPU out."
        )
    reason = "; ".join(one for one in (driver.modules_reason, offers_reason) if one)
    flavour = possible[0] if wishes.kernel_modules == "auto" else wishes.kernel_modules
    if flavour not in possible:
        raise DriverError(
            f"nvidia_driver_kernel_modules is {flavour}, but on {host.name} only {', '.join(possible)} is "
            f"possible: {reason}. "
            "Set it to auto, or choose another nvidia_driver_source."
        )
    return flavour, reason


def _choose_companions(driver: Driver, wishes: Wishes, host: Host, table: Mapping[str, Any]) -> tuple[str, ...]:
    """The companions to install, of those that are to be had."""
    rules = {
        "manager": (wishes.fabric_manager, driver.fabric.manager),
        "subnet_manager": (wishes.subnet_manager, driver.fabric.subnet_manager),
        "imex": (wishes.imex, driver.fabric.imex),
    }
    chosen = tuple(name for name, (wish, needed) in rules.items() if wish == "always" or (wish == "auto" and needed))
    if any(name not in table for name in chosen):
        raise DriverError(
            f"{host.name} needs {', '.join(chosen)} ({driver.fabric.reason}), which {host.distribution} has no "
            f"packages of; "
            "without, CUDA fails with error 802. Set nvidia_driver_source to nvidia."
        )
    if "imex" in chosen and not wishes.imex_nodes:
        raise DriverError(
            f"{host.name} gets IMEX ({driver.fabric.reason}): set nvidia_driver_imex_nodes to the addresses of all "
            f"hosts of the "
            "NVLink domain, or nvidia_driver_imex to never."
        )
    return chosen


def _services(companions: Iterable[str]) -> tuple[str, ...]:
    """Services of the driver. nvlsm has none of its own: Fabric Manager starts it."""
    names = {"manager": "nvidia-fabricmanager", "imex": "nvidia-imex"}
    return ("nvidia-persistenced", *(names[one] for one in companions if one in names))


def _check_secure_boot(driver: Driver, wishes: Wishes, host: Host, platform: Mapping[str, Any]) -> None:
    """The kernel refuses a module that is not signed by a key it knows; DKMS signs with a key of this host."""
    signed = wishes.source == "distro" and platform["distro"]["signed"]
    if driver.secure_boot and not host.key_enrolled and not signed:
        raise DriverError(
            f"Secure Boot is on at {host.name}, and the key that DKMS signs kernel modules with is not enrolled in "
            f"its firmware: "
            f"the kernel would refuse the driver. Nothing was changed. As root: {platform['enrolment']} (it asks "
            f"for a password "
            "for one use), then reboot, and at the console, within ten seconds: Enroll MOK, Continue, Yes, that "
            "password. Then "
            "run this again. Or switch Secure Boot off in the firmware."
        )


def _choose_version(driver: Driver, wishes: Wishes, offered: Sequence[str] | None, url: str) -> str:
    """The version to install; "" where only the repository knows."""
    installed = driver.library_version or ""
    installed = installed if installed.startswith(f"{wishes.branch}.") else ""
    # Numbers as numbers: the alphabet has 580.95.05 after 580.159.03.
    known = sorted(set(offered or ()), key=lambda one: [int(part) for part in one.split(".")], reverse=True)
    version = wishes.version or installed or (known[0] if known else "")
    if offered is not None and (not version or version not in (*known, installed)):
        raise DriverError(
            f"{url} has no driver {wishes.version or f'of branch {wishes.branch}'}. Of branch {wishes.branch} it has "
            f"{', '.join(known) or 'none'}. Set nvidia_driver_version to one of them, or mirror the missing packages."
        )
    return version


def _check_in_use(driver: Driver, wishes: Wishes, host: Host, version: str, modules: Sequence[str]) -> None:
    """Nothing that runs gets another driver below it."""
    there = driver.library_version or ""
    other = bool(driver.packages) and not set(modules) & {one.name for one in driver.packages}
    if wishes.source == "nvidia":
        other = other or (version != there if version else not there.startswith(f"{wishes.branch}."))
    if there and other and wishes.in_use:
        asked = wishes.version or version or f"empty (branch {wishes.branch})"
        raise DriverError(
            f"{host.name} has driver {there}, nvidia_driver_version is "
            f"{asked}, and it serves "
            f"{', '.join(wishes.in_use)}. Hosts that serve are upgraded by driver_upgrade.yml, one after the "
            f"other, without "
            "dropping a request."
        )


def _repository_files(wishes: Wishes, host: Host, platform: Mapping[str, Any], url: str) -> dict[str, str]:
    """Where apt finds the driver; dnf's file is written by the module that knows its form."""
    if platform["manager"] != "apt":
        return {}
    if wishes.source == "nvidia":
        signed = f"deb [signed-by={platform['repository']['keyring']}] {url}/ /\n"
        return {f"/etc/apt/sources.list.d/{platform['repository']['name']}.list": signed}
    # A host that has the component already keeps it where it is. (Debian's installer writes non-free-firmware,
    # another one.)
    if host.has_component:
        return {}
    archives = platform["distro"]["archives"]
    mirrors = {"main": wishes.distro_mirror, "security": wishes.distro_security_mirror}
    lines = [f"{mirrors[one['kind']] or one['url']} {one['suite']}" for one in archives]
    return {platform["distro"]["list"]: list_of_archives(lines, platform["distro"]["components"])}


def _lock_files(wishes: Wishes, platform: Mapping[str, Any], version: str) -> dict[str, str]:
    """What keeps apt from bringing in another version."""
    if platform["manager"] != "apt":
        return {}
    files = {"/etc/apt/apt.conf.d/51gpuhosts-nvidia-driver": UNATTENDED}
    if wishes.source == "nvidia" and version:
        # NVIDIA's packages ask each other for "this version or newer", and IMEX for any nvidia-modprobe: without a
        # pin of all
        # of them a newer branch comes in by a dependency.
        files["/etc/apt/preferences.d/gpuhosts-nvidia-driver"] = preferences(platform["pins"], version)
    return files


def _wanted(manager: str, names: Iterable[str], version: str) -> tuple[str, ...]:
    ends = {"apt": f"={version}-*", "dnf": f"-{version}"}
    return tuple(f"{name}{ends[manager] if version else ''}" for name in names)


def _notes(wishes: Wishes, name: str, platform: Mapping[str, Any]) -> tuple[str, ...]:
    branch = platform["distro"]["branch"] if wishes.source == "distro" else ""
    if not branch or int(branch) >= VLLM_FLOOR:
        return ()
    return (
        (
            f"WARNING: {name} has driver branch {branch}. The wheels of the pinned vLLM are built for CUDA 13, which "
            f"needs "
            f"{VLLM_FLOOR} or later: they will not start on it. Set nvidia_driver_source to nvidia, or serve another "
            f"build."
        ),
    )
