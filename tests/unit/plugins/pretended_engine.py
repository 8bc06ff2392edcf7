"""A server that speaks as much of vLLM's protocol as the plugins hear, its failures included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Engine(ThreadingHTTPServer):
    """Answers as its attributes say; tests change them."""

    key = ""
    health = 200
    model = "tiny"
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
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def events(self) -> Iterator[str]:
        if self.chat_events is not None:
            yield from self.chat_events
            return
        for piece in ("", *self.chat):  # the first event only has the role
            yield json.dumps({"choices": [{"delta": {"role": "assistant", "content": piece}, "finish_reason": None}]})
        yield json.dumps({"choices": [{"delta": {}, "finish_reason": "length"}]})
        yield "[DONE]"


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def unauthorized(self) -> bool:
        wanted = f"Bearer {self.server.key}"
        return bool(self.server.key) and self.path.startswith("/v1") and self.headers["Authorization"] != wanted

    def do_GET(self) -> None:
        engine = self.server
        if self.unauthorized():
            self.answer(401, '{"error":"Unauthorized"}')
        elif self.path == "/health":
            self.answer(engine.health, "")
        elif self.path == "/metrics":
            self.answer(200, engine.metrics)
        else:
            listed = json.dumps({"data": [{"id": engine.model, "max_model_len": 512}]})
            self.answer(200, engine.models or listed)

    def do_POST(self) -> None:
        engine = self.server
        engine.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.unauthorized():
            self.answer(401, '{"error":"Unauthorized"}')
        elif engine.hang_up:
            self.close_connection = True
        elif self.path == "/v1/completions":
            self.answer(*engine.completion)
        elif engine.chat_status != 200:
            self.answer(engine.chat_status, '{"error": {"message": "no such model"}}')
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in engine.events():
                self.wfile.write(f": keep-alive\n\ndata: {event}\n\n".encode())

    def log_message(self, *_arguments: Any) -> None:
        """Tests read what the module prints."""
