"""Floating addresses of an inventory: who shares one, and what no host could carry out; private to the collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Interface
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.front_address import router_id_of, unusable

from .hosts import address
from .reachable import value_of

__all__ = ["balancers", "mistakes"]

HostVars = Mapping[str, Mapping[str, Any]]


def balancers(names: Iterable[str], hostvars: HostVars, host: str) -> list[str]:
    """The addresses of those load balancers that share the floating address of one of them; [] where it has none."""
    names, wanted = list(names), _wanted(hostvars[host])
    if host not in names or not wanted:
        return []
    return [address(name, hostvars[name]) for name in names if _wanted(hostvars[name]) == wanted]


def _wanted(variables: Mapping[str, Any]) -> str:
    return str(value_of("front_address_cidr", variables) or "")


def mistakes(names: Iterable[str], hostvars: HostVars) -> list[str]:
    """What is wrong, a sentence or two each, with what to do; ``names`` are all hosts of the fleet."""
    names = list(names)
    sharing: dict[str, list[str]] = {}
    for name in names:
        if "load_balancers" in hostvars[name]["group_names"] and (wanted := _wanted(hostvars[name])):
            sharing.setdefault(wanted, []).append(name)
    found = [
        f"front_address_cidr of {', '.join(hosts)} is '{wanted}', {reason}."
        for wanted, hosts in sharing.items()
        if (reason := unusable(wanted))
    ]
    return found or [*_taken(names, hostvars, sharing), *_router_ids(hostvars, sharing)]


def _taken(names: list[str], hostvars: HostVars, sharing: Mapping[str, list[str]]) -> list[str]:
    """Floating addresses that hosts of the fleet have as their own."""
    own = {address(name, hostvars[name]): name for name in names}
    return [
        f"front_address_cidr of {', '.join(hosts)} is '{wanted}', which is the address of {own[ip]}. "
        "Choose one that no host has."
        for wanted, hosts in sharing.items()
        if (ip := wanted.partition("/")[0]) in own
    ]


def _router_ids(hostvars: HostVars, sharing: Mapping[str, list[str]]) -> list[str]:
    """One by which the balancers of an address would not know each other, or would know those of another one."""
    found: list[str] = []
    used: dict[tuple[str, int], str] = {}
    for wanted, hosts in sharing.items():
        ids = {name: value_of("front_address_router_id", hostvars[name]) or 0 for name in hosts}
        if not all(str(one).isdigit() and int(one) < 256 for one in ids.values()) or len(set(ids.values())) > 1:
            told = ", ".join(f"{one} ({name})" for name, one in ids.items())
            found.append(
                f"front_address_router_id of the balancers of {wanted} is {told}. Set it to one number of 1 to 255 for "
                "all of them, or leave it out."
            )
            continue
        router_id = router_id_of(wanted, int(ids[hosts[0]]))
        other = used.setdefault((str(IPv4Interface(wanted).network), router_id), wanted)
        if other != wanted:
            free = next(one for one in range(1, 256) if (str(IPv4Interface(wanted).network), one) not in used)
            found.append(
                f"{wanted} of {', '.join(hosts)} has the router id {router_id}, which is that of {other} in the same "
                f"network. Set front_address_router_id of {', '.join(hosts)} to another one, such as {free}."
            )
    return found
