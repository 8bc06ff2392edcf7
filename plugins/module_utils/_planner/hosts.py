"""Hosts as the planner sees them: GPUs by type, link and domain, and what runs there; private to the collection."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Optional

from .._errors import PlacementError
from .._host.gpu import Gpu, GpuHost
from .._host.health import findings, unusable
from .._memory.catalogue import GpuType, gpu_from_nvml, gpu_type
from .._units import GIB
from .._wishes.read import Parallelism, Wish
from .place import Place, Places, Slot
from .text import ranges, some

__all__ = [
    "Extent",
    "Host",
    "Pool",
    "Running",
    "Site",
    "check_addresses",
    "check_gpus",
    "extents",
    "hardware_warnings",
    "running_places",
]

Extent = tuple[int, int, Optional[int]]  # GPUs, hosts and tensor size of an instance; None: not known


@dataclass(frozen=True)
class Pool:
    """What the GPUs of hosts that are alike have in common: type, link, sizes of a host's domains, driver."""

    gpu: GpuType
    nvlink: bool
    domains: tuple[int, ...]  # GPUs of each, the largest first
    driver: str | None = None  # its branch: "580"
    title: str = ""  # the driver's name of the type

    @property
    def size(self) -> int:
        """GPUs of the largest domain."""
        return max(self.domains, default=0)

    def sets(self, gpu_count: int) -> int:
        """Sets of so many linked GPUs that an empty host has."""
        return sum(size // gpu_count for size in self.domains)

    def fewest_hosts(self, parallelism: Parallelism) -> int | None:
        """The fewest hosts for an instance, each with as many of its stages; None if no domain is large enough."""
        room = self.sets(parallelism.tensor)
        stages = parallelism.pipeline
        counts = range(1, stages + 1)
        return next((count for count in counts if stages % count == 0 and stages <= room * count), None)

    def split_hosts(self, parallelism: Parallelism) -> int | None:
        """The fewest hosts for an instance whose tensor size no host has, each with an equal part of one stage.

        None if a host has the GPUs, or if they cannot be dealt out so.
        """
        tensor = parallelism.tensor
        if tensor <= sum(self.domains):
            return None
        counts = (count for count in range(2, tensor + 1) if tensor % count == 0 and tensor // count <= self.size)
        each = next(counts, None)
        return each and each * parallelism.pipeline

    def takes(self, parallelism: Parallelism, host_count: int) -> bool:
        """Whether so many hosts have the GPUs for an instance, whose tensor size may be stated to go over hosts."""
        needed = self.fewest_hosts(parallelism) or self.split_hosts(parallelism)
        return needed is not None and needed <= host_count


@dataclass(frozen=True)
class Site:
    """The GPUs of one type on one host; ``domains`` are the sets of them that tensor parallelism may span."""

    name: str
    host: str
    pool: Pool
    domains: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Running:
    """An instance that runs on a host now, or the part of one; ``port`` is that of its endpoint.

    ``gpu_indices`` are those of its GPUs that are still there, ``gone`` names the others.
    """

    id: str
    model: str
    gpu_indices: tuple[int, ...]
    port: int
    rank: int = 0
    master_port: int | None = None  # None: it is on one host
    tensor: int | None = None
    gone: tuple[str, ...] = ()
    context_length: int | None = None

    @property
    def gpu_count(self) -> int:
        """GPUs that it was started on."""
        return len(self.gpu_indices) + len(self.gone)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any], hardware: GpuHost) -> Running:
        """The record of an instance in the local fact of its host, which has this hardware now.

        Version 2 of the fact names a GPU by index and uuid: what moved to another index is found there, and a card that
        was replaced or vanished is not taken for the one that has its index now. Version 1 has indices only.
        """
        index_of = {gpu.uuid: gpu.index for gpu in hardware.gpus if gpu.uuid}
        there = {gpu.index for gpu in hardware.gpus}
        found, gone = [], []
        for gpu in entry["gpus"]:
            index, uuid = (gpu["index"], gpu.get("uuid")) if isinstance(gpu, Mapping) else (gpu, None)
            if uuid in index_of:
                found.append(index_of[uuid])
            elif uuid and index_of:  # a GPU that is lost tells no uuid either
                gone.append(f"GPU {index} ({uuid})")
            elif index in there:
                found.append(index)
            else:
                gone.append(f"GPU {index}")
        return cls(
            id=entry["id"],
            model=entry["model"],
            gpu_indices=tuple(sorted(found)),
            port=entry["port"],
            rank=entry.get("rank") or 0,  # earlier releases wrote none of these
            master_port=entry.get("master_port"),
            tensor=entry.get("tensor"),
            gone=tuple(gone),
            context_length=entry.get("context_length"),
        )


