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
    assert "gpu2 would be known to the front door as 'gpu2.example.org'" in done.text
    assert "Set fleet_address of gpu2" in done.text
    assert set(done.recap) == {"localhost"}

    inventory["gpu_hosts"]["hosts"]["gpu2"]["fleet_address"] = "192.0.2.2"
    assert play("validate").code == 0


def test_a_variable_by_its_old_name_is_read_and_told(play: Play) -> None:
    told = "DEPRECATED: verify_url is called fleet_verify_url now."
    done = play("validate", "-e", "verify_url=http://192.0.2.9")
    assert (done.code, done.text.count(told)) == (0, 1)
    assert told not in play("validate", "-e", "fleet_verify_url=http://192.0.2.9").text
