"""A client of NGINX, from outside of its host."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back, and when: `arrivals` has the time of each piece of the body in seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    arrivals: list[float]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FrontDoor:
    """NGINX on one host. Every request uses a new connection."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.address = host.check_output("hostname --all-ip-addresses").split()[0]

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None, **body: Any) -> Answer:
        return self.request("POST", path, json.dumps(body).encode(), headers)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=60)
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
