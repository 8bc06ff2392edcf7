"""What the stand-in and vLLM have in common: the same assertions run against both.

Against the stand-in in tests/unit/test_stand_in.py, against the real engine in tests/lab/test_2_engine.py. Every check
takes a client of an engine that serves a model which generates text, with an API key and 512 tokens of context.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .metrics import COUNTERS, HISTOGRAMS


@dataclass(frozen=True)
class Answer:
    """Status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Speaks HTTP with one engine."""

    address: str
    port: int
    key: str
    model: str

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        """One request on a connection of its own; ``key``: another one than the right one."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=60)
        headers = {"Authorization": f"Bearer {self.key if key is None else key}", "Content-Type": "application/json"}
        try:
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def complete(self, **wishes: Any) -> Answer:
        """A completion of four tokens, unless said otherwise."""
        usual = {"model": self.model, "prompt": "Say hello.", "max_tokens": 4, "ignore_eos": True}
        return self.ask("POST", "/v1/completions", usual | wishes)

    def chat(self, **wishes: Any) -> Answer:
        """The same as a chat."""
        messages = [{"role": "user", "content": "Say hello."}]
        usual = {"model": self.model, "messages": messages, "max_tokens": 4, "ignore_eos": True}
        return self.ask("POST", "/v1/chat/completions", usual | wishes)


def events(answer: Answer) -> list[Any]:
    """The events of a stream, the last one as the text that it is."""
    found = [line[len(b"data: ") :] for line in answer.body.splitlines() if line.startswith(b"data: ")]
    assert found[-1] == b"[DONE]"
    return [json.loads(event) for event in found[:-1]]


def health_is_a_status_without_a_body(client: Client) -> None:
    answer = client.ask("GET", "/health", key="")
    assert (answer.status, answer.body) == (200, b"")


def version_and_metrics_ask_for_no_key(client: Client) -> None:
    assert re.match(r"0\.3\d\.", client.ask("GET", "/version", key="").json["version"])
    assert client.ask("GET", "/metrics", key="").status == 200


def the_api_asks_for_the_key(client: Client) -> None:
    for key in ("", "wrong"):
        answer = client.ask("GET", "/v1/models", key=key)
        assert (answer.status, answer.json) == (401, {"error": "Unauthorized"})


def models_lists_the_served_name(client: Client) -> None:
    (model,) = client.ask("GET", "/v1/models").json["data"]
    assert (model["id"], model["object"], model["owned_by"], model["max_model_len"]) == (
        client.model,
        "model",
        "vllm",
        512,
    )


def unknown_paths_and_methods_are_told(client: Client) -> None:
    method = client.ask("GET", "/v1/completions")
    # Embeddings are for models that give some.
    for unknown in (client.ask("GET", "/v1/nonsense"), client.ask("POST", "/v1/embeddings", {"input": "x"})):
        assert (unknown.status, unknown.json) == (404, {"detail": "Not Found"})
    assert (method.status, method.json) == (405, {"detail": "Method Not Allowed"})


def a_completion_says_how_long_it_is(client: Client) -> None:
    answer = client.complete().json
    (choice,) = answer["choices"]
    assert (answer["object"], answer["model"], answer["id"][:5]) == ("text_completion", client.model, "cmpl-")
    assert (choice["index"], choice["finish_reason"], bool(choice["text"])) == (0, "length", True)
    used = answer["usage"]
    assert used["completion_tokens"] == 4
    assert used["total_tokens"] == used["prompt_tokens"] + 4


def a_chat_is_answered_by_the_assistant(client: Client) -> None:
    answer = client.chat().json
    (choice,) = answer["choices"]
    assert (answer["object"], answer["id"][:9]) == ("chat.completion", "chatcmpl-")
    assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "length")
    assert choice["message"]["content"]


def streams_end_with_a_reason_and_done(client: Client) -> None:
    answer = client.chat(stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    first, *_, last = events(answer)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == "length"

    texts = events(client.complete(stream=True))
    assert [event["choices"][0]["finish_reason"] for event in texts] == [None, None, None, "length"]
    assert all(event["choices"][0]["text"] for event in texts)


def usage_comes_last_where_it_is_asked_for(client: Client) -> None:
    *_, last = events(client.chat(stream=True, stream_options={"include_usage": True}))
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 4)


