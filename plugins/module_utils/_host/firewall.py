"""Ports that a service is reached at, in the firewall that the host has; private to the collection.

Rules of ours bear the name of what they are for, so that they are found again and go when nothing needs them: with
firewalld a policy has that name, with ufw it is the comment of the rules. Rules of others are left as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

from .nftables import closing_chains, missing_rules
from .places import File
from .steps import Step
from .system import Answer, read_text

__all__ = ["Ask", "Rule", "firewall_steps"]

Ask = Callable[[Sequence[str]], Answer]

# A question to firewalld by D-Bus, which takes a hundredth of the time of firewall-cmd (firewalld.dbus(5)).
_SETTINGS = (
    *("busctl", "--auto-start=no", "--json=short", "call", "org.fedoraproject.FirewallD1"),
    *("/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.policy", "getPolicySettings", "s"),
)
# After the rules of the zones: what somebody refuses there stays refused (firewalld.policies(5)).
_PRIORITY = 100


class Rule(NamedTuple):
    """A TCP port, all from one to another, or a protocol of IP, and who may reach it: an address or a network."""

    port: int  # 0: the protocol has none
    source: str
    last: int = 0  # 0: there is one port
    protocol: str = "tcp"

    @property
    def high(self) -> int:
        """The last port."""
        return self.last or self.port

    def ports(self, dash: str) -> str:
        """The port, or both ends with something between."""
        return f"{self.port}{dash}{self.last}" if self.last else str(self.port)

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return ip_network(self.source).version

    def __str__(self) -> str:
        if not self.port:
            return f"{self.protocol.upper()} for {self.source}"
        return f"TCP port{'s' * bool(self.last)} {self.ports('-')} for {self.source}"


def firewall_steps(
    root: Path, ask: Ask, name: str, wanted: Callable[[], Iterable[Rule]]
) -> tuple[list[Step], list[str]]:
    """Steps in the firewall that is active here, and what nobody but the operator can do.

    :param wanted: the rules; it is not asked where there is no firewall.
    """
    if (root / "usr/bin/firewall-cmd").exists():
        answered = ask([*_SETTINGS, name])
        if answered.code == 0 or "INVALID_POLICY" in answered.errors:  # else it does not run
            return _firewalld(root, name, answered.output, sorted(wanted())), []
    if re.search(r"(?mi)^ENABLED=yes", read_text(root / "etc/ufw/ufw.conf")):
        return _ufw(root, name, sorted(wanted()))
    if (root / "usr/sbin/nft").exists() and (chains := closing_chains(ask)):
        return [], missing_rules(ask, chains, sorted(wanted()))
    return [], []


def _firewalld(root: Path, name: str, now: str, rules: Sequence[Rule]) -> list[Step]:
    """Steps in firewalld, which has two of everything: what holds now, and files for the time after a reload."""
    path = root / "etc/firewalld/policies" / f"{name}.xml"
    settings = json.loads(now)["data"][0] if now else {}
    texts = [_rich(rule) for rule in rules]
    there = set(settings.get("rich_rules", {}).get("data", []))
    more, less = [text for text in texts if text not in there], sorted(there - set(texts))

    steps: list[Step] = []
    file = File(path, 0o644, content=_policy(name, rules))
    if rules and file.before() != file.content:
        says = [] if more or less else [f"firewalld: policy {name} lasts"]
        steps.append(Step(tuple(says), write=file))
    if not rules and path.exists():
        says = [] if less else [f"firewalld: policy {name} is gone"]
        steps.append(Step(tuple(says), remove=path))
    says_more = tuple(f"firewalld: {_plain(text)} is open" for text in more)
    says_less = tuple(f"firewalld: no longer open: {_plain(text)}" for text in less)
    if rules and not settings:  # that there is such a policy, it learns by a reload
        return [*steps, Step(says_more + says_less, ("firewall-cmd", "--reload"))]
    # Without one: it would take from others what holds now only.
    policy = ("firewall-cmd", f"--policy={name}")
    if more:
        steps.append(Step(says_more, (*policy, *(f"--add-rich-rule={text}" for text in more))))
    if less:
        steps.append(Step(says_less, (*policy, *(f"--remove-rich-rule={text}" for text in less))))
    return steps


def _rich(rule: Rule) -> str:
    """A rule in firewalld's language, as firewalld itself writes it."""
    what = f'port port="{rule.ports("-")}" protocol="tcp"' if rule.port else f'protocol value="{rule.protocol}"'
    return f'rule family="ipv{rule.version}" source address="{rule.source}" {what} accept'


