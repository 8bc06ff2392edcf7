"""The NVIDIA driver of a host: what is installed, what is loaded, where it came from, and what the hardware wants.

`read_driver` looks at files below a root directory and asks modinfo (and rpm); everything that is decided from what it
finds is a pure function. Versions are those of NVIDIA ("580.178.04"), without the epoch and revision of a package.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .packages import read_packages
from .pci import PciDevice, read_nvidia_devices
from .system import Run, read_text, run

__all__ = [
    "Driver",
    "DriverPackage",
    "Fabric",
    "PciGpu",
    "needed_companions",
    "read_driver",
    "supported_modules",
    "why_reboot",
]

# Debian's own packages give the module another name.
_MODULES = ("nvidia", "nvidia-current-open", "nvidia-current")
_LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")
_EFI_VARIABLES = "sys/firmware/efi/efivars"

# A driver package has a driver's version; the container toolkit, DCGM and CUDA's libraries have versions of their own.
_DRIVER_VERSION = re.compile(r"(?:\d+:)?(\d{3}\.\d{2,3}(?:\.\d{2})?)(?![\d.])")
# Canonical's modules have the version of their kernel.
_KERNEL_MODULE_NAME = re.compile(r"linux-(?:modules|objects|signatures)-nvidia-")
_DRIVER_NAME = re.compile(r"(?!cuda-compat)(?:.*nvidia|cuda-drivers|libcuda1$|libnvcuvid1$|libnvsdm)")
_COMPANION_NAME = re.compile(r"(nvidia-fabric-?manager|nvidia-imex|libnvidia-nscq|libnvsdm)(?:-\d{3})?$")
# Packagers of distributions and of the repositories that belong to them; what is not theirs is NVIDIA's own.
_RPM_DISTRIBUTIONS = re.compile(r"Red Hat|Rocky|AlmaLinux|CentOS|Fedora|Oracle|RPM ?Fusion|ELRepo", re.IGNORECASE)

# Which flavours of the kernel module run a GPU (release notes of the branches): the open one starts with Turing,
# Blackwell knows no other; the first one named is the one to take.
_FLAVOURS: Mapping[str, tuple[str, ...]] = {
    "maxwell": ("proprietary",),
    "pascal": ("proprietary",),
    "volta": ("proprietary",),
    "blackwell": ("open",),
}
_BOTH = ("open", "proprietary")
_OPEN_ONLY_DEVICES = {"0x2342": "Grace Hopper"}

# GPUs whose NVSwitches do not show on their host's PCI bus: NVLink 5.
_HGX_NVLINK5 = {"0x2901": "HGX B200", "0x3182": "HGX B300"}
_MULTI_NODE_NVLINK = {"0x2941": "GB200", "0x31c2": "GB300"}


@dataclass(frozen=True)
class PciGpu:
    """A GPU as the PCI bus tells it, with or without a driver."""

    bus_id: str  # 0000:1b:00.0
    device_id: str  # 0x2330
    generation: str | None = None  # maxwell, pascal, volta, turing, ampere, ada, hopper, blackwell


@dataclass(frozen=True)
class Fabric:
    """Which companions of the driver the hardware needs."""

    manager: bool = False  # Fabric Manager and NSCQ: NVSwitches are there
    subnet_manager: bool = False  # nvlsm as well: NVLink 5
    imex: bool = False  # NVLink reaches other hosts
    reason: str = "no NVSwitch and no NVLink to other hosts"


@dataclass(frozen=True)
class DriverPackage:
    """An installed package of the driver or of a companion."""

    name: str  # as apt takes it: NAME:i386 where the architecture is not the host's own
    version: str  # as the package manager knows it
    source: str  # nvidia or distro
    held: bool = False  # apt-mark hold, dnf versionlock
    configured: bool = True  # False: dpkg stopped half-way through it


@dataclass(frozen=True)
class Driver:
    """Everything about a host's driver that can be known without NVML. None: not there, or not to be found out."""

    kernel: str  # the running one
    kernels: tuple[str, ...] = ()  # those on disk, the newest last: it is what a host boots unless told otherwise
    loaded_version: str | None = None  # of the kernel module in memory
    loaded_open: bool | None = None
    installed_version: str | None = None  # of the kernel module on disk for the running kernel
    installed_open: bool | None = None
    module_versions: Mapping[str, str] = field(default_factory=dict)  # the same for every kernel on disk that has one
    library_version: str | None = None  # of libnvidia-ml.so.1
    reboot_pending: bool = False
    reboot_reason: str | None = None
    nouveau_loaded: bool = False
    secure_boot: bool | None = None
    pci_gpus: tuple[PciGpu, ...] = ()
    nvswitches: int = 0
    fabric: Fabric = field(default_factory=Fabric)
    supported_modules: tuple[str, ...] = _BOTH  # open, proprietary; the one to take comes first; none: see the reason
    modules_reason: str = ""
    source: str = "none"  # nvidia, distro, runfile, none; mixed when several are there
    packages: tuple[DriverPackage, ...] = ()
    held: bool = False  # every one of these packages
    companions: Mapping[str, str] = field(default_factory=dict)  # nvidia-fabricmanager, libnvidia-nscq, ... -> version
    fabric_manager_version: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as a fact."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Driver:
        """The record of a fact."""
        return cls(
            **{
                **facts,
                "kernels": tuple(facts.get("kernels", ())),
                "pci_gpus": tuple(PciGpu(**gpu) for gpu in facts["pci_gpus"]),
                "fabric": Fabric(**facts["fabric"]),
                "supported_modules": tuple(facts["supported_modules"]),
                "packages": tuple(DriverPackage(**package) for package in facts["packages"]),
            }
        )


