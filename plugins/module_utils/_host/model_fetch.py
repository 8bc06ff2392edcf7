"""Fetches the files of models, and hands those it has to other hosts; private to the collection.

A program of its own, which the module ``model_fetch`` starts on a host as a transient unit: it imports nothing but the
standard library. What is to be done is in a JSON file, which is removed once it is read, since tokens are in it; how
far it is comes in another one::

    python3 -I model_fetch.py JOB

Files are known by the checksums that the hub has of them. One that is not complete is kept below its checksum, so that
another run goes on where this one ended, whatever the revision is called by then.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hmac import compare_digest
from http.client import HTTPException, HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, NamedTuple

COMPLETE = ".complete"  # lists the files of a model, in its directory
CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte
TOO_EARLY = 425  # this host has the file later
GONE = 410  # this host could not have it
AT_ONCE = 32  # answers of a host


class FetchError(Exception):
    """Nothing more can be done; the message is for the operator."""


class NotYetError(Exception):
    """A host that is asked will have the file later."""


class NeverError(Exception):
    """A host that is asked could not have the file."""


class Item(NamedTuple):
    """A file of a model."""

    path: str
    size: int
    digest: str  # SHA-256, or the SHA-1 that git has for it where the hub knows no other


def hasher(item: Item) -> Any:
    """What the checksum of a file is computed with."""
    if len(item.digest) == 64:
        return hashlib.sha256()
    found = hashlib.sha1(usedforsecurity=False)
    found.update(b"blob %d\0" % item.size)
    return found


def is_intact(path: Path, item: Item) -> bool:
    """Whether a file has its checksum; reads all of it."""
    found = hasher(item)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
    return bool(found.hexdigest() == item.digest)


def items_of(manifest: Mapping[str, Any]) -> list[Item]:
    """The files of a model."""
    return [Item(file["path"], file["size"], file["digest"]) for file in manifest["files"]]


class _Redirect(urllib.request.HTTPRedirectHandler):
    """The hub sends to other servers for big files; its token is not for them."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            new.remove_header("Authorization")
        return new


def opener(*, direct: bool) -> urllib.request.OpenerDirector:
    """What asks servers, by HTTP and nothing else; another host of the fleet without the environment's proxy."""
    found = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if direct else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirect(),
    ):
        found.add_handler(handler)
    return found


