"""Waiting for an engine: every way in which one fails to answer, and what it says once it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import ready
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import OpenAiClient
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.ready import Ready, UnitState, wait_until_ready
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import NotReadyError

from tests.unit.plugins.scripted_engine import Engine

UP = UnitState(loaded=True, active="active", result="success", restarts=0)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "POLL_SECONDS", 0.01)


def wait(engine: Engine, *states: UnitState, key: str = "", timeout: float = 0.1, task: str = "generate") -> Ready:
    """Wait for an engine whose unit goes through these states and stays in the last one."""
    looks: Iterator[UnitState] = chain(states or [UP], repeat(states[-1] if states else UP))
    return wait_until_ready(
        OpenAiClient(engine.url, key),
        lambda: next(looks),
        task=task,
        model="tiny",
        prompt="Say hello.",
        timeout_seconds=timeout,
        max_restarts=2,
    )


def state(active: str, restarts: int = 0, result: str = "success") -> UnitState:
    return UnitState(loaded=True, active=active, result=result, restarts=restarts)


def test_an_engine_that_answers_tells_what_it_resolved(engine: Engine) -> None:
    ready = wait(engine)
    assert ready.seconds < 5
    assert ready.effective == {
        "max_model_len": 512,
        "num_gpu_blocks": 256,
        "block_size": 16,
        "kv_cache_size_tokens": 4096,
        "kv_cache_max_concurrency": 3.5,
        "gpu_memory_utilization": 0.92,
    }


@pytest.mark.parametrize("metrics", ["", 'vllm:cache_config_info{num_gpu_blocks="None",block_size="x"} 1.0\n'])
def test_what_an_engine_does_not_report_is_missing(engine: Engine, metrics: str) -> None:
    engine.metrics = metrics
    assert wait(engine).effective == {"max_model_len": 512}


def test_a_unit_that_is_still_starting_is_waited_for(engine: Engine) -> None:
    starting = [state("activating")] * 3
    assert wait(engine, *starting, UP, timeout=30).effective


def test_a_unit_whose_start_waits_for_another_is_waited_for(engine: Engine) -> None:
    waiting = UnitState(loaded=True, active="inactive", result="success", restarts=0, queued=True)
    assert wait(engine, *[waiting] * 3, UP, timeout=30).effective


def test_earlier_restarts_are_no_crash_loop(engine: Engine) -> None:
    assert wait(engine, state("active", restarts=40)).effective
    assert wait(engine, state("active", restarts=40), state("active", restarts=42)).effective


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([UnitState(False, "inactive", "success", 0)], "systemd knows no such unit"),
        ([state("inactive")], "it is inactive (result: success)"),
        ([state("failed", 5, "start-limit-hit")], "it is failed (result: start-limit-hit)"),
        (
            [state("active", 40), state("activating", 43, "exit-code")],
            "it restarts in a loop: 3 times so far (last result: exit-code)",
        ),
    ],
)
def test_a_unit_that_will_not_come_up_ends_the_wait_at_once(
    engine: Engine, states: list[UnitState], reason: str
) -> None:
    with pytest.raises(NotReadyError) as caught:
        wait(engine, *states, timeout=600)
    assert (caught.value.stage, str(caught.value)) == ("unit", reason)


def break_health(engine: Engine) -> None:
    engine.health = 503


def break_models(engine: Engine) -> None:
    engine.model = "other"


def break_completion(engine: Engine) -> None:
    engine.completion = (200, '{"choices": [{"text": "", "finish_reason": "length"}]}')


@pytest.mark.parametrize(
    ("break_it", "stage", "reason"),
    [
        (break_health, "health", "still not after 0.1 s: /health answers HTTP 503"),
        (break_models, "models", "still not after 0.1 s: /v1/models lists other, not 'tiny'"),
        (
            break_completion,
            "answer",
            "still not after 0.1 s: /v1/completions of ENGINE answered for model 'tiny' without any text",
        ),
    ],
)
def test_a_healthy_process_is_not_enough(
    engine: Engine, break_it: Callable[[Engine], None], stage: str, reason: str
) -> None:
    break_it(engine)
    with pytest.raises(NotReadyError) as caught:
        wait(engine)
    message = str(caught.value).replace(engine.url[len("http://") :], "ENGINE")
    assert (caught.value.stage, message) == (stage, reason)


def test_a_unit_that_never_comes_up(engine: Engine) -> None:
    with pytest.raises(NotReadyError) as caught:
        wait(engine, state("activating", result="exit-code"))
    assert str(caught.value) == "still not after 0.1 s: the unit is activating (last result: exit-code)"


def test_a_wrong_key_ends_the_wait_at_once(engine: Engine) -> None:
    engine.key = "s3cret"
    with pytest.raises(NotReadyError, match=r"HTTP 401: the API key is wrong; set vllm_api_key$") as caught:
        wait(engine, key="wr0ng", timeout=600)
    assert caught.value.stage == "models"


def test_the_state_is_what_systemctl_shows() -> None:
    shown = "LoadState=loaded\nActiveState=activating\nResult=exit-code\nNRestarts=3\n"
    assert UnitState.from_properties(shown) == UnitState(True, "activating", "exit-code", 3)
    assert UnitState.from_properties(f"{shown}Job=\n") == UnitState(True, "activating", "exit-code", 3)
    assert UnitState.from_properties(f"{shown}Job=91\n").queued
    assert UnitState.from_properties("") == UnitState(False, "unknown", "unknown", 0)
