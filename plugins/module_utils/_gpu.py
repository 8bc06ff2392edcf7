"""Records of the GPUs of one host. Sizes are GiB (2**30 bytes); what a card or a driver does not tell is None."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Mapping, Optional, Tuple

__all__ = ["Gpu", "GpuHost", "GpuProcess", "MigDevice"]


@dataclass(frozen=True)
class GpuProcess:
    """A process with a compute context on a GPU."""

    pid: int
    used_gib: Optional[float] = None


@dataclass(frozen=True)
class MigDevice:
    """A slice of a GPU in MIG mode."""

    uuid: Optional[str] = None
    name: Optional[str] = None
    total_gib: Optional[float] = None


@dataclass(frozen=True)
class Gpu:
    """One GPU, by its NVML index (PCI bus order)."""

    index: int
    lost: bool = False  # fell off the bus; nothing else is known of it then
    uuid: Optional[str] = None
    pci_bus_id: Optional[str] = None
    name: Optional[str] = None
    total_gib: Optional[float] = None  # the driver's reserve included
    reserved_gib: Optional[float] = None  # never given to applications
    free_gib: Optional[float] = None
    compute_capability: Optional[str] = None  # "9.0"
    mig_enabled: Optional[bool] = None
    mig_devices: Tuple[MigDevice, ...] = ()
    ecc_enabled: Optional[bool] = None
    persistence_enabled: Optional[bool] = None
    power_limit_w: Optional[float] = None
    pcie_generation: Optional[int] = None  # drops while the card idles
    pcie_generation_max: Optional[int] = None
    pcie_width: Optional[int] = None
    pcie_width_max: Optional[int] = None
    numa_node: Optional[int] = None
    fabric_state: Optional[str] = None  # of NVSwitch systems: not_started, in_progress, completed
    processes: Tuple[GpuProcess, ...] = ()

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

    gpus: Tuple[Gpu, ...] = ()
    reason: Optional[str] = None  # why there are no GPUs, or why what is told of them is doubtful
    driver_version: Optional[str] = None  # of the library
    module_version: Optional[str] = None  # of the kernel module that is loaded
    cuda_version: Optional[str] = None  # newest that the driver runs, "13.0"
    link: Optional[str] = None  # what holds a domain together: nvlink, pcie (one root), host
    domains: Tuple[Tuple[int, ...], ...] = ()  # disjoint sets of GPU indices, all GPUs but lost ones

    def to_dict(self) -> dict[str, Any]:
        """The record as a fact."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> GpuHost:
        """The record of a fact; unknown keys of later versions are left out."""
        known = {field.name: facts[field.name] for field in fields(cls) if field.name in facts}
        known["gpus"] = tuple(Gpu.from_dict(gpu) for gpu in facts.get("gpus", ()))
        known["domains"] = tuple(tuple(domain) for domain in facts.get("domains", ()))
        return cls(**known)
