"""A floating address: whether a host can hold it, and what keepalived is told for that; private to the collection.

All balancers of an address get the same list of their own addresses, whose order says who is preferred. A host finds
itself in it by its own addresses. `plan` is pure; `read` looks at the host.
"""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_address
from pathlib import Path
from typing import Any

from .._errors import FrontAddressError
from .access import Resolve, endpoint_of
from .system import Answer, read_text

__all__ = ["Seen", "Wishes", "plan", "read", "router_id_of", "unusable"]

FACT = Path("etc/ansible/facts.d/gpuhosts_front_address.fact")  # says that keepalived is the role's
CONFIGURATION = Path("etc/keepalived/keepalived.conf")
USER = "keepalived_script"
NONLOCAL = Path("proc/sys/net/ipv4/ip_nonlocal_bind")
_BEST, _WORST = 250, 100  # priorities: the difference keeps two from taking over at the same moment
_NOBODY = IPv4Address(0)
_EVERY = ("", "*", str(_NOBODY))  # what NGINX listens on then, of IPv4
# Ports that keepalived_t may connect to in every policy: http_port_t, github.com/fedora-selinux/selinux-policy.
_HTTP_PORTS = frozenset((80, 81, 443, 488, 8008, 8009, 8443, 9000))


@dataclass(frozen=True)
class Wishes:
    """What is wanted of the balancers of an address."""

    address: str  # with the length of its network's prefix
    balancers: Sequence[str]  # their own addresses or names, the preferred one first
    interface: str = ""  # "": the one whose network has the address
    router_id: int = 0  # 0: of the address
    listens_on: Sequence[str] = ("80",)  # as NGINX has it


@dataclass(frozen=True)
class Seen:
    """What a host has."""

    addresses: Sequence[tuple[str, IPv4Interface]]  # with their interfaces
    held: str = ""  # the floating address that the role has given it before
    is_foreign: bool = False  # a keepalived of somebody else's
    has_user: bool = True  # for the question to NGINX
    binds_nonlocal: bool = False  # it lets programs listen on addresses that it has not


def unusable(text: str) -> str:
    """Why something is no floating address, to go on after its name; "" if it is one."""
    try:
        found = IPv4Interface(text)
    except ValueError:
        found = None
    if found is None or "/" not in text:
        return "which is no IPv4 address with the length of its network's prefix. Write it as 192.0.2.10/24"
    own, network = found.ip, found.network
    if own.is_loopback or own.is_multicast or own.is_unspecified or own.is_reserved:
        return "which cannot be an address of several hosts. Choose a free one of the balancers' network"
    if network.prefixlen < 31 and own in (network.network_address, network.broadcast_address):
        return f"which is no host's in {network}. Choose one of those between"
    return ""


def router_id_of(address: str, given: int) -> int:
    """The VRRP router id: the given one, else the last number of the address; there is no 0."""
    return given or int(IPv4Interface(address).ip) % 256 or 255


def plan(wishes: Wishes, seen: Seen, host: str, addresses_of: Resolve) -> dict[str, Any]:
    """What keepalived of this host is told, as the role's templates take it.

    :raises FrontAddressError: The host cannot hold the address as it was asked for, with all reasons.
    """
    if reason := unusable(wishes.address):
        raise FrontAddressError(f"{host}: front_address_cidr is '{wishes.address}', {reason}.")
    address = IPv4Interface(wishes.address)
    addresses = [(name, one) for name, one in seen.addresses if str(one.ip) != seen.held]
    interface, mistakes = _interface(wishes.interface, addresses, address)
    known = {one.ip: name for name, one in addresses}
    balancers = [_address(word, known, addresses_of) for word in wishes.balancers]
    own = next((one for one in balancers if one in known), _NOBODY)
    if own not in known:
        there = ", ".join(str(one) for one in known if not one.is_loopback)
        mistakes.append(
            f"none of the balancers {', '.join(wishes.balancers)} is one of its addresses, {there}. "
            f"Set fleet_address of {host} to that by which the other balancers reach it"
        )
    for word, found in zip(wishes.balancers, balancers):
        if found is None:
            mistakes.append(f"the balancer {word} has no IPv4 address that {host} knows. Set fleet_address of it")
    if address.ip in known:
        mistakes.append(f"{address.ip} already is an address of {host} itself. Choose one that no host has")
    if seen.is_foreign:
        mistakes.append(
            f"its keepalived has a configuration that is not the role's, /{CONFIGURATION}. Move what it does elsewhere "
            "and remove that file, or leave front_address_cidr out of the inventory"
        )
    url, reason = _question(wishes.listens_on, address.ip, host)
    if reason:
        mistakes.append(reason)
    if mistakes:
        raise FrontAddressError("".join(f"{host} cannot hold {wishes.address}: {one}. " for one in mistakes).strip())
    place = balancers.index(own)
    listens_there = any(where == str(address.ip) for where, _, _ in _listening(wishes.listens_on))
    return {
        "address": str(address.ip),
        "interface": interface,
        "own_address": str(own),
        "own_interface": known[own],
        "peers": [str(one) for one in balancers if one != own],
        "priority": _BEST - (_BEST - _WORST) * place // max(len(balancers) - 1, 1),
        "router_id": router_id_of(wishes.address, wishes.router_id),
        "url": url,
        "booleans": ["keepalived_connect_any"] if _port(url) not in _HTTP_PORTS else [],
        "user_is_missing": not seen.has_user,
        "needs_nonlocal": listens_there,
        "lacks_nonlocal": listens_there and not seen.binds_nonlocal,
    }


