"""Another release of the engine, rolled out under streams; then one that crashes, and the way back.

The other release is the stand-in for vLLM (tests/stand_in), which starts at once: from here on the tests are about
roll-outs, and not about the engine.
"""

from __future__ import annotations

import time

from . import stand_in
from .clients import client, drained
from .conftest import Run, machine, playbook
from .rollouts import HOSTS, NOTICE, assert_rolled_out, model, started, variables


def release(**env: str) -> tuple[str, str]:
    """What asks for the stand-in; its streams take a second."""
    models = [{**model({}, {"STAND_IN_TOKEN_SECONDS": "0.02"} | env), "tracing": 0}]  # it cannot, and would be refused
    return variables(stand_in.VARIABLES | {"vllm_models": models})


def rollout(**env: str) -> Run:
    """site.yml with the stand-in, and further environment variables of the engines."""
    return playbook("playbooks/site.yml", *release(**env))


def test_another_release_comes_wave_by_wave_and_no_request_fails() -> None:
    before = [started(host) for host in HOSTS]

    with client() as streams:
        run = rollout()

    assert_rolled_out(run, streams, before)
    for host in HOSTS:
        assert machine(host).check_output("/opt/vllm/current/bin/vllm --version") == stand_in.VERSION


def test_an_engine_that_crashes_ends_the_roll_out_with_the_other_one_serving() -> None:
    other = started("gpu2")

    with client() as streams:
        run = rollout(STAND_IN_START_FAULT="oom")
        before = streams.answers
        time.sleep(8)

    assert run.code != 0
    assert "the roll-out stops here; the other hosts go on serving" in run.text
    assert "CUDA out of memory" in run.text  # the cause, not the API server's own story
    print(f"{streams.answers} answers, {len(streams.failures)} failures, {run.seconds:.0f} s")
    assert streams.failures == []
    assert streams.answers > before > 0
    assert started("gpu2") == other
    assert drained() == {"172.29.250.21"}
    assert machine("gpu1").file(NOTICE).exists


def test_the_next_run_brings_the_host_back() -> None:
    other = started("gpu2")

    run = rollout()

    assert run.code == 0
    assert started("gpu2") == other
    assert drained() == set()
    assert not machine("gpu1").file(NOTICE).exists