def read_driver(root: Path = Path("/"), run: Run = run, kernel: str | None = None) -> Driver:
    """Read the driver of the host whose file system is below root; changes nothing, and takes well under a second."""
    kernel = kernel or platform.release()
    loaded_version, loaded_open = _read_loaded(root)
    installed_version, installed_open = _read_installed(root, kernel, run)
    kernels = tuple(sorted((path.name for path in root.glob("lib/modules/*")), key=_age_of_kernel))
    modules = {one: version for one in kernels if (version := _read_installed(root, one, run)[0])}
    library_version = _read_library(root)
    nouveau = (root / "sys/module/nouveau").is_dir()
    devices = read_nvidia_devices(root)
    gpus = tuple(PciGpu(one.bus_id, one.device_id, one.generation) for one in devices if not one.is_switch)
    packages = tuple(_read_packages(root, run))
    sources = {package.source for package in packages} | _runfile(root)
    companions = _companions(packages)
    flavours, flavours_reason = supported_modules(gpus)
    driver = Driver(
        kernel=kernel,
        kernels=kernels,
        loaded_version=loaded_version,
        loaded_open=loaded_open,
        installed_version=installed_version,
        installed_open=installed_open,
        module_versions=modules,
        library_version=library_version,
        nouveau_loaded=nouveau,
        secure_boot=_read_secure_boot(root),
        pci_gpus=gpus,
        nvswitches=sum(one.is_switch for one in devices),
        fabric=needed_companions(devices),
        supported_modules=flavours,
        modules_reason=flavours_reason,
        source="mixed" if len(sources) > 1 else next(iter(sources), "none"),
        packages=packages,
        held=bool(packages) and all(package.held for package in packages),
        companions=companions,
        fabric_manager_version=companions.get("nvidia-fabricmanager"),
    )
    reason = why_reboot(driver)
    return replace(driver, reboot_pending=bool(reason), reboot_reason=reason)


def supported_modules(gpus: Iterable[PciGpu]) -> tuple[tuple[str, ...], str]:
    """The flavours of the kernel module that run all these GPUs, the one to take first, and why."""
    flavours: tuple[str, ...] = _BOTH
    reasons: list[str] = []
    for gpu in gpus:
        name = _OPEN_ONLY_DEVICES.get(gpu.device_id) or (gpu.generation or "").capitalize()
        allowed = ("open",) if gpu.device_id in _OPEN_ONLY_DEVICES else _FLAVOURS.get(gpu.generation or "", _BOTH)
        if len(allowed) == 1 and (reason := f"{name} runs with the {allowed[0]} kernel module only") not in reasons:
            reasons.append(reason)
        flavours = tuple(one for one in flavours if one in allowed)
    if reasons:
        return flavours, "; ".join(reasons)
    return flavours, "every NVIDIA GPU since Turing runs with the open kernel module, which NVIDIA recommends"


def needed_companions(devices: Iterable[PciDevice]) -> Fabric:
    """Fabric Manager, subnet manager and IMEX by what is on the bus."""
    switches, hgx, multi_node = 0, "", ""
    for device in devices:
        switches += device.is_switch
        hgx = hgx or _HGX_NVLINK5.get(device.device_id, "")
        multi_node = multi_node or _MULTI_NODE_NVLINK.get(device.device_id, "")
    if multi_node:
        return Fabric(imex=True, reason=f"{multi_node}: NVLink reaches other hosts; its switches are managed elsewhere")
    if hgx:
        return Fabric(manager=True, subnet_manager=True, reason=f"{hgx}: NVSwitches of NVLink 5")
    if switches:
        return Fabric(manager=True, reason=f"{switches} NVSwitches")
    return Fabric()


