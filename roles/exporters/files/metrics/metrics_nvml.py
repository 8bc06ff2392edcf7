"""NVML by ctypes, as far as the metrics need it: no package has to be on the host.

Structures and numbers are those of NVIDIA's nvml.h (https://docs.nvidia.com/deploy/nvml-api/). A card, a driver or a
library that does not know something answers None.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import Structure, byref, c_char, c_uint, c_ulonglong, c_void_p
from typing import Any

__all__ = ["Gpu", "Nvml", "NvmlError"]

_NOT_AVAILABLE = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE of the memory of a process
_INSUFFICIENT_SIZE, _GPU_IS_LOST, _LIBRARY_NOT_FOUND = 7, 15, 12
_MEMORY_V2 = 0x02000028
_XID_CRITICAL_ERROR = 8  # nvmlEventTypeXidCriticalError
_ROOM = 64  # processes of a GPU


class NvmlError(Exception):
    """NVML does not start, or has lost the GPU; ``code`` is its number."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NVML error {code}")
        self.code = code


class MemoryV2(Structure):
    """nvmlMemory_v2_t, in bytes."""

    _fields_ = [
        ("version", c_uint),
        ("total", c_ulonglong),
        ("reserved", c_ulonglong),
        ("free", c_ulonglong),
        ("used", c_ulonglong),
    ]


class Utilization(Structure):
    """nvmlUtilization_t, in percent."""

    _fields_ = [("gpu", c_uint), ("memory", c_uint)]


class PciInfo(Structure):
    """nvmlPciInfo_t."""

    _fields_ = [
        ("bus_id_legacy", c_char * 16),
        ("domain", c_uint),
        ("bus", c_uint),
        ("device", c_uint),
        ("device_id", c_uint),
        ("subsystem_id", c_uint),
        ("bus_id", c_char * 32),
    ]


class ProcessInfo(Structure):
    """nvmlProcessInfo_t, version 3; memory in bytes."""

    _fields_ = [("pid", c_uint), ("memory", c_ulonglong), ("gpu_instance", c_uint), ("compute_instance", c_uint)]


class EventData(Structure):
    """nvmlEventData_t."""

    _fields_ = [
        ("device", c_void_p),
        ("kind", c_ulonglong),
        ("data", c_ulonglong),
        ("gpu_instance", c_uint),
        ("compute_instance", c_uint),
    ]


class Nvml:
    """The library, initialised; ``close`` gives it back."""

    def __init__(self) -> None:
        """:raises NvmlError: It does not start."""
        try:
            self._library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            raise NvmlError(_LIBRARY_NOT_FOUND) from error
        code = int(self._library.nvmlInit_v2())
        if code:
            raise NvmlError(code)
        self._events: c_void_p | None = None

    def close(self) -> None:
        """Shut NVML down."""
        self.call("nvmlShutdown")

    def call(self, function: str, *arguments: Any) -> int:
        """The code that a function returns; 13, function not found, where the library does not have it."""
        try:
            call = getattr(self._library, function)
        except AttributeError:
            return 13
        return int(call(*arguments))

    def ask(self, function: str, kind: Any, *arguments: Any) -> Any:
        """What a function writes to its last argument, which is of this kind; None where it has no answer.

        :raises NvmlError: The GPU is lost.
        """
        answer = kind()
        code = self.call(function, *arguments, byref(answer))
        if code == _GPU_IS_LOST:
            raise NvmlError(code)
        return None if code else getattr(answer, "value", answer)

    def text(self, function: str, *arguments: Any) -> str | None:
        """The text that a function writes to a buffer; see `ask`."""
        buffer = ctypes.create_string_buffer(96)
        code = self.call(function, *arguments, buffer, c_uint(96))
        if code == _GPU_IS_LOST:
            raise NvmlError(code)
        return None if code else buffer.value.decode(errors="replace")

    def gpus(self) -> Iterator[Gpu]:
        """All GPUs that can be asked; one that is lost is left out."""
        for index in range(self.ask("nvmlDeviceGetCount_v2", c_uint) or 0):
            try:
                handle = self.ask("nvmlDeviceGetHandleByIndex_v2", c_void_p, c_uint(index))
                if handle is not None:
                    yield Gpu(self, index, c_void_p(handle))
            except NvmlError:
                continue

    def xids(self) -> Iterator[tuple[int, int]]:
        """Handles and numbers of the XID errors since the last call; the first call begins to collect them."""
        if self._events is None:
            events = self.ask("nvmlEventSetCreate", c_void_p)
            if events is None:
                return
            self._events = c_void_p(events)
            for gpu in self.gpus():
                kinds = c_ulonglong(_XID_CRITICAL_ERROR)
                self.call("nvmlDeviceRegisterEvents", gpu.handle, kinds, self._events)
        while True:
            event = EventData()
            if self.call("nvmlEventSetWait_v2", self._events, byref(event), c_uint(0)):
                return  # none is left: a time-out
            yield int(event.device or 0), int(event.data)


class Gpu:
    """One GPU, asked field by field. Methods raise NvmlError when it is lost."""

    def __init__(self, nvml: Nvml, index: int, handle: c_void_p) -> None:
        """``index`` is NVML's, in the order of the PCI bus."""
        self.index, self.handle, self._nvml = index, handle, nvml

    def number(self, function: str, *arguments: int) -> int | None:
        """An unsigned integer."""
        return self._nvml.ask(function, c_uint, self.handle, *map(c_uint, arguments))

    def large(self, function: str, *arguments: int) -> int | None:
        """An unsigned integer of 64 bits."""
        return self._nvml.ask(function, c_ulonglong, self.handle, *map(c_uint, arguments))

    def text(self, function: str) -> str | None:
        """A text."""
        return self._nvml.text(function, self.handle)

    def utilization(self) -> Utilization | None:
        """How busy it is."""
        return self._nvml.ask("nvmlDeviceGetUtilizationRates", Utilization, self.handle)

    def bus_id(self) -> str | None:
        """``00000000:1B:00.0``."""
        pci = self._nvml.ask("nvmlDeviceGetPciInfo_v3", PciInfo, self.handle)
        return pci.bus_id.decode() if pci else None

    def memory(self) -> MemoryV2 | None:
        """Its memory."""
        return self._nvml.ask("nvmlDeviceGetMemoryInfo_v2", lambda: MemoryV2(version=_MEMORY_V2), self.handle)

    def remapped_rows(self) -> tuple[int, int, int, int] | None:
        """Rows remapped for correctable and for uncorrectable errors; whether some wait; whether it has failed."""
        values = [c_uint() for _ in range(4)]
        if self._nvml.call("nvmlDeviceGetRemappedRows", self.handle, *map(byref, values)):
            return None
        correctable, uncorrectable, pending, failed = (one.value for one in values)
        return correctable, uncorrectable, pending, failed

    def processes(self) -> list[tuple[int, int]]:
        """Process IDs with a compute context, and the bytes of each."""
        count, infos = c_uint(_ROOM), (ProcessInfo * _ROOM)()
        code = self._nvml.call("nvmlDeviceGetComputeRunningProcesses_v3", self.handle, byref(count), infos)
        if code == _GPU_IS_LOST:
            raise NvmlError(code)
        found = [] if code and code != _INSUFFICIENT_SIZE else infos[: min(count.value, _ROOM)]
        return [(one.pid, 0 if one.memory == _NOT_AVAILABLE else one.memory) for one in found]
