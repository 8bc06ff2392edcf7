"""Turns wishes and hosts into the fleet plan; pure, private to the collection.

Three steps, each a function of its own: :func:`choose_shape` decides how one instance of a model is spread over GPUs,
``_placement`` decides which GPUs of which host it gets, and :func:`plan_fleet` writes the result down in the schema of
docs/plan-schema.md. The plan holds nothing that changes by itself, such as free memory: a second run gives the same.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count, groupby
from typing import Any

from ._errors import PlacementError
from ._gpu import Gpu, GpuHost
from ._placement import Demand, NoRoomError, Place, Slot, place_all
from ._wishes import Parallelism, Wish

__all__ = ["Host", "Running", "Shape", "choose_shape", "format_table", "plan_fleet"]

VERSION = 1  # of the plan's schema
UTILIZATION = 0.92  # vLLM's own default, written out so that a new default is not a change nobody asked for
OLDEST_COMPUTE_CAPABILITY = (7, 5)  # of the wheels that vLLM publishes
LINKS = {"nvlink": "linked by NVLink", "pcie": "below one PCIe root", "host": "of one host"}
TABLE_WIDTH = 100


@dataclass(frozen=True)
class Running:
    """An instance that runs on a host now."""

    id: str
    model: str
    gpus: tuple[int, ...]
    port: int


@dataclass(frozen=True)
class Host:
    """A GPU host: how it is reached, what it has, what runs there."""

    name: str
    address: str
    hardware: GpuHost
    running: tuple[Running, ...] = ()

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Host:
        """The record of an element of the module's option ``hosts``."""
        return cls(
            name=facts["name"],
            address=facts["address"],
            hardware=GpuHost.from_dict(facts["gpu_facts"]),
            running=tuple(
                Running(entry["id"], entry["model"], tuple(sorted(entry["gpus"])), entry["port"])
                for entry in facts.get("instances") or ()
            ),
        )

    def left_out(self) -> dict[int, str]:
        """Why a GPU is not used, by its index."""
        reasons = {gpu.index: _unusable(gpu) for gpu in self.hardware.gpus}
        return {index: reason for index, reason in reasons.items() if reason}

    def domains(self) -> list[list[int]]:
        """Usable GPUs that may share an instance, as sets of indices."""
        unusable = self.left_out()
        usable = ([index for index in domain if index not in unusable] for domain in self.hardware.domains)
        return [domain for domain in usable if domain]


@dataclass(frozen=True)
class Shape:
    """How one instance of a model is spread over GPUs, and why so."""

    parallelism: Parallelism
    why: str

    @property
    def gpus(self) -> int:
        """GPUs of one instance."""
        return self.parallelism.tensor * self.parallelism.pipeline

    def __str__(self) -> str:
        return f"tensor {self.parallelism.tensor} x pipeline {self.parallelism.pipeline}"


def choose_shape(wish: Wish, hosts: Sequence[Host]) -> Shape:
    """The shape for a model, given the hosts it may go to; raises :class:`PlacementError` if there is none."""
    if wish.parallelism is None:
        shape = Shape(Parallelism(), "this version does not size models; set parallelism")
    else:
        shape = Shape(wish.parallelism, "as the inventory says")
    sizes = {host.name: max(map(len, host.domains()), default=0) for host in hosts}
    largest = max(sizes.values(), default=0)
    if shape.gpus > largest:
        raise PlacementError([_too_large(wish, shape, sizes, largest)])
    return shape


def plan_fleet(wishes: Sequence[Wish], hosts: Sequence[Host], base_port: int = 8000) -> dict[str, Any]:
    """The fleet plan, as plain data.

    :raises PlacementError: the hosts do not have what the wishes need; every model that is too large is named.
    """
    hosts = sorted(hosts, key=lambda host: host.name)
    _check_addresses(hosts)
    warnings = list(_hardware_warnings(hosts))
    shapes: dict[str, Shape] = {}
    demands = []
    rejected = []
    for wish in wishes:
        allowed = [host for host in hosts if wish.hosts is None or host.name in wish.hosts]
        try:
            shape = shapes[wish.name] = choose_shape(wish, allowed)
        except PlacementError as error:
            rejected += error.rejected
        else:
            demands.append(Demand(wish.name, shape.gpus, tuple(host.name for host in allowed), wish.replicas))
    if rejected:
        raise PlacementError(rejected, warnings)
    domains = {host.name: host.domains() for host in hosts}
    try:
        places = place_all(demands, domains, _running_places(hosts))
    except NoRoomError as error:
        wish = next(wish for wish in wishes if wish.name == error.demand.model)
        raise PlacementError([_no_room(wish, shapes[wish.name], error, hosts)], warnings) from None
    ports = _ports(places, wishes, hosts, base_port)
    by_name = {host.name: host for host in hosts}
    by_model = {wish.name: wish for wish in wishes}
    instances = [
        _instance(by_model[slot[0]], shapes[slot[0]], slot, place, by_name[place.host], ports[slot])
        for slot, place in places.items()
    ]
    instances.sort(key=lambda instance: (instance["model"], int(instance["id"].rpartition("-")[2])))
    return {"version": VERSION, "instances": instances, "rejected": [], "warnings": warnings}