@dataclass(frozen=True)
class Host:
    """A GPU host: how it is reached, what it has, what runs there."""

    name: str
    address: str
    hardware: GpuHost
    running: tuple[Running, ...] = ()
    cluster_address: str = ""  # by which the nodes of an instance reach each other; "": the same

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Host:
        """The record of an element of the module's option ``hosts``.

        :raises PlacementError: nobody read the GPUs of the host.
        """
        name = facts["name"]
        if "gpus" not in facts["gpu_facts"]:
            raise PlacementError(
                [], [f"{name}: its GPUs were not read. Bring the host back, or take it out of gpu_hosts."]
            )
        hardware = GpuHost.from_dict(facts["gpu_facts"])
        running = tuple(Running.from_dict(entry, hardware) for entry in facts.get("instances") or ())
        return cls(facts["name"], facts["address"], hardware, running, facts.get("cluster_address") or "")

    def left_out(self) -> dict[int, str]:
        """Why a GPU is not used, by its index."""
        reasons = {gpu.index: unusable(gpu) for gpu in self.hardware.gpus}
        return {index: f"{found.state}; {found.advice}" for index, found in reasons.items() if found}

    def sites(self) -> list[Site]:
        """Its usable GPUs by type: an instance has GPUs of one type only, on the host's other GPUs others may run."""
        unusable = self.left_out()
        gpus = {gpu.index: gpu for gpu in self.hardware.gpus if gpu.index not in unusable}
        types: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, gpu in gpus.items():
            types[gpu.name or "", gpu.compute_capability or ""].append(index)
        found = []
        for (name, _capability), indices in types.items():
            own = set(indices)
            domains = tuple(filter(None, (tuple(sorted(own.intersection(domain))) for domain in self.hardware.domains)))
            sizes = tuple(sorted(map(len, domains), reverse=True))
            pool = Pool(
                # The smallest of them, because all GPUs of an instance get the same.
                gpu=min((_kind_of(gpus[index]) for index in indices), key=lambda kind: kind.total_gib or 0.0),
                nvlink=self.hardware.link == "nvlink" and max(sizes, default=0) > 1,
                domains=sizes,
                driver=(self.hardware.driver_version or "").partition(".")[0] or None,
                title=name,
            )
            found.append(Site(self.name if len(types) == 1 else f"{self.name} ({name})", self.name, pool, domains))
        return found


def _kind_of(gpu: Gpu) -> GpuType:
    """The type of a GPU of a host; what the driver does not say is taken from the catalogue."""
    return _kind(gpu.name or "GPU without a name", gpu.total_gib, gpu.reserved_gib, gpu.compute_capability)


@cache
def _kind(name: str, total_gib: float | None, reserved_gib: float | None, compute_capability: str | None) -> GpuType:
    known = gpu_type(name)
    # Torch's total is the driver's less what it keeps for itself; where that is not told, the catalogue is nearer.
    if total_gib is None or (reserved_gib is None and known.known):
        return known
    major, _, minor = (compute_capability or "").partition(".")
    # Hundredths of a GiB: boards of one type differ by less, and alike they are sized once.
    usable = round((total_gib - (reserved_gib or 0.0)) * 100) * GIB // 100
    return gpu_from_nvml(name, usable, 0, (int(major), int(minor)) if major else None)


