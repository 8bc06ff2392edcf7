"""A client of NGINX, from outside of its host, for completions of the stand-in for vLLM behind it."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


class Answer(NamedTuple):
    """What came back, and when: `arrivals` has the time of each piece of the body in seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    arrivals: list[float]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def arrived(self) -> Any:
        """What the server says of itself and of the request that it got."""
        return self.json["stand_in"]

    @property
    def tokens(self) -> int:
        """Tokens of a stream that has come to its end."""
        events = [line[len(b"data: ") :] for line in self.body.splitlines() if line.startswith(b"data: ")]
        assert events.pop() == b"[DONE]"
        return sum(bool(json.loads(event)["choices"][0]["text"]) for event in events)


class FrontDoor:
    """NGINX on one host. Every request uses a new connection."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.address = host.check_output("hostname --all-ip-addresses").split()[0]
        self.port = 80
        self.tls: ssl.SSLContext | None = None

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(
        self,
        path: str = "/v1/completions",
        headers: dict[str, str] | None = None,
        *,
        tokens: int = 1,
        interval: float = 0,  # seconds before each token
        busy: int = 0,  # the server on this port has no room for the request
        **wishes: Any,
    ) -> Answer:
        told = {"token_seconds": interval, "busy": [busy]}
        body = {"prompt": "Hi", "max_tokens": tokens, "stand_in": told, **wishes}
        return self.request("POST", path, json.dumps(body).encode(), headers)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=60)
        if self.tls:
            connection = http.client.HTTPSConnection(self.address, self.port, timeout=60, context=self.tls)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            pieces, arrivals = [], []
            while piece := response.read1():
                pieces.append(piece)
                arrivals.append(time.monotonic())
        finally:
            connection.close()
        names_and_values = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names_and_values, b"".join(pieces), arrivals)


def until(condition: Callable[..., Any], seconds: float, *given: Any) -> None:
    """Wait until a condition holds of what is given."""
    deadline = time.monotonic() + seconds
    while not condition(*given):
        assert time.monotonic() < deadline
        time.sleep(0.1)
