"""Checks of a host, GPUs and driver apart: clock, ports, disks, Python, containers; private to the collection."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import ip_address
from re import fullmatch

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.keepers import SERVING
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Listener, Port, Process
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.requirements import REQUIREMENTS, requirements_of

from .driver import mismatch, nouveau_in_the_way, waits_for_another_kernel
from .record import (
    FAILURE,
    GPU_HOST,
    HOST,
    WARNING,
    Check,
    Fault,
    Faults,
    Host,
    into,
    live_gpus,
    too_old,
    version_fault,
)

CHECKS: list[Check] = []
_check = into(CHECKS)
SKEW_SECONDS = 5.0


def _skew(asked_epoch: tuple[float, float], told_epoch: float) -> float:
    """Seconds that a clock is certainly ahead (behind: negative), whenever between the two it was read."""
    before, after = asked_epoch
    return told_epoch - min(max(told_epoch, before), after)


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
    said_elsewhere = mismatch(host) or nouveau_in_the_way(host.driver) or waits_for_another_kernel(host.driver)
    if host.driver.reboot_reason and not said_elsewhere:
        faults.append(Fault(host.driver.reboot_reason, "what is installed to be what runs"))
    if host.machine.reboot_for is not None:
        packages = ", ".join(host.machine.reboot_for) or "the distribution's packages"
        faults.append(Fault(f"{packages} ask for a reboot", "no pending reboot"))
    return faults


@_check(
    "vllm_python_old",
    FAILURE,
    GPU_HOST,
    "The Python that vLLM is to be installed with by vllm_python is too old, or is not there.",
    "Install Python {floor} or newer with its venv module on {host} and set vllm_python to it.",
)
def _vllm_python_old(host: Host) -> Faults:
    if host.wanted.vllm_python == "auto":
        return []  # the role brings it
    floor = (requirements_of(host.wanted.vllm_version) or REQUIREMENTS[-1]).python
    if host.machine.vllm_python is None:
        return [too_old(f"{host.wanted.vllm_python} does not run", floor)]
    return version_fault(host.machine.vllm_python, floor)


@_check(
    "shm_small",
    FAILURE,
    GPU_HOST,
    "Shared memory, through which the processes of an engine on several GPUs talk, is too small.",
    "On {host}: `mount -o remount,size=50% /dev/shm`, and correct its line in /etc/fstab.",
)
def _shm_small(host: Host) -> Faults:
    size, needed = host.machine.shm_gib, host.wanted.shm_gib
    if len(live_gpus(host)) < 2 or not needed:
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
    "engine_not_serving",
    FAILURE,
    GPU_HOST,
    "An instance that was put on the host does not serve.",
    "`journalctl --unit vllm@{id}` on {host} has the words of engine and keeper; serve.yml starts what does not run.",
)
def _engine_not_serving(host: Host) -> Faults:
    faults = []
    for keeper in host.machine.keepers:
        if keeper.state == SERVING:
            continue
        parts = [f"{keeper.id} {keeper.state or 'does not run'}"]
        parts += [f"for {keeper.waits_for}"] if keeper.waits_for else []
        parts += [f"epoch {keeper.epoch}"] if keeper.epoch else []
        parts += [f"the one before ended: {keeper.reason}"] if keeper.reason else []
        faults.append(Fault(", ".join(parts), "serving", {"id": keeper.id}))
    return faults


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
