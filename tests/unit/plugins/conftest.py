"""What the tests of the plugins share: modules run through main(), a pretended NVML, and a server on loopback."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[3]
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> RunModule:
    """Run a module's main() with arguments; returns what it prints as JSON."""

    def run(module: ModuleType, **arguments: Any) -> dict[str, Any]:
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a libnvidia-ml.so.1 that answers from the file named in FAKE_NVML_CONFIG."""
    directory = tmp_path_factory.mktemp("nvml")
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    source = ROOT / "tests/fake_nvml/fake_nvml.c"
    subprocess.run(["gcc", *options, "-o", str(directory / "libnvidia-ml.so.1"), str(source)], check=True)
    return directory


class Engine(ThreadingHTTPServer):
    """Speaks as much of vLLM's protocol as the client hears; tests change the attributes."""

    key = ""
    health = 200
    model = "tiny"
    metrics = (
        'vllm:cache_config_info{block_size="16",engine="0",gpu_memory_utilization="0.92",kv_cache_max_concurrency="3.5",'
        'kv_cache_size_tokens="4096",num_gpu_blocks="256",sliding_window="None"} 1.0\n'
    )
    completion = (200, json.dumps({"choices": [{"text": " hello", "finish_reason": "length"}]}))
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
            self.answer(200, json.dumps({"data": [{"id": engine.model, "max_model_len": 512}]}))

    def do_POST(self) -> None:
        engine = self.server
        engine.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.unauthorized():
            self.answer(401, '{"error":"Unauthorized"}')
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


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A vLLM that answers; give its attributes other values to make it fail."""
    with Engine() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
