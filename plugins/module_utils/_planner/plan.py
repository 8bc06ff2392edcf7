"""Turns wishes and hosts into the fleet plan; pure, private to the collection.

Three steps: ``_sizing`` decides how one instance of a model is spread over GPUs, ``_placement`` decides which GPUs of
which host it gets, and :func:`plan_fleet` writes the result down in the schema of docs/plan-schema.md. The plan holds
nothing that changes by itself, such as free memory: a second run gives the same.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, groupby
from typing import Any

from .._errors import PlacementError
from .._host.gpu import Gpu, GpuHost
from .._wishes.read import Parallelism, Wish
from .budget import Engine
from .choose import Choice, Extent, Pool, Shape, Site, Sizer, kind_of, possible
from .place import Demand, NoRoomError, Place, Places, Slot, place_all

__all__ = ["Host", "Running", "format_table", "plan_fleet"]

VERSION = 1  # of the plan's schema
OLDEST_COMPUTE_CAPABILITY = (7, 5)  # of the wheels that vLLM publishes
LINKS = {"nvlink": "linked by NVLink", "pcie": "below one PCIe root", "host": "of one host"}
RENDEZVOUS_PORT = 29501  # the first; vLLM's own default of --master-port
HEAD_ONLY = ("api-server-count",)  # options of the API server that vLLM refuses where there is none (cli/serve.py)
TABLE_WIDTH = 100


@dataclass(frozen=True)
class Running:
    """An instance that runs on a host now, or the part of one; ``port`` is that of its endpoint."""

    id: str
    model: str
    gpus: tuple[int, ...]
    port: int
    rank: int = 0
    master_port: int | None = None  # None: it is on one host
    tensor: int | None = None


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
                Running(
                    entry["id"],
                    entry["model"],
                    tuple(sorted(entry["gpus"])),
                    entry["port"],
                    entry.get("rank") or 0,  # earlier releases wrote none of these
                    entry.get("master_port"),
                    entry.get("tensor"),
                )
                for entry in facts.get("instances") or ()
            ),
        )

    def left_out(self) -> dict[int, str]:
        """Why a GPU is not used, by its index."""
        reasons = {gpu.index: _unusable(gpu) for gpu in self.hardware.gpus}
        return {index: reason for index, reason in reasons.items() if reason}

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
                gpu=min((kind_of(gpus[index]) for index in indices), key=lambda kind: kind.total_gib or 0.0),
                nvlink=self.hardware.link == "nvlink" and max(sizes, default=0) > 1,
                domains=sizes,
                driver=(self.hardware.driver_version or "").partition(".")[0] or None,
                title=name,
            )
            found.append(Site(self.name if len(types) == 1 else f"{self.name} ({name})", self.name, pool, domains))
        return found


def plan_fleet(
    wishes: Sequence[Wish],
    hosts: Sequence[Host],
    base_port: int = 8000,
    sizer: Sizer | None = None,
    *,
    pin_kv_cache: bool = True,
) -> dict[str, Any]:
    """The fleet plan, as plain data.

    ``sizer`` knows the models and the version of vLLM; without it no model is sized. ``pin_kv_cache`` holds engines
    whose memory is known to the part of the KV cache that every boot can grant.

    :raises PlacementError: the hosts do not have what the wishes need; every model that is too large is named.
    """
    sizer = sizer or Sizer()
    hosts = sorted(hosts, key=lambda host: host.name)
    _check_addresses(hosts)
    warnings = list(_hardware_warnings(hosts))
    sites = {site.name: site for host in hosts for site in host.sites()}
    choices: dict[str, Choice] = {}
    rejected = []
    for wish in wishes:
        allowed = [site for site in sites.values() if wish.hosts is None or site.host in wish.hosts]
        if not possible(wish.parallelism or Parallelism(), allowed):
            rejected.append(_too_large(wish, allowed, hosts))  # whatever it weighs
            continue
        try:
            choices[wish.name] = sizer.choose(wish, allowed, _extents(wish, hosts))
        except PlacementError as error:
            rejected += error.rejected
    if rejected:
        raise PlacementError(rejected, warnings)
    demands = [_demand(wish, choices[wish.name]) for wish in wishes]
    try:
        places = place_all(
            demands,
            {site.name: site.domains for site in sites.values()},
            _running_places(hosts, sites.values()),
            {site.name: site.pool for site in sites.values()},
        )
    except NoRoomError as error:
        wish = next(wish for wish in wishes if wish.name == error.demand.model)
        raise PlacementError([_no_room(wish, choices[wish.name].shape, error, sites)], warnings) from None
    pools = {slot: sites[parts[0].host].pool for slot, parts in places.items()}
    used: dict[str, set[Pool]] = defaultdict(set)
    for (model, _ordinal), pool in pools.items():
        used[model].add(pool)
    choices = {wish.name: sizer.settle(wish, choices[wish.name], used[wish.name]) for wish in wishes}
    on_hosts = {
        slot: tuple(Place(sites[part.host].host, part.gpus) for part in parts) for slot, parts in places.items()
    }
    ports = _ports(on_hosts, wishes, hosts, base_port)
    by_name = {host.name: host for host in hosts}
    by_model = {wish.name: wish for wish in wishes}
    engines = {
        (model, pool): Engine(by_model[model], choices[model], pool, on_gpus=sizer.on_gpus, pin=pin_kv_cache)
        for model, pools_of in used.items()
        for pool in pools_of
    }
    instances = [
        _instance(by_model[slot[0]], engines[slot[0], pools[slot]], slot, parts, by_name, ports[slot])
        for slot, parts in on_hosts.items()
    ]
    instances.sort(key=lambda instance: (instance["model"], int(instance["id"].rpartition("-")[2])))
    return {
        "version": VERSION,
        "instances": instances,
        "rejected": [row for choice in choices.values() for row in choice.rejected],
        "warnings": warnings + [warning for choice in choices.values() for warning in choice.warnings],
    }


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
    doubts: dict[str, list[str]] = defaultdict(list)  # alike on many hosts: said once
    for host in hosts:
        for doubt in _doubts(host):
            doubts[doubt].append(host.name)
    for doubt, names in doubts.items():
        yield f"{', '.join(_some(names))}: {doubt}."


def _doubts(host: Host) -> Iterator[str]:
    """What does not keep the GPUs of a host from being used."""
    types = Counter(gpu.name for gpu in host.hardware.gpus if gpu.name)
    if len(types) > 1:
        kinds = " and ".join(f"{number} x {name}" for name, number in sorted(types.items()))
        yield f"different GPUs ({kinds}); an instance gets GPUs of one type only"
    without = [gpu.index for gpu in host.hardware.gpus if gpu.ecc_enabled is False]
    if without:
        yield f"ECC is off ({_gpu_list(without)}), so a flipped bit in a weight goes unnoticed; nvidia-smi -e 1"
    for state in ("not_started", "in_progress"):
        outside = [gpu.index for gpu in host.hardware.gpus if gpu.fabric_state == state]
        if outside:
            yield (
                f"the NVSwitch fabric is {state.replace('_', ' ')} for {_gpu_list(outside)}; until it is completed "
                "CUDA does not start there and NVLink does not count. See to nvidia-fabricmanager on that host"
            )
    placed = {index for running in host.running for index in running.gpus}
    for gpu in host.hardware.gpus:
        if gpu.processes and gpu.index not in placed:
            pids = ", ".join(str(process.pid) for process in gpu.processes)
            yield (
                f"GPU {gpu.index} is held by a process that is no instance of this fleet (pid {pids}); end it, because "
                "its memory is missing to the instance that is planned there"
            )


def _gpu_list(indices: Sequence[int]) -> str:
    return f"GPU{'s' * (len(indices) > 1)} {', '.join(_ranges(indices))}"


def _running_places(hosts: Sequence[Host], sites: Iterable[Site]) -> dict[Slot, Places]:
    """What runs now, by site. An instance whose name does not follow from its model is none of the planner's."""
    site_of = {(site.host, index): site.name for site in sites for domain in site.domains for index in domain}
    parts: dict[Slot, dict[int, Place]] = defaultdict(dict)
    for host in hosts:
        for running in host.running:
            model, _, ordinal = running.id.rpartition("-")
            site = site_of.get((host.name, running.gpus[0])) if running.gpus else None
            if site and model == running.model and re.fullmatch(r"[1-9][0-9]*", ordinal):
                parts[model, int(ordinal)][running.rank] = Place(site, running.gpus)
    return {slot: tuple(by_rank[rank] for rank in sorted(by_rank)) for slot, by_rank in parts.items()}


