"""What the probes of a running fleet mean together; private to the collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.text import counted

__all__ = ["verdict"]

Result = Mapping[str, Any]

_ANSWER = ("text", "chunks", "time_to_first_token_seconds", "seconds")


def verdict(completions: Iterable[Result], targets: Iterable[Result], unreachable: Iterable[str]) -> dict[str, Any]:
    """Whether all is well.

    ``completions`` are results of model_probe whose ``item`` is the front door and what was asked there (``name``),
    ``targets`` answers of Prometheus whose ``item`` is its host, ``unreachable`` are hosts that could be asked nothing.

    :returns: ``ok``, ``summary`` (one line), ``failures`` (one line each), ``completions`` (one per front door
        and model) and ``targets`` (one per Prometheus target).
    """
    failures = [f"{host}: it cannot be reached, so nothing was asked there" for host in sorted(unreachable)]
    streamed = [_completion(probe, failures) for probe in completions]
    if not streamed and not failures:
        failures.append("No model was asked: there is no front door, or no model in the plan that answers through one.")
    scraped = [entry for answer in targets for entry in _targets(answer, failures)]
    return {
        "ok": not failures,
        "summary": f"{counted(len(streamed), 'answer')} through front doors, {len(scraped)} Prometheus targets up",
        "failures": failures,
        "completions": streamed,
        "targets": sorted(scraped, key=lambda target: str(target["url"])),
    }


def _completion(probe: Result, failures: list[str]) -> dict[str, Any]:
    front_door, asked = probe["item"]
    model = asked["name"]
    entry = {"front_door": front_door, "model": model, "ok": not probe.get("failed")}
    if entry["ok"]:
        return {**entry, **{key: probe[key] for key in _ANSWER}}
    failures.append(f"{front_door}: {model}: {probe.get('msg', 'failed')}")
    return entry


def _targets(answer: Result, failures: list[str]) -> list[dict[str, Any]]:
    name = answer["item"]
    active = answer.get("json", {}).get("data", {}).get("activeTargets", [])
    if not active:
        failures.append(f"{name}: Prometheus names no target: {answer.get('msg', 'is the host reachable?')}")
    entries = []
    for target in active:
        entry = {"prometheus": name, "url": target["scrapeUrl"], "up": target["health"] == "up"}
        if not entry["up"]:
            failures.append(f"{name}: {target['scrapeUrl']} is {target['health']}: {target['lastError']}")
        entries.append(entry)
    if active and answer.get("failed"):
        failures.append(f"{name}: Prometheus scrapes {len(active)} targets, fewer than the plan has")
    return entries
