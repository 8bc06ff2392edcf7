"""The roles' tables of platforms: every system has a row, and every value of a row has a fact with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.platform import resolve

from tests.defaults import constants
from tests.tools import systems

ROOT = Path(__file__).resolve().parents[3]
TABLES = systems.tables()
# By role: `systems`, `source` (addresses that everybody can read), and what the `row` of these systems says of it.
FIXTURE = ROOT / "tests/unit/fixtures/platform_facts.yml"
FACTS: dict[str, list[dict[str, Any]]] = yaml.safe_load(FIXTURE.read_text())["roles"]
KNOWN = [(role, fact) for role, facts in FACTS.items() for fact in facts]
# Values that only people read, in our own words: what dnf shows as a name of a repository, and why a module is refused.
WORDING = ("/description", "/modules_reason")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every text, number and list of a row, with the way to it. Comments in the text of a file are our own words."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from leaves(below, f"{path}/{key}")
    elif isinstance(value, str):
        yield path, re.sub(r"^#.*\n", "", value, flags=re.MULTILINE)
    else:
        yield path, value


def sources(fact: Mapping[str, Any]) -> list[str]:
    """The addresses of a fact, or the one word `unconfirmed`."""
    found = fact["source"]
    return found if isinstance(found, list) else [found]


def test_every_role_that_differs_between_systems_has_its_table() -> None:
    differing = {path.name for path in ROOT.glob("roles/*") if f"_{path.name}_platforms" in constants(path)}

    assert set(TABLES) == differing
    assert set(FACTS) == set(TABLES)


@pytest.mark.parametrize("role", TABLES)
def test_a_table_has_every_system(role: str) -> None:
    assert [system for system in systems.SYSTEMS if not resolve(TABLES[role], system)] == []


@pytest.mark.parametrize("role", TABLES)
def test_every_value_of_every_row_has_a_fact(role: str) -> None:
    told = {
        (system, path)
        for fact in FACTS[role]
        for path, value in leaves(fact["row"])
        if value is not None
        for system in fact["systems"]
    }
    values = {(system, path) for system in TABLES[role] for path, _ in leaves(resolve(TABLES[role], system))}

    assert sorted(one for one in values - told if not one[1].endswith(WORDING)) == []


@pytest.mark.parametrize(("role", "fact"), KNOWN, ids=[f"{role}-{sources(fact)[0]}" for role, fact in KNOWN])
def test_a_row_says_what_the_source_says(role: str, fact: dict[str, Any]) -> None:
    if fact["source"] == "unconfirmed":
        assert fact["why"]
    else:
        assert [source for source in sources(fact) if not source.startswith("https://")] == []
    assert fact["row"], "a fact that says nothing"
    for system in fact["systems"]:
        row = dict(leaves(resolve(TABLES[role], system)))
        wanted = {path: value for path, value in leaves(fact["row"]) if value is not None}
        absent = {path for path, value in leaves(fact["row"]) if value is None}  # the system has no such thing
        assert {path: row.get(path) for path in wanted} == wanted, system
        assert [path for path in row if any(f"{path}/".startswith(f"{one}/") for one in absent)] == [], system
