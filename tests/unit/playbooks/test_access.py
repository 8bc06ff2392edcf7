"""Whom the playbooks let reach what, by the inventory, and by which names hosts know it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[3]
HOSTS = {
    "gpu1": {"ansible_host": "10.0.0.11"},
    "lb1": {"ansible_host": "192.0.2.2", "fleet_address": "10.0.0.2"},
    "mon1": {},
}
FLEET = {"gpu_hosts": ["gpu1"], "load_balancers": ["lb1"]}


def value(playbook: str, name: str, **variables: Any) -> Any:
    """What the first play of a stage that sets a variable sets it to."""
    plays = yaml.safe_load((ROOT / f"playbooks/stages/{playbook}.yml").read_text())
    holders = [holder for play in plays for holder in (play, *play.get("roles", []), *play.get("tasks", []))]
    template = next(holder["vars"][name] for holder in holders if name in holder.get("vars", {}))
    return Templar(DataLoader(), {"hostvars": HOSTS, **variables}).template(trust_as_template(template))


@pytest.mark.parametrize(
    ("more", "engines", "exporters"),
    [
        ({"groups": FLEET}, ["10.0.0.2"], []),
        ({"groups": FLEET | {"monitoring": ["mon1"]}}, ["10.0.0.2", "mon1"], ["mon1"]),
        (
            {"groups": FLEET | {"monitoring": ["mon1"]}, "fleet_allow_from": ["10.1.0.0/16"]},
            ["10.0.0.2", "mon1", "10.1.0.0/16"],
            ["mon1", "10.1.0.0/16"],
        ),
    ],
)
def test_engines_are_for_front_doors_and_monitoring_and_exporters_for_monitoring(
    more: dict[str, Any], engines: list[str], exporters: list[str]
) -> None:
    assert value("serve", "vllm_allow_from", **more) == engines
    assert value("observe", "exporters_allow_from", **more) == exporters


def test_each_role_has_a_name_of_its_own_that_firewalld_takes() -> None:
    found = [
        name
        for path in ROOT.glob("roles/*/tasks/*.yml")
        for name in re.findall(r"access:\n +name: (gpuhosts-\S+)$", path.read_text(), re.MULTILINE)
    ]
    assert {"gpuhosts-nginx", "gpuhosts-node", "gpuhosts-prom", "gpuhosts-vllm"} <= set(found)
    assert len(found) == len(set(found))
    assert max(map(len, found)) <= 17
