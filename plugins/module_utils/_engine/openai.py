"""A client of one OpenAI-compatible server, from the standard library: managed hosts have nothing else."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .._errors import ApiError, RefusedError
from .._host.opener import trusting

__all__ = ["LABEL", "QUESTION", "Chat", "OpenAiClient", "parse_cache_config", "parse_requests"]

# Arguments of the modules that ask a model something; doc_fragments/question.py describes them.
QUESTION: dict[str, dict[str, Any]] = {
    "model": {"type": "str", "required": True},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "prompt": {"type": "str", "default": "Say hello."},
    "task": {"type": "str", "default": "generate", "choices": ["generate", "embed", "score", "classify", "transcribe"]},
}

_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(?P<labels>.*)\}", re.MULTILINE)
_REQUESTS = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_BROKEN_OFF = ("abort", "error")  # finish reasons: what was said until then is not an answer
_PIECES = ("content", "reasoning", "reasoning_content")  # where a piece of a streamed answer may stand
_BODY_SHOWN = 300  # characters of an unexpected answer that a message quotes


@dataclass(frozen=True)
class Chat:
    """One streamed completion."""

    text: str
    chunks: int  # pieces of text received
    first_seconds: float  # from sending the request to the first piece
    seconds: float  # ... to the end of the stream


def parse_cache_config(metrics: str) -> dict[str, str]:
    """Labels of ``vllm:cache_config_info``, where vLLM reports what it resolved; empty when there is no such metric."""
    found = _CACHE_CONFIG.search(metrics)
    return dict(LABEL.findall(found["labels"])) if found else {}


def parse_requests(metrics: str) -> int | None:
    """Requests that run or wait, of all the engines behind one API server; None when there is no such metric."""
    found = _REQUESTS.findall(metrics)
    return sum(int(float(value)) for value in found) if found else None


class OpenAiClient:
    """Talks to the server at ``url`` (``http://address[:port]``); the key is sent as a bearer token and never shown.

    At https, ``certificate`` is a file with the one that is believed, whatever its names.
    """

    def __init__(self, url: str, api_key: str = "", timeout: float = 30, certificate: str = "") -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ApiError(f"{url!r} is not a URL: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise ApiError(f"{url!r} is not an http:// or https:// URL")
        if not (api_key.isascii() and api_key.isprintable()):  # http.client would show it in its complaint
            raise ApiError("the API key holds characters that a header cannot, such as a line break at its end")
        self._make: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        if parts.scheme == "https":
            try:
                context = trusting(certificate or None)
            except OSError as error:
                raise ApiError(f"the certificate {certificate} cannot be read: {error}") from error
            self._make = partial(http.client.HTTPSConnection, context=context)
        self._host, self._port, self._base = host, port, parts.path.rstrip("/")
        self._name = host if port is None else f"{host}:{port}"  # for messages
        self._timeout = timeout
        self._headers: dict[str, str] = {}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def status(self, path: str) -> int:
        """HTTP status of a GET."""
        with self._ask("GET", path) as answer:
            return answer.status

    def text(self, path: str) -> str:
        """Body of a GET that is answered with 200."""
        return self._body("GET", path)

    def models(self) -> dict[str, dict[str, Any]]:
        """What ``/v1/models`` lists, by name."""
        answer = self._body("GET", "/v1/models")
        try:
            return {model["id"]: model for model in json.loads(answer)["data"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ApiError(f"/v1/models of {self._name} is no list of models: {_shown(answer)}") from error

    def post(self, path: str, content: bytes, content_type: str = "application/json") -> str:
        """Body of a POST that is answered with 200."""
        return self._body("POST", path, content, content_type)

    def complete(self, model: str, prompt: str, max_tokens: int) -> str:
        """The text of one completion, in one piece; unlike a chat, every model that generates can do it."""
        path = "/v1/completions"
        # Not ended by the model itself: its first token may be the one that says so.
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
        answer = self.post(path, json.dumps(body).encode())
        try:
            choice = json.loads(answer)["choices"][0]
            text, reason = choice["text"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ApiError(f"{path} of {self._name} gave no completion: {_shown(answer)}") from error
        if reason in _BROKEN_OFF:
            raise ApiError(f"{path} of {self._name} broke off with finish_reason {reason!r}")
        if not text:
            raise ApiError(f"{path} of {self._name} answered for model {model!r} without any text")
        return str(text)

    def chat(self, model: str, prompt: str, max_tokens: int) -> Chat:
        """Stream one chat completion to its end."""
        path = "/v1/chat/completions"
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        start = time.monotonic()
        pieces, first = [], 0.0
        with self._ask("POST", path, json.dumps(body).encode()) as answer:
            for event in self._events(self._checked(answer, path), path):
                # A model that reasons may use up its tokens before it comes to the answer.
                piece = next((event["delta"][key] for key in _PIECES if event.get("delta", {}).get(key)), "")
                if piece:
                    first = first or time.monotonic() - start
                    pieces.append(piece)
        if not pieces:
            raise ApiError(f"{path} of {self._name} answered for model {model!r} without any text")
        return Chat("".join(pieces), len(pieces), first, time.monotonic() - start)

    @contextmanager
    def _ask(
        self, method: str, path: str, content: bytes | None = None, content_type: str = "application/json"
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, to be read inside the ``with``."""
        connection = self._make(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, self._base + path, content, {**self._headers, "Content-Type": content_type})
            with connection.getresponse() as answer:
                yield answer
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{method} {path} of {self._name}: {error!s} ({type(error).__name__})") from error
        finally:
            connection.close()

    def _body(
        self, method: str, path: str, content: bytes | None = None, content_type: str = "application/json"
    ) -> str:
        with self._ask(method, path, content, content_type) as answer:
            return self._checked(answer, path).read().decode("utf-8", "replace")

    def _checked(self, answer: http.client.HTTPResponse, path: str) -> http.client.HTTPResponse:
        if answer.status == http.HTTPStatus.UNAUTHORIZED:
            given = "Authorization" in self._headers
            fault = "the API key is wrong" if given else "it wants an API key, and none was given"
            raise RefusedError(f"{path} of {self._name} answered HTTP 401: {fault}; set vllm_api_key")
        if answer.status != http.HTTPStatus.OK:
            body = answer.read(_BODY_SHOWN).decode("utf-8", "replace")
            raise ApiError(f"{path} of {self._name} answered HTTP {answer.status}: {_shown(body)}")
        return answer

    def _events(self, answer: http.client.HTTPResponse, path: str) -> Iterator[dict[str, Any]]:
        """The choices in a server-sent event stream, as they arrive, up to ``[DONE]``."""
        for line in answer:
            data = line[len(b"data:") :].strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            try:
                event = json.loads(data or b"{}")
                error, choices = event.get("error"), event.get("choices", [])
            except (AttributeError, ValueError) as wrong:
                raise ApiError(f"{path} of {self._name} streamed no event: {_shown(data.decode())}") from wrong
            if error:
                raise ApiError(f"{path} of {self._name} broke off: {_shown(json.dumps(error))}")
            for choice in choices:
                if choice.get("finish_reason") in _BROKEN_OFF:
                    raise ApiError(f"{path} of {self._name} broke off with finish_reason {choice['finish_reason']!r}")
                yield choice
        raise ApiError(f"{path} of {self._name} ended its stream without [DONE]")


def _shown(body: str) -> str:
    """An answer as a message quotes it: one line, not too long."""
    return " ".join(body.split())[:_BODY_SHOWN] or "(empty)"
