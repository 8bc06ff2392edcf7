"""Prometheus and node_exporter start with the arguments of their roles, in every version that a host can have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from tests.defaults import constants

ROOT = Path(__file__).resolve().parents[3]
FACTS: dict[str, Any] = yaml.safe_load((ROOT / "tests/unit/fixtures/program_facts.yml").read_text())
PROGRAMS = {
    "node_exporter": ("exporters", "exporters_node_version", ("node_exporter.j2",)),
    "prometheus": ("prometheus", "prometheus_version", ("*.j2",)),
}


def defaults(role: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text())


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_version_knows_the_arguments(program: str) -> None:
    role, variable, templates = PROGRAMS[program]
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

    texts = [path.read_text() for one in templates for path in (ROOT / f"roles/{role}/templates").glob(one)]
    given = set(re.findall(r"--([a-z][\w.-]*\w)(?=[= \\\n])", "".join(texts)))
    given |= {f"collector.{name}" for name in defaults(role).get("exporters_node_collectors", [])}

    assert len(given) > 3
    assert {version: given - set(arguments) for version, arguments in known.items()} == {oldest: set(), newest: set()}


@pytest.mark.parametrize(
    ("role", "program"),
    [
        ("alertmanager", "alertmanager"),
        ("exporters", "exporters_node"),
        ("exporters", "exporters_nginx"),
        ("prometheus", "prometheus"),
    ],
)
def test_checksums_are_of_the_version_that_is_installed_by_default(role: str, program: str) -> None:
    """Those of older ones are of no use to anybody."""
    version = defaults(role)[f"{program}_version"]
    checksums = constants(ROOT / f"roles/{role}")[f"_{program}_checksums"]
    assert list(checksums) == [version]
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in checksums[version].values())


KNOWN = "Debian 12, Debian 13, Ubuntu 22.04, Ubuntu 24.04, Ubuntu 26.04, RedHat 9"


@pytest.mark.parametrize(("role", "prefix"), [("exporters", "exporters_node"), ("prometheus", "prometheus")])
@pytest.mark.parametrize(
    ("distribution", "release", "wishes", "refusal"),
    [
        ("Debian", "12.13", {}, ""),
        ("Rocky", "10.1", {"source": "archive"}, ""),
        ("Ubuntu", "26.04", {"source": "distribution", "version": "3.14.0-rc.0"}, ""),
        ("Ubuntu", "24.10", {}, f"h1 runs Ubuntu 24.10; the role ROLE is made for {KNOWN}, "),
        (
            "Rocky",
            "9.6",
            {"source": "distribution"},
            "PREFIX_source is 'distribution', and Rocky 9.6 of h1 has no package",
        ),
        ("Rocky", "9.6", {"version": "../x"}, "PREFIX_version is '../x'; it must be a version, as in "),
        ("Rocky", "9.6", {"version": ""}, "PREFIX_version is ''; it must be a version, as in "),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    role: str, prefix: str, distribution: str, release: str, wishes: dict[str, str], refusal: str
) -> None:
    """One of the demands at most: a host that no row is about is not told of its sources, too."""
    loader = DataLoader()
    variables: dict[str, Any] = {
        "inventory_hostname": "h1",
        "ansible_facts": {"distribution": distribution, "distribution_version": release},
    }
    for path in [ROOT / f"roles/{role}/defaults/main.yml", *(ROOT / f"roles/{role}/vars").rglob("*.yml")]:
        variables |= loader.load_from_file(str(path), trusted_as_template=True)
    variables |= {f"{prefix}_{name}": value for name, value in wishes.items()}
    first, *_ = loader.load_from_file(str(ROOT / f"roles/{role}/tasks/preflight.yml"), trusted_as_template=True)
    demands = Templar(loader, variables=variables).template(first["vars"]["demands"])

    broken = [demand["message"] for demand in demands if not demand["met"]]

    expected = refusal.replace("ROLE", role).replace("PREFIX", prefix)
    assert len(broken) == bool(expected)
    assert all(message.startswith(expected) for message in broken)