def what_cannot_be_answered_is_an_error_object(client: Client) -> None:
    unknown = client.complete(model="nonsense")
    assert (unknown.status, unknown.json["error"]["type"]) == (404, "NotFoundError")
    assert unknown.json["error"]["message"].startswith("The model `nonsense` does not exist.")
    malformed = client.ask("POST", "/v1/completions", b"{")
    without_prompt = client.ask("POST", "/v1/completions", {"model": client.model})
    for answer in (malformed, without_prompt, client.complete(max_tokens=10_000), client.complete(model=1)):
        assert answer.status == 400
        assert answer.json["error"]["code"] == 400
        assert answer.json["error"]["message"]


def fields_that_it_does_not_know_are_passed_over(client: Client) -> None:
    assert client.complete(stand_in={"token_seconds": 0}).status == 200


def metrics_have_the_names_that_dashboards_ask_for(client: Client) -> None:
    answer = client.ask("GET", "/metrics", key="")
    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    text = answer.body.decode()
    kinds = dict(re.findall(r"^# TYPE (vllm:\S+) (\w+)$", text, re.MULTILINE))
    for name in HISTOGRAMS:
        assert kinds[f"vllm:{name}"] == "histogram"
        assert f"vllm:{name}_bucket" in text
    for name in COUNTERS:
        assert re.search(rf"^vllm:{name}_total\{{", text, re.MULTILINE), name
    assert re.search(
        rf'^vllm:admission_rejections_total\{{model_name="{client.model}",reason="max_num', text, re.MULTILINE
    )
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert re.search(rf'^vllm:{name}\{{engine="0",model_name="{client.model}"\}} ', text, re.MULTILINE), name


def metrics_count(client: Client) -> None:
    def counted() -> tuple[float, float, float, float]:
        text = client.ask("GET", "/metrics", key="").body.decode()
        return tuple(  # type: ignore[return-value]
            sum(map(float, re.findall(rf"^{name}\{{.*{also}.*\}} (\S+)$", text, re.MULTILINE)))
            for name, also in (
                ("vllm:generation_tokens_total", ""),
                ("vllm:request_success_total", 'finished_reason="length"'),
                ("vllm:e2e_request_latency_seconds_count", ""),
                ("http_requests_total", 'handler="/v1/completions",method="POST",status="2xx"'),
            )
        )

    tokens, ended, samples, answers = counted()
    client.complete()
    expected, deadline = (tokens + 4, ended + 1, samples + 1, answers + 1), time.monotonic() + 10
    while counted() != expected:  # vLLM counts when it has answered
        assert time.monotonic() < deadline, (counted(), expected)
        time.sleep(0.1)


def cache_config_tells_what_was_resolved(client: Client) -> None:
    text = client.ask("GET", "/metrics", key="").body.decode()
    labels = dict(re.findall(r'(\w+)="([^"]*)"', re.findall(r"^vllm:cache_config_info\{(.*)\}", text, re.MULTILINE)[0]))
    assert int(labels["kv_cache_size_tokens"]) >= int(labels["num_gpu_blocks"]) > 0
    assert float(labels["kv_cache_max_concurrency"]) > 0
    assert float(labels["gpu_memory_utilization"]) > 0
    assert int(labels["block_size"]) > 0


CHECKS: list[Callable[[Client], None]] = [
    health_is_a_status_without_a_body,
    version_and_metrics_ask_for_no_key,
    the_api_asks_for_the_key,
    models_lists_the_served_name,
    unknown_paths_and_methods_are_told,
    a_completion_says_how_long_it_is,
    a_chat_is_answered_by_the_assistant,
    streams_end_with_a_reason_and_done,
    usage_comes_last_where_it_is_asked_for,
    what_cannot_be_answered_is_an_error_object,
    fields_that_it_does_not_know_are_passed_over,
    metrics_have_the_names_that_dashboards_ask_for,
    metrics_count,
    cache_config_tells_what_was_resolved,
]
