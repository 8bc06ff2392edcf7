"""Waves: hosts that may be changed together without leaving a model without a server; pure, private.

The rules of :func:`rollout_waves`:

- a wave is closed under instances: the hosts of one that spans several are changed together, because its nodes live and
  die together;
- of a model with several instances at most a quarter of them, rounded up, are away at a time. So two or three replicas
  go one by one (half of the capacity, or two thirds, stays), eight go by twos, and a large fleet takes about four waves
  however many hosts it has. A quarter is never all of several, so that no model is left without a server;
- hosts that cannot be parted and carry more than that quarter have a wave with no other host of the same model. Only
  where they carry all instances of a model is it away meanwhile, which no order of the hosts avoids;
- a model with one instance bounds nothing;
- hosts without instances are in the first wave: what goes wrong there harms nobody.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["rollout_waves"]

SHARE = 4  # one in so many instances of a model may be away at a time


def rollout_waves(instances: Sequence[Mapping[str, Any]], host_names: Iterable[str]) -> list[list[str]]:
    """Waves of the hosts in ``host_names``, every one of them once; by name inside a wave.

    ``instances`` are those that serve, or are planned, on whatever hosts: ``id``, ``model`` and ``host_names`` of
    each. They count as replicas also where their hosts are not to be changed. In whatever order both come, equal ones
    give equal waves. One that is given twice, as it runs and as it is planned, has the hosts of both.
    """
    names = sorted(set(host_names))
    model_of = {str(instance["id"]): str(instance["model"]) for instance in instances}
    hosts_of: dict[str, set[str]] = defaultdict(set)
    for instance in instances:
        hosts_of[str(instance["id"])].update(instance["host_names"])
    number = Counter(model_of.values())
    loads = _loads(model_of, hosts_of, names)
    waves: list[tuple[list[str], Counter[str]]] = []
    # The fullest first, because what is left over then finds room; those that carry nothing before all.
    for hosts, load in sorted(loads, key=lambda pair: (bool(pair[1]), -sum(pair[1].values()), pair[0])):
        for together, away in waves:
            if all(not away[model] or away[model] + count <= _most(number[model]) for model, count in load.items()):
                together.extend(hosts)
                away.update(load)
                break
        else:
            waves.append((list(hosts), Counter(load)))
    return [sorted(wave) for wave, _away in waves]


def _most(instances: int) -> int:
    """How many of so many instances of a model may be away at a time."""
    return instances if instances == 1 else -(-instances // SHARE)


def _loads(
    model_of: Mapping[str, str], hosts_of: Mapping[str, Iterable[str]], names: Sequence[str]
) -> list[tuple[list[str], Counter[str]]]:
    """Sets of hosts that cannot be parted, each with the instances by model that are away when it is."""
    joined = {name: name for name in names}  # to another of its set; the root of a set to itself

    def root(name: str) -> str:
        while joined[name] != name:
            joined[name] = joined[joined[name]]
            name = joined[name]
        return name

    here = {instance: sorted(name for name in hosts if name in joined) for instance, hosts in hosts_of.items()}
    for hosts in here.values():
        for name in hosts[1:]:
            low, high = sorted((root(hosts[0]), root(name)))
            joined[high] = low
    sets: dict[str, list[str]] = defaultdict(list)
    for name in names:
        sets[root(name)].append(name)
    loads: dict[str, Counter[str]] = {name: Counter() for name in sets}
    for instance, hosts in here.items():
        if hosts:
            loads[root(hosts[0])][model_of[instance]] += 1
    return [(hosts, loads[name]) for name, hosts in sets.items()]