def why_reboot(driver: Driver) -> str | None:
    """Why the host must be rebooted before its driver works; None when it need not be."""
    loaded, installed, library = driver.loaded_version, driver.installed_version, driver.library_version
    if driver.module_versions and not installed and _boots_another_kernel(driver):
        kernels = ", ".join(driver.module_versions)
        return f"kernel {driver.kernel} runs and has no NVIDIA module; there is one for {kernels}"
    if loaded and installed and loaded != installed:
        return f"kernel module {loaded} is loaded, {installed} is installed"
    if loaded and library and loaded != library:
        return f"kernel module {loaded} is loaded, libnvidia-ml.so.1 is {library}: NVML refuses to start (error 18)"
    if None not in (driver.loaded_open, driver.installed_open) and driver.loaded_open != driver.installed_open:
        loaded_flavour, installed_flavour = _flavour(driver.loaded_open), _flavour(driver.installed_open)
        return f"the {loaded_flavour} kernel module is loaded, the {installed_flavour} one is installed"
    if driver.nouveau_loaded and driver.pci_gpus and installed and not loaded:
        return "nouveau is loaded and holds the GPUs"
    return None


def _boots_another_kernel(driver: Driver) -> bool:
    """Whether the next boot brings a kernel that has the module: else a reboot changes nothing, over and over."""
    if driver.kernel not in driver.kernels:
        return True  # it was removed, so another one boots
    return driver.kernels[-1] != driver.kernel and driver.kernels[-1] in driver.module_versions


def _age_of_kernel(release: str) -> list[tuple[int, int, str]]:
    """What sorts releases of kernels from old to new: numbers as numbers."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[^\d.+~-]+", release)]


def _flavour(is_open: bool | None) -> str:
    return "open" if is_open else "proprietary"


def _read_loaded(root: Path) -> tuple[str | None, bool | None]:
    """Version and flavour of the module in memory."""
    version = read_text(root / "sys/module/nvidia/version") or None
    text = read_text(root / "proc/driver/nvidia/version")
    if match := re.search(r"NVRM version:.*?(Open )?Kernel Module.*?(\d{3}\.[\d.]+)", text):
        return version or match[2], bool(match[1])
    taint = read_text(root / "sys/module/nvidia/taint")  # P: the license is no free one
    return version, "P" not in taint if taint else None


def _read_installed(root: Path, kernel: str, run: Run) -> tuple[str | None, bool | None]:
    """Version and flavour of the module that modprobe would load into the running kernel."""
    for name in _MODULES:
        output = run(["modinfo", "--basedir", str(root), "--set-version", kernel, name])
        values = dict(re.findall(r"(?m)^(version|license): +(.+)$", output))
        if "version" in values:
            return values["version"], values["license"] != "NVIDIA" if "license" in values else None
    return None, None


def _read_library(root: Path) -> str | None:
    """The version in the file name that libnvidia-ml.so.1 leads to."""
    for directory in _LIBRARY_DIRECTORIES:
        link = root / directory / "libnvidia-ml.so.1"
        if link.exists():
            match = re.search(r"\.so\.(\d+\.[\d.]+)$", os.path.realpath(link))
            return match[1] if match else None
    return None


def _read_secure_boot(root: Path) -> bool | None:
    """Whether the kernel takes signed modules only. A host that did not boot by EFI has no Secure Boot."""
    variables = root / _EFI_VARIABLES
    if not (root / "sys/firmware/efi").is_dir():
        return False
    if _efi_byte(variables / "MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23") == 1:
        return False  # switched off in shim (mokutil --disable-validation)
    state = _efi_byte(variables / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
    return None if state is None else state == 1


def _efi_byte(path: Path) -> int | None:
    """The value of a variable of one byte, which follows four of attributes."""
    try:
        return path.read_bytes()[4]
    except (OSError, IndexError):
        return None


def _read_packages(root: Path, run: Run) -> Iterable[DriverPackage]:
    """Driver packages in dpkg's status file or the RPM database."""
    for one in read_packages(root, run, words=("nvidia", "cuda")):
        if _is_driver(one.name, one.version):
            if one.manager == "rpm":
                is_nvidias = not _RPM_DISTRIBUTIONS.search(one.maintainer)
            else:
                is_nvidias = "@nvidia.com" in one.maintainer.lower()
            yield DriverPackage(
                name=one.key,
                version=one.version,
                source="nvidia" if is_nvidias else "distro",
                held=one.held,
                configured=one.configured,
            )


def _is_driver(name: str, version: str) -> bool:
    return bool(_KERNEL_MODULE_NAME.match(name) or (_DRIVER_NAME.match(name) and _DRIVER_VERSION.match(version)))


def _runfile(root: Path) -> set[str]:
    """What NVIDIA's .run installer leaves behind."""
    return {"runfile"} if (root / "usr/bin/nvidia-uninstall").exists() else set()


def _companions(packages: Iterable[DriverPackage]) -> dict[str, str]:
    """Name without branch -> NVIDIA's version."""
    found = {}
    for package in packages:
        name, version = _COMPANION_NAME.match(package.name), _DRIVER_VERSION.match(package.version)
        if name and version:
            found[name[1].replace("fabric-manager", "fabricmanager")] = version[1]
    return found