def _extents(wish: Wish, hosts: Sequence[Host]) -> frozenset[Extent]:
    """How many GPUs and hosts the instances of a model have now, and their tensor sizes."""
    parts: dict[str, dict[int, Running]] = defaultdict(dict)
    for host in hosts:
        for running in host.running:
            if running.model == wish.name:
                parts[running.id][running.rank] = running
    return frozenset(
        (sum(len(node.gpus) for node in nodes.values()), len(nodes), next(iter(nodes.values())).tensor)
        for nodes in parts.values()
    )


def _demand(wish: Wish, choice: Choice) -> Demand:
    shape = choice.shape
    return Demand(wish.name, shape.parallelism.tensor, choice.sites, wish.replicas, shape.stages, shape.hosts)


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


def _too_large(wish: Wish, sites: Sequence[Site], hosts: Sequence[Host]) -> dict[str, Any]:
    """The refusal of a parallelism that there are not the GPUs for."""
    parallelism = wish.parallelism or Parallelism()
    shape = Shape(parallelism)
    largest = max((site.pool.size for site in sites), default=0)
    linked = " that are linked with each other" if parallelism.tensor > 1 else ""
    each = " for every stage" if parallelism.pipeline > 1 else ""
    needs = f"one instance ({shape}) needs {_number(parallelism.tensor, 'GPU')} of one host{linked}{each}"
    if not largest:
        names = ", ".join(_some([host.name for host in hosts if wish.hosts is None or host.name in wish.hosts]))
        return _rejected(
            wish,
            shape,
            f"{needs}; none of its hosts ({names or 'no host of gpu_hosts'}) has a usable one.",
            nearest_fit=None,
            knob=f"See to the GPUs of these hosts, or widen {wish.where}.hosts.",
        )
    if largest < parallelism.tensor:
        where = ", ".join(_some([site.host for site in sites if site.pool.size == largest]))
        return _rejected(
            wish,
            shape,
            f"{needs}; the largest such set has {largest} ({where}).",
            nearest_fit=_number(largest, "GPU"),
            knob=f"Lower {wish.where}.parallelism.tensor to at most {largest}; a pipeline may span several hosts.",
        )
    return _too_long(wish, parallelism, Counter(site.pool for site in sites))


