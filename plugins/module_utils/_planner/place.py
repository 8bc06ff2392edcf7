"""Decides which GPUs of which hosts an instance gets; private to the collection.

Pure and general: it knows demands (so many instances of so many sets of GPUs), domains (GPUs of a host that may form a
set), which hosts are alike, and what runs already, and nothing of models, memory or vLLM.

What runs and is still valid stays. The others go, the largest first, to the fastest hosts, of these to those with the
fewest instances of their model, then with the most free GPUs, then by name; there into the tightest domain that has
room for all sets, else into the fewest domains. An instance of several hosts takes equal parts of alike hosts.

Where there is no room although GPUs are free, the places whose clearing moves the fewest instances are cleared, and
those are placed anew. Where no GPUs are free either, automatic models give up what they have beyond one instance.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Demand", "Domains", "NoRoomError", "Place", "Places", "Slot", "place_all"]

Domains = Mapping[str, Sequence[Sequence[int]]]  # by host: disjoint sets of GPU indices
Slot = tuple[str, int]  # an instance: its model and ordinal
Rank = tuple[int, int, int, str]  # of a host; the smaller, the better


@dataclass(frozen=True)
class Demand:
    """Instances of one model: ``replicas`` of them, or as many as fit (None).

    An instance takes ``sets`` sets of ``gpu_count`` GPUs, each set within a domain, on each of ``span`` alike hosts.
    ``speeds`` says how fast one is on a host, in classes; the larger, the faster (0 where that is not known).
    """

    model: str
    gpu_count: int  # of one set
    host_names: tuple[str, ...]  # where they may go
    replicas: int | None = None
    sets: int = 1
    span: int = 1
    speeds: Mapping[str, int] = field(default_factory=dict)

    @property
    def part(self) -> int:
        """GPUs of one instance on one of its hosts."""
        return self.gpu_count * self.sets

    def fits(self, domains: Iterable[Collection[int]]) -> bool:
        """Whether the free GPUs of a host, by domain, hold its part of an instance."""
        return sum(len(free) // self.gpu_count for free in domains) >= self.sets


@dataclass(frozen=True)
class Place:
    """Where an instance is on one host; its sets of GPUs stand one after the other."""

    host: str
    gpu_indices: tuple[int, ...]


Places = tuple[Place, ...]  # of one instance, by rank


class NoRoomError(Exception):
    """Not all instances can be placed: of ``demand`` only ``placed``."""

    def __init__(self, demand: Demand, placed: int) -> None:
        super().__init__(f"{demand.model}: room for {placed}")
        self.demand = demand
        self.placed = placed


def place_all(
    demands: Sequence[Demand],
    domains: Domains,
    running: Mapping[Slot, Places],
    kinds: Mapping[str, Hashable] | None = None,
    *,
    still: bool = False,
) -> dict[Slot, Places]:
    """The places of every instance; equal input gives equal places, in whatever order it comes.

    Hosts are alike if they have equal ``kinds`` (None: they all are). What runs stays as long as the demanded
    instances, and one of each automatic demand, have room beside it. What is left then is shared by the automatic
    demands: that with the fewest instances gets the next one. With ``still`` nothing moves to make room.

    :raises NoRoomError: the demanded instances, or one of each automatic demand, have no room.
    """
    demands = sorted(demands, key=lambda demand: (-demand.part * demand.span, len(demand.host_names), demand.model))
    floor = _Floor(demands, domains, kinds or {})
    floor.keep(running)
    floor.fill(still=still)
    floor.grow()
    return floor.places


class _Floor:
    """GPUs that are free, and instances that have places."""

    def __init__(self, demands: Sequence[Demand], domains: Domains, kinds: Mapping[str, Hashable]) -> None:
        self.places: dict[Slot, Places] = {}
        self._demands = {demand.model: demand for demand in demands}
        self._allowed = {demand.model: frozenset(demand.host_names) for demand in demands}
        self._kinds = kinds
        self._domains = domains
        self._free = {host: [set(domain) for domain in sets] for host, sets in domains.items()}
        self._inside: dict[tuple[str, int], set[Slot]] = defaultdict(set)  # by host and number of the domain
        self._count: Counter[tuple[str, str]] = Counter()  # instances by model and host
        self._present: Counter[str] = Counter()  # instances by model
        self._ordinals: dict[str, int] = dict.fromkeys(self._demands, 1)  # of a model: all below are in use
        self._moved: set[Slot] = set()  # had to make room once
        # Hosts in the order of preference, by kind where that matters. An entry may be out of date, or be there twice:
        # it is looked at again when it comes to the top.
        self._queues: dict[str, dict[Hashable, list[Rank]]] = {}
        for demand in demands:
            queues = self._queues[demand.model] = defaultdict(list)
            for host in demand.host_names:
                queues[self._kind(demand, host)].append(self._rank(demand, host))
            for queue in queues.values():
                heapq.heapify(queue)

    def keep(self, running: Mapping[Slot, Places]) -> None:
        """Leave instances where they are, unless they are too many or their places do not suit them any more."""
        for slot, places in sorted(running.items()):
            demand = self._demands.get(slot[0])
            if demand is not None and (demand.replicas is None or self._present[demand.model] < demand.replicas):
                parts = [part for place in places for part in self._suitable(demand, place)]
                kinds = {self._kinds.get(part.host) for part in parts}
                hosts = {part.host for part in parts}
                if len(parts) == len(places) == len(hosts) == demand.span and len(kinds) == 1:
                    self._occupy(slot, tuple(parts))

    def _suitable(self, demand: Demand, place: Place) -> list[Place]:
        """The place with its sets in order; nothing if it is not free, or not what the demand is about."""
        if place.host not in self._allowed[demand.model] or len(place.gpu_indices) != demand.part:
            return []
        sets = [sorted(free.intersection(place.gpu_indices)) for free in self._free[place.host]]
        gpus = tuple(gpu for part in sets for gpu in part)
        whole = len(gpus) == demand.part and not any(len(part) % demand.gpu_count for part in sets)
        return [Place(place.host, gpus)] if whole else []

    def fill(self, *, still: bool) -> None:
        """Place instances until there are as many as have to be, moving others out of the way where needed."""
        wanted = deque(
            demand
            for demand in self._demands.values()
            for _ in range((demand.replicas or 1) - self._present[demand.model])
        )
        gave_way: list[Demand] = []
        while wanted:
            demand = wanted.popleft()
            if not self.add(demand):
                if still:
                    raise NoRoomError(demand, self._present[demand.model])
                for other in self._make_room(demand):
                    # What an automatic model has beyond one instance comes back only where there is room.
                    last = not self._present[other.model] and other not in wanted
                    if other.replicas is not None or last:
                        wanted.appendleft(other)
                    else:
                        gave_way.append(other)
                self.add(demand)
        for demand in gave_way:
            self.add(demand)

    def grow(self) -> None:
        """Share what is left: nothing is moved for it."""
        growing = [demand for demand in self._demands.values() if demand.replicas is None]
        while growing:
            least = min(growing, key=lambda demand: self._present[demand.model])
            if not self.add(least):
                growing.remove(least)

    def add(self, demand: Demand) -> bool:
        """Place one more instance if there is room for it."""
        hosts = self._best_hosts(demand)
        if not hosts:
            return False
        ordinal = self._ordinals[demand.model]
        while (demand.model, ordinal) in self.places:
            ordinal += 1
        self._ordinals[demand.model] = ordinal
        self._occupy((demand.model, ordinal), tuple(Place(host, self._pick(demand, host)) for host in hosts))
        return True

    def _pick(self, demand: Demand, host: str) -> tuple[int, ...]:
        """The GPUs for a part of an instance, on a host that has room for it."""
        free = self._free[host]

        def preference(number: int) -> tuple[bool, int, int]:
            size = len(free[number])
            return size < demand.part, size if size >= demand.part else -size, min(free[number], default=0)

        sets: Counter[int] = Counter()
        for number in sorted(range(len(free)), key=preference):
            sets[number] = min(demand.sets - sum(sets.values()), len(free[number]) // demand.gpu_count)
        return tuple(gpu for number in sorted(sets) for gpu in sorted(free[number])[: sets[number] * demand.gpu_count])

    def _kind(self, demand: Demand, host: str) -> Hashable:
        """What a host must have in common with the others of an instance: nothing if it is the only one."""
        return self._kinds.get(host) if demand.span > 1 else None

    def _rank(self, demand: Demand, host: str) -> Rank:
        free = sum(map(len, self._free[host]))
        return -demand.speeds.get(host, 0), self._count[demand.model, host], -free, host

    def _best_hosts(self, demand: Demand) -> list[str]:
        """The hosts for one more instance; none if there is no room."""
        tops = [self._top(demand, queue) for queue in self._queues[demand.model].values()]
        best = min((top for top in tops if len(top) == demand.span), default=[])
        return [rank[-1] for rank in best]

    def _top(self, demand: Demand, queue: list[Rank]) -> list[Rank]:
        """The best hosts of a queue, as many as an instance needs if there are as many."""
        found: list[Rank] = []
        while queue and len(found) < demand.span:
            host = queue[0][-1]
            rank = self._rank(demand, host)
            if not demand.fits(self._free[host]) or rank in found:
                heapq.heappop(queue)
            elif rank != queue[0]:
                heapq.heapreplace(queue, rank)
            else:
                found.append(heapq.heappop(queue))
        for rank in found:
            heapq.heappush(queue, rank)
        return found

    def _occupy(self, slot: Slot, places: Places) -> None:
        for place in places:
            for number, free in enumerate(self._free[place.host]):
                if not free.isdisjoint(place.gpu_indices):
                    free.difference_update(place.gpu_indices)
                    self._inside[place.host, number].add(slot)
            self._count[slot[0], place.host] += 1
        self.places[slot] = places
        self._present[slot[0]] += 1

    def _vacate(self, slot: Slot) -> None:
        model, ordinal = slot
        for place in self.places.pop(slot):
            for number, domain in enumerate(self._domains[place.host]):
                self._free[place.host][number].update(set(domain).intersection(place.gpu_indices))
                self._inside[place.host, number].discard(slot)
            self._count[model, place.host] -= 1
            for other in self._demands.values():
                if place.host in self._allowed[other.model]:
                    queue = self._queues[other.model][self._kind(other, place.host)]
                    heapq.heappush(queue, self._rank(other, place.host))
        self._present[model] -= 1
        self._ordinals[model] = min(self._ordinals[model], ordinal)
        self._moved.add(slot)

    def _make_room(self, demand: Demand) -> list[Demand]:
        """Clear the places where that moves the fewest instances; returns what has lost its place.

        Where too few GPUs are free for all, only models that can do with one instance less are asked.
        """
        free = sum(len(free) for sets in self._free.values() for free in sets)
        enough = free >= demand.part * demand.span
        ways: dict[Hashable, list[tuple[int, int, str, list[Slot]]]] = defaultdict(list)
        for host in demand.host_names:
            moving = self._in_the_way(demand, host, only_spare=not enough)
            if moving is not None:
                ways[self._kind(demand, host)].append((len(moving), self._gpus(moving), host, moving))
        choices = []
        for alike in ways.values():
            chosen = heapq.nsmallest(demand.span, alike)
            moving = sorted({slot for *_, leaving in chosen for slot in leaving})
            if len(chosen) == demand.span and moving:
                choices.append((len(moving), self._gpus(moving), [host for _, _, host, _ in chosen], moving))
        if not choices:
            raise NoRoomError(demand, self._present[demand.model])
        *_, moving = min(choices)
        for slot in moving:
            self._vacate(slot)
        return [self._demands[model] for model, _ordinal in moving]

    def _gpus(self, slots: Iterable[Slot]) -> int:
        return sum(len(place.gpu_indices) for slot in slots for place in self.places[slot])

    def _part(self, slot: Slot, host: str) -> int:
        """GPUs of an instance on one host."""
        return sum(len(place.gpu_indices) for place in self.places[slot] if place.host == host)

    def _is_spare(self, slot: Slot) -> bool:
        """Whether its model can do with one instance less."""
        return self._demands[slot[0]].replicas is None and self._present[slot[0]] > 1

    def _in_the_way(self, demand: Demand, host: str, *, only_spare: bool) -> list[Slot] | None:
        """The fewest instances that must leave a host for a part of one; None if that cannot be."""
        numbers = range(len(self._free[host]))
        regions = [[number] for number in numbers if len(self._domains[host][number]) >= demand.part]
        if demand.sets > 1:
            regions.append(list(numbers))
        found = []
        for region in regions:
            inside = {slot for number in region for slot in self._inside[host, number]}
            # What has left one place is left alone: no going in circles.
            movable = [slot for slot in inside if slot[0] != demand.model and slot not in self._moved]
            movable = [slot for slot in movable if self._is_spare(slot)] if only_spare else movable
            leaving: list[Slot] = []
            for slot in sorted(movable, key=lambda slot: (-self._part(slot, host), slot[0], -slot[1])):
                if self._fits(demand, host, region, leaving):
                    break
                leaving.append(slot)  # the largest first, so that the fewest leave
            for slot in leaving[:-1]:  # one whose GPUs came to no whole set may stay
                others = [other for other in leaving if other != slot]
                leaving = others if self._fits(demand, host, region, others) else leaving
            if self._fits(demand, host, region, leaving):
                found.append(leaving)
        return min(found, key=lambda slots: (len(slots), self._gpus(slots)), default=None)

    def _fits(self, demand: Demand, host: str, region: Iterable[int], leaving: Iterable[Slot]) -> bool:
        """Whether domains of a host have room for a part of an instance when others have left."""
        left = {
            gpu for slot in leaving for place in self.places[slot] if place.host == host for gpu in place.gpu_indices
        }
        return demand.fits(
            self._free[host][number] | left.intersection(self._domains[host][number]) for number in region
        )
