"""The ports for InfiniBand and RoCE, as sysfs shows them."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import GpuHost
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.rdma import RdmaPort, described, read_ports

from tests.unit import fleets


def port(root: Path, device: str, *, state: str, link: str, layer: str, rate: str) -> None:
    place = root / "sys/class/infiniband" / device / "ports/1"
    place.mkdir(parents=True)
    for name, text in {"state": state, "phys_state": link, "link_layer": layer, "rate": rate}.items():
        (place / name).write_text(f"{text}\n")


def test_ports_are_read_with_what_goes_through_them(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0", state="4: ACTIVE", link="5: LinkUp", layer="InfiniBand", rate="400 Gb/sec (4X NDR)")
    port(tmp_path, "mlx5_1", state="2: INIT", link="5: LinkUp", layer="InfiniBand", rate="400 Gb/sec (4X NDR)")
    port(tmp_path, "mlx5_2", state="1: DOWN", link="3: Disabled", layer="Ethernet", rate="10 Gb/sec (1X QDR)")
    first, second, third = read_ports(tmp_path)
    assert first == RdmaPort("mlx5_0", 1, "InfiniBand", active=True, cable=True, rate="400 Gb/sec")
    assert (second.active, second.cable, second.name) == (False, True, "mlx5_1:1")
    assert (third.kind, third.active, third.cable) == ("RoCE", False, False)
    host = GpuHost(rdma=(first, second))
    assert GpuHost.from_dict(host.to_dict()) == host


def test_a_host_without_has_none(tmp_path: Path) -> None:
    assert read_ports(tmp_path) == ()


def test_active_ones_are_counted_in_words() -> None:
    fast = [RdmaPort(f"mlx5_{n}", 1, "InfiniBand", True, True, "400 Gb/sec") for n in range(8)]
    slow = RdmaPort("mlx5_8", 1, "RoCE", True, True, "100 Gb/sec")
    assert described([*fast, slow]) == "8 x InfiniBand of 400 Gb/sec and 1 x RoCE of 100 Gb/sec"
    assert described([RdmaPort("mlx5_0", 1, "RoCE", False, True, "")]) == ""


def test_the_plan_says_what_there_is_between_the_hosts_of_an_instance() -> None:
    one, two = fleets.host("gpu1", 1), fleets.host("gpu2", 1)
    model = {"name": "llama-3.1-8b-instruct", "replicas": 1, "parallelism": {"tensor": 1, "pipeline": 2}}
    port = {"device": "mlx5_0", "port": 1, "kind": "InfiniBand", "active": True, "cable": True, "rate": "400 Gb/sec"}
    (instance,) = fleets.plan([dict(model)], one, two)["instances"]
    assert "between the hosts: TCP, as no InfiniBand or RoCE port is active on gpu1, gpu2" in instance["why"]
    for host in (one, two):
        host["gpu_facts"] |= {"rdma": [port]}
    (instance,) = fleets.plan([dict(model)], one, two)["instances"]
    assert "between the hosts: 1 x InfiniBand of 400 Gb/sec" in instance["why"]
