"""What is wrong with an inventory is said before any host is contacted."""

from __future__ import annotations

from typing import Any

from .conftest import AWAY, Play


def test_a_gpu_host_that_is_only_known_by_name_is_refused_and_the_remedy_cures_it(
    play: Play, inventory: dict[str, Any]
) -> None:
    inventory["gpu_hosts"]["hosts"]["gpu2"] = AWAY | {"ansible_host": "gpu2.example.org"}
    done = play("site")
    assert done.code != 0
    assert "The address of gpu2 is 'gpu2.example.org' to the front door" in done.text
    assert "Set fleet_address of gpu2" in done.text
    assert set(done.recap) == {"localhost"}

    inventory["gpu_hosts"]["hosts"]["gpu2"]["fleet_address"] = "192.0.2.2"
    assert play("validate").code == 0


def test_what_no_firewall_could_act_upon_is_refused_and_the_remedies_cure_it(
    play: Play, inventory: dict[str, Any]
) -> None:
    gpus, balancers = inventory["gpu_hosts"]["vars"], inventory["load_balancers"]["hosts"]["lb1"]
    gpus.update(fleet_firewall=False, fleet_allow_from="10.0.0.0/8")
    balancers["nginx_lb_allow_from"] = ["10.0.0.0/8", "10.0.0"]
    done = play("site")
    assert done.code != 0
    assert set(done.recap) == {"localhost"}
    assert "fleet_firewall of gpu1, gpu2 is false. Set it to auto, or to none to leave firewalls alone." in done.text
    assert 'fleet_allow_from of gpu1, gpu2 is "10.0.0.0/8", no list. Put it in brackets: [10.0.0.0/8].' in done.text
    assert "nginx_lb_allow_from of lb1 has '10.0.0', which is no address" in done.text

    gpus.update(fleet_firewall="none", fleet_allow_from=["10.0.0.0/8"])
    balancers["nginx_lb_allow_from"] = ["10.0.0.0/8", "10.0.0.7", "localhost"]
    later = "{{ ansible_facts.default_ipv4.address }}"  # nobody has gathered facts yet
    inventory["monitoring"]["hosts"]["mon1"].update(fleet_allow_from=later, prometheus_allow_from=[later])
    assert play("validate").code == 0


def test_models_in_containers_need_an_image_that_is_pinned_and_hosts_with_docker(
    play: Play, inventory: dict[str, Any]
) -> None:
    variables = inventory["gpu_hosts"]["vars"]
    variables["vllm_models"][0]["runtime"] = "docker"
    inventory["gpu_hosts"]["hosts"]["gpu2"]["hardware_containers"] = False
    done = play("site")
    assert done.code != 0
    assert set(done.recap) == {"localhost"}
    assert "gpu1, gpu2: tiny runs with runtime docker, and no image is pinned. Set vllm_image_digest to" in done.text
    assert "gpu2: tiny may be planned here with runtime docker, and hardware_containers is false." in done.text

    variables["vllm_image_digest"] = f"sha256:{'0f' * 32}"
    variables["vllm_models"][0]["hosts"] = "gpu1"
    assert play("validate").code == 0


def test_a_variable_by_its_old_name_is_read_and_told(play: Play) -> None:
    told = "DEPRECATED: verify_url is called fleet_verify_url now."
    done = play("validate", "-e", "verify_url=http://192.0.2.9")
    assert (done.code, done.text.count(told)) == (0, 1)
    assert told not in play("validate", "-e", "fleet_verify_url=http://192.0.2.9").text
