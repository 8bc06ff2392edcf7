"""Records of the GPUs of one host. Sizes are GiB (2**30 bytes); what a card or a driver does not tell is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .rdma import RdmaPort

__all__ = ["Gpu", "GpuHost", "GpuProcess", "MigDevice"]


@dataclass(frozen=True)
class GpuProcess:
    """A process with a compute context on a GPU."""

    pid: int
    used_gib: float | None = None


@dataclass(frozen=True)
class MigDevice:
    """A slice of a GPU in MIG mode."""

    uuid: str | None = None
    name: str | None = None
    total_gib: float | None = None


@dataclass(frozen=True)
class Gpu:
    """One GPU, by its NVML index (PCI bus order)."""

    index: int
    lost: bool = False  # fell off the bus or cannot be opened; nothing else is known of it then
    uuid: str | None = None
    pci_bus_id: str | None = None
    name: str | None = None
    total_gib: float | None = None  # the driver's reserve included
    reserved_gib: float | None = None  # never given to applications
    free_gib: float | None = None
    compute_capability: str | None = None  # "9.0"
    mig_enabled: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    ecc_enabled: bool | None = None
    ecc_pending: bool | None = None  # after a reboot
    persistence_enabled: bool | None = None
    power_limit_w: float | None = None
    pcie_generation: int | None = None  # drops while the card idles
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    numa_node: int | None = None
    fabric_state: str | None = None  # of NVSwitch systems: not_started, in_progress, completed
    processes: tuple[GpuProcess, ...] = ()

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Gpu:
        """The record of a fact; unknown keys of later versions are left out."""
        known = {field.name: facts[field.name] for field in fields(cls) if field.name in facts}
        known["processes"] = tuple(GpuProcess(**process) for process in facts.get("processes", ()))
        known["mig_devices"] = tuple(MigDevice(**device) for device in facts.get("mig_devices", ()))
        return cls(**known)


@dataclass(frozen=True)
class GpuHost:
    """The GPUs of a host and how they reach each other."""

    gpus: tuple[Gpu, ...] = ()
    reason: str | None = None  # why there are no GPUs, or why what is told of them is doubtful
    driver_version: str | None = None  # of the library
    module_version: str | None = None  # of the kernel module that is loaded
    cuda_version: str | None = None  # newest that the driver runs, "13.0"
    link: str | None = None  # what holds a domain together: nvlink, pcie (one root), host
    domains: tuple[tuple[int, ...], ...] = ()  # disjoint sets of GPU indices, all GPUs but lost ones
    rdma: tuple[RdmaPort, ...] = ()  # what NCCL can reach other hosts by, besides TCP

    def to_dict(self) -> dict[str, Any]:
        """The record as a fact."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> GpuHost:
        """The record of a fact; unknown keys of later versions are left out."""
        known = {field.name: facts[field.name] for field in fields(cls) if field.name in facts}
        known["gpus"] = tuple(Gpu.from_dict(gpu) for gpu in facts.get("gpus", ()))
        known["domains"] = tuple(tuple(domain) for domain in facts.get("domains", ()))
        known["rdma"] = tuple(RdmaPort(**port) for port in facts.get("rdma", ()))
        return cls(**known)
