"""What doctor.yml asks of a host, and how the answers become a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Machine, Wanted
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.doctor import diagnosis
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.hosts import DEFAULTS
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.wanted import NGINX_STATUS
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.wanted import wanted as wanted_of

from tests.defaults import constants

ROOT = Path(__file__).resolve().parents[4]
MODELS = [
    {"name": "small", "source": "owner/small", "port": 9000},
    {"name": "large", "source": "owner/large"},
    {"name": "local", "source": "/srv/models/local"},
]
SIZES = {"small": {"config": {}, "safetensors_bytes": 2 * GIB}, "large": {"config": {}, "safetensors_bytes": 9 * GIB}}
HOSTVARS: dict[str, dict[str, Any]] = {
    "gpu1": {"group_names": ["gpu_hosts"], "ansible_host": "10.0.0.1", "vllm_models": MODELS},
    "lb1": {
        "group_names": ["load_balancers"],
        "nginx_lb_listen": ["443 ssl", "10.0.0.2", "[::]:8443", "unix:/run/nginx.sock"],
    },
    "mon1": {"group_names": ["monitoring"], "prometheus_listen_address": "10.0.0.3:9091"},
}


def instance(model: str, port: int, **gpus: list[int]) -> dict[str, Any]:
    nodes = [
        {"host": host, "gpus": [{"index": index, "uuid": None} for index in indices]} for host, indices in gpus.items()
    ]
    return {"id": f"{model}-1", "model": model, "endpoint": {"host": nodes[0]["host"], "port": port}, "nodes": nodes}


def wanted(name: str, plan: dict[str, Any], sizes: dict[str, Any] = SIZES, **variables: Any) -> Wanted:
    """Through the JSON in which it travels."""
    return Wanted.from_dict(json.loads(json.dumps(wanted_of(name, HOSTVARS[name] | variables, plan, sizes))))


def ports(want: Wanted) -> list[tuple[str, str | None, int]]:
    return [(port.purpose, port.address, port.number) for port in want.ports]


def test_the_defaults_are_those_of_the_roles() -> None:
    roles = ("alertmanager", "exporters", "fleet", "model_store", "nginx_lb", "prometheus", "vllm")
    defaults = {
        k: v
        for role in roles
        for k, v in yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text()).items()
    }
    assert {name: defaults[name] for name in DEFAULTS} == DEFAULTS
    said = constants(ROOT / "roles/nginx_lb")
    assert said["_nginx_lb_status_address"] == NGINX_STATUS


def test_without_a_plan_every_port_of_the_wishes_and_room_for_the_largest_model() -> None:
    want = wanted("gpu1", {})
    assert ports(want) == [
        ("node_exporter", "10.0.0.1", 9100),
        ("vLLM", "10.0.0.1", 8000),
        ("vLLM", "10.0.0.1", 9000),
    ]
    assert [(disk.purpose, disk.gib) for disk in want.disks[1:]] == [("model large", 9.0), ("vLLM 0.33.0", 12.0)]
    assert want.disks[1].parts == "/srv/model-store/owner--large--main"
    without = wanted("gpu1", {}, model_store_dir="").disks[1]
    assert without.parts == "/var/lib/vllm/huggingface/hub/models--owner--large/blobs"
    assert (want.gpu_host, want.several_gpus, want.shm_gib) == (True, True, 2.0)


def test_the_port_of_nvidias_exporter_is_wanted_on_gpu_hosts_alone() -> None:
    dcgm: dict[str, Any] = {"exporters_gpu_source": "dcgm", "exporters_dcgm_port": 9401}
    assert ports(wanted("gpu1", {}, **dcgm))[1] == ("dcgm-exporter", "10.0.0.1", 9401)
    assert "dcgm-exporter" not in [purpose for purpose, _, _ in ports(wanted("lb1", {}, **dcgm))]
    without = wanted("gpu1", {}, **dcgm, fleet_observe=["prometheus"])
    assert "dcgm-exporter" not in [purpose for purpose, _, _ in ports(without)]


def test_with_a_plan_what_it_puts_there() -> None:
    plan = {"instances": [instance("small", 9001, gpu1=[0]), instance("large", 8000, gpu2=[0, 1])]}
    want = wanted("gpu1", plan)
    assert ports(want)[1:] == [("vLLM", "10.0.0.1", 9001)]
    assert [disk.purpose for disk in want.disks[1:]] == ["model small", "vLLM 0.33.0"]
    assert (want.several_gpus, want.shm_gib) == (False, 0.0)


def test_an_instance_on_several_gpus_needs_shared_memory_wherever_it_answers() -> None:
    plan = {"instances": [instance("large", 8000, gpu2=[0], gpu1=[0, 1])]}
    want = wanted("gpu1", plan)
    assert [purpose for purpose, _, _ in ports(want)] == ["node_exporter"]
    assert (want.several_gpus, want.shm_gib) == (True, 2.0)


def test_a_model_whose_size_is_not_known_may_be_the_largest() -> None:
    want = wanted("gpu1", {}, {})
    assert [(disk.purpose, disk.gib) for disk in want.disks[1:-1]] == [("model small", None), ("model large", None)]


@pytest.mark.parametrize(
    ("hosts", "runs"), [("gpu1", True), (["gpu2"], False), ("gpu_hosts", True), ("auto", True), (None, True)]
)
def test_a_model_that_may_not_run_there_wants_nothing(hosts: Any, runs: bool) -> None:
    model = {"name": "a", "source": "/srv/a", "port": 9000, "hosts": hosts}
    want = wanted("gpu1", {}, {}, vllm_models=[model])
    assert [port.number for port in want.ports] == ([9100, 9000] if runs else [9100])


@pytest.mark.parametrize(
    ("parallelism", "several"),
    [("auto", True), ({"tensor": 1}, False), ({"pipeline": 2}, True), ({"tensor": "4"}, True)],
)
def test_without_a_plan_several_gpus_where_they_may_be(parallelism: Any, several: bool) -> None:
    model = {"name": "a", "source": "/srv/a", "parallelism": parallelism}
    want = wanted("gpu1", {}, {}, vllm_models=[model])
    assert (want.several_gpus, want.shm_gib) == (several, 2.0 if several else 0.0)


def test_hosts_of_services() -> None:
    assert ports(wanted("lb1", {})) == [
        ("node_exporter", "lb1", 9100),
        ("NGINX", None, 443),
        ("NGINX", "10.0.0.2", 80),
        ("NGINX", None, 8443),
        ("NGINX", "127.0.0.1", 8080),
    ]
    assert ("NGINX", None, 444) not in ports(wanted("lb1", {}, nginx_lb_tls_listen=["444"]))
    assert ("NGINX", None, 444) in ports(wanted("lb1", {}, nginx_lb_tls_listen=["444"], nginx_lb_tls="given"))
    ours = [("Alertmanager", "127.0.0.1", 9093), ("Prometheus", "10.0.0.3", 9091)]
    assert ports(wanted("mon1", {}))[1:] == ours
    assert ports(wanted("mon1", {}, fleet_alertmanager_url="http://alerts.example.com"))[1:] == ours[1:]
    assert ports(wanted("mon1", {}, fleet_observe=["alertmanager"])) == ours[:1]
    assert not wanted("mon1", {}).gpu_host
    assert [(disk.path, disk.gib) for disk in wanted("mon1", {}).disks] == [("/var", 2.0)]


LOOK = {
    "wanted": Wanted().to_dict(),
    "machine": Machine(python="3.11.2", time_epoch=100.0, clock_synchronized=True, listeners=()).to_dict(),
    "gpu": None,
    "driver": None,
    "asked_epoch": [99.0, 101.0],
}


@pytest.mark.parametrize(
    ("look", "code", "observed"),
    [
        (
            {"unreachable": True, "msg": "Task failed: Failed to connect:\n  refused"},
            "unreachable",
            "Failed to connect: refused",
        ),
        ({"failed": True, "msg": "No Python"}, "unreadable", "No Python"),
        (LOOK | {"asked_epoch": [90.0, 91.0]}, "clock_skew", "9 s ahead of the controller"),
    ],
)
def test_what_ansible_tells_becomes_a_failure(look: dict[str, Any], code: str, observed: str) -> None:
    verdict = diagnosis({"lb1": look, "gpu1": LOOK})
    (failure,) = verdict["failures"]
    assert (failure["host"], failure["code"], failure["observed"]) == ("lb1", code, observed)
