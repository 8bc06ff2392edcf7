"""The engine of the stand-in: answers as vLLM does, and fails as vLLM does when it is told to."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from . import kinds
from .cache import BLOCK, Cache
from .metrics import Metrics
from .nodes import Nodes
from .responses import PATH, Responses, accepted, frame

FAULTS = {
    "hang": "no answer to a request for tokens, ever",
    "crash": "the next request for tokens kills the process",
    "oom": "the next request for tokens meets CUDA's lack of memory, and the engine dies of it",
    "busy": "503 for every request for tokens, as with a full queue",
    "unhealthy": "/health is 503",
    "empty": "200 without text, as seen of an engine that shuts down",
    "error": "requests for tokens end with an error of the engine, which goes on, as when KV cannot be loaded",
    "flaky": "every second request for tokens ends like that",
}
DEAD_SECONDS = 4  # from an engine's death to the exit of its API server
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # what an API key is asked for
_WORDS = ("sase", "ralo", "badu", "laru", "sebe", "nisi", "kena", "sena", "deke", "nala", "beru", "deli")
_GET = ("/health", "/ping", "/version", "/load", "/metrics", "/v1/models")


class HttpError(Exception):
    """An answer that is none."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass
class Settings:
    """What the command line and the environment say."""

    models: list[str]
    root: str = "stand-in"
    keys: list[str] = field(default_factory=list)
    max_model_len: int = 2048
    max_num_seqs: int = 256
    max_queued: int | None = None
    shutdown_seconds: float = 0
    gpu_memory_utilization: float = 0.92
    kv_tokens: int = 65536
    token_seconds: float = 0.0
    version: str = "stand-in"
    task: str = "generate"
    adapters: dict[str, str] = field(default_factory=dict)  # paths by name
    takes_adapters: bool = False  # while it runs


