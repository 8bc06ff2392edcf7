"""How near to the best placement is the planner's? ``python tests/benchmarks/placement.py [--cases N] [--json]``.

Random fleets of up to 12 GPUs of mixed types with one to four models are planned, and searched exhaustively: every
choice that the planner has for each model (a shape and kinds of GPU), every number of instances, and every way to put
them on hosts. Told are

- *required*: of the fleets where any way places the demanded replicas and one of each automatic model, the share that
  the planner plans (goal: 100 %);
- *objective*: of a plan, against the best of all ways. What counts is, for each model, what its objective finds in its
  instances, as a share of the most it has in any way; a plan is worth the product of these. Goal: within 3 % in 95 % of
  the fleets, and within 15 % in all.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.assign import Aim, assign, worth
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Choice, Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host, Site
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.place import NoRoomError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import Wish, read_wishes

from tests.unit.fleets import A100, H100, L40S, RTX4090, facts, host

VERSION = "0.33.0"
MODELS = ("llama-3.2-1b-instruct", "qwen3-8b", "gpt-oss-20b", "qwen3-30b-a3b", "llama-3.3-70b-instruct")
KINDS = (H100, A100, L40S, RTX4090)
MOST_GPUS = 12

Counts = tuple[tuple[int, ...], ...]  # instances of each model by site


@dataclass(frozen=True)
class Option:
    """One way for a model: GPUs of an instance, and what one is worth on each site (0: it may not go there)."""

    gpu_count: int
    worth: tuple[float, ...]


def fleet(chance: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Models and hosts."""
    hosts: list[dict[str, Any]] = []
    left = chance.randint(1, MOST_GPUS)
    while left:
        size = min(left, chance.choice([1, 2, 4, 8]))
        hosts.append(host(f"gpu{len(hosts) + 1}", size, chance.choice(KINDS)))
        left -= size
    models = [
        {
            "name": name,
            "source": "owner/model",
            "objective": chance.choice(["throughput", "latency", "balanced"]),
            "replicas": chance.choice(["auto", 1, 1, 2]),
        }
        for name in chance.sample(MODELS, chance.randint(1, 4))
    ]
    return models, hosts


def options_of(wish: Wish, choice: Choice, taken: Choice | None, sites: Sequence[Site]) -> list[Option]:
    """The ways of a model that promise what the one does that was taken (None: all), on one host each."""
    return [
        Option(
            one.shape.gpu_count,
            tuple(
                one.speeds[site.pool].value(wish.objective)
                if site.name in one.sites and site.pool in one.speeds
                else 0.0
                for site in sites
            ),
        )
        for one in (choice, *choice.instead)
        if one.shape.host_count == 1 and (taken is None or one.promises(taken))
    ]


def counts_of(option: Option, free: Sequence[int], limit: int | None) -> Iterator[tuple[int, ...]]:
    """Every way to put instances on the sites: at least one, exactly so many if there is a limit."""

    def rest(place: int, left: int | None) -> Iterator[tuple[int, ...]]:
        if place == len(free):
            if not left:
                yield ()
            return
        most = free[place] // option.gpu_count if option.worth[place] else 0
        for number in range((most if left is None else min(most, left)) + 1):
            for others in rest(place + 1, None if left is None else left - number):
                yield (number, *others)

    return (found for found in rest(0, limit) if any(found))


def value(wish: Wish, option: Option, found: Sequence[int]) -> float:
    """What the objective finds in all instances."""
    values = [option.worth[place] for place, number in enumerate(found) for _ in range(number)]
    return worth(Aim(wish.replicas, wish.objective), values)


def best(wishes: Sequence[Wish], options: Sequence[Sequence[Option]], free: Sequence[int]) -> Iterator[list[float]]:
    """What all models have in every way that there is."""
    if not wishes:
        yield []
        return
    for option in options[0]:
        for found in counts_of(option, free, wishes[0].replicas):
            left = [size - number * option.gpu_count for size, number in zip(free, found, strict=True)]
            own = value(wishes[0], option, found)
            for others in best(wishes[1:], options[1:], left):
                yield [own, *others]


def judge(seed: int) -> dict[str, Any] | None:
    """One fleet: whether there is any way, whether the planner has one, and what that lacks of the best (percent)."""
    models, described = fleet(random.Random(seed))
    known = {model["name"]: facts(model["name"]) for model in models}
    wishes, _ = read_wishes(models, VERSION)
    sites = [site for record in described for site in Host.from_dict(record).sites()]
    sizer = Sizer(Accounts(known, VERSION))
    try:
        choices = {wish.name: sizer.choose(wish, sites) for wish in wishes}
    except PlacementError:
        return None  # one of the models fits nowhere
    by_name = {site.name: site for site in sites}
    aims = {wish.name: Aim(wish.replicas, wish.objective) for wish in wishes}
    taken: dict[str, Choice] = {}
    try:
        taken, places = assign(aims, choices, by_name, {})
    except NoRoomError:
        places = {}
    options = [options_of(wish, choices[wish.name], taken.get(wish.name), sites) for wish in wishes]
    ways = list(best(wishes, options, [sum(site.pool.domains) for site in sites]))
    if not taken:
        return {"seed": seed, "possible": bool(ways), "placed": False}
    hosts = {wish.name: [parts[0].host for slot, parts in places.items() if slot[0] == wish.name] for wish in wishes}
    values = [_value(wish, taken[wish.name], hosts[wish.name], by_name) for wish in wishes]
    most = [max(way[number] for way in [*ways, values]) for number in range(len(wishes))]
    share = max(math.prod(_shares(way, most)) for way in [*ways, values])
    return {
        "seed": seed,
        "possible": True,
        "placed": True,
        "lack": 100 * (1 - math.prod(_shares(values, most)) / share),
    }


def _value(wish: Wish, choice: Choice, hosts: Sequence[str], sites: Mapping[str, Site]) -> float:
    """What the objective finds in the planner's instances."""
    values = [choice.speeds[sites[name].pool].value(wish.objective) for name in hosts]
    return worth(Aim(wish.replicas, wish.objective), values)


def _shares(values: Sequence[float], most: Sequence[float]) -> list[float]:
    return [value / top if top else 1.0 for value, top in zip(values, most, strict=True)]


def main(argv: list[str]) -> int:
    """Judge so many fleets and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args(argv)
    found = [case for case in map(judge, range(options.cases)) if case]
    possible = [case for case in found if case["possible"]]
    placed = [case for case in possible if case["placed"]]
    lacks = sorted(case["lack"] for case in placed)
    near = sum(lack <= 3 for lack in lacks)
    result = {
        "fleets": options.cases,
        "possible": len(possible),
        "required": round(100 * len(placed) / len(possible), 2) if possible else None,
        "within_3_percent": round(100 * near / len(lacks), 2) if lacks else None,
        "worst_percent": round(lacks[-1], 1) if lacks else None,
    }
    if options.json:
        print(json.dumps(result))
        return 0
    for key, value in result.items():
        print(f"{key:18}{value}")
    for case in sorted(placed, key=lambda case: -case["lack"])[:5]:
        print(f"  {case['lack']:5.1f} % below the best: fleet {case['seed']}")
    for case in possible:
        if not case["placed"]:
            print(f"  not placed: fleet {case['seed']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
