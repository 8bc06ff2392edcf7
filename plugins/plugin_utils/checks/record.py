"""What a check of the doctor is, what it looks at, and what the checks share; private to the collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from re import fullmatch
from typing import NamedTuple

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu, GpuHost
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.health import findings
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Machine, Wanted

FAILURE, WARNING = "failure", "warning"
# What a check is about. When one of the contact is at fault, nothing else can be known.
CONTACT, HOST, GPU_HOST = "contact", "every host", "GPU hosts"


@dataclass(frozen=True)
class Host:
    """What is known of one host."""

    name: str
    unreachable: str | None = None  # why
    unreadable: str | None = None  # why
    wanted: Wanted = field(default_factory=Wanted)
    machine: Machine = field(default_factory=Machine)
    gpu: GpuHost = field(default_factory=GpuHost)  # of a GPU host, as the next one
    driver: Driver = field(default_factory=lambda: Driver(kernel=""))
    asked_epoch: tuple[float, float] | None = None  # the controller's clock before and after the host told its own


class Fault(NamedTuple):
    """One thing that is wrong; ``values`` go into the fix."""

    observed: str
    needed: str
    values: Mapping[str, object] = {}


Faults = Sequence[Fault] | None  # None: cannot be told
Judge = Callable[[Host], Faults]


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    code: str  # stable: other programs read it
    severity: str  # a warning is advice: it does not make the verdict a bad one
    scope: str
    meaning: str
    fix: str  # one line, with {values} of the fault
    judge: Judge

    def entry(self, host: Host, fault: Fault) -> dict[str, str]:
        """The fault as it stands in the report."""
        fix = self.fix.format(host=host.name, **fault.values)
        return {"code": self.code, "host": host.name, "observed": fault.observed, "needed": fault.needed, "fix": fix}


def into(checks: list[Check]) -> Callable[[str, str, str, str, str], Callable[[Judge], Judge]]:
    """A decorator that makes a check of a judge and adds it to the list."""

    def check(code: str, severity: str, scope: str, meaning: str, fix: str) -> Callable[[Judge], Judge]:
        def add(judge: Judge) -> Judge:
            checks.append(Check(code, severity, scope, meaning, fix, judge))
            return judge

        return add

    return check


def live_gpus(host: Host) -> tuple[Gpu, ...]:
    """The GPUs that answer."""
    return tuple(gpu for gpu in host.gpu.gpus if not gpu.lost)


def label(gpu: Gpu) -> str:
    """A GPU as faults name it."""
    return f"GPU {gpu.index}" + (f" ({gpu.pci_bus_id})" if gpu.pci_bus_id else "")


def of_gpus(gpus: Sequence[Gpu], state: Callable[[Gpu], str], needed: str) -> Sequence[Fault]:
    """One fault for all GPUs that have it."""
    observed = "; ".join(f"{label(gpu)}: {state(gpu)}" for gpu in gpus)
    return [Fault(observed, needed, {"indices": ",".join(str(gpu.index) for gpu in gpus)})] if gpus else ()


def found(host: Host, code: str, counts: Callable[[Gpu], bool] = lambda _gpu: True) -> Sequence[Fault]:
    """One fault for all GPUs of which the verdict holds this finding."""
    known = {gpu: {finding.code: finding for finding in findings(gpu)} for gpu in host.gpu.gpus if counts(gpu)}
    having = [gpu for gpu, codes in known.items() if code in codes]
    return of_gpus(having, lambda gpu: known[gpu][code].state, known[having[0]][code].needed) if having else ()


def numbers_of(version: str | None) -> tuple[int, ...] | None:
    """The leading numbers of a version: (580, 95, 5); None when it does not begin with one."""
    found = fullmatch(r"(\d+(?:\.\d+)*).*", version or "")
    return tuple(map(int, found.group(1).split("."))) if found else None


def version_fault(version: str | None, floor: tuple[int, int]) -> Faults:
    """The fault of a version that is older than the oldest that will do."""
    numbers = numbers_of(version)
    if numbers is None:
        return None
    return [] if numbers >= floor else [too_old(str(version), floor)]


def too_old(observed: str, floor: tuple[int, int]) -> Fault:
    """A fault that a newer version mends; the fix may name it as ``floor``."""
    oldest = "{}.{}".format(*floor)
    return Fault(observed, f"{oldest} or newer", {"floor": oldest})


def answers(host: Host) -> bool:
    """Whether NVML works, and so module and library fit."""
    return host.gpu.driver_version is not None