def _check_addresses(hosts: Sequence[Host]) -> None:
    """Raise PlacementError if two hosts are reached at one address."""
    first: dict[str, str] = {}
    for host in hosts:
        twin = first.setdefault(host.address, host.name)
        if twin != host.name:
            confusion = f"{twin} and {host.name} both have the address {host.address}, so an instance could not be told"
            raise PlacementError([], [f"{confusion} from another. Correct ansible_host or fleet_address."])


def _unusable(gpu: Gpu) -> str | None:
    if gpu.lost:
        return "it is lost (fell off the bus); reboot the host or replace the GPU"
    if gpu.mig_enabled:
        return "it is cut into MIG slices; turn MIG mode off to use it"
    if gpu.compute_capability and tuple(map(int, gpu.compute_capability.split("."))) < OLDEST_COMPUTE_CAPABILITY:
        return f"compute capability {gpu.compute_capability} is below the 7.5 that vLLM is built for"
    return None


def _hardware_warnings(hosts: Sequence[Host]) -> Iterator[str]:
    for host in hosts:
        for index, reason in host.left_out().items():
            yield f"{host.name}: GPU {index} is left out: {reason}."
        if not host.hardware.gpus:
            yield f"{host.name}: no GPU: {host.hardware.reason or 'no reason is known'}."


def _running_places(hosts: Sequence[Host]) -> dict[Slot, Place]:
    """What runs now. An instance whose name does not follow from its model is none of the planner's."""
    return {
        (running.model, int(ordinal)): Place(host.name, running.gpus)
        for host in hosts
        for running in host.running
        for model, _, ordinal in [running.id.rpartition("-")]
        if model == running.model and re.fullmatch(r"[1-9][0-9]*", ordinal)
    }


def _rejected(wish: Wish, shape: Shape, reason: str, *, nearest_fit: str | None, knob: str) -> dict[str, Any]:
    return {
        "model": wish.name,
        "shape": str(shape),
        "reason": reason,
        "needed_gib": None,
        "available_gib": None,
        "nearest_fit": nearest_fit,
        "knob": knob,
    }


def _too_large(wish: Wish, shape: Shape, sizes: Mapping[str, int], largest: int) -> dict[str, Any]:
    linked = " that are linked with each other" if shape.gpus > 1 else ""
    needs = f"one instance ({shape}) needs {_number(shape.gpus, 'GPU')} of one host{linked}"
    if not largest:
        names = ", ".join(_some(list(sizes))) or "no host of gpu_hosts"
        return _rejected(
            wish,
            shape,
            f"{needs}; none of its hosts ({names}) has a usable one.",
            nearest_fit=None,
            knob=f"See to the GPUs of these hosts, or widen {wish.where}.hosts.",
        )
    where = ", ".join(_some([name for name, size in sizes.items() if size == largest]))
    return _rejected(
        wish,
        shape,
        f"{needs}; the largest such set has {largest} ({where}).",
        nearest_fit=_number(largest, "GPU"),
        knob=f"Lower {wish.where}.parallelism so that tensor x pipeline is at most {largest}.",
    )


def _no_room(wish: Wish, shape: Shape, error: NoRoomError, hosts: Sequence[Host]) -> dict[str, Any]:
    wanted = error.demand.replicas or 1
    there = sum(len(domain) for host in hosts if host.name in error.demand.hosts for domain in host.domains())
    each = " each" if wanted > 1 else ""
    return _rejected(
        wish,
        shape,
        f"{_number(wanted, 'instance')} of {_number(shape.gpus, 'GPU')}{each} need{'' if wanted > 1 else 's'} "
        f"{_number(wanted * shape.gpus, 'GPU')}; its hosts have {_number(there, 'usable one')}, "
        f"and beside the other models there is room for {error.placed} of the {wanted}.",
        nearest_fit=f"replicas {error.placed}" if error.placed else None,
        knob=f"Lower {wish.where}.replicas to {error.placed}, or those of another model, or add GPUs."
        if error.placed
        else "Lower the replicas of another model, or add GPUs.",
    )


def _number(amount: int, thing: str) -> str:
    return f"{amount} {thing}{'' if amount == 1 else 's'}"


