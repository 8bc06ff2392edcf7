"""The picture of the fleet as lines for people; private to the collection."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.text import counted

__all__ = ["table"]

WIDTH = 76  # Ansible folds what is longer
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

Record = Mapping[str, Any]


def table(status: Record, now: float) -> list[str]:
    """What :func:`.status.overview` returns, one screen of it. ``-`` is what nobody tells."""
    lines = [status["summary"]]
    for title, rows in (
        (("MODEL", "UP", "RUN", "WAIT", "KV", "TTFT P95"), map(_model, status["models"])),
        (
            ("INSTANCE", "HOSTS", "STATE", "FOR", "RUN", "WAIT", "KV"),
            (_instance(one, now) for one in status["instances"]),
        ),
        (
            ("HOST", "GPUS", "HOTTEST", "GPU ERRORS", "CHANGED", "LAST RUN"),
            (_host(one, now) for one in status["hosts"]),
        ),
    ):
        lines += ["", *_columns([title, *rows])]
    lines.append("")
    lines += [line for text in _sentences(status, now) for line in _folded(text)]
    return lines


def _model(model: Record) -> Sequence[str]:
    first = model["ttft_p95_seconds"]
    waited = f"{first:.3g} s" if first is not None else "no requests" if model["idle"] else "-"
    return model["name"], f"{model['up']}/{model['instances']}", *_engine(model), waited


def _instance(instance: Record, now: float) -> Sequence[str]:
    hosts = ",".join(instance["hosts"]) or "-"
    return instance["id"], hosts, instance["state"], _age(instance["since"], now), *_engine(instance)


def _engine(part: Record) -> Iterator[str]:
    for key in ("running", "waiting"):
        yield "-" if part[key] is None else f"{part[key]:.0f}"
    yield "-" if part["kv_cache_usage"] is None else f"{part['kv_cache_usage']:.1%}"


def _host(host: Record, now: float) -> Sequence[str]:
    errors = host["gpu_errors"]
    return (
        host["name"],
        "-" if host["gpus"] is None else str(host["gpus"]),
        "-" if host["celsius"] is None else f"{host['celsius']:.0f} C",
        "-" if errors is None else f"{len(errors)}" if errors else "none",
        _age(host["changed"], now) if host["answers"] else "no answer",
        _age(host["last_run"], now),
    )


def _sentences(status: Record, now: float) -> Iterator[str]:
    for instance in status["instances"]:
        if instance["reason"]:
            yield f"{instance['id']}: {instance['reason']}"
    for host in status["hosts"]:
        if host["gpu_errors"]:
            yield f"{host['name']}: {', '.join(host['gpu_errors'])}"
    for alert in status["alerts"]:
        words = f"{alert['severity']}{', silenced' if alert['silenced'] else ''}, {_age(alert['since'], now)}"
        yield f"ALERT {alert['name']} ({words}): {alert['summary']}"
    for door in status["front_doors"]:
        if door["connections"] is not None:
            yield f"front door {door['host']}: {counted(door['connections'], 'connection')}"
    last = status["last_change"]
    if last:
        yield f"last change: {_age(last['changed'], now)} ago on {last['host']}, {last['changed_file']}"
    yield from status["notes"]


def _age(time: str | None, now: float) -> str:
    """How long ago that was, in the largest unit of which there are two, or in seconds."""
    if time is None:
        return "-"
    then = datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    seconds = max(now - then.timestamp(), 0)
    size, unit = next((one for one in UNITS if seconds >= 2 * one[0]), UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _folded(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
