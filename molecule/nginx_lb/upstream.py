"""A stand-in for vLLM, for this scenario only: answers every request, as the request says.

Usage: upstream.py PORT. A POST is a JSON object: `chunks` tokens come `interval` seconds apart, as server-sent events
if `stream` is true, else all at the end. The server whose port is `busy` answers 503, as vLLM with a full queue does.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, {"path": self.path})

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(length))
        if request.get("busy") == self._port:
            self._answer(503, {})
            return
        chunks, interval = request.get("chunks", 1), request.get("interval", 0)
        if request.get("stream"):
            self._stream(chunks, interval)
            return
        time.sleep(chunks * interval)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._answer(200, {"path": self.path, "model": request["model"], "length": length, "headers": headers})

    def _stream(self, chunks: int, interval: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in [*range(chunks), "[DONE]"]:
            data = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(interval)
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps({"server": self._port, **body}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    @property
    def _port(self) -> int:
        return int(sys.argv[1])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
