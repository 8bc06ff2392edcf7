"""The fleet plan as a table for people; private to the collection."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .text import counted, ranges

__all__ = ["format_table"]

TABLE_WIDTH = 100


def format_table(plan: Mapping[str, Any]) -> str:
    """The plan for people, at most 100 columns wide: a line for every node of every instance."""
    rows = [("INSTANCE", "HOST", "GPUS", "TP", "PP", "GIB/GPU", "ENDPOINT")]
    for instance in plan["instances"]:
        endpoint, parallelism = instance["endpoint"], instance["parallelism"]
        requested = instance["budget"]["requested"]
        head, *workers = [
            (_end(node["host"], 16), _end(",".join(ranges([gpu["index"] for gpu in node["gpus"]])), 8))
            for node in instance["nodes"]
        ]
        rows.append(
            (
                _end(instance["id"], 31),
                *head,
                str(parallelism["tensor"]),
                str(parallelism["pipeline"]),
                "?" if requested is None else f"{requested:.1f}",
                _end(f"{endpoint['address']}:{endpoint['port']}", 21),
            )
        )
        rows += [("", *worker, "", "", "", "") for worker in workers]
    lines = _columns(rows)
    memory = list(dict.fromkeys(_memory_row(one) for one in plan["instances"] if one["budget"]["weights"] is not None))
    if memory:
        titles = ("MODEL", "GPU", "CONTEXT", "WEIGHTS", "KV CACHE", "MARGIN", "WARM+", "KV TOKENS", "REQUESTS")
        note = (
            "GiB per GPU. KV CACHE is what every boot grants: MARGIN below the prediction, and WARM+ below what a "
            "later boot could have; without these it is the prediction itself. REQUESTS are of the whole CONTEXT."
        )
        lines += ["", *_columns([titles, *memory]), *textwrap.wrap(note, TABLE_WIDTH)]
    speeds = list(dict.fromkeys(_speed_row(one) for one in plan["instances"] if one.get("speed")))
    if speeds:
        columns = ("MODEL", "GPU", "ONE REQUEST", "FIRST TOKEN 1K", "8K", "FULL LOAD", "REQUESTS")
        band = next(one["speed"]["band"] for one in plan["instances"] if one.get("speed"))
        note = (
            f"Predicted: tokens/s of ONE REQUEST alone (within a factor of {band['decode']}), seconds to the FIRST "
            f"TOKEN of 1,000 and 8,000 tokens of prompt ({band['first_token']}), and output tokens/s of an instance at "
            f"FULL LOAD ({band['throughput']}), with so many REQUESTS of 1,000 + 250 tokens at once."
        )
        lines += ["", *_columns([columns, *speeds]), *textwrap.wrap(note, TABLE_WIDTH)]
    used = sum(len(node["gpus"]) for instance in plan["instances"] for node in instance["nodes"])
    models = len({instance["model"] for instance in plan["instances"]})
    instances = counted(len(plan["instances"]), "instance")
    lines += ["", f"{instances} of {counted(models, 'model')} on {counted(used, 'GPU')}"]
    for change in plan.get("changes", ()):
        words = f"change: {change['instance']} is {change['action']}: {change['reason']}"
        lines += textwrap.wrap(words, TABLE_WIDTH, subsequent_indent="  ")
    for warning in plan["warnings"]:
        lines += textwrap.wrap(f"warning: {warning}", TABLE_WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _memory_row(instance: Mapping[str, Any]) -> tuple[str, ...]:
    """What an instance promises, and at what distance from the prediction."""
    budget = instance["budget"]
    pinned = budget["pinned"]
    promise = pinned or budget
    length = instance["engine_args"].get("max-model-len")
    return (
        _end(instance["model"], 22),
        _end(budget["gpu"], 12),
        "auto" if length is None else str(length),
        f"{budget['weights']:.1f}",
        f"{promise['kv_cache']:.2f}",
        f"{pinned['margin']:.2f}" if pinned else "-",
        f"{pinned['warm_extra']:.2f}" if pinned else "-",
        str(promise["kv_cache_tokens"]),
        f"{promise['max_concurrency']:.1f}",
    )


def _speed_row(instance: Mapping[str, Any]) -> tuple[str, ...]:
    """How fast an instance is predicted to be."""
    speed = instance["speed"]
    return (
        _end(instance["model"], 22),
        _end(instance["budget"]["gpu"], 12),
        f"{speed['decode']:.0f}",
        f"{speed['first_token_1000']:.2g}",
        f"{speed['first_token_8000']:.2g}",
        f"{speed['throughput']:,.0f}",
        str(speed["requests"]),
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _end(text: str, width: int) -> str:
    """As much of a text as there is room for. Its end tells it from its neighbours."""
    return text if len(text) <= width else f"..{text[2 - width :]}"
