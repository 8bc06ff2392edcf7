"""Which systems each role knows, and on which CI runs it: from the roles' tables and the scenarios of Molecule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.lab.images import RELEASES

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = (
    *(f"Debian {release}" for release in (12, 13)),
    *(f"Ubuntu {release}" for release in ("22.04", "24.04", "26.04")),
    *(f"{name} {release}" for name in ("RedHat", "Rocky", "AlmaLinux", "OracleLinux") for release in (9, 10)),
)
RUN, DRESSED, DATA, UNKNOWN = "run", "run dressed", "data", ""

# Hosts of a scenario that are dressed as another system tell it by their names.
_DRESSED = {"ubuntu": "Ubuntu", "rocky": "Rocky"}
_ROLE = re.compile(r"gpuhosts\.vllm\.(\w+)")


def tables() -> dict[str, dict[str, Any]]:
    """The table of every role that has one."""
    paths = sorted(ROOT.glob("roles/*/vars/main/platforms.yml"))
    return {path.parts[-4]: _yaml(path)[f"_{path.parts[-4]}_platforms"] for path in paths}


def ran() -> dict[tuple[str, str], str]:
    """How CI runs a role on a system, as RUN or DRESSED, by both."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted(ROOT.glob("molecule/*/molecule.yml")):
        roles = _roles(_yaml(path.with_name("converge.yml")))
        for system, how in _hosts(path):
            found |= {(role, system): how for role in roles if found.get((role, system)) != RUN}
    return found


def matrix() -> dict[str, dict[str, str]]:
    """What is true of every role on every system, by system and role."""
    known, seen = tables(), ran()
    return {
        system: {role: seen.get((role, system), DATA) if system in table else UNKNOWN for role, table in known.items()}
        for system in SYSTEMS
    }


def _hosts(scenario: Path) -> Iterator[tuple[str, str]]:
    """The system of every host of a scenario, and whether it is really that one."""
    shared = _yaml(ROOT / ".config/molecule/config.yml")
    for platform in _yaml(scenario).get("platforms", shared["platforms"]):
        name = re.fullmatch(r"([a-z]+)(\d\d)?(\d\d|\d)", platform["hostname"])
        if name and name[1] in _DRESSED:
            yield f"{_DRESSED[name[1]]} {f'{name[2]}.{name[3]}' if name[2] else name[3]}", DRESSED
        else:
            yield f"Debian {RELEASES[platform['image'].partition(':')[2]]}", RUN


def _roles(plays: list[dict[str, Any]]) -> set[str]:
    """The roles of the collection that plays have in `roles`, or include."""
    entries = [entry for play in plays for entry in [*play.get("roles", []), *play.get("tasks", [])]]
    return {name for entry in entries for name in _ROLE.findall(yaml.safe_dump(entry))}


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
