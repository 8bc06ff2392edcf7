"""What keepalived of a balancer is told, and what a host cannot hold: every refusal names what cures it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FrontAddressError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.front_address import (
    CONFIGURATION,
    FACT,
    Seen,
    Wishes,
    plan,
    read,
    router_id_of,
    unusable,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import Answer

WISHES = Wishes("10.0.0.100/24", ["10.0.0.2", "10.0.0.3"])
LO, ETH0 = ("lo", IPv4Interface("127.0.0.1/8")), ("eth0", IPv4Interface("10.0.0.2/24"))
SEEN = Seen((LO, ETH0), binds_nonlocal=True)
NAMES = {"lb1": ["fd00::2", "10.0.0.2"], "lb2": ["10.0.0.3"], "v6": ["fd00::3"], "lb1.local": ["127.0.1.1"]}


def decide(wishes: Wishes = WISHES, seen: Seen = SEEN, **wished: Any) -> dict[str, Any]:
    return plan(replace(wishes, **wished), seen, "lb1", lambda name: NAMES.get(name, []))


def refused(wishes: Wishes = WISHES, seen: Seen = SEEN, **wished: Any) -> str:
    with pytest.raises(FrontAddressError) as error:
        decide(wishes, seen, **wished)
    return str(error.value)


def test_the_host_finds_itself_its_peers_and_its_interface() -> None:
    assert decide() == {
        "address": "10.0.0.100",
        "interface": "eth0",
        "own_address": "10.0.0.2",
        "own_interface": "eth0",
        "peers": ["10.0.0.3"],
        "priority": 250,
        "router_id": 100,
        "url": "http://127.0.0.1:80/health",
        "booleans": [],
        "user_is_missing": False,
        "needs_nonlocal": False,
        "lacks_nonlocal": False,
    }
    assert decide(balancers=["lb1", "lb2"])["peers"] == ["10.0.0.3"], "names are looked up"


def test_the_order_says_who_is_preferred_and_no_two_are_alike() -> None:
    others = [f"10.0.0.{number}" for number in range(10, 17)]
    priorities = [decide(balancers=[*others[:place], "10.0.0.2", *others[place:]])["priority"] for place in range(8)]
    assert priorities == sorted(set(priorities), reverse=True)
    assert (priorities[0], priorities[-1]) == (250, 100)


def test_while_it_holds_the_address_it_is_told_the_same() -> None:
    holding = replace(SEEN, addresses=(LO, ETH0, ("eth0", IPv4Interface("10.0.0.100/32"))), held="10.0.0.100")
    assert decide(seen=holding) == decide()


def test_balancers_that_reach_each_other_by_another_network() -> None:
    seen = replace(SEEN, addresses=(LO, ETH0, ("eth1", IPv4Interface("192.0.2.2/24"))))
    told = decide(seen=seen, address="192.0.2.10/24")
    assert (told["interface"], told["own_interface"], told["own_address"]) == ("eth1", "eth0", "10.0.0.2")


@pytest.mark.parametrize(
    ("listens_on", "url", "needs_nonlocal", "booleans"),
    [
        (["80"], "http://127.0.0.1:80/health", False, False),
        (["443 ssl", "*:80 default_server"], "http://127.0.0.1:80/health", False, False),
        (["0.0.0.0:443 ssl", "[::]:443 ssl"], "https://127.0.0.1:443/health", False, False),
        (["8000", "unix:/run/x"], "http://127.0.0.1:8000/health", False, True),
        (["10.0.0.2:8080", "10.0.0.100:8080"], "http://10.0.0.2:8080/health", True, True),
        (["10.0.0.100:80", "127.0.0.1"], "http://127.0.0.1:80/health", True, False),
    ],
)
def test_nginx_is_asked_where_it_answers_on_this_host_alone(
    listens_on: list[str], url: str, needs_nonlocal: bool, booleans: bool
) -> None:
    told = decide(listens_on=listens_on)
    assert (told["url"], told["needs_nonlocal"], told["lacks_nonlocal"]) == (url, needs_nonlocal, False)
    assert told["booleans"] == ["keepalived_connect_any"] * booleans
    lacking = decide(seen=replace(SEEN, binds_nonlocal=False), listens_on=listens_on)
    assert lacking["lacks_nonlocal"] == needs_nonlocal


TWO = replace(SEEN, addresses=(LO, ETH0, ("eth1", IPv4Interface("10.0.0.4/24"))))


@pytest.mark.parametrize(
    ("seen", "wished", "says", "cure"),
    [
        (SEEN, {"address": "192.0.2.1/24"}, "network of no interface (eth0 10.0.0.2/24)", {"address": "10.0.0.9/24"}),
        (SEEN, {"address": "10.0.0.100/25"}, "Set front_address_cidr to 10.0.0.100/24.", {"address": "10.0.0.100/24"}),
        (SEEN, {"address": "10.0.0.2/24"}, "already is an address of lb1 itself", {"address": "10.0.0.9/24"}),
        (SEEN, {"interface": "eth9"}, "those with an IPv4 address are eth0, lo", {"interface": "eth0"}),
        (TWO, {}, "eth0 and eth1 have its network. Name one of them", {"interface": "eth1"}),
        (SEEN, {"balancers": ["10.0.0.3", "lb1.local"]}, "Set fleet_address of lb1", {"balancers": ["lb1", "lb2"]}),
        (SEEN, {"balancers": ["10.0.0.2", "v6"]}, "v6 has no IPv4 address that lb1", {"balancers": ["lb1", "lb2"]}),
        (
            SEEN,
            {"listens_on": ["10.0.0.2:80"]},
            "Add 10.0.0.100:80 to nginx_lb_listen",
            {"listens_on": ["10.0.0.2:80", "10.0.0.100:80"]},
        ),
        (
            SEEN,
            {"listens_on": ["10.0.0.100:81"]},
            "Add 127.0.0.1:81 to nginx_lb_listen",
            {"listens_on": ["10.0.0.100:81", "127.0.0.1:81"]},
        ),
    ],
)
def test_what_a_host_cannot_hold_is_refused_until_it_is_cured(
    seen: Seen, wished: dict[str, Any], says: str, cure: dict[str, Any]
) -> None:
    said = refused(seen=seen, **wished)
    assert says in said
    assert said.count("cannot hold") == 1
    assert decide(seen=seen, **wished | cure)


def test_a_keepalived_of_somebody_else_is_refused() -> None:
    assert "a configuration that is not the role's, /etc/keepalived/" in refused(seen=replace(SEEN, is_foreign=True))


def test_all_reasons_are_told_at_once() -> None:
    assert refused(seen=replace(SEEN, is_foreign=True), listens_on=[], balancers=["x"]).count("cannot hold") == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.10/24", ""),
        ("192.0.2.1/31", ""),
        ("192.0.2.10", "no IPv4 address with the length"),
        ("fd00::1/64", "no IPv4 address with the length"),
        ("lb.example.org", "no IPv4 address with the length"),
        ("127.0.0.2/8", "cannot be an address of several hosts"),
        ("224.0.0.18/24", "cannot be an address of several hosts"),
        ("192.0.2.0/24", "no host's in 192.0.2.0/24"),
        ("192.0.2.255/24", "no host's in 192.0.2.0/24"),
    ],
)
def test_what_is_no_floating_address(text: str, reason: str) -> None:
    assert reason in unusable(text)
    assert bool(unusable(text)) == bool(reason)
    if reason:
        assert refused(address=text).startswith(f"lb1: front_address_cidr is '{text}', which ")


def test_the_router_id_follows_from_the_address() -> None:
    ids = [router_id_of(text, 0) for text in ("192.0.2.10/24", "10.0.1.0/16", "10.0.1.255/16")]
    assert ids == [10, 255, 255]
    assert router_id_of("192.0.2.10/24", 7) == 7


def told_by(root: Path, *, enabled: bool = False) -> Seen:
    links = [
        {"ifname": "eth0", "addr_info": [{"local": "10.0.0.2", "prefixlen": 24}, {"prefixlen": 24}]},
        {"ifname": "eth1"},
    ]

    def ask(command: Sequence[str]) -> Answer:
        return Answer(0, json.dumps(links)) if command[0] == "ip" else Answer(0 if enabled else 1)

    return read(root, ask)


def test_a_host_is_read(tmp_path: Path) -> None:
    seen = told_by(tmp_path)
    assert seen.addresses == [ETH0]
    assert (seen.held, seen.is_foreign, seen.binds_nonlocal) == ("", False, False)

    for path, text in ((CONFIGURATION, ""), (Path("proc/sys/net/ipv4/ip_nonlocal_bind"), "1\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    assert told_by(tmp_path).binds_nonlocal
    assert not told_by(tmp_path).is_foreign, "the sample of a package, which nothing starts"
    assert told_by(tmp_path, enabled=True).is_foreign

    (tmp_path / FACT).parent.mkdir(parents=True)
    (tmp_path / FACT).write_text('{"address": "10.0.0.100"}\n')
    ours = told_by(tmp_path, enabled=True)
    assert (ours.held, ours.is_foreign) == ("10.0.0.100", False)


def test_a_host_without_ip_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(FrontAddressError, match="Install iproute2"):
        read(tmp_path, lambda _: Answer(-1))
