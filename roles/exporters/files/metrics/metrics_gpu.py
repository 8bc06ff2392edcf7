"""What the GPUs of a host tell: DCGM's names from NVML, and what no exporter has.

Names, units and labels are those of dcgm-exporter, so that rules and dashboards read either:
https://docs.nvidia.com/datacenter/dcgm/latest/reference/dcgm-exporter-metrics.html.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metrics_nvml import Gpu, Nvml, NvmlError
from metrics_text import Metrics

__all__ = ["DCGM", "GpuPart", "fabric_manager_version", "is_orphan", "library_version", "nvidia_gpus"]

_MIB = 2**20
# Where distributions put NVIDIA's library.
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")
_VERSION = re.compile(r"\d{3}\.\d+(?:\.\d+)?")
_SM, _MEMORY = 1, 2  # nvmlClockType_t
_CORRECTED, _UNCORRECTED = 0, 1  # nvmlMemoryErrorType_t
_VOLATILE, _AGGREGATE = 0, 1  # nvmlEccCounterType_t
_REPLAY, _RECOVERY, _CRC_FLIT, _CRC_DATA = 0, 1, 2, 3  # nvmlNvLinkErrorCounter_t
_LINKS = 18  # of one GPU

# Name, type, what it is: as in counters.csv, which has dcgm-exporter tell the same.
DCGM: dict[str, tuple[str, str]] = {
    "DCGM_FI_DEV_SM_CLOCK": ("gauge", "SM clock frequency (in MHz)."),
    "DCGM_FI_DEV_MEM_CLOCK": ("gauge", "Memory clock frequency (in MHz)."),
    "DCGM_FI_DEV_GPU_TEMP": ("gauge", "GPU temperature (in C)."),
    "DCGM_FI_DEV_POWER_USAGE": ("gauge", "Power draw (in W)."),
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": ("gauge", "Power limit that is enforced (in W)."),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("counter", "Total energy consumption since boot (in mJ)."),
    "DCGM_FI_DEV_GPU_UTIL": ("gauge", "GPU utilization (in %)."),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("gauge", "Memory utilization (in %)."),
    "DCGM_FI_DEV_FB_FREE": ("gauge", "Framebuffer memory free (in MiB)."),
    "DCGM_FI_DEV_FB_USED": ("gauge", "Framebuffer memory used (in MiB)."),
    "DCGM_FI_DEV_FB_RESERVED": ("gauge", "Framebuffer memory reserved (in MiB)."),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": ("gauge", "Reasons for which clocks are held down (bits)."),
    "DCGM_FI_DEV_XID_ERRORS": ("gauge", "Value of the last XID error encountered."),
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": ("counter", "Total number of single-bit volatile ECC errors."),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": ("counter", "Total number of double-bit volatile ECC errors."),
    "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL": ("counter", "Total number of single-bit persistent ECC errors."),
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL": ("counter", "Total number of double-bit persistent ECC errors."),
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": ("counter", "Number of remapped rows for correctable errors"),
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": ("counter", "Number of remapped rows for uncorrectable errors"),
    "DCGM_FI_DEV_ROW_REMAP_PENDING": ("gauge", "Whether remapping of rows waits for a reset"),
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": ("gauge", "Whether remapping of rows has failed"),
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": ("counter", "Total number of NVLink flow-control CRC errors."),
    "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": ("counter", "Total number of NVLink data CRC errors."),
    "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": ("counter", "Total number of NVLink retries."),
    "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": ("counter", "Total number of NVLink recovery errors."),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": ("counter", "Total number of PCIe retries."),
    "DCGM_FI_DEV_PCIE_LINK_GEN": ("gauge", "PCIe generation now."),
    "DCGM_FI_DEV_PCIE_MAX_LINK_GEN": ("gauge", "PCIe generation at best."),
    "DCGM_FI_DEV_PCIE_LINK_WIDTH": ("gauge", "PCIe lanes now."),
    "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH": ("gauge", "PCIe lanes at best."),
}


class GpuPart:
    """Asks NVML, which stays open between two runs: a driver without users would be initialised at every one."""

    def __init__(self, root: Path, *, dcgm_names: bool) -> None:
        """``dcgm_names``: whether nobody else gives these metrics."""
        self._root, self._dcgm_names = root, dcgm_names
        self._nvml: Nvml | None = None
        self._opened_with: tuple[str, str] | None = None
        self._last_xid: dict[int, int] = {}

    def run(self, metrics: Metrics) -> None:
        """Tell everything; on a host that never had a GPU, nothing."""
        expected = max(nvidia_gpus(self._root), len(_remembered(self._root)))
        if not expected:
            return
        loaded, library = _text(self._root / "sys/module/nvidia/version"), library_version(self._root)
        _versions(metrics, self._root, loaded, library)
        gpus = list(self._open(loaded, library))
        found = 0
        for gpu in gpus:
            try:
                labels = _labels(gpu, loaded)
                _orphans(metrics, self._root, gpu, labels)
                if self._dcgm_names:
                    for name, value in _readings(gpu, self._last_xid):
                        metrics.family(name, *DCGM[name])
                        metrics.add(name, value, labels)
                found += 1
            except NvmlError:
                continue  # lost since it was counted
        metrics.gauge("gpuhosts_gpus_expected", "GPUs on the PCI bus, or remembered from an earlier run.", expected)
        metrics.gauge("gpuhosts_gpus_found", "GPUs that the driver answers for.", found)

    def _open(self, loaded: str, library: str) -> Iterator[Gpu]:
        """The GPUs; none where NVML does not start, which is a state to tell and no failure of this part."""
        if self._nvml and self._opened_with != (loaded, library):
            self._nvml.close()  # the driver was exchanged
            self._nvml = None
        if self._nvml is None:
            try:
                self._nvml, self._opened_with, self._last_xid = Nvml(), (loaded, library), {}
            except NvmlError:
                return
        if self._dcgm_names:
            for handle, xid in self._nvml.xids():
                self._last_xid[handle] = xid
        yield from self._nvml.gpus()


def _readings(gpu: Gpu, last_xid: dict[int, int]) -> Iterator[tuple[str, float | None]]:
    """All values of one GPU under DCGM's names; None for what it does not tell."""
    power, limit = gpu.number("nvmlDeviceGetPowerUsage"), gpu.number("nvmlDeviceGetEnforcedPowerLimit")
    utilization, memory, rows = gpu.utilization(), gpu.memory(), gpu.remapped_rows()
    reasons = gpu.large("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # the name before driver 535
        reasons = gpu.large("nvmlDeviceGetCurrentClocksThrottleReasons")
    yield "DCGM_FI_DEV_SM_CLOCK", gpu.number("nvmlDeviceGetClockInfo", _SM)
    yield "DCGM_FI_DEV_MEM_CLOCK", gpu.number("nvmlDeviceGetClockInfo", _MEMORY)
    yield "DCGM_FI_DEV_GPU_TEMP", gpu.number("nvmlDeviceGetTemperature", 0)
    yield "DCGM_FI_DEV_POWER_USAGE", None if power is None else power / 1000
    yield "DCGM_FI_DEV_ENFORCED_POWER_LIMIT", None if limit is None else limit / 1000
    yield "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", gpu.large("nvmlDeviceGetTotalEnergyConsumption")
    yield "DCGM_FI_DEV_GPU_UTIL", utilization.gpu if utilization else None
    yield "DCGM_FI_DEV_MEM_COPY_UTIL", utilization.memory if utilization else None
    for name in ("free", "used", "reserved"):
        yield f"DCGM_FI_DEV_FB_{name.upper()}", getattr(memory, name) // _MIB if memory else None
    yield "DCGM_FI_DEV_CLOCKS_EVENT_REASONS", reasons
    yield "DCGM_FI_DEV_XID_ERRORS", last_xid.get(gpu.handle.value or 0, 0)
    for bits, kind in (("SBE", _CORRECTED), ("DBE", _UNCORRECTED)):
        for since, counter in (("VOL", _VOLATILE), ("AGG", _AGGREGATE)):
            yield f"DCGM_FI_DEV_ECC_{bits}_{since}_TOTAL", gpu.large("nvmlDeviceGetTotalEccErrors", kind, counter)
    names = ("CORRECTABLE_REMAPPED_ROWS", "UNCORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_PENDING", "ROW_REMAP_FAILURE")
    for name, value in zip(names, rows or (None,) * len(names)):
        yield f"DCGM_FI_DEV_{name}", value
    errors = (("CRC_FLIT", _CRC_FLIT), ("CRC_DATA", _CRC_DATA), ("REPLAY", _REPLAY), ("RECOVERY", _RECOVERY))
    for name, counter in errors:
        counts = [gpu.large("nvmlDeviceGetNvLinkErrorCounter", link, counter) for link in range(_LINKS)]
        known = [count for count in counts if count is not None]
        yield f"DCGM_FI_DEV_NVLINK_{name}_ERROR_COUNT_TOTAL", sum(known) if known else None
    yield "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", gpu.number("nvmlDeviceGetPcieReplayCounter")
    yield "DCGM_FI_DEV_PCIE_LINK_GEN", gpu.number("nvmlDeviceGetCurrPcieLinkGeneration")
    yield "DCGM_FI_DEV_PCIE_MAX_LINK_GEN", gpu.number("nvmlDeviceGetMaxPcieLinkGeneration")
    yield "DCGM_FI_DEV_PCIE_LINK_WIDTH", gpu.number("nvmlDeviceGetCurrPcieLinkWidth")
    yield "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH", gpu.number("nvmlDeviceGetMaxPcieLinkWidth")


def _labels(gpu: Gpu, driver: str) -> dict[str, object]:
    """Those of dcgm-exporter, in its order; it called the last but one Hostname before 4.8.3."""
    return {
        "gpu": gpu.index,
        "UUID": gpu.text("nvmlDeviceGetUUID") or "",
        "pci_bus_id": gpu.bus_id() or "",
        "device": f"nvidia{gpu.index}",
        "modelName": gpu.text("nvmlDeviceGetName") or "",
        "hostname": socket.gethostname(),
        "DCGM_FI_DRIVER_VERSION": driver,
    }


def _orphans(metrics: Metrics, root: Path, gpu: Gpu, labels: dict[str, object]) -> None:
    held = sum(size for pid, size in gpu.processes() if is_orphan(_text(root / f"proc/{pid}/cgroup")))
    about = "Memory that processes hold which belong to no unit vllm@ and to no container."
    metrics.gauge("gpuhosts_gpu_orphan_bytes", about, held, {key: labels[key] for key in ("gpu", "UUID")})


def is_orphan(cgroup: str) -> bool:
    """Whether a process with this ``/proc/PID/cgroup`` is no engine's; one that is gone holds nothing any more.

    What runs in a container is told apart from an engine's by Docker alone, which only root may ask, so no container
    counts.
    """
    in_container = re.search(r"[0-9a-f]{64}", cgroup)
    return bool(cgroup) and not in_container and not re.search(r"/vllm@[^/]+\.service(?:/|$)", cgroup, re.MULTILINE)


def _versions(metrics: Metrics, root: Path, loaded: str, library: str) -> None:
    """Whether kernel module, library and Fabric Manager are of one version."""
    if loaded and library:
        about = "Whether the kernel module in memory and the library are of different versions."
        labels = {"loaded": loaded, "library": library}
        metrics.gauge("gpuhosts_driver_mismatch", about, loaded != library, labels)
    manager = fabric_manager_version(root)
    if manager and loaded:
        about = "Whether Fabric Manager and the driver are of different versions."
        labels = {"driver": loaded, "fabric_manager": manager}
        metrics.gauge("gpuhosts_fabric_manager_mismatch", about, loaded != manager, labels)


def library_version(root: Path) -> str:
    """The version in the file name that libnvidia-ml.so.1 leads to."""
    for directory in _LIBRARIES:
        link = root / directory / "libnvidia-ml.so.1"
        match = _VERSION.search(os.path.realpath(link)) if link.exists() else None
        if match:
            return match[0]
    return ""


def fabric_manager_version(root: Path) -> str:
    """What Fabric Manager's program says of itself; nothing where there is none."""
    program = root / "usr/bin/nv-fabricmanager"
    if not program.exists():
        return ""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = _VERSION.search(said)
    return match[0] if match else ""


def nvidia_gpus(root: Path) -> int:
    """NVIDIA's GPUs on the PCI bus, with a driver or without."""
    devices = root.glob("sys/bus/pci/devices/*")
    return sum(_text(one / "vendor") == "0x10de" and _text(one / "class").startswith("0x03") for one in devices)


def _remembered(root: Path) -> Sequence[Any]:
    """The GPUs that the role maintenance has seen: one that falls off the bus is missed."""
    try:
        known = json.loads(_text(root / "etc/ansible/facts.d/gpuhosts_gpus.fact") or "{}")
        return list(known.get("gpus", ()))
    except (ValueError, AttributeError, TypeError):
        return ()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