def _too_long(wish: Wish, parallelism: Parallelism, hosts: Mapping[Pool, int]) -> dict[str, Any]:
    """The refusal of a pipeline that there are not the alike hosts for; one of one stage is possible."""
    fitting = [
        (stages, pool)
        for pool, number in hosts.items()
        for stages in range(1, parallelism.pipeline)
        if pool.takes(replace(parallelism, pipeline=stages), number)
    ]
    stages, pool = max(fitting, key=lambda pair: (pair[0], hosts[pair[1]], repr(pair[1])))
    asked = Shape(parallelism, pool.hosts(parallelism) or 1)
    shorter = replace(parallelism, pipeline=stages)
    there = f"{'are' if hosts[pool] > 1 else 'is'} {hosts[pool]} ({pool.gpu.name})"
    return _rejected(
        wish,
        asked,
        f"one instance ({asked}) needs {asked.gpus} GPUs over {asked.hosts} alike hosts; there {there}.",
        nearest_fit=str(Shape(shorter, pool.hosts(shorter) or 1)),
        knob=f"Lower {wish.where}.parallelism.pipeline to {stages}, or add such hosts.",
    )


def _no_room(wish: Wish, shape: Shape, error: NoRoomError, sites: Mapping[str, Site]) -> dict[str, Any]:
    wanted = error.demand.replicas or 1
    there = sum(sum(sites[name].pool.domains) for name in error.demand.hosts)
    each = (" each" if wanted > 1 else "") + (f" over {shape.hosts} alike hosts" if shape.hosts > 1 else "")
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


@dataclass(frozen=True)
class _Ports:
    """TCP ports of an instance on the host of its head: the endpoint, and where its nodes meet (None: it has one)."""

    api: int
    master: int | None = None


