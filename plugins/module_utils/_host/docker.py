"""A Docker Engine as it is: whose it is, what it answers, what its settings say; private to the collection."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._errors import ConfigFileError
from .daemon_json import decode, parse
from .system import Run

__all__ = [
    "CDI_SINCE",
    "INSTANCE",
    "SETTINGS",
    "Container",
    "Engine",
    "at_least",
    "container_named",
    "containers_of",
    "has_image",
    "instances_by_container",
    "is_installed",
    "owners_of",
    "read_engine",
    "wait_for",
]

SETTINGS = "/etc/docker/daemon.json"
INSTANCE = "gpuhosts.vllm.instance"  # label of a container
CDI_SINCE = "25.0"

_SOCKET = "run/docker.sock"
_ANSWER_SECONDS = 30
_PAUSE_SECONDS = 0.5

# Where engines and their clients lie, and how package managers are asked whose a file is: a line "PACKAGE: ...".
_PLACES = (
    "/usr/bin/docker",
    "/usr/bin/dockerd",
    "/usr/sbin/dockerd",
    "/usr/local/bin/dockerd",
    "/usr/local/sbin/dockerd",
    "/snap/bin/docker",
)
_OWNER_OF = {
    "apt": ("dpkg-query", "--search"),
    "dnf": ("rpm", "--query", "--queryformat", "%{NAME}: \\n", "--file"),
}


@dataclass(frozen=True)
class Engine:
    """The engine of a host."""

    owners: Mapping[str, str] = field(default_factory=dict)  # packages by path; "" for a file of none
    info: Mapping[str, Any] | None = None  # https://docs.docker.com/reference/api/engine/; None when nobody answers
    content: bytes = b""  # of daemon.json

    @property
    def version(self) -> str:
        """The version that runs; "" when none does."""
        return str((self.info or {}).get("ServerVersion", ""))

    @property
    def has_cdi(self) -> bool:
        """Whether it hands out devices by CDI."""
        return bool((self.info or {}).get("CDISpecDirs"))

    @property
    def settings(self) -> dict[str, Any]:
        """What daemon.json says; raises ConfigFileError when nobody can tell."""
        return parse(decode(self.content, SETTINGS), SETTINGS)


def read_engine(root: Path, owners: Mapping[str, str] | None = None) -> Engine:
    """The engine of a host; ``owners`` are those of `owners_of`, where they matter."""
    try:
        content = (root / SETTINGS.lstrip("/")).read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise ConfigFileError(f"{SETTINGS} cannot be read: {error.strerror}. Move it out of the way.") from error
    return Engine(owners or {}, _ask(root / _SOCKET, "/info"), content)


def instances_by_container(root: Path) -> dict[str, str]:
    """The instances of the fleet that run in containers, by the ids of these; {} where no engine runs."""
    found = _ask(root / _SOCKET, f"/containers/json?filters={quote(json.dumps({'label': [INSTANCE]}))}", list)
    return {one["Id"]: one["Labels"][INSTANCE] for one in found or ()}


@dataclass(frozen=True)
class Container:
    """A container, running or not."""

    image: str
    instance: str  # of the fleet; "": it is somebody else's


def container_named(root: Path, name: str) -> Container | None:
    """The container of a name; None where there is none, or no engine runs."""
    found = _ask(root / _SOCKET, f"/containers/{name}/json")
    return Container(found["Config"]["Image"], (found["Config"]["Labels"] or {}).get(INSTANCE, "")) if found else None


def containers_of(root: Path) -> int | None:
    """How many containers an engine has, running or not; None when it does not answer."""
    found = _ask(root / _SOCKET, "/containers/json?all=true", list)
    return None if found is None else len(found)


def is_installed(root: Path) -> bool:
    """Whether there is a program of an engine."""
    return any((root / place.lstrip("/")).exists() for place in _PLACES[1:])


def has_image(root: Path, name: str) -> bool:
    """Whether an engine that runs has an image of a name."""
    return _ask(root / _SOCKET, f"/images/{name}/json") is not None


def owners_of(root: Path, manager: str, run: Run) -> dict[str, str]:
    """Packages by path of the programs that are there, "" for a file of no package."""
    found = {}
    for place in _PLACES:
        if (root / place.lstrip("/")).exists() or (root / place.lstrip("/")).is_symlink():
            owner = re.search(r"(?m)^([^\s:]+)(?::\w+)?: ", run([*_OWNER_OF[manager], place]))
            found[place] = owner[1] if owner else ""
    return found


def wait_for(seconds: float, read: Callable[[], Engine], enough: Callable[[Engine], bool]) -> Engine:
    """The engine as soon as it is as wanted, or as it is when the time is up."""
    deadline = time.monotonic() + seconds
    engine = read()
    while not enough(engine) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
        engine = read()
    return engine


def at_least(version: str, floor: str) -> bool:
    """Whether a version is as new as another one; what follows the numbers (+dfsg1, -1) does not count."""
    numbers = [[int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", one)[0])] for one in (version, floor)]
    return numbers[0] >= numbers[1]


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(str(self._path))


def _ask(path: Path, about: str, kind: type = dict) -> Any:
    """What the engine says; None when it does not answer, or has no such thing."""
    connection = _Connection(path)
    try:
        connection.request("GET", about)
        answer = connection.getresponse()
        info = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return info if answer.status == http.client.OK and isinstance(info, kind) else None
