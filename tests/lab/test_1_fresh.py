"""On hosts that nothing was ever installed on: check mode, bad input refused before any change, and the driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import machine, playbook
from .vendor.nvidia import VERSIONS

TINY: dict[str, Any] = {"name": "tiny-llama", "source": "/srv/models/tiny-llama"}


def traces_on(host: str) -> list[str]:
    """Paths that a roll-out would have left on a host."""
    paths = ["/opt/vllm", "/etc/vllm", "/etc/nginx", "/etc/prometheus", "/etc/ansible/facts.d/gpuhosts_vllm.fact"]
    paths += ["/usr/share/keyrings/cuda-archive-keyring.gpg", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"]
    return [path for path in paths if machine(host).file(path).exists]


def test_check_mode_works_and_touches_nothing() -> None:
    run = playbook("playbooks/site.yml", "--check", "--diff")
    assert run.code == 0
    assert run.changed, "on fresh hosts check mode announces changes"
    assert "No driver yet on gpu1, gpu2: what runs there is planned once it is installed." in run.text
    assert [trace for host in ("gpu1", "gpu2", "lb1", "mon1") for trace in traces_on(host)] == []


def test_bad_wishes_are_refused_all_at_once_without_contacting_a_host() -> None:
    models = [TINY | {"port": 8000, "extra_args": {"max-num-seq": 8}}, TINY | {"port": 8000}]
    run = playbook("playbooks/site.yml", "-e", json.dumps({"vllm_models": models}))
    assert run.code != 0
    for message in (
        "3 mistakes in vllm_models",
        "vllm_models[0].extra_args: vLLM 0.32.0+cpu has no option 'max-num-seq'; did you mean 'max-num-seqs'?",
        "vllm_models[1].name: 'tiny-llama' is already the name of vllm_models[0]",
        "vllm_models[1].port: 8000 is already the port of vllm_models[0]",
    ):
        assert message in run.text
    assert set(run.recap) == {"localhost"}


def test_an_empty_group_is_refused_without_contacting_a_host(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("gpu_hosts: {hosts: {}}\nload_balancers: {hosts: {lb1: {}}}\n")
    run = playbook("playbooks/site.yml", inventory=str(inventory))
    assert run.code != 0
    assert "Inventory group 'gpu_hosts' has no hosts, so nothing can serve a model. Add a host to it in" in run.text
    assert set(run.recap) == {"localhost"}


def test_bare_hosts_become_gpu_hosts() -> None:
    assert playbook("playbooks/hardware.yml").code == 0
    for host in ("gpu1", "gpu2"):
        assert machine(host).file("/sys/module/nvidia/version").content_string.strip() == VERSIONS[0]
        assert "libnvidia-ml1" in machine(host).check_output("apt-mark showhold").split()
    again = playbook("playbooks/hardware.yml")
    assert (again.code, again.changed) == (0, {})


def test_containers_of_the_host_that_is_to_have_them_can_ask_for_its_gpus() -> None:
    gpu2 = machine("gpu2")
    info = json.loads(gpu2.check_output("docker info --format '{{ json . }}'"))
    assert "nvidia" in info["Runtimes"]
    assert info["CDISpecDirs"]
    devices = set(gpu2.check_output("nvidia-ctk --quiet cdi list").splitlines())
    assert {"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"} <= devices
    assert not machine("gpu1").exists("docker")


@pytest.mark.parametrize(
    ("models", "messages"),
    [
        pytest.param(
            [TINY | {"parallelism": {"tensor": 4}}],
            [
                "needs 4 GPUs of one host",
                "the largest such set has 2",
                "Lower vllm_models[0].parallelism",
            ],
            id="parallelism exceeds the GPUs",
        ),
        pytest.param(
            [
                TINY | {"source": "/srv/models/no-such-model", "replicas": 1, "parallelism": {"tensor": 1}}
            ],  # or the plan refuses
            ["Model path '/srv/models/no-such-model' does not exist on gpu", "correct `source` in vllm_models"],
            id="model path does not exist",
        ),
    ],
)
def test_what_the_hosts_cannot_do_is_refused_before_any_change(
    models: list[dict[str, Any]], messages: list[str]
) -> None:
    run = playbook("playbooks/site.yml", "-e", json.dumps({"vllm_models": models}))
    assert run.code != 0
    for message in messages:
        assert message in run.text
    assert not {host: count for host, count in run.changed.items() if host != "localhost"}
