"""Decides which GPUs of which host an instance gets; private to the collection.

Pure and general: it knows demands (so many instances of so many GPUs), domains (GPUs of a host that may share an
instance) and what runs already, and nothing of models, memory or vLLM.

What runs and is still valid stays. The others go, the largest first, to the host with the fewest instances of their
model, then with the most free GPUs, then by name; there into the tightest domain that has room. Where no domain has
room although GPUs are free, the domain whose clearing moves the fewest instances is cleared, and those are placed anew.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Demand", "Domains", "NoRoomError", "Place", "Slot", "place_all"]

Domains = Mapping[str, Sequence[Sequence[int]]]  # by host: disjoint sets of GPU indices
Slot = tuple[str, int]  # an instance: its model and ordinal


@dataclass(frozen=True)
class Demand:
    """Instances of one model: ``replicas`` of them, or as many as fit (None)."""

    model: str
    gpus: int  # of one instance
    hosts: tuple[str, ...]  # where they may go
    replicas: int | None = None


@dataclass(frozen=True)
class Place:
    """Where an instance is."""

    host: str
    gpus: tuple[int, ...]


class NoRoomError(Exception):
    """Not all instances can be placed: of ``demand`` only ``placed``."""

    def __init__(self, demand: Demand, placed: int) -> None:
        super().__init__(f"{demand.model}: room for {placed}")
        self.demand = demand
        self.placed = placed


def place_all(demands: Sequence[Demand], domains: Domains, running: Mapping[Slot, Place]) -> dict[Slot, Place]:
    """A place for every instance; equal input gives equal places, in whatever order it comes.

    The automatic demands get as many instances as on an empty fleet, or fewer where for more what runs had to move.

    :raises NoRoomError: the demanded instances, or one of each automatic demand, have no room.
    """
    demands = sorted(demands, key=lambda demand: (-demand.gpus, len(demand.hosts), demand.model))
    fresh = _Floor(demands, domains)
    fresh.fill({demand.model: demand.replicas or 1 for demand in demands})
    growing = [demand for demand in demands if demand.replicas is None]
    while growing:  # in turns, so that every one gets its share
        growing = [demand for demand in growing if fresh.add(demand)]
    counts = Counter(model for model, _ordinal in fresh.places)
    kept = _Floor(demands, domains)
    kept.keep(running, counts)
    try:
        kept.fill({demand.model: demand.replicas or 1 for demand in demands})
    except NoRoomError:  # the moves that would be needed are more than were tried
        return fresh.places
    growing = [demand for demand in demands if demand.replicas is None]
    present = Counter(model for model, _ordinal in kept.places)
    while growing:  # nothing is moved to make room for one instance more
        growing = [demand for demand in growing if present[demand.model] < counts[demand.model] and kept.add(demand)]
        present.update(demand.model for demand in growing)
    return kept.places


class _Floor:
    """GPUs that are free, and instances that have places."""

    def __init__(self, demands: Sequence[Demand], domains: Domains) -> None:
        self.places: dict[Slot, Place] = {}
        self._demands = {demand.model: demand for demand in demands}
        self._free = {host: [set(domain) for domain in sets] for host, sets in domains.items()}
        self._inside: dict[tuple[str, int], set[Slot]] = defaultdict(set)  # by host and number of the domain
        self._count: Counter[tuple[str, str]] = Counter()  # instances by model and host
        self._ordinals: dict[str, int] = dict.fromkeys(self._demands, 1)  # of a model: all below are in use
        self._moved: set[Slot] = set()  # had to make room once
        # Hosts in the order of preference. An entry may be out of date: it is looked at again when it comes to the top.
        self._queues = {demand.model: [self._rank(demand, host) for host in demand.hosts] for demand in demands}
        for queue in self._queues.values():
            heapq.heapify(queue)

    def keep(self, running: Mapping[Slot, Place], counts: Mapping[str, int]) -> None:
        """Leave instances where they are, unless they are too many or their place does not suit them any more."""
        left = Counter(counts)
        allowed = {demand.model: set(demand.hosts) for demand in self._demands.values()}
        for slot, place in sorted(running.items()):
            model = slot[0]
            if left[model] and place.host in allowed[model] and len(place.gpus) == self._demands[model].gpus:
                for number, free in enumerate(self._free[place.host]):
                    if free.issuperset(place.gpus):
                        self._occupy(slot, number, place)
                        left[model] -= 1
                        break

    def fill(self, counts: Mapping[str, int]) -> None:
        """Place instances until there are as many as wanted, moving others out of the way where needed."""
        present = Counter(model for model, _ordinal in self.places)
        wanted = deque(
            demand for demand in self._demands.values() for _ in range(counts[demand.model] - present[demand.model])
        )
        while wanted:
            demand = wanted.popleft()
            if not self.add(demand):
                wanted.extendleft(self._make_room(demand))
                self.add(demand)

    def add(self, demand: Demand) -> bool:
        """Place one more instance if there is room for it."""
        host = self._best_host(demand)
        if host is None:
            return False
        room = [number for number, free in enumerate(self._free[host]) if len(free) >= demand.gpus]
        number = min(room, key=lambda number: (len(self._free[host][number]), min(self._free[host][number])))
        ordinal = self._ordinals[demand.model]
        while (demand.model, ordinal) in self.places:
            ordinal += 1
        self._ordinals[demand.model] = ordinal
        gpus = tuple(sorted(self._free[host][number])[: demand.gpus])
        self._occupy((demand.model, ordinal), number, Place(host, gpus))
        return True

    def _rank(self, demand: Demand, host: str) -> tuple[int, int, str]:
        """The smaller, the better."""
        return self._count[demand.model, host], -sum(map(len, self._free[host])), host

    def _best_host(self, demand: Demand) -> str | None:
        queue = self._queues[demand.model]
        while queue:
            host = queue[0][2]
            rank = self._rank(demand, host)
            if demand.gpus > max(map(len, self._free[host]), default=0):
                heapq.heappop(queue)
            elif rank != queue[0]:
                heapq.heapreplace(queue, rank)
            else:
                return host
        return None

    def _occupy(self, slot: Slot, number: int, place: Place) -> None:
        self._free[place.host][number].difference_update(place.gpus)
        self._inside[place.host, number].add(slot)
        self._count[slot[0], place.host] += 1
        self.places[slot] = place

    def _make_room(self, demand: Demand) -> list[Demand]:
        """Clear the domain where that moves the fewest instances; returns what has lost its place."""
        choices = []
        if sum(len(free) for sets in self._free.values() for free in sets) >= demand.gpus:
            for host in demand.hosts:
                for number in range(len(self._free[host])):
                    moving = self._in_the_way(demand, host, number)
                    if moving:
                        gpus = sum(len(self.places[slot].gpus) for slot in moving)
                        choices.append((len(moving), gpus, host, number, moving))
        if not choices:
            placed = sum(self._count[demand.model, host] for host in demand.hosts)
            raise NoRoomError(demand, placed)
        *_cost, host, number, moving = min(choices)
        for slot in moving:
            model, ordinal = slot
            self._free[host][number].update(self.places.pop(slot).gpus)
            self._inside[host, number].remove(slot)
            self._count[model, host] -= 1
            self._ordinals[model] = min(self._ordinals[model], ordinal)
            self._moved.add(slot)
        for other in self._demands.values():
            if host in other.hosts:
                heapq.heappush(self._queues[other.model], self._rank(other, host))
        return [self._demands[model] for model, _ordinal in moving]

    def _in_the_way(self, demand: Demand, host: str, number: int) -> list[Slot]:
        """The fewest instances that must leave a domain for the demand; empty if that cannot be."""
        room = len(self._free[host][number])
        leaving = []
        for slot in sorted(self._inside[host, number], key=lambda slot: (-len(self.places[slot].gpus), slot)):
            # The largest come first, so the fewest leave. What has left one place is left alone: no going in circles.
            if room < demand.gpus and slot[0] != demand.model and slot not in self._moved:
                room += len(self.places[slot].gpus)
                leaving.append(slot)
        return leaving if room >= demand.gpus else []
