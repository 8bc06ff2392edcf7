"""What the hosts tell of the fleet at this moment, put together; private to the collection.

Every figure has one source: docs/status.md says which.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.keepers import SERVING
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.text import counted, some

__all__ = ["DOWN", "DRAINED", "UNKNOWN", "UP", "overview", "utc"]

UP, DRAINED, DOWN, UNKNOWN = "up", "drained", "down", "unknown"
ENGINE = ("running", "waiting", "kv_cache_usage")
_JOIN: dict[str, Callable[[list[float]], float]] = {"running": sum, "waiting": sum, "kv_cache_usage": max}
_BY = {"operator": "drained by an operator", "maintenance": "drained for maintenance"}
# Series without which a figure is not known; cards without ECC have no others.
_NEEDED = {
    "ttft_p95_seconds": "model:ttft_seconds:p95",
    "gpus": "gpuhosts_gpus_found",
    "celsius": "DCGM_FI_DEV_GPU_TEMP",
    "xid": "DCGM_FI_DEV_XID_ERRORS",
}
_GPU_ERRORS = {"xid": "XID {}", "uncorrected": "{} uncorrected ECC", "remap_failed": "row remap failed"}

Record = Mapping[str, Any]


def overview(
    looks: Mapping[str, Record], addresses: Mapping[str, str], observers: Sequence[str], now: float
) -> dict[str, Any]:
    """The whole picture, as it is kept and shown.

    :param looks: what host_status returned, by host.
    :param addresses: of all hosts of the fleet, asked or not, by their names.
    :param observers: the hosts that have Prometheus.
    :param now: seconds since 1970, which ages are counted from.
    """
    notes: list[str] = []
    told = dict(_told(looks, notes))
    out = sorted(set(addresses) - set(looks))
    if out:
        notes.append(f"not asked: {', '.join(some(out))}")
    measured, alerts = _measured(told, observers, notes)
    instances = _instances(told, looks, addresses)
    models = _models(instances, measured)
    hosts = [_host(name, told.get(name), measured) for name in sorted(looks)]
    changes = [host for host in hosts if host["changed"]]
    newest = max(changes, key=lambda host: host["changed"], default=None)
    return {
        "time": utc(now),
        "summary": _summary(models, instances, alerts, measured is not None),
        "models": models,
        "instances": instances,
        "hosts": hosts,
        "front_doors": [
            {"host": name, "connections": look["front_door"]["connections"]}
            for name, look in sorted(told.items())
            if look["front_door"]
        ],
        "alerts": alerts,
        "last_change": {key: newest[key] for key in ("changed", "changed_file")} | {"host": newest["name"]}
        if newest
        else None,
        "notes": notes,
    }


def utc(epoch: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601; None stays it."""
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _told(looks: Mapping[str, Record], notes: list[str]) -> Iterator[tuple[str, Record]]:
    """The hosts that have answered; of the others it is noted why not."""
    for name, look in sorted(looks.items()):
        if "unreached" in look:
            notes.append(f"{name} cannot be reached: {look['unreached']}")
        elif "unread" in look:
            notes.append(f"{name} could not be read: {look['unread']}")
        else:
            notes += [f"{name}: {problem}" for problem in look["problems"]]
            yield name, look


def _measured(
    told: Mapping[str, Record], observers: Sequence[str], notes: list[str]
) -> tuple[Record | None, list[dict[str, Any]]]:
    """What the first Prometheus that answers has measured, and the alerts that fire there; None: none answers."""
    name = next((name for name in observers if told.get(name, {}).get("prometheus")), None)
    if name is None:
        why = f"no answer of Prometheus ({', '.join(some(observers))})" if observers else "the fleet has no Prometheus"
        notes.append(f"{why}: TTFT, GPUs and alerts are not known")
        return None, []
    found = told[name]["prometheus"]
    lacking = [series for query, series in _NEEDED.items() if not found[query]]
    if lacking:
        notes.append(f"Prometheus of {name} has no {', '.join(lacking)}")
    quiet = [set(labels.items()) for look in told.values() for labels in look["silenced"]]
    return found, sorted((_alert(alert, quiet) for alert in found["alerts"]), key=_order)


def _alert(alert: Record, quiet: Sequence[set[tuple[str, str]]]) -> dict[str, Any]:
    labels = dict(alert["labels"])
    return {
        "name": labels.pop("alertname"),
        "severity": labels.get("severity", ""),
        "summary": alert["annotations"].get("summary", ""),
        "since": alert["activeAt"][:19] + "Z",  # without parts of seconds
        "silenced": any(set(alert["labels"].items()) <= one for one in quiet),  # Alertmanager adds Prometheus' own
        "labels": labels,
    }


def _order(alert: Record) -> tuple[Any, ...]:
    urgency = ("page", "ticket", "info")
    severity = alert["severity"]
    return alert["silenced"], urgency.index(severity) if severity in urgency else len(urgency), alert["name"]


