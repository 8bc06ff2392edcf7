"""Changed options under streams: wave by wave, and no request fails."""

from __future__ import annotations

from .clients import client, drained
from .conftest import machine
from .rollouts import HOSTS, NOTICE, assert_rolled_out, rollout, started, with_adapter


def test_check_mode_tells_who_would_restart() -> None:
    before = [started(host) for host in HOSTS]
    run = rollout({"seed": 7}, "--check")
    assert run.code == 0
    for number, host in enumerate(HOSTS, 1):
        assert f"{host}: restart tiny-llama-{number}, start nothing, remove nothing" in run.text
    assert [started(host) for host in HOSTS] == before


def test_an_option_that_vllm_refuses_stops_nothing_that_serves() -> None:
    before = [started(host) for host in HOSTS]
    run = rollout({"structured-outputs-config": {"nonsense": 1}})
    assert run.code != 0
    assert "argument --structured-outputs-config: " in run.text
    assert [started(host) for host in HOSTS] == before
    assert drained() == set()


def test_a_changed_option_restarts_wave_by_wave_and_no_request_fails() -> None:
    before = [started(host) for host in HOSTS]

    with client() as streams:
        run = with_adapter()

    assert_rolled_out(run, streams, before)
    assert not any(machine(host).file(NOTICE).exists for host in HOSTS)

    again = with_adapter()
    assert (again.code, again.changed) == (0, {})
    # The engines keep the adapter: test_3_rollout_kinds.py goes on from here.
