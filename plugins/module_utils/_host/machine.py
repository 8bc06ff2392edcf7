"""What a host says of itself, GPUs and driver apart: the records, and their reader; private to the collection.

Nothing is changed. Every field is read for itself: None is what could not be read, mostly because that takes root.
Files are read below a root directory, and commands run by a function that the caller gives, so that a test can bring a
host of its own. Sizes are GiB (2**30 bytes).
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from .._units import GIB
from .docker import instances_by_container
from .gpu import Gpu
from .keepers import KeeperState, read_keepers
from .pci import kernel_name
from .rdma import RdmaPort, read_ports
from .system import Run, read_text, run

__all__ = ["CdiSpec", "Disk", "Listener", "Machine", "Port", "Process", "Space", "Wanted", "read_machine"]

ENGINE = re.compile(r"vllm@(.+)\.service")
LISTENING = "0A"  # include/net/tcp_states.h
CAP_SYS_RESOURCE = 24  # include/uapi/linux/capability.h; who has it may give a service any limit
# PCI Express Base Specification: extended capabilities begin behind the 256 bytes of PCI, ACS has the number 13, its
# control register follows 6 bytes in, and bits 2 and 3 of it redirect requests and completions to the root complex.
EXTENDED, ACS, ACS_CONTROL, ACS_REDIRECT = 0x100, 0x0D, 6, 0b1100
WITHOUT_ROOT = 64  # bytes of the configuration space that everybody may read


@dataclass(frozen=True)
class Port:
    """A TCP port that a service of the fleet has, or is to have."""

    number: int
    units: tuple[str, ...]  # systemd units that may have it, as regular expressions
    purpose: str
    address: str | None = None  # None: every address

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Port:
        """The record of a fact."""
        return cls(**{**facts, "units": tuple(facts["units"])})


@dataclass(frozen=True)
class Disk:
    """Room that something takes in a directory."""

    path: str
    gib: float | None  # None: not known
    purpose: str
    parts: str | None = None  # directory of the files of it that are there already
    done: str | None = None  # what is there when nothing is missing any more


@dataclass(frozen=True)
class Wanted:
    """What the inventory, and the plan where there is one, want of a host."""

    gpu_host: bool = False  # it is to serve models
    several_gpus: bool = False  # one instance may span several of its GPUs
    shm_gib: float = 0.0  # shared memory that its instances need, when it has several GPUs
    vllm_version: str = ""
    vllm_python: str = ""  # path of the interpreter, or "auto"
    ports: tuple[Port, ...] = ()
    disks: tuple[Disk, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as the argument of a module."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Wanted:
        """The record of a module's argument."""
        ports = tuple(Port.from_dict(port) for port in facts.get("ports", ()))
        disks = tuple(Disk(**disk) for disk in facts.get("disks", ()))
        return cls(**{**facts, "ports": ports, "disks": disks})


@dataclass(frozen=True)
class Process:
    """A process, without its arguments: they may hold secrets."""

    pid: int
    command: str | None = None
    unit: str | None = None  # systemd unit or scope

    @property
    def engine(self) -> str | None:
        """The instance of the fleet that it belongs to."""
        found = ENGINE.fullmatch(self.unit or "")
        return found and found.group(1)


@dataclass(frozen=True)
class Listener:
    """A TCP socket that accepts connections."""

    port: int
    address: str
    process: Process | None = None  # None: it takes root to see whose it is

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Listener:
        """The record of a fact."""
        return cls(facts["port"], facts["address"], facts["process"] and Process(**facts["process"]))


@dataclass(frozen=True)
class Space:
    """The file system on which something that takes room is, or is to be."""

    purpose: str
    path: str
    device: int  # things with the same number share the room
    free_gib: float
    missing_gib: float | None  # what is still to come; None: not known


@dataclass(frozen=True)
class CdiSpec:
    """A description of the GPUs for containers, as nvidia-ctk writes it."""

    path: str
    driver_versions: tuple[str, ...] = ()  # of the libraries that it names
    missing: tuple[str, ...] = ()  # files that it names and that are not there

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> CdiSpec:
        """The record of a fact."""
        return cls(facts["path"], tuple(facts["driver_versions"]), tuple(facts["missing"]))


