"""What has to be done to a service, by its state and by what has changed."""

from __future__ import annotations

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.service import State, steps


def test_one_restart_is_enough() -> None:
    running = State(runs=True, enabled=True)
    assert steps(running, ["reload", "restart", "nothing"]) == ["restart"]
    assert steps(State(runs=False, enabled=True), ["reload"]) == ["start"]
    assert steps(State(runs=True, enabled=False), []) == ["enable"]
