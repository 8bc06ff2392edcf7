"""Asks every server of the front door for its health once a second and takes those out of service that do not answer.

Usage: ``front_door_health.py FILE`` runs as the file says, ``front_door_health.py --check FILE`` reads it only.

A thread asks each server; one loop judges what they hear, keeps it in the state (front_door_state) and lets NGINX
reload where a server goes out or comes in. Where the file says so, another thread asks each server for a token now and
then: an engine that has come to a standstill still answers for its health.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from front_door_sockets import end_connections
from front_door_state import FrontDoor, State, is_out, servers

__all__ = ["LATE", "STANDS", "Judge", "Limits", "Server", "ask", "ask_for_a_token", "read_limits"]

LATE = "accepts connections and does not answer"
STANDS = "answers no request for a token"
PATIENCE = 10.0  # seconds without news from a thread, and the watchdog hears nothing of this process either
OVERSLEPT = 1.5  # times its limit that a question took, and it was this host that was late
MOST = 1 << 12  # bytes of an answer in which its first line must be
KEYS = Path("/etc/nginx/keys.conf")  # of the role, with what the engines get to hear
AUTHORIZATION = re.compile(r"map \"\" \$engine_authorization \{\s*default \"(Bearer [^\"]+)\";")
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
USER = re.compile(r"^user (\S+);", re.MULTILINE)


@dataclass(frozen=True)
class Limits:
    """When a server goes out and comes in."""

    interval: float = 1.0  # seconds from one question to the next
    timeout: float = 0.8  # seconds for a whole answer
    misses: int = 2  # in a row, and it goes out
    flaps: int = 3  # times out within `flap_window`, and it comes in only after `flap_hold`
    flap_window: float = 600.0
    flap_hold: float = 30.0  # seconds in which it has answered every time
    reset: float = 5.0  # seconds of silence after it went out until its connections are ended; 0: never
    probe: float = 0.0  # seconds from one request for a token to the next; 0: none
    probe_timeout: float = 30.0  # seconds for a whole answer to it


def read_limits(path: Path) -> Limits:
    """What the role has written.

    :raises ValueError: It says something else than it should.
    """
    told = json.loads(path.read_text(encoding="utf-8"))
    kinds = {one.name: int if one.type == "int" else (int, float) for one in fields(Limits)}
    wrong = set(told) ^ set(kinds) or {name for name, kind in kinds.items() if not isinstance(told[name], kind)}
    if wrong:
        raise ValueError(f"{path}: {', '.join(sorted(wrong))} missing, unknown or of another kind")
    return Limits(**told)


@dataclass
class Server:
    """What is remembered of a server."""

    misses: int = 0  # in a row
    silent_since: float | None = None
    well_since: float | None = None
    outs: deque[float] = field(default_factory=deque)  # when it went out
    reset: bool = False  # its connections were ended since it went out


class Judge:
    """Decides from answers which servers are down. Times are seconds of any clock."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.servers: dict[str, Server] = {}

    def hear(self, name: str, why: str, now: float, *, down: bool, last: bool) -> str:
        """One answer of a server: ``out``, ``in``, ``reset`` or nothing to do.

        :param why: what was wrong with it, or "".
        :param down: whether it is out by an earlier word of this judge.
        :param last: whether no other server of its models is in service.
        """
        server = self.servers.setdefault(name, Server())
        if why:
            return self._missed(server, why, now, down=down, last=last)
        server.misses, server.silent_since, server.reset = 0, None, False
        server.well_since = now if server.well_since is None else server.well_since
        if not down:
            return ""
        while server.outs and server.outs[0] < now - self.limits.flap_window:
            server.outs.popleft()
        held = len(server.outs) > self.limits.flaps and not last
        return "" if held and now - server.well_since < self.limits.flap_hold else "in"

    def _missed(self, server: Server, why: str, now: float, *, down: bool, last: bool) -> str:
        server.well_since = None
        server.misses += 1
        server.silent_since = now if server.silent_since is None else server.silent_since
        if down:
            silent = why == LATE or why.startswith("cannot")
            if self.limits.reset and silent and not server.reset and now - server.silent_since >= self.limits.reset:
                server.reset = True
                return "reset"
            return ""
        # One that is late may only be busy. Where nobody else would answer, that is better than nothing.
        if server.misses < self.limits.misses or (why in (LATE, STANDS) and last):
            return ""
        server.outs.append(now)
        server.reset = False
        return "out"


