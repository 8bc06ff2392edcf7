"""Checks of the NVIDIA driver of a GPU host; private to the collection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver, DriverPackage
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.requirements import driver_floor

from .record import FAILURE, GPU_HOST, WARNING, Check, Fault, Faults, Host, answers, into, numbers_of

CHECKS: list[Check] = []
_check = into(CHECKS)


def _module_absent(host: Host) -> bool:
    """Whether a driver is installed whose kernel module is not in memory."""
    installed = bool(host.driver.library_version or host.driver.packages)
    return installed and not answers(host) and host.driver.loaded_version is None


def nouveau_in_the_way(driver: Driver) -> bool:
    """Whether the kernel's own driver holds the GPUs."""
    return driver.nouveau_loaded and bool(driver.pci_gpus)


def _some(packages: Sequence[DriverPackage]) -> str:
    names = [package.name for package in packages]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@_check(
    "driver_missing",
    FAILURE,
    GPU_HOST,
    "No NVIDIA driver is installed.",
    "Run hardware.yml for {host}, which installs one, or install a driver of branch {branch} or newer.",
)
def _driver_missing(host: Host) -> Faults:
    if host.driver.library_version or host.driver.source != "none" or answers(host):
        return []
    branch = driver_floor(host.wanted.vllm_version) or ""
    return [Fault("no libnvidia-ml.so.1, no package of a driver", "an NVIDIA driver", {"branch": branch})]


@_check(
    "driver_broken",
    FAILURE,
    GPU_HOST,
    "The package manager stopped half-way through packages of the driver, mostly because the module did not build.",
    "Read /var/lib/dkms/nvidia*/*/build/make.log on {host}, mend that, then `dpkg --configure -a`.",
)
def _driver_broken(host: Host) -> Faults:
    broken = [package for package in host.driver.packages if not package.configured]
    return [Fault(f"half installed: {_some(broken)}", "packages that are configured")] if broken else []


@_check(
    "driver_mixed",
    FAILURE,
    GPU_HOST,
    "Parts of the driver come from different sources, which overwrite each other's files.",
    "Remove the packages of all sources but one from {host}, then run hardware.yml.",
)
def _driver_mixed(host: Host) -> Faults:
    if host.driver.source != "mixed":
        return []
    sources = defaultdict(list)
    for package in host.driver.packages:
        sources[package.source].append(package)
    observed = "; ".join(f"from {source}: {_some(packages)}" for source, packages in sorted(sources.items()))
    return [Fault(observed, "one source, and no driver of NVIDIA's .run installer beside it")]


@_check(
    "driver_mismatch",
    FAILURE,
    GPU_HOST,
    "The driver's library and the kernel module in memory are of different versions (NVML error 18).",
    "Reboot {host} (driver_upgrade.yml drains it first), and hold the driver's packages.",
)
def _driver_mismatch(host: Host) -> Faults:
    observed = mismatch(host)
    return [Fault(observed, "the same version")] if observed else []


def mismatch(host: Host) -> str | None:
    """How library and loaded module differ."""
    library, loaded = host.driver.library_version, host.driver.loaded_version
    if library and loaded and library != loaded:
        return f"library {library}, kernel module {loaded}"
    reason = host.gpu.reason or ""
    return reason if "(NVML error 18)" in reason else None


@_check(
    "driver_unheld",
    WARNING,
    GPU_HOST,
    "An unattended upgrade would replace the driver below the engines that run: CUDA then fails until a reboot.",
    "Run hardware.yml for {host}, which holds them; by hand: `apt-mark hold` or `dnf versionlock add`.",
)
def _driver_unheld(host: Host) -> Faults:
    loose = [package for package in host.driver.packages if not package.held]
    return [Fault(f"not held: {_some(loose)}", "every package of the driver held")] if loose else []


@_check(
    "nouveau_loaded",
    FAILURE,
    GPU_HOST,
    "The kernel's own driver (nouveau) holds the GPUs.",
    "Run hardware.yml for {host}, or write `blacklist nouveau` to /etc/modprobe.d, rebuild the initramfs and reboot.",
)
def _nouveau_loaded(host: Host) -> Faults:
    return [Fault("nouveau is loaded", "nouveau kept from loading")] if nouveau_in_the_way(host.driver) else []


