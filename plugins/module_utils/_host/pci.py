"""NVIDIA's devices on the PCI bus: known by their numbers, before any driver is there to ask."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PciDevice", "generation", "kernel_name", "read_nvidia_devices"]

_NVIDIA = 0x10DE
_DISPLAY, _BRIDGE_OTHER = 0x03, 0x0680  # PCI base class of GPUs; class of NVSwitches

# First device number of each generation; a row reaches to the next. NVIDIA hands numbers out in blocks of chips: the
# PCI ID Repository (pci-ids.ucw.cz, vendor 10de) and the device list in the README of open-gpu-kernel-modules.
_GENERATIONS: tuple[tuple[int, str | None], ...] = (
    (0x0000, None),  # older than any driver of today
    (0x1340, "maxwell"),  # GM1xx, GM2xx
    (0x15F0, "pascal"),  # GP100
    (0x1600, "maxwell"),  # GM204 of notebooks
    (0x1725, "pascal"),  # GP100
    (0x1740, "maxwell"),
    (0x1AD0, None),  # no GPUs here
    (0x1B00, "pascal"),  # GP102 to GP108
    (0x1D80, "volta"),  # GV100
    (0x1E00, "turing"),  # TU102 to TU117
    (0x2080, "ampere"),  # GA100
    (0x2180, "turing"),  # TU116
    (0x2200, "ampere"),  # GA102
    (0x2300, "hopper"),  # GH100
    (0x2400, "ampere"),  # GA103 to GA107
    (0x2680, "ada"),  # AD102 to AD107
    (0x2900, "blackwell"),  # GB1xx, GB2xx, GB3xx
)
_STARTS = [start for start, _ in _GENERATIONS]
_NEWER = 0x3300  # numbers from here on were not given out when the table was made


@dataclass(frozen=True)
class PciDevice:
    """A GPU or an NVSwitch."""

    bus_id: str  # 0000:1b:00.0
    device_id: str  # 0x2330
    is_switch: bool = False
    generation: str | None = None  # of a GPU: maxwell ... blackwell; None: older or newer than the table


def generation(device_id: int) -> str | None:
    """The architecture of a GPU by its PCI device number; None for numbers outside the table."""
    if device_id >= _NEWER:
        return None
    return _GENERATIONS[bisect_right(_STARTS, device_id) - 1][1]


def kernel_name(bus_id: str) -> str:
    """The kernel's name of a device that NVML calls ``00000000:1B:00.0``."""
    domain, _, rest = bus_id.partition(":")
    return f"{int(domain, 16):04x}:{rest.lower()}"


def read_nvidia_devices(root: Path) -> Sequence[PciDevice]:
    """Every NVIDIA GPU and NVSwitch below root/sys, in the order of the bus."""
    devices = []
    for path in sorted(root.glob("sys/bus/pci/devices/*")):
        numbers = [_number(path / name) for name in ("vendor", "device", "class")]
        vendor, device, device_class = numbers
        if vendor != _NVIDIA or device is None or device_class is None:
            continue
        if device_class >> 16 == _DISPLAY:
            devices.append(PciDevice(path.name, f"{device:#06x}", generation=generation(device)))
        elif device_class >> 8 == _BRIDGE_OTHER:
            devices.append(PciDevice(path.name, f"{device:#06x}", is_switch=True))
    return devices


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(), 16)
    except (OSError, ValueError):
        return None  # a device that was just removed
