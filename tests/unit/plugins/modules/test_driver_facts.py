"""The module driver_facts, from its arguments to its JSON."""

from __future__ import annotations

import platform

import pytest
from ansible_collections.gpuhosts.vllm.plugins.modules import driver_facts

from tests.unit.plugins.conftest import RunModule


@pytest.mark.parametrize("check", [False, True])
def test_a_host_without_a_gpu_has_all_the_facts(run_module: RunModule, check: bool) -> None:
    result = run_module(driver_facts, _ansible_check_mode=check)
    facts = result["ansible_facts"]["driver_facts"]
    assert not result["changed"]
    assert facts["kernel"] == platform.release()
    assert {"loaded_version", "reboot_pending", "packages", "supported_modules"} < set(facts)