def _some(names: Sequence[str]) -> list[str]:
    """A list for a message: of a thousand hosts three names are enough."""
    return [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else list(names)


def _ports(
    places: Mapping[Slot, Place], wishes: Sequence[Wish], hosts: Sequence[Host], base_port: int
) -> dict[Slot, int]:
    """A port for every instance, no two alike on a host.

    Instances of a model that has a ``port`` count up from it on every host. The others keep the port they have, and
    new ones count up from ``base_port``. A port that stands in a wish is never given to another model.
    """
    first = {wish.name: wish.port for wish in wishes if wish.port is not None}
    owner = {port: model for model, port in first.items()}
    current = {(host.name, running.id): running.port for host in hosts for running in host.running}
    on_host: dict[str, list[Slot]] = defaultdict(list)
    for slot, place in sorted(places.items()):
        on_host[place.host].append(slot)
    ports: dict[Slot, int] = {}
    for host, slots in on_host.items():
        here: dict[int, Slot] = {}
        instances = Counter(model for model, _ordinal in slots)
        for slot in slots:
            port, model = current.get((host, _id(slot))), slot[0]
            start = first.get(model)
            suits = start is None or port in range(start, start + instances[model])
            if port is not None and suits and owner.get(port, model) == model:
                here.setdefault(port, slot)
        for slot in sorted(set(slots).difference(here.values()), key=lambda slot: (slot[0] not in first, slot)):
            free = (port for port in count(first.get(slot[0], base_port)) if port not in here)
            here[next(port for port in free if owner.get(port, slot[0]) == slot[0])] = slot
        ports.update((slot, port) for port, slot in here.items())
    return ports


def _id(slot: Slot) -> str:
    return f"{slot[0]}-{slot[1]}"


def _instance(wish: Wish, shape: Shape, slot: Slot, place: Place, host: Host, port: int) -> dict[str, Any]:
    """An instance as the plan shows it."""
    utilization = wish.gpu_memory_utilization or UTILIZATION
    link = LINKS.get(host.hardware.link or "", "")
    gpus = ", ".join(map(str, place.gpus))
    why = [f"{shape}: {shape.why}"]
    if len(place.gpus) > 1:
        why.append(f"GPUs {gpus}: {link}")
    if wish.replicas is None:
        why.append("replicas auto: as many as fit, in turns with the other automatic models")
    return {
        "id": _id(slot),
        "model": wish.name,
        "endpoint": {"host": host.name, "address": host.address, "port": port},
        "parallelism": asdict(shape.parallelism),
        "executor": _executor(shape),
        "nodes": [{"host": host.name, "rank": 0, "role": "head", "gpus": list(place.gpus)}],
        "engine_args": _engine_args(wish, shape, host.address, port, utilization),
        "env": {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which NVML counted
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, place.gpus)),
            **wish.env,
        },
        "budget": _budget(host, place, utilization),
        "why": why,
    }


def _executor(shape: Shape) -> str | None:
    return "mp" if shape.gpus > 1 else None


def _engine_args(wish: Wish, shape: Shape, address: str, port: int, utilization: float) -> dict[str, Any]:
    """What vLLM reads with ``--config``; what is left to vLLM is not in it."""
    arguments = {
        "model": wish.source,
        "revision": wish.revision,
        "served-model-name": wish.name,
        "host": address,
        "port": port,
        "tensor-parallel-size": shape.parallelism.tensor,
        "pipeline-parallel-size": shape.parallelism.pipeline,
        "enable-expert-parallel": shape.parallelism.expert or None,
        "distributed-executor-backend": _executor(shape),
        "gpu-memory-utilization": utilization,
        "max-model-len": wish.context_length,
        "max-num-seqs": wish.concurrency,
        "kv-cache-dtype": wish.kv_cache_dtype,
        **wish.extra_args,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _budget(host: Host, place: Place, utilization: float) -> dict[str, Any]:
    """GiB per GPU, of the smallest one. What a model needs is not known in this version."""
    totals = [gpu.total_gib for gpu in host.hardware.gpus if gpu.index in place.gpus and gpu.total_gib is not None]
    total = min(totals) if len(totals) == len(place.gpus) else None
    return {
        "total": total,
        "requested": None if total is None else round(total * utilization, 2),
        **dict.fromkeys(("weights", "activations", "cuda_graphs", "non_torch")),
        **dict.fromkeys(("kv_cache", "kv_cache_tokens", "max_concurrency")),
        "confidence": "none",
    }


def format_table(plan: Mapping[str, Any]) -> str:
    """The plan for people, at most 100 columns wide."""
    rows = [("INSTANCE", "HOST", "GPUS", "TP", "PP", "GIB/GPU", "ENDPOINT")]
    for instance in plan["instances"]:
        endpoint, parallelism = instance["endpoint"], instance["parallelism"]
        requested = instance["budget"]["requested"]
        rows.append(
            (
                _end(instance["id"], 31),
                _end(endpoint["host"], 16),
                _end(",".join(_ranges([gpu for node in instance["nodes"] for gpu in node["gpus"]])), 8),
                str(parallelism["tensor"]),
                str(parallelism["pipeline"]),
                "?" if requested is None else f"{requested:.1f}",
                _end(f"{endpoint['address']}:{endpoint['port']}", 21),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    used = sum(len(node["gpus"]) for instance in plan["instances"] for node in instance["nodes"])
    models = len({instance["model"] for instance in plan["instances"]})
    instances = _number(len(plan["instances"]), "instance")
    lines += ["", f"{instances} of {_number(models, 'model')} on {_number(used, 'GPU')}"]
    for warning in plan["warnings"]:
        lines += textwrap.wrap(f"warning: {warning}", TABLE_WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _end(text: str, width: int) -> str:
    """As much of a text as there is room for. Its end tells it from its neighbours."""
    return text if len(text) <= width else f"..{text[2 - width :]}"


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """0, 1, 2, 5 as 0-2 and 5."""
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
