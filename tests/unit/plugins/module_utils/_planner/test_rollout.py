"""Waves: closed under instances, nobody stranded, every host once, whatever the order."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.rollout import rollout_waves
from hypothesis import given
from hypothesis import strategies as st

HOSTS = [f"gpu{number}" for number in range(1, 9)]


def instance(name: str, *hosts: str) -> dict[str, Any]:
    return {"id": name, "model": name.rpartition("-")[0], "host_names": list(hosts)}


def replicas(model: str, *hosts: str) -> list[dict[str, Any]]:
    return [instance(f"{model}-{number}", host) for number, host in enumerate(hosts, 1)]


@pytest.mark.parametrize(
    ("instances", "waves"),
    [
        pytest.param([], [HOSTS], id="nothing runs: all at once"),
        pytest.param(replicas("a", "gpu1"), [HOSTS], id="one instance is away in any order"),
        pytest.param(
            replicas("a", "gpu2", "gpu1"),
            [["gpu1", "gpu3", "gpu4", "gpu5", "gpu6", "gpu7", "gpu8"], ["gpu2"]],
            id="two replicas one by one, empty hosts first",
        ),
        pytest.param(replicas("a", *HOSTS), [HOSTS[:2], HOSTS[2:4], HOSTS[4:6], HOSTS[6:]], id="eight by twos"),
        pytest.param(
            [instance("a-1", "gpu1", "gpu2"), instance("a-2", "gpu3", "gpu4")],
            [["gpu1", "gpu2", "gpu5", "gpu6", "gpu7", "gpu8"], ["gpu3", "gpu4"]],
            id="the hosts of an instance go together",
        ),
        pytest.param(
            [instance("a-1", "gpu1", "gpu2"), instance("b-1", "gpu2", "gpu3"), *replicas("c", "gpu3", "gpu4")],
            [["gpu1", "gpu2", "gpu3", "gpu5", "gpu6", "gpu7", "gpu8"], ["gpu4"]],
            id="so do hosts that instances join in a chain",
        ),
        pytest.param(
            replicas("a", "gpu1", "gpu1", "gpu1", "gpu1", "gpu2"),
            [["gpu1", "gpu3", "gpu4", "gpu5", "gpu6", "gpu7", "gpu8"], ["gpu2"]],
            id="a host that carries more than a quarter goes without another of that model",
        ),
    ],
)
def test_waves(instances: list[dict[str, Any]], waves: list[list[str]]) -> None:
    assert rollout_waves(instances, HOSTS) == waves


def test_replicas_elsewhere_count() -> None:
    instances = replicas("a", "gpu1", "gpu2", "gpu3", "gpu4", "gpu5")
    assert rollout_waves(instances, ["gpu1", "gpu2"]) == [["gpu1", "gpu2"]], "three of five go on serving"
    assert rollout_waves(instances[:2], ["gpu1", "gpu2"]) == [["gpu1"], ["gpu2"]]


def test_an_instance_that_reaches_beyond_the_hosts_to_change() -> None:
    instances = [instance("a-1", "gpu1", "gpu3"), instance("a-2", "gpu2")]
    assert rollout_waves(instances, ["gpu1", "gpu2"]) == [["gpu1"], ["gpu2"]]


def test_what_moves_is_away_once() -> None:
    running, planned = [instance("a-1", "gpu1"), instance("a-2", "gpu2")], [instance("a-1", "gpu3")]
    assert rollout_waves(running + planned, HOSTS[:3]) == [["gpu1", "gpu3"], ["gpu2"]]


def test_no_hosts() -> None:
    assert rollout_waves(replicas("a", "gpu1"), []) == []


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[str]]:
    models = draw(st.lists(st.integers(1, 9), max_size=4))
    places = st.lists(st.sampled_from(HOSTS), unique=True, min_size=1, max_size=3)
    narrow = st.sampled_from(HOSTS).map(lambda host: [host])
    instances = [
        instance(f"{model}-{number}", *draw(st.one_of(narrow, narrow, narrow, places)))
        for model, count in zip("abcd", models, strict=False)
        for number in range(1, count + 1)
    ]
    return instances, draw(st.lists(st.sampled_from(HOSTS), unique=True))


@given(fleets(), st.randoms(use_true_random=False))
def test_the_promises(fleet: tuple[list[dict[str, Any]], list[str]], chance: Any) -> None:
    instances, names = fleet
    waves = rollout_waves(instances, names)
    assert sorted(host for wave in waves for host in wave) == sorted(names), "every host once"
    assert all(waves)
    number = Counter(one["model"] for one in instances)
    busy = {host for one in instances for host in one["host_names"]}
    assert not waves or set(names) - busy <= set(waves[0]), "hosts without instances first"
    for wave in waves:
        away = [one for one in instances if set(one["host_names"]) & set(wave)]
        for one in away:
            assert set(one["host_names"]) & set(names) <= set(wave), "closed under instances"
        for model, count in Counter(one["model"] for one in away).items():
            if count > max(1, ceil(number[model] / 4)):
                bound = joined(wave, instances)
                own = [
                    part
                    for part in bound
                    if any(one["model"] == model and set(one["host_names"]) & part for one in away)
                ]
                assert len(own) == 1, "only hosts that cannot be parted take more, and then alone"
    jumbled = [{**one, "host_names": chance.sample(one["host_names"], len(one["host_names"]))} for one in instances]
    chance.shuffle(jumbled)
    assert rollout_waves(jumbled, chance.sample(names, len(names))) == waves, "the order means nothing"


@given(fleets())
def test_no_wave_takes_the_last_replica_of_a_model_that_has_another_elsewhere(
    fleet: tuple[list[dict[str, Any]], list[str]],
) -> None:
    instances, names = fleet
    for wave in rollout_waves(instances, names):
        for model in {one["model"] for one in instances}:
            own = [one for one in instances if one["model"] == model]
            if all(set(one["host_names"]) & set(wave) for one in own):
                parts = [part for part in joined(wave, instances) if any(set(one["host_names"]) & part for one in own)]
                assert len(parts) == 1, "all its replicas hang together, or it has one"


def joined(wave: list[str], instances: list[dict[str, Any]]) -> list[set[str]]:
    """The hosts of a wave in sets that instances hold together."""
    parts = [{host} for host in wave]
    for one in instances:
        touched = [part for part in parts if part & set(one["host_names"])]
        if touched:
            parts = [part for part in parts if part not in touched] + [set().union(*touched)]
    return parts