def ask(server: str, timeout: float) -> str:
    """Ask a server for its health; what is wrong with it, or ""."""
    status, why = _status(server, f"GET /health HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n", timeout)
    return why or ("" if status == 200 else f"answers {status}")


def ask_for_a_token(server: str, model: str, authorization: str, timeout: float) -> str:
    """Ask a server for one token of a model; STANDS, or "".

    Whoever says that the queue is full, the key is wrong or the model makes no text does answer. Whoever takes no
    connection is not for this question.
    """
    body = json.dumps({"model": model, "prompt": "Hi", "max_tokens": 1})
    lines = ["POST /v1/completions HTTP/1.1", f"Host: {server}", "Connection: close", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *([f"Authorization: {authorization}"] if authorization else [])]
    status, why = _status(server, "\r\n".join([*lines, "", body]), timeout)
    return STANDS if why == LATE or status in (500, 502, 504) else ""


def _status(server: str, request: str, timeout: float) -> tuple[int, str]:
    """The status that a server answers with, or what is wrong with it."""
    address, _, port = server.rpartition(":")
    deadline = time.monotonic() + timeout
    try:
        connection = socket.create_connection((address, int(port)), timeout=timeout)
    except OSError as error:
        return 0, "refuses connections" if isinstance(error, ConnectionRefusedError) else f"cannot be reached: {error}"
    with connection:
        try:
            connection.sendall(request.encode())
            said = b""
            while b"\n" not in said and len(said) < MOST:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                piece = connection.recv(MOST)
                if not piece:
                    break
                said += piece
        except socket.timeout:
            return 0, LATE
        except OSError as error:
            return 0, f"breaks the connection off: {error}"
    status = STATUS.match(said)
    return (int(status[1]), "") if status else (0, "says nothing in HTTP")


def say(text: str) -> None:
    """To the journal."""
    print(text, file=sys.stderr, flush=True)


