"""What makes a GPU unusable or doubtful: the one verdict that doctor, planner and maintenance share.

Private to the collection. The codes are those of the doctor's report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._releases.requirements import COMPUTE_CAPABILITY
from .gpu import Gpu, GpuProcess

__all__ = [
    "COMPUTE_CAPABILITY_LOW",
    "ECC_OFF",
    "FABRIC_INCOMPLETE",
    "GPU_LOST",
    "MIG_ENABLED",
    "ORPHAN_PROCESS",
    "Finding",
    "findings",
    "foreign_processes",
    "unusable",
]

GPU_LOST = "gpu_lost"
MIG_ENABLED = "mig_enabled"
COMPUTE_CAPABILITY_LOW = "compute_capability"
FABRIC_INCOMPLETE = "fabric_incomplete"
ECC_OFF = "ecc_off"
ORPHAN_PROCESS = "orphan_process"


@dataclass(frozen=True)
class Finding:
    """One thing that speaks against a GPU.

    ``state`` reads after "GPU 0: "; ``needed`` is what should be there instead, ``advice`` what to do or to know.
    ``usable``: an engine may be planned there all the same.
    """

    code: str
    state: str
    needed: str
    advice: str
    usable: bool


def findings(gpu: Gpu, is_ours: Callable[[GpuProcess], bool] = lambda _process: True) -> tuple[Finding, ...]:
    """What speaks against a GPU, that which makes it unusable first; nothing: it is healthy.

    ``is_ours`` tells whether a process on it belongs to an instance of the fleet; by default every one does.
    """
    return tuple(_findings(gpu, is_ours))


def _findings(gpu: Gpu, is_ours: Callable[[GpuProcess], bool]) -> Iterator[Finding]:
    if gpu.lost:
        advice = "reboot the host or replace the GPU"
        yield Finding(GPU_LOST, "lost (fell off the bus)", "a GPU that answers", advice, usable=False)
        return  # nothing else is known of it
    if gpu.mig_enabled:
        state = f"MIG on, {len(gpu.mig_devices)} slices"
        yield Finding(MIG_ENABLED, state, "off", "turn MIG mode off to use it as a whole", usable=False)
    if gpu.compute_capability and tuple(map(int, gpu.compute_capability.split("."))) < COMPUTE_CAPABILITY:
        oldest = "{}.{}".format(*COMPUTE_CAPABILITY)
        state = f"{gpu.name or 'it'} has compute capability {gpu.compute_capability}"
        advice = f"vLLM is built for {oldest} and newer"
        yield Finding(COMPUTE_CAPABILITY_LOW, state, oldest, advice, usable=False)
    if gpu.fabric_state not in (None, "completed"):
        state, advice = f"fabric {gpu.fabric_state}", "CUDA does not start there until nvidia-fabricmanager is done"
        yield Finding(FABRIC_INCOMPLETE, state, "fabric completed", advice, usable=True)
    if gpu.ecc_enabled is False:
        advice = "a flipped bit in a weight goes unnoticed (nvidia-smi -e 1)"
        yield Finding(ECC_OFF, "ECC off", "on", advice, usable=True)
    foreign = foreign_processes(gpu, is_ours)
    if foreign:
        pids = ", ".join(str(process.pid) for process in foreign)
        state = f"held by a process that is no instance of this fleet (pid {pids})"
        advice = "end it, or its memory is missing to the engine that is planned there"
        yield Finding(ORPHAN_PROCESS, state, "instances of this fleet alone", advice, usable=True)


def unusable(gpu: Gpu) -> Finding | None:
    """Why no engine can run on a GPU; None: one can."""
    return next((finding for finding in findings(gpu) if not finding.usable), None)


def foreign_processes(gpu: Gpu, is_ours: Callable[[GpuProcess], bool]) -> tuple[GpuProcess, ...]:
    """The processes on a GPU that belong to no instance of the fleet."""
    return tuple(process for process in gpu.processes if not is_ours(process))
