"""The files that an engine is started from, and which engines have to start anew; private to the collection.

A unit leaves a mark at every start. An engine that is older than one of its files therefore runs from older files,
whoever changed them and however the run ended that did: nothing has to be remembered for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Unit",
    "Work",
    "environment_file",
    "local_fact",
    "options_file",
    "units_from_properties",
    "work_to_do",
]

_PLAIN_KEY = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[a-z][a-z0-9_-]*\Z")  # no word of YAML's
# What JSON may hold as it is, and YAML may not, or would take for the end of a line.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_RUNS = ("active", "reloading")
_STARTS = "activating"  # systemd would find nothing to do for one that waits for a path which is not wanted any more


def options_file(engine_args: Mapping[str, Any], header: str) -> str:
    """The file of ``vllm serve --config``: YAML with one option a line, by name."""
    lines = [f"{_key(name)}: {_flow(engine_args[name])}\n" for name in sorted(engine_args)]
    return header + ("".join(lines) or "{}\n")


def environment_file(variables: Mapping[str, Any], header: str) -> str:
    """The file of systemd's ``EnvironmentFile``, by name."""
    quoted = {name: str(value).replace("\\", "\\\\").replace('"', '\\"') for name, value in variables.items()}
    return header + "".join(f'{name}="{quoted[name]}"\n' for name in sorted(quoted))


def local_fact(instances: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the next plan has to know of what is placed on a host (``ansible_local.gpuhosts_vllm``)."""
    placed = [
        {
            "id": instance["id"],
            "model": instance["model"],
            "port": instance["endpoint"]["port"],
            "rank": instance["node"]["rank"],
            "gpus": instance["node"]["gpus"],
            "tensor": instance["engine_args"].get("tensor-parallel-size"),
            "master_port": instance.get("rendezvous_port"),
            "context_length": instance["engine_args"].get("max-model-len"),
        }
        for instance in instances
    ]
    return {"version": 2, "instances": sorted(placed, key=lambda entry: str(entry["id"]))}


def _key(name: str) -> str:
    return name if _PLAIN_KEY.match(name) else _flow(name)


def _flow(value: Any) -> str:
    """A value in one line that every reader of YAML 1.1 takes for what it is."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(str(key))}: {_flow(value[key])}" for key in value) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(entry) for entry in value) + "]"
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # YAML takes 1e-05 for a word
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@dataclass(frozen=True)
class Unit:
    """What there is of one instance on a host."""

    active: str = "inactive"  # systemd's ActiveState
    enabled: bool = False  # starts at boot
    started: float = 0  # mtime of the mark that it left at its start, in seconds since 1970; 0: there is none

    @property
    def runs(self) -> bool:
        """Whether it may be answering somebody."""
        return self.active in _RUNS


def units_from_properties(output: str, started: Mapping[str, float]) -> dict[str, Unit]:
    """The units in the output of ``systemctl show --property=Id,ActiveState,UnitFileState``, by ID of the instance.

    :param started: when an instance left its mark.
    """
    units = {}
    for block in output.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        match = re.match(r"vllm@(.+)\.service$", values.get("Id", ""))
        if match:
            enabled = values.get("UnitFileState", "").startswith("enabled")
            units[match[1]] = Unit(values.get("ActiveState", "inactive"), enabled, started.get(match[1], 0))
    return units


@dataclass(frozen=True)
class Work:
    """What has to be done to the instances of a host, each list by ID."""

    restart: list[str]  # wanted, and run, or wait at their start, from older files
    start: list[str]  # wanted, and do not run, or not at the next boot
    remove: list[str]  # not wanted any more
    disturbed: list[str]  # run, and have to stop: their requests must have gone elsewhere before


def work_to_do(
    wanted: Iterable[str], units: Mapping[str, Unit], touched: Mapping[str, float], changing: Iterable[str]
) -> Work:
    """Compare what is wanted with what is there.

    :param units: of every instance that is wanted or has files.
    :param touched: when the newest file of an instance was written, in seconds since the epoch.
    :param changing: instances that will get another file.
    """
    wanted, changing = set(wanted), set(changing)
    older = {name for name in wanted if name in changing or touched.get(name, 0) > units[name].started}
    restart = sorted(name for name in older if units[name].runs or units[name].active == _STARTS)
    start = sorted(name for name in wanted if not (units[name].runs and units[name].enabled))
    remove = sorted(set(units) - wanted)
    return Work(restart, start, remove, sorted(name for name in restart + remove if units[name].runs))
