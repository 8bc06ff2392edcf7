"""Finds the choices of all models that do best beside each other, and their places; private to the collection.

Every model has its best choice, and others for when there is no room for that. First the best choices of all are tried;
then the model that has no room gets its next choice, and so on. Where it has none left, others get theirs, the smallest
first. From there the choices of one or two models are exchanged as long as that makes the whole better: the product of
what the objectives find in all models, so that none gains by what another loses more of (Nash's bargaining solution,
1950). Models that run keep their choice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from .choose import Choice
from .hosts import Site
from .place import Demand, NoRoomError, Places, Slot, place_all

__all__ = ["Aim", "assign", "worth"]

TRIES = 60  # ways that are tried, fewer of large fleets: one that has no room in any is soon told
EXCHANGES = 400  # that are tried in a fleet of some GPUs; none of one of a hundred hosts
BETTER = 1.01  # by what factor another way has to be better

Way = Mapping[str, int]  # which of its choices a model has
Result = tuple[dict[str, Choice], dict[Slot, Places]]


@dataclass(frozen=True)
class Aim:
    """What is wished of a model: so many replicas (None: automatic), and its objective."""

    replicas: int | None
    objective: str


def assign(
    aims: Mapping[str, Aim],
    choices: Mapping[str, Choice],
    sites: Mapping[str, Site],
    running: Mapping[Slot, Places],
) -> Result:
    """The choices that were taken, by model, and the places of all instances.

    What runs stays where it is if there is any way; then as few as can be give way; else all is placed anew.

    :raises NoRoomError: there is no room for the best choices, nor for any others that were tried.
    """
    problem: NoRoomError | None = None
    for kept, still in ((running, True), (running, False), ({}, False)) if running else (({}, False),):
        search = _Search(aims, choices, sites, kept, still=still)
        try:
            return search.improve(*search.first())
        except NoRoomError as error:
            problem = error
    raise problem or ValueError("there is no model to place")


class _Search:
    """Ways to give models their choices, on some sites."""

    def __init__(
        self,
        aims: Mapping[str, Aim],
        choices: Mapping[str, Choice],
        sites: Mapping[str, Site],
        kept: Mapping[Slot, Places],
        *,
        still: bool,
    ) -> None:
        """``kept`` runs, and with ``still`` nothing moves to make room."""
        self._aims = aims
        self._kept = kept
        self._still = still
        self._options = {name: _keeping(name, choice, kept) for name, choice in choices.items()}
        self._sites = sites
        self._domains = {site.name: site.domains for site in sites.values()}
        self._kinds = {site.name: site.pool for site in sites.values()}
        self._tries = max(1, TRIES // (1 + len(sites) // 50))

    def _place(self, way: Way) -> Result:
        taken = {name: self._options[name][number] for name, number in way.items()}
        demands = [self._demand(name, choice) for name, choice in taken.items()]
        return taken, place_all(demands, self._domains, self._kept, self._kinds, still=self._still)

    def _demand(self, name: str, choice: Choice) -> Demand:
        shape, replicas = choice.shape, self._aims[name].replicas
        return Demand(name, shape.linked, choice.sites, replicas, shape.sets, shape.host_count, choice.ranks)

    def first(self) -> tuple[Way, Result]:
        """The first way that has room."""
        problem: NoRoomError | None = None
        ways: list[Way] = [dict.fromkeys(self._options, 0)]
        seen: set[tuple[int, ...]] = set()
        while ways and len(seen) < self._tries:
            way = ways.pop()
            if tuple(way.values()) in seen:
                continue
            seen.add(tuple(way.values()))
            try:
                return way, self._place(way)
            except NoRoomError as error:
                problem = problem or error
                ways += self._next_ways(way, error.demand.model)
        # Last, all models where each has the most hosts to go to.
        widest = {
            name: max(range(len(own)), key=lambda number: (len(own[number].sites), -number))
            for name, own in self._options.items()
        }
        try:
            return widest, self._place(widest)
        except NoRoomError as error:
            raise problem or error from None

    def _next_ways(self, way: Way, short: str) -> list[Way]:
        """Ways with the next choice of one model, the last the best: of that ``short`` of room, else of a small one."""
        options = self._options
        names = sorted(way, key=lambda name: (name != short, options[name][0].shape.gpu_count, name))
        return [{**way, name: way[name] + 1} for name in reversed(names) if way[name] + 1 < len(options[name])]

    def improve(self, way: Way, result: Result) -> Result:
        """The best way from one on, if the speeds of all are known."""
        most = self._score(result)
        runs = {model for model, _ordinal in self._kept}
        spread = {name for name in way if any(choice.shape.host_count > 1 for choice in self._options[name])}
        steps = [
            (name, number)
            for name in sorted(set(way).difference(runs, spread))
            for number, other in enumerate(self._options[name])
            if other.promises(self._options[name][way[name]])
        ]
        tries = EXCHANGES // (1 + len(self._sites) * len(way) // 10)
        exchanges = [
            *([step] for step in steps),
            *([one, two] for one, two in combinations(steps, 2) if one[0] != two[0]),
        ]
        improved = most > -math.inf
        while improved:
            improved = False
            for exchange in exchanges:
                another = {**way, **dict(exchange)}
                if another == way:
                    continue
                if not tries:
                    return result
                tries -= 1
                try:
                    found = self._place(another)
                except NoRoomError:
                    continue
                score = self._score(found)
                if score > most + math.log(BETTER):
                    way, result, most, improved = another, found, score, True
        return result

    def _score(self, result: Result) -> float:
        """The logarithm of the product of what the objectives find: of ``latency`` one instance, else all together."""
        choices, places = result
        values: dict[str, list[float]] = defaultdict(list)
        for (model, _ordinal), parts in places.items():
            if len(parts) > 1:
                continue  # the network between hosts is not known
            speed = choices[model].speeds.get(self._sites[parts[0].host].pool)
            if speed is None:
                return -math.inf
            values[model].append(speed.value(self._aims[model].objective))
        return sum(math.log(worth(self._aims[model], found)) for model, found in values.items())


def _keeping(name: str, choice: Choice, kept: Mapping[Slot, Places]) -> list[Choice]:
    """The choices of a model in which all that runs may stay that may stay in the best one."""
    standing = {part.host for slot, parts in kept.items() if slot[0] == name for part in parts}
    staying = standing.intersection(choice.sites)
    others = [other for other in choice.instead if not standing or other.shape == choice.shape]
    return [choice, *(other for other in others if staying.issubset(other.sites))]


def worth(aim: Aim, values: Sequence[float]) -> float:
    """What an objective finds in the instances of a model.

    Of ``latency`` that is the slowest of so many that were wished, and the fastest of automatic ones; else the sum.
    """
    if aim.objective == "latency":
        return max(values) if aim.replicas is None else min(values)
    return sum(values)