def _ports(
    places: Mapping[Slot, Places], wishes: Sequence[Wish], hosts: Sequence[Host], base_port: int
) -> dict[Slot, _Ports]:
    """The ports of every instance, no two alike on a host.

    Instances of a model that has a ``port`` count up from it on every host. The others keep the port they have, and
    new ones count up from ``base_port``. A port that stands in a wish is never given to another model. Rendezvous
    ports are kept too; new ones count up from :data:`RENDEZVOUS_PORT`.
    """
    first = {wish.name: wish.port for wish in wishes if wish.port is not None}
    now = {(host.name, running.id): running for host in hosts for running in host.running if not running.rank}
    on_host: dict[str, list[Slot]] = defaultdict(list)
    for slot, parts in sorted(places.items()):
        on_host[parts[0].host].append(slot)
    ports: dict[Slot, _Ports] = {}
    for host, slots in on_host.items():
        spread = [slot for slot in slots if len(places[slot]) > 1]
        running = {slot: now[host, _id(slot)] for slot in slots if (host, _id(slot)) in now}
        ports.update(_ports_on_host(slots, spread, running, first, base_port))
    return ports


def _ports_on_host(
    slots: Sequence[Slot],
    spread: Sequence[Slot],
    running: Mapping[Slot, Running],
    first: Mapping[str, int],
    base_port: int,
) -> dict[Slot, _Ports]:
    """The ports of the instances that have their head on a host; those in ``spread`` have other nodes."""
    owner = {port: model for model, port in first.items()}
    instances = Counter(model for model, _ordinal in slots)
    wished = {port for model, start in first.items() for port in range(start, start + max(1, instances[model]))}
    apis: dict[int, Slot] = {}
    masters: dict[int, Slot] = {}
    for slot, present in running.items():
        model, port = slot[0], present.port
        suits = model not in first or port in range(first[model], first[model] + instances[model])
        if suits and owner.get(port, model) == model:
            apis.setdefault(port, slot)
    for slot in spread:
        master = running[slot].master_port if slot in running else None
        if master is not None and master not in wished.union(apis):
            masters.setdefault(master, slot)
    for slot in sorted(set(slots).difference(apis.values()), key=lambda slot: (slot[0] not in first, slot)):
        free = (port for port in count(first.get(slot[0], base_port)) if port not in apis and port not in masters)
        apis[next(port for port in free if owner.get(port, slot[0]) == slot[0])] = slot
    for slot in sorted(set(spread).difference(masters.values())):
        taken = wished.union(apis, masters)
        masters[next(port for port in count(RENDEZVOUS_PORT) if port not in taken)] = slot
    meeting = {slot: port for port, slot in masters.items()}
    return {slot: _Ports(port, meeting.get(slot)) for port, slot in apis.items()}


def _id(slot: Slot) -> str:
    return f"{slot[0]}-{slot[1]}"


def _instance(
    wish: Wish, engine: Engine, slot: Slot, places: Places, hosts: Mapping[str, Host], ports: _Ports
) -> dict[str, Any]:
    """An instance as the plan shows it."""
    head = hosts[places[0].host]
    why = [*engine.shape.why, *engine.why]
    if engine.shape.gpus > 1:
        why.append(_linked(engine.shape, places, hosts))
    if wish.replicas is None:
        why.append("replicas auto: as many as fit, in turns with the other automatic models")
    return {
        "id": _id(slot),
        "model": wish.name,
        "endpoint": {"host": head.name, "address": head.address, "port": ports.api},
        "parallelism": asdict(engine.shape.parallelism),
        "executor": _executor(engine.shape),
        "nodes": [_node(wish, rank, place, hosts[place.host], ports) for rank, place in enumerate(places)],
        "engine_args": _engine_args(wish, engine, head.address, ports),
        "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **wish.env},  # the order in which NVML counted
        "budget": engine.budget,
        "why": why,
    }


def _linked(shape: Shape, places: Places, hosts: Mapping[str, Host]) -> str:
    """What joins the GPUs of an instance."""
    link = LINKS.get(hosts[places[0].host].hardware.link or "", "")
    if shape.parallelism.pipeline > 1:
        return f"the GPUs of a stage: {link}"
    return f"GPUs {', '.join(map(str, places[0].gpus))}: {link}"


def _node(wish: Wish, rank: int, place: Place, host: Host, ports: _Ports) -> dict[str, Any]:
    """The part of an instance on one host, with what only its process is told."""
    arguments: dict[str, Any] = {"headless": True} if rank else {"host": host.address, "port": ports.api}
    env = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, place.gpus))}
    if ports.master is not None:
        arguments["node-rank"] = rank
        env["VLLM_HOST_IP"] = host.address
    if not rank:
        arguments.update((name, wish.extra_args[name]) for name in HEAD_ONLY if name in wish.extra_args)
    return {
        "host": host.name,
        "address": host.address,
        "rank": rank,
        "role": "worker" if rank else "head",
        "gpus": list(place.gpus),
        "engine_args": arguments,
        "env": env,
    }


