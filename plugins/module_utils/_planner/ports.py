"""TCP ports of instances: those that they have stay theirs, new ones count up; private to the collection."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from .._wishes.read import Wish
from .hosts import Host, Running
from .place import Places, Slot

__all__ = ["BASE_PORT", "RENDEZVOUS_PORT", "Ports", "name_of", "ports_of"]

BASE_PORT = 8000  # the first; vLLM's own default of --port
RENDEZVOUS_PORT = 29501  # the first; vLLM's own default of --master-port


@dataclass(frozen=True)
class Ports:
    """TCP ports of an instance on the host of its head: the endpoint, and where its nodes meet (None: it has one)."""

    api: int
    rendezvous: int | None = None


def ports_of(
    places: Mapping[Slot, Places], wishes: Sequence[Wish], hosts: Sequence[Host], base_port: int
) -> dict[Slot, Ports]:
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
    ports: dict[Slot, Ports] = {}
    for host, slots in on_host.items():
        spread = [slot for slot in slots if len(places[slot]) > 1]
        running = {slot: now[host, name_of(slot)] for slot in slots if (host, name_of(slot)) in now}
        ports.update(_ports_on_host(slots, spread, running, first, base_port))
    return ports


def _ports_on_host(
    slots: Sequence[Slot],
    spread: Sequence[Slot],
    running: Mapping[Slot, Running],
    first: Mapping[str, int],
    base_port: int,
) -> dict[Slot, Ports]:
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
    return {slot: Ports(port, meeting.get(slot)) for port, slot in apis.items()}


def name_of(slot: Slot) -> str:
    return f"{slot[0]}-{slot[1]}"
