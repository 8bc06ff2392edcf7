"""The module engine_idle, from its arguments to its JSON."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import ready
from ansible_collections.gpuhosts.vllm.plugins.modules import engine_idle

from tests.unit.plugins.conftest import RunModule
from tests.unit.plugins.scripted_engine import Engine


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "POLL_SECONDS", 0.01)


def metrics(running: int, waiting: int, reasons: int = 7) -> str:
    return (
        f'vllm:num_requests_running{{engine="0",model_name="tiny"}} {running}.0\n'
        f'vllm:num_requests_waiting{{engine="0",model_name="tiny"}} {waiting}.0\n'
        f'vllm:num_requests_waiting_by_reason{{engine="0",model_name="tiny",reason="capacity"}} {reasons}.0\n'
    )


def test_an_engine_without_requests_is_idle(run_module: RunModule, engine: Engine) -> None:
    engine.metrics = metrics(0, 0)
    result = run_module(engine_idle, url=engine.url)
    assert (result["changed"], result["requests"]) == (False, 0)


def test_it_waits_for_the_last_request_and_looks_twice(
    run_module: RunModule, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([metrics(2, 1), metrics(0, 1), metrics(0, 0), metrics(1, 0), metrics(0, 0), metrics(0, 0)])
    monkeypatch.setattr(type(engine), "metrics", property(lambda _: next(looks)))
    assert run_module(engine_idle, url=engine.url)["requests"] == 0
    assert next(looks, None) is None


@pytest.mark.parametrize(
    ("text", "requests", "reason"),
    [
        (metrics(2, 1), 3, "after 0 s 3 requests still run or wait"),
        (metrics(1, 0), 1, "after 0 s 1 request still runs or waits"),
        ("", None, "after 0 s it is not known how many requests are left: /metrics does not tell"),
    ],
)
def test_it_fails_when_the_time_is_up(
    run_module: RunModule, engine: Engine, text: str, requests: int | None, reason: str
) -> None:
    engine.metrics = text
    result = run_module(engine_idle, url=engine.url, timeout=0)
    assert (result["failed"], result["requests"], result["msg"]) == (True, requests, f"{engine.url}: {reason}")


def test_an_engine_that_does_not_listen_is_idle(run_module: RunModule) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run_module(engine_idle, url=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert result["requests"] == 0


def test_an_engine_that_answers_nonsense_is_not_idle(run_module: RunModule, engine: Engine) -> None:
    result = run_module(engine_idle, url=f"{engine.url}/v1", timeout=0)
    assert result["failed"]


def test_what_is_no_url(run_module: RunModule) -> None:
    assert run_module(engine_idle, url="gpu1")["msg"].startswith("'gpu1' is not an http://")


def test_check_mode_contacts_nobody(run_module: RunModule) -> None:
    result = run_module(engine_idle, url="http://127.0.0.1:1", _ansible_check_mode=True)
    assert result["skipped"]
    assert "failed" not in result
