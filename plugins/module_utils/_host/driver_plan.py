"""What the role nvidia_driver is to do on a host, decided from the driver that is there, wishes and the role's tables.

Pure: `plan_driver` takes records and returns one; what cannot be met raises DriverError before anything is changed.
What the tables say of a distribution stands in ``roles/nvidia_driver/vars/main/platforms.yml``; their texts may name
``{branch}``, ``{kernel}``, ``{kernel_flavour}`` and ``{kernel_meta}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .._errors import DriverError
from .._releases.requirements import driver_floor
from .._releases.versions import DEFAULT_VERSION
from .driver import Driver
from .driver_kernel import flavour_of, held_together, meta_of, moves_along
from .driver_texts import (
    NOUVEAU,
    SANDBOX,
    UNATTENDED,
    list_of_archives,
    nodes_of_imex,
    preferences,
    versionlock,
)
from .merge import merged
from .packages import Package
from .platform import filled, resolve

__all__ = ["Host", "Plan", "Wishes", "nvidias_version", "plan_driver", "reboots"]

_VERSION = re.compile(r"(?:\d+:)?(\d{3}(?:\.\d+)+)")
_LEGACY = ("maxwell", "pascal", "volta")

# The companions have no branch in their names from here on. It is supported until June 2028 and runs every CUDA 13.
FIRST_BRANCH = 580
VLLM_FLOOR = driver_floor(DEFAULT_VERSION) or FIRST_BRANCH  # below it the CUDA of vLLM's wheels does not start
LAST_LEGACY_BRANCH = 580  # of Maxwell, Pascal and Volta
LAST_PROPRIETARY_BRANCH = 610

IMEX_NODES = "/etc/nvidia-imex/nodes_config.cfg"


@dataclass(frozen=True)
class Wishes:
    """The role's variables, without their prefix nvidia_driver."""

    source: str = "nvidia"  # nvidia or distro
    branch: str = "auto"  # auto: that of the version, the installed one, or the first one to be had
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
    architecture: str = "x86_64"  # as `uname -m` says it
    key_enrolled: bool = False  # the key that DKMS signs with, in the firmware; matters with Secure Boot only
    has_component: bool = False  # the host's own sources name the component with the distribution's drivers
    kernel_packages: Sequence[Package] = ()  # of the kernel, where those of the driver depend on them


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
    unit_files: Mapping[str, str] = field(default_factory=dict)  # what systemd reads, before a package starts it
    node_files: Mapping[str, str] = field(default_factory=dict)  # what IMEX reads
    locks: str = ""  # lines of dnf's versionlock
    wanted: tuple[str, ...] = ()  # what the package manager is to install; empty where the version is not known yet
    versions: bool = True  # whether there are several to choose from
    kernel_packages: tuple[str, ...] = ()  # of the kernel: held with the driver, and moved with it
    kernel_module: str = ""  # the package with the module of the running kernel, where it is not built here
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
    offered: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """The plan for a host.

    ``platforms`` is the role's table; ``offered`` are NVIDIA's versions of packages that the repository has, None while
    nobody has asked it. Raises DriverError with what is wrong and what to do.
    """
    name = f"{host.distribution} {host.release}"
    if name not in platforms:
        raise DriverError(
            f"{host.name} runs {name}; the role nvidia_driver is made for {', '.join(platforms)}. Reinstall the host "
            f"or take it out of gpu_hosts."
        )
    tables = {key: resolve(platforms, key) for key in platforms}
    offers = [key for key, one in tables.items() if wishes.source in one["packages"]]
    if name not in offers:
        raise DriverError(
            f"{host.name} runs {name}; with nvidia_driver_source: {wishes.source} the role nvidia_driver has "
            f"packages for "
            f"{', '.join(offers)}. Install the driver by other means and set nvidia_driver_source to none for this "
            f"host."
        )
    architectures = tables[name]["architectures"][wishes.source]
    if host.architecture not in architectures:
        raise DriverError(
            f"{host.name} is a host of {host.architecture}; with nvidia_driver_source: {wishes.source} the role "
            f"nvidia_driver has repositories of {name} for {' and '.join(architectures)} only. Install the driver by "
            f"other means and set nvidia_driver_source to none for this host."
        )
    wishes = replace(wishes, branch=_choose_branch(driver, wishes, tables[name]))
    platform = _filled(tables[name], wishes, driver, host)
    table = platform["packages"][wishes.source]
    removal = _removal(driver, platform)
    is_nvidia = wishes.source == "nvidia"
    versions = is_nvidia or platform["distro"].get("versions", False)
    _check_wishes(driver, wishes, host, platform, removal)
    flavour, flavour_reason = _choose_flavour(driver, wishes, host, platform)
    companions = _choose_companions(driver, wishes, host, table)
    _check_secure_boot(driver, wishes, host, platform)

    url = f"{wishes.mirror}/{platform['repository']['path']}"
    required = tuple(table["driver"] + table["modules"][flavour])
    required += tuple(name for one in ("manager", "imex") if one in companions for name in table[one])
    from_whom = url if is_nvidia else f"The archive of {name}"
    version = _choose_version(driver, wishes, offered, required[0], from_whom) if versions else ""
    is_built = is_nvidia or not platform["distro"]["signed"]
    kernel_module = "" if is_built else next((one for one in required if one.endswith(f"-{driver.kernel}")), "")
    kernel_packages = () if is_built else held_together(host.kernel_packages, platform["distro"]["kernel_packages"])
    modules = {name for names in table["modules"].values() for name in names}
    # Whatever else of the driver is there moves with it, but for the kernel module of the other flavour.
    along = [one.name for one in driver.packages if one.name not in modules and moves_along(one.name, wishes.branch)]
    names = tuple(dict.fromkeys([*required, *(along if versions else [])]))
    headers = tuple(wishes.kernel_headers or platform["headers"])
    locks = versionlock(platform.get("locks", []), version)
    _check_in_use(driver, wishes, host, version, table["modules"][flavour], versions=versions)
    if kernel_module and offered is not None:
        _check_kernel(driver, host, version, kernel_module, required, offered)
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
        lock_files=_lock_files(platform, version),
        module_files={"/etc/modprobe.d/gpuhosts-nouveau.conf": NOUVEAU},
        unit_files={"/etc/systemd/system/nvidia-persistenced.service.d/gpuhosts.conf": SANDBOX},
        node_files={"/etc/nvidia-imex/nodes_config.cfg": nodes_of_imex(wishes.imex_nodes)}
        if "imex" in companions
        else {},
        locks=locks,
        wanted=_wanted(platform["manager"], (*names, *kernel_packages), version) if version or not versions else (),
        removal=removal,
        notes=_notes(wishes, name, platform),
        versions=versions,
        kernel_packages=kernel_packages,
        kernel_module=kernel_module,
    )


