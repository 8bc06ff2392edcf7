"""Finds the choices of all models that have room beside each other, and their places; private to the collection.

Every model has its best choice, and others for when there is no room for that. First the best choices of all are tried;
then the model that has no room gets its next choice, and so on. Where it has none left, others get theirs, the smallest
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .choose import Choice
from .hosts import Site
from .place import Demand, NoRoomError, Places, Slot, place_all

__all__ = ["assign"]

TRIES = 60  # ways that are tried, fewer of large fleets: one that has no room in any is soon told


def assign(
    replicas: Mapping[str, int | None],
    choices: Mapping[str, Choice],
    sites: Mapping[str, Site],
    running: Mapping[Slot, Places],
) -> tuple[dict[str, Choice], dict[Slot, Places]]:
    """The choices that were taken, by model, and the places of all instances.

    What runs stays where it is if there is any way; then as few as can be give way; else all is placed anew.

    :raises NoRoomError: there is no room for the best choices, nor for any others that were tried.
    """
    domains = {site.name: site.domains for site in sites.values()}
    kinds = {site.name: site.pool for site in sites.values()}
    options = {name: [choice, *choice.instead] for name, choice in choices.items()}
    tries = max(1, TRIES // (1 + len(sites) // 50))
    problem: NoRoomError | None = None
    for kept, still in ((running, True), (running, False), ({}, False)) if running else (({}, False),):
        problem = None
        ways = [dict.fromkeys(choices, 0)]
        for _ in range(tries):
            if not ways:
                break
            way = ways.pop()
            taken = {name: options[name][number] for name, number in way.items()}
            demands = [_demand(name, replicas[name], choice) for name, choice in taken.items()]
            try:
                return taken, place_all(demands, domains, kept, kinds, still=still)
            except NoRoomError as error:
                problem = problem or error
                ways += _next_ways(way, error.demand.model, options)
    if problem is None:
        raise ValueError("there is no model to place")
    raise problem


def _next_ways(way: Mapping[str, int], short: str, options: Mapping[str, Sequence[Choice]]) -> list[dict[str, int]]:
    """Ways with the next choice of one model, the last the best: of the one ``short`` of room, else a small one."""
    names = sorted(way, key=lambda name: (name != short, options[name][0].shape.gpu_count, name))
    return [{**way, name: way[name] + 1} for name in reversed(names) if way[name] + 1 < len(options[name])]


def _demand(name: str, replicas: int | None, choice: Choice) -> Demand:
    shape = choice.shape
    return Demand(name, shape.linked, choice.sites, replicas, shape.sets, shape.host_count, choice.ranks)