class Engine(ThreadingHTTPServer):
    """One engine and its API server, listening from the moment that it is made."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, settings: Settings, address: tuple[str, int], nodes: Nodes | None = None) -> None:
        super().__init__(address, Handler)
        self.settings = settings
        self.nodes = nodes or Nodes()
        self.responses = Responses()
        self.fault = ""
        self.ordinal = itertools.count()
        self.dead = False
        self.draining = False
        self.aborted = threading.Event()  # what is in flight ends now
        self.ended = threading.Event()
        self._seats = threading.BoundedSemaphore(settings.max_num_seqs)
        self.cache = Cache(settings.kv_tokens)
        self.counts = Metrics(settings.models[0], self._cache_config(), self.cache)

    def _cache_config(self) -> dict[str, str]:
        tokens = self.settings.kv_tokens
        return {
            "block_size": str(BLOCK),
            "cache_dtype": "auto",
            "enable_prefix_caching": "True",
            "gpu_memory_utilization": str(self.settings.gpu_memory_utilization),
            "kv_cache_max_concurrency": str(tokens / self.settings.max_model_len),
            "kv_cache_size_tokens": str(tokens),
            "num_gpu_blocks": str(tokens // BLOCK),
        }

    @property
    def url(self) -> str:
        return f"http://{self.server_name}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes is none; anything else is a fault of the stand-in."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    # What tests of clients override.

    def health_status(self) -> int:
        return 503 if self.dead or self.fault == "unhealthy" else 200

    def models_text(self) -> str:
        cards = [self._card(name) for name in self.settings.models]
        base = self.settings.models[0]
        for name, path in self.settings.adapters.items():
            cards.append({**self._card(name), "root": path, "parent": base, "max_model_len": None})
        return json.dumps({"object": "list", "data": cards})

    def metrics_text(self) -> str:
        return self.counts.text()

    def tokens(self, count: int) -> Iterator[str]:
        """The answer, word by word."""
        for place in range(count):
            self.nodes.step(self.aborted)
            self.cache.tell()
            yield f" {_WORDS[place % len(_WORDS)]}"

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": self.settings.root,
            "parent": None,
            "max_model_len": self.settings.max_model_len,
        }

    # The life of a request.

    @contextlib.contextmanager
    def seat(self) -> Iterator[float]:
        """Wait for a place in the batch; gives the seconds that it took. Raises HttpError when too many wait."""
        limit = self.settings.max_queued
        if limit is not None and self.counts.waiting >= limit and self.counts.running >= self.settings.max_num_seqs:
            self.counts.rejected += 1
            raise HttpError(503, "The request queue is full", "ServiceUnavailableError")
        start = time.monotonic()
        self.counts.move(waiting=1)
        self._seats.acquire()
        self.counts.move(waiting=-1, running=1)
        try:
            yield time.monotonic() - start
        finally:
            self.counts.move(running=-1)
            self._seats.release()

    # Its end.

    def stop(self) -> None:
        """What SIGTERM does: drain for the seconds that the command line allows, then end."""
        threading.Thread(target=self._stop).start()

    def _stop(self) -> None:
        if self.settings.shutdown_seconds and not self.dead:
            # Port and /health stay as they are meanwhile, and new requests are answered with an error.
            self.draining = True
            log(f"[shutdown] EngineCore: draining in-flight requests count={self.counts.requests}")
            deadline = time.monotonic() + self.settings.shutdown_seconds
            while self.counts.requests and time.monotonic() < deadline:
                time.sleep(0.02)
        self.shutdown()
        self.socket.close()
        self.aborted.set()
        deadline = time.monotonic() + 1
        while self.counts.requests and time.monotonic() < deadline:  # their last event goes out
            time.sleep(0.02)
        log("Application shutdown complete.")
        self.ended.set()

    def die(self, reason: str) -> None:
        """The engine ends, and its API server some seconds after it, with exit status 0."""
        log(f"EngineCore encountered a fatal error.\n{reason}", level="ERROR")
        self.dead = True
        self.aborted.set()
        threading.Timer(DEAD_SECONDS, self._stop).start()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Engine
    protocol_version = "HTTP/1.1"

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer, and count it."""
        self.server.counts.answered(urlsplit(self.path).path, self.command, code)
        super().send_response(code, message)

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, answer: Any) -> None:
        path = urlsplit(self.path).path
        keys = self.server.settings.keys
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if keys and path.startswith(_GUARDED) and given not in keys:
            self.answer(401, {"error": "Unauthorized"})
            return
        try:
            answer(path)
        except HttpError as error:
            self.answer(error.status, error.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has gone

    def _get(self, path: str) -> None:
        if path in ("/health", "/ping"):
            self.raw(self.server.health_status(), "", "text/plain")
        elif path == "/version":
            self.answer(200, {"version": self.server.settings.version})
        elif path == "/load":
            self.answer(200, {"server_load": self.server.counts.requests})
        elif path == "/metrics":
            self.raw(200, self.server.metrics_text(), "text/plain; version=1.0.0; charset=utf-8")
        elif path == "/v1/models":
            self.raw(200, self.server.models_text(), "application/json")
        elif path.startswith(f"{PATH}/"):
            self.answer(*self.server.responses.find(path))
        elif path == "/v1/realtime" and self.headers.get("Upgrade") == "websocket":
            self._session()
        else:
            self._no_such(path)

    def _session(self) -> None:
        """A websocket that ends after its first event."""
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accepted(self.headers["Sec-WebSocket-Key"]))
        self.end_headers()
        self.wfile.write(frame({"type": "session.created", "port": self.server.server_port}))
        self.close_connection = True

    def _no_such(self, path: str) -> None:
        other = path in (*_GET, *self._work_paths)
        self.answer(405 if other else 404, {"detail": "Method Not Allowed" if other else "Not Found"})

    @property
    def _work_paths(self) -> tuple[str, ...]:
        return tuple(kinds.PATHS[self.server.settings.task])

    def _post(self, path: str) -> None:
        if path == "/stand_in/fault":
            self.server.fault = json.loads(self.body)["fault"]
            if self.server.fault and self.server.fault not in FAULTS:
                raise HttpError(400, f"there are {', '.join(FAULTS)}", "BadRequestError")
            self.answer(200, {})
        elif path in self._work_paths:
            self._work(path)
        elif path == PATH:
            code, made = self.server.responses.create(self._request())
            self.answer(code, made | {"stand_in": self._arrived()})
        elif path.startswith(f"{PATH}/"):
            self.answer(*self.server.responses.find(path))
        elif path in kinds.ADAPTERS and self.server.settings.takes_adapters:
            status, answer = kinds.change_adapters(path, json.loads(self.body), self.server.settings.adapters)
            self.raw(status, answer, "application/json" if status != 200 else "text/plain; charset=utf-8")
        elif path == "/ping":
            self.raw(self.server.health_status(), "", "text/plain")
        else:
            self._no_such(path)

    def _work(self, path: str) -> None:
        request = self._request()
        lacks = "" if path in kinds.GENERATE else kinds.missing(path, request)
        if lacks:
            raise HttpError(400, f"Field required: {lacks}", "BadRequestError", lacks)
        wishes = request.get("stand_in", {})
        self._meet_faults(wishes)
        if self.server.draining:
            raise HttpError(500, "cannot schedule new futures after shutdown", "InternalServerError")
        with self.server.seat() as queued:
            self.server.counts.observe("request_queue_time_seconds", queued)
            if self.server.fault == "hang":
                self.server.aborted.wait()
            if path not in kinds.GENERATE:
                self.answer(200, kinds.answer(path, request))
                return
            work = Generation.of(request, path, self.server.settings)
            if self.server.fault == "error" or (self.server.fault == "flaky" and next(self.server.ordinal) % 2):
                self.server.counts.request(work.prompt_tokens, work.max_tokens, [], 0, "error")
                raise HttpError(500, "Internal server error", "InternalServerError")
            self.server.cache.take(work.id, work.prompt_tokens, self.server.aborted)
            try:
                self._generate(work, wishes)
            finally:
                self.server.cache.leave(work.id)

    def _request(self) -> dict[str, Any]:
        kind = self.headers.get("Content-Type", "")
        try:
            form = kind.startswith("multipart/form-data")
            request = kinds.fields_of(self.body, kind) if form else json.loads(self.body)
        except ValueError as error:
            raise HttpError(400, f"JSON decode error: {error}", "BadRequestError") from error
        if not isinstance(request, dict):
            raise HttpError(400, "Input should be a valid dictionary", "BadRequestError")
        model = request.get("model") or self.server.settings.models[0]
        if not isinstance(model, str):
            raise HttpError(400, "1 validation error: body.model should be a string", "Bad Request", "body.model")
        if model not in (*self.server.settings.models, *self.server.settings.adapters):
            aliases = ", ".join(self.server.settings.models)
            message = f"The model `{model}` does not exist. Valid aliases: {aliases}."
            raise HttpError(404, message, "NotFoundError", "model")
        return request

    def _meet_faults(self, wishes: Mapping[str, Any]) -> None:
        fault = self.server.fault
        if fault == "busy" or self.server.server_port in wishes.get("busy", []):
            self.server.counts.rejected += 1
            raise HttpError(503, "The request queue is full", "ServiceUnavailableError")
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "oom":
            self.server.die(OOM)
        if self.server.dead:
            raise HttpError(500, "EngineCore encountered an issue.", "InternalServerError")

    def _generate(self, work: Generation, wishes: Mapping[str, Any]) -> None:
        pause = float(wishes.get("token_seconds", self.server.settings.token_seconds))
        start = time.monotonic()
        times: list[float] = []
        pieces: list[str] = []
        wanted = 0 if self.server.fault == "empty" else work.max_tokens
        reason = "length" if wanted else "abort"
        if work.stream:
            self.begin_stream()
            if work.chat:
                self.event(work.chunk("", None, role=True))
        own = work.model in self.server.settings.adapters  # an adapter answers otherwise than its model
        for piece in map(str.upper, self.server.tokens(wanted)) if own else self.server.tokens(wanted):
            if self.server.aborted.wait(pause):
                reason = "abort"
                break
            self.server.cache.grow(work.id, work.prompt_tokens + len(pieces) + 1, self.server.aborted)
            times.append(time.monotonic() - start)
            pieces.append(piece)
            if work.stream and len(pieces) < wanted:  # the last one comes with the reason
                self.event(work.chunk(piece, None))
        self.server.counts.request(work.prompt_tokens, work.max_tokens, times, time.monotonic() - start, reason)
        if work.stream:
            self.event(work.chunk(pieces[-1] if len(pieces) == wanted > 0 else "", reason))
            if work.usage:
                self.event(work.envelope() | {"choices": [], "usage": work.used(len(pieces))})
            self.event("[DONE]")
            self.end_stream()
        else:
            told = {"stand_in": self._arrived()} if wishes else {}
            self.answer(200, work.whole("".join(pieces), reason, len(pieces)) | told)

    def _arrived(self) -> dict[str, Any]:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return {"port": self.server.server_port, "path": self.path, "length": len(self.body), "headers": headers}

    # Writing.

    def answer(self, status: int, body: Mapping[str, Any]) -> None:
        self.raw(status, json.dumps(body), "application/json")

    def raw(self, status: int, body: str, kind: str) -> None:
        data = body.encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, body: Mapping[str, Any] | str) -> None:
        text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, text: str, *arguments: Any) -> None:
        """Uvicorn's access log."""
        status = arguments[1] if len(arguments) > 1 else text
        log(f'{self.address_string()}:{self.client_address[1]} - "{self.requestline}" {status}')


