"""NVIDIA's exporter of GPUs: where it may be, what of it is installed, and whom Prometheus asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.vendor import Vendor

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/exporters"
DCGM = {"exporters_gpu_source": "dcgm"}
DISTRO = (
    "exporters_gpu_source is 'dcgm', whose packages are in NVIDIA's repository alone, and nvidia_driver_source of h1 "
    "is 'distro'. Set exporters_gpu_source to nvml, which gives the same names."
)
VERSION = "exporters_dcgm_version is '4.8.3'; it must be the versions of DCGM and of the exporter, as in 4.6.0-4.8.3."
OTHER_NAMES = (
    "exporters_dcgm_version is '4.7.0-4.9.0'; from 4.9 on the exporter has other names and units, which the rules and "
    "dashboards do not know. Set it to an older one, as in 4.6.0-4.8.3."
)
NO_PACKAGE = "exporters_gpu_source is 'dcgm', and NVIDIA has no package datacenter-gpu-manager-exporter for "


def templar(distribution: str = "Debian", release: str = "12.13", **wishes: Any) -> Templar:
    """The role's variables on a host."""
    loader = DataLoader()
    variables: dict[str, Any] = {
        "inventory_hostname": "h1",
        "ansible_managed": "",
        "ansible_facts": {"distribution": distribution, "distribution_version": release},
    }
    for path in [ROLE / "defaults/main.yml", *(ROLE / "vars").rglob("*.yml")]:
        variables |= loader.load_from_file(str(path), trusted_as_template=True)
    return Templar(loader, variables=variables | wishes)


def value(text: str, *host: str, **wishes: Any) -> Any:
    return templar(*host, **wishes).template(trust_as_template(text))


def refusals(*host: str, **wishes: Any) -> list[str]:
    loader = DataLoader()
    first, *_ = loader.load_from_file(str(ROLE / "tasks/preflight.yml"), trusted_as_template=True)
    demands = templar(*host, **wishes).template(first["vars"]["demands"])
    return [demand["message"] for demand in demands if not demand["met"]]


@pytest.mark.parametrize(
    ("host", "wishes", "refusal"),
    [
        (("Debian", "12.13"), {}, ""),
        (
            ("Ubuntu", "24.04"),
            {"nvidia_driver_source": "none"},
            "",
        ),  # whoever brings the driver may bring the repository
        (("AlmaLinux", "10.1"), {}, ""),
        (("Debian", "13.2"), {}, f"{NO_PACKAGE}Debian 13.2 of h1. Set it to nvml, which gives the same names."),
        (("Ubuntu", "26.04"), {}, f"{NO_PACKAGE}Ubuntu 26.04 of h1. Set it to nvml, which gives the same names."),
        (("Debian", "13.2"), {"groups": {"gpu_hosts": ["gpu1"]}}, ""),  # a load balancer
        (("Debian", "12.13"), {"nvidia_driver_source": "distro"}, DISTRO),
        (("Debian", "12.13"), {"exporters_dcgm_version": "4.8.3"}, VERSION),
        (("Debian", "12.13"), {"exporters_dcgm_version": "4.6.1-4.8.4"}, ""),
        (("Debian", "12.13"), {"exporters_dcgm_version": "4.7.0-4.9.0"}, OTHER_NAMES),
    ],
)
def test_it_is_refused_where_it_cannot_be_and_the_remedy_is_accepted(
    host: tuple[str, str], wishes: dict[str, Any], refusal: str
) -> None:
    assert refusals(*host, **DCGM, **wishes) == ([refusal] if refusal else [])
    if "nvml" in refusal:
        assert refusals(*host, **wishes) == []


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        (
            ("Ubuntu", "22.04"),
            ["datacenter-gpu-manager-4-core=1:4.6.0-*", "datacenter-gpu-manager-exporter=4.8.3*"],
        ),
        (("Rocky", "9.6"), ["datacenter-gpu-manager-4-core-4.6.0-*", "datacenter-gpu-manager-exporter-4.8.3*-*"]),
    ],
)
def test_both_packages_are_held_at_the_versions_of_one_release(host: tuple[str, str], wanted: list[str]) -> None:
    vendor = Vendor(**value("{{ _exporters_dcgm_vendor }}", *host, **DCGM))
    assert vendor.wanted == wanted
    assert len(vendor.pins) == 2