def _instances(
    told: Mapping[str, Record], looks: Mapping[str, Record], addresses: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Those that hosts have, and those that front doors send requests to though no host that was asked has them."""
    heads: dict[str, Record] = {}
    nodes: dict[str, list[str]] = defaultdict(list)
    for name, look in sorted(told.items()):
        for engine in look["engines"]:
            nodes[engine["id"]].append(name)
            if engine["rank"] == 0 or engine["id"] not in heads:
                heads[engine["id"]] = engine
    doors = {name: {one["id"]: one for one in _servers(look)} for name, look in told.items() if look["front_door"]}
    for servers in doors.values():
        for server in servers.values():
            if server["id"] not in heads:
                heads[server["id"]] = {**server, "missing": _missing(server["address"], told, looks, addresses)}
    return [_instance(heads[one], nodes[one], doors) for one in sorted(heads)]


def _servers(look: Record) -> list[Record]:
    return [server for server in look["front_door"]["servers"] if server["id"]]


def _missing(
    server: str, told: Mapping[str, Record], looks: Mapping[str, Record], addresses: Mapping[str, str]
) -> dict[str, Any]:
    """Of a server of a front door that no host has told of: the host where it has to be, its state, and why."""
    address = server.rpartition(":")[0]
    host = next((name for name, known in addresses.items() if known == address), None)
    if host is None:
        return {"hosts": [], "state": DOWN, "reason": f"no host of the inventory has the address {address}"}
    if host not in looks:
        return {"hosts": [host], "state": UNKNOWN, "reason": f"{host} was not asked"}
    reason = f"{host} has no such instance" if host in told else f"{host} does not answer"
    return {"hosts": [host], "state": DOWN, "reason": reason}


def _instance(head: Record, nodes: list[str], doors: Mapping[str, Mapping[str, Record]]) -> dict[str, Any]:
    state, reasons = _state(head)
    known = {door: servers[head["id"]]["drained"] for door, servers in doors.items() if head["id"] in servers}
    drained = {door: by for door, by in known.items() if by}
    if drained and len(drained) == len(doors):
        state = DRAINED if state == UP else state
        reasons += sorted({_BY[by] for by in drained.values()})
    else:
        reasons += [f"{_BY[by]} at {door}" for door, by in sorted(drained.items())]
        reasons += [f"not a server of the front door {door}" for door in sorted(set(doors) - set(known))]
    keeper = head.get("keeper") or {}
    return {
        "id": head["id"],
        "model": head["model"],
        "hosts": nodes or head["missing"]["hosts"],
        "state": state,
        "reason": ", ".join(reasons),
        "since": utc(keeper["epoch"] / 1000) if keeper.get("state") and keeper.get("epoch") else None,
        **{key: head.get(key) for key in ENGINE},
    }


def _state(head: Record) -> tuple[str, list[str]]:
    """Of an instance by itself, whatever the front doors think of it."""
    if "missing" in head:
        return head["missing"]["state"], [head["missing"]["reason"]]
    if head["rank"] != 0:
        return UNKNOWN, ["the host with its API was not asked, or does not answer"]
    keeper = head["keeper"]
    if keeper and keeper["state"] is None:
        return DOWN, ["stopped"]
    if keeper and keeper["state"] != SERVING:
        return DOWN, [f"waits for {keeper['waits_for']}" if keeper["waits_for"] else keeper["state"]]
    return (DOWN, [head["problem"]]) if head["problem"] else (UP, [])


def _models(instances: Sequence[Record], measured: Record | None) -> list[dict[str, Any]]:
    first = {sample["labels"].get("model"): sample["value"] for sample in (measured or {}).get("ttft_p95_seconds", ())}
    models = []
    for name in sorted({instance["model"] for instance in instances}):
        own = [instance for instance in instances if instance["model"] == name]
        values = {key: [one[key] for one in own if one[key] is not None] for key in ENGINE}
        models.append(
            {
                "name": name,
                "instances": len(own),
                **{state: sum(one["state"] == state for one in own) for state in (UP, DRAINED, DOWN, UNKNOWN)},
                **{key: _JOIN[key](known) if known else None for key, known in values.items()},
                "ttft_p95_seconds": _number(first.get(name)),
                "idle": name in first and _number(first[name]) is None,
            }
        )
    return models


def _number(text: str | None) -> float | None:
    """A value of Prometheus; a quantile of nothing is no number."""
    value = math.nan if text is None else float(text)
    return None if math.isnan(value) else value


def _host(name: str, look: Record | None, measured: Record | None) -> dict[str, Any]:
    changes = look["changes"] if look else {}
    gpus = _samples(name, "gpus", measured)
    temperatures = _samples(name, "celsius", measured)
    return {
        "name": name,
        "answers": look is not None,
        "gpus": int(gpus[0][1]) if gpus else None,
        "celsius": temperatures[0][1] if temperatures else None,
        "gpu_errors": _gpu_errors(name, measured),
        "changed": utc(changes.get("changed_epoch")),
        "changed_file": changes.get("path"),
        "last_run": utc(changes.get("run_epoch")),
    }


def _gpu_errors(name: str, measured: Record | None) -> list[str] | None:
    """What is wrong with the GPUs of a host, for each of them; None: nobody knows."""
    errors = [f"{lost:.0f} lost" for _, lost in _samples(name, "lost", measured) if lost > 0]
    errors += [
        f"GPU {gpu}: {words.format(int(value))}"
        for query, words in _GPU_ERRORS.items()
        for gpu, value in _samples(name, query, measured)
        if value > 0
    ]
    return errors if errors or _samples(name, "xid", measured) else None


def _samples(name: str, query: str, measured: Record | None) -> list[tuple[str, float]]:
    """Of a host: the GPU, where it is of one, and the value."""
    return [
        (sample["labels"].get("gpu", ""), float(sample["value"]))
        for sample in (measured or {}).get(query, ())
        if sample["labels"].get("host") == name
    ]


def _summary(models: Sequence[Record], instances: Sequence[Record], alerts: Sequence[Record], watched: bool) -> str:
    states: Iterable[tuple[int, str]] = (
        (sum(instance["state"] == state for instance in instances), state) for state in (UP, DRAINED, DOWN, UNKNOWN)
    )
    parts = [f"{number} {state}" for number, state in states if number or state == UP]
    firing = sum(not alert["silenced"] for alert in alerts)
    heard = f"{counted(firing, 'alert')} firing" if watched else "alerts not known"
    return f"{counted(len(models), 'model')}, {counted(len(instances), 'instance')}: {', '.join(parts)}; {heard}"