def _plain(text: str) -> str:
    """A rule of firewalld for people; one that is not as ours are stays as it is."""
    ours = (
        r'rule family="ipv[46]" source address="(\S+)" '
        r'(?:port port="(\d+)(?:-(\d+))?" protocol="tcp"|protocol value="(\w+)") accept'
    )
    return re.sub(
        ours, lambda found: str(Rule(int(found[2] or 0), found[1], int(found[3] or 0), found[4] or "tcp")), text
    )


def _policy(name: str, rules: Iterable[Rule]) -> str:
    """A policy of firewalld, as a file.

    It is one for any zone: firewalld 1 passes over one for a zone without interfaces (firewalld.policies(5)), which the
    default zone is where there is no NetworkManager.
    """
    lines = [
        f'  <rule family="ipv{rule.version}"><source address="{rule.source}"/>'
        + (f'<port port="{rule.ports("-")}" protocol="tcp"/>' if rule.port else f'<protocol value="{rule.protocol}"/>')
        + "<accept/></rule>"
        for rule in rules
    ]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="utf-8"?>',
            "<!-- Managed by Ansible, collection gpuhosts.vllm -->",
            f'<policy target="CONTINUE" priority="{_PRIORITY}">',
            f"  <short>{name}</short>",
            '  <ingress-zone name="ANY"/>',
            '  <egress-zone name="HOST"/>',
            *lines,
            "</policy>",
            "",
        ]
    )


class _Entry(NamedTuple):
    """A rule of ufw about what comes in, as its file has it."""

    action: str  # allow, deny_log, ...
    protocol: str  # any: all of them
    ports: str
    source: str
    comment: str

    def is_about(self, rule: Rule) -> bool:
        """Whether it decides over all of what a rule lets in, if no entry does before it."""
        own, other = ip_network(rule.source), ip_network(self.source)
        ranges = [part.partition(":") for part in self.ports.split(",")]
        return (
            own.version == other.version
            and self.protocol in ("any", rule.protocol)
            and int(other[0]) <= int(own[0])
            and int(own[-1]) <= int(other[-1])
            and any(low == "any" or int(low) <= rule.port <= rule.high <= int(high or low) for low, _, high in ranges)
        )


_ENTRY = r"(?m)^### tuple ### (\w+) (\w+) (\S+) (?:0\.0\.0\.0/0|::/0) any (\S+) in(?: comment=([0-9a-f]+))?$"


def _ufw(root: Path, name: str, rules: Iterable[Rule]) -> tuple[list[Step], list[str]]:
    """Steps in ufw, which keeps what holds now and after a boot the same, and rules that are in the way of ours."""
    text = read_text(root / "etc/ufw/user.rules") + "\n" + read_text(root / "etc/ufw/user6.rules")
    entries = [_Entry(*found) for found in re.findall(_ENTRY, text)]
    there = {
        Rule(int(found[1] or 0), entry.source, int(found[2] or 0), entry.protocol): entry
        for entry in entries
        if entry.protocol != "any" and (found := re.fullmatch(r"(?:any|(\d+)(?::(\d+))?)", entry.ports))
    }
    ours = {rule for rule, entry in there.items() if bytes.fromhex(entry.comment).decode() == name}
    without_6 = re.search(r"(?mi)^IPV6=['\"]?no", read_text(root / "etc/default/ufw"))
    # The first one decides, so that a rule of ours after it would open nothing.
    first = {rule: next((entry for entry in entries if entry.is_about(rule)), None) for rule in rules}
    refused = {rule: entry for rule, entry in first.items() if entry and entry.action.startswith(("deny", "reject"))}
    # A rule that somebody else has made stays theirs, and mostly serves as well: ufw would put ours in its place.
    more = [rule for rule in first if rule not in {*there, *refused} and not (without_6 and rule.version == 6)]
    less = sorted(ours.difference(first))
    steps = [
        *(Step((f"ufw: {rule} is open",), ("ufw", "allow", *_words(rule), "comment", name)) for rule in more),
        *(Step((f"ufw: no longer open: {rule}",), ("ufw", "delete", "allow", *_words(rule))) for rule in less),
    ]
    return steps, [
        f"A rule of somebody's in ufw refuses {rule}, and stays. Where that is not meant: "
        f"{_opens(rule, entry, there.get(rule))}"
        for rule, entry in refused.items()
    ]


def _words(rule: Rule) -> tuple[str, ...]:
    port = ("port", rule.ports(":")) if rule.port else ()
    return ("proto", rule.protocol, "from", rule.source, "to", "any", *port)


def _opens(rule: Rule, refuses: _Entry, same: _Entry | None) -> str:
    """What lets a rule stand before the one that refuses it; ufw keeps one of the same port and source where it is."""
    words = " ".join(_words(rule))
    if same is refuses:
        return f"ufw allow {words}"
    leaves = f"ufw delete {same.action.replace('_', ' ')} {words} && " if same else ""
    return f"{leaves}ufw prepend allow {words}"
