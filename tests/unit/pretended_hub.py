"""A small model on disk, in the hub's cache, and on a hub that listens on loopback."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}
LAYER = {f"model.layers.{layer}.mlp.down_proj.weight": ("BF16", [4, 8]) for layer in range(2)}
SHARDS = {
    "model-00001-of-00002.safetensors": {"model.embed_tokens.weight": ("BF16", [16, 4])},
    "model-00002-of-00002.safetensors": {**LAYER, "model.norm.weight": ("F32", [4])},
}


def safetensors(tensors: Mapping[str, tuple[str, list[int]]]) -> bytes:
    """A file as the safetensors library writes it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = {"BF16": 2, "F32": 4, "F8_E4M3": 1}[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(end)


def write_model(root: Path, *, config: str | None = None, total: int | None = 272) -> Path:
    """A model in two shards."""
    root.mkdir(parents=True)
    (root / "config.json").write_text(config or json.dumps(CONFIG))
    for name, tensors in SHARDS.items():
        (root / name).write_bytes(safetensors(tensors))
    index = {
        "metadata": {} if total is None else {"total_size": total},
        "weight_map": {tensor: name for name, tensors in SHARDS.items() for tensor in tensors},
    }
    (root / "model.safetensors.index.json").write_text(json.dumps(index))
    return root


def write_cache(home: Path, config: str | None = None) -> Path:
    """The same model in the hub's cache; returns the snapshot."""
    root = home / "hub" / "models--acme--tiny"
    (root / "refs" / "pr").mkdir(parents=True)
    for ref in ("main", "pr/1"):
        (root / "refs" / ref).write_text(COMMIT)
    return write_model(root / "snapshots" / COMMIT, config=config)


class HubHandler(SimpleHTTPRequestHandler):
    """As much of the hub as reading facts needs: what there is, whole files, and ranges of them."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        server: Any = self.server
        server.requests.append((self.path, self.headers.get("range"), self.headers.get("authorization")))
        root = Path(self.directory)
        if self.path.startswith("/api/models/acme/tiny"):
            files = [{"rfilename": path.name, "size": path.stat().st_size} for path in root.iterdir()]
            self.reply(200, json.dumps({"id": "acme/tiny", "sha": COMMIT, "siblings": files}).encode())
            return
        prefix, _, name = self.path.rpartition("/")
        if prefix != f"/acme/tiny/resolve/{COMMIT}" or not (root / name).is_file():
            self.reply(404, b"{}")
            return
        content = (root / name).read_bytes()
        if wanted := self.headers.get("range"):
            begin, end = map(int, wanted.removeprefix("bytes=").split("-"))
            self.reply(206, content[begin : end + 1])
        else:
            self.reply(200, content)

    def reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def served(root: Path) -> Iterator[tuple[str, list[tuple[str, str | None, str | None]]]]:
    """A hub with one model: its URL, and what it was asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(HubHandler, directory=str(root))) as server:
        requests: list[tuple[str, str | None, str | None]] = []
        vars(server)["requests"] = requests
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
