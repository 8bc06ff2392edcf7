"""What a host has in the way of its instances, looked for before anything is written; private to the collection.

``given`` are the arguments of the module engine_config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._errors import EngineError
from .._host.docker import container_named
from .._host.places import closed_to, is_directory, may_write, unmounted
from .container import name_of
from .directories import unusable
from .files import opened
from .start import in_container

__all__ = ["refuse"]


def refuse(given: Mapping[str, Any], root: Path) -> None:
    """Raise EngineError unless every instance can write where it is told to, and has the name of its container."""
    for instance in given["instances"]:
        problem = next(_problems(instance, given, root), None)
        if problem:
            raise EngineError(f"{instance['id']}: {problem}")


def _problems(instance: Mapping[str, Any], given: Mapping[str, Any], root: Path) -> Iterator[str]:
    for name, path in opened(instance, given).items():
        yield from (f"{name} is {path}, {what}" for what in _of_directory(path, given["user"], given["group"]))
    if in_container(instance):
        yield from _of_container(instance["id"], root)


def _of_directory(path: str, user: str, group: str) -> Iterator[str]:
    reason = unusable(path)
    if reason:
        yield f"and {reason}."
    place = unmounted(Path(path))
    if place:
        remedy = f"Mount it there with `mount {place}`, or take it out of /etc/fstab."
        yield f"and nothing is mounted at {place}, as /etc/fstab wants it. {remedy}"
    place = closed_to(user, Path(path))
    if place:
        remedy = f"Let it with `chmod a+x {place}`, or name another directory."
        yield f"and the user {user} may not pass through {place}. {remedy}"
    if is_directory(Path(path)) and not may_write(user, Path(path)):
        remedy = f"Give it to the engines with `chown {user}:{group} {path}`, or name another directory."
        yield f"where the user {user} may not write. {remedy}"


def _of_container(instance: str, root: Path) -> Iterator[str]:
    name = name_of(instance)
    found = container_named(root, name)
    if found and found.instance != instance:
        remedy = f"Rename it with `docker rename {name} OTHER`, or remove it with `docker rm --force {name}`."
        yield f"the container {name} of the image {found.image} is none of this collection, and has its name. {remedy}"
