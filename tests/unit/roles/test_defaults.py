"""Defaults are run, in a checkout (tests/artifact: where it is installed), and what tests override is listed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests import defaults

ROOT = defaults.ROOT
OF_PLAYBOOKS = ("driver_upgrade_", "fleet_", "hardware_", "verify_")


def test_the_defaults_of_every_role_hold_in_a_checkout(tmp_path: Path) -> None:
    defaults.judge(defaults.evaluate(defaults.pinned(), defaults.checkout(tmp_path)))


def settings(value: Any) -> Iterator[str]:
    """The names of all that a YAML document sets, at whatever depth: groups, hosts, plays and roles may all set."""
    if isinstance(value, dict):
        yield from value
        for below in value.values():
            yield from settings(below)
    elif isinstance(value, list):
        for below in value:
            yield from settings(below)


def test_every_override_of_a_test_inventory_is_listed_with_its_reason() -> None:
    specs = [yaml.safe_load(path.read_text()) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    options = [item for spec in specs for item in spec["argument_specs"]["main"]["options"].items()]
    inputs = {name for name, option in options if "default" in option}
    assert len(inputs) > 50
    inventories = ("inventories/lab/**/*.yml", "molecule/*/*.yml", "tests/alerts/*.yml")
    overridden = {
        ("/".join(path.relative_to(ROOT).parts[:2]), name)
        for path in itertools.chain.from_iterable(map(ROOT.glob, inventories))
        for name in settings(yaml.safe_load(path.read_text()))
        if isinstance(name, str) and (name in inputs or name.startswith(OF_PLAYBOOKS))
    }
    listed = yaml.safe_load((ROOT / "tests/overrides.yml").read_text())
    entries = {(place, name) for entry in listed for place in entry["where"] for name in entry["variables"]}
    assert overridden <= entries
    for entry in listed:
        assert entry["reason"]
        here = [pair for pair in itertools.product(entry["where"], entry["variables"]) if pair in overridden]
        assert {place for place, _ in here} == set(entry["where"]), entry
        assert {name for _, name in here} == set(entry["variables"]), entry
