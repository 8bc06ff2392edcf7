"""What has to be true of a host that is to serve models, as a table of checks; private to the collection.

A check looks at what was read of the host and says what is wrong: nothing (an empty sequence), something, or that it
cannot tell (None). It reads nothing itself. The codes are stable, because other programs read them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from re import fullmatch
from typing import NamedTuple

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver, DriverPackage
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu, GpuHost, GpuProcess
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.health import (
    COMPUTE_CAPABILITY_LOW,
    ECC_OFF,
    FABRIC_INCOMPLETE,
    GPU_LOST,
    MIG_ENABLED,
    findings,
    foreign_processes,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import (
    Listener,
    Machine,
    Port,
    Process,
    Wanted,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.pci import kernel_name
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.requirements import (
    REQUIREMENTS,
    driver_floor,
    requirements_of,
)

__all__ = ["CHECKS", "CONTACT", "FAILURE", "GPU_HOST", "HOST", "WARNING", "Check", "Fault", "Faults", "Host"]

FAILURE, WARNING = "failure", "warning"
# What a check is about. When one of the contact is at fault, nothing else can be known.
CONTACT, HOST, GPU_HOST = "contact", "every host", "GPU hosts"

PYTHON_FLOOR = (3, 9)  # of the modules of this collection
SKEW_SECONDS = 5.0


@dataclass(frozen=True)
class Host:
    """What is known of one host."""

    name: str
    unreachable: str | None = None  # why
    unreadable: str | None = None  # why
    wanted: Wanted = field(default_factory=Wanted)
    machine: Machine = field(default_factory=Machine)
    gpu: GpuHost = field(default_factory=GpuHost)  # of a GPU host, as the next one
    driver: Driver = field(default_factory=lambda: Driver(kernel=""))
    asked_epoch: tuple[float, float] | None = None  # the controller's clock before and after the host told its own


class Fault(NamedTuple):
    """One thing that is wrong; ``values`` go into the fix."""

    observed: str
    needed: str
    values: Mapping[str, object] = {}


Faults = Sequence[Fault] | None  # None: cannot be told
_Judge = Callable[[Host], Faults]


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    code: str  # stable: other programs read it
    severity: str  # a warning is advice: it does not make the verdict a bad one
    scope: str
    meaning: str
    fix: str  # one line, with {values} of the fault
    judge: _Judge

    def entry(self, host: Host, fault: Fault) -> dict[str, str]:
        """The fault as it stands in the report."""
        fix = self.fix.format(host=host.name, **fault.values)
        return {"code": self.code, "host": host.name, "observed": fault.observed, "needed": fault.needed, "fix": fix}


CHECKS: list[Check] = []


def _check(code: str, severity: str, scope: str, meaning: str, fix: str) -> Callable[[_Judge], _Judge]:
    def add(judge: _Judge) -> _Judge:
        CHECKS.append(Check(code, severity, scope, meaning, fix, judge))
        return judge

    return add


# What the checks share.


def _gpus(host: Host) -> tuple[Gpu, ...]:
    """The GPUs that answer."""
    return tuple(gpu for gpu in host.gpu.gpus if not gpu.lost)


def _label(gpu: Gpu) -> str:
    return f"GPU {gpu.index}" + (f" ({gpu.pci_bus_id})" if gpu.pci_bus_id else "")


def _of_gpus(gpus: Sequence[Gpu], state: Callable[[Gpu], str], needed: str) -> Sequence[Fault]:
    """One fault for all GPUs that have it."""
    observed = "; ".join(f"{_label(gpu)}: {state(gpu)}" for gpu in gpus)
    return [Fault(observed, needed, {"indices": ",".join(str(gpu.index) for gpu in gpus)})] if gpus else ()


def _found(host: Host, code: str, counts: Callable[[Gpu], bool] = lambda _gpu: True) -> Sequence[Fault]:
    """One fault for all GPUs of which the verdict holds this finding."""
    known = {gpu: {finding.code: finding for finding in findings(gpu)} for gpu in host.gpu.gpus if counts(gpu)}
    having = [gpu for gpu, codes in known.items() if code in codes]
    return _of_gpus(having, lambda gpu: known[gpu][code].state, known[having[0]][code].needed) if having else ()


def _numbers(version: str | None) -> tuple[int, ...] | None:
    """The leading numbers of a version: (580, 95, 5); None when it does not begin with one."""
    found = fullmatch(r"(\d+(?:\.\d+)*).*", version or "")
    return tuple(map(int, found.group(1).split("."))) if found else None


def _version_fault(version: str | None, floor: tuple[int, int]) -> Faults:
    numbers = _numbers(version)
    if numbers is None:
        return None
    return [] if numbers >= floor else [_too_old(str(version), floor)]


def _too_old(observed: str, floor: tuple[int, int]) -> Fault:
    oldest = "{}.{}".format(*floor)
    return Fault(observed, f"{oldest} or newer", {"floor": oldest})


def _skew(asked_epoch: tuple[float, float], told_epoch: float) -> float:
    """Seconds that a clock is certainly ahead (behind: negative), whenever between the two it was read."""
    before, after = asked_epoch
    return told_epoch - min(max(told_epoch, before), after)


def _answers(host: Host) -> bool:
    """Whether NVML works, and so module and library fit."""
    return host.gpu.driver_version is not None


def _module_absent(host: Host) -> bool:
    """Whether a driver is installed whose kernel module is not in memory."""
    installed = bool(host.driver.library_version or host.driver.packages)
    return installed and not _answers(host) and host.driver.loaded_version is None


def _in_the_way(driver: Driver) -> bool:
    return driver.nouveau_loaded and bool(driver.pci_gpus)


def _some(packages: Sequence[DriverPackage]) -> str:
    names = [package.name for package in packages]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _shares_over_pcie(host: Host) -> bool:
    """Whether GPUs of the host may work on one model without NVLink between them."""
    return host.wanted.several_gpus and len(_gpus(host)) > 1 and host.gpu.link in ("pcie", "host")


# Contact.


@_check(
    "unreachable",
    FAILURE,
    CONTACT,
    "Ansible cannot connect to the host.",
    "Try `ssh {host}` as the user that Ansible uses; bring the host back, or take it out of the inventory.",
)
def _unreachable(host: Host) -> Faults:
    return [Fault(host.unreachable, "a connection")] if host.unreachable else []


@_check(
    "unreadable",
    FAILURE,
    CONTACT,
    "Ansible connects, but its modules do not run: no Python, no sudo, no room in the temporary directory.",
    "Mend what the message says; a host needs Python 3.9 or newer, and with --become a user who may use sudo.",
)
def _unreadable(host: Host) -> Faults:
    return [Fault(host.unreadable, "a host that runs Ansible's modules")] if host.unreadable else []


@_check(
    "python_old",
    FAILURE,
    CONTACT,
    "The Python that Ansible uses on the host is too old for the modules of this collection.",
    "Install a newer Python there and set ansible_python_interpreter of {host} to it.",
)
def _python_old(host: Host) -> Faults:
    return _version_fault(host.machine.python, PYTHON_FLOOR) if host.machine.python else []


# Every host.


@_check(
    "clock_skew",
    FAILURE,
    HOST,
    "The clock of the host differs from the controller's: certificates, logs and metrics cannot be trusted.",
    "Set the clock of {host} (`chronyc makestep`, `systemctl restart systemd-timesyncd`), or that of the controller.",
)
def _clock_skew(host: Host) -> Faults:
    if host.asked_epoch is None or host.machine.time_epoch is None:
        return None
    skew = _skew(host.asked_epoch, host.machine.time_epoch)
    observed = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the controller"
    return [Fault(observed, f"at most {SKEW_SECONDS:.0f} s")] if abs(skew) > SKEW_SECONDS else []


@_check(
    "clock_unsynchronized",
    WARNING,
    HOST,
    "Nothing keeps the clock of the host right.",
    "Install chrony or systemd-timesyncd on {host} and give it a time server; `timedatectl` shows the result.",
)
def _clock_unsynchronized(host: Host) -> Faults:
    if host.machine.clock_synchronized is None:
        return None
    return [] if host.machine.clock_synchronized else [Fault("not synchronized", "a clock that is synchronized")]


@_check(
    "port_taken",
    FAILURE,
    HOST,
    "Another program has a TCP port that a service of the fleet needs.",
    "Stop {command} (process {pid}, {unit}) on {host}, or give the service another port.",
)
def _port_taken(host: Host) -> Faults:
    if host.machine.listeners is None:
        return None
    faults = []
    unknown = False
    for port in host.wanted.ports:
        for listener in (listener for listener in host.machine.listeners if _collide(port, listener)):
            if listener.process is None:
                unknown = True
            elif not any(fullmatch(unit, listener.process.unit or "") for unit in port.units):
                faults.append(_taken(port, listener, listener.process))
    return None if unknown and not faults else faults


def _collide(port: Port, listener: Listener) -> bool:
    if listener.port != port.number:
        return False
    theirs = ip_address(listener.address)
    return port.address is None or theirs.is_unspecified or listener.address == port.address


def _taken(port: Port, listener: Listener, process: Process) -> Fault:
    values = {"command": process.command, "pid": process.pid, "unit": process.unit or "no unit"}
    observed = f"{process.command} ({process.unit or 'no unit'}) listens on {listener.address} port {listener.port}"
    return Fault(observed, f"the port free for {port.purpose}", values)


@_check(
    "disk_full",
    FAILURE,
    HOST,
    "A file system has less room than what is to be put on it takes.",
    "Free {more_gib} GiB on {host} at {path}, mount a larger file system there, or set the variable of that place.",
)
def _disk_full(host: Host) -> Faults:
    file_systems = defaultdict(list)
    for space in host.machine.spaces:
        file_systems[space.device].append(space)
    faults = []
    for spaces in file_systems.values():
        missing = sum(space.missing_gib or 0.0 for space in spaces)
        free = min(space.free_gib for space in spaces)
        if missing > free:
            places = sorted({space.path for space in spaces if space.missing_gib})
            purposes = ", ".join(
                f"{space.missing_gib:.1f} for {space.purpose}" for space in spaces if space.missing_gib
            )
            values = {"more_gib": f"{missing - free:.1f}", "path": " and ".join(places)}
            faults.append(Fault(f"{free:.1f} GiB free at {values['path']}", f"{missing:.1f} GiB: {purposes}", values))
    unknown = any(space.missing_gib is None for space in host.machine.spaces)
    return None if unknown and not faults else faults


@_check(
    "reboot_pending",
    WARNING,
    HOST,
    "Something that was installed works only after a reboot.",
    "Reboot {host} when its instances may stop; driver_upgrade.yml drains a host first.",
)
def _reboot_pending(host: Host) -> Faults:
    faults = []
    if host.driver.reboot_reason and not _mismatch(host) and not _in_the_way(host.driver):
        faults.append(Fault(host.driver.reboot_reason, "what is installed to be what runs"))
    if host.machine.reboot_for is not None:
        packages = ", ".join(host.machine.reboot_for) or "the distribution's packages"
        faults.append(Fault(f"{packages} ask for a reboot", "no pending reboot"))
    return faults


# GPU hosts: the driver.


@_check(
    "driver_missing",
    FAILURE,
    GPU_HOST,
    "No NVIDIA driver is installed.",
    "Run hardware.yml for {host}, which installs one, or install a driver of branch {branch} or newer.",
)
def _driver_missing(host: Host) -> Faults:
    if host.driver.library_version or host.driver.source != "none" or _answers(host):
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
    observed = _mismatch(host)
    return [Fault(observed, "the same version")] if observed else []


def _mismatch(host: Host) -> str | None:
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
    return [Fault("nouveau is loaded", "nouveau kept from loading")] if _in_the_way(host.driver) else []


@_check(
    "secure_boot_unsigned",
    FAILURE,
    GPU_HOST,
    "Secure Boot is on, and the kernel does not take the driver's module: the key that signed it is not enrolled.",
    "On the console of {host}: `mokutil --import /var/lib/dkms/mok.pub`, reboot, and enrol the key in the menu.",
)
def _secure_boot_unsigned(host: Host) -> Faults:
    driver = host.driver
    if not _module_absent(host) or not driver.secure_boot or not driver.installed_version or _in_the_way(driver):
        return []
    observed = f"Secure Boot, and module {driver.installed_version} is installed and not loaded"
    return [Fault(observed, "a module signed with an enrolled key")]


@_check(
    "module_missing",
    FAILURE,
    GPU_HOST,
    "A driver is installed, and its kernel module is not loaded.",
    "On {host}: `modprobe nvidia`; if {kernel} has no such module, install its headers and run `dkms autoinstall`.",
)
def _module_missing(host: Host) -> Faults:
    driver = host.driver
    if not _module_absent(host) or _in_the_way(driver) or (driver.secure_boot and driver.installed_version):
        return []
    observed = f"module {driver.installed_version} is not loaded" if driver.installed_version else "there is no module"
    return [Fault(f"{observed} (kernel {driver.kernel})", "a loaded module", {"kernel": driver.kernel})]


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


# GPU hosts: Python, memory, containers.


@_check(
    "vllm_python_old",
    FAILURE,
    GPU_HOST,
    "The Python that vLLM is to be installed with (vllm_python) is too old, or is not there.",
    "Install Python {floor} or newer with its venv module on {host} and set vllm_python to it.",
)
def _vllm_python_old(host: Host) -> Faults:
    floor = (requirements_of(host.wanted.vllm_version) or REQUIREMENTS[-1]).python
    if host.machine.vllm_python is None:
        return [_too_old(f"{host.wanted.vllm_python} does not run", floor)]
    return _version_fault(host.machine.vllm_python, floor)


@_check(
    "shm_small",
    FAILURE,
    GPU_HOST,
    "Shared memory, through which the processes of an engine on several GPUs talk, is too small.",
    "On {host}: `mount -o remount,size=50% /dev/shm`, and correct its line in /etc/fstab.",
)
def _shm_small(host: Host) -> Faults:
    size, needed = host.machine.shm_gib, host.wanted.shm_gib
    if len(_gpus(host)) < 2 or not needed:
        return []
    if size is None:
        return None
    return [] if size >= needed else [Fault(f"{size:g} GiB", f"{needed:g} GiB at /dev/shm")]


@_check(
    "memlock_low",
    FAILURE,
    GPU_HOST,
    "The host has RDMA devices, and an engine may not lock the memory that they use.",
    "Run the engines on {host} with LimitMEMLOCK=infinity, as the role vllm does (a container: with CAP_SYS_RESOURCE).",
)
def _memlock_low(host: Host) -> Faults:
    machine = host.machine
    if machine.rdma_devices is None or (machine.rdma_devices and machine.memlock is None):
        return None
    if not machine.rdma_devices or machine.memlock == "unlimited":
        return []
    return [Fault(f"{machine.memlock} bytes, with {', '.join(machine.rdma_devices)}", "unlimited")]


@_check(
    "cdi_stale",
    FAILURE,
    GPU_HOST,
    "A CDI specification is of another driver than the one that is installed: containers do not start.",
    "`systemctl restart nvidia-cdi-refresh.service` on {host}, or `nvidia-ctk cdi generate --output={path}`.",
)
def _cdi_stale(host: Host) -> Faults:
    if not host.machine.cdi_specs:
        return []
    installed = host.gpu.driver_version
    faults = []
    for spec in host.machine.cdi_specs:
        others = [version for version in spec.driver_versions if installed and version != installed]
        if others:
            observed = f"{spec.path} is of driver {', '.join(others)}"
        elif spec.missing:
            observed = f"{spec.path} names files that are not there: {', '.join(spec.missing[:3])}"
        else:
            continue
        faults.append(
            Fault(observed, f"driver {installed}" if installed else "files that are there", {"path": spec.path})
        )
    return None if installed is None and not faults else faults


@_check(
    "cdi_duplicate",
    WARNING,
    GPU_HOST,
    "CDI specifications lie in /etc/cdi as well as in /var/run/cdi; only the second are refreshed with the driver.",
    "Remove {path} on {host}.",
)
def _cdi_duplicate(host: Host) -> Faults:
    paths = [spec.path for spec in host.machine.cdi_specs]
    by_hand = [path for path in paths if path.startswith("/etc/")]
    if not by_hand or by_hand == paths:
        return []
    return [Fault(" and ".join(paths), "the one in /var/run/cdi", {"path": " ".join(by_hand)})]


# GPU hosts: the GPUs.


@_check(
    "gpu_none",
    FAILURE,
    GPU_HOST,
    "The host has no NVIDIA GPU.",
    "Take {host} out of gpu_hosts, or look at the machine: `lspci -d 10de:` lists what the BIOS has found.",
)
def _gpu_none(host: Host) -> Faults:
    none = not host.driver.pci_gpus and not host.gpu.gpus
    return [Fault("no NVIDIA GPU on the PCI bus", "a GPU")] if none else []


@_check(
    "gpu_undriven",
    FAILURE,
    GPU_HOST,
    "A GPU is on the PCI bus, and the driver that runs does not drive it.",
    "`dmesg | grep -i nvrm` on {host} says why: a card that fails, power, or another driver such as vfio-pci.",
)
def _gpu_undriven(host: Host) -> Faults:
    if not _answers(host) or len(host.driver.pci_gpus) <= len(host.gpu.gpus):
        return []
    driven = {kernel_name(gpu.pci_bus_id) for gpu in host.gpu.gpus if gpu.pci_bus_id}
    undriven = [gpu.bus_id for gpu in host.driver.pci_gpus if gpu.bus_id not in driven]
    return [Fault(f"not driven: {', '.join(undriven)}", f"{len(host.driver.pci_gpus)} GPUs that answer")]


@_check(
    "driver_old",
    FAILURE,
    GPU_HOST,
    "The driver is too old for the CUDA that this release of vLLM is built with.",
    "Upgrade the driver of {host} to branch {branch} or newer, or set vllm_version to a release for an older CUDA.",
)
def _driver_old(host: Host) -> Faults:
    version = host.gpu.driver_version
    numbers, floor = _numbers(version), driver_floor(host.wanted.vllm_version)
    if numbers is None or floor is None:
        return None
    if numbers[0] >= floor:
        return []
    needed = f"branch {floor} or newer for vLLM {host.wanted.vllm_version}"
    return [Fault(f"driver {version}", needed, {"branch": floor})]


@_check(
    "compute_capability",
    FAILURE,
    GPU_HOST,
    "vLLM is not built for a GPU that old.",
    "Take GPU {indices} out of {host}, or {host} out of gpu_hosts.",
)
def _compute_capability(host: Host) -> Faults:
    return _found(host, COMPUTE_CAPABILITY_LOW)


@_check(
    "gpu_lost",
    FAILURE,
    GPU_HOST,
    "A GPU has fallen off the bus (NVML error 15, Xid 79), or cannot be opened.",
    "Power-cycle {host}; if it comes again, reseat the card and its power cables, or have it replaced.",
)
def _gpu_lost(host: Host) -> Faults:
    return _found(host, GPU_LOST)


@_check(
    "gpu_fewer",
    FAILURE,
    GPU_HOST,
    "The host has fewer GPUs than when models were last served from it.",
    "Look for the card (`lspci -d 10de:`, `dmesg | grep -i xid`). If it is gone for good, remove from {host}:"
    " /etc/ansible/facts.d/gpuhosts_gpus.fact",
)
def _gpu_fewer(host: Host) -> Faults:
    before = host.machine.gpus_before
    if before is None:
        return []
    if not _answers(host):
        return None  # a driver that does not answer is another fault
    now = len(host.gpu.gpus)  # with those that are lost, which are another fault
    if now >= len(before):
        return []
    missing = ", ".join(sorted(set(before) - {gpu.uuid for gpu in _gpus(host)}))
    return [Fault(f"{now} GPUs", f"{len(before)}; missing: {missing}")]


@_check(
    "pcie_width",
    FAILURE,
    GPU_HOST,
    "The PCIe link of a GPU has fewer lanes than card and slot could have.",
    "Power {host} off and reseat GPU {indices} and its riser; look for a slot that the BIOS has split.",
)
def _pcie_width(host: Host) -> Faults:
    narrow = [gpu for gpu in _gpus(host) if gpu.pcie_width and gpu.pcie_width < (gpu.pcie_width_max or 0)]
    return _of_gpus(narrow, lambda gpu: f"x{gpu.pcie_width} of x{gpu.pcie_width_max}", "all lanes")


@_check(
    "pcie_generation",
    WARNING,
    GPU_HOST,
    "A GPU cannot reach the PCIe generation that its equals in the host can. (The one of the moment drops at idle.)",
    "Compare the slots of {host} in the BIOS and the manual of the board; GPU {indices} belongs into a faster one.",
)
def _pcie_generation(host: Host) -> Faults:
    best: dict[str | None, int] = defaultdict(int)
    for gpu in _gpus(host):
        best[gpu.name] = max(best[gpu.name], gpu.pcie_generation_max or 0)
    slow = [gpu for gpu in _gpus(host) if gpu.pcie_generation_max and gpu.pcie_generation_max < best[gpu.name]]
    return _of_gpus(slow, lambda gpu: f"generation {gpu.pcie_generation_max} of {best[gpu.name]}", "equal links")


@_check(
    "fabric_incomplete",
    FAILURE,
    GPU_HOST,
    'A GPU has not joined the NVSwitch fabric: CUDA fails with error 802, "system not yet initialized".',
    "Start nvidia-fabricmanager of exactly the driver's version on {host}, and read its journal.",
)
def _fabric_incomplete(host: Host) -> Faults:
    return _found(host, FABRIC_INCOMPLETE)


@_check(
    "orphan_process",
    FAILURE,
    GPU_HOST,
    "A process that belongs to no instance of this fleet uses a GPU; an engine will not find the memory it needs.",
    "Stop process {pid} ({command}, {unit}) on {host}; what an engine left behind, `kill -9 {pid}` ends.",
)
def _orphan_process(host: Host) -> Faults:
    known = {process.pid: process for process in host.machine.processes}
    faults = []

    def is_ours(user: GpuProcess) -> bool:
        process = known.get(user.pid)
        return process is None or process.engine in host.machine.engines  # has ended since, or is ours

    for gpu in _gpus(host):
        for user in foreign_processes(gpu, is_ours):
            process = known[user.pid]
            memory = f" with {user.used_gib:g} GiB" if user.used_gib is not None else ""
            unit = process.unit or "no unit"
            observed = f"{process.command} (process {user.pid}, {unit}) on {_label(gpu)}{memory}"
            values = {"pid": user.pid, "command": process.command, "unit": unit}
            faults.append(Fault(observed, "instances of this fleet alone", values))
    return faults


@_check(
    "acs_enabled",
    FAILURE,
    GPU_HOST,
    "PCIe bridges redirect what GPUs without NVLink send each other (ACS): NCCL is slow or hangs.",
    "Turn ACS off in the BIOS of {host}, or at boot with `setpci -s BRIDGE ECAP_ACS+0x6.w=0000`: {bridges}.",
)
def _acs_enabled(host: Host) -> Faults:
    if not _shares_over_pcie(host):
        return []
    bridges = host.machine.acs_bridges
    if bridges is None:
        return None
    text = " ".join(bridges)
    return [Fault(f"redirection by {text}", "no redirection", {"bridges": text})] if bridges else []


@_check(
    "iommu_translating",
    WARNING,
    GPU_HOST,
    "The IOMMU translates addresses between GPUs without NVLink, which slows peer transfers down or breaks them.",
    "Boot {host} with iommu=pt on the kernel's command line, or turn the IOMMU off in the BIOS.",
)
def _iommu_translating(host: Host) -> Faults:
    if not _shares_over_pcie(host):
        return []
    types = host.machine.iommu_types
    if types is None:
        return None
    translating = [kind for kind in types if kind.startswith("DMA")]
    return [Fault(f"IOMMU groups of type {', '.join(translating)}", "identity, or no IOMMU")] if translating else []


@_check(
    "persistence_off",
    WARNING,
    GPU_HOST,
    "The driver lets go of GPUs that nobody uses: the next start of an engine waits until they are up again.",
    "`systemctl enable --now nvidia-persistenced` on {host}.",
)
def _persistence_off(host: Host) -> Faults:
    off = [gpu for gpu in _gpus(host) if gpu.persistence_enabled is False]
    return _of_gpus(off, lambda _gpu: "persistence mode off", "on")


@_check(
    "ecc_off",
    WARNING,
    GPU_HOST,
    "Errors in the memory of a GPU that could correct them go unnoticed.",
    "`nvidia-smi -i {indices} -e 1` on {host}, then reboot it.",
)
def _ecc_off(host: Host) -> Faults:
    return _found(host, ECC_OFF, lambda gpu: gpu.ecc_pending is not True)


@_check(
    "ecc_pending",
    WARNING,
    GPU_HOST,
    "A change of the ECC mode waits for a reboot.",
    "Reboot {host}.",
)
def _ecc_pending(host: Host) -> Faults:
    waiting = [gpu for gpu in _gpus(host) if gpu.ecc_pending not in (None, gpu.ecc_enabled)]
    return _of_gpus(
        waiting, lambda gpu: f"ECC {'off, on' if gpu.ecc_pending else 'on, off'} after a reboot", "no change"
    )


@_check(
    "mig_enabled",
    WARNING,
    GPU_HOST,
    "A GPU is cut into slices (MIG): the planner leaves it out.",
    "`nvidia-smi -i {indices} -mig 0` on {host}, if whole GPUs are wanted.",
)
def _mig_enabled(host: Host) -> Faults:
    return _found(host, MIG_ENABLED)