@dataclass(frozen=True)
class Machine:
    """One host. A field of None could not be read."""

    python: str | None = None  # of the interpreter that Ansible uses there
    time_epoch: float | None = None
    clock_synchronized: bool | None = None
    reboot_for: tuple[str, ...] | None = None  # packages that ask for a reboot; (): they are not named; None: none does
    vllm_python: str | None = None  # version of the interpreter for vLLM; None where there is none, or any will do
    shm_gib: float | None = None
    memlock: str | None = None  # "unlimited", or bytes: of the engines that run, else the most that one can be given
    rdma_devices: tuple[str, ...] | None = None
    rdma_ports: tuple[RdmaPort, ...] = ()
    iommu_types: tuple[str, ...] | None = None  # of the GPUs' groups: DMA, DMA-FQ, identity; () without an IOMMU
    acs_bridges: tuple[str, ...] | None = None  # PCI addresses above GPUs that send peer traffic to the root complex
    listeners: tuple[Listener, ...] | None = None  # on the ports that were asked for
    spaces: tuple[Space, ...] = ()
    processes: tuple[Process, ...] = ()  # those that were asked for and still run
    engines: tuple[str, ...] = ()  # instances that the role vllm has put here
    keepers: tuple[KeeperState, ...] = ()  # of these instances
    gpus_before: tuple[str, ...] | None = None  # UUIDs of the GPUs when models were last served
    cdi_specs: tuple[CdiSpec, ...] = ()
    fabric_manager_active: bool | None = None  # its unit

    def to_dict(self) -> dict[str, Any]:
        """The record as a fact."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Machine:
        """The record of a fact."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()
        }
        records: tuple[tuple[str, Callable[[Mapping[str, Any]], Any]], ...] = (
            ("listeners", Listener.from_dict),
            ("spaces", lambda space: Space(**space)),
            ("processes", lambda process: Process(**process)),
            ("cdi_specs", CdiSpec.from_dict),
            ("keepers", lambda keeper: KeeperState(**keeper)),
            ("rdma_ports", lambda port: RdmaPort(**port)),
        )
        for name, record in records:
            if values.get(name):
                values[name] = tuple(record(value) for value in values[name])
        return cls(**values)


def read_machine(wanted: Wanted, gpus: Sequence[Gpu] = (), *, root: Path = Path("/"), run: Run = run) -> Machine:
    """Read the host; ``gpus`` say which bridges and processes are of interest."""
    containers = instances_by_container(root)
    machine: dict[str, Any] = {
        "python": platform.python_version(),
        "time_epoch": time.time(),
        "clock_synchronized": _clock_synchronized(run),
        "reboot_for": _reboot_for(root),
        "listeners": _listeners(root, {port.number for port in wanted.ports}, containers),
        "spaces": tuple(_space(root, disk) for disk in wanted.disks),
    }
    if wanted.gpu_host:
        devices = [root / "sys/bus/pci/devices" / kernel_name(gpu.pci_bus_id) for gpu in gpus if gpu.pci_bus_id]
        engines = _fact(root, "gpuhosts_vllm", "instances", "id") or ()
        pids = sorted({process.pid for gpu in gpus for process in gpu.processes})
        machine.update(
            vllm_python=_python_version(run, wanted.vllm_python),
            shm_gib=_shm_gib(root),
            memlock=_memlock(root, containers),
            rdma_devices=_names(root / "sys/class/infiniband"),
            rdma_ports=read_ports(root),
            iommu_types=_iommu_types(devices),
            acs_bridges=_acs_bridges(devices),
            processes=tuple(
                process for process in (_process(root, pid, containers) for pid in pids) if process.command
            ),
            engines=engines,
            keepers=tuple(read_keepers(root, engines)),
            gpus_before=_fact(root, "gpuhosts_gpus", "gpus", "uuid"),
            cdi_specs=tuple(_cdi_specs(root)),
            fabric_manager_active=_active(run, "nvidia-fabricmanager.service"),
        )
    return Machine(**machine)


def _names(directory: Path) -> tuple[str, ...] | None:
    """What lies in a directory; () when there is none."""
    try:
        return tuple(sorted(entry.name for entry in directory.iterdir()))
    except FileNotFoundError:
        return ()
    except OSError:
        return None


