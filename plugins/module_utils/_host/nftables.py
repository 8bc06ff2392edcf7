"""Ports that a ruleset of nftables keeps closed, which somebody looks after by hand; private to the collection.

Nothing is changed in such a ruleset. A rule that nft adds is gone after a boot; only the author of a file knows where
in it a rule belongs; a table of our own cannot open what another one drops. So the operator is told the rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from .system import Answer

if TYPE_CHECKING:
    from .firewall import Rule

__all__ = ["closing_chains", "missing_rules"]

_NUMBERS = {"vrrp": 112}  # of IP's protocols: a host may not know their names
_VERSIONS = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}


def closing_chains(ask: Callable[[Sequence[str]], Answer]) -> list[dict[str, Any]]:
    """The chains that refuse what comes in, unless a rule accepts it."""
    chains = _items(ask(["nft", "-j", "list", "chains"]), "chain")
    inputs = [
        chain
        for chain in chains
        if (chain.get("type"), chain.get("hook")) == ("filter", "input") and chain["family"] in _VERSIONS
    ]
    return [chain for chain in inputs if chain["policy"] == "drop" or _ends_closed(ask, chain)]


def missing_rules(
    ask: Callable[[Sequence[str]], Answer], chains: Iterable[Mapping[str, Any]], rules: Sequence[Rule]
) -> list[str]:
    """Warnings about what such chains do not let in, each with the commands that open it until the next boot."""
    warnings = []
    for chain in chains:
        answered = ask(["nft", "-j", "list", "table", chain["family"], chain["table"]])
        elsewhere = {one["name"] for one in _items(answered, "chain") if one.get("hook", "input") != "input"}
        table = [one for one in _items(answered, "rule") if one.get("chain") not in elsewhere]
        commands = [
            _command(chain, rule)
            for rule in rules
            if rule.version in _VERSIONS[chain["family"]] and not any(_accepts(one["expr"], rule) for one in table)
        ]
        if commands:
            warnings.append(
                f"The firewall of this host is a ruleset of its own (chain {' '.join(_place(chain))}), in which "
                f"nothing is changed from here. It lacks: {'; '.join(commands)}. Put these rules into the file that "
                "the ruleset comes from; or set fleet_firewall to none for this host, if the ports are open anyway."
            )
    return warnings


def _place(chain: Mapping[str, Any]) -> tuple[str, str, str]:
    return chain["family"], chain["table"], chain["name"]


def _items(answered: Answer, kind: str) -> list[dict[str, Any]]:
    """The things of one kind in the output of nft."""
    if answered.code:
        return []
    return [item[kind] for item in json.loads(answered.output)["nftables"] if kind in item]


def _ends_closed(ask: Callable[[Sequence[str]], Answer], chain: Mapping[str, Any]) -> bool:
    """Whether the last rule of a chain refuses everything."""
    last = [rule["expr"] for rule in _items(ask(["nft", "-j", "list", "chain", *_place(chain)]), "rule")][-1:]
    words = [word for rule in last for word in rule]
    of_iptables = [word["xt"] for word in words if "xt" in word]  # what nft knows no word of its own for
    if any("match" in word for word in words) or any(word["type"] == "match" for word in of_iptables):
        return False
    return any({"drop", "reject"} & set(word) for word in words) or any(
        word["name"] == "REJECT" for word in of_iptables
    )


def _accepts(expression: Sequence[Mapping[str, Any]], rule: Rule) -> bool:
    """Whether a rule of nft lets the port be reached, or the protocol in.

    Beside a port, a condition that is not understood here counts as met. A rule without one lets in all of a source.
    """
    if not any("accept" in word for word in expression):
        return False
    about_port, about_source, others = False, False, any("xt" in word for word in expression)
    for match in (word["match"] for word in expression if "match" in word):
        left = match["left"] if isinstance(match["left"], Mapping) else {}
        payload = left.get("payload") or {"protocol": "meta", "field": left.get("meta", {}).get("key")}
        field = (payload.get("protocol"), payload.get("field")) if match["op"] in ("==", "in") else ()
        if not rule.port and field in (("ip", "protocol"), ("meta", "l4proto")):
            about_port = True
            if not _contains(match["right"], lambda low, _: low in (rule.protocol, _NUMBERS[rule.protocol])):
                return False
        elif field in (("tcp", "dport"), ("th", "dport")):
            about_port = True
            if not _contains(match["right"], lambda low, high: int(low) <= rule.port <= rule.high <= int(high)):
                return False
        elif field in (("ip", "saddr"), ("ip6", "saddr")):
            about_source = True
            if field[0] != ("ip" if rule.version == 4 else "ip6"):
                return False
            if not _contains(match["right"], lambda low, high: _within(rule.source, low, high)):
                return False
        else:
            others = True
    return about_port or (about_source and not others)


def _contains(right: Any, is_between: Callable[[Any, Any], bool]) -> bool:
    """Whether what a condition compares with has something; a set that is known by its name only may have it."""
    if isinstance(right, Mapping):
        if "set" in right:
            return any(_contains(one, is_between) for one in right["set"])
        if "range" in right:
            return is_between(*right["range"])
        if "prefix" in right:
            network = f"{right['prefix']['addr']}/{right['prefix']['len']}"
            return is_between(network, network)
        return True
    return (isinstance(right, str) and right.startswith("@")) or is_between(right, right)


def _within(source: str, low: str, high: str) -> bool:
    """Whether an address or network lies between others of the same version."""
    own, first, last = ip_network(source), ip_network(low), ip_network(high)
    return int(first[0]) <= int(own[0]) and int(own[-1]) <= int(last[-1])


def _command(chain: Mapping[str, Any], rule: Rule) -> str:
    """What opens the port until the next boot."""
    number = _NUMBERS.get(rule.protocol)
    if chain["name"] == "INPUT":  # made by iptables, which wants nobody else in its tables
        program = "iptables" if chain["family"] == "ip" else "ip6tables"
        port = f" --dport {rule.ports(':')}" if rule.port else ""
        return f"{program} -I INPUT -p {number or 'tcp'} -s {rule.source}{port} -j ACCEPT"
    family = "ip" if rule.version == 4 else "ip6"
    what = f"tcp dport {rule.ports('-')}" if rule.port else f"meta l4proto {number}"
    return f"nft insert rule {' '.join(_place(chain))} {family} saddr {rule.source} {what} accept"