def _interface(
    given: str, addresses: Sequence[tuple[str, IPv4Interface]], address: IPv4Interface
) -> tuple[str, list[str]]:
    """The interface whose network has the address, or why there is none."""
    if given and given not in [name for name, _ in addresses]:
        names = ", ".join(sorted({name for name, _ in addresses}))
        return "", [f"front_address_interface is '{given}', and those with an IPv4 address are {names}"]
    asked = [(name, one) for name, one in addresses if given in ("", name)]
    found = {name: one for name, one in asked if address.ip in one.network}
    if not found:
        there = ", ".join(f"{name} {one}" for name, one in asked if not one.is_loopback)
        return "", [f"it is in the network of no interface ({there}). Choose an address of one of these networks"]
    if len(found) > 1:
        return "", [f"{' and '.join(found)} have its network. Name one of them as front_address_interface"]
    ((name, one),) = found.items()
    if one.network != address.network:
        right = f"{address.ip}/{one.network.prefixlen}"
        return name, [f"the network of {name} is {one.network}. Set front_address_cidr to {right}"]
    return name, []


def _address(word: str, known: Mapping[IPv4Address, str], addresses_of: Resolve) -> IPv4Address | None:
    """The address of a balancer; of a name with several, the one that this host has, else the first."""
    try:
        found = [ip_address(word)]
    except ValueError:
        found = [ip_address(one) for one in addresses_of(word)]
    usable = [one for one in found if isinstance(one, IPv4Address)]
    return next((one for one in usable if one in known), usable[0] if usable else None)


def _listening(words: Sequence[str]) -> Iterator[tuple[str, int, bool]]:
    """Address, port and whether it takes TLS, of all that NGINX listens on."""
    for word in words:
        if endpoint := endpoint_of(word):
            yield (*endpoint, "ssl" in word.split()[1:])


def _question(words: Sequence[str], address: IPv4Address, host: str) -> tuple[str, str]:
    """Where NGINX of this host tells its health whether it holds the address or not; or why it cannot."""
    listening = sorted(_listening(words), key=lambda one: one[2])  # without TLS first
    if not any(where in (*_EVERY, str(address)) for where, _, _ in listening):
        own = ", ".join(words)
        return "", f"NGINX listens on {own} only. Add {address}:{_first_port(listening)} to nginx_lb_listen of {host}"
    for where, port, has_tls in listening:
        if where != str(address) and ":" not in where:
            scheme = "https" if has_tls else "http"
            return f"{scheme}://{'127.0.0.1' if where in _EVERY else where}:{port}/health", ""
    port = _first_port(listening)
    return "", f"NGINX listens nowhere else, so that {host} could not ask it. Add 127.0.0.1:{port} to nginx_lb_listen"


def _first_port(listening: Sequence[tuple[str, int, bool]]) -> int:
    return listening[0][1] if listening else 80


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def read(root: Path, ask: Callable[[Sequence[str]], Answer]) -> Seen:
    """Look at a host.

    :raises FrontAddressError: It does not tell its addresses.
    """
    told = ask(["ip", "-json", "-4", "address"])
    if told.code:
        raise FrontAddressError(f"`ip -json -4 address` fails: {told.errors or 'it is not there'}. Install iproute2.")
    addresses = [
        (link["ifname"], IPv4Interface(f"{one['local']}/{one['prefixlen']}"))
        for link in json.loads(told.output)
        for one in link.get("addr_info", ())
        if "local" in one
    ]
    fact = read_text(root / FACT)
    has_configuration = not fact and (root / CONFIGURATION).exists()
    # Enterprise Linux packs a sample, which nothing starts.
    is_foreign = has_configuration and ask(["systemctl", "is-enabled", "keepalived.service"]).code == 0
    try:
        pwd.getpwnam(USER)
        has_user = True
    except KeyError:
        has_user = False
    held = json.loads(fact)["address"] if fact else ""
    return Seen(addresses, held, is_foreign, has_user, read_text(root / NONLOCAL) == "1")