def _executor(shape: Shape) -> str | None:
    return "mp" if shape.gpus > 1 else None


def _engine_args(wish: Wish, engine: Engine, master: str, ports: _Ports) -> dict[str, Any]:
    """What vLLM reads on every node with ``--config``; what is left to vLLM is not in it."""
    shape = engine.shape
    spread = shape.hosts > 1
    arguments = {
        "model": wish.source,
        "revision": wish.revision,
        "served-model-name": wish.name,
        "tensor-parallel-size": shape.parallelism.tensor,
        "pipeline-parallel-size": shape.parallelism.pipeline,
        "enable-expert-parallel": shape.parallelism.expert or None,
        "distributed-executor-backend": _executor(shape),
        "nnodes": shape.hosts if spread else None,
        "master-addr": master if spread else None,
        "master-port": ports.master,
        **engine.arguments,
        **{name: value for name, value in wish.extra_args.items() if name not in HEAD_ONLY},
    }
    return {name: value for name, value in arguments.items() if value is not None}


def format_table(plan: Mapping[str, Any]) -> str:
    """The plan for people, at most 100 columns wide: a line for every node of every instance."""
    rows = [("INSTANCE", "HOST", "GPUS", "TP", "PP", "GIB/GPU", "ENDPOINT")]
    for instance in plan["instances"]:
        endpoint, parallelism = instance["endpoint"], instance["parallelism"]
        requested = instance["budget"]["requested"]
        head, *workers = [
            (_end(node["host"], 16), _end(",".join(_ranges(node["gpus"])), 8)) for node in instance["nodes"]
        ]
        rows.append(
            (
                _end(instance["id"], 31),
                *head,
                str(parallelism["tensor"]),
                str(parallelism["pipeline"]),
                "?" if requested is None else f"{requested:.1f}",
                _end(f"{endpoint['address']}:{endpoint['port']}", 21),
            )
        )
        rows += [("", *worker, "", "", "", "") for worker in workers]
    lines = _columns(rows)
    memory = list(dict.fromkeys(_memory_row(one) for one in plan["instances"] if one["budget"]["weights"] is not None))
    if memory:
        titles = ("MODEL", "GPU", "CONTEXT", "WEIGHTS", "KV CACHE", "MARGIN", "WARM+", "KV TOKENS", "REQUESTS")
        note = (
            "GiB per GPU. KV CACHE is what every boot grants: MARGIN below the prediction, and WARM+ below what a "
            "later boot could have; without these it is the prediction itself. REQUESTS are of the whole CONTEXT."
        )
        lines += ["", *_columns([titles, *memory]), *textwrap.wrap(note, TABLE_WIDTH)]
    used = sum(len(node["gpus"]) for instance in plan["instances"] for node in instance["nodes"])
    models = len({instance["model"] for instance in plan["instances"]})
    instances = _number(len(plan["instances"]), "instance")
    lines += ["", f"{instances} of {_number(models, 'model')} on {_number(used, 'GPU')}"]
    for warning in plan["warnings"]:
        lines += textwrap.wrap(f"warning: {warning}", TABLE_WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _memory_row(instance: Mapping[str, Any]) -> tuple[str, ...]:
    """What an instance promises, and at what distance from the prediction."""
    budget = instance["budget"]
    pinned = budget["pinned"]
    promise = pinned or budget
    length = instance["engine_args"].get("max-model-len")
    return (
        _end(instance["model"], 22),
        _end(budget["gpu"], 12),
        "auto" if length is None else str(length),
        f"{budget['weights']:.1f}",
        f"{promise['kv_cache']:.2f}",
        f"{pinned['margin']:.2f}" if pinned else "-",
        f"{pinned['warm_extra']:.2f}" if pinned else "-",
        str(promise["kv_cache_tokens"]),
        f"{promise['max_concurrency']:.1f}",
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _end(text: str, width: int) -> str:
    """As much of a text as there is room for. Its end tells it from its neighbours."""
    return text if len(text) <= width else f"..{text[2 - width :]}"


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """0, 1, 2, 5 as 0-2 and 5."""
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
