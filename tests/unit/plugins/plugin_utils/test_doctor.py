"""The verdict on hosts, as data and as lines, and what is remembered of their GPUs."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Machine, Wanted
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.checks import CHECKS, FAILURE, WARNING, Host
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.doctor import diagnose, table

UNREACHABLE = {
    "code": "unreachable",
    "host": "gpu2",
    "observed": "Connection refused",
    "needed": "a connection",
    "fix": "Try `ssh gpu2` as the user that Ansible uses; bring the host back, or take it out of the inventory.",
}


def lb(**values: Any) -> Host:
    machine = Machine(python="3.11.2", time_epoch=100.0, clock_synchronized=True, listeners=())
    return Host("lb1", machine=machine, asked_epoch=(99.0, 101.0), **values)


def test_the_codes_are_unique_and_every_severity_is_known() -> None:
    assert len({check.code for check in CHECKS}) == len(CHECKS)
    assert {check.severity for check in CHECKS} == {FAILURE, WARNING}


def test_a_host_without_gpus_is_judged_by_what_is_true_of_every_host() -> None:
    assert diagnose([lb()]) == {
        "ok": True,
        "summary": "1 host, 0 failures, 0 warnings",
        "failures": [],
        "warnings": [],
        "not_judged": [],
    }


def test_a_host_that_cannot_be_reached_is_one_failure() -> None:
    verdict = diagnose([Host("gpu2", unreachable="Connection refused", wanted=Wanted(gpu_host=True)), lb()])
    assert not verdict["ok"]
    assert verdict["failures"] == [UNREACHABLE]
    assert (verdict["summary"], verdict["not_judged"]) == ("2 hosts, 1 failure, 0 warnings", [])


def test_nothing_looked_at_is_not_well() -> None:
    assert not diagnose([])["ok"]


def test_the_table() -> None:
    warning = {"code": "ecc_off", "host": "gpu10", "observed": "GPU 0: ECC off", "needed": "on", "fix": "Turn it on."}
    verdict = {
        "failures": [UNREACHABLE],
        "warnings": [warning],
        "not_judged": [{"code": "acs_enabled", "host": "gpu10"}, {"code": "port_taken", "host": "gpu10"}],
        "summary": "2 hosts, 1 failure, 1 warning",
    }
    assert table(verdict) == [
        "warning  gpu10  ecc_off",
        "    found: GPU 0: ECC off",
        "    needed: on",
        "    fix: Turn it on.",
        "FAILURE  gpu2   unreachable",
        "    found: Connection refused",
        "    needed: a connection",
        "    fix: Try `ssh gpu2` as the user that Ansible uses; bring the host back,",
        "        or take it out of the inventory.",
        "not judged on gpu10: acs_enabled, port_taken",
        "2 hosts, 1 failure, 1 warning; root reads more: --become",
    ]
