"""TCP ports of instances: those that they have stay theirs, new ones count up; private to the collection.

An instance over several hosts has a block of ports, the same on each of them, so that a firewall can be told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from .._wishes.read import Wish
from .hosts import Host, Running
from .place import Places, Slot

__all__ = [
    "BASE_PORT",
    "BLOCK",
    "KEEPER",
    "RAY",
    "RAY_HEAD_ONLY",
    "RAY_METRICS",
    "RAY_WORKERS",
    "RENDEZVOUS_PORT",
    "Ports",
    "block",
    "name_of",
    "ports_of",
]

BASE_PORT = 8000  # the first; vLLM's own default of --port
RENDEZVOUS_PORT = 29501  # the first; vLLM's own default of --master-port

# The ports of an instance over hosts, counted from the one where its nodes meet (0). Of Ray, by option of `ray start`
# (https://docs.ray.io/en/latest/ray-core/configure.html#ports-configurations); the others it would choose at random.
BLOCK = 100
KEEPER = -1
RAY = {
    "port": 1,  # the global control store
    "node-manager-port": 2,
    "object-manager-port": 3,
    "runtime-env-agent-port": 4,
    "dashboard-agent-grpc-port": 5,
    "dashboard-agent-listen-port": 6,
    "metrics-export-port": 7,
    "dashboard-port": 8,  # nothing listens there: it is off
    "ray-client-server-port": 9,
}
RAY_METRICS = 10  # of the head: its monitor takes the port from a variable of the environment
RAY_HEAD_ONLY = ("port", "dashboard-port", "ray-client-server-port")
RAY_WORKERS = (19, 98)  # the first and the last


@dataclass(frozen=True)
class Ports:
    """TCP ports of an instance: the endpoint on its head, and where its nodes meet (None: it has one)."""

    api: int
    rendezvous: int | None = None


def ports_of(
    places: Mapping[Slot, Places], wishes: Sequence[Wish], hosts: Sequence[Host], base_port: int
) -> dict[Slot, Ports]:
    """The ports of every instance, no two alike on a host.

    Instances of a model that has a ``port`` count up from it on every host. The others keep the port they have, and
    new ones count up from ``base_port``. A port that stands in a wish is never given to another model. An instance over
    hosts has a block of :data:`BLOCK` ports (:func:`block`), free on all of them; blocks are kept too, and new ones
    count up from :data:`RENDEZVOUS_PORT`.
    """
    first = {wish.name: wish.port for wish in wishes if wish.port is not None}
    now = {(host.name, running.id): running for host in hosts for running in host.running if not running.rank}
    on_host: dict[str, list[Slot]] = defaultdict(list)
    for slot, parts in sorted(places.items()):
        on_host[parts[0].host].append(slot)
    spread = [slot for slot, parts in sorted(places.items()) if len(parts) > 1]
    running = {slot: now[parts[0].host, name_of(slot)] for slot, parts in places.items() if _had(now, slot, parts)}
    meeting = _blocks(spread, places, running, first)
    apis: dict[Slot, int] = {}
    for host, slots in on_host.items():
        taken = {port for slot, start in meeting.items() if _is_on(places[slot], host) for port in block(start)}
        apis.update(_apis(slots, taken, running, first, base_port))
    return {slot: Ports(port, meeting.get(slot)) for slot, port in apis.items()}


def block(rendezvous: int) -> range:
    """The ports of an instance over hosts, on each of them; see :data:`KEEPER`, :data:`RAY` and :data:`RAY_WORKERS`."""
    return range(rendezvous + KEEPER, rendezvous + KEEPER + BLOCK)


def _had(now: Mapping[tuple[str, str], Running], slot: Slot, parts: Places) -> bool:
    return (parts[0].host, name_of(slot)) in now


def _is_on(parts: Places, host: str) -> bool:
    return any(part.host == host for part in parts)


def _blocks(
    spread: Sequence[Slot],
    places: Mapping[Slot, Places],
    running: Mapping[Slot, Running],
    first: Mapping[str, int],
) -> dict[Slot, int]:
    """Where the nodes of each instance over hosts meet: a block that no other has, nor an endpoint."""
    instances = Counter(model for model, _ordinal in places)
    endpoints = {port for model, start in first.items() for port in range(start, start + instances[model])}
    # Endpoints that stay: new ones count up from the base port and pass over blocks.
    endpoints |= {present.port for slot, present in running.items() if slot[0] not in first}
    chosen: dict[Slot, int] = {}

    def is_free(slot: Slot, start: int) -> bool:
        ports = set(block(start))
        met = (at for other, at in chosen.items() if any(_is_on(places[other], part.host) for part in places[slot]))
        return not ports & endpoints and not any(ports & set(block(at)) for at in met)

    for slot in spread:
        present = running[slot].master_port if slot in running else None
        if present is not None and is_free(slot, present):
            chosen[slot] = present
    for slot in spread:
        if slot not in chosen:
            chosen[slot] = next(start for start in count(RENDEZVOUS_PORT, BLOCK) if is_free(slot, start))
    return chosen


def _apis(
    slots: Sequence[Slot],
    taken: Collection[int],
    running: Mapping[Slot, Running],
    first: Mapping[str, int],
    base_port: int,
) -> dict[Slot, int]:
    """The endpoints of the instances that have their head on a host, where ports are ``taken``."""
    owner = {port: model for model, port in first.items()}
    instances = Counter(model for model, _ordinal in slots)
    apis: dict[int, Slot] = {}
    for slot in slots:
        if slot not in running:
            continue
        model, port = slot[0], running[slot].port
        suits = model not in first or port in range(first[model], first[model] + instances[model])
        if suits and owner.get(port, model) == model and port not in taken:
            apis.setdefault(port, slot)
    for slot in sorted(set(slots).difference(apis.values()), key=lambda slot: (slot[0] not in first, slot)):
        free = (port for port in count(first.get(slot[0], base_port)) if port not in apis and port not in taken)
        apis[next(port for port in free if owner.get(port, slot[0]) == slot[0])] = slot
    return {slot: port for port, slot in apis.items()}


def name_of(slot: Slot) -> str:
    return f"{slot[0]}-{slot[1]}"
