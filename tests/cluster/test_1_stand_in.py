"""Every fault, with the stand-in for vLLM, on real systemd: what heals the instance is the keeper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import stand_in

from . import site
from .faults import FAULTS, HEADER, Healed, heal, stop_under_a_stream
from .site import HANG, HEAD, WORKER, shell

STAND_IN = {"STAND_IN_START_SECONDS": "1", "STAND_IN_TOKEN_SECONDS": "0.05"}
# As long as a hang counts from, they cost; `make faults` has them all, on vLLM itself.
SLOW = {"the head's engine is stopped", "the head's keeper is stopped", "all of the worker is killed"}


def variables(*models: dict[str, Any]) -> dict[str, Any]:
    return stand_in.VARIABLES | {"vllm_hang_timeout": HANG, "vllm_models": list(models)}


TENSOR = variables(site.wishes(2, 1, **STAND_IN))
PIPELINE = variables(site.wishes(1, 2, **STAND_IN))


@pytest.fixture(scope="module")
def table(pytestconfig: pytest.Config) -> Iterator[list[Healed]]:
    """All that has healed, for people: shown also when all is well."""
    rows: list[Healed] = []
    yield rows
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")
    assert capture
    with capture.global_and_fixture_disabled():
        print("\n".join(["", HEADER, *(row.row for row in rows)]), flush=True)


def test_site_makes_one_engine_of_two_hosts() -> None:
    run = site.site(TENSOR)
    assert run.code == 0
    assert site.keeper(HEAD).state == site.keeper(WORKER).state == "serving"
    assert "tensor 2 goes over 2 hosts" in run.text
    options = shell(WORKER, "cat /etc/vllm/instances/tiny-llama-1.yaml /etc/vllm/instances/tiny-llama-1.env")
    assert "headless: true" in options
    assert 'NCCL_SOCKET_IFNAME="=eth0"' in options


def test_a_second_run_changes_nothing() -> None:
    run = site.site(TENSOR)
    assert (run.code, run.changed) == (0, {})


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in SLOW])
def test_it_answers_again(name: str, table: list[Healed]) -> None:
    healed = heal(FAULTS[name], HANG)
    table.append(healed)
    assert healed.in_time, healed


def test_a_network_that_is_away_for_5_s_ends_nothing() -> None:
    """The stream pauses, and goes on."""
    before = site.keeper(HEAD)
    with site.stream(150) as stream:
        stream.readline()
        shell(WORKER, "ip link set eth0 down; sleep 5; ip link set eth0 up")
        assert stream.read().rstrip().endswith(b"[DONE]")
    assert site.keeper(HEAD).epoch == before.epoch


@pytest.mark.parametrize("name", [HEAD, WORKER])
def test_a_stop_of_either_node_lets_an_open_stream_end(name: str, table: list[Healed]) -> None:
    stopped = stop_under_a_stream(name, 60)
    table.append(stopped)
    assert stopped.in_time, stopped


def test_a_pipeline_whose_stage_is_gone_answers_again(table: list[Healed]) -> None:
    """Without a keeper it would hang in good health, for five minutes."""
    assert site.site(PIPELINE).code == 0
    healed = heal(FAULTS["the worker's engine is killed"], HANG)
    table.append(healed)
    assert healed.in_time, healed


def test_a_model_that_is_not_wanted_any_more_leaves_both_hosts() -> None:
    before = {name: set(site.files(name)) for name in (HEAD, WORKER)}
    run = site.site(variables(site.OTHER) | {"fleet_allow_stops": True})
    assert run.code == 0
    for name in (HEAD, WORKER):
        gone = before[name] - set(site.files(name))
        assert gone, name
        assert all("tiny-llama-1" in path for path in gone), gone
        assert "tiny-llama-1" not in site.units_and_processes(name)
        assert json.loads(shell(name, "cat /etc/ansible/facts.d/gpuhosts_vllm.fact"))["version"] == 2
    assert "other-1" in site.units_and_processes(HEAD)