def check_gpus(hosts: Sequence[Host]) -> None:
    """Raise PlacementError if GPUs cannot be read where instances run: a plan without them would move all of these."""
    problems = [
        f"{host.name}: no GPU can be read there ({host.hardware.reason or 'no reason is known'}), but by "
        f"/etc/ansible/facts.d/gpuhosts_vllm.fact {', '.join(some([running.id for running in host.running]))} runs "
        "there, and a plan without its GPUs would move that. See to the driver of that host, or take it out of "
        "gpu_hosts. If its GPUs are gone for good, remove that file."
        for host in hosts
        if host.running and not host.hardware.gpus
    ]
    if problems:
        raise PlacementError([], problems)


def check_addresses(hosts: Sequence[Host]) -> None:
    """Raise PlacementError if two hosts are reached at one address."""
    first: dict[str, str] = {}
    for host in hosts:
        for address in {host.address, host.cluster_address or host.address}:
            twin = first.setdefault(address, host.name)
            if twin != host.name:
                confusion = f"{twin} and {host.name} both have the address {address}, so an instance could not be told"
                remedy = "Correct ansible_host, fleet_address or fleet_cluster_address."
                raise PlacementError([], [f"{confusion} from another. {remedy}"])


def hardware_warnings(hosts: Sequence[Host]) -> Iterator[str]:
    for host in hosts:
        for index, reason in host.left_out().items():
            yield f"{host.name}: GPU {index} is left out: {reason}."
        if not host.hardware.gpus:
            yield f"{host.name}: no GPU: {host.hardware.reason or 'no reason is known'}."
        for running in host.running:
            if running.gone:
                yield (
                    f"{host.name}: {', '.join(running.gone)}, where {running.id} was started, is not there any more; "
                    "that instance is planned anew."
                )
    doubts: dict[str, list[str]] = defaultdict(list)  # alike on many hosts: said once
    for host in hosts:
        for doubt in _doubts(host):
            doubts[doubt].append(host.name)
    for doubt, names in doubts.items():
        yield f"{', '.join(some(names))}: {doubt}."


def _doubts(host: Host) -> Iterator[str]:
    """What does not keep the GPUs of a host from being used."""
    types = Counter(gpu.name for gpu in host.hardware.gpus if gpu.name)
    if len(types) > 1:
        kinds = " and ".join(f"{number} x {name}" for name, number in sorted(types.items()))
        yield f"different GPUs ({kinds}); an instance gets GPUs of one type only"
    placed = {index for running in host.running for index in running.gpu_indices}
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for gpu in host.hardware.gpus:
        if not unusable(gpu):
            for finding in findings(gpu) if gpu.index in placed else findings(gpu, is_ours=lambda _process: False):
                found[finding.state, finding.advice].append(gpu.index)
    for (state, advice), indices in found.items():
        yield f"{_gpu_list(indices)}: {state}; {advice}"


def _gpu_list(indices: Sequence[int]) -> str:
    return f"GPU{'s' * (len(indices) > 1)} {', '.join(ranges(indices))}"


def running_places(hosts: Sequence[Host], sites: Iterable[Site]) -> dict[Slot, Places]:
    """What runs now, by site. An instance whose name does not follow from its model is none of the planner's."""
    site_of = {(site.host, index): site.name for site in sites for domain in site.domains for index in domain}
    parts: dict[Slot, dict[int, Place]] = defaultdict(dict)
    for host in hosts:
        for running in host.running:
            model, _, ordinal = running.id.rpartition("-")
            whole = running.gpu_indices and not running.gone
            site = site_of.get((host.name, running.gpu_indices[0])) if whole else None
            if site and model == running.model and re.fullmatch(r"[1-9][0-9]*", ordinal):
                parts[model, int(ordinal)][running.rank] = Place(site, running.gpu_indices)
    return {slot: tuple(by_rank[rank] for rank in sorted(by_rank)) for slot, by_rank in parts.items()}


def extents(wish: Wish, hosts: Sequence[Host]) -> frozenset[Extent]:
    """How many GPUs and hosts the instances of a model have now, and their tensor sizes."""
    parts: dict[str, dict[int, Running]] = defaultdict(dict)
    for host in hosts:
        for running in host.running:
            if running.model == wish.name:
                parts[running.id][running.rank] = running
    return frozenset(
        (sum(node.gpu_count for node in nodes.values()), len(nodes), next(iter(nodes.values())).tensor)
        for nodes in parts.values()
    )