def _choose_branch(driver: Driver, wishes: Wishes, table: Mapping[str, Any]) -> str:
    """The branch: that of the version that is asked for, else the installed one, else the first one to be had."""
    if wishes.branch != "auto":
        return wishes.branch
    for version in (wishes.version, driver.library_version or ""):
        branch = version.partition(".")[0]
        if branch.isdigit() and int(branch) >= FIRST_BRANCH:
            return branch
    return str(table["repository"]["first_branch"]) if wishes.source == "nvidia" else str(FIRST_BRANCH)


def _filled(table: Mapping[str, Any], wishes: Wishes, driver: Driver, host: Host) -> dict[str, Any]:
    """The table of a platform with its placeholders filled in, and the names that its packages have in this branch."""
    texts = {
        "branch": wishes.branch,
        "kernel": driver.kernel,
        "kernel_flavour": flavour_of(driver.kernel),
        "kernel_meta": meta_of(driver.kernel, host.kernel_packages),
    }
    packages = dict(table["packages"])
    names = dict(packages[wishes.source])
    for branch, older in names.pop("before", {}).items():
        if wishes.branch.isdigit() and int(wishes.branch) < int(branch):
            names = merged(names, older)
    packages[wishes.source] = names
    return filled({**table, "packages": packages}, texts)


def _removal(driver: Driver, platform: Mapping[str, Any]) -> str:
    """The commands that remove what is there, and only what is there."""
    commands = []
    if driver.packages:
        # apt takes a bare name for the package of the host's own architecture, and leaves the one of i386.
        commands.append(f"{platform['remove']} {' '.join(one.name for one in driver.packages)}")
    if driver.source in ("runfile", "mixed"):
        commands.append("nvidia-uninstall" if driver.source == "runfile" else "nvidia-uninstall if it is there")
    return "; ".join(commands)


