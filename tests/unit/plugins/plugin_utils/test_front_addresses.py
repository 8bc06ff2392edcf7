"""Floating addresses of an inventory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.front_addresses import balancers, mistakes

ONE, OTHER = "10.0.0.100/24", "10.0.0.101/24"


def fleet(*addresses: str, **of_lb1: Any) -> dict[str, dict[str, Any]]:
    """Load balancers with these floating addresses, and a GPU host."""
    hostvars: dict[str, dict[str, Any]] = {
        f"lb{number}": {
            "group_names": ["load_balancers"],
            "fleet_address": f"10.0.0.{number}",
            "front_address_cidr": address,
        }
        for number, address in enumerate(addresses, 1)
    }
    hostvars["lb1"].update(of_lb1)
    return hostvars | {"gpu1": {"group_names": ["gpu_hosts"], "ansible_host": "10.0.0.21", "front_address_cidr": "x"}}


def found(*addresses: str, **of_lb1: Any) -> list[str]:
    hostvars = fleet(*addresses, **of_lb1)
    return mistakes(hostvars, hostvars)


def test_balancers_of_an_address_are_those_that_name_it_in_the_order_of_the_group() -> None:
    hostvars = fleet(ONE, OTHER, ONE, "")
    names = ["lb3", "lb1", "lb2", "lb4"]
    assert balancers(names, hostvars, "lb1") == ["10.0.0.3", "10.0.0.1"]
    assert balancers(names, hostvars, "lb2") == ["10.0.0.2"]
    assert balancers(names, hostvars, "lb4") == []
    assert balancers(["lb2"], hostvars, "lb1") == [], "no load balancer itself"
    assert balancers(names, {**hostvars, "lb1": {"fleet_address": "10.0.0.1"}}, "lb1") == []


@pytest.mark.parametrize(
    "addresses", [("",), (ONE,), (ONE, ONE), (ONE, ONE, OTHER, OTHER), ("10.0.0.100/24", "10.0.1.100/24")]
)
def test_what_hosts_can_carry_out(addresses: tuple[str, ...]) -> None:
    assert found(*addresses) == []
    assert found(*addresses, front_address_router_id="{{ of_facts }}") == [], "nobody has gathered them"


@pytest.mark.parametrize(
    ("addresses", "of_lb1", "says"),
    [
        (("10.0.0.100", ONE), {}, "front_address_cidr of lb1 is '10.0.0.100', which is no IPv4 address with"),
        (("10.0.0.21/24", "10.0.0.21/24"), {}, "lb1, lb2 is '10.0.0.21/24', which is the address of gpu1. Choose"),
        (("10.0.0.2/24", ""), {}, "lb1 is '10.0.0.2/24', which is the address of lb2. Choose"),
        ((ONE, ONE), {"front_address_router_id": 7}, f"of the balancers of {ONE} is 7 (lb1), 0 (lb2). Set it to one"),
        ((ONE,), {"front_address_router_id": 256}, f"of the balancers of {ONE} is 256 (lb1). Set it to one number of"),
        ((ONE,), {"front_address_router_id": "x"}, f"of the balancers of {ONE} is x (lb1). Set it to one number of"),
        (
            (ONE, OTHER),
            {"front_address_router_id": 101},
            f"{OTHER} of lb2 has the router id 101, which is that of {ONE} in the same network. Set front_",
        ),
    ],
)
def test_what_they_cannot_is_told_with_what_to_do(
    addresses: tuple[str, ...], of_lb1: dict[str, Any], says: str
) -> None:
    (said,) = found(*addresses, **of_lb1)
    assert says in said
