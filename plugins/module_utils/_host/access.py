"""What a service needs to be reached and to do its work: ports in the firewall, and SELinux; private to the collection.

A host that has neither is looked at in no time. What differs comes as steps, which check mode shows and a run takes.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from .._errors import AccessError
from .firewall import Ask, Rule, firewall_steps
from .places import diff_of
from .selinux import TOOLS, Needs, is_enabled, selinux_steps
from .steps import Step

__all__ = ["ARGUMENTS", "Access", "Opening", "Resolve", "addresses_of", "endpoint_of", "look"]

# Documented in plugins/doc_fragments/access.py.
ARGUMENTS: Mapping[str, Any] = {
    "name": {"type": "str", "required": True},
    "listens_on": {"type": "list", "elements": "str", "required": True},
    "allow_from": {"type": "list", "elements": "str", "required": True},
    "protocols": {"type": "list", "elements": "str", "choices": ["vrrp"], "default": []},
    "firewall": {"type": "str", "choices": ["auto", "none"], "default": "auto"},
    "booleans": {"type": "list", "elements": "str", "default": []},
    "port_type": {"type": "str", "default": ""},
    "known_ports": {"type": "list", "elements": "int", "default": []},
    "file_contexts": {"type": "dict", "default": {}},
}
_NAME_LENGTH = 17  # of a policy of firewalld (firewalld.policy(5))

Resolve = Callable[[str], list[str]]  # the addresses of a name; [] where it has none


@dataclass(frozen=True)
class Opening:
    """TCP ports from one to another, and who may reach these."""

    first: int
    last: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Access:
    """What of it the host does not have."""

    selinux: tuple[Step, ...] = ()  # before the service is started
    firewall: tuple[Step, ...] = ()  # once it runs
    packages: tuple[str, ...] = ()  # that the steps need and that are not there
    warnings: tuple[str, ...] = ()  # what nobody but the operator can do

    @property
    def diff(self) -> list[dict[str, str]]:
        """Entries of the diff that Ansible shows."""
        return [diff_of(Path("access"), "", "\n".join([*self.says, ""]))] if self.says else []

    @property
    def says(self) -> list[str]:
        """What differs, for people."""
        return [sentence for step in (*self.selinux, *self.firewall) for sentence in step.says]


def look(
    root: Path,
    ask: Ask,
    given: Mapping[str, Any] | None,
    addresses_of: Resolve,
    openings: Callable[[], Iterable[Opening]] = tuple,
) -> Access:
    """Compare a host with the option ``access`` of a module; None: nothing is looked after.

    ``openings`` are for others than those who may reach what the service listens on.
    """
    if not given:
        return Access()
    if len(given["name"]) > _NAME_LENGTH:
        raise AccessError(f"access.name is '{given['name']}'; firewalld takes no more than {_NAME_LENGTH} characters.")
    endpoints = [endpoint for endpoint in map(endpoint_of, given["listens_on"]) if endpoint]
    selinux: list[Step] = []
    if is_enabled(root):
        known = frozenset(given["known_ports"])
        needs = Needs(tuple(given["booleans"]), given["port_type"], known, given["file_contexts"])
        selinux = selinux_steps(
            root, lambda command: ask(command).output, needs, sorted({port for _, port in endpoints})
        )
    reached = {port for address, port in endpoints if not _is_loopback(address)}

    def rules() -> list[Rule]:
        allowed = _sources(given["allow_from"], addresses_of)
        open_to_all = [Rule(port, source) for source in allowed for port in reached]
        open_to_all += [Rule(0, source, protocol=name) for source in allowed for name in given["protocols"]]
        return open_to_all + [
            Rule(one.first, source, one.last) for one in openings() for source in _sources(one.sources, addresses_of)
        ]

    firewall, warnings = ([], []) if given["firewall"] == "none" else firewall_steps(root, ask, given["name"], rules)
    packages = (TOOLS,) if selinux and not (root / "usr/sbin/semanage").exists() else ()
    return Access(tuple(selinux), tuple(firewall), packages, tuple(warnings))


def addresses_of(name: str) -> list[str]:
    """The addresses of a name, as this host knows them. Digits alone are none, though 10.0 is 10.0.0.0 to libc."""
    if re.fullmatch(r"[0-9.]+", name):
        return []
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def endpoint_of(words: str) -> tuple[str, int] | None:
    """Address ("": all of them) and port of what somebody listens on; None for a socket that is no TCP port."""
    word = words.partition(" ")[0]
    if word.startswith("unix:"):
        return None
    found = re.fullmatch(r"(?:(.*):)?(\d+)", word)
    if not found:
        return word.strip("[]"), 80  # as NGINX takes it
    return (found[1] or "").strip("[]"), int(found[2])


def _is_loopback(address: str) -> bool:
    """Whether nobody but the host itself can use an address; every firewall lets it."""
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        return False


def _sources(words: Iterable[str], addresses_of: Resolve) -> list[str]:
    """Addresses and networks as firewalls write them; names are looked up, since a firewall takes none."""
    networks = set()
    for word in words:
        try:
            found = [ip_network(word, strict=False)]
        except ValueError:
            found = [ip_network(address) for address in addresses_of(word)]
        if not found:
            raise AccessError(
                f"access.allow_from has '{word}', which is no address, no network and no name that this host knows. "
                "If that is a host of the inventory, set its fleet_address to the address by which the others reach it."
            )
        networks.update(found)
    return [
        str(one.network_address if one.num_addresses == 1 else one)
        for one in networks
        if not one.network_address.is_loopback
    ]