@_check(
    "secure_boot_unsigned",
    FAILURE,
    GPU_HOST,
    "Secure Boot is on, and the kernel does not take the driver's module: the key that signed it is not enrolled.",
    "On the console of {host}: `mokutil --import /var/lib/dkms/mok.pub`, reboot, and enrol the key in the menu.",
)
def _secure_boot_unsigned(host: Host) -> Faults:
    driver = host.driver
    if not _module_absent(host) or not driver.secure_boot or not driver.installed_version or nouveau_in_the_way(driver):
        return []
    observed = f"Secure Boot, and module {driver.installed_version} is installed and not loaded"
    return [Fault(observed, "a module signed with an enrolled key")]


@_check(
    "module_missing",
    FAILURE,
    GPU_HOST,
    "A driver is installed, and its kernel module is not loaded, or the kernel that runs has none.",
    "On {host}: {remedy}.",
)
def _module_missing(host: Host) -> Faults:
    driver = host.driver
    if not _module_absent(host) or nouveau_in_the_way(driver) or (driver.secure_boot and driver.installed_version):
        return []
    observed = f"module {driver.installed_version} is not loaded" if driver.installed_version else "there is no module"
    return [Fault(f"{observed} (kernel {driver.kernel})", "a loaded module", {"remedy": _way_to_module(driver)})]


def _way_to_module(driver: Driver) -> str:
    """The one thing that brings the module: a reboot only where it brings another kernel."""
    if driver.installed_version:
        return "`modprobe nvidia`"
    if driver.reboot_pending:
        return f"reboot, because kernel {' or '.join(driver.module_versions)} has the module"
    packages = [one.name for one in driver.packages if one.name.startswith("linux-modules-nvidia-")]
    for kernel in driver.module_versions:
        if built := next((name for name in packages if name.endswith(f"-{kernel}")), None):
            return f"`apt-get install {built.removesuffix(kernel)}{driver.kernel}`"
    return f"install the headers of kernel {driver.kernel} and run `dkms autoinstall -k {driver.kernel}`"


def waits_for_another_kernel(driver: Driver) -> bool:
    """Whether a reboot is what brings the module."""
    return driver.reboot_pending and driver.loaded_version is None and driver.installed_version is None


@_check(
    "module_flavour",
    FAILURE,
    GPU_HOST,
    "The kernel module is open where the GPUs need the proprietary one, or the other way round.",
    "Set nvidia_driver_kernel_modules of {host} to auto and run hardware.yml, which installs the {flavours} module.",
)
def _module_flavour(host: Host) -> Faults:
    driver = host.driver
    is_open = driver.loaded_open if driver.loaded_open is not None else driver.installed_open
    flavour = "open" if is_open else "proprietary"
    if is_open is None or flavour in driver.supported_modules:
        return []
    return [Fault(f"the {flavour} module", driver.modules_reason, {"flavours": " or ".join(driver.supported_modules)})]


@_check(
    "fabric_manager_mismatch",
    FAILURE,
    GPU_HOST,
    "GPUs behind NVSwitches need Fabric Manager of exactly the driver's version: CUDA fails with error 802 without.",
    "Run hardware.yml for {host}, or install nvidia-fabricmanager of version {version} and hold it.",
)
def _fabric_manager_mismatch(host: Host) -> Faults:
    driver = host.driver
    version = driver.library_version or driver.loaded_version
    if not driver.fabric.manager or version is None or driver.fabric_manager_version == version:
        return []
    observed = f"Fabric Manager {driver.fabric_manager_version or 'is not installed'}"
    return [Fault(observed, f"{version} ({driver.fabric.reason})", {"version": version})]


@_check(
    "fabric_manager_down",
    FAILURE,
    GPU_HOST,
    "Fabric Manager does not run on a host with NVSwitches.",
    "`systemctl enable --now nvidia-fabricmanager` on {host}; `journalctl -u nvidia-fabricmanager` says why it stops.",
)
def _fabric_manager_down(host: Host) -> Faults:
    if not host.driver.fabric.manager or host.driver.fabric_manager_version is None:
        return []
    active = host.machine.fabric_manager_active
    if active is None:
        return None
    return [] if active else [Fault("nvidia-fabricmanager.service is not active", "a unit that runs")]


@_check(
    "driver_old",
    FAILURE,
    GPU_HOST,
    "The driver is too old for the CUDA that this release of vLLM is built with.",
    "Upgrade the driver of {host} to branch {branch} or newer, or set vllm_version to a release for an older CUDA.",
)
def _driver_old(host: Host) -> Faults:
    version = host.gpu.driver_version
    numbers, floor = numbers_of(version), driver_floor(host.wanted.vllm_version)
    if numbers is None or floor is None:
        return None
    if numbers[0] >= floor:
        return []
    needed = f"branch {floor} or newer for vLLM {host.wanted.vllm_version}"
    return [Fault(f"driver {version}", needed, {"branch": floor})]
