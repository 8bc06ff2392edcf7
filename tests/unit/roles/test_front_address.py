"""What the role front_address writes, when it does something at all, and how long a failure can last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/front_address"
SAMPLE = yaml.safe_load((ROOT / "tests/unit/fixtures/role_samples.yml").read_text())["front_address"]


def templar(**wishes: Any) -> Templar:
    """What Ansible knows in a run on a host."""
    loader = DataLoader()
    loader.set_basedir(str(ROLE))
    variables: dict[str, Any] = {**SAMPLE, "role_path": str(ROLE)}
    for path in [ROLE / "defaults/main.yml", *(ROLE / "vars").rglob("*.yml")]:
        variables |= loader.load_from_file(str(path), trusted_as_template=True)
    return Templar(loader, variables=variables | wishes)


def configuration(**plan: Any) -> str:
    decided = {"plan": SAMPLE["__front_address_decided"]["plan"] | plan}
    text = trust_as_template((ROLE / "templates/keepalived.conf.j2").read_text())
    return str(templar(__front_address_decided=decided).template(text))


def files(**wishes: Any) -> list[dict[str, Any]]:
    """What keepalived is started from."""
    tasks = DataLoader().load_from_file(str(ROLE / "tasks/run.yml"), trusted_as_template=True)
    (template,) = [task["vars"]["files"] for task in tasks if "vars" in task]
    return list(templar(**wishes).template(template))


def value(word: str, text: str) -> float:
    (found,) = re.findall(rf"(?m)^ *{word} ([\d.]+)$", text)
    return float(found)


@pytest.mark.parametrize("priority", [250, 100])
def test_another_host_answers_within_three_seconds(priority: int) -> None:
    """RFC 5798, section 6.1: who is silent for three intervals and the skew time is gone; who ends says so."""
    text = configuration(priority=priority)
    interval = value("advert_int", text)
    skew = (256 - priority) / 256 * interval
    (patience,) = map(float, re.findall(r"--max-time ([\d.]+)", text))
    asked = value("interval", text) * value("fall", text)

    assert 3 * interval + skew < 2, "a host is gone"
    assert asked + skew < 1.5, "NGINX is gone, and refuses the connection"
    assert asked + patience + skew < 6, "NGINX hangs"
    assert patience < value("timeout", text)


def test_no_move_without_a_failure() -> None:
    words = configuration().split()
    assert "nopreempt" in words
    assert words[words.index("state") + 1] == "BACKUP", "keepalived passes over nopreempt where it begins as MASTER"


def test_the_question_is_one_command_of_nobody_in_particular() -> None:
    text = configuration(url="http://10.0.0.2:8080/health")
    assert {"enable_script_security", "script_user keepalived_script"} <= set(map(str.strip, text.splitlines()))
    (script,) = re.findall(r'script "(.*)"', text)
    assert script.startswith("/usr/bin/curl --disable ")
    assert script.endswith(" http://10.0.0.2:8080/health")


def test_the_host_speaks_to_its_peers_alone_and_has_an_address_that_brings_no_route() -> None:
    text = configuration(peers=["10.0.0.3", "10.0.0.4"])
    assert re.search(r"unicast_src_ip 10\.0\.0\.2\n\s+unicast_peer {\n\s+10\.0\.0\.3\n\s+10\.0\.0\.4\n\s+}", text)
    assert "192.0.2.10/32 dev eth1" in text
    assert re.search(r"track_interface {\n\s+eth1\n", text)
    assert "track_interface" not in configuration(own_interface="eth1"), "keepalived follows that one anyway"


@pytest.mark.parametrize(
    ("cidr", "balancers", "wanted"),
    [
        ("", [], False),
        ("", ["10.0.0.2", "10.0.0.3"], False),
        ("192.0.2.10/24", ["10.0.0.2"], False),
        ("192.0.2.10/24", ["10.0.0.2", "10.0.0.3"], True),
    ],
)
def test_one_balancer_alone_needs_no_address_beside_its_own(cidr: str, balancers: list[str], wanted: bool) -> None:
    known = templar(front_address_cidr=cidr, front_address_balancers=balancers)
    assert known.resolve_variable_expression("_front_address_is_wanted") is wanted


@pytest.mark.parametrize(("local", "ours"), [({}, False), ({"gpuhosts_front_address": {"address": "x"}}, True)])
def test_a_keepalived_is_removed_only_where_the_role_has_installed_it(local: dict[str, Any], ours: bool) -> None:
    known = templar(ansible_facts={**SAMPLE["ansible_facts"], "ansible_local": local})
    assert known.resolve_variable_expression("_front_address_is_ours") is ours
    (task,) = yaml.safe_load((ROLE / "tasks/absent.yml").read_text())
    assert task["when"] == "_front_address_is_ours"


@pytest.mark.parametrize(
    ("system", "packages", "tests"),
    [
        (("Debian", "12.13"), {"curl", "keepalived"}, False),
        (("Debian", "13.2"), {"curl", "keepalived"}, True),
        (("Ubuntu", "22.04"), {"curl", "keepalived"}, False),
        (("Ubuntu", "24.04"), {"curl", "keepalived"}, True),
        (("Rocky", "10.1"), {"keepalived"}, True),
    ],
)
def test_where_keepalived_can_test_a_configuration_it_does(
    system: tuple[str, str], packages: set[str], tests: bool
) -> None:
    facts = dict(zip(("distribution", "distribution_version"), system, strict=True))
    known = templar(ansible_facts=facts)
    assert set(known.resolve_variable_expression("_front_address_platform")["vendor"]["packages"]) == packages
    (*_, file) = files(ansible_facts=facts)
    assert file["check"] == (["/usr/sbin/keepalived", "--config-test", "--use-file=%s"] if tests else [])


def test_what_the_role_writes_it_takes_away_again() -> None:
    known = templar()
    written = {entry["path"] for entry in files()}
    written.add(known.resolve_variable_expression("_front_address_nonlocal")["path"])
    (task,) = DataLoader().load_from_file(str(ROLE / "tasks/absent.yml"), trusted_as_template=True)
    assert set(known.template(task["gpuhosts.vllm.service_absent"]["files"])) == written