def _check_wishes(driver: Driver, wishes: Wishes, host: Host, platform: Mapping[str, Any], removal: str) -> None:
    """Branch, version, source and GPUs agree."""
    branch, version = wishes.branch, wishes.version
    first = platform["repository"]["first_branch"] if wishes.source == "nvidia" else str(FIRST_BRANCH)
    if wishes.source == "nvidia" or platform["distro"].get("versions"):
        agree = branch.isdigit() and int(branch) >= FIRST_BRANCH and (not version or version.startswith(f"{branch}."))
    else:
        agree = not version
    if not agree:
        raise DriverError(
            f"nvidia_driver_branch is '{branch}', nvidia_driver_version is '{version}'. The branch is {FIRST_BRANCH} "
            f"or later (vLLM needs it), and the version is empty or begins with the branch, as in 580.178.04; with "
            f"nvidia_driver_source: distro the version is empty on Debian, which has one only."
        )
    if wishes.source == "nvidia" and int(branch) < int(first):
        raise DriverError(
            f"NVIDIA has no driver of branch {branch} for {host.distribution} {host.release} of {host.name}: the first "
            f'one is {first}. Set nvidia_driver_branch to auto or "{first}", or nvidia_driver_source to distro.'
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
        source = "" if int(first) <= LAST_LEGACY_BRANCH else "nvidia_driver_source to distro and "
        raise DriverError(
            f"Branch {branch} has no support for the {', '.join(legacy)} GPUs of {host.name}; {LAST_LEGACY_BRANCH} "
            f"is the last "
            f"that has. (vLLM cannot use GPUs before Turing.) Set {source}nvidia_driver_branch to "
            f'"{LAST_LEGACY_BRANCH}" for this host.'
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


def _choose_version(
    driver: Driver, wishes: Wishes, offered: Mapping[str, Sequence[str]] | None, package: str, url: str
) -> str:
    """The version to install; "" where only the repository knows."""
    installed = driver.library_version or ""
    installed = installed if installed.startswith(f"{wishes.branch}.") else ""
    # Numbers as numbers: the alphabet has 580.95.05 after 580.159.03.
    versions = [one for one in (offered or {}).get(package, ()) if one.startswith(f"{wishes.branch}.")]
    known = sorted(set(versions), key=lambda one: [int(part) for part in one.split(".")], reverse=True)
    version = wishes.version or installed or (known[0] if known else "")
    if offered is not None and (not version or version not in (*known, installed)):
        raise DriverError(
            f"{url} has no driver {wishes.version or f'of branch {wishes.branch}'}. Of branch {wishes.branch} it has "
            f"{', '.join(known) or 'none'}. Set nvidia_driver_version to one of them, or mirror the missing packages."
        )
    return version


def _check_kernel(
    driver: Driver,
    host: Host,
    version: str,
    module: str,
    required: Iterable[str],
    offered: Mapping[str, Sequence[str]],
) -> None:
    """There is a module for the kernel that runs, which nobody builds here."""
    if module in {one.name for one in driver.packages}:
        return
    newest = next((one for one in offered.get(next(iter(required)), ()) if one != version), "")
    if module not in offered:
        meta = meta_of(driver.kernel, host.kernel_packages)
        metas = [one for one in required if one.startswith("linux-modules-nvidia-") and one != module]
        raise DriverError(
            f"{host.name} runs kernel {driver.kernel}, which the archive has no NVIDIA module for ({module}). Bring in "
            f"a kernel that has one, reboot and run this again: apt-get install --allow-change-held-packages "
            f"linux-image-{meta} {' '.join(metas)}. Or set nvidia_driver_source to nvidia, whose module is built on "
            f"the host."
        )
    if version and newest and version not in offered.get(next(iter(required)), ()):
        raise DriverError(
            f"Kernel {driver.kernel} of {host.name} has no NVIDIA module yet, and the archive has one for driver "
            f"{newest} only, no longer for the {version} that is installed. Set nvidia_driver_version to {newest}."
        )


def _check_in_use(
    driver: Driver, wishes: Wishes, host: Host, version: str, modules: Sequence[str], *, versions: bool
) -> None:
    """Nothing that runs gets another driver below it."""
    there = driver.library_version or ""
    other = bool(driver.packages) and not set(modules) & {one.name for one in driver.packages}
    if versions:
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


def _lock_files(platform: Mapping[str, Any], version: str) -> dict[str, str]:
    """What keeps apt from bringing in another version."""
    if platform["manager"] != "apt":
        return {}
    files = {"/etc/apt/apt.conf.d/51gpuhosts-nvidia-driver": UNATTENDED}
    if version:
        # NVIDIA's packages ask each other for "this version or newer", and IMEX for any nvidia-modprobe: without a
        # pin of all
        # of them a newer branch comes in by a dependency.
        files["/etc/apt/preferences.d/gpuhosts-nvidia-driver"] = preferences(platform["pins"], version)
    return files


def _wanted(manager: str, names: Iterable[str], version: str) -> tuple[str, ...]:
    """What to tell the package manager; the kernel's packages have the kernel's version."""
    end = {"apt": f"={version}-*", "dnf": f"-{version}"}[manager] if version else ""
    return tuple(name if name.startswith("linux-") else f"{name}{end}" for name in names)


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
