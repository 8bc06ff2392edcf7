"""The verdict on the hosts: every check of :mod:`._checks` on every host it is about; private to the collection."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import GpuHost
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Machine, Wanted

from .checks import CHECKS, CONTACT, FAILURE, GPU_HOST, HOST, WARNING, Check, Host

__all__ = ["diagnose", "diagnosis", "table"]

WIDTH, INDENT = 76, 4


def diagnosis(looks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict on the hosts by name, from what host_info registered there; see :func:`diagnose`."""
    return diagnose(_host(name, look) for name, look in looks.items())


def _host(name: str, look: Mapping[str, Any]) -> Host:
    message = " ".join(str(look.get("msg")).split()).removeprefix("Task failed: ")
    if look.get("unreachable"):
        return Host(name, unreachable=message)
    if look.get("failed"):
        return Host(name, unreadable=message)
    before, after = look["asked_epoch"]
    parts: dict[str, Any] = {"gpu": GpuHost.from_dict(look["gpu"])} if look["gpu"] else {}
    parts |= {"driver": Driver.from_dict(look["driver"])} if look["driver"] else {}
    wanted, machine = Wanted.from_dict(look["wanted"]), Machine.from_dict(look["machine"])
    return Host(name, wanted=wanted, machine=machine, asked_epoch=(before, after), **parts)


def diagnose(hosts: Iterable[Host]) -> dict[str, Any]:
    """The verdict: ``ok``, ``summary``, ``failures``, ``warnings`` and ``not_judged``, the lists sorted by host.

    An entry has ``code``, ``host``, ``observed``, ``needed`` and ``fix``; one of ``not_judged`` only the first two.
    """
    ordered = sorted(hosts, key=lambda host: host.name)
    found: dict[str, list[dict[str, str]]] = {FAILURE: [], WARNING: []}
    not_judged = []
    for host in ordered:
        for check in _checks_for(host):
            faults = check.judge(host)
            if faults is None:
                not_judged.append({"code": check.code, "host": host.name})
            found[check.severity] += [check.entry(host, fault) for fault in faults or ()]
    counts = ((len(ordered), "host"), (len(found[FAILURE]), "failure"), (len(found[WARNING]), "warning"))
    return {
        "ok": bool(ordered) and not found[FAILURE],
        "summary": ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts),
        "failures": found[FAILURE],
        "warnings": found[WARNING],
        "not_judged": not_judged,
    }


def _checks_for(host: Host) -> list[Check]:
    if any(check.judge(host) for check in CHECKS if check.scope == CONTACT):
        scopes = {CONTACT}
    else:
        scopes = {CONTACT, HOST, GPU_HOST} if host.wanted.gpu_host else {CONTACT, HOST}
    return [check for check in CHECKS if check.scope in scopes]


def table(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict as lines for people, short enough that Ansible does not fold them."""
    rows = [("FAILURE", entry) for entry in verdict["failures"]] + [("warning", entry) for entry in verdict["warnings"]]
    widths = [max((len(entry[key]) for _word, entry in rows), default=0) for key in ("host", "code")]
    lines = []
    for word, entry in sorted(rows, key=lambda row: row[1]["host"]):
        lines.append(f"{word}  {entry['host'].ljust(widths[0])}  {entry['code'].ljust(widths[1])}".rstrip())
        lines += _folded("found: ", entry["observed"]) + _folded("needed: ", entry["needed"])
        lines += _folded("fix: ", entry["fix"])
    unknown: dict[str, list[str]] = defaultdict(list)
    for entry in verdict["not_judged"]:
        unknown[entry["host"]].append(entry["code"])
    for host, codes in unknown.items():
        lines += _folded(f"not judged on {host}: ", ", ".join(codes), indent=0)
    return [*lines, verdict["summary"] + ("; root reads more: --become" if unknown else "")]


def _folded(word: str, text: str, indent: int = INDENT) -> list[str]:
    first, others = " " * indent, " " * (indent + INDENT)
    return textwrap.wrap(word + text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)
