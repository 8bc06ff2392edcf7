"""The client, against a server on loopback that speaks vLLM's protocol."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import OpenAiClient, parse_cache_config
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError, RefusedError

from tests.unit.plugins.scripted_engine import Engine


def event(**choice: object) -> str:
    return json.dumps({"choices": [choice]})


def test_what_a_server_answers(engine: Engine) -> None:
    client = OpenAiClient(engine.url)
    assert client.status("/health") == 200
    assert {name: model["max_model_len"] for name, model in client.models().items()} == {"tiny": 512}
    assert client.complete("tiny", "Say hello.", 8) == " hello"
    assert parse_cache_config(client.text("/metrics"))["num_gpu_blocks"] == "256"
    assert engine.requests == [
        {"model": "tiny", "prompt": "Say hello.", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    ]


def test_a_chat_is_streamed(engine: Engine) -> None:
    chat = OpenAiClient(engine.url).chat("tiny", "Say hello.", 8)
    assert (chat.text, chat.chunks) == ("Hello", 2)
    assert 0 < chat.first_seconds <= chat.seconds
    assert engine.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 8,
            "temperature": 0,
            "stream": True,
        }
    ]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_are_pieces_too(engine: Engine, field: str) -> None:
    engine.chat_events = (event(delta={field: "Hm."}), event(delta={"content": "Hi"}), "[DONE]")
    assert OpenAiClient(engine.url).chat("tiny", "Say hello.", 8).text == "Hm.Hi"


def test_events_without_choices_are_passed_over(engine: Engine) -> None:
    engine.chat_events = (event(delta={"content": "Hi"}), '{"choices": [], "usage": {}}', "[DONE]")
    assert OpenAiClient(engine.url).chat("tiny", "Say hello.", 8).chunks == 1


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (["[DONE]"], r"answered for model 'tiny' without any text$"),
        ([event(delta={"content": "Hi"})], r"ended its stream without \[DONE\]$"),
        ([event(delta={"content": "Hi"}, finish_reason="abort"), "[DONE]"], r"broke off with finish_reason 'abort'$"),
        (['{"error": {"message": "engine died"}}'], r'broke off: \{"message": "engine died"\}$'),
        (["{"], r"streamed no event: \{$"),
        (["7"], r"streamed no event: 7$"),
    ],
)
def test_a_stream_that_goes_wrong(engine: Engine, events: list[str], message: str) -> None:
    engine.chat_events = tuple(events)
    with pytest.raises(ApiError, match=rf"^/v1/chat/completions of 127.0.0.1:\d+ {message}"):
        OpenAiClient(engine.url).chat("tiny", "Say hello.", 8)


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        (
            (200, '{"choices": [{"text": "", "finish_reason": "length"}]}'),
            "answered for model 'tiny' without any text$",
        ),
        ((200, '{"choices": [{"text": "", "finish_reason": "abort"}]}'), "broke off with finish_reason 'abort'$"),
        ((200, '{"choices": []}'), r'gave no completion: \{"choices": \[\]\}$'),
        ((200, "<html>"), "gave no completion: <html>$"),
        ((500, "EngineCore\n died"), "answered HTTP 500: EngineCore died$"),
        ((503, ""), r"answered HTTP 503: \(empty\)$"),
    ],
)
def test_a_completion_that_goes_wrong(engine: Engine, completion: tuple[int, str], message: str) -> None:
    engine.completion = completion
    with pytest.raises(ApiError, match=f"^/v1/completions .*{message}"):
        OpenAiClient(engine.url).complete("tiny", "Say hello.", 8)


CALLS: list[Callable[[OpenAiClient], object]] = [
    lambda client: client.models(),
    lambda client: client.complete("tiny", "", 1),
    lambda client: client.chat("tiny", "", 1),
]


@pytest.mark.parametrize("call", CALLS)
def test_the_key(engine: Engine, call: Callable[[OpenAiClient], object]) -> None:
    engine.key = "s3cret"
    call(OpenAiClient(engine.url, "s3cret"))
    for key, fault in [("wr0ng", "the API key is wrong"), ("", "it wants an API key, and none was given")]:
        with pytest.raises(RefusedError, match=f"answered HTTP 401: {fault}; set vllm_api_key$") as caught:
            call(OpenAiClient(engine.url, key))
        assert "s3cret" not in str(caught.value)
        assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize("call", [*CALLS, lambda client: client.status("/health")])
def test_nobody_there(call: Callable[[OpenAiClient], object]) -> None:
    with pytest.raises(ApiError, match=r"^(GET|POST) /\S+ of 127.0.0.1:1: .*Connection refused"):
        call(OpenAiClient("http://127.0.0.1:1"))


def test_a_list_of_models_that_is_none(engine: Engine) -> None:
    engine.models = "<html>"
    with pytest.raises(ApiError, match=r"^/v1/models of \S+ is no list of models: <html>$"):
        OpenAiClient(engine.url).models()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gpu1:8000", "^'gpu1:8000' is not an http:// or https:// URL$"),
        ("ftp://gpu1", "^'ftp://gpu1' is not an http:// or https:// URL$"),
        ("http://", "^'http://' is not an http:// or https:// URL$"),
        ("http://gpu1:port", "^'http://gpu1:port' is not a URL: Port could not be cast"),
    ],
)
def test_what_is_no_url(url: str, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        OpenAiClient(url)


def test_a_server_that_hangs_up(engine: Engine) -> None:
    engine.completion = (200, "")
    engine.hang_up = True
    with pytest.raises(ApiError, match=r"^POST /v1/completions of \S+: .*\(RemoteDisconnected\)$"):
        OpenAiClient(engine.url).complete("tiny", "Say hello.", 8)


@pytest.mark.parametrize("key", ["s3cret\n", "s\u00e9cret"])
def test_a_key_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with pytest.raises(ApiError, match=r"^the API key holds characters that a header cannot"):
        OpenAiClient("http://gpu1", key)


def test_metrics_without_the_cache_config() -> None:
    assert parse_cache_config("# nothing here\n") == {}
