"""The only importer of pynvml: asks NVML for everything, field by field, and makes the records of _gpu of it."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .._errors import BindingMissingError
from .._units import GIB
from .gpu import Gpu, GpuHost, GpuProcess, MigDevice
from .rdma import read_ports

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

__all__ = ["pack_binding", "read_for", "read_host", "unpack_binding"]

# What Ansible's message about a missing package goes on with.
_WITHOUT_BINDING = (
    "to read GPUs. Install it on the controller, from where it is sent along "
    "(python3 -m pip install nvidia-ml-py), or on the host"
)
MODULE_VERSION = Path("/sys/module/nvidia/version")
# nvml.h: nvmlGpuP2PCapsIndex_t, nvmlGpuTopologyLevel_t, nvmlGpuFabricState_t. pynvml has them too, but its
# NVML_P2P_CAPS_INDEX_READ is a tuple by mistake, and the fabric states have no names to show.
P2P_NVLINK = 2
SAME_HOST_BRIDGE = 30
FABRIC_STATES = {1: "not_started", 2: "in_progress", 3: "completed"}
MEMORY_NODE_SCOPE = 0


class GpuLostError(Exception):
    """The GPU fell off the bus (NVML error 15), or cannot be opened at all."""


def pack_binding() -> str | None:
    """The pynvml of this Python as text to send along with a module; None when it has none."""
    spec = importlib.util.find_spec("pynvml")
    if spec is None or spec.origin is None or spec.submodule_search_locations:  # a package of that name is another one
        return None
    return base64.b64encode(zlib.compress(Path(spec.origin).read_bytes())).decode("ascii")


def unpack_binding(packed: str, directory: str) -> None:
    """Make a packed pynvml the one that ``import pynvml`` finds; it is one file of pure Python."""
    Path(directory, "pynvml.py").write_bytes(zlib.decompress(base64.b64decode(packed)))
    sys.path.insert(0, directory)


def read_for(module: AnsibleModule) -> GpuHost:
    """What a module with an option ``binding`` reads; it fails with the remedy where there is no pynvml."""
    from ansible.module_utils.basic import missing_required_lib  # here: the rest of this file does without Ansible

    if module.params["binding"]:
        unpack_binding(module.params["binding"], module.tmpdir)
    try:
        return read_host()
    except BindingMissingError:
        module.fail_json(msg=missing_required_lib("nvidia-ml-py", reason=_WITHOUT_BINDING))
        raise  # not reached: fail_json ends the module


def read_host() -> GpuHost:
    """The GPUs of this host. No driver is a state, not an error: the record then has no GPUs and the reason.

    :raises BindingMissingError: pynvml cannot be imported.
    """
    try:
        binding = importlib.import_module("pynvml")
    except ImportError as error:
        raise BindingMissingError(str(error)) from error
    return replace(_gpus_of(binding), rdma=read_ports())


def _gpus_of(binding: ModuleType) -> GpuHost:
    loaded = MODULE_VERSION.read_text().strip() if MODULE_VERSION.exists() else None
    try:
        binding.nvmlInit()
    except binding.NVMLError as error:
        return GpuHost(reason=_why_not(binding, error), module_version=loaded)
    try:
        return _Nvml(binding).host(loaded)
    finally:
        binding.nvmlShutdown()


def _why_not(binding: ModuleType, error: Exception) -> str:
    """Why NVML does not start, in words an operator can act on."""
    causes = {
        binding.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not there: no NVIDIA driver is installed",
        binding.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed, but its kernel module is not loaded",
        binding.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "the NVIDIA library and the loaded kernel module are of different versions: reboot the host"
        ),
    }
    value = getattr(error, "value", None)
    return f"{causes.get(value, error)} (NVML error {value})"


class _Nvml:
    """NVML, asked in one way: what is not supported is None, a GPU that is lost is an exception."""

    def __init__(self, binding: ModuleType) -> None:
        self._binding = binding

    def ask(self, function: str, *arguments: Any) -> Any:
        """The answer of one NVML function, or None."""
        try:
            return getattr(self._binding, function)(*arguments)
        except self._binding.NVMLError as error:
            if getattr(error, "value", None) == self._binding.NVML_ERROR_GPU_IS_LOST:
                raise GpuLostError from error
            return None
        except AttributeError:  # the host's own pynvml may be an old one
            return None

    def host(self, module_version: str | None) -> GpuHost:
        """All GPUs of the host and the links between them."""
        handles: dict[int, Any] = {}
        gpus = []
        for index in range(self.ask("nvmlDeviceGetCount") or 0):
            try:
                handle = self.handle(index)
                gpus.append(self.gpu(index, handle))
                handles[index] = handle
            except GpuLostError:
                gpus.append(Gpu(index=index, lost=True))
        cuda = self.ask("nvmlSystemGetCudaDriverVersion_v2")
        link, domains = self.domains(handles)
        return GpuHost(
            gpus=tuple(gpus),
            reason=None if gpus else "the driver finds no GPU",
            driver_version=self.ask("nvmlSystemGetDriverVersion"),
            module_version=module_version,
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            link=link,
            domains=domains,
        )

    def handle(self, index: int) -> Any:
        """What a GPU is asked by. One that has none (no power, no interrupt) is of no more use than a lost one."""
        handle = self.ask("nvmlDeviceGetHandleByIndex", index)
        if handle is None:
            raise GpuLostError
        return handle

    def gpu(self, index: int, handle: Any) -> Gpu:
        """Everything about one GPU."""
        ask = self.ask
        version_2 = getattr(self._binding, "nvmlMemory_v2", None)  # tells the driver's reserve apart from what is used
        memory = ask("nvmlDeviceGetMemoryInfo", handle, version_2) or ask("nvmlDeviceGetMemoryInfo", handle)
        capability = ask("nvmlDeviceGetCudaComputeCapability", handle)
        pci = ask("nvmlDeviceGetPciInfo", handle)
        power_mw = ask("nvmlDeviceGetEnforcedPowerLimit", handle)
        mig = ask("nvmlDeviceGetMigMode", handle) or (None, None)  # now, and after a reboot
        ecc = ask("nvmlDeviceGetEccMode", handle) or (None, None)
        return Gpu(
            index=index,
            uuid=ask("nvmlDeviceGetUUID", handle),
            pci_bus_id=_text(pci.busId) if pci else None,
            name=ask("nvmlDeviceGetName", handle),
            total_gib=_gib(getattr(memory, "total", None)),
            reserved_gib=_gib(getattr(memory, "reserved", None)),
            free_gib=_gib(getattr(memory, "free", None)),
            compute_capability="{}.{}".format(*capability) if capability else None,
            mig_enabled=_on(mig[0]),
            mig_devices=tuple(self.mig_devices(handle)),
            ecc_enabled=_on(ecc[0]),
            ecc_pending=_on(ecc[1]),
            persistence_enabled=_on(ask("nvmlDeviceGetPersistenceMode", handle)),
            power_limit_w=None if power_mw is None else power_mw / 1000,
            pcie_generation=ask("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            pcie_generation_max=ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
            pcie_width_max=ask("nvmlDeviceGetMaxPcieLinkWidth", handle),
            numa_node=self.numa_node(handle),
            fabric_state=self.fabric_state(handle),
            processes=tuple(
                GpuProcess(pid=process.pid, used_gib=_gib(process.usedGpuMemory))
                for process in ask("nvmlDeviceGetComputeRunningProcesses", handle) or ()
            ),
        )

    def mig_devices(self, handle: Any) -> Iterator[MigDevice]:
        """The slices of a GPU in MIG mode."""
        for number in range(self.ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            device = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
            if device:
                memory = self.ask("nvmlDeviceGetMemoryInfo", device)
                yield MigDevice(
                    uuid=self.ask("nvmlDeviceGetUUID", device),
                    name=self.ask("nvmlDeviceGetName", device),
                    total_gib=_gib(getattr(memory, "total", None)),
                )

    def numa_node(self, handle: Any) -> int | None:
        """The NUMA node nearest to the GPU."""
        affinity = self.ask("nvmlDeviceGetMemoryAffinity", handle, 1, MEMORY_NODE_SCOPE)
        nodes = affinity[0] if affinity else 0
        return (nodes & -nodes).bit_length() - 1 if nodes else None

    def fabric_state(self, handle: Any) -> str | None:
        """How far the GPU has come in joining the NVSwitch fabric; None where there is none."""
        info = self.ask("c_nvmlGpuFabricInfo_v3_t")
        answered = info and self.ask("nvmlDeviceGetGpuFabricInfoV", handle, byref(info)) is not None
        return FABRIC_STATES.get(info.state) if answered else None

    def domains(self, handles: dict[int, Any]) -> tuple[str | None, tuple[tuple[int, ...], ...]]:
        """What links the GPUs best, and the sets of them in which each is so linked with each."""

        def ask(function: str, one: int, other: int, *arguments: int) -> int | None:
            try:
                return self.ask(function, handles[one], handles[other], *arguments)
            except GpuLostError:  # since it was looked at
                return None

        def nvlink(one: int, other: int) -> bool:
            return ask("nvmlDeviceGetP2PStatus", one, other, P2P_NVLINK) == 0

        def pcie_root(one: int, other: int) -> bool:
            level = ask("nvmlDeviceGetTopologyCommonAncestor", one, other)
            return level is not None and level <= SAME_HOST_BRIDGE

        for link, linked in (("nvlink", nvlink), ("pcie", pcie_root)):
            domains = _cliques(sorted(handles), linked)
            if any(len(domain) > 1 for domain in domains):
                return link, domains
        return ("host", (tuple(sorted(handles)),)) if handles else (None, ())


def _cliques(indices: Sequence[int], linked: Callable[[int, int], bool]) -> tuple[tuple[int, ...], ...]:
    """Disjoint sets in which every pair is linked; each index joins the first set that takes it."""
    sets: list[list[int]] = []
    for index in indices:
        for members in sets:
            if all(linked(member, index) for member in members):
                members.append(index)
                break
        else:
            sets.append([index])
    return tuple(tuple(members) for members in sets)


def _gib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else round(size_bytes / GIB, 3)


def _on(mode: int | None) -> bool | None:
    return None if mode is None else bool(mode)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
