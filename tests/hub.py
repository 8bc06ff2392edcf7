"""A hub for models, with faults: ``python3 hub.py DIRECTORY ADDRESS PORT``, or in a test by ``served``.

It speaks as much of the hub's HTTP API as a download takes, and has every model that is a directory OWNER/NAME below
DIRECTORY, at one commit. What goes wrong stands in DIRECTORY/faults.json and may change at any time: ``asks_for`` (a
token), ``cut`` (bytes after which an answer ends), ``rotten`` (files that come with another last byte), ``busy`` (503
to the next so many requests), ``rate`` (bytes a second). Every answer is a line of DIRECTORY/log: what was asked for,
the status, and the bytes that were sent. Needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)
LARGE = 4096  # from here on a file is stored by its SHA-256
_LOCK = threading.Lock()


class Hub(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, *arguments: Any) -> None:
        self.root = root
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):  # whoever asked is gone
            self.answer()

    def answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        token = self.faults.get("asks_for")
        if self.is_busy():
            self.say(503, {})
        elif path.startswith("/cdn/"):
            self.send(self.root / path.removeprefix("/cdn/"))
        elif token and self.headers.get("Authorization") != f"Bearer {token}":
            self.say(401, {"X-Error-Code": "GatedRepo"})
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/revision/(.+)", path):
            self.tell(self.root / found[1], found[2])
        elif found := re.fullmatch(rf"/([\w.-]+/[\w.-]+)/resolve/{COMMIT}/(.+)", path):
            self.redirect(self.root / found[1] / found[2])
        else:
            self.say(404, {"X-Error-Code": "RepoNotFound"})

    @property
    def faults(self) -> dict[str, Any]:
        path = self.root / "faults.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def is_busy(self) -> bool:
        with _LOCK:
            faults = self.faults
            left = faults.get("busy", 0)
            if left:
                (self.root / "faults.json").write_text(json.dumps({**faults, "busy": left - 1}))
        return bool(left)

    def tell(self, model: Path, revision: str) -> None:
        if not model.is_dir():
            self.say(404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in REVISIONS:
            self.say(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            files = sorted(path for path in model.rglob("*") if path.is_file())
            body = {"id": f"{model.parent.name}/{model.name}", "sha": COMMIT}
            self.say(200, {}, json.dumps({**body, "siblings": [self.entry(model, path) for path in files]}).encode())

    def entry(self, model: Path, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry = {"rfilename": path.relative_to(model).as_posix(), "size": len(content), "blobId": blob}
        lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return {**entry, "lfs": lfs} if len(content) >= LARGE else entry

    def redirect(self, path: Path) -> None:
        """Large files are another server's: here the same one by another name, that must not see the token."""
        if path.is_file() and path.stat().st_size >= LARGE:
            host = self.headers["Host"].replace("127.0.0.1", "localhost")
            self.say(302, {"Location": f"http://{host}/cdn/{path.relative_to(self.root)}"})
        else:
            self.send(path)

    def send(self, path: Path) -> None:
        if not path.is_file():
            self.say(404, {"X-Error-Code": "EntryNotFound"})
            return
        content, faults = path.read_bytes(), self.faults
        if path.name in faults.get("rotten", ()):
            content = content[:-1] + bytes([content[-1] ^ 1])
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.say(206 if begin else 200, {}, content[begin:], cut=faults.get("cut"), rate=faults.get("rate"))

    def say(
        self, status: int, headers: dict[str, str], body: bytes = b"", cut: int | None = None, rate: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        try:
            for start in range(0, len(body[:cut]), size := max(1, (rate or 1 << 22) // 20)):
                piece = body[:cut][start : start + size]
                self.wfile.write(piece)
                sent += len(piece)
                time.sleep(0.05 if rate else 0)
        finally:
            with _LOCK, (self.root / "log").open("a") as log:
                seen = "token" if "Authorization" in self.headers else "-"
                log.write(f"{urllib.parse.urlsplit(self.path).path} {status} {sent} {seen}\n")
        self.close_connection = sent < len(body)


@contextlib.contextmanager
def served(root: Path, address: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A hub that has the models of a directory: its URL."""
    with ThreadingHTTPServer((address, port), partial(Hub, root)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://{address}:{server.server_address[1]}"
        server.shutdown()


def answers(root: Path) -> list[tuple[str, int, int, str]]:
    """What it was asked for: path, status, bytes, and whether the token came along."""
    lines = [line.split() for line in (root / "log").read_text().splitlines()] if (root / "log").exists() else []
    return [(path, int(status), int(sent), seen) for path, status, sent, seen in lines]


if __name__ == "__main__":
    with served(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])):
        threading.Event().wait()
