"""The one writer of what the front door's servers are: in service, drained, or down, since when and why.

``front_door_state.py drained|serving --by WHO [--check] SERVER...`` says it for servers, each as ADDRESS:PORT,
and tells what is another thing now.
``front_door_state.py render`` makes nginx.conf of what the role has written and of that state. NGINX's unit calls it
before each start and reload, so that no reload, whoever asks for it, opens a server that shall get nothing.

The state is a small file of JSON. nginx.conf is the role's text with ``down`` at the servers that are out, and why.
Where there is no state yet, or a damaged one, it is what nginx.conf says: so hosts of the releases before come to it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["FrontDoor", "State", "imported", "is_out", "render", "servers", "set_drained"]

State = dict[str, dict[str, Any]]  # by server: `drained` has `by` and `since`, `down` has `why` and `since`

ROOT = Path("/")
_UPSTREAM = re.compile(r"^\s*upstream (?P<name>\S+) \{", re.MULTILINE)
_SERVER = re.compile(
    r"^(?P<before>[ \t]*server (?P<server>[^\s;{]+:\d+)(?: [^;#\n]*?)??)(?P<down> down)?;"
    r"(?P<id> # \S+)?(?P<reason> \((?:maintenance|health)\))?$",
    re.MULTILINE,
)


def servers(text: str) -> dict[str, set[str]]:
    """The models that each server has a part in, from the text of a configuration."""
    found: dict[str, set[str]] = {}
    for upstream in _UPSTREAM.finditer(text):
        end = text.find("}", upstream.end())
        for line in _SERVER.finditer(text, upstream.end(), end):
            found.setdefault(line["server"], set()).add(upstream["name"])
    return found


def is_out(entry: Mapping[str, Any]) -> bool:
    """Whether a server shall get nothing."""
    return bool(entry.get("drained") or entry.get("down"))


def imported(text: str, now: float) -> State:
    """The state that a rendered nginx.conf shows."""
    state: State = {}
    for line in _SERVER.finditer(text):
        if line["down"] and (line["reason"] or "").strip(" ()") == "health":
            state[line["server"]] = {"down": {"why": "it did not answer", "since": now}}
        elif line["down"]:
            by = (line["reason"] or "").strip(" ()") or "operator"
            state[line["server"]] = {"drained": {"by": by, "since": now}}
    return state


def render(text: str, state: State) -> str:
    """A configuration with that state's marks, and no others."""

    def mark(line: re.Match[str]) -> str:
        entry = state.get(line["server"], {})
        reason = ""
        if entry.get("drained"):
            reason = " (maintenance)" if entry["drained"]["by"] == "maintenance" else ""
        elif entry.get("down"):
            reason = " (health)"
        return f"{line['before']}{' down' if is_out(entry) else ''};{line['id'] or ''}{reason}"

    return _SERVER.sub(mark, text)


def set_drained(state: State, server: str, wanted: str, by: str, now: float) -> str:
    """Say of a server what it shall be; what has changed by it, or "".

    An operator has the last word on every server. What the maintenance has drained it marks as its own, and it opens
    nothing else. Whoever puts a server into service has seen it answer: it does not wait for the health to see that.
    """
    entry = dict(state.get(server, {}))
    before = entry.get("drained")
    whose = before["by"] if before else ""
    if wanted == "drained" and (not before or (by == "operator" and whose != by)):
        entry["drained"] = {"by": by, "since": before["since"] if before else now}
    elif wanted == "serving" and (not before or by in ("operator", whose)):
        entry = {}
    if entry == state.get(server, {}):
        return ""
    state[server] = entry
    return f"{server}: {wanted} ({by})"


class FrontDoor:
    """The files on a host."""

    def __init__(self, root: Path = ROOT) -> None:
        self.configuration = root / "etc/nginx/nginx.conf"  # what NGINX reads
        self.source = root / "etc/nginx/front-door.conf"  # what the role writes
        self.state = root / "var/lib/gpuhosts-front-door/state.json"

    def text(self) -> str:
        """The configuration without anybody's marks; that of a release before, where the role has not run since."""
        path = self.source if self.source.exists() else self.configuration
        return render(path.read_text(encoding="utf-8"), {})

    def read(self) -> State:
        """What is known of the servers."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            told = json.loads(self.state.read_text(encoding="utf-8"))
            return {str(server): dict(entry) for server, entry in told["servers"].items()}
        try:
            return imported(self.configuration.read_text(encoding="utf-8"), time.time())
        except OSError:
            return {}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with (self.state.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def changing(self) -> Iterator[State]:
        """The state, for whoever changes it; it is written when it is another one then."""
        with self._alone():
            state = self.read()
            yield state
            self._write(state)

    def _write(self, state: State) -> None:
        """Keep what is known of servers that are still there."""
        known = servers(self.text())
        kept = {server: entry for server, entry in sorted(state.items()) if entry and server in known}
        text = json.dumps({"version": 1, "servers": kept}, indent=2) + "\n"
        if not self.state.exists() or self.state.read_text(encoding="utf-8") != text:
            _replace(self.state, text)

    def render(self, accepts: Callable[[Path], str]) -> bool:
        """Write nginx.conf anew where it is another one; whether it was.

        :raises ValueError: NGINX does not accept it.
        """
        with self._alone():
            state = self.read()
            self._write(state)
            text = render(self.text(), state)
            if self.configuration.exists() and self.configuration.read_text(encoding="utf-8") == text:
                return False
            new = self.configuration.with_name("nginx.conf.new")
            new.write_text(text, encoding="utf-8")
            problem = accepts(new)
            if problem:
                new.unlink()
                raise ValueError(problem.replace(str(new), str(self.source)))
            new.chmod(0o644)
            new.replace(self.configuration)
            return True


def _replace(path: Path, text: str) -> None:
    """A file that is there whole after a loss of power, too."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(0o644)
    new.replace(path)


def nginx_accepts(path: Path) -> str:
    """Why NGINX does not accept a configuration, or ""."""
    done = subprocess.run(["nginx", "-t", "-q", "-c", str(path)], capture_output=True, text=True, check=False)
    return (done.stderr or f"nginx -t: exit status {done.returncode}").strip() if done.returncode else ""


def main(arguments: list[str], front_door: FrontDoor | None = None) -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="front_door_state.py")
    parser.add_argument("what", choices=["drained", "serving", "render"])
    parser.add_argument("servers", nargs="*", metavar="ADDRESS:PORT")
    parser.add_argument("--by", choices=["operator", "maintenance"], default="operator")
    parser.add_argument("--check", action="store_true", help="only tell what would be changed")
    given = parser.parse_intermixed_args(arguments)
    door = front_door or FrontDoor()
    try:
        if given.what != "render":
            return _set(door, given)
        door.render(nginx_accepts)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _set(door: FrontDoor, given: argparse.Namespace) -> int:
    """Say it of the servers that the front door has, and let NGINX know."""
    known = servers(door.text())
    wanted = [server for server in given.servers if server in known]
    if given.check:
        state = door.read()
        told = [set_drained(state, server, given.what, given.by, time.time()) for server in wanted]
        print(*filter(None, told), sep="\n", end="\n" if any(told) else "")
        return 0
    with door.changing() as state:
        told = [set_drained(state, server, given.what, given.by, time.time()) for server in wanted]
    print(*filter(None, told), sep="\n", end="\n" if any(told) else "")
    # Also where nothing was new: whoever did it before may have died between the two.
    if door.render(nginx_accepts):
        subprocess.run(["systemctl", "try-reload-or-restart", "nginx.service"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
