"""Checks of the GPUs of a host; private to the collection."""

from __future__ import annotations

from collections import defaultdict

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import GpuProcess
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.health import (
    COMPUTE_CAPABILITY_LOW,
    ECC_OFF,
    FABRIC_INCOMPLETE,
    GPU_LOST,
    MIG_ENABLED,
    foreign_processes,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.pci import kernel_name

from .record import (
    FAILURE,
    GPU_HOST,
    WARNING,
    Check,
    Fault,
    Faults,
    Host,
    answers,
    found,
    into,
    label,
    live_gpus,
    of_gpus,
)

CHECKS: list[Check] = []
_check = into(CHECKS)


def _shares_over_pcie(host: Host) -> bool:
    """Whether GPUs of the host may work on one model without NVLink between them."""
    return host.wanted.several_gpus and len(live_gpus(host)) > 1 and host.gpu.link in ("pcie", "host")


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
    if not answers(host) or len(host.driver.pci_gpus) <= len(host.gpu.gpus):
        return []
    driven = {kernel_name(gpu.pci_bus_id) for gpu in host.gpu.gpus if gpu.pci_bus_id}
    undriven = [gpu.bus_id for gpu in host.driver.pci_gpus if gpu.bus_id not in driven]
    return [Fault(f"not driven: {', '.join(undriven)}", f"{len(host.driver.pci_gpus)} GPUs that answer")]


@_check(
    "compute_capability",
    FAILURE,
    GPU_HOST,
    "vLLM is not built for a GPU that old.",
    "Take GPU {indices} out of {host}, or {host} out of gpu_hosts.",
)
def _compute_capability(host: Host) -> Faults:
    return found(host, COMPUTE_CAPABILITY_LOW)


@_check(
    "gpu_lost",
    FAILURE,
    GPU_HOST,
    "A GPU has fallen off the bus (NVML error 15, Xid 79), or cannot be opened.",
    "Power-cycle {host}; if it comes again, reseat the card and its power cables, or have it replaced.",
)
def _gpu_lost(host: Host) -> Faults:
    return found(host, GPU_LOST)


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
    if not answers(host):
        return None  # a driver that does not answer is another fault
    now = len(host.gpu.gpus)  # with those that are lost, which are another fault
    if now >= len(before):
        return []
    missing = ", ".join(sorted(set(before) - {gpu.uuid for gpu in live_gpus(host)}))
    return [Fault(f"{now} GPUs", f"{len(before)}; missing: {missing}")]


@_check(
    "pcie_width",
    FAILURE,
    GPU_HOST,
    "The PCIe link of a GPU has fewer lanes than card and slot could have.",
    "Power {host} off and reseat GPU {indices} and its riser; look for a slot that the BIOS has split.",
)
def _pcie_width(host: Host) -> Faults:
    narrow = [gpu for gpu in live_gpus(host) if gpu.pcie_width and gpu.pcie_width < (gpu.pcie_width_max or 0)]
    return of_gpus(narrow, lambda gpu: f"x{gpu.pcie_width} of x{gpu.pcie_width_max}", "all lanes")


@_check(
    "pcie_generation",
    WARNING,
    GPU_HOST,
    "A GPU cannot reach the PCIe generation that its equals in the host can. (The one of the moment drops at idle.)",
    "Compare the slots of {host} in the BIOS and the manual of the board; GPU {indices} belongs into a faster one.",
)
def _pcie_generation(host: Host) -> Faults:
    best: dict[str | None, int] = defaultdict(int)
    for gpu in live_gpus(host):
        best[gpu.name] = max(best[gpu.name], gpu.pcie_generation_max or 0)
    slow = [gpu for gpu in live_gpus(host) if gpu.pcie_generation_max and gpu.pcie_generation_max < best[gpu.name]]
    return of_gpus(slow, lambda gpu: f"generation {gpu.pcie_generation_max} of {best[gpu.name]}", "equal links")


@_check(
    "fabric_incomplete",
    FAILURE,
    GPU_HOST,
    'A GPU has not joined the NVSwitch fabric: CUDA fails with error 802, "system not yet initialized".',
    "Start nvidia-fabricmanager of exactly the driver's version on {host}, and read its journal.",
)
def _fabric_incomplete(host: Host) -> Faults:
    return found(host, FABRIC_INCOMPLETE)


@_check(
    "rdma_inactive",
    WARNING,
    GPU_HOST,
    "A port for InfiniBand or RoCE has a cable and lets nothing through: instances over hosts use TCP, or hang.",
    "On {host}: `rdma link`. InfiniBand needs a subnet manager in the network (opensm, or the switch); see to {ports}.",
)
def _rdma_inactive(host: Host) -> Faults:
    down = [port.name for port in host.machine.rdma_ports if port.cable and not port.active]
    return [Fault(f"not active: {', '.join(down)}", "active ports", {"ports": ", ".join(down)})] if down else []


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

    for gpu in live_gpus(host):
        for user in foreign_processes(gpu, is_ours):
            process = known[user.pid]
            memory = f" with {user.used_gib:g} GiB" if user.used_gib is not None else ""
            unit = process.unit or "no unit"
            observed = f"{process.command} (process {user.pid}, {unit}) on {label(gpu)}{memory}"
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
    off = [gpu for gpu in live_gpus(host) if gpu.persistence_enabled is False]
    return of_gpus(off, lambda _gpu: "persistence mode off", "on")


@_check(
    "ecc_off",
    WARNING,
    GPU_HOST,
    "Errors in the memory of a GPU that could correct them go unnoticed.",
    "`nvidia-smi -i {indices} -e 1` on {host}, then reboot it.",
)
def _ecc_off(host: Host) -> Faults:
    return found(host, ECC_OFF, lambda gpu: gpu.ecc_pending is not True)


@_check(
    "ecc_pending",
    WARNING,
    GPU_HOST,
    "A change of the ECC mode waits for a reboot.",
    "Reboot {host}.",
)
def _ecc_pending(host: Host) -> Faults:
    waiting = [gpu for gpu in live_gpus(host) if gpu.ecc_pending not in (None, gpu.ecc_enabled)]
    return of_gpus(
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
    return found(host, MIG_ENABLED)
