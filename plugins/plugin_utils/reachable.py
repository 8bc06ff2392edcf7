"""What of an inventory keeps hosts from reaching each other, told without asking a host; private to the collection."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from ansible.errors import AnsibleUndefinedVariable
from jinja2 import UndefinedError

from .hosts import address

__all__ = ["mistakes", "value_of"]

HostVars = Mapping[str, Mapping[str, Any]]
Resolve = Callable[[str], list[str]]

# By group ("": all hosts) what its hosts read. The playbooks themselves set the sources of engines and exporters.
_FIREWALLS = {
    "": ["fleet_firewall", "exporters_firewall"],
    "gpu_hosts": ["vllm_firewall"],
    "load_balancers": ["front_address_firewall", "nginx_lb_firewall"],
    "monitoring": ["alertmanager_firewall", "prometheus_firewall"],
}
_SOURCES = {
    "": ["fleet_allow_from"],
    "load_balancers": ["nginx_lb_allow_from"],
    "monitoring": ["alertmanager_allow_from", "prometheus_allow_from"],
}


def mistakes(names: Iterable[str], hostvars: HostVars, addresses_of: Resolve) -> list[str]:
    """What is wrong, a sentence or two each, with the hosts that it is so of and what to do."""
    addresses_of = functools.lru_cache(maxsize=None)(addresses_of)  # most hosts share their words
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        for mistake in _of_host(name, hostvars[name], addresses_of):
            found.setdefault(mistake, []).append(name)
    return [f"{variable} of {', '.join(hosts)} {words}" for (variable, words), hosts in found.items()]


def _of_host(name: str, variables: Mapping[str, Any], addresses_of: Resolve) -> Iterator[tuple[str, str]]:
    groups = {"", *variables["group_names"]}
    known = address(name, variables) if "gpu_hosts" in groups else ""
    if known and not isinstance(_parsed(known), IPv4Address):
        words = (
            f"is '{known}' to the front door, and NGINX takes no names: it would look them up once and never again. "
            f"Set fleet_address of {name} to the IPv4 address by which the other hosts reach it."
        )
        yield "The address", words
    between = value_of("fleet_cluster_address", variables) if "gpu_hosts" in groups else ""
    unusable = _unusable(str(between)) if between else ""
    if unusable:
        words = f"is '{between}', {unusable}. Set it to the IPv4 address by which the other GPU hosts reach it"
        yield "fleet_cluster_address", f"{words}, or leave it out."
    for variable in _read(_FIREWALLS, groups):
        value = value_of(variable, variables)
        if value not in (None, "auto", "none"):
            yield variable, f"is {json.dumps(value, default=str)}. Set it to auto, or to none to leave firewalls alone."
    for variable in _read(_SOURCES, groups):
        value = value_of(variable, variables)
        if value is None:
            continue
        if isinstance(value, str) or not isinstance(value, Sequence):
            yield variable, f"is {json.dumps(value, default=str)}, no list. Put it in brackets: [{value}]."
            continue
        for word in value:
            if not _is_known(word, addresses_of):
                words = (
                    f"has '{word}', which is no address, no network and no name that this machine can look up. Write "
                    f"the address, such as 10.0.0.7, or the network, such as 10.0.0.0/8."
                )
                yield variable, words


def _read(table: Mapping[str, list[str]], groups: set[str]) -> list[str]:
    return [variable for group, variables in table.items() if group in groups for variable in variables]


def value_of(name: str, variables: Mapping[str, Any]) -> Any:
    """The value of a variable; None where it has none, or where it takes facts, which nobody has gathered yet."""
    try:
        value = variables.get(name)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = [str(one) for one in value]  # each is a template of its own
        return None if "{{" in str(value) else value  # ansible-core before 2.19 gives back what it cannot fill in
    except (AnsibleUndefinedVariable, UndefinedError):
        return None


def _unusable(text: str) -> str:
    """Why other hosts cannot reach the nodes of an instance at what is said to be an address; "" if they can."""
    found = _parsed(text)
    if found is None:
        return "which is no address"
    if not isinstance(found, IPv4Address):
        return "an IPv6 address, and the nodes of an instance speak IPv4"
    if found.is_loopback:
        return "which is every host itself"
    nobody = found.is_unspecified or found.is_multicast or found.is_reserved
    return "which is no host's" if nobody else ""


def _parsed(text: str) -> Any:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_known(word: str, addresses_of: Resolve) -> bool:
    try:
        ip_network(word, strict=False)
    except ValueError:
        return bool(addresses_of(word))
    return True
