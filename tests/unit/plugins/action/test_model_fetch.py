"""The part that waits shows how far a host is, and returns what it found at the end."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.gpuhosts.vllm.plugins.action import model_fetch

DONE = {"state": "done", "problem": "", "rate": 0, "models": []}


def running(done: int) -> dict[str, Any]:
    return {"state": "running", "rate": 10**6, "models": [{"place": "acme--tiny--main", "done": done, "total": 10**8}]}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(model_fetch, "Display", lambda: Mock(display=lines.append))
    monkeypatch.setattr(model_fetch.time, "sleep", lambda _: None)
    return lines


def run(state: str, *answers: dict[str, Any]) -> dict[str, Any]:
    task = Mock(args={"state": state}, async_val=0, check_mode=False)
    action = model_fetch.ActionModule(task, *[Mock() for _ in range(5)])
    action._execute_module = Mock(side_effect=[{"status": answer} for answer in answers])
    return action.run(task_vars={"inventory_hostname": "gpu1"})


def test_every_step_is_shown_once(shown: list[str]) -> None:
    result = run("followed", running(0), running(0), running(5 * 10**7), DONE)
    assert result["status"] == DONE
    assert shown == [
        "gpu1: acme--tiny--main 0% of 100.0 MB, 1.0 MB/s, 2 min left",
        "gpu1: acme--tiny--main 50% of 100.0 MB, 1.0 MB/s, 50 s left",
    ]


def test_a_start_is_not_waited_for(shown: list[str]) -> None:
    assert run("started", running(0))["status"]["state"] == "running"
    assert shown == []
