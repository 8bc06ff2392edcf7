"""An engine for tests of keepers: an HTTP server on a port, which answers, streams and hangs on request.

Usage: ``engine.py PORT DIRECTORY``. It leaves its process in DIRECTORY. While a file ``hang`` is there, no request
for a token is answered. On SIGTERM it ends when no stream is open. With port 0 it serves nothing, like a worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, PLACE = int(sys.argv[1]), Path(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    """What a keeper asks, and one stream."""

    tokens = running = 0

    def answer(self, body: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        self.answer(
            f'vllm:generation_tokens_total{{a="b"}} {Handler.tokens}.0\nvllm:num_requests_running {Handler.running}\n'
        )

    def do_POST(self) -> None:
        Handler.running += 1
        try:
            self.work()
        finally:
            Handler.running -= 1

    def work(self) -> None:
        while (PLACE / "hang").exists():
            time.sleep(0.05)
        Handler.tokens += 1
        if self.path == "/stream":
            self.send_response(200)
            self.end_headers()
            for _ in range(10):
                self.wfile.write(b"token ")
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.answer("{}")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # the streams end first
    block_on_close = True
    allow_reuse_address = True


if __name__ == "__main__":
    child = subprocess.Popen(["sleep", "1000"])
    if PORT:
        server = Server(("127.0.0.1", PORT), Handler)
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    (PLACE / "started").write_text(f"{os.getpid()} {child.pid}")
    if PORT:
        server.serve_forever()
        server.server_close()
        child.kill()
    else:
        signal.pause()