def _there(path: Path) -> bool:
    """Whether something is there, be it a link to nothing, or closed to this user."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _fact(root: Path, name: str, items: str, key: str) -> tuple[str, ...] | None:
    """One value of every item of a list in a local fact of Ansible; None when it is not there, or damaged."""
    try:
        found = json.loads(read_text(root / f"etc/ansible/facts.d/{name}.fact") or "null")
        return tuple(str(item[key]) for item in found[items])
    except (KeyError, TypeError, ValueError):
        return None


def _clock_synchronized(run: Run) -> bool | None:
    answer = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    return {"yes": True, "no": False}.get(answer.strip())


def _reboot_for(root: Path) -> tuple[str, ...] | None:
    """As the packages of Debian and Ubuntu leave it in a file."""
    if not _there(root / "run/reboot-required"):
        return None
    return tuple(sorted(set(read_text(root / "run/reboot-required.pkgs").split())))


def _active(run: Run, unit: str) -> bool | None:
    state = run(["systemctl", "show", "--property=ActiveState", "--value", unit]).strip()
    return state == "active" if state else None


def _python_version(run: Run, interpreter: str) -> str | None:
    if interpreter == "auto":
        return None
    return run([interpreter, "-c", "import platform; print(platform.python_version())"]).strip() or None


def _shm_gib(root: Path) -> float | None:
    try:
        shm = os.statvfs(root / "dev/shm")
    except OSError:
        return None
    return round(shm.f_blocks * shm.f_frsize / GIB, 3)


def _memlock(root: Path, containers: Mapping[str, str]) -> str | None:
    """What the engines that run have; where none runs, the most that systemd (process 1) can give to one."""
    engines = [
        path.parent
        for path in root.glob("proc/[0-9]*/cgroup")
        if ENGINE.fullmatch(_unit(read_text(path), containers) or "")
    ]
    limits = [limit for limit in (_limit(engine, "soft") for engine in engines) if limit]
    if limits:
        bounded = [limit for limit in limits if limit != "unlimited"]
        return min(bounded, key=int) if bounded else "unlimited"
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", read_text(root / "proc/1/status"), re.MULTILINE)
    if bounding and int(bounding.group(1), 16) >> CAP_SYS_RESOURCE & 1:
        return "unlimited"
    return _limit(root / "proc/1", "hard")


def _limit(process: Path, which: str) -> str | None:
    limits = read_text(process / "limits")
    found = re.search(r"^Max locked memory\s+(?P<soft>\S+)\s+(?P<hard>\S+)", limits, re.MULTILINE)
    return found and found.group(which)


def _process(root: Path, pid: int, containers: Mapping[str, str]) -> Process:
    directory = root / "proc" / str(pid)
    return Process(pid, read_text(directory / "comm") or None, _unit(read_text(directory / "cgroup"), containers))


def _unit(cgroup: str, containers: Mapping[str, str]) -> str | None:
    """The innermost systemd unit in a ``/proc/PID/cgroup``: ``0::/system.slice/nginx.service``.

    Of a process in a container it is the unit that runs the container: ``0::/system.slice/docker-ID.scope``.
    """
    for container in re.findall(r"[0-9a-f]{64}", cgroup):
        if container in containers:
            return f"vllm@{containers[container]}.service"
    units = [part for part in re.split(r"[/\n]", cgroup) if part.endswith((".service", ".scope"))]
    return units[-1] if units else None


def _listeners(root: Path, ports: AbstractSet[int], containers: Mapping[str, str]) -> tuple[Listener, ...] | None:
    """Who listens on any of these ports; None when the kernel's tables cannot be read."""
    tables = [table for table in (read_text(root / "proc/net" / name) for name in ("tcp", "tcp6")) if table]
    if not tables:
        return None
    sockets = [socket for table in tables for socket in _sockets(table) if socket[1] in ports]
    owners = _owners(root, {inode for _address, _port, inode in sockets})
    return tuple(
        Listener(port, address, _process(root, owners[inode], containers) if inode in owners else None)
        for address, port, inode in sorted(sockets, key=lambda socket: socket[1])
    )