@dataclass
class Generation:
    """A request for tokens, and the forms in which it is answered."""

    model: str
    chat: bool
    max_tokens: int
    stream: bool
    usage: bool
    prompt_tokens: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(cls, request: Mapping[str, Any], path: str, settings: Settings) -> Generation:
        """Raises HttpError for what vLLM refuses."""
        chat = path.endswith("/chat/completions")
        name = "messages" if chat else "prompt"
        if name not in request:
            raise HttpError(400, f"Field required: {name}", "BadRequestError", name)
        prompt = sum(len(str(part).split()) or 1 for part in (request[name] if chat else [request[name]]))
        room = settings.max_model_len - prompt
        asked = request.get("max_completion_tokens") or request.get("max_tokens")
        wanted = (room if chat else 16) if asked is None else asked
        if wanted < 1 or wanted > room:
            message = f"max_tokens={wanted} cannot be greater than max_model_len={settings.max_model_len}."
            raise HttpError(400, message, "BadRequestError", "max_tokens")
        usage = bool((request.get("stream_options") or {}).get("include_usage"))
        stream = bool(request.get("stream"))
        return cls(request.get("model") or settings.models[0], chat, wanted, stream, usage, prompt)

    def used(self, generated: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
        }

    def envelope(self) -> dict[str, Any]:
        kind = ("chat.completion" if self.chat else "text_completion") + (".chunk" if self.chat and self.stream else "")
        identity = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        return {"id": identity, "object": kind, "created": int(time.time()), "model": self.model}

    def chunk(self, text: str, reason: str | None, *, role: bool = False) -> dict[str, Any]:
        """One event of a stream."""
        delta: dict[str, Any] = {"role": "assistant", "content": ""} if role else {"content": text}
        said = {"delta": delta} if self.chat else {"text": text}
        return self.envelope() | {"choices": [{"index": 0, **said, "logprobs": None, "finish_reason": reason}]}

    def whole(self, text: str, reason: str, generated: int) -> dict[str, Any]:
        """The answer in one piece."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        return self.envelope() | {"choices": [choice], "usage": self.used(generated)}


def log(text: str, level: str = "INFO") -> None:
    """A line of the engine's log, with the process that says it before each line as vLLM has it."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    for line in text.splitlines():
        print(f"(APIServer pid={os.getpid()}) {level} {stamp} [stand_in.py:1] {line}", file=sys.stderr, flush=True)
