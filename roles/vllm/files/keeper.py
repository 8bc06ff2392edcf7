"""Keeps one node of a vLLM instance: the main process of the unit ``vllm@ID``, and the parent of its engine.

Usage: ``keeper.py FILE`` keeps the node that FILE describes, ``keeper.py --cleanup FILE`` removes what it has left.
What there is to do is decided in keeper_protocol.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from keeper_protocol import BEAT, GREETING, HEAD, LINE, Keeper, Memory, Node, metrics, parse

TICK = 0.25  # seconds between two looks at the clock
ASKED = 5.0  # seconds for a look at /health or the port
MOST = 1 << 23  # bytes of an answer that are read
CLEANED = 120.0  # seconds for what cleans up
MOVES = re.compile(  # only an engine that works moves these; the last one is for prompts that take long
    r"^vllm:(?:prompt_tokens_total|generation_tokens_total|kv_cache_usage_perc)(?:\{.*\})? \S+$", re.MULTILINE
)
# 0 from /sleep to /wake_up: whatever is asked then waits, which is no hang.
ASLEEP = re.compile(r'^vllm:engine_sleep_state\{.*sleep_state="awake".*\} 0(?:\.0)?$', re.MULTILINE)
REQUESTS = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (\S+)$", re.MULTILINE)


def ask(question: str, node: Node) -> Any:
    """Ask an engine; takes :data:`ASKED` seconds at most.

    A canary may take as long as an engine may hang, and so may the metrics: the API server of a busy engine is slow.

    health and canary: the HTTP status, None without one. metrics: what moves, the number of requests (None: it does not
    tell) and whether it sleeps; None without an answer. port: whether something listens there, None when that cannot be
    told.
    """
    parts = urlsplit(node.url or "")
    host, port = str(parts.hostname), parts.port or 80
    if question == "port":
        try:
            socket.create_connection((host, port), ASKED).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return None
        return True
    canary = node.canary if question == "canary" else None
    patience = node.hang if question in ("canary", "metrics") else ASKED
    connection = http.client.HTTPConnection(host, port, timeout=patience)
    key = os.environ.get("VLLM_API_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        if canary:
            connection.request("POST", canary["path"], json.dumps(canary["body"]), headers)
        else:
            connection.request("GET", f"/{question}", headers=headers)
        answer = connection.getresponse()
        body = answer.read(MOST)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if question != "metrics":
        return answer.status
    text = body.decode(errors="replace")
    requests = REQUESTS.findall(text)
    return (
        (MOVES.findall(text), sum(map(float, requests)) if requests else None, bool(ASLEEP.search(text)))
        if answer.status == http.client.OK
        else None
    )


def notify(text: str) -> None:
    """Tell systemd."""
    place = os.environ.get("NOTIFY_SOCKET")
    if place:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(text.encode(), place.replace("@", "\0", 1) if place.startswith("@") else place)


def say(text: str) -> None:
    """Into the journal."""
    print(f"keeper: {text}", flush=True)


class Shell:
    """Sockets, processes, files and signals of a node, in one thread; others only wait for an answer each."""

    def __init__(self, node: Node, runtime: Path) -> None:
        self.node, self.runtime = node, runtime
        memory = Memory.read(runtime / "keeper.json")
        self.keeper = Keeper(node, os.environ.get("GPUHOSTS_KEEPER_TOKEN", ""), memory, time.monotonic())
        self.code: int | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.stopping = False
        self.alone = False  # in its unit, before it has an engine
        self.listener: socket.socket | None = None
        self.wires: dict[int, socket.socket] = {}
        self.buffers: dict[int, bytes] = {}
        self.count = 0
        self.inbox: queue.SimpleQueue[Callable[[float], None]] = queue.SimpleQueue()
        self.selector = selectors.DefaultSelector()
        self.wake, waker = socket.socketpair()
        self.waker = waker
        for end in (self.wake, waker):
            end.setblocking(False)
        self.selector.register(self.wake, selectors.EVENT_READ, self._woken)

    def run(self) -> int:
        """Keep the node until its end; the exit status."""
        signal.set_wakeup_fd(self.waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "stopping", True))
        notify("READY=1")
        beaten = 0.0
        while self.code is None:
            self._prepare()
            for key, _ in self.selector.select(TICK):
                key.data()
            while not self.inbox.empty():
                self.inbox.get()(time.monotonic())
            now = time.monotonic()
            if self.stopping:
                self.keeper.stop(now)
            if self.child and self.child.poll() is not None:
                self.keeper.exited(how(self.child.returncode))
            self.keeper.tick(now)
            self._act()
            if now - beaten >= BEAT:
                beaten = now
                notify("WATCHDOG=1")
        return self.code

    def _act(self) -> None:
        while actions := self.keeper.take():
            for name, *about in actions:
                getattr(self, f"_{name}")(*about)

    # Actions

    def _connect(self) -> None:
        self._aside(self._connecting)

    def _connecting(self) -> Callable[[float], None]:
        try:
            wire = socket.create_connection((self.node.head, self.node.port), GREETING)
        except OSError:
            return lambda now: self.keeper.lost(-1, now)
        return lambda now: self._take_in(wire, now)

    def _send(self, link: int, message: dict[str, Any]) -> None:
        wire, line = self.wires.get(link), json.dumps(message).encode() + b"\n"
        if wire:
            try:
                whole = wire.send(line) == len(line)
            except OSError:
                whole = False
            if not whole:  # nobody has read there for a long time
                self._close(link)
                self.keeper.lost(link, time.monotonic())

    def _close(self, link: int) -> None:
        wire = self.wires.pop(link, None)
        if wire:
            self.selector.unregister(wire)
            wire.close()
            del self.buffers[link]

    def _start(self) -> None:
        kept = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "GPUHOSTS_KEEPER_TOKEN")
        environment = {name: value for name, value in os.environ.items() if name not in kept}
        try:
            more = Path(self.node.arguments_file) if self.node.arguments_file else None
            words = json.loads(more.read_text(encoding="utf-8")) if more and more.exists() else []
            # A group of its own, to be killed at once.
            self.child = subprocess.Popen(
                [*self.node.command, *words], stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )
        except (OSError, TypeError, ValueError) as error:
            self.keeper.exited(f"cannot be started: {error}")

    def _terminate(self) -> None:
        if self.child and self.child.poll() is None:
            self.child.terminate()  # alone: it lets its own processes finish

    def _ask(self, question: str) -> None:
        def asking() -> Callable[[float], None]:
            answer = ask(question, self.node)
            return lambda now: self.keeper.answered(question, answer, now)

        self._aside(asking)

    def _remember(self) -> None:
        self._write("keeper.json", json.dumps(asdict(self.keeper.memory)))

    def _say(self, text: str) -> None:
        say(text)

    def _status(self) -> None:
        notify(f"STATUS={self.keeper.status}")
        self._write("keeper.prom", metrics(self.keeper))

    def _exit(self, code: int) -> None:
        self.code = code
        if self.child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)

    # Events

    def _prepare(self) -> None:
        """What has to be before this node can take part in an epoch."""
        if not self.alone:
            left = leftovers(os.getpid()) if os.environ.get("NOTIFY_SOCKET") else []
            self.alone = not left
            self.keeper.hinder(f"the end of process {left[0]} of an engine before; reboot this host" if left else "")
        if self.alone:
            self._listen()

    def _listen(self) -> None:
        if self.listener or self.node.rank != HEAD or self.node.nodes == 1:
            return
        family = socket.AF_INET6 if ":" in self.node.address else socket.AF_INET
        try:
            self.listener = socket.create_server((self.node.address, self.node.port), family=family)
        except OSError as error:  # the address comes with its network
            self.keeper.hinder(f"its own address: {error}")
            return
        self.keeper.hinder("")
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        if self.listener:
            with contextlib.suppress(OSError):
                self._take_in(self.listener.accept()[0], time.monotonic())

    def _take_in(self, wire: socket.socket, now: float) -> None:
        self.count += 1
        link = self.count
        wire.setblocking(False)
        self.wires[link], self.buffers[link] = wire, b""
        self.selector.register(wire, selectors.EVENT_READ, lambda: self._receive(link))
        self.keeper.opened(link, now)

    def _receive(self, link: int) -> None:
        wire = self.wires.get(link)
        if wire is None:
            return
        try:
            data = wire.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, rest = (self.buffers[link] + data).split(b"\n")
        self.buffers[link] = rest
        now, whole = time.monotonic(), bool(data) and len(rest) <= LINE
        for line in lines:
            message = parse(line)
            if message is None:
                whole = False
                break
            self.keeper.heard(link, message, now)
        if not whole:
            self._close(link)
            self.keeper.lost(link, now)

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.wake.recv(LINE)

    # Help

    def _aside(self, work: Callable[[], Callable[[float], None]]) -> None:
        """Let a thread do what takes a while, and this one then what it returns."""

        def wait() -> None:
            self.inbox.put(work())
            with contextlib.suppress(OSError):
                self.waker.send(b"!")

        threading.Thread(target=wait, daemon=True).start()

    def _write(self, name: str, text: str) -> None:
        new = self.runtime / f".{name}.new"
        try:
            new.write_text(text, encoding="utf-8")
            new.chmod(0o644)  # node_exporter is another user
            new.replace(self.runtime / name)
        except OSError as error:  # a full disk is no reason to end an engine
            say(f"cannot write {self.runtime / name}: {error}")


def how(code: int) -> str:
    """How a process has ended."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def leftovers(own: int, root: Path = Path("/")) -> list[int]:
    """Other processes of the unit before it has started any: SIGKILL does not end one that a driver holds."""
    try:
        group = (root / "proc/self/cgroup").read_text(encoding="ascii").rpartition("0::")[2].strip()
        found = (root / f"sys/fs/cgroup{group}/cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return []  # a system without the unified hierarchy
    return [int(number) for number in found if int(number) != own]


def clean_up(node: Node) -> None:
    """Remove what an earlier engine has left outside its unit."""
    if node.cleanup:
        subprocess.run(node.cleanup, check=True, stdin=subprocess.DEVNULL, timeout=CLEANED)


def main(words: list[str]) -> int:
    """Run a node, or clean up after it; the exit status."""
    *options, file = words or [""]
    try:
        node = Node.read(Path(file))
        clean_up(node)
        if options == ["--cleanup"]:
            return 0
        if node.nodes > 1 and not os.environ.get("GPUHOSTS_KEEPER_TOKEN"):
            say("an instance of several nodes needs a token: set vllm_keeper_token")
            return 1
        return Shell(node, Path(os.environ["RUNTIME_DIRECTORY"])).run()
    except (OSError, ValueError, TypeError, KeyError, subprocess.SubprocessError) as error:
        say(f"cannot run {file}: {error!r}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