def _sockets(table: str) -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of the listening sockets in a table of proc_net_tcp(5)."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTENING:
            address, port = fields[1].split(":")
            yield _address(address), int(port, 16), fields[9]


def _address(text: str) -> str:
    """An address as the kernel prints it, in words of 4 bytes, each of them back to front."""
    raw = bytes.fromhex(text)
    address = ip_address(b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4)))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _owners(root: Path, inodes: AbstractSet[str]) -> dict[str, int]:
    """The process of each socket, as far as this user may see them."""
    owners: dict[str, int] = {}
    for directory in root.glob("proc/[0-9]*/fd"):
        if owners.keys() >= inodes:
            break
        for name in _names(directory) or ():
            try:
                target = str((directory / name).readlink())
            except OSError:  # closed since
                continue
            inode = target[len("socket:[") : -1] if target.startswith("socket:[") else ""
            if inode in inodes:
                owners[inode] = int(directory.parent.name)
    return owners


def _space(root: Path, disk: Disk) -> Space:
    """The file system of a path, or of the nearest directory above it that is there."""
    path = root / disk.path.lstrip("/")
    for place in (path, *path.parents):
        try:
            found, device = os.statvfs(place), place.stat().st_dev
        except OSError:  # not there, or closed to this user
            continue
        break
    free_gib = round(found.f_bavail * found.f_frsize / GIB, 3)
    return Space(disk.purpose, disk.path, device, free_gib, _missing_gib(root, disk))


def _missing_gib(root: Path, disk: Disk) -> float | None:
    if disk.done and _there(root / disk.done.lstrip("/")):
        return 0.0
    if disk.gib is None:
        return None
    if not disk.parts:
        return disk.gib
    try:
        with os.scandir(root / disk.parts.lstrip("/")) as entries:
            there = sum(entry.stat(follow_symlinks=False).st_size for entry in entries) / GIB
    except FileNotFoundError:
        there = 0.0
    except OSError:
        return None
    return round(max(0.0, disk.gib - there), 3)


def _iommu_types(devices: Sequence[Path]) -> tuple[str, ...] | None:
    if not all(map(_there, devices)):
        return None
    groups = [device / "iommu_group" for device in devices]
    types = {read_text(group / "type") for group in groups if _there(group)}
    return None if "" in types else tuple(sorted(types))


def _acs_bridges(devices: Sequence[Path]) -> tuple[str, ...] | None:
    """The bridges above GPUs that send what one device writes to another through the root complex."""
    redirecting: set[str] = set()
    for device in devices:
        if not _there(device):
            return None
        for bridge in device.resolve().parents:
            if not re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", bridge.name):
                break
            try:
                space = (bridge / "config").read_bytes()
            except OSError:
                return None
            if len(space) <= WITHOUT_ROOT:
                return None
            if _acs_control(space) & ACS_REDIRECT:
                redirecting.add(bridge.name)
    return tuple(sorted(redirecting))


def _acs_control(space: bytes) -> int:
    """The ACS control register in a PCI configuration space; 0 where there is none."""
    position = EXTENDED
    while EXTENDED <= position <= len(space) - 8:
        header = int.from_bytes(space[position : position + 4], "little")
        if header & 0xFFFF == ACS:
            return int.from_bytes(space[position + ACS_CONTROL : position + ACS_CONTROL + 2], "little")
        if header >> 20 <= position:  # the end is 0; a list that turns back would never end
            break
        position = header >> 20
    return 0


def _cdi_specs(root: Path) -> Iterator[CdiSpec]:
    """The specifications of NVIDIA's GPUs in the directories where container engines look."""
    for directory in ("etc/cdi", "var/run/cdi"):
        for name in _names(root / directory) or ():
            text = read_text(root / directory / name) if name.endswith((".yaml", ".json")) else ""
            if "nvidia.com/gpu" in text:
                paths = set(re.findall(r"""\b(?:hostPath|path)["']?:\s*["']?(/[^\s"',]+)""", text))
                versions = set(re.findall(r"/libcuda\.so\.(\d+\.[\d.]+)", " ".join(paths)))
                missing = {path for path in paths if not _there(root / path.lstrip("/"))}
                yield CdiSpec(f"/{directory}/{name}", tuple(sorted(versions)), tuple(sorted(missing)))
