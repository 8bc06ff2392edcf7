"""The stand-in for vLLM, for tests of what a client makes of answers that no engine should give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.stand_in.server import Engine as StandIn
from tests.stand_in.server import Generation, Handler, Settings


class Engine(StandIn):
    """Answers as its attributes say; tests change them."""

    health = 200
    models: str | None = None  # the whole list, in place of the model
    metrics = (
        'vllm:cache_config_info{block_size="16",engine="0",gpu_memory_utilization="0.92",kv_cache_max_concurrency="3.5",'
        'kv_cache_size_tokens="4096",num_gpu_blocks="256",sliding_window="None"} 1.0\n'
    )
    completion = (200, json.dumps({"choices": [{"text": " hello", "finish_reason": "length"}]}))
    hang_up = False  # on a request for a completion, without an answer
    chat_status = 200
    chat = ("Hel", "lo")  # pieces, each an event of its own
    chat_events: tuple[str, ...] | None = None  # the whole stream, in place of the pieces

    def __init__(self) -> None:
        super().__init__(Settings(models=["tiny"], max_model_len=512), ("127.0.0.1", 0))
        self.RequestHandlerClass = Scripted
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def key(self) -> str:
        return next(iter(self.settings.keys), "")

    @key.setter
    def key(self, key: str) -> None:
        self.settings.keys = [key]

    @property
    def model(self) -> str:
        return self.settings.models[0]

    @model.setter
    def model(self, model: str) -> None:
        self.settings.models = [model]

    def health_status(self) -> int:
        return self.health

    def models_text(self) -> str:
        return super().models_text() if self.models is None else self.models

    def metrics_text(self) -> str:
        return self.metrics

    def tokens(self, count: int) -> Iterator[str]:
        yield from self.chat[:count]


class Scripted(Handler):
    """Does what the script says first, else what the stand-in does."""

    server: Engine

    def _work(self, path: str) -> None:
        engine = self.server
        engine.requests.append(json.loads(self.body))
        if engine.hang_up:
            self.close_connection = True
        elif path == "/v1/completions":
            self.raw(*engine.completion, "application/json")
        elif path == "/v1/chat/completions" and engine.chat_status != 200:
            self.answer(engine.chat_status, {"error": {"message": "no such model"}})
        else:
            super()._work(path)

    def _generate(self, work: Generation, wishes: Any) -> None:
        if not work.stream or self.server.chat_events is None:
            super()._generate(work, wishes)
            return
        self.begin_stream()
        for event in self.server.chat_events:
            self.event(event)
        self.end_stream()

    def log_message(self, text: str, *arguments: Any) -> None:
        """Tests read what the module prints."""
