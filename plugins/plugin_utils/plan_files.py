"""The fleet plan as files to keep: for programs, for terminals and for browsers; private to the collection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .report import render

__all__ = ["effective_files", "plan_files"]

Record = Mapping[str, Any]


def plan_files(plan: Record, table: str, hosts: Sequence[Record]) -> list[dict[str, Any]]:
    """``plan.json``, ``plan.txt`` and ``plan.html``: name, content, and whether to tell changes of it.

    Of environment variables they have the names alone: a value may be a secret, and nobody needs it there.
    """
    shown = {**plan, "instances": [_without_values(instance) for instance in plan["instances"]]}
    return [
        {"name": "plan.json", "content": json.dumps(shown, indent=4, sort_keys=True) + "\n", "told": True},
        {"name": "plan.txt", "content": table + "\n", "told": True},
        {"name": "plan.html", "content": render(shown, hosts), "told": False},
    ]


def effective_files(running: Record, entries: Sequence[Record], hosts: Sequence[Record]) -> list[dict[str, Any]]:
    """``effective.json``, from which the next plan may be calibrated, and ``effective.html``; likewise."""
    return [
        {"name": "effective.json", "content": json.dumps(entries, indent=4, sort_keys=True) + "\n", "told": False},
        {"name": "effective.html", "content": render(running, hosts), "told": False},
    ]


def _without_values(part: Record) -> dict[str, Any]:
    """An instance or a node with its variables' values as null."""
    shown = dict(part)
    if "env" in part:
        shown["env"] = dict.fromkeys(part["env"])
    if "nodes" in part:
        shown["nodes"] = [_without_values(node) for node in part["nodes"]]
    return shown
