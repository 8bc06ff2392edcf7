"""Who has a model from whom: once from the hub, then in a tree."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.distribution import distribution, origins
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.progress import line

PLACE = "acme--big--main"
FILES = [{"path": "w", "size": 140 * GIB, "digest": "d"}]
MANIFEST = {"source": "acme/big", "revision": "main", "commit": "c0", "files": FILES}
ASKED = {"place": PLACE, "source": "acme/big", "revision": "main", "load_format": "auto"}
SITE = {
    "port": 29400,
    "token": "of this run",
    "fan_out": 4,
    "margin": 10 * GIB,
    "download_host": "",
    "endpoint": "https://hub",
    "hub_token": "hf",
}


def look(*, complete: bool = False, free: int = 900 * GIB, there: int = 0) -> dict[str, Any]:
    model = {**ASKED, "complete": complete, "there": there, "damaged": []}
    return {"models": [model], "missing": [] if complete else [PLACE], "free": free, "directory": "/srv/model-store"}


def fleet(number: int, having: int = 0) -> dict[str, Any]:
    return {f"gpu{ordinal}": look(complete=ordinal < having) for ordinal in range(number)}


def distributed(looks: dict[str, Any], **site: Any) -> dict[str, Any]:
    addresses = {name: f"10.0.0.{number}" for number, name in enumerate(looks)}
    return distribution(looks, {PLACE: MANIFEST}, addresses, {**SITE, **site})


def sources(work: dict[str, Any], host: str) -> list[str]:
    return [source["url"] for source in work["hosts"][host]["models"][0]["sources"]]


@pytest.mark.parametrize(
    ("looks", "download_host", "host"),
    [(fleet(3), "", "gpu0"), (fleet(3), "gpu2", "gpu2"), (fleet(3), "mon1", "gpu0"), (fleet(3, 1), "gpu2", "gpu0")],
)
def test_where_it_comes_from(looks: dict[str, Any], download_host: str, host: str) -> None:
    assert origins(looks, download_host) == [{**ASKED, "host": host}]


def test_nothing_is_fetched_that_all_have() -> None:
    assert origins(fleet(3, 3)) == []
    assert distributed(fleet(3, 3)) == {"hosts": {}, "handing_out": [], "problems": []}


def test_one_host_asks_the_hub_and_has_its_token() -> None:
    work = distributed(fleet(200))
    asked = {
        name: source
        for name in work["hosts"]
        for source in work["hosts"][name]["models"][0]["sources"]
        if source["is_hub"]
    }
    assert asked == {"gpu0": {"url": "https://hub/acme/big/resolve/c0", "token": "hf", "is_hub": True}}
    peers = [s for name in work["hosts"] for s in work["hosts"][name]["models"][0]["sources"] if not s["is_hub"]]
    assert {source["token"] for source in peers} == {"of this run"}


@pytest.mark.parametrize("having", [0, 1, 3])
def test_every_host_serves_a_few_and_no_way_is_long(having: int) -> None:
    looks = fleet(200, having)
    work = distributed(looks)
    above = {
        name: sources(work, name)[0] for name in looks if sources(work, name) and "hub/" not in sources(work, name)[0]
    }
    assert len(above) == 200 - max(1, having)
    assert max(Counter(above.values()).values()) == 4
    addresses = {f"http://{entry['address']}:29400/{PLACE}": name for name, entry in work["hosts"].items()}

    def steps(name: str) -> int:
        return 1 + steps(addresses[above[name]]) if name in above else 0

    assert max(map(steps, looks)) <= 4


def test_a_host_whose_giver_goes_asks_those_that_had_it_first() -> None:
    work = distributed(fleet(30, 2))
    assert sources(work, "gpu29") == [f"http://10.0.0.{number}:29400/{PLACE}" for number in (6, 0, 1)]
    assert sources(work, "gpu1") == []


def test_of_many_that_have_it_no_more_hand_it_out_than_fetch() -> None:
    assert distributed(fleet(200, 199))["handing_out"] == ["gpu0", "gpu1"], "one, and one more should it go"
    assert distributed(fleet(6, 3))["handing_out"] == ["gpu0", "gpu1", "gpu2"]


@pytest.mark.parametrize("having", [0, 1, 199])
def test_nobody_is_told_to_do_anything_who_was_not_asked(having: int) -> None:
    """The hosts outside --limit are not: tests/unit/playbooks/test_limit.py relies on it."""
    looks = fleet(200, having)
    work = distributed(looks)
    assert {*work["hosts"], *work["handing_out"], *(one["host"] for one in origins(looks))} <= set(looks)


def test_a_port_is_opened_to_those_who_fetch_there() -> None:
    work = distributed(fleet(6))
    assert work["hosts"]["gpu0"]["allow_from"] == [f"10.0.0.{number}" for number in (1, 2, 3, 4, 5)]
    assert work["hosts"]["gpu1"]["allow_from"] == ["10.0.0.5"]
    assert work["hosts"]["gpu5"]["allow_from"] == []


def test_an_address_of_ipv6_is_bracketed() -> None:
    looks = fleet(2)
    work = distribution(looks, {PLACE: MANIFEST}, {"gpu0": "fd00::1", "gpu1": "fd00::2"}, SITE)
    assert sources(work, "gpu1") == [f"http://[fd00::1]:29400/{PLACE}"]


def test_a_disk_without_room_is_named_before_anything_comes() -> None:
    looks = {**fleet(2), "gpu9": look(free=100 * GIB), "gpu10": look(free=100 * GIB, there=60 * GIB)}
    (problem,) = distributed(looks)["problems"]
    assert problem.startswith(
        "gpu9 has 100.0 GiB free below /srv/model-store, and acme--big--main takes 140.0 GiB more"
    )
    assert "with 10.0 GiB kept free (model_store_margin_gib). Make room there, as by model_store_collect" in problem


@pytest.mark.parametrize(
    ("rate", "done", "said"),
    [
        (10**9, 35 * 10**9, "gpu1: acme--big--main 25% of 140.0 GB, 1.0 GB/s, 2 min left"),
        (0, 0, "gpu1: acme--big--main 0% of 140.0 GB"),
        (10**9, 140 * 10**9, "gpu1: puts the files into their place"),
    ],
)
def test_an_operator_sees_how_far_it_is(rate: int, done: int, said: str) -> None:
    status = {"rate": rate, "models": [{"place": PLACE, "done": done, "total": 140 * 10**9}]}
    assert line("gpu1", status) == said
