"""Prometheus and node_exporter start with the arguments of their roles, in every version that a host can have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.defaults import constants

ROOT = Path(__file__).resolve().parents[3]
FACTS: dict[str, Any] = yaml.safe_load((ROOT / "tests/unit/fixtures/program_facts.yml").read_text())
PROGRAMS = {
    "node_exporter": ("exporters", "exporters_node_version"),
    "prometheus": ("prometheus", "prometheus_version"),
}


def defaults(role: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text())


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_version_knows_the_arguments(program: str) -> None:
    role, variable = PROGRAMS[program]
    versions, known = FACTS[program]["versions"], FACTS[program]["arguments"]
    packaged = {
        system
        for system, row in constants(ROOT / f"roles/{role}")[f"_{role}_platforms"].items()
        if system.startswith(("Debian", "Ubuntu")) or "distribution" in str(row)
    }
    assert set(versions) == packaged
    oldest, newest = sorted(known, key=number)
    assert min(map(number, versions.values())) == number(oldest)
    assert defaults(role)[variable] == newest

    texts = [path.read_text() for path in (ROOT / f"roles/{role}/templates").glob("*.j2")]
    given = set(re.findall(r"--([a-z][\w.-]*\w)(?=[= \\\n])", "".join(texts)))
    given |= {f"collector.{name}" for name in defaults(role).get("exporters_node_collectors", [])}

    assert len(given) > 3
    assert {version: given - set(arguments) for version, arguments in known.items()} == {oldest: set(), newest: set()}


@pytest.mark.parametrize(
    ("role", "table"), [("exporters", "_exporters_node_checksums"), ("prometheus", "_prometheus_checksums")]
)
def test_checksums_are_of_the_version_that_is_installed_by_default(role: str, table: str) -> None:
    """Those of older ones are of no use to anybody."""
    (version,) = (value for name, value in defaults(role).items() if name.endswith("_version"))
    checksums = constants(ROOT / f"roles/{role}")[table]
    assert list(checksums) == [version]
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in checksums[version].values())
