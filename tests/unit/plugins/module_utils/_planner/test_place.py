"""Placing instances on GPUs: what holds for every fleet, and what the rules come to in small ones."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.place import (
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
KINDS = {"h1": "old", "h2": "new", "h3": "new", "h4": "old", "h5": "new"}

Domains = dict[str, list[list[int]]]


def at(host: str, gpus: tuple[int, ...]) -> tuple[Place, ...]:
    """The places of an instance on one host."""
    return (Place(host, gpus),)


domains_of_a_host = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(
    lambda sizes: [list(range(sum(sizes[:i]), sum(sizes[: i + 1]))) for i in range(len(sizes))]
)
fleets = st.dictionaries(st.sampled_from(sorted(KINDS)), domains_of_a_host, min_size=1)


@st.composite
def demanded(draw: st.DrawFn) -> tuple[list[Demand], Domains]:
    domains = draw(fleets)
    names = draw(st.lists(st.sampled_from("abcde"), unique=True, min_size=1, max_size=4))
    hosts = st.lists(st.sampled_from(sorted(domains)), unique=True, min_size=1).map(tuple)
    replicas = st.one_of(st.none(), st.integers(1, 4))
    few = st.sampled_from([1, 1, 1, 2, 3])
    return [
        Demand(name, draw(st.integers(1, 4)), draw(hosts), draw(replicas), draw(few), draw(few)) for name in names
    ], domains


def check(demands: Sequence[Demand], domains: Domains, places: Mapping[Slot, Sequence[Place]]) -> None:
    """What every placement promises."""
    by_model = {demand.model: demand for demand in demands}
    used: Counter[tuple[str, int]] = Counter()
    for (model, _ordinal), parts in places.items():
        demand = by_model[model]
        assert len({part.host for part in parts}) == len(parts) == demand.span
        assert demand.span == 1 or len({KINDS[part.host] for part in parts}) == 1, "its hosts are alike"
        for part in parts:
            assert part.host in demand.host_names
            assert len(part.gpu_indices) == demand.gpu_count * demand.sets
            for start in range(0, len(part.gpu_indices), demand.gpu_count):
                gpus = set(part.gpu_indices[start : start + demand.gpu_count])
                assert any(gpus <= set(domain) for domain in domains[part.host]), "a set is in one domain"
            used.update((part.host, gpu) for gpu in part.gpu_indices)
    assert set(used.values()) <= {1}, "no GPU is given twice"
    counts = Counter(model for model, _ordinal in places)
    for demand in demands:
        assert counts[demand.model] == demand.replicas or (demand.replicas is None and counts[demand.model] >= 1)


@settings(deadline=None, max_examples=300)
@given(demanded(), st.randoms(use_true_random=False))
def test_promises_hold_for_every_fleet(fleet: tuple[list[Demand], Domains], chance: random.Random) -> None:
    demands, domains = fleet
    try:
        places = place_all(demands, domains, {}, KINDS)
    except NoRoomError:
        return
    check(demands, domains, places)
    hosts = list(domains.items())
    chance.shuffle(hosts)
    chance.shuffle(demands)
    assert place_all(demands, dict(hosts), {}, KINDS) == places, "the order of hosts and models means nothing"
    assert place_all(demands, domains, places, KINDS) == places, "what runs stays"
    jumbled = {
        slot: tuple(Place(part.host, tuple(chance.sample(part.gpu_indices, len(part.gpu_indices)))) for part in parts)
        for slot, parts in places.items()
    }
    assert place_all(demands, domains, jumbled, KINDS) == places, "the order in which GPUs are told means nothing"
    more = {**domains, "h9": [[0, 1, 2, 3]]}
    fixed = [
        replace(demand, host_names=(*demand.host_names, "h9")) for demand in demands if demand.replicas is not None
    ]
    kept = {slot: place for slot, place in places.items() if slot[0] in {demand.model for demand in fixed}}
    assert place_all(fixed, more, kept, {**KINDS, "h9": "new"}) == kept, "another host moves nothing"


@settings(deadline=None, max_examples=300)
@given(demanded(), demanded())
def test_promises_hold_whatever_runs(fleet: tuple[list[Demand], Domains], before: tuple[list[Demand], Domains]) -> None:
    demands, domains = fleet
    try:
        running = place_all(*before, {}, KINDS)
    except NoRoomError:
        running = {}
    try:
        places = place_all(demands, domains, running, KINDS)
    except NoRoomError:
        return
    check(demands, domains, places)
    assert place_all(demands, domains, places, KINDS) == places


def test_replicas_spread_then_go_where_most_is_free_then_by_name() -> None:
    domains = {"h1": [[0, 1]], "h2": [[0, 1, 2, 3]], "h3": [[0, 1, 2, 3]]}
    places = place_all([Demand("a", 1, ("h1", "h2", "h3"), 5)], domains, {})
    assert [part.host for _slot, (part,) in sorted(places.items())] == ["h2", "h3", "h1", "h2", "h3"]


def test_the_tightest_domain_is_taken() -> None:
    places = place_all([Demand("a", 2, ("h1",), 1)], {"h1": [[0, 1, 2, 3], [4, 5]]}, {})
    assert places == {("a", 1): at("h1", (4, 5))}


def test_the_largest_and_the_most_restricted_come_first() -> None:
    demands = [Demand("a", 1, HOSTS, 1), Demand("b", 1, ("h1",), 1), Demand("c", 2, ("h1", "h2"), 1)]
    places = place_all(demands, {"h1": [[0]], "h2": [[0, 1], [2]]}, {})
    assert places == {("c", 1): at("h2", (0, 1)), ("b", 1): at("h1", (0,)), ("a", 1): at("h2", (2,))}


def test_automatic_models_share_in_turns() -> None:
    demands = [Demand("a", 1, HOSTS), Demand("b", 1, HOSTS)]
    places = place_all(demands, {"h1": [[0, 1, 2]], "h2": [[0, 1]]}, {})
    assert Counter(model for model, _ordinal in places) == {"a": 3, "b": 2}


def test_an_automatic_model_gives_one_instance_to_a_new_one_and_the_rest_stays() -> None:
    alone = place_all([Demand("a", 1, HOSTS)], PAIR, {})
    assert len(alone) == 4
    both = place_all([Demand("a", 1, HOSTS), Demand("b", 1, HOSTS)], PAIR, alone)
    stayed = {slot: place for slot, place in both.items() if slot[0] == "a"}
    assert len(stayed) == 3
    assert stayed.items() <= alone.items()
    assert len(both) == 4


def test_a_new_model_takes_what_is_free_before_anything_gives_way() -> None:
    alone = place_all([Demand("a", 1, ("h1",))], PAIR, {})
    both = place_all([Demand("a", 1, HOSTS), Demand("b", 2, HOSTS, 1)], PAIR, alone)
    assert both.items() >= alone.items()
    assert both["b", 1] == at("h2", (0, 1))


def test_what_gives_way_comes_back_elsewhere_if_there_is_room() -> None:
    domains = {"h1": [[0, 1], [2]], "h2": [[0]]}
    running = {("a", 1): at("h1", (0,)), ("a", 2): at("h1", (2,))}
    both = place_all([Demand("a", 1, HOSTS), Demand("b", 2, HOSTS, 1)], domains, running)
    assert both == {("a", 1): at("h2", (0,)), ("a", 2): at("h1", (2,)), ("b", 1): at("h1", (0, 1))}


def test_the_last_instance_of_a_model_never_gives_way() -> None:
    running = {("a", 1): at("h1", (0,)), ("a", 2): at("h1", (1,))}
    with pytest.raises(NoRoomError) as caught:
        place_all([Demand("a", 1, ("h1",)), Demand("b", 2, ("h1",), 1)], {"h1": [[0, 1]]}, running)
    assert caught.value.demand.model in ("a", "b")


def test_the_fastest_hosts_come_first_and_what_runs_stays() -> None:
    demand = Demand("a", 1, HOSTS, 2, speeds={"h1": 1, "h2": 5})
    assert place_all([demand], PAIR, {}) == {("a", 1): at("h2", (0,)), ("a", 2): at("h2", (1,))}
    running = {("a", 1): at("h1", (1,))}
    assert place_all([demand], PAIR, running) == {**running, ("a", 2): at("h2", (0,))}


@settings(deadline=None, max_examples=300)
@given(demanded(), st.integers(1, 4))
def test_more_hosts_never_stop_or_move_anything(fleet: tuple[list[Demand], Domains], size: int) -> None:
    demands, domains = fleet
    try:
        before = place_all(demands, domains, {}, KINDS)
    except NoRoomError:
        return
    wider = [replace(demand, host_names=(*demand.host_names, "h9")) for demand in demands]
    after = place_all(wider, {**domains, "h9": [list(range(size))]}, before, {**KINDS, "h9": "new"})
    assert after.items() >= before.items()


def test_a_new_large_instance_moves_as_few_as_needed() -> None:
    running = {("a", 1): at("h1", (0,)), ("b", 1): at("h2", (1,))}
    demands = [Demand("a", 1, HOSTS, 1), Demand("b", 1, HOSTS, 1), Demand("c", 2, HOSTS, 1)]
    assert place_all(demands, PAIR, running) == {
        ("a", 1): at("h2", (0,)),
        ("b", 1): at("h2", (1,)),
        ("c", 1): at("h1", (0, 1)),
    }


@pytest.mark.parametrize(
    "place",
    [Place("h3", (0,)), Place("h1", (7,)), Place("h1", (0, 1)), Place("h1", ())],
    ids=["host is gone", "GPU is gone", "shape has changed", "no GPU"],
)
def test_a_place_that_does_not_suit_any_more_is_given_up(place: Place) -> None:
    places = place_all([Demand("a", 1, HOSTS, 1)], PAIR, {("a", 1): (place,)})
    assert places == {("a", 1): at("h1", (0,))}


FOUR = {f"h{number}": [[0, 1], [2, 3]] for number in (1, 2, 3, 4)}


def test_an_instance_of_several_hosts_takes_equal_parts_of_alike_hosts() -> None:
    demand = Demand("a", 2, ("h1", "h2", "h3", "h4"), 2, sets=2, span=2)
    assert place_all([demand], FOUR, {}, KINDS) == {
        ("a", 1): (Place("h1", (0, 1, 2, 3)), Place("h4", (0, 1, 2, 3))),
        ("a", 2): (Place("h2", (0, 1, 2, 3)), Place("h3", (0, 1, 2, 3))),
    }
    with pytest.raises(NoRoomError) as caught:
        place_all([demand, Demand("b", 1, ("h1",), 1)], FOUR, {}, KINDS)
    assert (caught.value.demand.model, caught.value.placed) == ("b", 0)


def test_no_hosts_that_are_alike() -> None:
    with pytest.raises(NoRoomError):
        place_all([Demand("a", 1, HOSTS, 1, span=2)], PAIR, {}, KINDS)
    assert len(place_all([Demand("a", 1, HOSTS, 1, span=2)], PAIR, {})) == 1


def test_sets_go_to_one_domain_where_one_has_room() -> None:
    domains = {"h1": [[0, 2, 4], [1, 3, 5, 7], [6, 8]]}
    assert place_all([Demand("a", 2, ("h1",), 1, sets=2)], domains, {}) == {("a", 1): at("h1", (1, 3, 5, 7))}
    assert place_all([Demand("a", 2, ("h1",), 1, sets=3)], domains, {}) == {("a", 1): at("h1", (0, 2, 1, 3, 5, 7))}


def test_room_for_an_instance_of_several_hosts_is_made_on_alike_ones() -> None:
    running = {("b", number): at(f"h{number}", (0,)) for number in (1, 2, 3)}
    demands = [Demand("a", 2, tuple(FOUR), 1, sets=2, span=2), Demand("b", 1, tuple(FOUR), 3)]
    places = place_all(demands, FOUR, running, KINDS)
    assert places[("a", 1)] == (Place("h1", (0, 1, 2, 3)), Place("h4", (0, 1, 2, 3))), "one has to move, not two"
    assert {slot: places[slot] for slot in [("b", 2), ("b", 3)]} == {
        slot: running[slot] for slot in [("b", 2), ("b", 3)]
    }


def test_an_instance_of_several_hosts_gives_up_all_its_places_at_once() -> None:
    running = {("b", 1): (Place("h1", (0,)), Place("h2", (0,)))}
    demands = [Demand("a", 2, ("h2",), 1), Demand("b", 1, ("h1", "h2", "h3"), 1, span=2)]
    domains = {"h1": [[0]], "h2": [[0, 1]], "h3": [[0]]}
    assert place_all(demands, domains, running) == {
        ("a", 1): at("h2", (0, 1)),
        ("b", 1): (Place("h1", (0,)), Place("h3", (0,))),
    }


@pytest.mark.parametrize(
    "places",
    [
        (Place("h1", (0, 1)),),
        (Place("h1", (0, 1)), Place("h1", (2, 3))),
        (Place("h1", (0, 1)), Place("h2", (0, 1))),
        (Place("h2", (0, 1)), Place("h3", (0,))),
        (Place("h2", (0, 1)), Place("h3", (1, 2))),
    ],
    ids=["one is missing", "one host twice", "not alike", "unequal", "a set in two domains"],
)
def test_places_that_do_not_suit_each_other_are_given_up(places: tuple[Place, ...]) -> None:
    demand = Demand("a", 2, tuple(FOUR), 1, span=2)
    assert place_all([demand], FOUR, {("a", 1): places}, KINDS) == place_all([demand], FOUR, {}, KINDS)


def test_what_is_too_much_goes_and_ordinals_stay() -> None:
    running = {("a", 2): at("h1", (1,)), ("a", 4): at("h2", (0,)), ("a", 5): at("h2", (1,))}
    assert set(place_all([Demand("a", 1, HOSTS, 2)], PAIR, running)) == {("a", 2), ("a", 4)}
    assert set(place_all([Demand("a", 1, HOSTS, 4)], PAIR, running)) == {("a", 1), ("a", 2), ("a", 4), ("a", 5)}


def test_two_claims_to_one_gpu() -> None:
    running = {("a", 1): at("h1", (0,)), ("a", 2): at("h1", (0,))}
    places = place_all([Demand("a", 1, HOSTS, 2)], PAIR, running)
    assert places == {("a", 1): at("h1", (0,)), ("a", 2): at("h2", (0,))}


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
