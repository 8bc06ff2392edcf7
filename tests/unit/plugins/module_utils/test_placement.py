"""Placing instances on GPUs: what holds for every fleet, and what the rules come to in small ones."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._placement import (
    Demand,
    NoRoomError,
    Place,
    Slot,
    place_all,
)
from hypothesis import given, settings
from hypothesis import strategies as st

PAIR = {"h1": [[0, 1]], "h2": [[0, 1]]}
HOSTS = ("h1", "h2")

domains_of_a_host = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(
    lambda sizes: [list(range(sum(sizes[:i]), sum(sizes[: i + 1]))) for i in range(len(sizes))]
)
fleets = st.dictionaries(st.sampled_from(["h1", "h2", "h3", "h4"]), domains_of_a_host, min_size=1)


@st.composite
def demanded(draw: st.DrawFn) -> tuple[list[Demand], dict[str, list[list[int]]]]:
    domains = draw(fleets)
    names = draw(st.lists(st.sampled_from("abcde"), unique=True, min_size=1, max_size=4))
    hosts = st.lists(st.sampled_from(sorted(domains)), unique=True, min_size=1).map(tuple)
    replicas = st.one_of(st.none(), st.integers(1, 4))
    return [Demand(name, draw(st.integers(1, 4)), draw(hosts), draw(replicas)) for name in names], domains


def check(demands: Sequence[Demand], domains: Mapping[str, list[list[int]]], places: Mapping[Slot, Place]) -> None:
    """What every placement promises."""
    by_model = {demand.model: demand for demand in demands}
    used: Counter[tuple[str, int]] = Counter()
    for (model, _ordinal), place in places.items():
        assert place.host in by_model[model].hosts
        assert len(place.gpus) == by_model[model].gpus
        assert any(set(place.gpus) <= set(domain) for domain in domains[place.host])
        used.update((place.host, gpu) for gpu in place.gpus)
    assert set(used.values()) <= {1}, "no GPU is given twice"
    counts = Counter(model for model, _ordinal in places)
    for demand in demands:
        assert counts[demand.model] == demand.replicas or (demand.replicas is None and counts[demand.model] >= 1)


@settings(deadline=None, max_examples=300)
@given(demanded(), st.randoms(use_true_random=False))
def test_promises_hold_for_every_fleet(
    fleet: tuple[list[Demand], dict[str, list[list[int]]]], chance: random.Random
) -> None:
    demands, domains = fleet
    try:
        places = place_all(demands, domains, {})
    except NoRoomError:
        return
    check(demands, domains, places)
    hosts = list(domains.items())
    chance.shuffle(hosts)
    chance.shuffle(demands)
    assert place_all(demands, dict(hosts), {}) == places, "the order of hosts and models means nothing"
    assert place_all(demands, domains, places) == places, "what runs stays"
    more = {**domains, "h9": [[0, 1, 2, 3]]}
    fixed = [demand for demand in demands if demand.replicas is not None]
    kept = {slot: place for slot, place in places.items() if slot[0] in {demand.model for demand in fixed}}
    assert place_all(fixed, more, kept) == kept, "another host moves nothing"


@settings(deadline=None, max_examples=300)
@given(demanded(), demanded())
def test_promises_hold_whatever_runs(
    fleet: tuple[list[Demand], dict[str, list[list[int]]]], before: tuple[list[Demand], dict[str, list[list[int]]]]
) -> None:
    demands, domains = fleet
    try:
        running = place_all(*before, {})
    except NoRoomError:
        running = {}
    try:
        places = place_all(demands, domains, running)
    except NoRoomError:
        return
    check(demands, domains, places)
    assert place_all(demands, domains, places) == places


def test_replicas_spread_then_go_where_most_is_free_then_by_name() -> None:
    domains = {"h1": [[0, 1]], "h2": [[0, 1, 2, 3]], "h3": [[0, 1, 2, 3]]}
    places = place_all([Demand("a", 1, ("h1", "h2", "h3"), 5)], domains, {})
    assert [place.host for _slot, place in sorted(places.items())] == ["h2", "h3", "h1", "h2", "h3"]


def test_the_tightest_domain_is_taken() -> None:
    places = place_all([Demand("a", 2, ("h1",), 1)], {"h1": [[0, 1, 2, 3], [4, 5]]}, {})
    assert places == {("a", 1): Place("h1", (4, 5))}


def test_the_largest_and_the_most_restricted_come_first() -> None:
    demands = [Demand("a", 1, HOSTS, 1), Demand("b", 1, ("h1",), 1), Demand("c", 2, ("h1", "h2"), 1)]
    places = place_all(demands, {"h1": [[0]], "h2": [[0, 1], [2]]}, {})
    assert places == {("c", 1): Place("h2", (0, 1)), ("b", 1): Place("h1", (0,)), ("a", 1): Place("h2", (2,))}


def test_automatic_models_share_in_turns() -> None:
    demands = [Demand("a", 1, HOSTS), Demand("b", 1, HOSTS)]
    places = place_all(demands, {"h1": [[0, 1, 2]], "h2": [[0, 1]]}, {})
    assert Counter(model for model, _ordinal in places) == {"a": 3, "b": 2}


def test_an_automatic_model_gives_way_to_a_new_one_and_the_rest_stays() -> None:
    alone = place_all([Demand("a", 1, HOSTS)], PAIR, {})
    assert len(alone) == 4
    both = place_all([Demand("a", 1, HOSTS), Demand("b", 1, HOSTS)], PAIR, alone)
    assert {slot: both[slot] for slot in [("a", 1), ("a", 2)]} == {slot: alone[slot] for slot in [("a", 1), ("a", 2)]}
    assert Counter(model for model, _ordinal in both) == {"a": 2, "b": 2}


def test_a_new_large_instance_moves_as_few_as_needed() -> None:
    running = {("a", 1): Place("h1", (0,)), ("b", 1): Place("h2", (1,))}
    demands = [Demand("a", 1, HOSTS, 1), Demand("b", 1, HOSTS, 1), Demand("c", 2, HOSTS, 1)]
    assert place_all(demands, PAIR, running) == {
        ("a", 1): Place("h2", (0,)),
        ("b", 1): Place("h2", (1,)),
        ("c", 1): Place("h1", (0, 1)),
    }


@pytest.mark.parametrize(
    "place",
    [Place("h3", (0,)), Place("h1", (7,)), Place("h1", (0, 1)), Place("h1", ())],
    ids=["host is gone", "GPU is gone", "shape has changed", "no GPU"],
)
def test_a_place_that_does_not_suit_any_more_is_given_up(place: Place) -> None:
    places = place_all([Demand("a", 1, HOSTS, 1)], PAIR, {("a", 1): place})
    assert places == {("a", 1): Place("h1", (0,))}


def test_what_is_too_much_goes_and_ordinals_stay() -> None:
    running = {("a", 2): Place("h1", (1,)), ("a", 4): Place("h2", (0,)), ("a", 5): Place("h2", (1,))}
    assert set(place_all([Demand("a", 1, HOSTS, 2)], PAIR, running)) == {("a", 2), ("a", 4)}
    assert set(place_all([Demand("a", 1, HOSTS, 4)], PAIR, running)) == {("a", 1), ("a", 2), ("a", 4), ("a", 5)}


def test_two_claims_to_one_gpu() -> None:
    running = {("a", 1): Place("h1", (0,)), ("a", 2): Place("h1", (0,))}
    places = place_all([Demand("a", 1, HOSTS, 2)], PAIR, running)
    assert places == {("a", 1): Place("h1", (0,)), ("a", 2): Place("h2", (0,))}


@pytest.mark.parametrize(
    ("demand", "placed"),
    [(Demand("a", 2, HOSTS, 3), 2), (Demand("a", 3, HOSTS, 1), 0), (Demand("a", 1, (), None), 0)],
)
def test_no_room_says_how_many_there_was_room_for(demand: Demand, placed: int) -> None:
    with pytest.raises(NoRoomError) as caught:
        place_all([demand], PAIR, {})
    assert (caught.value.demand, caught.value.placed) == (demand, placed)


def test_a_thousand_hosts_take_seconds() -> None:
    domains = {f"h{number:04}": [[0, 1, 2, 3, 4, 5, 6, 7]] for number in range(1000)}
    hosts = tuple(domains)
    demands = [Demand("a", 1, hosts), Demand("b", 4, hosts, 300), Demand("c", 8, hosts, 200), Demand("d", 2, hosts)]
    start = time.monotonic()
    places = place_all(demands, domains, {})
    assert place_all(demands, domains, places) == places
    assert time.monotonic() - start < 20  # about 1 s; quadratic loops take minutes