class Source(NamedTuple):
    """Where files of a model are had."""

    url: str
    token: str
    is_hub: bool

    def request(self, item: Item, offset: int) -> urllib.request.Request:
        """What asks for the rest of a file."""
        name = urllib.parse.quote(item.path) if self.is_hub else item.digest
        headers = {"User-Agent": "gpuhosts-models", "Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= {"Range": f"bytes={offset}-"} if offset else {}
        return urllib.request.Request(f"{self.url}/{name}", headers=headers)

    @property
    def where(self) -> str:
        """The server and the model there."""
        return self.url.split("/resolve/")[0]

    def refuses(self, code: int, item: Item) -> str:
        """Why an answer is the last word, and what to do; "" where it is worth another try."""
        where = f"{self.where} answers {code} for {item.path}"
        if code in (401, 403) and self.is_hub:
            return f"{where}: set vllm_hf_token to a token that may read this model"
        if code in (401, 403):
            return f"{where}: another run has taken over there. Run again once it has ended"
        return f"{where}: it is not in that revision" if code == 404 and self.is_hub else ""


class Model:
    """A model that is fetched, or handed to others, or both."""

    def __init__(self, job: Mapping[str, Any], directory: Path) -> None:
        self.place: str = job["place"]
        self.manifest: Mapping[str, Any] = job["manifest"]
        self.items = items_of(self.manifest)
        self.contents = list({item.digest: item for item in self.items}.values())  # two files may say the same
        self.sources = [Source(**source) for source in job["sources"]]
        self.final = directory / self.place
        self.work = directory / f".{self.place}.partial"
        self._damaged: list[str] = job.get("damaged", [])

    @property
    def origins(self) -> str:
        """Who has it, for people."""
        return " or ".join(dict.fromkeys(source.where for source in self.sources))

    def blob(self, item: Item) -> Path:
        """Where a file lies until the model is complete."""
        return self.work / item.digest

    def part(self, item: Item) -> Path:
        """Where the first bytes of a file lie."""
        return self.work / f"{item.digest}.part"

    def prepare(self) -> None:
        """Make a place for it, and take over what is sound in a directory that is not."""
        self.work.mkdir(mode=0o755, exist_ok=True)
        for item in self._sound():
            old = self.final / item.path
            if old.is_file() and old.stat().st_size == item.size and not self.blob(item).exists():
                os.link(old, self.blob(item))

    def _sound(self) -> set[Item]:
        """What the directory has as it is wanted: it may be damaged, or of an earlier commit of its branch."""
        listed = self.final / COMPLETE
        there = items_of(json.loads(listed.read_text(encoding="utf-8"))) if listed.exists() else []
        return {item for item in there if item in self.items and item.path not in self._damaged}

    def there(self) -> int:
        """The bytes that are here."""
        paths = (path for item in self.contents for path in (self.blob(item), self.part(item)))
        return sum(path.stat().st_size for path in paths if path.exists())

    def open(self, digest: str) -> IO[bytes] | None:
        """A file that others may have; None: not yet."""
        item = next(item for item in self.items if item.digest == digest)
        with suppress(FileNotFoundError):
            return (self.final / item.path if item in self._sound() else self.blob(item)).open("rb")
        return None

    def finish(self) -> None:
        """Let the directory be there, in one rename."""
        tree = self.work / "tree"
        shutil.rmtree(tree, ignore_errors=True)  # of a run that was killed; mkdir says what stays
        tree.mkdir(mode=0o755)
        times = {}
        for item in self.items:
            path = tree / item.path
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.link(self.blob(item), path)
            path.chmod(0o644)
            times[item.path] = path.stat().st_mtime_ns
        files = [{**file, "mtime": times[file["path"]]} for file in self.manifest["files"]]
        (tree / COMPLETE).write_text(json.dumps({**self.manifest, "files": files}), encoding="utf-8")
        _flush(tree / COMPLETE)
        old = self.work / "old"
        if self.final.exists():
            self.final.rename(old)
        tree.rename(self.final)
        self._damaged = []
        _flush(self.final.parent)
        shutil.rmtree(self.work)


def _flush(path: Path) -> None:
    """Let the disk have what was written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Fetch:
    """All of it."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.directory = Path(job["directory"])
        self.models = [Model(entry, self.directory) for entry in job["models"]]
        self.state = "running"
        self.problem = ""
        self.patience: float = job["patience"]
        self._parallel: int = job["parallel"]
        self._status = Path(job["status"])
        self.openers = {is_hub: opener(direct=not is_hub) for is_hub in (True, False)}
        self._received: dict[str, int] = {}
        self._samples: list[tuple[float, int]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self) -> None:
        """Fetch everything that is not here, and tell how far that is once a second."""
        wanted = [model for model in self.models if model.sources]
        for model in wanted:
            model.prepare()
            self._received[model.place] = model.there()
        self.tell()
        with ThreadPoolExecutor(1) as runner:
            done = runner.submit(self._fetch, wanted)
            while not done.done():
                time.sleep(0.2)
                self.tell()
            try:
                done.result()
                self.state = "done"
            except FetchError as error:
                self.state, self.problem = "failed", str(error)
            except OSError as error:
                self.state, self.problem = "failed", f"{error.filename or self.directory}: {error.strerror or error}"
        self.tell()

    def _fetch(self, wanted: list[Model]) -> None:
        for model in wanted:
            with ThreadPoolExecutor(self._parallel) as pool:
                jobs = [pool.submit(Download(self, model, item).run) for item in model.contents]
                try:
                    for job in jobs:
                        job.result()
                except BaseException:
                    self._over.set()
                    for job in jobs:
                        job.cancel()
                    raise
            model.finish()

    def count(self, model: Model, size: int) -> None:
        """Take note of bytes that have come; raises FetchError when they are of no use any more."""
        if self._over.is_set():
            raise FetchError("another file is not to be had")
        with self._lock:
            self._received[model.place] += size

    def tell(self) -> None:
        """Write how far it is."""
        now = time.monotonic()
        with self._lock:
            received = dict(self._received)
        self._samples = [*self._samples, (now, sum(received.values()))][-25:]
        (then, before), (_, after) = self._samples[0], self._samples[-1]
        status = {
            "state": self.state,
            "problem": self.problem,
            "rate": int((after - before) / (now - then)) if now > then else 0,
            "models": [
                {"place": model.place, "done": received[model.place], "total": sum(i.size for i in model.contents)}
                for model in self.models
                if model.sources
            ],
        }
        new = self._status.with_suffix(".new")
        new.write_text(json.dumps(status), encoding="utf-8")
        new.replace(self._status)


class Download:
    """One file."""

    def __init__(self, fetch: Fetch, model: Model, item: Item) -> None:
        self.fetch, self.model, self.item = fetch, model, item
        self.sources = list(model.sources)
        self.part = model.part(item)
        self.offset = 0
        self.found = hasher(item)
        self._damaged = 0
        self._deadline = time.monotonic() + fetch.patience

    def run(self) -> None:
        """Have it; raises FetchError with the reason when nobody gives it."""
        if self.model.blob(self.item).exists():
            return
        self._take_up()
        while not (self.part.exists() and self.offset == self.item.size and self._is_sound()):
            before = self.offset
            try:
                with self.part.open("ab") as stream:
                    for chunk in self._receive(self.sources[0]):
                        stream.write(chunk)
                        self.found.update(chunk)
                        self.offset += len(chunk)
                        self.fetch.count(self.model, len(chunk))
            except NeverError as error:
                gone = self.sources.pop(0)
                if not self.sources:
                    raise FetchError(f"{gone.where} could not have {self.item.path}: see what it says") from error
            except NotYetError:
                self._deadline = time.monotonic() + self.fetch.patience
                time.sleep(0.3)
            except ConnectionError as error:
                self._try_again(error, has_come=self.offset > before)
        _flush(self.part)
        self.part.rename(self.model.blob(self.item))

    def _take_up(self) -> None:
        """Go on with what an earlier run has left."""
        if not self.part.exists() or self.part.stat().st_size > self.item.size:
            self.part.unlink(missing_ok=True)
            return
        with self.part.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                self.found.update(chunk)
                self.offset += len(chunk)

    def _is_sound(self) -> bool:
        """Whether it is what it should be; what is not goes, and comes from another one if there is one."""
        if self.found.hexdigest() == self.item.digest:
            return True
        self.part.unlink()
        self.fetch.count(self.model, -self.offset)
        if self._damaged > len(self.sources):
            raise FetchError(
                f"{self.item.path} of {self.model.place} comes with another checksum than {self.item.digest} from "
                f"{self.model.origins}. That has to be mended there, or on the way; nothing was installed"
            )
        self.offset, self.found, self._damaged = 0, hasher(self.item), self._damaged + 1
        self.sources.append(self.sources.pop(0))
        return False

    def _try_again(self, error: ConnectionError, *, has_come: bool) -> None:
        now = time.monotonic()
        if has_come:
            self._deadline = now + self.fetch.patience
        elif now > self._deadline:
            what = f"{self.item.path} of {self.model.place} is not to be had from {self.model.origins}"
            raise FetchError(f"{what}: {error}. What has come is kept for the next run") from error
        else:
            self.sources.append(self.sources.pop(0))
        time.sleep(min(1.0, self.fetch.patience / 10))

    def _receive(self, source: Source) -> Iterator[bytes]:
        """The rest of it; raises ConnectionError where another try is worth it, and what :meth:`_refusal` makes."""
        left = self.item.size - self.offset
        if not left:
            return
        try:
            request = source.request(self.item, self.offset)
            with self.fetch.openers[source.is_hub].open(request, timeout=TIMEOUT) as response:
                skip = self.offset if response.status == 200 else 0  # a server that knows no ranges
                while left and (chunk := response.read1(CHUNK)):
                    chunk, skip = chunk[skip : skip + left], max(0, skip - len(chunk))
                    left -= len(chunk)
                    yield chunk
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refusal(source, error) from error
        except (OSError, HTTPException) as error:
            raise ConnectionError(str(getattr(error, "reason", error))) from error
        if left:
            raise ConnectionError("the connection ended early")

    def _refusal(self, source: Source, error: urllib.error.HTTPError) -> Exception:
        """What an answer without a file means."""
        if error.code == TOO_EARLY:
            return NotYetError()
        if error.code == GONE and not source.is_hub:
            return NeverError()
        refusal = source.refuses(error.code, self.item)
        return FetchError(refusal) if refusal else ConnectionError(str(error))


class Server(ThreadingHTTPServer):
    """Hands the files that are here to whoever has the token."""

    daemon_threads = False  # who has asked gets the file, even when nobody else does any more
    request_queue_size = 128

    def __init__(self, job: Mapping[str, Any], fetch: Fetch) -> None:
        self.token: str = job["token"]
        self.fetch = fetch
        self.models = {model.place: model for model in fetch.models}
        self.at_once = threading.BoundedSemaphore(AT_ONCE)
        self.last = time.monotonic()  # somebody asked
        if ":" in job["address"]:
            self.address_family = socket.AF_INET6
        super().__init__((job["address"], job["port"]), Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers GET /PLACE/CHECKSUM, of a whole file or from an offset on."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT

    def log_message(self, *_: object) -> None:
        """Nothing is logged: how far the others are, they tell themselves."""

    def do_GET(self) -> None:
        """Answer; see BaseHTTPRequestHandler."""
        given, expected = self.headers.get("Authorization", ""), f"Bearer {self.server.token}"
        if not compare_digest(given.encode(), expected.encode()):
            self._refuse(403)
            return
        self.server.last = time.monotonic()  # strangers keep nobody here
        place, _, digest = urllib.parse.unquote(self.path).strip("/").partition("/")
        model = self.server.models.get(place)
        if model is None or all(item.digest != digest for item in model.items):
            self._refuse(404)
            return
        with self.server.at_once:
            stream = model.open(digest)
            if stream is None:
                self._refuse(GONE if self.server.fetch.state == "failed" else TOO_EARLY)
            else:
                self._send(stream)

    def _send(self, opened: IO[bytes]) -> None:
        with opened as stream:
            size = os.fstat(stream.fileno()).st_size
            begin = int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0] or 0)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(size - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.end_headers()
            with suppress(OSError):  # who asked is gone
                self.connection.sendfile(stream, begin)
            self.server.last = time.monotonic()

    def _refuse(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Read the job, do it, and serve until nobody asks any more."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    os.umask(0o022)
    os.environ.update(job["environment"])  # proxies and certificates
    fetch = Fetch(job)
    server = Server(job["serve"], fetch) if job["serve"] else None
    if server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    fetch.run()
    while server and time.monotonic() - server.last < job["linger"]:  # those who ask are told when it failed
        time.sleep(1)
    if fetch.problem:
        sys.exit(fetch.problem)


if __name__ == "__main__":
    main()
