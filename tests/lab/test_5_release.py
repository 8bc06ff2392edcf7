"""Another release of the engine that crashes, and goes back to vLLM under streams; then one that is well.

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


def test_another_release_that_crashes_goes_back_to_vllm_by_itself() -> None:
    other, release_before = started("gpu2"), machine("gpu1").file("/opt/vllm/current").linked_to

    with client() as streams:
        run = rollout(STAND_IN_START_FAULT="oom")
        before = streams.answers
        time.sleep(8)

    assert run.code != 0
    assert "It was rolled back: it answers again with what it served before" in run.text
    assert "CUDA out of memory" in run.text  # the cause, not the API server's own story
    print(f"{streams.answers} answers, {len(streams.failures)} failures, {run.seconds:.0f} s")
    assert streams.failures == []
    assert streams.answers > before > 0
    assert started("gpu2") == other
    assert drained() == set()
    assert not machine("gpu1").file(NOTICE).exists
    assert machine("gpu1").file("/opt/vllm/current").linked_to == release_before


def test_another_release_comes_wave_by_wave_and_no_request_fails() -> None:
    before = [started(host) for host in HOSTS]

    with client() as streams:
        run = rollout()

    assert_rolled_out(run, streams, before)
    assert "gpu1 was rolled back on " in run.text
    for host in HOSTS:
        assert machine(host).check_output("/opt/vllm/current/bin/vllm --version") == stand_in.VERSION
