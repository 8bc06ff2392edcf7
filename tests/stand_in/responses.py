"""What an engine keeps that is told to (VLLM_ENABLE_RESPONSES_API_STORE), and the session of a websocket."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

PATH = "/v1/responses"


class Responses:
    """The responses of one engine, by their IDs. No other engine knows them."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}

    def create(self, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body for a request for a response, which may go on from an earlier one."""
        earlier = request.get("previous_response_id")
        if earlier is not None and earlier not in self._kept:
            return self._unknown(earlier)
        made: dict[str, Any] = {"id": f"resp_{uuid.uuid4().hex}", "object": "response", "status": "completed"}
        made |= {"model": request["model"], "previous_response_id": earlier}
        self._kept[made["id"]] = made
        return 200, made

    def find(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body for a path with the ID of a response."""
        name = path.removeprefix(PATH).split("/")[1]
        return (200, self._kept[name]) if name in self._kept else self._unknown(name)

    def _unknown(self, name: str) -> tuple[int, dict[str, Any]]:
        message = f"Response with id '{name}' not found."
        return 404, {
            "error": {"message": message, "type": "invalid_request_error", "param": "response_id", "code": 404}
        }


def accepted(key: str) -> str:
    """What a server answers to the key of a client that wants a websocket (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def frame(event: Mapping[str, Any]) -> bytes:
    """A short event as the text frame of a server."""
    text = json.dumps(event).encode()
    return bytes([0x81, len(text)]) + text