def notify(state: str) -> None:
    """Tell systemd (https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        # A systemd that starts itself anew is away for a moment; the watchdog hears the next one.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(state.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)


def reload_nginx() -> str:
    """Let NGINX take the state up; why it does not, or "". Its unit renders the configuration first."""
    command = ["systemctl", "reload", "nginx.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"exit status {done.returncode}" if done.returncode else ""


Heard = tuple[str, str]  # a server, and what was wrong with it


class Asker(threading.Thread):
    """Asks one server until it is told to stop."""

    def __init__(self, server: str, model: str, limits: Limits, heard: queue.Queue[Heard]) -> None:
        super().__init__(daemon=True, name=server)
        self.server, self.model, self.limits, self.heard = server, model, limits, heard
        self.stands = ""  # what the last request for a token has shown
        self.ended = threading.Event()
        self.last = time.monotonic()

    def run(self) -> None:
        """Ask, and ask sooner after a miss: two of them shall be known before the third second is over."""
        if self.limits.probe:
            threading.Thread(target=self.probe, daemon=True, name=f"{self.server}: tokens").start()
        while not self.ended.is_set():
            began = time.monotonic()
            why = ask(self.server, self.limits.timeout) or self.stands
            self.last = time.monotonic()
            # Where this process itself had to wait for a processor, it knows nothing of the server.
            if not (why == LATE and self.last - began > OVERSLEPT * self.limits.timeout):
                self.heard.put((self.server, why))
            pause = self.limits.interval / 2 if why else self.limits.interval
            self.ended.wait(max(0.05, began + pause - self.last))

    def probe(self) -> None:
        """Ask for a token, again and again."""
        while not self.ended.wait(self.limits.probe):
            self.stands = ask_for_a_token(self.server, self.model, authorization(), self.limits.probe_timeout)


def authorization(keys: Path = KEYS) -> str:
    """What the engines get to hear, of the file that NGINX reads it from; it may be another one any time."""
    with contextlib.suppress(OSError):
        found = AUTHORIZATION.search(keys.read_text(encoding="utf-8"))
        return found[1] if found else ""
    return ""


class Health:
    """The loop that judges, and what it does then."""

    def __init__(
        self,
        front_door: FrontDoor,
        limits: Limits,
        take_up: Callable[[], str] = reload_nginx,
        end: Callable[[str, int, int], int] = end_connections,
    ) -> None:
        self.front_door, self.judge, self.take_up, self.end = front_door, Judge(limits), take_up, end
        self.heard: queue.Queue[Heard] = queue.Queue()
        self.askers: dict[str, Asker] = {}
        self.models: dict[str, set[str]] = {}
        self.version: tuple[int, int] = (0, 0)  # of the configuration that the servers were read from
        self.pending = False  # NGINX has not taken up what is known
        self.uid = -1

    def look(self) -> None:
        """Find the servers, where the configuration is another one."""
        status = self.front_door.source.stat()
        version = (status.st_mtime_ns, status.st_ino)
        if version == self.version:
            return
        text = self.front_door.text()
        self.version, self.models = version, servers(text)
        user = USER.search(text)
        with contextlib.suppress(KeyError):
            self.uid = pwd.getpwnam(user[1]).pw_uid if user else -1
        for gone in set(self.askers) - set(self.models):
            self.askers.pop(gone).ended.set()
            self.judge.servers.pop(gone, None)
        for new in sorted(set(self.models) - set(self.askers)):
            # An upstream that is no model begins with _, which no name of a model does.
            model = min(one for one in self.models[new] if not one.startswith("_"))
            self.askers[new] = Asker(new, model, self.judge.limits, self.heard)
            self.askers[new].start()

    def last(self, server: str, state: State) -> bool:
        """Whether one of its models has no other server in service."""
        others = [one for one in self.models if one != server and not is_out(state.get(one, {}))]
        return any(not any(model in self.models[one] for one in others) for model in self.models.get(server, set()))

    def turn(self, wait: float = 1.0) -> None:
        """Judge all that was heard, or wait for something to be heard."""
        heard = []
        with contextlib.suppress(queue.Empty):
            heard.append(self.heard.get(timeout=wait))
            while True:
                heard.append(self.heard.get_nowait())
        state, silent = self.front_door.read(), []
        changes: dict[str, dict[str, Any] | None] = {}
        for server, why in heard:
            if server not in self.models:
                continue
            entry = state.setdefault(server, {})
            down = bool(entry.get("down"))
            verdict = self.judge.hear(server, why, time.monotonic(), down=down, last=self.last(server, state))
            if verdict == "out":
                changes[server] = {"why": why, "since": time.time()}
                entry["down"] = changes[server]
            elif verdict == "in":
                changes[server] = None
                entry.pop("down")
            elif verdict == "reset":
                silent.append(server)
        if changes:
            self.keep(changes)
        if self.pending:
            self.reload()
        for server in silent:
            self.reset(server)

    def keep(self, changes: Mapping[str, dict[str, Any] | None]) -> None:
        """Write the state."""
        with self.front_door.changing() as state:
            for server, down in changes.items():
                entry = state.setdefault(server, {})
                out = is_out(entry)
                entry.pop("down", None)
                if down:
                    entry["down"] = down
                self.pending |= is_out(entry) != out  # one that is drained is out anyway
                say(f"{server}: out of service, it {down['why']}" if down else f"{server}: in service again")

    def reload(self) -> None:
        """Let NGINX know; again at the next turn where it cannot."""
        problem = self.take_up()
        self.pending = bool(problem)
        if problem:
            say(f"NGINX does not reload: {problem}")

    def reset(self, server: str) -> None:
        """End the connections to a silent server: requests that nothing was answered to go to another one."""
        address, _, port = server.rpartition(":")
        try:
            number = self.end(address, int(port), self.uid)
        except OSError as error:
            say(f"{server}: requests there wait until it answers or their limit in time is over: {error}")
        else:
            say(f"{server}: silent for {self.judge.limits.reset:g} s, {number} connections ended")

    def alive(self) -> bool:
        """Whether news come from all threads."""
        return all(time.monotonic() - one.last < PATIENCE for one in self.askers.values())


def serve(limits: Limits, front_door: FrontDoor) -> int:
    """Run until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    health = Health(front_door, limits)
    health.look()
    notify("READY=1")
    while not ended.is_set():
        with contextlib.suppress(FileNotFoundError):  # while the role is taken away
            health.look()
        health.turn()
        if health.alive():
            notify("WATCHDOG=1")
    return 0


def main(arguments: list[str]) -> int:
    """Read the file, and run unless it shall only be checked."""
    try:
        limits = read_limits(Path(arguments[-1]))
    except (OSError, ValueError, TypeError) as error:
        say(str(error))
        return 1
    return 0 if arguments[0] == "--check" else serve(limits, FrontDoor())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
