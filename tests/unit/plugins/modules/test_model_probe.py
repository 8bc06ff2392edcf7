"""The module model_probe, from its arguments to its JSON."""

from __future__ import annotations

from ansible_collections.gpuhosts.vllm.plugins.modules import model_probe

from tests.unit.plugins.conftest import RunModule
from tests.unit.plugins.scripted_engine import Engine


def test_a_streamed_answer(run_module: RunModule, engine: Engine) -> None:
    engine.key = "s3cret"
    result = run_module(model_probe, url=engine.url, model="tiny", api_key="s3cret", prompt="Hello?", max_tokens=4)
    assert (result["changed"], result["text"], result["chunks"]) == (False, "Hello", 2)
    assert 0 <= result["time_to_first_token_seconds"] <= result["seconds"]
    assert engine.requests[0]["messages"] == [{"role": "user", "content": "Hello?"}]
    assert engine.requests[0]["max_tokens"] == 4


def test_a_model_of_another_kind(run_module: RunModule, engine: Engine) -> None:
    engine.settings.task = "embed"
    result = run_module(model_probe, url=engine.url, model="tiny", task="embed")
    assert (result["text"], result["chunks"]) == ("a vector of 2 numbers", 1)


def test_it_fails_with_the_reason(run_module: RunModule, engine: Engine) -> None:
    engine.chat_status = 404
    result = run_module(model_probe, url=engine.url, model="other")
    assert result["failed"]
    assert result["msg"].endswith('answered HTTP 404: {"error": {"message": "no such model"}}')


def test_check_mode_contacts_nobody(run_module: RunModule) -> None:
    result = run_module(model_probe, url="http://127.0.0.1:1", model="tiny", _ansible_check_mode=True)
    assert result["skipped"]
    assert "failed" not in result