@pytest.mark.parametrize(
    ("wishes", "installed", "names"),
    [
        ({}, False, True),
        (DCGM, True, False),
        ({"exporters_gpu_source": "none"}, False, False),
        (DCGM | {"groups": {"gpu_hosts": ["gpu1"]}}, False, False),
        (DCGM | {"groups": {"gpu_hosts": ["h1"]}}, True, False),
    ],
)
def test_one_of_both_tells_dcgms_names(wishes: dict[str, Any], installed: bool, names: bool) -> None:
    assert value("{{ _exporters_dcgm }}", **wishes) is installed
    assert value("{{ _exporters_metrics_settings.dcgm_names }}", **wishes) is names


def tasks(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text()))


def test_what_the_role_did_not_install_is_none_of_its_business() -> None:
    """Neither a host with the defaults nor the end of a fleet touches an exporter of somebody else."""
    local = {"gpuhosts_dcgm": {"version": "4.6.0-4.8.3"}}
    assert value("{{ _exporters_dcgm_is_ours }}") is False
    facts = {"ansible_facts": {"ansible_local": local}}
    assert value("{{ _exporters_dcgm_is_ours }}", **facts) is True
    looked: dict[str, Any] = {"__exporters_node": {"missing": []}}
    assert value("{{ _exporters_rest }}", **looked) == []
    assert value("{{ _exporters_rest }}", **looked, **facts) == ["dcgm_absent"]
    (absent,) = (task for task in tasks("absent") if "dcgm" in str(task.get("ansible.builtin.include_tasks")))
    assert absent["when"] == "_exporters_dcgm_is_ours"


def test_the_unit_takes_our_counters_and_address_and_not_those_of_the_package() -> None:
    path = ROLE / "templates/nvidia-dcgm-exporter.service.j2"
    wishes = {"path": str(path), "exporters_dcgm_listen_address": "10.0.0.11:9400"}
    unit = value("{{ lookup('ansible.builtin.template', path) }}", **wishes)
    started = [line for line in unit.replace("\\\n    ", "").splitlines() if line.startswith("ExecStart")]
    arguments = "--collectors /etc/gpuhosts/dcgm-counters.csv --address 10.0.0.11:9400 --collect-interval 15000"
    assert started == ["ExecStart=", f"ExecStart=/usr/bin/dcgm-exporter {arguments}"]


@pytest.mark.parametrize(
    ("variables", "targets"),
    [
        ({}, None),
        (DCGM, [{"targets": ["10.0.0.1:9400"], "labels": {"host": "gpu1"}}]),
        (DCGM | {"exporters_dcgm_port": 9401}, [{"targets": ["10.0.0.1:9401"], "labels": {"host": "gpu1"}}]),
    ],
)
def test_prometheus_has_the_job_where_a_host_has_the_exporter(variables: dict[str, Any], targets: Any) -> None:
    """With the defaults there is no job of that name, not even an empty one."""
    loader = DataLoader()
    plays = loader.load_from_file(str(ROOT / "playbooks/stages/observe.yml"), trusted_as_template=True)
    play = next(play for play in plays if "dcgm" in play.get("vars", {}))
    role = next(role for role in play["roles"] if role["role"].endswith(".prometheus"))
    known = {
        "inventory_hostname": "mon1",
        "groups": {"gpu_hosts": ["gpu1", "gpu2"], "load_balancers": ["lb1"], "monitoring": ["mon1"]},
        "hostvars": {"gpu1": {"ansible_host": "10.0.0.1", **variables}, "gpu2": {}, "lb1": {}, "mon1": {}},
        "fleet_plan": {"instances": []},
        **play["vars"],
    }
    found = Templar(loader, variables=known).template(role["vars"]["prometheus_targets"])
    assert found.get("gpu") == targets
    assert [group["labels"]["host"] for group in found["node"]] == ["gpu1", "gpu2", "lb1", "mon1"]


@pytest.mark.parametrize(
    ("said", "options", "fails"),
    [
        ("No package matching 'datacenter-gpu-manager-exporter' is available", [], True),
        ("No package matching 'datacenter-gpu-manager-exporter' is available", ["--check"], False),
        ("Could not get lock /var/lib/dpkg/lock", ["--check"], True),
    ],
)
def test_a_check_passes_over_packages_of_a_repository_that_is_not_there_yet_and_nothing_else(
    tmp_path: Path, said: str, options: list[str], fails: bool
) -> None:
    (part,) = [part for part in yaml.safe_load((ROLE / "tasks/dcgm.yml").read_text()) if "rescue" in part]
    failing = {"ansible.builtin.fail": {"msg": said}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [part | {"block": [failing], "when": True}]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(tmp_path / "play.yml"), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stdout
    assert (f"localhost: {said}. The host has to know NVIDIA's" in " ".join(done.stdout.split())) == fails
