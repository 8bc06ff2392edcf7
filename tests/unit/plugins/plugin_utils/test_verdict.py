"""What probes of the fleet mean together."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.verdict import verdict

PROBE: dict[str, Any] = {
    "item": ["lb1", {"name": "tiny", "task": "generate"}],
    "text": "hello",
    "chunks": 3,
    "time_to_first_token_seconds": 0.1,
    "seconds": 0.4,
}
TARGET = {"scrapeUrl": "http://10.0.0.1:8000/metrics", "health": "up", "lastError": ""}


def answer(*targets: dict[str, Any], failed: bool = False) -> dict[str, Any]:
    return {"item": "mon1", "json": {"data": {"activeTargets": list(targets)}}, "failed": failed}


def test_all_is_well() -> None:
    found = verdict([PROBE], [answer(TARGET)], [])
    assert found["ok"]
    assert found["summary"] == "1 answer through front doors, 1 Prometheus targets up"
    expected = {key: value for key, value in PROBE.items() if key != "item"}
    assert found["completions"] == [expected | {"front_door": "lb1", "model": "tiny", "ok": True}]


@pytest.mark.parametrize(
    ("probe", "targets", "failure"),
    [
        (PROBE | {"failed": True, "msg": "HTTP 502"}, answer(TARGET), "lb1: tiny: HTTP 502"),
        (
            PROBE,
            answer(TARGET | {"health": "down", "lastError": "refused"}),
            "mon1: http://10.0.0.1:8000/metrics is down: refused",
        ),
        (PROBE, answer(TARGET, failed=True), "mon1: Prometheus scrapes 1 targets, fewer than the plan has"),
        (PROBE, answer(), "mon1: Prometheus names no target: is the host reachable?"),
        (None, answer(TARGET), "No model was asked"),
    ],
)
def test_every_kind_of_failure_is_named(probe: dict[str, Any] | None, targets: dict[str, Any], failure: str) -> None:
    found = verdict([probe] if probe else [], [targets], [])
    assert not found["ok"]
    assert any(line.startswith(failure) for line in found["failures"])


def test_a_host_that_does_not_answer_is_one_failure() -> None:
    assert verdict([], [], ["lb1"])["failures"] == ["lb1: it cannot be reached, so nothing was asked there"]
