"""A client of one OpenAI-compatible server, from the standard library: managed hosts have nothing else."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ._errors import ApiError, RefusedError

__all__ = ["Chat", "OpenAiClient", "parse_cache_config"]

_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(?P<labels>.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
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
    return dict(_LABEL.findall(found["labels"])) if found else {}


class OpenAiClient:
    """Talks to the server at ``url`` (``http://address[:port]``); the key is sent as a bearer token and never shown."""

    def __init__(self, url: str, api_key: str = "", timeout: float = 30) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(f"{url!r} is not an http:// or https:// URL")
        self._url = parts
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def status(self, path: str) -> int:
        """HTTP status of a GET."""
        connection, answer = self._send("GET", path)
        with closing(connection):
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
            raise ApiError(f"/v1/models of {self._url.netloc} is no list of models: {_shown(answer)}") from error

    def complete(self, model: str, prompt: str, max_tokens: int) -> str:
        """The text of one completion, in one piece; unlike a chat, every model that generates can do it."""
        path = "/v1/completions"
        # Not ended by the model itself: its first token may be the one that says so.
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
        answer = self._body("POST", path, body)
        try:
            choice = json.loads(answer)["choices"][0]
            text, reason = choice["text"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ApiError(f"{path} of {self._url.netloc} gave no completion: {_shown(answer)}") from error
        if reason in _BROKEN_OFF:
            raise ApiError(f"{path} broke off with finish_reason {reason!r}")
        if not text:
            raise ApiError(f"{path} answered for model {model!r} without any text")
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
        connection, answer = self._send("POST", path, body)
        with closing(connection):
            pieces, first = [], 0.0
            for event in _events(self._checked(answer, path)):
                if "error" in event:
                    raise ApiError(f"{path} broke off: {_shown(json.dumps(event['error']))}")
                for choice in event.get("choices", []):
                    if choice.get("finish_reason") in _BROKEN_OFF:
                        raise ApiError(f"{path} broke off with finish_reason {choice['finish_reason']!r}")
                    # A model that reasons may use up its tokens before it comes to the answer.
                    piece = next((choice["delta"][key] for key in _PIECES if choice.get("delta", {}).get(key)), "")
                    if piece:
                        first = first or time.monotonic() - start
                        pieces.append(piece)
        if not pieces:
            raise ApiError(f"{path} answered for model {model!r} without any text")
        return Chat("".join(pieces), len(pieces), first, time.monotonic() - start)

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        secure = self._url.scheme == "https"
        make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = make(self._url.hostname or "", self._url.port, timeout=self._timeout)
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, self._url.path.rstrip("/") + path, content, self._headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ApiError(f"{method} {path} of {self._url.netloc}: {error or type(error).__name__}") from error

    def _body(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        connection, answer = self._send(method, path, body)
        with closing(connection):
            try:
                return self._checked(answer, path).read().decode("utf-8", "replace")
            except (OSError, http.client.HTTPException) as error:
                raise ApiError(f"{method} {path} of {self._url.netloc} broke off: {error}") from error

    def _checked(self, answer: http.client.HTTPResponse, path: str) -> http.client.HTTPResponse:
        if answer.status == http.HTTPStatus.UNAUTHORIZED:
            fault = (
                "the API key is wrong" if "Authorization" in self._headers else "it wants an API key, none was given"
            )
            raise RefusedError(f"{path} of {self._url.netloc} answered HTTP 401: {fault}. Set vllm_api_key.")
        if answer.status != http.HTTPStatus.OK:
            body = answer.read(_BODY_SHOWN).decode("utf-8", "replace")
            raise ApiError(f"{path} of {self._url.netloc} answered HTTP {answer.status}: {_shown(body)}")
        return answer


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream, as they arrive, up to ``[DONE]``."""
    try:
        for line in answer:
            if not line.startswith(b"data:"):
                continue
            data = line[len(b"data:") :].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ApiError(f"the stream broke off: {error or type(error).__name__}") from error
    raise ApiError("the stream ended without [DONE]")


def _shown(body: str) -> str:
    """An answer as a message quotes it: one line, not too long."""
    return " ".join(body.split())[:_BODY_SHOWN] or "(empty)"
