"""Turns wishes and hosts into the fleet plan; pure, private to the collection.

Three steps: ``choose`` decides how one instance of a model is spread over GPUs, ``place`` decides which GPUs of which
host it gets, and :func:`plan_fleet` writes the result down in the schema of docs/plan-schema.md. The plan is intent:
what a node really starts is made of it by ``launch``. It holds nothing that changes by itself, such as free memory: a
second run gives the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .._errors import PlacementError
from .._host.rdma import described
from .._wishes.read import Parallelism, Wish
from .assign import Aim, assign
from .budget import Engine
from .changes import changes
from .choose import Choice, Sizer
from .hosts import Host, Pool, Site, check_addresses, check_gpus, extents, hardware_warnings, running_places
from .place import NoRoomError, Place, Places, Slot
from .ports import BASE_PORT, Ports, name_of, ports_of
from .refuse import no_room, too_large
from .rollout import rollout_waves
from .shapes import Shape, possible
from .speed import STEP
from .text import some

__all__ = ["plan_fleet"]

VERSION = 2  # of the plan's schema
LINKS = {"nvlink": "linked by NVLink", "pcie": "below one PCIe root", "host": "of one host"}


def plan_fleet(
    wishes: Sequence[Wish],
    hosts: Sequence[Host],
    base_port: int = BASE_PORT,
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
    check_addresses(hosts)
    check_gpus(hosts)
    warnings = list(hardware_warnings(hosts))
    sites = {site.name: site for host in hosts for site in host.sites()}
    standing = running_places(hosts, sites.values())
    choices: dict[str, Choice] = {}
    rejected = []
    for wish in wishes:
        allowed = [site for site in sites.values() if wish.host_names is None or site.host in wish.host_names]
        if not possible(wish.parallelism or Parallelism(), allowed):
            rejected.append(too_large(wish, allowed, hosts))  # whatever it weighs
            continue
        try:
            own = {part.host for slot, parts in standing.items() if slot[0] == wish.name for part in parts}
            choices[wish.name] = sizer.choose(wish, allowed, extents(wish, hosts), own)
        except PlacementError as error:
            rejected += error.rejected
    if rejected:
        raise PlacementError(rejected, warnings)
    offered = choices
    try:
        choices, places = assign(
            {wish.name: Aim(wish.replicas, wish.objective) for wish in wishes}, choices, sites, standing
        )
    except NoRoomError as error:
        wish = next(wish for wish in wishes if wish.name == error.demand.model)
        raise PlacementError([no_room(wish, choices[wish.name].shape, error, sites)], warnings) from None
    pools = {slot: sites[parts[0].host].pool for slot, parts in places.items()}
    used: dict[str, set[Pool]] = defaultdict(set)
    for (model, _ordinal), pool in pools.items():
        used[model].add(pool)
    choices = {wish.name: sizer.settle(wish, choices[wish.name], used[wish.name]) for wish in wishes}
    on_hosts = {
        slot: tuple(Place(sites[part.host].host, part.gpu_indices) for part in parts) for slot, parts in places.items()
    }
    ports = ports_of(on_hosts, wishes, hosts, base_port)
    by_name = {host.name: host for host in hosts}
    by_model = {wish.name: wish for wish in wishes}
    engines = {
        (model, pool): Engine(by_model[model], choices[model], pool, on_gpus=sizer.on_gpus, pin=pin_kv_cache)
        for model, pools_of in used.items()
        for pool in pools_of
    }
    tasks = {wish.name: (sizer.task(wish), sizer.task_options(wish)) for wish in wishes}
    instances = [
        _instance(by_model[slot[0]], engines[slot[0], pools[slot]], *tasks[slot[0]], slot, parts, by_name, ports[slot])
        for slot, parts in on_hosts.items()
    ]
    taken = {(part.host, gpu) for parts in on_hosts.values() for part in parts for gpu in part.gpu_indices}
    slower = {
        (model, pool): list(_slower(by_model[model], choices[model].shape, pool, offered[model], sites, taken))
        for model, pool in engines
    }
    for instance in instances:
        slot = (instance["model"], int(instance["id"].rpartition("-")[2]))
        instance["why"] += slower[slot[0], pools[slot]]
    instances.sort(key=lambda instance: (instance["model"], int(instance["id"].rpartition("-")[2])))
    return {
        "version": VERSION,
        "instances": instances,
        "rollout": _rollout(instances, by_name),
        "changes": changes(hosts, instances, wishes),
        "rejected": [row for choice in choices.values() for row in choice.rejected],
        "warnings": warnings + [warning for choice in choices.values() for warning in choice.warnings],
    }


def _rollout(instances: Sequence[Mapping[str, Any]], hosts: Iterable[str]) -> list[list[str]]:
    """Waves of the planned instances. What runs now is not looked at, so that a second run gives the same."""
    planned = [
        {"id": instance["id"], "model": instance["model"], "host_names": [node["host"] for node in instance["nodes"]]}
        for instance in instances
    ]
    return rollout_waves(planned, hosts)


def _slower(
    wish: Wish, shape: Shape, pool: Pool, offered: Choice, sites: Mapping[str, Site], taken: Collection[tuple[str, int]]
) -> Iterator[str]:
    """Why instances are not on the fastest kind of GPU; ``taken`` are the GPUs of all instances, by host."""
    found = {
        (choice.shape, kind): (choice, speed)
        for choice in (offered, *offered.instead)
        for kind, speed in choice.speeds.items()
    }
    own = found.get((shape, pool))
    if own is None:
        return
    fastest = max(found, key=lambda key: (found[key][1].value(wish.objective), repr(key)))
    choice, speed = found[fastest]
    if speed.value(wish.objective) > own[1].value(wish.objective) * STEP:
        free = (
            [[gpu for gpu in domain if (site.host, gpu) not in taken] for domain in site.domains]
            for site in sites.values()
            if site.pool == fastest[1] and site.name in choice.sites
        )
        linked, needed = fastest[0].linked, fastest[0].sets
        room = sum(sum(len(domain) // linked for domain in domains) >= needed for domains in free)
        what = "tokens/s for one request" if wish.objective == "latency" else "tokens/s at full load"
        than = [each.decode if wish.objective == "latency" else each.throughput for each in (speed, own[1])]
        why = "what runs stays where it is" if room >= fastest[0].host_count else "there is no room for it"
        words = f"{than[0]:,.0f} {what}, not {than[1]:,.0f}"
        yield f"{fastest[0]} on {fastest[1].gpu.name} would be faster ({words}), but {why}"


def _instance(
    wish: Wish,
    engine: Engine,
    task: str,
    task_options: Mapping[str, str],
    slot: Slot,
    places: Places,
    hosts: Mapping[str, Host],
    ports: Ports,
) -> dict[str, Any]:
    """An instance as the plan shows it."""
    head = hosts[places[0].host]
    why = [*engine.why]
    if engine.shape.gpu_count > 1:
        why.append(_linked(engine.shape, places, hosts))
    if len(places) > 1:
        why.append(_between(places, hosts))
    if wish.replicas is None:
        why.append(
            "replicas auto: as many as fit; of the automatic models that with the fewest instances gets the next one"
        )
    return {
        "id": name_of(slot),
        "model": wish.name,
        "task": task,
        "runtime": wish.runtime,
        "executor": (wish.executor or "mp") if len(places) > 1 else None,
        "parallelism": asdict(engine.shape.parallelism),
        "endpoint": {"host": head.name, "address": head.address, "port": ports.api},
        "rendezvous_port": ports.rendezvous,
        "nodes": [_node(rank, place, hosts[place.host]) for rank, place in enumerate(places)],
        "engine_args": _engine_args(wish, engine, task_options),
        "env": dict(wish.env),
        "adapters": [asdict(adapter) for adapter in sorted(wish.lora, key=lambda adapter: adapter.name)],
        "budget": engine.budget,
        "speed": engine.speed if task == "generate" else None,
        "why": why,
    }


def _linked(shape: Shape, places: Places, hosts: Mapping[str, Host]) -> str:
    """What joins the GPUs of an instance."""
    link = LINKS.get(hosts[places[0].host].hardware.link or "", "")
    if shape.is_split:
        own = f", those of a host {link}" if shape.linked > 1 else ""
        return f"tensor parallel over hosts: joined by the network between them{own}"
    if shape.parallelism.pipeline > 1:
        return f"the GPUs of a stage: {link}"
    return f"GPUs {', '.join(map(str, places[0].gpu_indices))}: {link}"


def _between(places: Places, hosts: Mapping[str, Host]) -> str:
    """What NCCL has between the hosts of an instance."""
    ports = {place.host: described(hosts[place.host].hardware.rdma) for place in places}
    without = [name for name, words in ports.items() if not words]
    if without:
        return f"between the hosts: TCP, as no InfiniBand or RoCE port is active on {', '.join(some(without))}"
    return f"between the hosts: {' / '.join(dict.fromkeys(ports.values()))}"


def _node(rank: int, place: Place, host: Host) -> dict[str, Any]:
    """The part of an instance on one host."""
    uuids = {gpu.index: gpu.uuid for gpu in host.hardware.gpus}
    return {
        "host": host.name,
        "address": host.cluster_address or host.address,
        "rank": rank,
        "role": "worker" if rank else "head",
        "gpus": [{"index": index, "uuid": uuids[index]} for index in place.gpu_indices],
    }


def _engine_args(wish: Wish, engine: Engine, task_options: Mapping[str, str]) -> dict[str, Any]:
    """What is true of the engine on any runtime, as vLLM's options; what is left to vLLM is not in it."""
    parallelism = engine.shape.parallelism
    arguments = {
        "model": wish.source,
        "revision": wish.revision,
        "served-model-name": wish.name,
        "tensor-parallel-size": parallelism.tensor,
        "pipeline-parallel-size": parallelism.pipeline,
        "enable-expert-parallel": parallelism.expert or None,
        **task_options,
        **engine.arguments,
        **wish.extra_args,
    }
    return {name: value for name, value in arguments.items() if value is not None}
